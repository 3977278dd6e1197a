package engine

import (
	"time"

	"causeway/codec"
	"causeway/engine/admin"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// What the cap on memory (Config.Memory, buf.Budget) comes to, in the order in
// which memory runs out:
//
//  1. A recipient may have less in its queue than --queue-high, the less the
//     less is free. A frame beyond that is dropped as queue-full, at once: its
//     sender is not paused for it, since what a paused sender has sent would
//     stay in memory. So are large answers not made, long notices become
//     counts, and ciphertext is made in small pieces.
//     Where recipients do not read, so that queues never become shorter, the
//     largest lose their oldest frames, as queue-full.
//  2. Little is left for frames that wait for their verdicts: connections that
//     have more than a few KB waiting rest, which means that their sockets are
//     not read. They go on one after another, as memory becomes free. Nodes that
//     send little are read as ever.
//  3. Nothing is left: frames are dropped as queue-full before their verdict, at
//     last also those of nodes that send little.
//
// Nothing waits for ever: what a resting connection waits for are verdicts, which
// wait for nothing (1), see buf.Budget. Handshakes, link control and frames of
// the router's own go on; they are bounded each.
const (
	memoryDefault = 1 << 30
	memoryMin     = 32 << 20

	// memoryPerFrame: the cap holds so many of the largest frames, so that one fits
	// an eighth of the cap (that of partial frames) twice, since a frame that grows
	// is copied, and a queue's part of three quarters.
	memoryPerFrame = 16

	// QueueHighPart: a queue alone may take this part of the cap, counted in bytes
	// of frames, which may take two and a half times as much, before memory is
	// short: b + 2.5b/8 is then less than an eighth of what recipients may have.
	QueueHighPart = 16

	noticesPart      = 32 // of the cap for notices that are owed
	certificatesPart = 64 // of the cap for certificates of members that have left; a 16th is reserved for both and handshakes

	// A recipient is slow whose oldest frame has waited for so long. The largest
	// queues of slow ones are cut to a part, (reclaimPart-1)/reclaimPart, of the
	// largest one's size.
	slowAfter   = time.Second
	reclaimPart = 4

	restingFrom = 4 << 10  // bytes that wait for verdicts
	readBytes   = 64 << 10 // that a connection may read at once
	turnsToRead = 2        // from the end of a rest until what has been read shows
	ownSure     = 4 << 10  // bytes of own frames that a peer may always have waiting for it
)

// MemoryLeast returns the least Config.Memory for bodies of the size given.
func MemoryLeast(bodyMax uint32) int64 {
	largest := codec.HeaderSize + int(bodyMax) + codec.SignatureLengthSize + codec.SignatureMax
	return max(memoryMin, memoryPerFrame*int64(buf.Capacity(largest)))
}

// overflows takes b, one of p's frames, when nothing is left of the memory, and
// drops it without having its signature checked; rules that need none come
// before the queue's (PROTOCOL.md section 8). False: it may go on. That is so for
// link control from who sends little.
func (p *peer) overflows(b *buf.Buffer, control bool) bool {
	l := p.loop
	a := l.link.Account()
	if !a.Met() || p.ring.Bytes() < restingFrom && (control || !a.Exhausted()) {
		return false
	}
	f := codec.Raw(b.B)
	reason := dropQueueFull
	if !control {
		if _, before := p.decide(f); before != dropNone && (before != dropNoRoute || l.awaited(f.Recipient(), false) == nil) {
			reason = before
		}
		l.owe(p.domain, reason, f)
	}
	l.count.pressed[pressedUnchecked].Add(1)
	l.drop(reason, b)
	p.rest()
	return true
}

// rest lets p's socket unread until its turn comes.
func (p *peer) rest() {
	if p.resting || p.phase == phaseClosed {
		return
	}
	p.resting = true
	p.conn.RestOnLoop()
	p.loop.resting = append(p.loop.resting, p)
	p.loop.count.pressed[pressedPaused].Add(1)
}

// endRests lets connections go on, who has rested longest first, as many as may
// read at once with the memory that there is.
func (l *loop) endRests() {
	if l.letGo > 0 {
		l.letGo--
		return
	}
	if len(l.resting) == 0 {
		return
	}
	a := l.link.Account()
	a.Look()
	n := 0
	for spare := a.Spare(); n < len(l.resting) && spare > 0; n++ {
		p := l.resting[n]
		p.resting = false
		if p.phase != phaseClosed {
			p.conn.EndRestOnLoop()
			spare -= 2 * readBytes // frames take more than what they are read from
		}
	}
	if n > 0 {
		l.letGo = turnsToRead
	}
	rest := copy(l.resting, l.resting[n:])
	clear(l.resting[rest:])
	l.resting = l.resting[:rest]
	if rest == 0 {
		l.resting = nil
	}
}

// endWaits ends all waits for room when memory is short.
func (l *loop) endWaits() {
	if len(l.waiting) == 0 || !l.link.Account().Short() {
		return
	}
	for p := range l.waiting {
		p.conn.CancelWaitOnLoop()
		p.roomed()
	}
}

// reclaim gives up frames that wait for slow recipients, those with the longest
// queues, when so little is free that short queues would be refused.
func (l *loop) reclaim(now time.Time) {
	a := l.link.Account()
	wanting := a.Wanting()
	if wanting <= 0 {
		return
	}
	slow := func(c *link.Conn) bool {
		oldest := c.OldestQueued()
		return !oldest.IsZero() && now.Sub(oldest) >= slowAfter
	}
	largest := 0
	l.link.Range(func(c *link.Conn) {
		if slow(c) {
			largest = max(largest, c.WaitingOnLoop())
		}
	})
	keep := largest / reclaimPart * (reclaimPart - 1)
	l.link.Range(func(c *link.Conn) {
		if more := c.WaitingOnLoop() - keep; wanting > 0 && more > 0 && slow(c) {
			wanting -= c.TrimOnLoop(min(int64(more), wanting), l.reclaimed)
		}
	})
}

// reclaimed gives up b, which has waited in a queue.
func (l *loop) reclaimed(b *buf.Buffer) {
	l.count.pressed[pressedGivenUp].Add(1)
	l.giveUp(dropQueueFull, b)
}

// takes tells whether so many bytes more may be made for the peer, of what waits
// for it alone: answers, notices, lists.
func (p *peer) takes(bytes int) bool {
	ahead := p.conn.AheadOnLoop()
	return ahead < answersMax && int64(ahead+bytes) <= max(p.loop.link.Account().OwnMax(), ownSure)
}

// Effects of memory that is short, labels of causeway_memory_pressure_total.
const (
	pressedRefused   = iota // a frame found no room in a queue for want of memory
	pressedUnchecked        // a frame was dropped before its verdict
	pressedGivenUp          // a frame was taken out of the queue of a slow recipient
	pressedPaused           // a connection was not read for a while
	pressedEffects
)

var pressedNames = [pressedEffects]string{"refused", "unchecked", "given-up", "paused"}

// MemoryLimit returns the cap, in bytes.
func (r *Router) MemoryLimit() int64 { return r.budget.Limit() }

// Connections returns how many connections are open.
func (r *Router) Connections() int { return r.link.Connections() }

func (r *Router) addMemoryMetrics(m *admin.Metrics) {
	m.Add(admin.Family{
		Name: "causeway_memory_bytes", Help: "Memory that counts for --memory, by what it is for.", Labels: []string{"part"},
		Read: func() (s []admin.Sample) {
			for part, n := range r.budget.Usage() {
				s = append(s, admin.Sample{Labels: []string{buf.Part(part).String()}, Value: float64(n)})
			}
			return s
		},
	})
	gauge(m, "causeway_memory_limit_bytes", "The cap on the sum of causeway_memory_bytes: --memory.",
		func() float64 { return float64(r.budget.Limit()) })
	m.Add(admin.Family{
		Name: "causeway_memory_pressure_total", Counter: true, Labels: []string{"effect"},
		Help: "What was done because memory was short: frames refused by a queue, dropped unchecked, or given up by a queue (all count as queue-full too), connections not read for a while.",
		Read: func() (s []admin.Sample) {
			for effect, name := range pressedNames {
				var n uint64
				for _, l := range r.loops {
					n += l.count.pressed[effect].Load()
				}
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(n)})
			}
			return s
		},
	})
}
