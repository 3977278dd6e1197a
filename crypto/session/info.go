package session

import "time"

// Info is what an operator may know of a Peer; no keys.
type Info struct {
	Epoch     uint64    // sessions that were put into use, so the number of that in use
	Made      time.Time // when that in use was made; zero: there is none
	Initiator bool      // this end has sent its M1
	AEAD      AEAD      // of that in use
	Hybrid    bool      // its keys are of X25519 and ML-KEM-768; else of X25519 alone
	Last      uint64    // counter this end has used last in it
	Highest   uint64    // highest counter of the peer's in it
	Credit    int       // bytes that may still be sent in it, each message charged Charge
	Handshake bool      // a handshake of this end is under way
	Pending   int       // sessions that wait for the peer's first frame
	Old       int       // sessions that still receive
	Held      int       // messages held for order
	Waiting   int       // bytes held or delivered, and not taken, charged
}

// Info returns what may be shown of p.
func (p *Peer) Info() Info {
	i := Info{Epoch: p.epoch, Handshake: p.attempting, Held: p.held, Waiting: p.waiting}
	for _, s := range p.sessions {
		switch s.state {
		case pending:
			i.Pending++
		case old:
			i.Old++
		}
	}
	if s := p.current; s != nil {
		i.Made, i.Initiator, i.AEAD, i.Hybrid = s.made, s.initiator, s.aead, s.hybrid
		i.Last, i.Highest = s.last, s.replay.Highest()
		if s.out.granted > s.out.outstanding {
			i.Credit = int(s.out.granted - s.out.outstanding)
		}
	}
	return i
}

// Held returns how many messages are held for order.
func (p *Peer) Held() int { return p.held }
