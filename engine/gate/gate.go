package gate

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what comes in. A zero field is no limit.
type Limits struct {
	Connections          int // open, in all
	ConnectionsPerSource int // open, in their handshake or waiting
	Waiting              int // for their first record or for a handshake to end
	Starting             int // handshakes that are begun and not yet answered: these take processor time
	Handshakes           int // under way, in all
	HandshakesPerSource  int // under way or waiting
	HandshakeRate        int // connections per second and source; burstSeconds' worth at once
}

// burstSeconds is how many seconds' worth of handshakes a source may begin at
// once, after as long a rest: many nodes behind one address that come back
// together.
const burstSeconds = 5

// waitingDefault is what a core serves in about a second: who would wait longer
// is better told at once. It costs a descriptor and about 10 KB each.
const waitingDefault = 1024

// DefaultLimits are for a router that serves anybody. Handshakes and Starting are
// the caller's to know.
func DefaultLimits() Limits {
	return Limits{
		Connections:          100_000,
		ConnectionsPerSource: 1024,
		Waiting:              waitingDefault,
		HandshakesPerSource:  64,
		HandshakeRate:        100,
	}
}

// Check returns what is wrong with the limits.
func (l Limits) Check() error {
	for _, n := range []int{l.Connections, l.ConnectionsPerSource, l.Waiting, l.Starting, l.Handshakes, l.HandshakesPerSource, l.HandshakeRate} {
		if n < 0 {
			return errors.New("gate: a limit is negative; 0 is no limit")
		}
	}
	if l.HandshakeRate > int(time.Second) {
		return errors.New("gate: the handshake rate is above 1,000,000,000 a second; 0 is no limit")
	}
	return nil
}

// Refusal is why a connection may not come in, or not stay.
type Refusal struct{ reason, text string }

func (r *Refusal) Error() string { return r.text }

// Reason is the refusal's label.
func (r *Refusal) Reason() string { return r.reason }

// The refusals.
var (
	ErrFirewall             = &Refusal{"firewall", "the firewall denies this address"}
	ErrFirewallMax          = &Refusal{"firewall-max", "as many connections are open as the firewall's line for this address allows"}
	ErrConnections          = &Refusal{"max-connections", "as many connections are open as --max-connections allows"}
	ErrConnectionsPerSource = &Refusal{"max-connections-per-source", "this source has as many connections as --max-connections-per-source allows"}
	ErrWaiting              = &Refusal{"max-waiting", "as many connections wait for their handshakes as --max-waiting allows, and no source has more of them, or failed more often, than this one"}
	ErrHandshakesPerSource  = &Refusal{"max-handshakes-per-source", "this source has as many handshakes under way as --max-handshakes-per-source allows"}
	ErrHandshakeRate        = &Refusal{"handshake-rate", "this source begins more handshakes than --max-handshake-rate allows"}
	ErrDisplaced            = &Refusal{"displaced", "--max-handshakes or --max-waiting was reached, and this connection's source had the most of them or had failed most often, or it took the longest"}
)

// Refusals returns all there are.
func Refusals() []*Refusal {
	return []*Refusal{
		ErrFirewall, ErrFirewallMax, ErrConnections, ErrConnectionsPerSource, ErrWaiting, ErrHandshakesPerSource, ErrHandshakeRate, ErrDisplaced,
	}
}

// Gate applies a List and Limits. All methods may be called from any goroutine.
type Gate struct {
	start time.Time // fixed

	mu        sync.Mutex
	list      *List // nil: everybody may come
	limits    Limits
	rate      *rate
	failures  *failures
	perRule   []int // connections, and what will be, by index of list's rules
	sources   map[netip.Addr]*source
	arrived   uint64  // passes there ever were
	crowd     ranking // sources with connections that wait: who has to yield first
	queue     ranking // sources with connections that are ready: who is next
	silent    int     // connections that wait for their first record,
	ready     int     // and for a handshake to end
	ending    passes  // told to end while they waited
	starting  passes  // handshakes that are not answered yet
	running   passes  // handshakes that wait for their clients, oldest first
	yielding  int     // of these, the ones that have been told to end
	connected passes
	took      time.Duration // moving average of what good handshakes take
}

// source is one with connections, or with what may become one. What it used of
// its rate, and how often it failed, is known beyond that.
type source struct {
	key                               netip.Addr
	silent, ready                     passes // that wait, oldest first
	handshakes, yielding, connections int
	ending                            int
	failures                          int // as of its last arrival or failure
	inCrowd, inQueue                  position
}

// waits returns how many connections of s wait.
func (s *source) waits() int { return s.silent.n + s.ready.n }

func (s *source) empty() bool {
	return s.waits()+s.handshakes+s.yielding+s.connections+s.ending == 0
}

// New returns a gate without a firewall; now begins its time.
func New(l Limits, now time.Time) *Gate {
	return &Gate{
		start: now, limits: l, rate: newRate(), failures: newFailures(), took: tookAtFirst, sources: make(map[netip.Addr]*source),
		crowd: ranking{before: yieldsBefore, at: func(s *source) *position { return &s.inCrowd }},
		queue: ranking{before: servedBefore, at: func(s *source) *position { return &s.inQueue }},
	}
}

// sourceOf returns the address by which a's source is known.
func sourceOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return netip.Addr{} // the zero Addr: all who have none are one source
	}
	return p.Addr()
}

// End ends a connection's wait or handshake after the time given, unless it has
// succeeded by then.
type End func(why error, after time.Duration)

// Pass is a connection that may come in, until Gone.
type Pass struct {
	gate *Gate      // fixed
	addr netip.Addr // fixed; IPv4 as such
	seq  uint64     // fixed; in order of arrival

	state      passState // guarded by gate.mu, like all below
	rule       int32     // index of the rule that let it in; -1: none did
	excused    bool      // if it ends now, that is no fault of its source
	answered   int64     // when its handshake was, nanoseconds since the gate's start
	begin      func()    // begins its handshake; nil unless it is ready
	end        End       // ends it before it is connected; nil afterwards
	source     *source
	prev, next *Pass // in the list of its state

	denied atomic.Bool
}

// passState is the life of a Pass, whose order it is.
type passState uint8

const (
	passSilent    passState = iota // its first record has not come
	passReady                      // it waits for a handshake to end
	passEnding                     // it was told to end while it waited
	passStarting                   // its handshake works on the first record
	passHandshake                  // its handshake waits for its client
	passYielding                   // a handshake that was told to end, and may still succeed before that
	passConnected
	passGone
)

// Denied tells whether a firewall that came later denies this connection: its
// owner ends it.
func (p *Pass) Denied() bool { return p.denied.Load() }

// Admit decides about a connection from the address given, which then waits to
// be Ready. end is kept until Handshaken or Gone: the gate calls it, from any
// goroutine and with none of its locks held, when the connection must end
// before its time.
func (g *Gate) Admit(from netip.Addr, now time.Time, end End) (*Pass, error) {
	from = from.Unmap().WithZone("")
	g.mu.Lock()
	p, displaced, err := g.admitLocked(from, now, end)
	g.mu.Unlock()
	if displaced != nil {
		displaced(ErrDisplaced, 0)
	}
	return p, err
}

func (g *Gate) admitLocked(from netip.Addr, now time.Time, end End) (p *Pass, displaced End, err error) {
	rule := -1
	if g.list != nil {
		if rule = g.list.Match(from); rule < 0 || !g.list.rules[rule].Allow {
			return nil, nil, ErrFirewall
		}
		if most := g.list.rules[rule].Max; most > 0 && g.perRule[rule] >= most {
			return nil, nil, ErrFirewallMax
		}
	}
	key := sourceOf(from)
	s := g.sources[key]
	if s == nil {
		s = &source{key: key} // not one of g's until it is admitted
	}
	if err := g.checkLocked(s, now); err != nil {
		return nil, nil, err
	}
	g.recallLocked(s, now)
	if most := g.limits.Waiting; most > 0 && g.silent+g.ready >= most {
		if displaced = g.makeRoomLocked(s); displaced == nil {
			g.failures.add(key, g.since(now), false)
			g.recallLocked(s, now)
			return nil, nil, ErrWaiting
		}
	}
	g.sources[key] = s
	g.arrived++
	p = &Pass{gate: g, addr: from, seq: g.arrived, rule: int32(rule), end: end, source: s}
	if rule >= 0 {
		g.perRule[rule]++
	}
	g.enterLocked(p, passSilent)
	return p, displaced, nil
}

// recallLocked notes how often s has lately failed.
func (g *Gate) recallLocked(s *source, now time.Time) {
	s.failures = g.failures.count(s.key, g.since(now))
	g.rankLocked(s)
}

// checkLocked refuses one more connection of s if a limit of its own, or that of
// all connections, is reached.
func (g *Gate) checkLocked(s *source, now time.Time) error {
	l := &g.limits
	handshakes := s.waits() + s.handshakes
	switch {
	case l.Connections > 0 && g.connected.n >= l.Connections:
		return ErrConnections
	case l.ConnectionsPerSource > 0 && handshakes+s.yielding+s.connections >= l.ConnectionsPerSource:
		return ErrConnectionsPerSource
	case l.HandshakesPerSource > 0 && handshakes >= l.HandshakesPerSource:
		return ErrHandshakesPerSource
	case l.HandshakeRate > 0 && !g.rate.take(s.key, g.since(now), time.Second/time.Duration(l.HandshakeRate), burstSeconds*l.HandshakeRate):
		return ErrHandshakeRate
	}
	return nil
}

func (g *Gate) since(now time.Time) int64 { return int64(now.Sub(g.start)) }

// Handshaken tells that the connection's handshake has succeeded. An error
// means that it may not stay after all; Gone must be called all the same.
func (p *Pass) Handshaken(now time.Time) error {
	g := p.gate
	g.mu.Lock()
	defer g.unlockAndAdvance(now)
	switch {
	case p.state < passStarting || p.state > passYielding:
		panic("gate: Handshaken of a connection that is in no handshake")
	case p.denied.Load():
		return ErrFirewall
	case g.limits.Connections > 0 && g.connected.n >= g.limits.Connections:
		return ErrConnections
	}
	if p.state != passStarting {
		took := time.Duration(g.since(now) - p.answered)
		g.took += (min(max(took, 0), patienceMax) - g.took) / tookWeight
	}
	g.exitLocked(p)
	g.enterLocked(p, passConnected)
	p.end = nil
	return nil
}

// Gone tells that the connection, or what was to become one, has ended. Calls
// after the first do nothing.
func (p *Pass) Gone(now time.Time) {
	g := p.gate
	g.mu.Lock()
	if p.state < passConnected {
		g.failLocked(p, now)
	} else {
		g.leaveLocked(p)
	}
	g.unlockAndAdvance(now)
}

// failLocked takes p out, whose handshake has not succeeded.
func (g *Gate) failLocked(p *Pass, now time.Time) {
	g.failures.add(p.source.key, g.since(now), !p.excused)
	g.leaveLocked(p)
	g.recallLocked(p.source, now)
}

// leaveLocked takes p out of everything.
func (g *Gate) leaveLocked(p *Pass) {
	if p.state == passGone {
		return
	}
	g.exitLocked(p)
	p.state, p.begin, p.end = passGone, nil, nil
	if p.source.empty() {
		delete(g.sources, p.source.key)
	}
	if p.rule >= 0 {
		g.perRule[p.rule]--
	}
}

// SetFirewall puts l in force, nil for none, and returns how many of the
// present connections it denies: these are Denied from now on, and their
// handshakes are ended. The others count for l's lines; where that is more than
// a line's max, they stay, and nobody else comes in by it. It holds the gate
// for about 0.2 ms per 1,000 connections.
func (g *Gate) SetFirewall(l *List) (denied int) {
	var ends []End
	g.mu.Lock()
	g.list, g.perRule = l, nil
	if l != nil {
		g.perRule = make([]int, len(l.rules))
	}
	g.eachLocked(func(p *Pass) {
		p.rule = -1
		if l == nil {
			return
		}
		if i := l.Match(p.addr); i >= 0 && l.rules[i].Allow {
			p.rule = int32(i)
			g.perRule[i]++
			return
		}
		denied++
		p.denied.Store(true)
		if p.end != nil {
			ends = append(ends, p.end)
		}
	})
	g.mu.Unlock()
	for _, end := range ends {
		end(ErrFirewall, 0)
	}
	return denied
}

// SetLimits puts l in force. What is there stays.
func (g *Gate) SetLimits(l Limits, now time.Time) {
	g.mu.Lock()
	g.limits = l
	g.unlockAndAdvance(now)
}

// State is a gate's content at one moment.
type State struct {
	Sources     int // with connections, or what may become one
	Silent      int // connections whose first record has not come
	Ready       int // connections that wait for a handshake to end
	Handshaking int
	Connected   int
	Rules       []Rule // of the firewall, borrowed; nil: none
	PerRule     []int  // connections, and what may become one, of each rule
}

// State returns the content.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := State{Sources: len(g.sources), Silent: g.silent, Ready: g.ready, Handshaking: g.starting.n + g.running.n, Connected: g.connected.n}
	if g.list != nil {
		s.Rules = g.list.rules
		s.PerRule = append([]int(nil), g.perRule...)
	}
	return s
}
