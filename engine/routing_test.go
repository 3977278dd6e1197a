package engine

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
	"causeway/engine/route"
	"causeway/engine/table"
)

// routingNet is routings that are linked without connections.
type routingNet struct {
	t   *testing.T
	mu  sync.Mutex
	all []*routingNode
	far map[link.Ref]end // by the ref of a link at one end: the other end
	ref link.Ref

	over atomic.Bool // the test is over, and routers end
}

// end is one end of a link.
type end struct {
	at  *routingNode
	id  route.LinkID
	ref link.Ref
}

// routingNode is a routing, and the hands that it has in tests.
type routingNode struct {
	*routing
	net    *routingNet
	n      int
	router *Router // for lookup

	silent   atomic.Bool // its nodes do not answer
	mu       sync.Mutex
	left     []codec.GoodbyeReason
	alarms   []string
	moved    map[link.Ref]codec.Address
	probed   map[link.Ref]int
	here     map[link.Ref]codec.Address
	cameBack int
}

func routeAddress(domain int, kind codec.Kind, n int) (a codec.Address) {
	a[0], a[1], a[7] = 0xfd, byte(domain), byte(kind)
	binary.BigEndian.PutUint64(a[8:], uint64(n)+1)
	return a
}

func routerAt(domain, n int) codec.Address { return routeAddress(domain, codec.KindRouter, n) }
func nodeAt(domain, n int) codec.Address   { return routeAddress(domain, codec.KindNode, n) }

func newRoutingNet(t *testing.T) *routingNet {
	return &routingNet{t: t, far: make(map[link.Ref]end), ref: 1}
}

// add starts a routing of the domains given.
func (w *routingNet) add(limits routingLimits, domains ...int) *routingNode {
	r := &Router{table: table.New(), hops: new(hops)}
	n := &routingNode{
		net: w, n: len(w.all), router: r,
		moved: make(map[link.Ref]codec.Address), probed: make(map[link.Ref]int), here: make(map[link.Ref]codec.Address),
	}
	n.routing = newRouting(n, r.table, r.hops, newWithdrawals(time.Now(), 64<<20), buf.NewBudget(64<<20, 1))
	w.all = append(w.all, n)
	n.serveAll(limits, domains...)
	w.t.Cleanup(func() {
		w.over.Store(true)
		n.close()
		for ref, a := range n.here {
			r.table.Clear(a, tableValue(ref))
		}
		if r.table.Len() != 0 || r.table.Check() != "" {
			w.t.Errorf("router %d leaves %d addresses in the table, %q", n.n, r.table.Len(), r.table.Check())
		}
		if used := r.hops.inUse(); used != 0 {
			w.t.Errorf("router %d leaves %d numbers in use", n.n, used)
		}
		if left := n.budget.Use(buf.PartRoutes, 0); left != 0 {
			w.t.Errorf("router %d leaves %d bytes counted", n.n, left)
		}
	})
	return n
}

func (n *routingNode) serveAll(limits routingLimits, domains ...int) {
	var all []served
	for _, d := range domains {
		all = append(all, served{fmt.Sprint(d), routerAt(d, n.n)})
	}
	n.serve(all, limits)
}

// newRef returns a ref that was never there before.
func (w *routingNet) newRef() link.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ref++
	return w.ref
}

// link connects two routers in the domains given; cut ends that.
func (w *routingNet) link(a, b *routingNode, cost uint16, domains ...int) (cut func()) {
	at, bt := end{a, 0, w.newRef()}, end{b, 0, w.newRef()}
	at.id, bt.id = route.LinkID(at.ref), route.LinkID(bt.ref)
	w.mu.Lock()
	w.far[at.ref], w.far[bt.ref] = bt, at
	w.mu.Unlock()
	for _, d := range domains {
		a.linkUp(routerAt(d, a.n), at.id, at.ref, routerAt(d, b.n), cost)
		b.linkUp(routerAt(d, b.n), bt.id, bt.ref, routerAt(d, a.n), cost)
	}
	return func() {
		w.mu.Lock()
		delete(w.far, at.ref)
		delete(w.far, bt.ref)
		w.mu.Unlock()
		for _, d := range domains {
			a.linkDown(routerAt(d, a.n), at.id)
			b.linkDown(routerAt(d, b.n), bt.id)
		}
	}
}

func (n *routingNode) say(by link.Ref, messages []codec.Control) {
	n.net.mu.Lock()
	to, up := n.net.far[by]
	n.net.mu.Unlock()
	for _, m := range messages {
		if up && !to.at.message(to.id, to.ref, must(codec.DecodeControl(must(codec.AppendControl(nil, m))))) && !n.net.over.Load() {
			n.net.t.Errorf("router %d has no room for a message", to.at.n)
		}
	}
}

func (n *routingNode) leave(_ link.Ref, reason codec.GoodbyeReason, _ string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left = append(n.left, reason)
}

func (n *routingNode) probe(node link.Ref) {
	n.mu.Lock()
	n.probed[node]++
	a := n.here[node]
	n.mu.Unlock()
	if !n.silent.Load() {
		n.answered(routerAt(int(a[1]), n.n), a)
	}
}

func (n *routingNode) replaced(node link.Ref, by codec.Address) {
	n.mu.Lock()
	n.moved[node] = by
	a := n.here[node]
	n.mu.Unlock()
	n.leaves(a, node)
}

func (n *routingNode) linksOf(codec.Address) {}

func (n *routingNode) alarm(_, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alarms = append(n.alarms, what)
}

func (n *routingNode) appeared(codec.Address) {}

func (n *routingNode) comeBack() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cameBack++
}

// enters connects a node, by a hello of that time.
func (n *routingNode) enters(a codec.Address, sent uint64) link.Ref {
	ref := n.net.newRef()
	n.mu.Lock()
	n.here[ref] = a
	n.mu.Unlock()
	n.attach(routerAt(int(a[1]), n.n), a, ref, sent, n.table.Set(a, tableValue(ref)))
	return ref
}

// leaves ends a node's connection.
func (n *routingNode) leaves(a codec.Address, ref link.Ref) {
	n.table.Clear(a, tableValue(ref))
	n.detach(routerAt(int(a[1]), n.n), a, ref)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.here, ref)
}

// wantWay waits until frames for an address go from one router by way of others
// to the last, where it is; 0 hops: from is that router.
func (w *routingNet) wantWay(a codec.Address, way ...*routingNode) {
	w.t.Helper()
	var went []int
	waitFor(w.t, fmt.Sprintf("a way of %d routers to %v", len(way), a), func() bool {
		went = went[:0]
		for at := way[0]; len(went) <= len(way); {
			went = append(went, at.n)
			to, remote := at.router.lookup(a)
			if !remote || to == 0 {
				break
			}
			w.mu.Lock()
			next, up := w.far[to]
			w.mu.Unlock()
			if !up {
				return false
			}
			at = next.at
		}
		last := way[len(way)-1]
		to, remote := last.router.lookup(a)
		return len(went) == len(way) && slices.EqualFunc(way, went, func(n *routingNode, at int) bool { return n.n == at }) &&
			(to != 0 && !remote || a == routerAt(int(a[1]), last.n))
	})
}

// wantNone waits until a router knows no way to an address.
func (w *routingNet) wantNone(at *routingNode, a codec.Address) {
	w.t.Helper()
	waitFor(w.t, fmt.Sprintf("no way to %v", a), func() bool { to, _ := at.router.lookup(a); return to == 0 })
}

// quiet waits until a router has done what was posted to it.
func (n *routingNode) quiet() {
	done := make(chan struct{})
	n.post(func(time.Time) { close(done) })
	<-done
}

func sentNow() uint64 { return uint64(time.Now().UnixNano()) }

func TestRoutesLeadToNodesAndRouters(t *testing.T) {
	w := newRoutingNet(t)
	a, b, c := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	w.link(a, b, 1, 0)
	w.link(b, c, 1, 0)
	a.enters(nodeAt(0, 1), sentNow())
	c.enters(nodeAt(0, 2), sentNow())
	w.wantWay(nodeAt(0, 2), a, b, c)
	w.wantWay(nodeAt(0, 1), c, b, a)
	w.wantWay(nodeAt(0, 2), c)
	w.wantWay(routerAt(0, 2), a, b, c)
	w.wantNone(a, nodeAt(0, 3))
}

func TestTrafficMovesWhenALinkIsCut(t *testing.T) {
	w := newRoutingNet(t)
	a, b, c := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	w.link(a, b, 2, 0)
	w.link(b, c, 1, 0) // b is nearer to c than a ever is: a feasible next hop
	node := nodeAt(0, 1)
	c.enters(node, sentNow())
	w.wantWay(node, a, b, c)
	cut := w.link(a, c, 2, 0)
	w.wantWay(node, a, c)
	cut()
	a.quiet() // what was posted is done, and no timer was waited for
	if to, _ := a.router.lookup(node); to == 0 || w.far[to].at != b {
		t.Errorf("after the cut a sends by %x, want by b", to)
	}
	w.wantWay(node, a, b, c)
}

// postAndWait has do run on the goroutine.
func (n *routingNode) postAndWait(do func()) {
	done := make(chan struct{})
	n.post(func(time.Time) { defer close(done); do() })
	<-done
}

func TestNodesOfALostRouterAreNowhereAndFramesForThemWait(t *testing.T) {
	w := newRoutingNet(t)
	hold := routingLimits{hold: time.Minute}
	a, b := w.add(hold, 0), w.add(hold, 0)
	cut := w.link(a, b, 1, 0)
	node := nodeAt(0, 1)
	b.enters(node, sentNow())
	w.wantWay(node, a, b)
	if a.withdrawn.find(node) != nil {
		t.Error("frames wait for a node that is there")
	}
	cut()
	w.wantNone(a, node)
	a.quiet()
	if a.withdrawn.find(node) == nil {
		t.Error("frames do not wait for a node whose router is lost")
	}
	w.link(a, b, 1, 0)
	w.wantWay(node, a, b)
	a.quiet()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cameBack == 0 {
		t.Error("loops were not told that somebody came back")
	}
}

// Whoever finds a node nowhere that has just been elsewhere finds that it may come back.
func TestANodeThatIsLostIsAwaitedAtOnce(t *testing.T) {
	w := newRoutingNet(t)
	hold := routingLimits{hold: time.Minute}
	a, b := w.add(hold, 0), w.add(hold, 0)
	w.link(a, b, 1, 0)
	node := nodeAt(0, 1)
	b.enters(node, sentNow())
	w.wantWay(node, a, b)
	var turn atomic.Uint64 // odd: the node is nowhere, or about to be; nothing else changes
	var enough atomic.Bool
	over := make(chan struct{})
	a.post(func(time.Time) {
		defer close(over)
		in := a.instances[routerAt(0, 0)]
		for end := time.Now().Add(patience / 4); !enough.Load() && time.Now().Before(end); {
			turn.Add(1)
			a.place(in, node, codec.Address{})
			turn.Add(1)
			a.place(in, node, routerAt(0, 1))
			a.withdrawn.remove(node)
		}
	})
	for looked := 0; ; {
		before := turn.Load()
		if to, _ := a.router.lookup(node); before%2 == 1 && to == 0 {
			looked++
			if a.withdrawn.find(node) == nil && turn.Load() == before {
				t.Errorf("look %d: frames for the node would be dropped", looked)
				enough.Store(true)
			}
			if looked == 10_000 {
				enough.Store(true)
			}
		}
		select {
		case <-over:
			if looked == 0 {
				t.Error("it was never nowhere")
			}
			return
		default:
		}
	}
}

func TestANodeThatMovesIsWhereItAttachedLast(t *testing.T) {
	w := newRoutingNet(t)
	a, b, c := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	w.link(a, b, 1, 0)
	w.link(b, c, 1, 0)
	node, sent := nodeAt(0, 1), sentNow()
	at := a.enters(node, sent)
	w.wantWay(node, c, b, a)
	there := c.enters(node, sent+1)
	w.wantWay(node, b, c)
	w.wantWay(node, a) // it is connected here still, and answers
	a.mu.Lock()
	probes := a.probed[at]
	a.mu.Unlock()
	if probes == 0 {
		waitFor(t, "a probe", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.probed[at] > 0 })
	}
	a.leaves(node, at)
	w.wantWay(node, a, b, c)
	c.leaves(node, there)
	w.wantNone(a, node)
	a.enters(node, sent+2)
	w.wantWay(node, c, b, a)
}

func TestANodeThatDoesNotAnswerIsGivenAway(t *testing.T) {
	w := newRoutingNet(t)
	a, b := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	a.silent.Store(true)
	w.link(a, b, 1, 0)
	node, sent := nodeAt(0, 1), sentNow()
	at := a.enters(node, sent)
	w.wantWay(node, b, a)
	b.enters(node, sent+1)
	w.wantWay(node, a, b)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.moved[at] != routerAt(0, 1) {
		t.Errorf("it was given to %v", a.moved[at])
	}
}

func TestAnOlderAttachmentElsewhereIsNotBelieved(t *testing.T) {
	w := newRoutingNet(t)
	a, b := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	w.link(a, b, 1, 0)
	node, sent := nodeAt(0, 1), sentNow()
	a.enters(node, sent)
	w.wantWay(node, b, a)
	b.enters(node, sent-1)
	waitFor(t, "a probe at b", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.probed) == 1
	})
	w.wantWay(node, a)
	w.wantWay(node, b)
}

// A newer connection of a node takes an older one's place on another loop: what
// loops tell comes in any order.
func TestAttachmentsOfOneNodeComeInAnyOrder(t *testing.T) {
	w := newRoutingNet(t)
	a, b := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	w.link(a, b, 1, 0)
	self := routerAt(0, 0)
	for n, order := range [][]string{{"old", "new", "gone"}, {"old", "gone", "new"}, {"new", "old", "gone"}} {
		node, sent := nodeAt(0, n), sentNow()
		first, second := w.newRef(), w.newRef()
		a.table.Set(node, tableValue(second))
		for _, what := range order {
			switch what {
			case "old":
				a.attach(self, node, first, sent, 0)
			case "new":
				a.attach(self, node, second, sent+1, tableValue(first))
			case "gone":
				a.detach(self, node, first)
			}
		}
		w.wantWay(node, b, a)
		a.postAndWait(func() {
			if all := a.instances[self].attached[node]; len(all) != 1 || all[0].ref != second {
				t.Errorf("%v: attached by %v, want %x", order, all, second)
			}
		})
		a.leaves(node, second)
		w.wantNone(b, node)
	}
}

func TestNothingCrossesDomains(t *testing.T) {
	w := newRoutingNet(t)
	a, b, c := w.add(routingLimits{}, 0, 1), w.add(routingLimits{}, 0), w.add(routingLimits{}, 0, 1)
	w.link(a, b, 1, 0)
	w.link(b, c, 1, 0)
	w.link(a, c, 100, 1)
	for d := range 2 {
		c.enters(nodeAt(d, 1), sentNow())
	}
	w.wantWay(nodeAt(0, 1), a, b, c)
	w.wantWay(nodeAt(1, 1), a, c)
	b.quiet()
	if to, _ := b.router.lookup(nodeAt(1, 1)); to != 0 {
		t.Error("a router knows a node of a domain that it does not serve")
	}
	if to, _ := b.router.lookup(routerAt(1, 2)); to != 0 {
		t.Error("a router knows a router of a domain that it does not serve")
	}
}

func TestLongListsArriveUpToTheirLimit(t *testing.T) {
	w := newRoutingNet(t)
	const nodes = 10_000
	a, b := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	c, d := w.add(routingLimits{maxAddresses: nodes / 2}, 0), w.add(routingLimits{maxTotal: nodes}, 0)
	for n := range nodes {
		a.enters(nodeAt(0, n), sentNow())
	}
	w.link(a, b, 1, 0)
	w.link(b, c, 1, 0)
	w.link(b, d, 1, 0)
	waitFor(t, "all addresses", func() bool { return b.table.Len() == nodes+3 })
	waitFor(t, "half of the addresses, and three routers", func() bool { return c.table.Len() == nodes/2+3 })
	waitFor(t, "all addresses, and three routers", func() bool { return d.table.Len() == nodes+3 })
	waitFor(t, "the rest counted", func() bool {
		c.counts.mu.Lock()
		defer c.counts.mu.Unlock()
		return c.counts.refused[refusedLimit] == nodes/2
	})
	first := c.enters(nodeAt(0, nodes), sentNow())
	for n := range nodes / 2 {
		c.enters(nodeAt(0, nodes+1+n), sentNow())
	}
	waitFor(t, "another router's addresses are too many for it in all", func() bool {
		d.counts.mu.Lock()
		defer d.counts.mu.Unlock()
		return d.counts.refused[refusedLimit] > 0
	})
	waitFor(t, "one node too many of its own", func() bool {
		c.counts.mu.Lock()
		defer c.counts.mu.Unlock()
		return c.counts.refused[refusedAttached] == 1
	})
	c.mu.Lock()
	alarms := c.alarms
	c.mu.Unlock()
	if len(alarms) != 1 {
		t.Errorf("alarms: %q", alarms)
	}
	w.wantNone(b, nodeAt(0, nodes+nodes/2))
	c.leaves(nodeAt(0, nodes), first)
	w.wantWay(nodeAt(0, nodes+nodes/2), b, c)
}

func TestDomainsComeAndGo(t *testing.T) {
	w := newRoutingNet(t)
	a, b := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0, 1)
	cut := w.link(a, b, 1, 0)
	for d := range 2 {
		b.enters(nodeAt(d, 1), sentNow())
	}
	w.wantWay(nodeAt(0, 1), a, b)
	a.serveAll(routingLimits{}, 0, 1)
	w.link(a, b, 1, 1)
	w.wantWay(nodeAt(1, 1), a, b)
	a.serveAll(routingLimits{}, 1)
	w.wantNone(a, nodeAt(0, 1))
	w.wantNone(a, routerAt(0, 1))
	w.wantWay(nodeAt(1, 1), a, b)
	cut()
	a.serveAll(routingLimits{}, 0, 1)
	w.link(a, b, 1, 0)
	w.wantWay(nodeAt(0, 1), a, b)
}

func TestARouterThatYieldsIsGoneAround(t *testing.T) {
	w := newRoutingNet(t)
	a, b, c, d := w.add(routingLimits{}, 0), w.add(routingLimits{}, 0), w.add(routingLimits{}, 0), w.add(routingLimits{}, 0)
	w.link(a, b, 1, 0)
	w.link(b, d, 1, 0)
	w.link(a, c, 10, 0)
	w.link(c, d, 10, 0)
	far, near := nodeAt(0, 1), nodeAt(0, 2)
	d.enters(far, sentNow())
	b.enters(near, sentNow())
	w.wantWay(far, a, b, d)
	b.yield()
	w.wantWay(far, a, c, d)
	w.wantWay(near, a, b)
	w.wantWay(near, d, b)
	b.serveAll(routingLimits{}, 0) // a reload
	b.quiet()
	a.quiet() // it has what b has said of that
	w.wantWay(far, a, c, d)
	b.postAndWait(func() {
		if b.limits.nodeCost != yieldCost {
			t.Errorf("domains that are new would have node cost %d", b.limits.nodeCost)
		}
	})
}

func TestTwoRoutersWithOneAddressRaiseAnAlarm(t *testing.T) {
	w := newRoutingNet(t)
	a := w.add(routingLimits{}, 0)
	a.linkUp(routerAt(0, 0), 7, 70, routerAt(0, 1), 1)
	a.quiet() // its epoch is before now
	now := uint64(time.Now().UnixNano())
	for n := range uint64(20) { // each is newer than what this router has made of the one before
		a.message(7, 70, &codec.RouteUpdate{Interval: time.Minute, Routes: []codec.Route{{Router: routerAt(0, 0), Source: codec.Source{Epoch: now + 1000*(n+1)}, Metric: 1}}})
	}
	a.quiet()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.alarms) == 0 || a.counts.refused[refusedTwin] != uint64(len(a.alarms)) {
		t.Errorf("alarms: %q, counted %d", a.alarms, a.counts.refused[refusedTwin])
	}
}

func TestMessagesThatNobodyMayTakeAreCounted(t *testing.T) {
	w := newRoutingNet(t)
	a := w.add(routingLimits{}, 0)
	a.linkUp(routerAt(0, 0), 7, 70, routerAt(0, 1), 1)
	update := func(domain int) codec.Control {
		return &codec.RouteUpdate{Interval: time.Minute, Routes: []codec.Route{{Router: routerAt(domain, 1)}}}
	}
	a.message(7, 70, update(1))
	a.message(8, 80, update(0))
	list := &codec.AddressList{Router: routerAt(0, 1), Source: codec.Source{Epoch: 1}, To: 5, Parts: 2}
	a.message(7, 70, &codec.ListNumbers{Lists: []codec.ListNumber{{Router: list.Router, Source: list.Source, Number: list.To}}})
	a.message(7, 70, list)
	a.message(7, 70, list)
	a.quiet()
	for _, reason := range []int{refusedDomain, refusedLink, refusedParts} {
		if n := a.counts.refused[reason]; n != 1 {
			t.Errorf("%s counted %d times", refusedNames[reason], n)
		}
	}
	if !slices.Equal(a.left, []codec.GoodbyeReason{codec.GoodbyeProtocol}) {
		t.Errorf("links were left for %v", a.left)
	}
	for id := range route.LinkID(route.LinksMax) {
		a.linkUp(routerAt(0, 0), 100+id, 100, routerAt(0, 1), 1)
	}
	a.quiet()
	if len(a.left) != 2 || a.left[1] != codec.GoodbyeLimit {
		t.Errorf("links were left for %v", a.left)
	}
}

func TestANeighbourCannotFillTheMailbox(t *testing.T) {
	w := newRoutingNet(t)
	a := w.add(routingLimits{}, 0)
	list := &codec.AddressList{Router: routerAt(0, 1), From: 1, To: 2, Parts: 1, Added: make([]codec.Attached, codec.AddressListEntriesMax)}
	for i := range list.Added {
		list.Added[i].Node = nodeAt(0, i)
	}
	running, goOn := make(chan struct{}), make(chan struct{})
	a.post(func(time.Time) { close(running); <-goOn })
	<-running
	taken := int64(0)
	for a.message(1, 10, list) {
		taken += memoryOf(list)
	}
	if taken > a.mailbox.share || taken < a.mailbox.share-memoryOf(list) {
		t.Errorf("%d bytes of one link were taken, its share is %d", taken, a.mailbox.share)
	}
	for id := range route.LinkID(mailShare) { // its others
		for a.message(2+id, 20, list) {
			taken += memoryOf(list)
		}
	}
	if room := a.mailbox.max + mailSure - a.mailbox.waiting(); room < 0 {
		t.Errorf("%d bytes more than may be", -room)
	}
	if !a.message(10, 100, list) {
		t.Error("another link finds no room")
	}
	if got := a.budget.Use(buf.PartRoutes, 0); got != taken+memoryOf(list) {
		t.Errorf("the budget knows of %d bytes of %d", got, taken+memoryOf(list))
	}
	close(goOn)
	a.quiet()
	waitFor(t, "room again", func() bool { return a.mailbox.waiting() == 0 })
	if !a.message(1, 10, list) {
		t.Error("no room when all is handled")
	}
	a.quiet()
}
