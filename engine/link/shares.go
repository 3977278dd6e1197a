package link

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
	"unsafe"

	"causeway/engine/buf"
)

// shares counts, for a destination whose queue is long, what each connection
// that sends to it has in the queue, so that one cannot fill it alone: who has as
// much as is free has its share, and waits (a dynamic threshold like that of
// buf.Budget, with a factor of one). Alone it gets half of the queue, n that all
// want more get 1/(n+1) each, and a newcomer always finds room.
//
// Senders are hashed into lanes (stochastic fairness queueing; McKenney, INFOCOM
// 1990), into one of each row: a sender's count is the lesser of its two, so it
// is only taken for greedy if a greedy one shares both its lanes (a count-min
// sketch; Cormode and Muthukrishnan, 2005). The salt is new each time, so who
// meets in a lane changes.
//
// A destination has shares from the first frame that finds a quarter of the low
// mark in its queue, until that, looked at once a second, is a 16th: a queue that
// goes up and down does not make them anew each time. What was queued before is
// nobody's.
type shares struct {
	epoch  uint16 // of the slot's; never 0
	salt   uint64
	behind *recipients                   // of a link, whose shares last as long as it does; else nil
	lanes  [2 * lanesPerRow]atomic.Int64 // bytes; row 0, then row 1
}

// A share is what a frame in the queue remembers of whose it is, so that the
// destination's loop can take it out: the epoch of the shares that count it, and
// its lanes in both rows. 0: none counts it. A frame that is charged in the
// moment in which another loop ends the shares keeps an epoch that is over, and
// is taken out of nothing.
//
//	31    16 15   8 7    0
//	| epoch | lane | lane |
type share uint32

const (
	laneBits    = 6
	lanesPerRow = 1 << laneBits
	laneField   = 8 // bits of a lane in a share
	epochAt     = 2 * laneField

	// The parts of the low mark from which a slot has shares, and at which they end.
	sharesFrom = 4
	sharesEnd  = 16
)

var _ [0]struct{} = [lanesPerRow >> laneField]struct{}{} // a lane fits its field

// of returns the share of a frame from the connection given.
func (s *shares) of(from Ref) share {
	h := (uint64(from) ^ s.salt) * 0x9e3779b97f4a7c15 // Fibonacci hashing; Knuth, section 6.4
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	a, b := h>>(64-laneBits), h>>(64-2*laneBits)&(lanesPerRow-1)
	return share(s.epoch)<<epochAt | share(a)<<laneField | share(b)
}

// add adds n bytes to both lanes of a share of this epoch.
func (s *shares) add(to share, n int) {
	s.lanes[to>>laneField&(lanesPerRow-1)].Add(int64(n))
	s.lanes[lanesPerRow+to&(lanesPerRow-1)].Add(int64(n))
}

// has returns what the connection given has in the queue, in bytes, or more,
// when others meet it in both its lanes.
func (s *shares) has(from Ref) int64 {
	to := s.of(from)
	return min(s.lanes[to>>laneField&(lanesPerRow-1)].Load(), s.lanes[lanesPerRow+to&(lanesPerRow-1)].Load())
}

// congested returns the shares of a slot of any loop, which it makes if there are
// none.
func (l *Loop) congested(s *slot) *shares {
	for {
		if now := s.shares.Load(); now != nil {
			return now
		}
		if s.shares.CompareAndSwap(nil, &shares{epoch: s.nextEpoch(), salt: rand.Uint64()}) {
			l.account.Use(buf.PartLists, int64(unsafe.Sizeof(shares{})))
		}
	}
}

// nextEpoch returns the epoch of a slot's next shares: not 0, which would look
// like a share that is not counted.
func (s *slot) nextEpoch() uint16 {
	for {
		if epoch := uint16(s.epoch.Add(1)); epoch != 0 {
			return epoch
		}
	}
}

// endOldShares ends the shares of this loop's slots whose queue is no longer long.
func (l *Loop) endOldShares() {
	if l.now.Sub(l.sharesLookedAt) < time.Second {
		return
	}
	l.sharesLookedAt = l.now
	for _, c := range l.conns {
		if c == nil || c.slot.backlog.Load() > int64(l.engine.cfg.QueueLow)/sharesEnd {
			continue
		}
		if now := c.slot.shares.Load(); now != nil && now.behind == nil {
			l.endShares(c.slot)
		}
	}
}

// endShares ends the shares of a slot of this loop, if there are any.
func (l *Loop) endShares(s *slot) {
	if s.shares.Load() != nil {
		l.setShares(s, nil)
	}
}

// setShares gives the slot of this loop other shares, and counts their memory.
func (l *Loop) setShares(s *slot, to *shares) {
	before := s.shares.Swap(to)
	l.account.Use(buf.PartLists, to.size()-before.size())
}

// size returns the memory that s takes, in bytes.
func (s *shares) size() (bytes int64) {
	if s == nil {
		return 0
	}
	if s.behind != nil {
		bytes = int64(unsafe.Sizeof(recipients{}))
	}
	return bytes + int64(unsafe.Sizeof(shares{}))
}

// charge counts b, which is in the backlog already, for the connection that it
// came from, 0 if for none, and a forwarded one behind a link for its recipient.
func (s *slot) charge(kind Kind, from Ref, b *buf.Buffer) share {
	now := s.shares.Load()
	switch {
	case now == nil:
		return 0
	case now.behind == nil && from == 0:
		return 0
	case now.behind != nil && (kind != Forwarded || s.backlog.Load() <= now.behind.low/sharesFrom):
		return 0
	}
	of := now.of(from)
	now.addFrame(of, b, 1)
	return of
}

// discharge takes a frame that was charged out again.
func (s *slot) discharge(of share, b *buf.Buffer) {
	if of == 0 {
		return
	}
	if now := s.shares.Load(); now != nil && now.epoch == uint16(of>>epochAt) {
		now.addFrame(of, b, -1)
	}
}

// addFrame adds b, or with sign -1 takes it out.
func (s *shares) addFrame(of share, b *buf.Buffer, sign int) {
	n := sign * len(b.B)
	s.add(of, n)
	if s.behind != nil {
		s.behind.add(s.behind.recipient(b.B), of, n)
	}
}
