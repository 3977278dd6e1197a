package node

import (
	"bytes"
	"cmp"
	"slices"

	"causeway/codec"
)

// Duplicates, PROTOCOL.md section 9 rule 5.
//
//	send time:   …  floor ┊ remembered frames, at most framesMax ┊ …
//	             late     ┊ duplicate, or new                    ┊ new
//
// A frame is known by (sender, send time), never by its signature. When a
// sender's frames are too many, the lower half is forgotten and the floor rises
// to the highest of them. When all frames together are too many, that happens to
// every sender of whom many are remembered. When that does not help, or senders
// are too many, the sixteenth of them whose newest frames are oldest is forgotten
// and the general floor rises: it is where the floor of a sender that is not
// remembered stands.
//
// A frame that is sent again comes seconds late, and must not lie at or below the
// floor by then: newer ones may have come before it, those that were written
// before its notice. A sender has no more than pendingMax frames written and
// unconfirmed; twice as many are kept.
//
// Single times, and not intervals of them: most frames come in order, but which
// times between two of them were ever used only the sender knows, so an interval
// would take the late ones for duplicates.

const (
	dedupFramesKept  = 2 * pendingMax      // per sender, remembered
	dedupFramesMax   = 2 * dedupFramesKept // per sender
	dedupFramesLeast = 1024                // per sender, remembered when there are too many in all
	dedupSendersMax  = 1 << 16             // so that a hub of many nodes keeps them apart
	dedupTotalMax    = 1 << 21             // frames in all: 32 MiB
	dedupEvictShare  = 16                  // one in so many is forgotten at once, of frames or senders
)

type verdict uint8

const (
	verdictNew verdict = iota
	verdictDuplicate
	verdictLate // at or below the floor: nobody knows whether it came before
)

// seenFrame has 16 bytes. So much of the digest is enough for receipts: only the
// frame's sender asks for them.
type seenFrame struct {
	sendTime  uint64
	digest    [7]byte
	delivered bool // to the application, or waiting for it
}

type seenSender struct {
	floor   uint64
	highest uint64      // newest send time; with floor when frames is empty
	frames  []seenFrame // ascending by sendTime, all above floor
}

// dedup remembers what came. It survives connections.
type dedup struct {
	framesMax, framesLeast, sendersMax, totalMax int

	floor   uint64 // general: of senders not in the map
	total   int    // frames in all senders
	senders map[codec.Address]*seenSender
}

func newDedup(framesMax, framesLeast, sendersMax, totalMax int) *dedup {
	return &dedup{
		framesMax: framesMax, framesLeast: framesLeast, sendersMax: sendersMax, totalMax: totalMax,
		senders: make(map[codec.Address]*seenSender),
	}
}

// admit takes note of a verified frame and says whether it is new.
func (d *dedup) admit(sender codec.Address, sendTime uint64, digest codec.Digest) verdict {
	s, floor := d.senders[sender], d.floor
	if s != nil {
		floor = s.floor
	}
	if sendTime <= floor {
		return verdictLate
	}
	if d.total >= d.totalMax || s == nil && len(d.senders) >= d.sendersMax {
		known := s != nil
		d.makeRoom()
		if s = d.senders[sender]; s != nil && sendTime <= s.floor || s == nil && known && sendTime <= d.floor {
			return verdictLate // what came from this sender was forgotten just now
		}
	}
	if s == nil {
		// makeRoom may have raised the general floor above the first frame of
		// a sender that was unknown before: it is new all the same.
		s = &seenSender{floor: min(d.floor, sendTime-1)}
		d.senders[sender] = s
	}
	at, found := s.find(sendTime)
	if found {
		return verdictDuplicate
	}
	s.frames = slices.Insert(s.frames, at, seenFrame{sendTime: sendTime, digest: [7]byte(digest[:])})
	s.highest = max(s.highest, sendTime)
	d.total++
	if len(s.frames) > d.framesMax {
		d.raiseFloor(s)
	}
	return verdictNew
}

func (s *seenSender) find(sendTime uint64) (int, bool) {
	if n := len(s.frames); n == 0 || s.frames[n-1].sendTime < sendTime {
		return n, false // the common case: in order
	}
	return slices.BinarySearchFunc(s.frames, sendTime, func(f seenFrame, t uint64) int {
		return cmp.Compare(f.sendTime, t)
	})
}

// raiseFloor forgets the lower half of a sender's frames.
func (d *dedup) raiseFloor(s *seenSender) {
	forget := len(s.frames) / 2
	s.floor = s.frames[forget-1].sendTime
	s.frames = slices.Delete(s.frames, 0, forget)
	d.total -= forget
}

// makeRoom forgets half of the frames of those senders of whom there are many,
// or the sixteenth of the senders whose newest frames are oldest.
func (d *dedup) makeRoom() {
	if d.total >= d.totalMax {
		for _, s := range d.senders {
			if len(s.frames) > 2*d.framesLeast {
				d.raiseFloor(s)
				s.frames = slices.Clone(s.frames) // give the memory back, too
			}
		}
		if d.total <= d.totalMax-share(d.totalMax) && len(d.senders) < d.sendersMax {
			return
		}
	}
	type entry struct {
		address codec.Address
		highest uint64
	}
	all := make([]entry, 0, len(d.senders))
	for a, s := range d.senders {
		all = append(all, entry{a, s.highest})
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.highest, b.highest), bytes.Compare(a.address[:], b.address[:]))
	})
	for _, e := range all[:share(len(all))] {
		d.total -= len(d.senders[e.address].frames)
		delete(d.senders, e.address)
		d.floor = max(d.floor, e.highest)
	}
}

// share returns the part of so many that is forgotten at once: at least one.
func share(of int) int { return (of + dedupEvictShare - 1) / dedupEvictShare }

// delivered marks an admitted frame as given to the application.
func (d *dedup) delivered(sender codec.Address, sendTime uint64) {
	if s := d.senders[sender]; s != nil {
		if at, found := s.find(sendTime); found {
			s.frames[at].delivered = true
		}
	}
}

// seen reports whether the frame was delivered, as far as is remembered.
func (d *dedup) seen(sender codec.Address, sendTime uint64, digest codec.Digest) bool {
	s := d.senders[sender]
	if s == nil {
		return false
	}
	at, found := s.find(sendTime)
	return found && s.frames[at].digest == [7]byte(digest[:]) && s.frames[at].delivered
}
