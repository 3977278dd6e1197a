package session

import (
	"slices"
	"time"
)

// Which session is in use (PROTOCOL.md sections 15.6 and 15.8):
//
//	M1 taken ─▶ pending ─ first frame ─▶ inUse ─ another ─▶ old ─ 60 s ─▶ erased
//	                                     ▲
//	M2 taken ────────────────────────────┘
const (
	oldFor       = 60 * time.Second
	confirmFirst = time.Second // until confirm is repeated; doubled
	confirmMost  = 30 * time.Second
)

// heard takes note that a frame has opened in s, and reports whether that has put
// s into use.
func (p *Peer) heard(now time.Time, s *session, out *Actions) bool {
	s.confirmAt = time.Time{}
	if !s.heard {
		s.heard = true
		if s == p.current && s.unsure {
			p.endAttempt()
		}
		p.ready(now, out)
	}
	if s.state != pending {
		return false
	}
	p.local.halfOpen--
	if p.current != nil && s.order < p.current.order {
		p.retire(now, s)
		p.overtaken(s)
		s.passedOver = true
		p.endOldest(out)
		return false
	}
	p.use(now, s, out)
	return true
}

// use puts s into use, in the place of the session that is.
func (p *Peer) use(now time.Time, s *session, out *Actions) {
	if c := p.current; c != nil {
		s.previous, s.previousEnd = c.peerID, c.last
		if c.unsure && !c.heard { // no message was sent in it, and the peer may not know it
			s.previous, s.previousEnd = c.previous, c.previousEnd
		}
		p.retire(now, c)
	}
	s.state = inUse
	p.epoch++
	s.renewAt = s.made.Add(p.local.pace.renewAfter)
	if !s.initiator {
		s.renewAt = s.renewAt.Add(p.local.pace.renewLater)
	}
	p.current, p.hold = s, false
	if !s.unsure {
		p.endAttempt()
	}
	p.probeAt = time.Time{}
	p.endOldest(out)
	p.confirm(now, s, out)
	if s.initiator {
		s.confirmWait = confirmFirst
		s.confirmAt = now.Add(confirmFirst)
	}
	p.offerCredit(now, false, out)
	p.ready(now, out)
}

// retire lets s only receive, and that not for long. The key that this end sent
// under is gone at once.
func (p *Peer) retire(now time.Time, s *session) {
	s.state = old
	s.expires = now.Add(oldFor)
	s.seal = nil
	s.out = outbound{}
	s.confirmAt = time.Time{}
	if s == p.current {
		p.current = nil
	}
}

// endOldest ends the oldest of too many old sessions, but not the last one that the
// peer was heard in: it sends there until it has heard of a later one.
func (p *Peer) endOldest(out *Actions) {
	var last *session
	for _, s := range p.sessions {
		if s.heard {
			last = s
		}
	}
	count, oldest := 0, (*session)(nil)
	for _, s := range p.sessions {
		if s.state != old {
			continue
		}
		count++
		if oldest == nil && s != last {
			oldest = s
		}
	}
	if count > oldMax {
		p.end(oldest, out)
	}
}

// end delivers what is held in s and before it, and erases s. One in which nothing
// was heard holds nothing, and says nothing of those before it.
func (p *Peer) end(s *session, out *Actions) {
	if s.heard {
		p.finishThrough(s, out)
	}
	p.erase(s)
	p.advance(out)
}

// erase forgets s and its keys, and drops what is held in it.
func (p *Peer) erase(s *session) {
	p.sessions = slices.DeleteFunc(p.sessions, func(t *session) bool { return t == s })
	if s.state == pending {
		p.local.halfOpen--
	}
	if s == p.current {
		p.current, p.hold = nil, false
		p.probeAt = time.Time{}
	}
	p.closeStream(&s.stream)
	s.seal, s.open = nil, nil
	s.replay, s.out = Replay{}, outbound{}
}

// renewNow lets the session's renewal start, whatever its age.
func (p *Peer) renewNow(now time.Time, s *session, out *Actions) {
	if now.Before(s.renewAt) {
		s.renewAt = now
		p.start(now, out)
	}
}
