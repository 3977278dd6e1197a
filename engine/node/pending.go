package node

// Confirmation, PROTOCOL.md section 5.2. Frames are counted in the order they
// were written to a connection, the first is 1:
//
//	1 … confirmed │ confirmed+1 … written
//	              │ waiting
//
// asked is up to where the outstanding keep-alive that asks for an answer will
// confirm; at most one is outstanding, so that many waiting sends cost one.

const (
	pendingMax      = 8192           // frames waiting: at it nothing more is written until the router confirms
	pendingAskEvery = pendingMax / 4 // frames waiting: asks even if nobody wants to know
)

// pending is the record of frames written to one connection. The caller has
// the lock.
type pending struct {
	confirmed uint64
	written   uint64
	asked     uint64
	want      uint64 // somebody waits for the confirmation of frames up to this one

	waiting []*Sent // from head on; nil: nobody's
	head    int
}

// wrote takes note of the next frame; s is nil for frames that no Send made.
func (p *pending) wrote(s *Sent) {
	if p.head > len(p.waiting)/2 && len(p.waiting) == cap(p.waiting) {
		n := copy(p.waiting, p.waiting[p.head:])
		clear(p.waiting[n:])
		p.waiting, p.head = p.waiting[:n], 0
	}
	p.waiting = append(p.waiting, s)
	p.written++
	if s != nil {
		s.index = p.written
		if s.wanted {
			p.want = p.written
		}
	}
}

// confirm takes a peer's count. It returns the frames that it confirms
// (borrowed until the next call of any method), and false when it is
// impossible: more than was written, or less than before.
func (p *pending) confirm(received uint64) ([]*Sent, bool) {
	if received > p.written || received < p.confirmed {
		return nil, false
	}
	n := int(received - p.confirmed)
	done := p.waiting[p.head : p.head+n]
	p.head += n
	p.confirmed = received
	return done, true
}

// rest returns what was never confirmed, and forgets it.
func (p *pending) rest() []*Sent {
	rest := p.waiting[p.head:]
	p.waiting, p.head = nil, 0
	p.confirmed = p.written
	return rest
}

// ask reports whether a keep-alive that asks for an answer is due now; when it
// is, the caller sends it behind all frames written so far.
func (p *pending) ask() bool {
	if p.asked > p.confirmed {
		return false // one is outstanding
	}
	if p.want <= p.confirmed && p.written-p.confirmed < pendingAskEvery {
		return false
	}
	p.asked = p.written
	return true
}

// wantAll makes ask ask for everything written.
func (p *pending) wantAll() { p.want = p.written }

func (p *pending) full() bool { return p.written-p.confirmed >= pendingMax }
func (p *pending) idle() bool { return p.written == p.confirmed }
