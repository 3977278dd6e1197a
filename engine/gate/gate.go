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
	ConnectionsPerSource int // open or in their handshake
	Handshakes           int // under way, in all; the next one ends one of the source that has most
	HandshakesPerSource  int // under way
	HandshakeRate        int // begun per second and source; burstSeconds' worth at once
}

// burstSeconds is how many seconds' worth of handshakes a source may begin at
// once, after as long a rest: many nodes behind one address that come back
// together.
const burstSeconds = 5

// DefaultLimits are for a router that serves anybody. Handshakes is link's to
// know.
func DefaultLimits() Limits {
	return Limits{
		Connections:          100_000,
		ConnectionsPerSource: 1024,
		HandshakesPerSource:  64,
		HandshakeRate:        100,
	}
}

// Check returns what is wrong with the limits.
func (l Limits) Check() error {
	for _, n := range []int{l.Connections, l.ConnectionsPerSource, l.Handshakes, l.HandshakesPerSource, l.HandshakeRate} {
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
	ErrHandshakesPerSource  = &Refusal{"max-handshakes-per-source", "this source has as many handshakes under way as --max-handshakes-per-source allows"}
	ErrHandshakeRate        = &Refusal{"handshake-rate", "this source begins more handshakes than --max-handshake-rate allows"}
	ErrDisplaced            = &Refusal{"displaced", "--max-handshakes was reached, and of the sources with the most handshakes under way this one was the oldest"}
)

// Refusals returns all there are.
func Refusals() []*Refusal {
	return []*Refusal{
		ErrFirewall, ErrFirewallMax, ErrConnections, ErrConnectionsPerSource, ErrHandshakesPerSource, ErrHandshakeRate, ErrDisplaced,
	}
}

// Gate applies a List and Limits. All methods may be called from any goroutine.
type Gate struct {
	start time.Time // fixed

	mu          sync.Mutex
	list        *List // nil: everybody may come
	limits      Limits
	rate        *rate
	perRule     []int // connections and handshakes, by index of list's rules
	sources     map[netip.Addr]*source
	handshaking passes // oldest first
	connected   passes
}

// source is one with connections or handshakes. What it used of its rate is
// known beyond that, in Gate.rate.
type source struct{ handshakes, connections int }

// New returns a gate without a firewall; now begins its time.
func New(l Limits, now time.Time) *Gate {
	return &Gate{start: now, limits: l, rate: newRate(), sources: make(map[netip.Addr]*source)}
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

// Pass is a connection that may come in, until Gone.
type Pass struct {
	gate *Gate      // fixed
	addr netip.Addr // fixed; IPv4 as such

	state      passState   // guarded by gate.mu, like all below
	rule       int         // index of the rule that let it in; -1: none did
	end        func(error) // ends the handshake; nil afterwards
	source     *source     //
	prev, next *Pass       // in gate.handshaking or gate.connected

	denied atomic.Bool
}

type passState uint8

const (
	passHandshake passState = iota
	passConnected
	passGone
)

// Denied tells whether a firewall that came later denies this connection: its
// owner ends it.
func (p *Pass) Denied() bool { return p.denied.Load() }

// Admit decides about a connection from the address given. end is kept until
// Handshaken or Gone: the gate calls it, from any goroutine and with none of
// its locks held, at most once, when the handshake must end before its time.
func (g *Gate) Admit(from netip.Addr, now time.Time, end func(why error)) (*Pass, error) {
	from = from.Unmap().WithZone("")
	g.mu.Lock()
	p, err := g.admitLocked(from, now, end)
	var displaced func(error)
	if err == nil && g.limits.Handshakes > 0 && g.handshaking.n > g.limits.Handshakes {
		displaced = g.displaceLocked()
	}
	g.mu.Unlock()
	if displaced != nil {
		displaced(ErrDisplaced)
	}
	return p, err
}

func (g *Gate) admitLocked(from netip.Addr, now time.Time, end func(error)) (*Pass, error) {
	rule := -1
	if g.list != nil {
		if rule = g.list.Match(from); rule < 0 || !g.list.rules[rule].Allow {
			return nil, ErrFirewall
		}
		if most := g.list.rules[rule].Max; most > 0 && g.perRule[rule] >= most {
			return nil, ErrFirewallMax
		}
	}
	key, l := sourceOf(from), &g.limits
	s := g.sources[key]
	var has source
	if s != nil {
		has = *s
	}
	switch {
	case l.Connections > 0 && g.connected.n >= l.Connections:
		return nil, ErrConnections
	case l.ConnectionsPerSource > 0 && has.connections+has.handshakes >= l.ConnectionsPerSource:
		return nil, ErrConnectionsPerSource
	case l.HandshakesPerSource > 0 && has.handshakes >= l.HandshakesPerSource:
		return nil, ErrHandshakesPerSource
	case l.HandshakeRate > 0 && !g.rate.take(key, int64(now.Sub(g.start)), time.Second/time.Duration(l.HandshakeRate), burstSeconds*l.HandshakeRate):
		return nil, ErrHandshakeRate
	}
	if s == nil {
		s = &source{}
		g.sources[key] = s
	}
	p := &Pass{gate: g, addr: from, rule: rule, end: end, source: s}
	s.handshakes++
	if rule >= 0 {
		g.perRule[rule]++
	}
	g.handshaking.push(p)
	return p, nil
}

// displaceLocked makes room: of the sources with the most handshakes under way
// the oldest one has to go, so that who holds many yields to who holds few. It
// returns what ends it. It walks over all handshakes, about a microsecond for 256.
func (g *Gate) displaceLocked() (end func(error)) {
	var victim *Pass
	for p := g.handshaking.first; p != nil; p = p.next {
		if victim == nil || p.source.handshakes > victim.source.handshakes {
			victim = p
		}
	}
	end = victim.end
	g.leaveLocked(victim) // it counts no more: the next newcomer displaces another
	return end
}

// Handshaken tells that the connection's handshake has succeeded. An error
// means that it may not stay after all; Gone must be called all the same.
func (p *Pass) Handshaken() error {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case p.state != passHandshake:
		return ErrDisplaced
	case p.denied.Load():
		return ErrFirewall
	case g.limits.Connections > 0 && g.connected.n >= g.limits.Connections:
		return ErrConnections
	}
	g.handshaking.remove(p)
	g.connected.push(p)
	p.state, p.end = passConnected, nil
	p.source.handshakes--
	p.source.connections++
	return nil
}

// Gone tells that the connection, or its handshake, has ended. Calls after the
// first do nothing.
func (p *Pass) Gone() {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.leaveLocked(p)
}

func (g *Gate) leaveLocked(p *Pass) {
	switch p.state {
	case passGone:
		return
	case passHandshake:
		g.handshaking.remove(p)
		p.source.handshakes--
	case passConnected:
		g.connected.remove(p)
		p.source.connections--
	}
	p.state, p.end = passGone, nil
	if *p.source == (source{}) {
		delete(g.sources, sourceOf(p.addr))
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
	var ends []func(error)
	g.mu.Lock()
	g.list, g.perRule = l, nil
	if l != nil {
		g.perRule = make([]int, len(l.rules))
	}
	for _, first := range []*Pass{g.handshaking.first, g.connected.first} {
		for p := first; p != nil; p = p.next {
			p.rule = -1
			if l == nil {
				continue
			}
			if i := l.Match(p.addr); i >= 0 && l.rules[i].Allow {
				p.rule = i
				g.perRule[i]++
				continue
			}
			denied++
			p.denied.Store(true)
			if p.end != nil {
				ends = append(ends, p.end)
				p.end = nil
			}
		}
	}
	g.mu.Unlock()
	for _, end := range ends {
		end(ErrFirewall)
	}
	return denied
}

// SetLimits puts l in force. What is there stays.
func (g *Gate) SetLimits(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
}

// State is a gate's content at one moment.
type State struct {
	Sources     int // with connections or handshakes
	Handshaking int
	Connected   int
	Rules       []Rule // of the firewall, borrowed; nil: none
	PerRule     []int  // connections and handshakes of each rule
}

// State returns the content.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := State{Sources: len(g.sources), Handshaking: g.handshaking.n, Connected: g.connected.n}
	if g.list != nil {
		s.Rules = g.list.rules
		s.PerRule = append([]int(nil), g.perRule...)
	}
	return s
}

// Check returns a description of the first broken invariant, or "". It is for
// tests, which call it last.
func (g *Gate) Check() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	sources := make(map[netip.Addr]source)
	perRule := make([]int, len(g.perRule))
	for state, list := range []*passes{&g.handshaking, &g.connected} {
		n := 0
		for p := list.first; p != nil; p = p.next {
			n++
			s := sources[sourceOf(p.addr)]
			if state == int(passHandshake) {
				s.handshakes++
			} else {
				s.connections++
			}
			sources[sourceOf(p.addr)] = s
			if p.rule >= 0 {
				perRule[p.rule]++
			}
			if p.state != passState(state) {
				return "a pass is in the wrong list"
			}
		}
		if n != list.n {
			return "a list is miscounted"
		}
	}
	for i, n := range perRule {
		if g.perRule[i] != n {
			return "a rule is miscounted"
		}
	}
	if len(sources) != len(g.sources) {
		return "sources miscounted"
	}
	for key, s := range sources {
		if *g.sources[key] != s {
			return "a source is miscounted"
		}
	}
	return ""
}

// passes is a list in order of arrival.
type passes struct {
	first, last *Pass
	n           int
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
