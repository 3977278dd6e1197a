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
	Handshakes           int // under way, in all; beyond it the next one makes another yield
	HandshakesPerSource  int // under way
	HandshakeRate        int // begun per second and source; burstSeconds' worth at once
}

// burstSeconds is how many seconds' worth of handshakes a source may begin at
// once, after as long a rest: many nodes behind one address that come back
// together.
const burstSeconds = 5

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
	ErrHandshakes           = &Refusal{"max-handshakes", "as many handshakes are under way as --max-handshakes allows, and no source has more of them than this one"}
	ErrHandshakesPerSource  = &Refusal{"max-handshakes-per-source", "this source has as many handshakes under way as --max-handshakes-per-source allows"}
	ErrHandshakeRate        = &Refusal{"handshake-rate", "this source begins more handshakes than --max-handshake-rate allows"}
	ErrDisplaced            = &Refusal{"displaced", "--max-handshakes was reached, and this handshake's source had the most under way, or it took the longest"}
)

// Refusals returns all there are.
func Refusals() []*Refusal {
	return []*Refusal{
		ErrFirewall, ErrFirewallMax, ErrConnections, ErrConnectionsPerSource, ErrHandshakes, ErrHandshakesPerSource, ErrHandshakeRate, ErrDisplaced,
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
	yielding    int    // of these, the ones that have been told to end
	connected   passes
	took        time.Duration // moving average of what good handshakes take
}

// source is one with connections or handshakes. What it used of its rate is
// known beyond that, in Gate.rate.
type source struct{ handshakes, yielding, connections int }

// New returns a gate without a firewall; now begins its time.
func New(l Limits, now time.Time) *Gate {
	return &Gate{start: now, limits: l, rate: newRate(), took: tookAtFirst, sources: make(map[netip.Addr]*source)}
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

// End ends a handshake after the time given, unless it has succeeded by then.
type End func(why error, after time.Duration)

// Pass is a connection that may come in, until Gone.
type Pass struct {
	gate  *Gate      // fixed
	addr  netip.Addr // fixed; IPv4 as such
	begun time.Time  // fixed

	state      passState // guarded by gate.mu, like all below
	rule       int       // index of the rule that let it in; -1: none did
	end        End       // ends the handshake; nil afterwards
	source     *source   //
	prev, next *Pass     // in gate.handshaking or gate.connected

	denied atomic.Bool
}

type passState uint8

const (
	passHandshake passState = iota
	passYielding            // a handshake that was told to end, and may still succeed before that
	passConnected
	passGone
)

// Denied tells whether a firewall that came later denies this connection: its
// owner ends it.
func (p *Pass) Denied() bool { return p.denied.Load() }

// Admit decides about a connection from the address given. end is kept until
// Handshaken or Gone: the gate calls it, from any goroutine and with none of
// its locks held, when the handshake must end before its time.
func (g *Gate) Admit(from netip.Addr, now time.Time, end End) (*Pass, error) {
	from = from.Unmap().WithZone("")
	g.mu.Lock()
	p, err := g.admitLocked(from, now, end)
	var displace End
	var after time.Duration
	if err == nil && g.limits.Handshakes > 0 && g.handshaking.n-g.yielding > g.limits.Handshakes {
		if displace, after = g.displaceLocked(p, now); displace == nil {
			g.leaveLocked(p)
			p, err = nil, ErrHandshakes
		}
	}
	g.mu.Unlock()
	if displace != nil {
		displace(ErrDisplaced, after)
	}
	return p, err
}

func (g *Gate) admitLocked(from netip.Addr, now time.Time, end End) (*Pass, error) {
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
	case l.ConnectionsPerSource > 0 && has.connections+has.handshakes+has.yielding >= l.ConnectionsPerSource:
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
	p := &Pass{gate: g, addr: from, begun: now, rule: rule, end: end, source: s}
	s.handshakes++
	if rule >= 0 {
		g.perRule[rule]++
	}
	g.handshaking.push(p)
	return p, nil
}

// displaceLocked makes room for p: another handshake has to yield, and what is
// returned ends it. If a source has more under way than p's, it is the oldest of
// the source with the most, and at once: who holds many yields to who holds
// few. If not, and p's source has others, p has to go itself: nil. And if each
// source has but one, it is the oldest, when its time is over; p then waits for
// its place. It walks over all handshakes, about a microsecond for 256.
func (g *Gate) displaceLocked(p *Pass, now time.Time) (end End, after time.Duration) {
	var oldest, greediest *Pass
	for o := g.handshaking.first; o != nil; o = o.next {
		if o == p || o.state == passYielding {
			continue
		}
		if oldest == nil {
			oldest, greediest = o, o
		}
		if o.source.handshakes > greediest.source.handshakes {
			greediest = o
		}
	}
	victim := greediest
	switch {
	case oldest == nil:
		return nil, 0
	case greediest.source.handshakes > p.source.handshakes:
	case p.source.handshakes > 1:
		return nil, 0
	default:
		victim = oldest
		patience := min(max(patienceFactor*g.took, patienceMin), patienceMax)
		after = max(0, patience-now.Sub(victim.begun))
	}
	victim.state = passYielding
	victim.source.handshakes--
	victim.source.yielding++
	g.yielding++
	return victim.end, after
}

// Handshaken tells that the connection's handshake has succeeded. An error
// means that it may not stay after all; Gone must be called all the same.
func (p *Pass) Handshaken(now time.Time) error {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case p.state > passYielding:
		panic("gate: Handshaken after Handshaken or Gone")
	case p.denied.Load():
		return ErrFirewall
	case g.limits.Connections > 0 && g.connected.n >= g.limits.Connections:
		return ErrConnections
	}
	g.shakenLocked(p)
	g.connected.push(p)
	p.state, p.end = passConnected, nil
	p.source.connections++
	g.took += (min(max(now.Sub(p.begun), 0), patienceMax) - g.took) / tookWeight
	return nil
}

// Gone tells that the connection, or its handshake, has ended. Calls after the
// first do nothing.
func (p *Pass) Gone() {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.leaveLocked(p)
}

// shakenLocked takes p, whose handshake is over, out of those under way.
func (g *Gate) shakenLocked(p *Pass) {
	g.handshaking.remove(p)
	if p.state == passYielding {
		g.yielding--
		p.source.yielding--
	} else {
		p.source.handshakes--
	}
}

func (g *Gate) leaveLocked(p *Pass) {
	switch p.state {
	case passGone:
		return
	case passHandshake, passYielding:
		g.shakenLocked(p)
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
	var ends []End
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
			}
		}
	}
	g.mu.Unlock()
	for _, end := range ends {
		end(ErrFirewall, 0)
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
	yielding := 0
	for _, list := range []*passes{&g.handshaking, &g.connected} {
		n := 0
		for p := list.first; p != nil; p = p.next {
			n++
			s := sources[sourceOf(p.addr)]
			switch p.state {
			case passHandshake:
				s.handshakes++
			case passYielding:
				s.yielding++
				yielding++
			case passConnected:
				s.connections++
			}
			sources[sourceOf(p.addr)] = s
			if p.rule >= 0 {
				perRule[p.rule]++
			}
			if p.state == passGone || (p.state == passConnected) != (list == &g.connected) {
				return "a pass is in the wrong list"
			}
		}
		if n != list.n {
			return "a list is miscounted"
		}
	}
	if yielding != g.yielding {
		return "the yielding are miscounted"
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
