package node

import (
	"cmp"
	"slices"

	"causeway/codec"
)

// recentMax is how many sends are remembered for notices. A notice can be about
// anything that is under way, and most of that is in the kernels' buffers of the
// recipient's connection: 4 MiB at one end and 6 MiB at the other where Linux
// is left as it is. That is so many frames with bodies of 40 bytes; of larger
// ones fewer. A Sent takes 192 bytes, so a node that sends much keeps 14 MB.
// Compile-time: all that can be unconfirmed is among them.
const (
	recentMax = 1 << 16
	_         = uint(recentMax - pendingMax)
)

// recent remembers the last frames sent, so that a notice about them reaches
// their Sent, and notices about others can be told apart. Send times rise from
// frame to frame, so all is found by them. The caller has the lock.
type recent struct {
	max int
	all fifo[*Sent]                    // in the order of send times
	to  map[codec.Address]*fifo[*Sent] // the same, by recipient; none is empty
}

func newRecent(max int) recent {
	return recent{max: max, to: make(map[codec.Address]*fifo[*Sent])}
}

// add takes note of a frame whose send time is above those before; the oldest
// is forgotten when they are too many.
func (r *recent) add(s *Sent) {
	if r.all.len() == r.max {
		oldest := r.all.pop()
		to := r.to[oldest.To]
		if to.pop(); to.len() == 0 {
			delete(r.to, oldest.To)
		}
	}
	r.all.push(s)
	to := r.to[s.To]
	if to == nil {
		to = new(fifo[*Sent])
		r.to[s.To] = to
	}
	to.push(s)
}

// from returns the frames to the recipient from that send time on, borrowed.
func (r *recent) from(recipient codec.Address, sendTime uint64) []*Sent {
	to := r.to[recipient]
	if to == nil {
		return nil
	}
	all := to.rest()
	at, _ := slices.BinarySearchFunc(all, sendTime, func(s *Sent, t uint64) int { return cmp.Compare(s.SendTime, t) })
	return all[at:]
}

// find returns the frame if it was sent to that recipient at that time.
func (r *recent) find(f codec.NoticeFrame, recipient codec.Address) *Sent {
	if found := r.from(recipient, f.SendTime); len(found) > 0 && found[0].SendTime == f.SendTime && found[0].Digest == f.Digest {
		return found[0]
	}
	return nil
}

// between returns the frames to the recipient with send times from first to
// last that a notice which counts may mean: they are under way, or the router
// has confirmed them, and nothing else is known of them.
func (r *recent) between(recipient codec.Address, first, last uint64) []*Sent {
	var found []*Sent
	for _, s := range r.from(recipient, first) {
		if s.SendTime > last {
			break
		}
		if s.written && !s.seen && s.notice == nil && s.state != sentFailed {
			found = append(found, s)
		}
	}
	return found
}
