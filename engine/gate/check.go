package gate

import "net/netip"

// Check returns a description of the first broken invariant, or "". It is for
// tests, which call it last.
func (g *Gate) Check() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range []*ranking{&g.crowd, &g.queue} {
		if bad := r.check(); bad != "" {
			return bad
		}
	}
	sources, all, perRule, bad := g.recountLocked()
	switch {
	case bad != "":
		return bad
	case all != counts{g.silent, g.ready, g.ending.n, g.starting.n + g.running.n - g.yielding, g.yielding, g.connected.n}:
		return "the gate is miscounted"
	case len(sources) != len(g.sources):
		return "sources miscounted"
	}
	for i, n := range g.perRule {
		if perRule[int32(i)] != n {
			return "a rule is miscounted"
		}
	}
	crowd, queue := 0, 0
	for key, c := range sources {
		s := g.sources[key]
		if c != (counts{s.silent.n, s.ready.n, s.ending, s.handshakes, s.yielding, s.connections}) {
			return "a source is miscounted"
		}
		if s.waits() > 0 {
			crowd++
		}
		if s.ready.n > 0 {
			queue++
		}
	}
	if crowd != len(g.crowd.heap) || queue != len(g.queue.heap) {
		return "a source is not in the ranking where it belongs"
	}
	if l := &g.limits; g.ready > 0 && (l.Starting == 0 || g.starting.n < l.Starting) && (l.Handshakes == 0 || g.starting.n+g.running.n < l.Handshakes) {
		return "a connection waits though there is room for its handshake"
	}
	return ""
}

// counts are passes by state.
type counts struct{ silent, ready, ending, handshakes, yielding, connections int }

// recountLocked counts the passes, by source, in all and by rule.
func (g *Gate) recountLocked() (sources map[netip.Addr]counts, all counts, perRule map[int32]int, bad string) {
	sources, perRule = make(map[netip.Addr]counts), make(map[int32]int)
	g.eachLocked(func(p *Pass) {
		c := sources[sourceOf(p.addr)]
		for _, n := range []*counts{&c, &all} {
			switch p.state {
			case passSilent:
				n.silent++
			case passReady:
				n.ready++
			case passEnding:
				n.ending++
			case passStarting, passHandshake:
				n.handshakes++
			case passYielding:
				n.yielding++
			case passConnected:
				n.connections++
			default:
				bad = "a pass that is gone is in a list"
			}
		}
		sources[sourceOf(p.addr)] = c
		perRule[p.rule]++
	})
	return sources, all, perRule, bad
}
