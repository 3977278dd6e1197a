package link

import "causeway/engine/buf"

// Kind says how a frame is queued and counted.
type Kind uint8

const (
	Forwarded Kind = iota // came from another connection
	Own                   // made by the handler; counted apart
	OwnAhead              // the same, and goes before the frames that wait
	OwnLast               // the same, and no frame goes after it: later ones are undeliverable
)

// Send takes b, a forwarded frame, and queues it for the connection `to`, on
// whatever loop that is. Frames of one kind from one loop to one destination
// keep their order. A frame for a connection that is gone comes back through
// Handler.Undeliverable.
func (l *Loop) Send(to Ref, b *buf.Buffer) { l.send(0, to, b, Forwarded) }

// SendFrom is Send for a frame of the connection `from`, in whose share of the
// queue it counts.
func (l *Loop) SendFrom(from, to Ref, b *buf.Buffer) { l.send(from, to, b, Forwarded) }

// SendKind is Send for a frame of the kind given.
func (l *Loop) SendKind(to Ref, b *buf.Buffer, kind Kind) { l.send(0, to, b, kind) }

func (l *Loop) send(from, to Ref, b *buf.Buffer, kind Kind) {
	n := len(b.B)
	if to.Loop() == l.index {
		if c := l.Conn(to); c != nil && c.takes(b, kind) {
			l.account.Use(buf.PartQueues, buf.SizeOf(b))
			c.slot.backlog.Add(int64(n))
			c.enqueue(b, kind, c.slot.charge(kind, from, b))
			return
		}
		l.dead = append(l.dead, parcel{to: to, b: b})
		l.arm()
		return
	}
	s := l.engine.slotOf(to)
	if s == nil {
		l.engine.sendNowhere(to, b)
		return
	}
	l.account.Use(buf.PartQueues, buf.SizeOf(b))
	s.backlog.Add(int64(n))
	l.outbox[to.Loop()] = append(l.outbox[to.Loop()], parcel{to: to, b: b, tag: uint32(s.charge(kind, from, b)), kind: kind})
	l.arm()
}

// Send is Loop.Send for goroutines that are no loops; it takes a lock. After
// Close it ends b, which is counted as undeliverable but not reported.
func (e *Engine) Send(to Ref, b *buf.Buffer) {
	s := e.slotOf(to)
	if s == nil {
		e.sendNowhere(to, b)
		return
	}
	l := e.loops[to.Loop()]
	e.cfg.Budget.Use(buf.PartQueues, buf.SizeOf(b))
	s.backlog.Add(int64(len(b.B)))
	if l.inbox.put(parcel{to: to, b: b}) {
		l.wake()
		return
	}
	s.backlog.Add(-int64(len(b.B)))
	e.cfg.Budget.Use(buf.PartQueues, -buf.SizeOf(b))
	l.stat.undeliverable.Add(1)
	buf.Put(b)
}

// sendNowhere gives back a frame for a Ref that never was; it takes b.
func (e *Engine) sendNowhere(to Ref, b *buf.Buffer) {
	l := e.loops[min(to.Loop(), len(e.loops)-1)]
	if !l.Post(func() { l.dead = append(l.dead, parcel{to: to, b: b}) }) {
		l.stat.undeliverable.Add(1)
		buf.Put(b)
	}
}

// Backlog returns how many bytes of frames wait for the connection `to`: given
// to Send on any loop, and not yet handed to the kernel; 0 when it is gone. Any
// goroutine, without a lock.
func (l *Loop) Backlog(to Ref) int {
	if s := l.engine.liveSlot(to); s != nil {
		return int(s.backlog.Load())
	}
	return 0
}

// Full tells whether to's backlog has reached Config.QueueHigh, a link's four
// times that, or what memory allows.
func (l *Loop) Full(to Ref) bool {
	s := l.engine.liveSlot(to)
	if s == nil {
		return false
	}
	most := min(int64(l.engine.cfg.QueueHigh), l.account.QueueMax())
	if now := s.shares.Load(); now != nil && now.behind != nil {
		most *= linkQueues
	}
	return s.backlog.Load() >= most
}

// Room is whether a frame may be queued.
type Room uint8

const (
	RoomYes  Room = iota
	RoomFull      // the queue is full, or its sender has its share of it; the sender may wait, see WaitForRoomOnLoop
	RoomNone      // memory is short; waiting would take some
)

// RoomFor tells whether there is room for b, a frame of the connection `from`, in
// the queue of the connection `to`, and behind a link in that of b's recipient.
// What is sent all the same is not refused. Below Config.QueueLow only memory
// counts, so that who has waited finds room.
func (l *Loop) RoomFor(from, to Ref, b *buf.Buffer) Room {
	s := l.engine.liveSlot(to)
	if s == nil {
		return RoomYes // to come back
	}
	if now := s.shares.Load(); now != nil && now.behind != nil {
		return l.roomBehind(s, now, from, b)
	}
	backlog, high := s.backlog.Load(), int64(l.engine.cfg.QueueHigh)
	most := l.account.QueueMax()
	switch {
	case most < high && backlog+buf.SizeOf(b) > most:
		return RoomNone
	case backlog >= high:
		return RoomFull
	}
	low := int64(l.engine.cfg.QueueLow)
	if backlog <= low/sharesFrom {
		return RoomYes
	}
	switch has := l.congested(s).has(from); {
	case backlog <= low || has < min(high, most)-backlog:
		return RoomYes
	case most < high:
		return RoomNone
	}
	return RoomFull
}

// uncharge undoes send for a frame to another loop that has ended, where nobody
// waits any more.
func (l *Loop) uncharge(p parcel) {
	n := len(p.b.B)
	l.account.Use(buf.PartQueues, -buf.SizeOf(p.b))
	if s := l.engine.slotOf(p.to); s != nil {
		s.discharge(share(p.tag), p.b)
		s.backlog.Add(-int64(n))
	}
}

// Alive tells whether the connection `to` is not gone. Any goroutine, without a
// lock.
func (l *Loop) Alive(to Ref) bool { return l.engine.liveSlot(to) != nil }

// FrameMax returns what SetFrameMaxOnLoop has set for the connection `to`; 0 when
// nothing, or when it is gone. Any goroutine, without a lock.
func (l *Loop) FrameMax(to Ref) int {
	if s := l.engine.liveSlot(to); s != nil {
		return int(s.frameMax.Load())
	}
	return 0
}

// SetFrameMaxOnLoop notes the largest frame that may be sent to c, in bytes, for
// others to ask by Loop.FrameMax.
func (c *Conn) SetFrameMaxOnLoop(bytes int) { c.slot.frameMax.Store(uint32(bytes)) }

// GiveBackOnLoop ends, through Handler.Undeliverable, the journey of forwarded
// frames that wait for c and are not sealed, not even in part, and of which `which`
// is true; nil: of all.
func (c *Conn) GiveBackOnLoop(which func(*buf.Buffer) bool) {
	var kept fifo[queued]
	bytes := 0
	for l := c.loop; !c.queue.empty(); {
		inPart := c.sealed > 0 && c.sealing == &c.queue && kept.empty()
		q := c.queue.pop(&l.spareQueued)
		if q.own || inPart || which != nil && !which(q.b) {
			kept.push(&l.spareQueued, q)
			continue
		}
		c.leaves(q)
		bytes += len(q.b.B)
		c.unsealed -= len(q.b.B)
		l.dead = append(l.dead, parcel{to: c.Ref(), b: q.b})
		l.arm()
	}
	c.queue = kept
	c.noteOldest()
	if bytes > 0 {
		c.loop.release(c.slot, bytes)
	}
}

// TrimOnLoop takes forwarded frames that wait for c and are not sealed, not even
// in part, out of its queue, the oldest first, until that has freed so many bytes
// of memory, and gives them to drop, which takes them. It returns what is free.
// Of a link's queue it takes those of the recipients that have the most, and may
// free less.
func (c *Conn) TrimOnLoop(memory int64, drop func(*buf.Buffer)) (freed int64) {
	var kept fifo[queued]
	bytes, most := 0, c.mostBehind()
	for l := c.loop; !c.queue.empty(); {
		inPart := c.sealed > 0 && c.sealing == &c.queue && kept.empty()
		q := c.queue.pop(&l.spareQueued)
		if q.own || inPart || freed >= memory || !c.isOfMost(q, most) {
			kept.push(&l.spareQueued, q)
			continue
		}
		c.leaves(q)
		freed += buf.SizeOf(q.b)
		bytes += len(q.b.B)
		c.unsealed -= len(q.b.B)
		drop(q.b)
	}
	c.queue = kept
	c.noteOldest()
	if bytes > 0 {
		c.loop.release(c.slot, bytes)
	}
	return freed
}

// leaves takes q, which is no longer in c's queue, out of what counts queues but
// the backlog: that lasts until the kernel has it.
func (c *Conn) leaves(q queued) {
	c.slot.discharge(q.share, q.b)
	c.loop.account.Use(buf.PartQueues, -buf.SizeOf(q.b))
}

// release takes n bytes out of the backlog of a slot of this loop, and ends the
// waits for it when it is low. A waiter registers, then looks at the backlog;
// here the backlog changes, then waiters are looked for: one of both sees the
// other.
func (l *Loop) release(s *slot, n int) {
	left, low := s.backlog.Add(-int64(n)), int64(l.engine.cfg.QueueLow)
	if left < 0 {
		panic("link: a slot's backlog is negative")
	}
	if !s.waiting.Load() {
		return
	}
	if left <= low {
		l.endWaits(s)
	} else if now := s.shares.Load(); now != nil && now.behind != nil {
		l.endWaitsBehind(s, now.behind, n, left)
	}
}

// endWaits tells all who wait for s that they may go on.
func (l *Loop) endWaits(s *slot) {
	l.freed = s.take(l.freed[:0])
	l.tellFreed()
}

// tellFreed tells those whose waits have ended.
func (l *Loop) tellFreed() {
	for _, w := range l.freed {
		if home := w.ref.Loop(); home == l.index {
			l.resumes = append(l.resumes, w)
		} else {
			l.outbox[home] = append(l.outbox[home], parcel{to: w.ref, tag: w.seq})
		}
	}
	l.arm()
}

// undeliverable gives b back to the handler; it takes b.
func (l *Loop) undeliverable(to Ref, b *buf.Buffer) {
	l.stat.undeliverable.Add(1)
	if l.ended {
		buf.Put(b)
		return
	}
	l.engine.handler.Undeliverable(l, to, b)
}
