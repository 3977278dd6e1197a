package engine

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"causeway/codec"
	"causeway/engine/admin"
	"causeway/engine/buf"
	"causeway/engine/link"
	"causeway/engine/route"
	"causeway/engine/table"
)

// act does what an instance asks for. Routes and owners come first, so that who
// is told of a change meets it.
func (rt *routing) act(in *instance, a route.Actions) {
	in.deadline = a.Deadline
	rt.enter(in, a.Routes, a.Owners)
	for _, node := range a.Withdrawn {
		rt.giveAway(in, node)
	}
	for _, node := range a.Probes {
		if all := in.attached[node]; len(all) > 0 {
			rt.counts.probe()
			rt.hands.probe(latestOf(all).ref)
		}
	}
	rt.send(in, a.Messages)
	before, now := in.refused, in.core.Refused()
	if now == before {
		return
	}
	in.refused = now
	rt.counts.refuseAll(before, now)
	if now.Twin > before.Twin {
		rt.hands.alarm(in.name, "another router says to have this router's address: two routers run with one identity")
	}
}

// send hands messages to their links, all of one link together.
func (rt *routing) send(in *instance, messages []route.Message) {
	for len(messages) > 0 {
		to, rest := messages[0].Link, messages[:0:0]
		var bodies []codec.Control
		for _, m := range messages {
			if m.Link == to {
				bodies = append(bodies, m.Body)
			} else {
				rest = append(rest, m)
			}
		}
		if ref, up := in.links[to]; up {
			rt.hands.say(ref, bodies)
		}
		messages = rest
	}
}

// enter puts changes into table and hops. Routers that are lost come last: what
// is sent to their nodes meanwhile comes back from the link, or is known by the
// neighbour not to be for it.
func (rt *routing) enter(in *instance, routes []route.RouteChange, owners []route.OwnerChange) {
	rt.counts.change(len(routes))
	rt.back = rt.back || len(routes) > 0 // and frames may wait for another route
	for _, c := range routes {
		if c.Via != 0 {
			rt.reach(in, c.Router, in.links[c.Via])
		}
	}
	for _, c := range owners {
		rt.place(in, c.Node, c.Router)
	}
	for _, c := range routes {
		if c.Via == 0 {
			rt.lose(in, c.Router)
		}
	}
}

// reach makes a link the next hop to a router.
func (rt *routing) reach(in *instance, router codec.Address, by link.Ref) {
	v, known := in.numbers[router]
	if !known {
		var ok bool
		if v, ok = rt.hops.give(); !ok {
			rt.counts.refuse(refusedLimit, 1) // more routers than any network has
			return
		}
		in.numbers[router] = v
		rt.changed = true
	}
	rt.hops.set(v, by)
	if rt.set(router, v); !known {
		rt.hands.appeared(router)
	}
}

// lose ends the route to a router that no node belongs to any more.
func (rt *routing) lose(in *instance, router codec.Address) {
	v, known := in.numbers[router]
	if !known {
		return
	}
	rt.set(router, 0)
	rt.hops.takeBack(v)
	delete(in.numbers, router)
	rt.changed = true
}

// place enters whose a node is: another router's, or this one's or nobody's,
// which is the same here. For who has just ceased to be elsewhere frames wait
// (PROTOCOL.md section 8).
func (rt *routing) place(in *instance, node, router codec.Address) {
	v := in.numbers[router] // none of this router and of nobody
	if v == 0 && router.IsZero() && rt.limits.hold > 0 && isRemote(rt.table.Lookup(node)) {
		rt.withdrawn.add(node, 0, time.Now(), rt.limits.hold, withdrawnRemoteMax) // first: who finds it nowhere looks there
	}
	was := rt.set(node, v)
	if v != 0 && was != v && !isHere(was) {
		rt.hands.appeared(node)
	}
	if v != 0 && rt.withdrawn.find(node) != nil {
		rt.back = true
	}
}

// set gives an address the Value v, a router's or 0, unless it is connected
// here, and returns the one before.
func (rt *routing) set(a codec.Address, v table.Value) (was table.Value) {
	for {
		was = rt.table.Lookup(a)
		if isHere(was) || was == v {
			return was
		}
		if rt.table.CompareAndSwap(a, was, v) {
			rt.hops.count(was, -1)
			rt.hops.count(v, 1)
			return was
		}
	}
}

// giveAway leaves a node that belongs to another router and has not answered;
// what waits for it goes there.
func (rt *routing) giveAway(in *instance, node codec.Address) {
	owner := in.core.Owner(node)
	v := in.numbers[owner]
	for _, a := range in.attached[node] {
		if rt.table.CompareAndSwap(node, tableValue(a.ref), v) {
			rt.hops.count(v, 1)
			rt.hands.appeared(node)
		}
		rt.counts.giveAway()
		rt.hands.replaced(a.ref, owner)
	}
}

// Reasons of causeway_route_refused_total.
const (
	refusedFuture   = iota // from further ahead of the clock than --max-skew
	refusedLimit           // beyond --max-addresses, or too many routers
	refusedStray           // a part of a list that was not asked for
	refusedTwin            // another router has this one's address
	refusedDomain          // of a domain that is not served here
	refusedLink            // by a link that has not proven the domain
	refusedParts           // parts of a list out of order
	refusedAttached        // a node of this router beyond --max-addresses: it is served, and not announced
	refusedReasons
)

var refusedNames = [refusedReasons]string{"future", "limit", "stray", "twin", "domain", "link", "parts", "attached"}

// routingCounts is what routing has done and refused, for any goroutine.
type routingCounts struct {
	mu      sync.Mutex
	refused [refusedReasons]uint64
	probes  uint64
	given   uint64 // connections of nodes that had gone elsewhere
	changes uint64 // of next hops
	domains map[string]domainRoutes
}

// domainRoutes is what is known in one domain.
type domainRoutes struct {
	route.Size
	reached int // routers
}

func (c *routingCounts) refuse(reason int, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[reason] += n
}

// refuseAll counts what an instance has refused since before.
func (c *routingCounts) refuseAll(before, now route.Refused) {
	c.refuse(refusedFuture, now.Future-before.Future)
	c.refuse(refusedLimit, now.Limit-before.Limit)
	c.refuse(refusedStray, now.Stray-before.Stray)
	c.refuse(refusedTwin, now.Twin-before.Twin)
}

func (c *routingCounts) probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probes++
}

func (c *routingCounts) giveAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given++
}

func (c *routingCounts) change(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes += uint64(n)
}

// Sizes in memory, in bytes: measured, an address in a list takes a place in
// that, one among the places, and one in the recipient table.
const (
	entryMemory  = 64
	placedMemory = 200
	routerMemory = 1 << 10
)

// publish tells metrics and the budget what there is now.
func (rt *routing) publish() {
	domains := make(map[string]domainRoutes, len(rt.instances))
	var memory, links int64
	for _, in := range rt.instances {
		s := in.core.Size()
		links += int64(s.Links)
		domains[in.name] = domainRoutes{s, len(in.numbers)}
		memory += int64(s.Listed)*entryMemory + int64(s.Nodes)*placedMemory + int64(s.Routers)*routerMemory
	}
	rt.budget.Use(buf.PartRoutes, memory-rt.memory)
	rt.memory = memory
	rt.links.Store(links)
	rt.publishReached()
	rt.counts.mu.Lock()
	defer rt.counts.mu.Unlock()
	rt.counts.domains = domains
}

// publishReached tells loops which routers are reached, when that has changed.
func (rt *routing) publishReached() {
	if !rt.changed {
		return
	}
	rt.changed = false
	reached := make(map[codec.Address][]codec.Address, len(rt.instances))
	for self, in := range rt.instances {
		reached[self] = slices.SortedFunc(maps.Keys(in.numbers), func(a, b codec.Address) int { return bytes.Compare(a[:], b[:]) })
	}
	rt.reached.Store(&reached)
}

// addRouteMetrics registers what routing counts.
func (r *Router) addRouteMetrics(m *admin.Metrics) {
	c := &r.routing.counts
	read := func(field *uint64) func() float64 {
		return func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return float64(*field)
		}
	}
	counter(m, "causeway_route_changes_total", "Changes of the link by which another router is reached.", read(&c.changes))
	counter(m, "causeway_route_probes_total", "Times a connected node was asked for an answer, since another router said that it is there.", read(&c.probes))
	counter(m, "causeway_route_given_away_total", "Connections of nodes that did not answer then, and were ended as replaced.", read(&c.given))
	m.Add(admin.Family{
		Name: "causeway_route_refused_total", Help: "What was left out of what routers and nodes tell of routes, by reason.", Counter: true, Labels: []string{"reason"},
		Read: func() (s []admin.Sample) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for reason, name := range refusedNames {
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(c.refused[reason])})
			}
			return s
		},
	})
	byDomain := func(name, help string, of func(domainRoutes) int) {
		m.Add(admin.Family{Name: name, Help: help, Labels: []string{"domain"}, Read: func() (s []admin.Sample) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for domain, d := range c.domains {
				s = append(s, admin.Sample{Labels: []string{domain}, Value: float64(of(d))})
			}
			return s
		}})
	}
	byDomain("causeway_route_links", "Links that have proven the domain.", func(d domainRoutes) int { return d.Links })
	byDomain("causeway_route_routers", "Other routers that are reached.", func(d domainRoutes) int { return d.reached })
	byDomain("causeway_route_nodes", "Nodes that are attached to this router or another.", func(d domainRoutes) int { return d.Nodes })
	gauge(m, "causeway_route_waiting_bytes", "Memory of messages about routes that wait to be handled.",
		func() float64 { return float64(r.routing.mailbox.waiting()) })
}
