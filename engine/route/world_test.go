package route_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"causeway/codec"
	"causeway/engine/route"
	"causeway/engine/simnet"
)

// world is routers on a simulated network, with the forwarding tables that their
// actions make. It stops at the first broken promise: broken says which.
type world struct {
	net     *simnet.Network
	routers []*life
	costs   map[simnet.LinkID]uint16
	broken  error

	isLarge    bool                  // too large to check every invariant after every event
	homes      map[codec.Address]int // nodes that have been attached to one router only, ever
	lastChange time.Time             // of any forwarding table
	log        func(format string, args ...any)
}

// life is one life of a router; it has an instance for each of its domains.
type life struct {
	w        *world
	id       simnet.NodeID
	domains  []int
	nodeCost uint16
	byDomain map[int]*instance
}

type instance struct {
	*route.Instance
	r      *life
	domain int
	self   codec.Address
	via    map[codec.Address]route.LinkID
	owners map[codec.Address]codec.Address
	nodes  map[codec.Address]uint64 // attached here: when

	deadline time.Time
}

func prefixOf(domain int) [codec.PrefixSize]byte {
	return [codec.PrefixSize]byte{0xfd, byte(domain)}
}

func addressOf(domain int, kind codec.Kind, n int) (a codec.Address) {
	p := prefixOf(domain)
	copy(a[:], p[:])
	a[7] = byte(kind)
	binary.BigEndian.PutUint64(a[8:], uint64(n)+1)
	return a
}

func routerAddress(domain int, id simnet.NodeID) codec.Address {
	return addressOf(domain, codec.KindRouter, int(id))
}

// reader makes router IDs from the network's seed.
type reader struct{ *rand.Rand }

func (r reader) Read(b []byte) (int, error) {
	for n := range b {
		b[n] = byte(r.Uint32())
	}
	return len(b), nil
}

func newWorld(config simnet.Config) *world {
	config.Start = time.Unix(1_700_000_000, 0)
	return &world{net: simnet.New(config), costs: map[simnet.LinkID]uint16{}, homes: map[codec.Address]int{}, lastChange: config.Start, log: func(string, ...any) {}}
}

// add adds a router that serves these domains.
func (w *world) add(nodeCost uint16, domains ...int) *life {
	r := &life{w: w, domains: domains, nodeCost: nodeCost}
	r.id = w.net.Add(r)
	w.routers = append(w.routers, r)
	w.start(r, 0)
	return r
}

// start makes r's instances, by a clock that is off by skew.
func (w *world) start(r *life, skew time.Duration) {
	r.byDomain = map[int]*instance{}
	for _, domain := range r.domains {
		self := routerAddress(domain, r.id)
		made, err := route.New(route.Config{Self: self, NodeCost: r.nodeCost, Random: reader{w.net.Rand()}}, w.net.Now().Add(skew))
		if err != nil {
			panic(err)
		}
		r.byDomain[domain] = &instance{
			Instance: made, r: r, domain: domain, self: self,
			via:    map[codec.Address]route.LinkID{},
			owners: map[codec.Address]codec.Address{},
			nodes:  map[codec.Address]uint64{},
		}
	}
}

// restart ends router n and starts it again, by a clock that is off by skew.
func (w *world) restart(n int, skew time.Duration) {
	old := w.routers[n]
	r := &life{w: w, id: old.id, domains: old.domains, nodeCost: old.nodeCost}
	w.log("r%d starts again", r.id)
	w.net.Restart(r.id, r)
	w.routers[n] = r
	w.start(r, skew)
}

func (w *world) connect(a, b int, cost uint16) simnet.LinkID {
	id := w.net.Connect(w.routers[a].id, w.routers[b].id)
	w.costs[id] = cost
	return id
}

func (w *world) attach(n, domain, node int) {
	d := w.routers[n].byDomain[domain]
	a := addressOf(domain, codec.KindNode, node)
	if home, seen := w.homes[a]; !seen {
		w.homes[a] = n
	} else if home != n {
		w.homes[a] = -1
	}
	sent := uint64(w.net.Now().UnixNano())
	d.nodes[a] = sent
	actions, err := d.Attach(w.net.Now(), a, sent)
	if err != nil {
		w.fail("attaching %v: %v", a, err)
	}
	d.apply(actions)
}

func (w *world) detach(n, domain, node int) {
	d := w.routers[n].byDomain[domain]
	a := addressOf(domain, codec.KindNode, node)
	delete(d.nodes, a)
	d.apply(d.Detach(w.net.Now(), a))
}

func (w *world) fail(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf("at %v: %w", w.net.Now().Sub(time.Unix(1_700_000_000, 0)), fmt.Errorf(format, args...))
	}
}

// shared calls f for each domain that both ends of a link serve, in order.
func (r *life) shared(peer simnet.NodeID, f func(d *instance)) {
	for _, domain := range r.domains {
		if slices.Contains(r.w.routers[peer].domains, domain) {
			f(r.byDomain[domain])
		}
	}
}

func (r *life) LinkUp(now time.Time, l simnet.LinkID, peer simnet.NodeID) {
	r.shared(peer, func(d *instance) {
		actions, err := d.Instance.LinkUp(now, route.LinkID(l), routerAddress(d.domain, peer), r.w.costs[l])
		if err == route.ErrLinks { // others have failed unnoticed
			r.w.net.Fail(l)
			return
		}
		d.apply(actions)
	})
}

func (r *life) LinkDown(now time.Time, l simnet.LinkID) {
	for _, domain := range r.domains {
		d := r.byDomain[domain]
		d.apply(d.Instance.LinkDown(now, route.LinkID(l)))
	}
}

func (r *life) Receive(now time.Time, l simnet.LinkID, message []byte) {
	m, err := codec.DecodeControl(message)
	if err != nil {
		r.w.fail("%x: %v", message, err)
		return
	}
	d := r.byDomain[int(m.(interface{ Domain() [codec.PrefixSize]byte }).Domain()[1])]
	if d == nil {
		r.w.fail("router %d was sent %T of a domain that it does not serve", r.id, m)
		return
	}
	actions, err := d.Instance.Receive(now, route.LinkID(l), m)
	if err != nil {
		r.w.fail("router %d: %T: %v", r.id, m, err)
	}
	d.apply(actions)
}

func (r *life) Tick(now time.Time) {
	for _, domain := range r.domains {
		if d := r.byDomain[domain]; !now.Before(d.deadline) {
			d.apply(d.Instance.Tick(now))
		}
	}
}

// apply does what an event asked for, and checks every promise that the event
// could have broken.
func (d *instance) apply(actions route.Actions) {
	w := d.r.w
	for _, c := range actions.Routes {
		w.lastChange = w.net.Now()
		w.log("r%d: reaches %v by link %d", d.r.id, show(c.Router), c.Via)
		if c.Via == 0 {
			delete(d.via, c.Router)
		} else {
			d.via[c.Router] = c.Via
		}
	}
	for _, c := range actions.Owners {
		w.lastChange = w.net.Now()
		w.log("r%d: %v belongs to %v", d.r.id, show(c.Node), show(c.Router))
		if c.Router.IsZero() {
			delete(d.owners, c.Node)
		} else {
			d.owners[c.Node] = c.Router
		}
	}
	for _, c := range actions.Routes {
		w.walk(d, c.Router)
	}
	for _, c := range actions.Owners {
		if w.homes[c.Node] >= 0 {
			w.walkTo(d, c.Node)
		}
	}
	for _, m := range actions.Messages {
		body, err := codec.AppendControl(nil, m.Body)
		if err != nil {
			w.fail("%+v: %v", m.Body, err)
			return
		}
		w.log("r%d -> link %d: %s", d.r.id, m.Link, showMessage(m.Body))
		w.net.Send(d.r.id, simnet.LinkID(m.Link), body)
	}
	for _, node := range actions.Probes {
		w.log("r%d: probes %v", d.r.id, show(node))
	}
	for _, node := range actions.Withdrawn {
		w.log("r%d: withdraws %v", d.r.id, show(node))
		delete(d.nodes, node)
	}
	d.deadline = actions.Deadline
	next := d.deadline
	for _, other := range d.r.byDomain {
		if !other.deadline.IsZero() && other.deadline.Before(next) {
			next = other.deadline
		}
	}
	w.net.WakeAt(d.r.id, next)
	if !w.isLarge {
		if broken := d.Check(); broken != "" {
			w.fail("router %d: %s", d.r.id, broken)
		}
	}
}

// hop returns where a frame to a router goes from d; nil: no further.
func (w *world) hop(d *instance, to codec.Address) *instance {
	via, ok := d.via[to]
	if !ok || to == d.self {
		return nil
	}
	peer, alive := w.net.Peer(simnet.LinkID(via), d.r.id)
	if !alive {
		return nil
	}
	next := w.routers[peer].byDomain[d.domain]
	if next == nil {
		w.fail("router %d sends to %v by a link that does not share the domain", d.r.id, to)
	}
	return next
}

// walk follows the next hops to a router and fails when they go in a circle.
func (w *world) walk(from *instance, to codec.Address) {
	at := from
	for range len(w.routers) {
		if at = w.hop(at, to); at == nil {
			return
		}
	}
	w.fail("routes to %v go in a circle from router %d", to, from.r.id)
}

// walkTo does the same for a frame to a node.
func (w *world) walkTo(from *instance, node codec.Address) {
	at := from
	for range len(w.routers) {
		owner, known := at.owners[node]
		if !known {
			return
		}
		if at = w.hop(at, owner); at == nil {
			return
		}
	}
	w.fail("frames to %v go in a circle from router %d", node, from.r.id)
}

// distances returns the metrics that the routes of a domain to router s must
// have, by router; from the links alone.
func (w *world) distances(domain int, s simnet.NodeID) map[simnet.NodeID]uint64 {
	dist := map[simnet.NodeID]uint64{s: 0}
	for range w.routers {
		for _, id := range w.net.Links() {
			a, b, _ := w.net.Ends(id)
			for _, hop := range [][2]simnet.NodeID{{a, b}, {b, a}} {
				from, to := hop[0], hop[1]
				known, ok := dist[from]
				if !ok || w.routers[from].byDomain[domain] == nil || w.routers[to].byDomain[domain] == nil {
					continue
				}
				if from != s {
					known += uint64(w.routers[from].nodeCost)
				}
				known += uint64(w.costs[id])
				if known >= codec.MetricInfinity {
					continue
				}
				if have, ok := dist[to]; !ok || known < have {
					dist[to] = known
				}
			}
		}
	}
	return dist
}

var errNotConverged = errors.New("not converged")

// converged checks that every router has the shortest route to every other that
// can be reached, and knows of every node which router it belongs to.
func (w *world) converged() error {
	for _, to := range w.routers {
		for _, domain := range to.domains {
			dist := w.distances(domain, to.id)
			for _, from := range w.routers {
				d := from.byDomain[domain]
				if from == to || d == nil {
					continue
				}
				want, reached := dist[from.id]
				at := slices.IndexFunc(d.Routes(), func(r route.Route) bool { return r.Router == routerAddress(domain, to.id) })
				switch {
				case reached && at < 0:
					return fmt.Errorf("%w: router %d has no route to %d in domain %d, of %d", errNotConverged, from.id, to.id, domain, want)
				case reached && uint64(d.Routes()[at].Metric) != want:
					return fmt.Errorf("%w: router %d to %d in domain %d: metric %d, want %d", errNotConverged, from.id, to.id, domain, d.Routes()[at].Metric, want)
				case !reached && at >= 0:
					return fmt.Errorf("%w: router %d has a route to %d in domain %d, but no path", errNotConverged, from.id, to.id, domain)
				}
			}
		}
	}
	return w.ownersConverged()
}

func (w *world) ownersConverged() error {
	for _, from := range w.routers {
		for _, domain := range from.domains {
			d := from.byDomain[domain]
			type claim struct {
				sent   uint64
				router codec.Address
			}
			want := map[codec.Address]claim{}
			for _, to := range w.routers {
				o := to.byDomain[domain]
				if o == nil {
					continue
				}
				if _, reached := d.via[o.self]; !reached && from != to {
					continue
				}
				for node, sent := range o.nodes {
					c, ok := want[node]
					if !ok || sent > c.sent || sent == c.sent && bytes.Compare(o.self[:], c.router[:]) > 0 {
						want[node] = claim{sent, o.self}
					}
				}
			}
			for node, c := range want {
				if d.owners[node] != c.router {
					return fmt.Errorf("%w: router %d: %v belongs to %v, want %v", errNotConverged, from.id, node, d.owners[node], c.router)
				}
			}
			if len(want) != len(d.owners) {
				return fmt.Errorf("%w: router %d knows nodes %v, want %v", errNotConverged, from.id, slices.Collect(maps.Keys(d.owners)), want)
			}
		}
	}
	return nil
}
