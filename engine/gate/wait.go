package gate

import "time"

// A connection waits twice before its handshake: silent, until its first record
// is there, and ready, until there is room. What it costs until then is little,
// and Limits.Waiting bounds it.
//
//	silent ── Ready ──► ready ── room ──► starting ── Answered ──► handshake ── Handshaken ──► connected
//	   └── no room to wait ──┴──► ending                  told to yield └──► yielding ──┘
//
// There is room while fewer than Limits.Starting are starting, which is when a
// handshake takes processor time, and fewer than Limits.Handshakes are under way.

// A handshake that has to yield is given as much time in all as patienceFactor
// times what good handshakes take now, within these bounds: so when many nodes
// come at once and the router is busy, none is thrown out that would succeed,
// and nobody waits long behind handshakes that come to nothing.
const (
	patienceFactor = 4
	patienceMin    = 50 * time.Millisecond
	patienceMax    = 2500 * time.Millisecond
	tookAtFirst    = 25 * time.Millisecond
	tookWeight     = 8 // the newest counts for one part in so many
)

// yieldsBefore is the order in which sources make room for a newcomer: who has
// failed most often, who has most waiting, who has a silent one, who came first.
func yieldsBefore(a, b *source) bool {
	switch {
	case a.failures != b.failures:
		return a.failures > b.failures
	case a.waits() != b.waits():
		return a.waits() > b.waits()
	case (a.silent.n > 0) != (b.silent.n > 0):
		return a.silent.n > 0
	}
	return a.oldest().seq < b.oldest().seq
}

// servedBefore is the order in which sources with ready connections are served:
// who has failed least often, who has fewest handshakes under way, who came
// first. So sources whose connections come to nothing, however many there are,
// stand behind one that was never seen.
func servedBefore(a, b *source) bool {
	switch {
	case a.failures != b.failures:
		return a.failures < b.failures
	case a.handshakes != b.handshakes:
		return a.handshakes < b.handshakes
	}
	return a.ready.first.seq < b.ready.first.seq
}

// oldest returns the connection of s, which has some that wait, that is the
// first to go.
func (s *source) oldest() *Pass {
	if s.silent.n > 0 {
		return s.silent.first
	}
	return s.ready.first
}

// makeRoomLocked makes room for one more of s among those who wait: another one
// has to go, and what is returned ends it. Nil: s is the one that yields.
func (g *Gate) makeRoomLocked(s *source) End {
	worst, mine := g.crowd.first(), s.waits()+1
	if worst == s || worst.failures < s.failures || worst.failures == s.failures && mine > 1 && worst.waits() <= mine {
		return nil
	}
	victim := worst.oldest()
	g.exitLocked(victim)
	g.enterLocked(victim, passEnding)
	return victim.end
}

// Ready tells that the connection's first record is there. begin begins its
// handshake: the gate calls it once, with none of its locks held, before Ready
// returns or later from any goroutine, or never when the connection ends first.
func (p *Pass) Ready(now time.Time, begin func()) {
	g := p.gate
	g.mu.Lock()
	switch p.state {
	case passSilent:
		p.begin, p.excused = begin, true // it is for the router to serve it now
		g.exitLocked(p)
		g.enterLocked(p, passReady)
	case passEnding:
	default:
		panic("gate: Ready of a connection that is not silent")
	}
	g.unlockAndAdvance(now)
}

// Answered tells that the handshake has done what it can with the first record,
// and waits for its client. Calls that come late do nothing.
func (p *Pass) Answered(now time.Time) {
	g := p.gate
	g.mu.Lock()
	if p.state == passStarting {
		p.answered = g.since(now)
		g.exitLocked(p)
		g.enterLocked(p, passHandshake)
	}
	g.unlockAndAdvance(now)
}

// unlockAndAdvance ends what holds g.mu, and begins the handshakes whose turn it
// is, or has others yield to them.
func (g *Gate) unlockAndAdvance(now time.Time) {
	for {
		act := g.advanceLocked(now)
		g.mu.Unlock()
		if act == nil {
			return
		}
		act()
		g.mu.Lock()
	}
}

// advanceLocked returns what has to be done next, without the lock; nil: nothing.
func (g *Gate) advanceLocked(now time.Time) (act func()) {
	s, l := g.queue.first(), &g.limits
	if s == nil || l.Starting > 0 && g.starting.n >= l.Starting {
		return nil
	}
	p := s.ready.first
	if l.Handshakes == 0 || g.starting.n+g.running.n < l.Handshakes {
		act, p.begin, p.excused = p.begin, nil, false
		g.exitLocked(p)
		g.enterLocked(p, passStarting)
		return act
	}
	if g.yielding > 0 {
		return nil // that one will make room
	}
	if end, after := g.displaceLocked(p, now); end != nil {
		return func() { end(ErrDisplaced, after) }
	}
	return nil
}

// displaceLocked has a handshake yield, so that p, which is ready, gets its
// turn; what is returned ends it. It is the oldest of the source that has failed
// most often, and among equals of the one with the most under way. If that has
// more than p's, it ends at once: who holds many yields to who holds few. If not,
// when its time is over. It does not yield at all to a source that has failed
// more often, nor to one that has others under way or has failed itself, if it
// has failed no more often than that. The walk over all handshakes takes about a
// microsecond for 256.
func (g *Gate) displaceLocked(p *Pass, now time.Time) (end End, after time.Duration) {
	var victim *Pass
	for o := g.running.first; o != nil; o = o.next {
		if o.state != passYielding && (victim == nil || worse(o.source, victim.source)) {
			victim = o
		}
	}
	if victim == nil || victim.source.failures < p.source.failures {
		return nil, 0
	}
	mine := p.source.handshakes + 1
	switch {
	case victim.source.handshakes > mine:
		victim.excused = true // it may have been doing well
	case victim.source.failures == p.source.failures && (mine > 1 || p.source.failures > 0):
		return nil, 0
	default:
		patience := min(max(patienceFactor*g.took, patienceMin), patienceMax)
		after = max(0, patience-time.Duration(g.since(now)-victim.answered))
	}
	victim.state = passYielding
	victim.source.handshakes--
	victim.source.yielding++
	g.yielding++
	g.rankLocked(victim.source)
	return victim.end, after
}

// worse tells whether a handshake of a yields before those of b.
func worse(a, b *source) bool {
	if a.failures != b.failures {
		return a.failures > b.failures
	}
	return a.handshakes > b.handshakes
}

// enterLocked gives p, which is nowhere, a state.
func (g *Gate) enterLocked(p *Pass, state passState) {
	p.state = state
	g.listLocked(p).push(p)
	g.countLocked(p, 1)
}

// exitLocked takes p out of its state, which must not be passGone.
func (g *Gate) exitLocked(p *Pass) {
	g.listLocked(p).remove(p)
	g.countLocked(p, -1)
}

// listLocked returns the list in which p is, or is to be.
func (g *Gate) listLocked(p *Pass) *passes {
	switch p.state {
	case passSilent:
		return &p.source.silent
	case passReady:
		return &p.source.ready
	case passEnding:
		return &g.ending
	case passStarting:
		return &g.starting
	case passHandshake, passYielding:
		return &g.running
	case passConnected:
		return &g.connected
	}
	panic("gate: a pass that is gone is in no list")
}

// countLocked adds n to the counts of p's state, and puts its source where it
// then belongs.
func (g *Gate) countLocked(p *Pass, n int) {
	s := p.source
	switch p.state {
	case passSilent:
		g.silent += n
	case passReady:
		g.ready += n
	case passEnding:
		s.ending += n
	case passStarting, passHandshake:
		s.handshakes += n
	case passYielding:
		s.yielding += n
		g.yielding += n
	case passConnected:
		s.connections += n
	}
	g.rankLocked(s)
}

func (g *Gate) rankLocked(s *source) {
	g.crowd.place(s, s.waits() > 0)
	g.queue.place(s, s.ready.n > 0)
}

// eachLocked calls fn for each pass that is not gone.
func (g *Gate) eachLocked(fn func(*Pass)) {
	for _, s := range g.sources {
		s.silent.each(fn)
		s.ready.each(fn)
	}
	g.ending.each(fn)
	g.starting.each(fn)
	g.running.each(fn)
	g.connected.each(fn)
}

// passes is a list in order of arrival.
type passes struct {
	first, last *Pass
	n           int
}

func (l *passes) each(fn func(*Pass)) {
	for p := l.first; p != nil; p = p.next {
		fn(p)
	}
}

func (l *passes) push(p *Pass) {
	p.prev, p.next = l.last, nil
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
	l.n++
}

func (l *passes) remove(p *Pass) {
	if p.prev == nil {
		l.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
	l.n--
}
