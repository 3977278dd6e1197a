package engine

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// chainOfRouters starts routers edge-1, edge-2 and so on for the domains given,
// each linked to the one before, and waits until all routes are there.
func chainOfRouters(t *testing.T, n int, domains ...*authority) (routers []*Router, addrs []string) {
	t.Helper()
	for i := range n {
		r, addr := startRouter(t, func(c *Config) {
			linkedTo(fmt.Sprintf("edge-%d", i+1), domains, addrs[max(0, i-1):]...)(c)
		}, domains...)
		routers, addrs = append(routers, r), append(addrs, addr)
	}
	for _, r := range routers {
		for _, d := range domains {
			waitFor(t, "routes to all routers", func() bool { return len(r.otherRouters(r.state().domains[d.Domain])) == n-1 })
		}
	}
	return routers, addrs
}

// names asks for names and returns those of the answer's chains, "kind/name", and
// ">" and where to ask again.
func (c *client) names(q codec.NameRequest) string {
	c.t.Helper()
	c.say(&q)
	for {
		f := c.next()
		if f.Category() != codec.CategoryControl {
			c.t.Fatalf("category %v came", f.Category())
		}
		m, ok := must(codec.DecodeControl(f.Body())).(*codec.Names)
		if !ok || m.Number != q.Number {
			c.t.Fatalf("%+v came", m)
		}
		var all []string
		for _, e := range m.Entries {
			leaf := must(x509.ParseCertificate(e.Chain[0]))
			all = append(all, e.Kind+leaf.URIs[0].Path)
		}
		if m.Next != "" {
			all = append(all, ">"+m.Next)
		}
		return strings.Join(all, " ")
	}
}

func TestNamesAreFoundAtAllRoutersOfTheDomain(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	routers, addrs := chainOfRouters(t, 3, one, two)
	alice := connect(t, addrs[0], one.node("alice"))
	connect(t, addrs[2], one.node("bob"))
	connect(t, addrs[1], one.node("carol"))
	connect(t, addrs[0], one.node("dave"))
	connect(t, addrs[2], two.node("eve"))
	check := func(q codec.NameRequest, want string) {
		t.Helper()
		for end := time.Now().Add(patience / 2); ; { // routers that answer later than foundPatience are left out
			q.Number = uint64(time.Now().UnixNano())
			got := alice.names(q)
			if got == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%+v: %q, want %q", q, got, want)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	check(codec.NameRequest{Name: "bob", Max: 1}, "test/bob")
	check(codec.NameRequest{Name: "dave", Max: 1}, "test/dave")
	check(codec.NameRequest{Name: "router/edge-1", Max: 1}, "router/router/edge-1")
	check(codec.NameRequest{Name: "router/edge-3", Max: 1}, "router/router/edge-3")
	check(codec.NameRequest{Name: "eve", Max: 1}, "")
	check(codec.NameRequest{Max: 256}, "test/alice test/bob test/carol test/dave")
	check(codec.NameRequest{Max: 2}, "test/alice test/bob >bob")
	check(codec.NameRequest{After: "bob", Max: 2}, "test/carol test/dave")
	check(codec.NameRequest{After: "dave", Max: 2}, "")
	connect(t, addrs[1], one.node("bob")) // another of that name
	check(codec.NameRequest{Name: "bob", Max: 9}, "test/bob test/bob")
	check(codec.NameRequest{Max: 2}, "test/alice >alice")
	check(codec.NameRequest{After: "alice", Max: 2}, "test/bob test/bob >bob")
	if n := routers[1].asking.fates[namePassed].Load(); n == 0 {
		t.Error("the router between has passed nothing on")
	}
	for i, r := range routers {
		for _, fate := range []int{nameUnproven, nameNoRoute, nameSpent, nameRate, nameBusy} {
			if n := r.asking.fates[fate].Load(); n != 0 {
				t.Errorf("router %d: %d as %s", i+1, n, nameFateNames[fate])
			}
		}
	}
}

func TestManyNameRequestsOfOneNodeWaitForTheirTurn(t *testing.T) {
	d := newAuthority("prod.example")
	_, addrs := chainOfRouters(t, 2, d)
	alice := connect(t, addrs[0], d.node("alice"))
	connect(t, addrs[1], d.node("bob"))
	const most = askingPerNodeMax + askingQueuedMax
	for i := range most {
		alice.say(&codec.NameRequest{Number: uint64(i), Name: "bob", Max: 1})
	}
	seen := make(map[uint64]bool)
	for len(seen) < most {
		m, ok := must(codec.DecodeControl(alice.next().Body())).(*codec.Names)
		if !ok || len(m.Entries) > 1 || seen[m.Number] {
			t.Fatalf("%+v came", m)
		}
		if len(m.Entries) == 0 { // the other router was later than askingPatience
			alice.say(&codec.NameRequest{Number: m.Number, Name: "bob", Max: 1})
			continue
		}
		seen[m.Number] = true
	}
}

// rogue is a router written from PROTOCOL.md alone, linked to the one under test.
type rogue struct {
	*client
	d       *authority
	address codec.Address
	started uint64
}

// newRogue links a router with a grant of d, and announces itself.
func newRogue(t *testing.T, addr string, d *authority, name string) *rogue {
	t.Helper()
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	grant := d.verified(d.chain(pki.RoleRouter, name, key.Public(), time.Hour))
	c, err := dial(t, addr, &pki.Identity{Peer: grant, Key: key, Roots: []*x509.Certificate{d.Root}}, clientTLS(&pki.Identity{Peer: grant, Key: key, Roots: []*x509.Certificate{d.Root}}))
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{client: c, d: d, address: grant.Address, started: uint64(time.Now().UnixNano())}
	hello := testHello()
	hello.Role = codec.RoleRouter
	c.say(hello)
	state := c.conn.ConnectionState()
	exporter := must(state.ExportKeyingMaterial(codec.DomainsExporter, nil, codec.DomainsExporterSize))
	c.say(&codec.DomainProofs{Parts: 1, Values: []codec.DomainProof{codec.NewDomainProof(exporter, true, d.Domain, sha256.Sum256(d.Root.Raw))}})
	r.announce(r.address, 0)
	return r
}

// announce says that there is a route to the router given.
func (r *rogue) announce(router codec.Address, metric uint16) {
	source := codec.Source{Epoch: r.started, ID: codec.RouterID(router[8:])}
	r.say(&codec.RouteUpdate{Interval: time.Minute, Routes: []codec.Route{{Router: router, Source: source, Seqno: 1, Metric: metric}}})
}

// await returns the next message of a kind.
func await[M codec.Control](c *client) M {
	c.t.Helper()
	for {
		f := c.next()
		if f.Category() != codec.CategoryControl {
			continue
		}
		if m, ok := must(codec.DecodeControl(f.Body())).(M); ok {
			return m
		}
	}
}

// Who does not answer holds up others for a bounded time; who answers for others,
// twice or too late is not heard.
func TestRoutersThatDoNotAnswerAboutNames(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	alice := connect(t, addr, d.node("alice"))
	silent, liar := newRogue(t, addr, d, "edge-8"), newRogue(t, addr, d, "edge-9")
	domain := r.state().domains[d.Domain]
	waitFor(t, "routes", func() bool { return len(r.otherRouters(domain)) == 2 })
	began := time.Now()
	alice.say(&codec.NameRequest{Number: 1, Name: "bob", Max: 1})
	q := await[*codec.NameQuestion](liar.client)
	if q.Asked != liar.address || q.Asker != domain.address || q.Name != "bob" || q.Hops != askingHops {
		t.Errorf("asked %+v", q)
	}
	entry := codec.NamedEntry{Name: "bob", NameEntry: codec.NameEntry{Chain: d.node("bob").Peer.Chain}}
	liar.say(&codec.NameAnswer{Asker: q.Asker, Asked: liar.address, Number: q.Number + 1, Hops: 1, Entries: []codec.NamedEntry{entry}})
	liar.say(&codec.NameAnswer{Asker: q.Asker, Asked: liar.address, Number: q.Number, Hops: 1})
	liar.say(&codec.NameAnswer{Asker: q.Asker, Asked: liar.address, Number: q.Number, Hops: 1, Entries: []codec.NamedEntry{entry}})
	if m := await[*codec.Names](alice); m.Number != 1 || len(m.Entries) != 0 || time.Since(began) < askingPatience-100*time.Millisecond {
		t.Errorf("%+v after %v", m, time.Since(began))
	}
	if n := r.asking.fates[nameLate].Load(); n != 2 && n != 3 { // the good one, too, if it came after askingPatience
		t.Errorf("%d answers were late, want 2", n)
	}

	// What was found is told a little later, although another is silent.
	alice.say(&codec.NameRequest{Number: 2, Name: "bob", Max: 1})
	q = await[*codec.NameQuestion](liar.client)
	liar.say(&codec.NameAnswer{Asker: q.Asker, Asked: liar.address, Number: q.Number, Hops: 1, Entries: []codec.NamedEntry{entry}})
	if m := await[*codec.Names](alice); m.Number != 2 || len(m.Entries) != 1 {
		t.Errorf("%+v", m)
	}
	await[*codec.NameQuestion](silent.client)
	await[*codec.NameQuestion](silent.client)

	// So is what is known here.
	began = time.Now()
	alice.say(&codec.NameRequest{Number: 3, Name: "alice", Max: 9})
	if m := await[*codec.Names](alice); m.Number != 3 || len(m.Entries) != 1 || time.Since(began) < foundPatience-50*time.Millisecond {
		t.Errorf("%+v after %v", m, time.Since(began))
	}
	r.asking.mu.Lock()
	defer r.asking.mu.Unlock()
	if r.asking.bytes != 0 || len(r.asking.open) != 0 {
		t.Errorf("%d bytes, %d open", r.asking.bytes, len(r.asking.open))
	}
}

func TestNameQuestionsThatGoNowhere(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("other.example")
	r, addr := startRouter(t, nil, d, other)
	alice := d.node("alice")
	connect(t, addr, alice)
	rogue := newRogue(t, addr, d, "edge-9")
	domain := r.state().domains[d.Domain]
	waitFor(t, "a route", func() bool { return len(r.otherRouters(domain)) == 1 })
	another := rogue.address
	another[15] ^= 1
	count := func(fate int, want uint64) {
		t.Helper()
		waitFor(t, nameFateNames[fate], func() bool { return r.asking.fates[fate].Load() == want })
	}
	ask := func(q codec.NameQuestion) {
		q.Number, q.Max, q.Name = 7, 1, "alice"
		rogue.say(&q)
	}
	strange := r.state().domains[other.Domain].address
	strangeAsker := strange
	strangeAsker[15] ^= 1
	ask(codec.NameQuestion{Asked: strange, Asker: strangeAsker, Hops: 9})
	count(nameUnproven, 1)
	rogue.say(&codec.NameAnswer{Asker: strange, Asked: strangeAsker, Hops: 9})
	count(nameUnproven, 2)
	ask(codec.NameQuestion{Asked: another, Asker: rogue.address, Hops: 9})
	count(nameNoRoute, 1)
	ask(codec.NameQuestion{Asked: another, Asker: rogue.address, Hops: 1})
	count(nameSpent, 1)
	ask(codec.NameQuestion{Asked: domain.address, Asker: another, Hops: 9}) // answered, but not reached
	count(nameNoRoute, 2)
	rogue.announce(another, 5)
	waitFor(t, "another route", func() bool { return len(r.otherRouters(domain)) == 2 })
	ask(codec.NameQuestion{Asked: another, Asker: rogue.address, Hops: 9})
	if q := await[*codec.NameQuestion](rogue.client); q.Asked != another || q.Hops != 8 || q.Asker != rogue.address || q.Number != 7 {
		t.Errorf("passed on: %+v", q)
	}
	ask(codec.NameQuestion{Asked: domain.address, Asker: rogue.address, Hops: 1})
	a := await[*codec.NameAnswer](rogue.client)
	if a.Asker != rogue.address || a.Asked != domain.address || a.Number != 7 || a.Hops != askingHops || a.Next != "" ||
		len(a.Entries) != 1 || a.Entries[0].Name != "alice" || !slices.Equal(a.Entries[0].Chain[0], alice.Peer.Chain[0]) {
		t.Errorf("answered: %+v", a)
	}
	by, _ := r.lookup(rogue.address)
	used := make(chan struct{})
	r.onPeer(by, func(p *peer) { // as after very many questions
		p.far.questions = bucket{used: 60 * questionsPerSecond, at: p.loop.link.Now()}
		p.far.answers = p.far.questions
		close(used)
	})
	<-used
	ask(codec.NameQuestion{Asked: another, Asker: rogue.address, Hops: 9})
	count(nameRate, 1)
	passed := r.asking.fates[namePassed].Load()
	rogue.say(&codec.NameAnswer{Asker: another, Asked: rogue.address, Hops: 9})
	count(nameRate, 2)
	rogue.say(&codec.NameAnswer{Asker: domain.address, Asked: rogue.address, Hops: 9}) // to this router: nobody waits for it
	count(nameLate, 1)
	if n := r.asking.fates[namePassed].Load(); n != passed {
		t.Errorf("%d passed on beyond the rate", n-passed)
	}
}

// A node that sends a question of routers is left.
func TestNodesAskNoRouters(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	c := connect(t, addr, d.node("a"))
	asker := c.router
	asker[15] ^= 1
	c.say(&codec.NameQuestion{Asked: c.router, Asker: asker, Hops: 1, Max: 1})
	if g := c.ended(); g == nil || g.Reason != codec.GoodbyeProtocol {
		t.Errorf("goodbye %+v", g)
	}
}

func TestRoutesTellHowRoutersAreReached(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	routers, addrs := chainOfRouters(t, 3, one, two)
	connect(t, addrs[0], one.node("alice"))
	connect(t, addrs[2], one.node("bob"))
	connect(t, addrs[2], one.node("carol"))
	address := func(i int, d *authority) string { return routers[i].state().domains[d.Domain].address.String() }
	var got []Route
	waitFor(t, "where all nodes are", func() bool {
		got = routers[0].Routes(t.Context()).Routes
		return len(got) == 6 && got[0].Nodes == 1 && got[1].Nodes+got[2].Nodes == 2
	})
	if h := got[0]; !h.Here || h.Domain != "one.example" || h.Name != "router/edge-1" || h.Address != address(0, one) || h.Metric != 0 || h.NextAddress != "" {
		t.Errorf("here: %+v", h)
	}
	for _, r := range got[1:3] {
		if r.Here || r.NextName != "router/edge-2" || r.NextAddress != address(1, one) || r.NextRemote == "" {
			t.Errorf("%+v", r)
		}
		switch r.Address {
		case address(1, one):
			if r.Name != "router/edge-2" || r.Metric != LinkCostDefault || r.Nodes != 0 {
				t.Errorf("neighbour: %+v", r)
			}
		case address(2, one):
			if r.Metric != 2*LinkCostDefault || r.Nodes != 2 {
				t.Errorf("behind it: %+v", r)
			}
		default:
			t.Errorf("nobody: %+v", r)
		}
	}
	if h := got[3]; !h.Here || h.Domain != "two.example" || h.Nodes != 0 || got[4].Domain != "two.example" || got[5].Nodes != 0 {
		t.Errorf("the other domain: %+v", got[3:])
	}
}
