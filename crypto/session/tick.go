package session

import "time"

// Deadline returns when Tick has something to do; the zero time for never.
func (p *Peer) Deadline() time.Time {
	var first time.Time
	at := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if since, ok := p.oldestHeld(); ok {
		at(since.Add(gapWait))
	}
	if p.attempting {
		at(p.nextM1)
	}
	at(p.probeAt)
	for _, s := range p.sessions {
		at(p.ends(s))
		at(s.confirmAt)
	}
	if p.renewable() {
		at(p.current.renewAt)
	}
	return first
}

// ends is when s is erased.
func (p *Peer) ends(s *session) time.Time {
	if s.state == inUse {
		return s.made.Add(p.local.pace.eraseAfter)
	}
	return s.expires
}

// renewable reports whether the session in use is renewed when it is time.
func (p *Peer) renewable() bool {
	return p.current != nil && p.current.carried && !p.attempting
}

// Tick does what is due.
func (p *Peer) Tick(now time.Time, out *Actions) {
	p.giveUpGaps(now, out)
	for i := 0; i < len(p.sessions); {
		if s := p.sessions[i]; !now.Before(p.ends(s)) {
			p.end(s, out)
			continue
		}
		i++
	}
	if s := p.current; s != nil && !s.confirmAt.IsZero() && !now.Before(s.confirmAt) {
		p.repeatConfirm(now, s, out)
	}
	if !p.probeAt.IsZero() && !now.Before(p.probeAt) {
		p.probe(now, out)
	}
	if p.renewable() && !now.Before(p.current.renewAt) || p.wanted && !p.usable(now) {
		p.start(now, out)
	}
	p.tryM1(now, out)
}

// repeatConfirm sends confirm again, and lets it be after the longest wait.
func (p *Peer) repeatConfirm(now time.Time, s *session, out *Actions) {
	p.confirm(now, s, out)
	if s.confirmWait == confirmMost {
		s.confirmAt = time.Time{}
		return
	}
	s.confirmWait = min(2*s.confirmWait, confirmMost)
	s.confirmAt = now.Add(s.confirmWait)
}

// probe asks for credit that somebody waits for.
func (p *Peer) probe(now time.Time, out *Actions) {
	if !p.usable(now) || p.current.out.covers(p.wantedCharge) {
		p.probeAt = time.Time{}
		p.ready(now, out)
		return
	}
	p.tell(now, p.current, content{kind: contentProbe}, out)
	p.probeWait = min(2*p.probeWait, probeMost)
	p.probeAt = now.Add(p.probeWait)
}
