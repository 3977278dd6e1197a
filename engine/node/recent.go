package node

import "causeway/codec"

// recentMax is how many sends are remembered for notices. Compile-time: all
// that can be unconfirmed is among them.
const (
	recentMax = 2 * pendingMax
	_         = uint(recentMax - pendingMax)
)

// recent remembers the last frames sent, so that a notice about them reaches
// their Sent, and notices about others can be told apart. The caller has the
// lock.
type recent struct {
	ring     []*Sent // grows to max, then the next one takes the oldest's place
	at       int
	max      int
	byDigest map[codec.Digest]*Sent
}

func newRecent(max int) recent {
	return recent{max: max, byDigest: make(map[codec.Digest]*Sent)}
}

func (r *recent) add(s *Sent) {
	if len(r.ring) < r.max {
		r.ring = append(r.ring, s)
	} else {
		delete(r.byDigest, r.ring[r.at].Digest)
		r.ring[r.at] = s
		r.at = (r.at + 1) % r.max
	}
	r.byDigest[s.Digest] = s
}

// find returns the frame if it was sent to that recipient at that time.
func (r *recent) find(f codec.NoticeFrame, recipient codec.Address) *Sent {
	s := r.byDigest[f.Digest]
	if s == nil || s.To != recipient || s.SendTime != f.SendTime {
		return nil
	}
	return s
}

// between returns the frames to the recipient with send times from first to
// last that no notice was about yet. It looks at all that is remembered.
func (r *recent) between(recipient codec.Address, first, last uint64) []*Sent {
	var found []*Sent
	for _, s := range r.ring {
		if s.To == recipient && s.SendTime >= first && s.SendTime <= last && s.notice == nil {
			found = append(found, s)
		}
	}
	return found
}
