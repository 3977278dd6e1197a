package link

import (
	"hash/maphash"
	"math/rand/v2"
	"sync/atomic"

	"causeway/engine/buf"
)

// recipients counts, for a link to another router, what each recipient behind it
// has in the link's queue: each is a destination of its own, with the marks of
// one (Config.QueueHigh, QueueLow), of which every connection that sends to it
// has its share (see shares). The link as a whole has linkQueues times as much,
// and there too each connection has its share.
//
// Counters are fixed in number, and frames find theirs by a hash of their
// recipient, one in each of two rows, like the lanes of shares: a recipient's
// count is the lesser of its two. So it is never below what the recipient has,
// and above it only if others that have frames in the queue meet it in both
// rows: with n of those for one in (2,048/n)². All that can happen then is that
// they share a bound. The seed is random, since who runs a domain chooses its
// addresses.
//
// Nothing is counted below a quarter of the low mark in the link's queue, so that
// a link that is not congested pays for nothing.
type recipients struct {
	key  func(frame []byte) []byte // Config.Recipient
	seed maphash.Seed
	low  int64 // Config.QueueLow

	released int64 // bytes since waits were last looked at; home loop

	of    [2 * recipientLanes]atomic.Int64 // bytes by recipient; row 0, then row 1
	pairs [2 * recipientLanes]atomic.Int64 // bytes by recipient and share: who sent them
}

// A recipient is the hash of one; never 0.
type recipient uint64

const (
	recipientBits  = 11
	recipientLanes = 1 << recipientBits

	// linkQueues is how many full queues of recipients a link's queue holds. One
	// recipient, or one that sends to one, leaves most of it to the others.
	linkQueues = 4

	// Waits for a recipient are looked at when this part of the low mark has left
	// the link's queue: they end a little late, and not each write looks at all.
	waitsPart = 8

	// Where memory is short, frames are taken out of the queue for recipients that
	// have at least this part of what the one with the most has.
	trimPart = 2
)

// SetLinkOnLoop makes c a link to another router: from now on its queue is
// bounded for each recipient by itself, see Loop.RoomFor, and it has the share of
// several connections in what a turn reads (readMore). It needs Config.Recipient.
func (c *Conn) SetLinkOnLoop() {
	cfg := &c.loop.engine.cfg
	if cfg.Recipient == nil {
		panic("link: SetLinkOnLoop without Config.Recipient")
	}
	c.isLink = true
	c.loop.setShares(c.slot, &shares{
		epoch: c.slot.nextEpoch(), salt: rand.Uint64(),
		behind: &recipients{key: cfg.Recipient, seed: maphash.MakeSeed(), low: int64(cfg.QueueLow)},
	})
}

// recipient returns whom the frame is for.
func (r *recipients) recipient(frame []byte) recipient {
	return recipient(maphash.Bytes(r.seed, r.key(frame))) | 1
}

// lanes returns the recipient's places in both rows.
func (to recipient) lanes() (a, b int) {
	return int(to >> (64 - recipientBits)), recipientLanes + int(to>>(64-2*recipientBits)&(recipientLanes-1))
}

// from returns what stands for the recipient and who sends to it together.
func (to recipient) from(of share) recipient {
	h := (uint64(to) ^ uint64(of&(1<<epochAt-1))) * 0x9e3779b97f4a7c15
	return recipient(h ^ h>>32)
}

// has returns what the recipient has in the queue, in bytes, or more, when others
// meet it in both rows.
func (r *recipients) has(to recipient) int64 {
	a, b := to.lanes()
	return min(r.of[a].Load(), r.of[b].Load())
}

// hasOf is has for what one connection has sent to the recipient.
func (r *recipients) hasOf(to recipient, of share) int64 {
	a, b := to.from(of).lanes()
	return min(r.pairs[a].Load(), r.pairs[b].Load())
}

// add adds n bytes of a recipient's.
func (r *recipients) add(to recipient, of share, n int) {
	a, b := to.lanes()
	r.of[a].Add(int64(n))
	r.of[b].Add(int64(n))
	a, b = to.from(of).lanes()
	r.pairs[a].Add(int64(n))
	r.pairs[b].Add(int64(n))
}

// roomBehind is RoomFor for a link: `now` are its shares.
func (l *Loop) roomBehind(s *slot, now *shares, from Ref, b *buf.Buffer) Room {
	low, high := int64(l.engine.cfg.QueueLow), int64(l.engine.cfg.QueueHigh)
	all, most := s.backlog.Load(), l.account.QueueMax()
	short := most < high
	switch {
	case short && all+buf.SizeOf(b) > linkQueues*most:
		return RoomNone
	case all >= linkQueues*high:
		return RoomFull
	case all <= low/sharesFrom:
		return RoomYes
	}
	to, of := now.behind.recipient(b.B), now.of(from)
	full := RoomFull
	if short {
		high, full = most, RoomNone // waiting would take some
	}
	has := now.behind.has(to)
	switch {
	case has >= high, short && has+buf.SizeOf(b) > most:
		return full
	case has > low && now.behind.hasOf(to, of) >= high-has:
		return full
	case all > linkQueues*low && now.has(from) >= linkQueues*high-all:
		return full
	}
	return RoomYes
}

// roomy tells whether who waits for the recipient is to go on: there is room for
// it in its queue, and in the link's, of which all bytes wait.
func (r *recipients) roomy(to recipient, all int64) bool {
	return all <= linkQueues*r.low && (to == 0 || r.has(to) <= r.low)
}

// endWaitsBehind ends those waits for a link for which there is room, now that n
// bytes have left its queue and `left` are in it.
func (l *Loop) endWaitsBehind(s *slot, behind *recipients, n int, left int64) {
	if behind.released += int64(n); behind.released < behind.low/waitsPart {
		return
	}
	behind.released = 0
	l.freed = s.takeIf(l.freed[:0], func(w waiter) bool { return behind.roomy(w.to, left) })
	l.tellFreed()
}

// mostBehind returns the most that any recipient behind c has in its queue, in
// bytes, by what is counted; 0 when c is no link.
func (c *Conn) mostBehind() (most int64) {
	now := c.slot.shares.Load()
	if now == nil || now.behind == nil {
		return 0
	}
	for q := range c.queue.all() {
		if q.share != 0 {
			most = max(most, now.behind.has(now.behind.recipient(q.b.B)))
		}
	}
	return most
}

// isOfMost tells whether q is for one of the recipients that have at least a
// trimPart of so many bytes; 0: all are.
func (c *Conn) isOfMost(q queued, most int64) bool {
	if most == 0 {
		return true
	}
	now := c.slot.shares.Load()
	return q.share != 0 && now.behind.has(now.behind.recipient(q.b.B)) >= most/trimPart
}
