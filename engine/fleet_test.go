package engine

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// fleet is routers that are linked over loopback. Frames are verified by
// recipients: that routers do is tested elsewhere.
type fleet struct {
	t       *testing.T
	domains []*authority
	routers []*Router
	addrs   []string
	ids     []*pki.Identity
}

func newFleet(t *testing.T, domains ...string) *fleet {
	w := &fleet{t: t}
	for _, name := range domains {
		w.domains = append(w.domains, newAuthority(name))
	}
	return w
}

// add starts a router that serves the domains given, by number, and links to
// others, by number too.
func (w *fleet) add(domains []int, to ...int) (n int) {
	w.t.Helper()
	n = len(w.routers)
	var serves []*authority
	for _, d := range domains {
		serves = append(serves, w.domains[d])
	}
	id := routerOf(fmt.Sprintf("edge-%d", n), serves...)
	r, addr := startRouter(w.t, func(c *Config) {
		c.Identity, c.VerifyNone, c.KeepAlive, c.DeadAfter = id, true, 400*time.Millisecond, patience
		for _, other := range to {
			c.Connect = append(c.Connect, w.addrs[other])
		}
	}, serves...)
	w.routers, w.addrs, w.ids = append(w.routers, r), append(w.addrs, addr), append(w.ids, id)
	return n
}

// self returns the address of a router in a domain.
func (w *fleet) self(router, domain int) codec.Address {
	return w.ids[router].Grants[w.domains[domain].Domain].Address
}

// connect has a node of a domain connect to a router.
func (w *fleet) connect(router int, id *pki.Identity) *client {
	w.t.Helper()
	return connect(w.t, w.addrs[router], id)
}

// knows waits until frames for an address go on from each of the routers.
func (w *fleet) knows(a codec.Address, routers ...int) {
	w.t.Helper()
	for _, n := range routers {
		waitFor(w.t, fmt.Sprintf("router %d knows the way to %v", n, a), func() bool {
			to, _ := w.routers[n].lookup(a)
			return to != 0 && w.routers[n].loops[to.Loop()].link.Alive(to)
		})
	}
}

// leads waits until frames for an address go from one router to another by a link
// between the two.
func (w *fleet) leads(a codec.Address, from, to int) {
	w.t.Helper()
	r := w.routers[from]
	waitFor(w.t, fmt.Sprintf("router %d sends to %d what is for %v", from, to, a), func() bool {
		at, _ := r.lookup(a)
		if at == 0 {
			return false
		}
		is := make(chan bool, 1)
		r.onPeer(at, func(p *peer) {
			grant := w.ids[to].Grants[p.domain.name]
			is <- p.far != nil && grant != nil && p.address() == grant.Address
		})
		select {
		case yes := <-is:
			return yes
		case <-time.After(time.Second): // it is gone
			return false
		}
	})
}

// forgets waits until router n knows no way to an address.
func (w *fleet) forgets(a codec.Address, n int) {
	w.t.Helper()
	waitFor(w.t, fmt.Sprintf("router %d forgets the way to %v", n, a), func() bool { to, _ := w.routers[n].lookup(a); return to == 0 })
}

// cut ends the links from one router to another, for good.
func (w *fleet) cut(from, to int) {
	w.t.Helper()
	r := w.routers[from]
	r.links.mu.Lock()
	r.links.dialers[w.addrs[to]].cancel(nil)
	r.links.mu.Unlock()
	r.onLoops(func(l *loop) {
		l.link.Range(func(c *link.Conn) {
			if p := peerOf(c); p.far != nil && c.Remote().String() == w.addrs[to] {
				c.CloseOnLoop(&leftError{codec.GoodbyeDone})
			}
		})
	})
}

// exchange has two nodes send each other frames, and waits for them.
func (w *fleet) exchange(a, b *client) {
	w.t.Helper()
	for n := range 20 {
		a.numbered(b.id.Peer.Address, n, 100)
		b.numbered(a.id.Peer.Address, n, 100)
	}
	for n := range 20 {
		a.wants(n, b)
		b.wants(n, a)
	}
}

// wants reads the frame with that number. That a router does not know what has
// become of earlier ones, since a link was cut, may be told meanwhile.
func (c *client) wants(n int, from *client) {
	c.t.Helper()
	f := c.next()
	for f.Category() == codec.CategoryNotice && must(codec.DecodeNotice(f.Body())).Reason == codec.NoticeUnconfirmed {
		f = c.next()
	}
	if f.Category() != codec.CategoryApplication || f.Sender() != from.id.Peer.Address || numberOf(f) != n {
		c.t.Fatalf("category %v from %v, number %d, wanted %d", f.Category(), f.Sender(), numberOf(f), n)
	}
}

func TestFramesGoOverAnyNumberOfLinks(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	for n := range 3 {
		w.add(all, n)
	}
	alice := w.connect(0, w.domains[0].node("alice"))
	for at := range 4 {
		bob := w.connect(at, w.domains[0].node(fmt.Sprintf("bob%d", at)))
		w.knows(bob.id.Peer.Address, 0)
		w.knows(alice.id.Peer.Address, at)
		w.exchange(alice, bob)
	}
}

func TestFramesGoByAnotherLinkWhenOneIsCut(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	for n := range 5 { // a ring
		switch n {
		case 0:
			w.add(all)
		case 4:
			w.add(all, 3, 0)
		default:
			w.add(all, n-1)
		}
	}
	alice, bob := w.connect(0, w.domains[0].node("alice")), w.connect(4, w.domains[0].node("bob"))
	w.knows(bob.id.Peer.Address, 1, 2, 3)
	w.knows(alice.id.Peer.Address, 3, 2, 1)
	w.leads(bob.id.Peer.Address, 0, 4) // and not by the longer way any more
	w.leads(alice.id.Peer.Address, 4, 0)
	w.exchange(alice, bob)
	to := map[int]codec.Address{0: bob.id.Peer.Address, 4: alice.id.Peer.Address}
	before := map[int]link.Ref{}
	for router, a := range to {
		before[router], _ = w.routers[router].lookup(a)
	}
	w.cut(4, 0)
	for router, a := range to {
		waitFor(t, "the other way round", func() bool {
			at, _ := w.routers[router].lookup(a)
			return at != 0 && at != before[router]
		})
	}
	w.exchange(alice, bob)
}

func TestNodesOfARouterThatIsGoneAreForgotten(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	w.add(all, 1)
	alice := w.connect(0, w.domains[0].node("alice"))
	bob := w.connect(2, w.domains[0].node("bob"))
	w.knows(bob.id.Peer.Address, 0)
	w.cut(2, 1)
	w.forgets(bob.id.Peer.Address, 0)
	w.forgets(w.self(2, 0), 0)
	w.knows(w.self(1, 0), 0)
	again := w.connect(1, bob.id)
	w.knows(bob.id.Peer.Address, 0)
	w.exchange(alice, again)
}

func TestFramesFollowANodeThatMoves(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	w.add(all, 1)
	alice := w.connect(0, w.domains[0].node("alice"))
	id := w.domains[0].node("bob")
	var bob *client
	for _, at := range []int{2, 1, 0, 2} {
		next := w.connect(at, id)
		if bob != nil {
			bob.goodbye()
		}
		bob = next
		want := w.self(at, 0)
		waitFor(t, fmt.Sprintf("router 0 knows bob at %d", at), func() bool { return w.ownerAt(0, bob.id.Peer.Address) == want })
		w.knows(alice.id.Peer.Address, at)
		w.exchange(alice, bob)
	}
}

// ownerAt returns to which router a node belongs, as router n knows.
func (w *fleet) ownerAt(n int, node codec.Address) (owner codec.Address) {
	done := make(chan struct{})
	r := w.routers[n]
	if !r.routing.post(func(time.Time) {
		defer close(done)
		if in := r.routing.prefixes[node.Prefix()]; in != nil {
			owner = in.core.Owner(node)
		}
	}) {
		close(done)
	}
	<-done
	return owner
}

// Frames wait at the router that a node has left, and go where it connects next,
// also when that is another router.
func TestFramesThatWaitFollowANodeToAnotherRouter(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	w.add(all, 1)
	alice := w.connect(0, w.domains[0].node("alice"))
	bob := w.connect(1, w.domains[0].node("bob"))
	w.knows(bob.id.Peer.Address, 0, 2)
	bob.conn.Close()
	waitFor(t, "bob has left", func() bool { return w.routers[1].withdrawn.find(bob.id.Peer.Address) != nil })
	for n := range 50 {
		alice.numbered(bob.id.Peer.Address, n, 100)
	}
	waitFor(t, "frames wait", func() bool {
		return w.routers[0].withdrawn.frames.Load()+w.routers[1].withdrawn.frames.Load() > 0
	})
	again := w.connect(2, bob.id)
	seen := make(map[int]bool) // in any order: they wait at two routers
	for len(seen) < 50 {
		if f := again.next(); f.Category() == codec.CategoryApplication {
			seen[numberOf(f)] = true
		}
	}
}

// A neighbour that tells more than routing can take in at a time is left, and so
// is one that does not read what routing has to say.
func TestANeighbourOfTooManyWordsIsLeft(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	r := w.routers[0]
	list := &codec.AddressList{Router: w.self(1, 0), From: 1, To: 2, Parts: 1, Added: make([]codec.Attached, codec.AddressListEntriesMax)}
	for i := range list.Added {
		copy(list.Added[i].Node[:], list.Router[:codec.PrefixSize])
		list.Added[i].Node[15] = byte(i)
	}
	onLink := func(do func(p *peer)) {
		w.knows(list.Router, 0)
		r.onLoops(func(l *loop) {
			l.link.Range(func(c *link.Conn) {
				if p := peerOf(c); p.far != nil && p.phase == phaseOpen {
					do(p)
				}
			})
		})
	}
	for name, flood := range map[string]func(p *peer){
		"it talks":         func(p *peer) { p.routeMessage(list) },
		"it does not read": func(p *peer) { p.sayRoutes([]codec.Control{list}) },
	} {
		goOn := make(chan struct{})
		running := make(chan struct{})
		w.knows(list.Router, 0)
		r.routing.post(func(time.Time) { close(running); <-goOn })
		<-running
		left := false
		onLink(func(p *peer) {
			for n := 0; p.phase == phaseOpen; n++ {
				if flood(p); int64(n)*memoryOf(list) > r.budget.Limit() {
					t.Errorf("%s: %d messages, and it is not left", name, n)
					return
				}
			}
			left = p.phase == phaseLeaving
		})
		close(goOn)
		if !left {
			t.Errorf("%s: it is not left", name)
		}
		waitFor(t, "the link is gone", func() bool { return r.routing.links.Load() == 0 })
		waitFor(t, "the link is there again", func() bool { return r.routing.links.Load() > 0 })
	}
}

// What waits until a neighbour reads counts as memory, until it is said or the link
// ends.
func TestWhatRoutingHasToSayCountsAsMemory(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	r := w.routers[0]
	var updates []codec.Control
	var size int64
	for range 100 {
		updates = append(updates, &codec.RouteUpdate{Interval: time.Hour})
		size += memoryOf(updates[0])
	}
	counted := func() int64 {
		r.onLoops(func(l *loop) { l.link.Account().Look() })
		return r.budget.Usage()[buf.PartRoutes]
	}
	for name, end := range map[string]func(p *peer){
		"said":     func(p *peer) {},
		"given up": func(p *peer) { p.leave(codec.GoodbyeDone, "a test") },
		"lost":     func(p *peer) { p.conn.CloseOnLoop(nil) },
	} {
		w.knows(w.self(1, 0), 0)
		goOn, running := make(chan struct{}), make(chan struct{})
		r.routing.post(func(time.Time) { close(running); <-goOn }) // what comes from the neighbour is not handled
		<-running
		before, after := counted(), int64(0)
		r.onLoops(func(l *loop) {
			l.link.Range(func(c *link.Conn) {
				if p := peerOf(c); p.far != nil && p.phase == phaseOpen {
					p.sayRoutes(updates)
					l.link.Account().Look()
					after = r.budget.Usage()[buf.PartRoutes]
					end(p)
				}
			})
		})
		close(goOn)
		if after-before < size/2 { // other messages may have been said meanwhile
			t.Errorf("%d bytes wait, %d are counted", size, after-before)
		}
		waitFor(t, "nothing counted when all is "+name, func() bool { return counted() < before+size/2 })
	}
}

// A node that is connected to two routers answers on both connections; when it
// does not, the older one is ended.
func TestANodeThatIsElsewhereAndSilentIsLeft(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	id := w.domains[0].node("bob")
	old := w.connect(0, id)
	w.knows(id.Peer.Address, 1)
	newer := w.connect(1, id)
	old.silent = true
	if g := old.ended(); g == nil || g.Reason != codec.GoodbyeReplaced { // it reads, and does not answer
		t.Fatalf("goodbye %+v", g)
	}
	alice := w.connect(0, w.domains[0].node("alice"))
	w.knows(id.Peer.Address, 0)
	alice.numbered(id.Peer.Address, 1, 100)
	newer.wants(1, alice)
}

func TestRoutersCarryNothingBetweenDomains(t *testing.T) {
	w := newFleet(t, "one.example", "two.example")
	w.add([]int{0, 1})
	w.add([]int{0}, 0)
	w.add([]int{0, 1}, 1, 0)
	var nodes [2]*client
	for d := range nodes {
		nodes[d] = w.connect(2, w.domains[d].node("bob"))
		w.knows(nodes[d].id.Peer.Address, 0)
	}
	w.knows(nodes[0].id.Peer.Address, 1)
	if to, _ := w.routers[1].lookup(nodes[1].id.Peer.Address); to != 0 {
		t.Error("a router knows a node of a domain that it does not serve")
	}
	for d := range nodes {
		alice := w.connect(0, w.domains[d].node("alice"))
		w.leads(alice.id.Peer.Address, 2, 0) // and not by router 1 any more
		w.leads(nodes[d].id.Peer.Address, 0, 2)
		w.exchange(alice, nodes[d])
		alice.numbered(nodes[1-d].id.Peer.Address, 1, 100)
		if told := toldOf(t, []codec.Raw{alice.next()}); told[codec.NoticeNotPermitted] != 1 {
			t.Errorf("a frame to another domain: %v", told)
		}
	}
	w.cut(2, 0) // the only link of the second domain
	w.forgets(nodes[1].id.Peer.Address, 0)
	w.knows(nodes[0].id.Peer.Address, 0)
}

func TestAListOfTenThousandAddressesArrives(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	const nodes = 10_000
	prefix := w.domains[0].node("x").Peer.Address
	r := w.routers[0]
	for n := range nodes {
		a := nodeAt(0, n)
		copy(a[:codec.PrefixSize], prefix[:])
		r.routing.attach(w.self(0, 0), a, link.Ref(1<<31+n), uint64(time.Now().UnixNano()), 0)
	}
	w.add(all, 0)
	w.add(all, 1)
	for n := 1; n <= 2; n++ {
		waitFor(t, fmt.Sprintf("all addresses at router %d", n), func() bool { return w.routers[n].table.Len() == nodes+2 })
	}
}

func TestADomainThatIsAddedIsRoutedAndOneThatIsRemovedIsNot(t *testing.T) {
	w := newFleet(t, "one.example", "two.example")
	w.add([]int{0, 1})
	w.add([]int{0, 1}, 0)
	r := w.routers[1]
	bob := w.connect(0, w.domains[1].node("bob"))
	w.knows(bob.id.Peer.Address, 1)
	serve := func(domains ...int) {
		t.Helper()
		id := &pki.Identity{Key: w.ids[1].Key, Grants: map[string]*pki.Peer{}}
		for _, d := range domains {
			name := w.domains[d].Domain
			id.Grants[name] = w.ids[1].Grants[name]
		}
		if _, err := r.Reload(func(c Config) (Config, error) { c.Identity = id; return c, nil }); err != nil {
			t.Fatal(err)
		}
	}
	serve(0)
	w.forgets(bob.id.Peer.Address, 1)
	w.forgets(w.self(1, 1), 0)
	w.knows(w.self(1, 0), 0)
	serve(0, 1)
	w.knows(bob.id.Peer.Address, 1)
	w.knows(w.self(1, 1), 0)
	all, limits := r.state().served()
	release := make(chan struct{})
	for _, l := range r.loops {
		held := make(chan struct{})
		l.link.Post(func() { close(held); <-release })
		<-held
	}
	r.routing.serve(all[:1], limits)
	r.routing.serve(all, limits) // before loops have noticed
	owner := w.ownerAt(1, bob.id.Peer.Address)
	close(release)
	if !owner.IsZero() {
		t.Error("a domain that was away knows where nodes are")
	}
	w.knows(bob.id.Peer.Address, 1)
	alice := w.connect(1, w.domains[1].node("alice"))
	w.knows(alice.id.Peer.Address, 0)
	w.exchange(alice, bob)
}

// inbox is the numbers of frames that a node has received, on whatever connection.
type inbox struct {
	mu   sync.Mutex
	seen map[int]int
}

func (in *inbox) size() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.seen)
}

// read notes what comes on c to its end. When the router drains it has another
// connection made, and then leaves.
func (in *inbox) read(c *client, next func()) {
	for {
		f, err := c.read()
		if err != nil {
			c.conn.Close()
			return
		}
		switch f.Category() {
		case codec.CategoryApplication:
			in.mu.Lock()
			in.seen[numberOf(f)]++
			in.mu.Unlock()
		case codec.CategoryControl:
			if g, ok := must(codec.DecodeControl(f.Body())).(*codec.Goodbye); ok && g.Reason == codec.GoodbyeDraining && g.ReadFor > 0 {
				next()
				c.say(&codec.Goodbye{Reason: codec.GoodbyeDone, ReadFor: patience, Received: c.received})
			}
		}
	}
}

// Traffic that another router's stop is in the way of goes around it.
func TestNothingIsLostWhenARouterBetweenOthersStops(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	w.add(all, 1)
	w.add(all, 2)
	w.add(all, 3, 0) // a ring, by which 1 is between 0 and 2, and 3 and 4 are longer
	alice, bob := w.connect(0, w.domains[0].node("alice")), w.connect(2, w.domains[0].node("bob"))
	a, b := alice.id.Peer.Address, bob.id.Peer.Address
	w.knows(b, 0, 1, 3, 4)
	w.knows(a, 2, 1, 3, 4)
	var both sync.WaitGroup
	in := []*inbox{{seen: make(map[int]int)}, {seen: make(map[int]int)}}
	both.Go(func() { in[0].read(alice, nil) })
	both.Go(func() { in[1].read(bob, nil) })
	const frames = 3000
	var end *closing
	for n := range frames {
		if n == frames/10 {
			end = startClose(t, w.routers[1], patience)
		}
		alice.numbered(b, n, 100)
		bob.numbered(a, n, 100)
		if n%10 == 0 {
			time.Sleep(time.Millisecond) // so that all of it happens under traffic
		}
	}
	if err, _ := end.wait(); err != nil {
		t.Error(err)
	}
	for _, in := range in {
		waitFor(t, "all frames", func() bool { return in.size() == frames })
	}
	if n := w.routers[1].Counts().Forwarded; n < frames/10 {
		t.Errorf("the router that has stopped had forwarded %d frames: they did not go by it", n)
	}
	for _, r := range w.routers {
		if n := r.Counts().Unconfirmed; n != 0 {
			t.Errorf("%d frames are in doubt", n)
		}
	}
	alice.conn.Close()
	bob.conn.Close()
	both.Wait()
}

// A router that stops loses nothing: its nodes go elsewhere, and what still comes
// for them follows.
func TestNothingIsLostWhenARouterOfAFleetStops(t *testing.T) {
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	w.add(all, 0, 1)
	alice := w.connect(0, w.domains[0].node("alice"))
	id := w.domains[0].node("bob")
	in := &inbox{seen: make(map[int]int)}
	var reading sync.WaitGroup
	bob, next := w.connect(1, id), (*client)(nil)
	w.knows(id.Peer.Address, 0, 2)
	reading.Go(func() {
		in.read(bob, func() {
			next = w.connect(2, id)
			reading.Go(func() { in.read(next, nil) })
		})
	})
	const frames = 3000
	var end *closing
	for n := range frames {
		if n == frames/10 {
			end = startClose(t, w.routers[1], patience)
		}
		alice.numbered(id.Peer.Address, n, 100)
		if n%10 == 0 {
			time.Sleep(time.Millisecond) // so that all of it happens under traffic
		}
	}
	if err, _ := end.wait(); err != nil {
		t.Error(err)
	}
	waitFor(t, "all frames", func() bool { return in.size() == frames })
	for _, r := range w.routers {
		if n := r.Counts().Unconfirmed; n != 0 {
			t.Errorf("%d frames are in doubt", n)
		}
	}
	next.conn.Close()
	reading.Wait()
}
