package engine

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// asRouter returns the identity with which a client speaks as a router, opening a
// link in the first domain.
func asRouter(name string, domains ...*authority) *pki.Identity {
	id := routerOf(name, domains...)
	id.Peer = id.Grants[domains[0].Domain]
	id.Roots = append(id.Roots, domains[0].Root)
	return id
}

// openedLink dials as a router, says hello and reads the hello that comes back.
func openedLink(t *testing.T, addr string, id *pki.Identity) *client {
	t.Helper()
	c, err := dial(t, addr, id, clientTLS(id))
	if err != nil {
		t.Fatal(err)
	}
	c.say(routerHello())
	if h, ok := c.control().(*codec.Hello); !ok || h.Role != codec.RoleRouter {
		t.Fatalf("%+v came", h)
	}
	return c
}

func routerHello() *codec.Hello {
	h := testHello()
	h.Role = codec.RoleRouter
	return h
}

// proofsOf returns c's proofs of these domains.
func (c *client) proofsOf(domains ...*authority) *codec.DomainProofs {
	state := c.conn.ConnectionState()
	exporter := must(state.ExportKeyingMaterial("EXPORTER-causeway-domains", nil, 32))
	m := &codec.DomainProofs{Parts: 1}
	for _, d := range domains {
		m.Values = append(m.Values, codec.NewDomainProof(exporter, true, d.Domain, sha256.Sum256(d.Root.Raw)))
	}
	return m
}

// nextOf returns the next link-control message of that type.
func nextOf[M codec.Control](c *client) M {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if m, ok := must(codec.DecodeControl(f.Body())).(M); ok {
			return m
		}
	}
}

func (r *Router) ignoredFor(reason string) uint64 {
	r.links.mu.Lock()
	defer r.links.mu.Unlock()
	return r.links.ignored[reason]
}

func TestAnHonestLinkOfAClientIsProven(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	r, addr := startRouter(t, nil, one, two)
	c := openedLink(t, addr, asRouter("edge-2", one, two))
	if m := nextOf[*codec.DomainProofs](c); len(m.Values) != 2 || !slices.IsSortedFunc(m.Values, func(a, b codec.DomainProof) int { return bytes.Compare(a[:], b[:]) }) {
		t.Errorf("proofs %x", m.Values)
	}
	c.say(c.proofsOf(one, two))
	if g := nextOf[*codec.Grants](c); len(g.Chains) != 1 || two.verified(g.Chains[0]).Name != "edge-1" {
		t.Errorf("grants %x", g.Chains)
	}
	waitProven(t, r, 1, "one.example")
	c.say(&codec.Grants{Chains: [][][]byte{c.id.Grants["two.example"].Chain}})
	waitProven(t, r, 1, "one.example", "two.example")
	c.say(c.proofsOf(one)) // takes the place of those before
	waitProven(t, r, 1, "one.example")
	c.say(c.proofsOf(one, two))
	if g := nextOf[*codec.Grants](c); len(g.Chains) != 1 {
		t.Errorf("grants %x", g.Chains)
	}
	waitProven(t, r, 1, "one.example") // until the grant comes anew
	c.say(&codec.Grants{Chains: [][][]byte{c.id.Grants["two.example"].Chain}})
	waitProven(t, r, 1, "one.example", "two.example")
}

func TestGrantsThatAreIgnored(t *testing.T) {
	one, two, stranger := newAuthority("one.example"), newAuthority("two.example"), newAuthority("two.example")
	r, addr := startRouter(t, nil, one, two)
	for _, test := range []struct {
		name, reason string
		proofs       func(c *client) *codec.DomainProofs
		grant        func(c *client) [][]byte
		hidden       bool
	}{
		{"no proof of the domain", ignoredUnproven,
			func(c *client) *codec.DomainProofs { return c.proofsOf(one) },
			func(c *client) [][]byte { return c.id.Grants["two.example"].Chain }, false},
		{"a wrong proof of the domain", ignoredUnproven,
			func(c *client) *codec.DomainProofs { return c.proofsOf(one, stranger) },
			func(c *client) [][]byte { return c.id.Grants["two.example"].Chain }, false},
		{"a grant for another key", ignoredKey,
			func(c *client) *codec.DomainProofs { return c.proofsOf(one, two) },
			func(c *client) [][]byte { return routerOf("other", two).Grants["two.example"].Chain }, true},
		{"another authority's grant", pki.ReasonUnknownRoot.String(),
			func(c *client) *codec.DomainProofs { return c.proofsOf(one, two) },
			func(c *client) [][]byte {
				return stranger.chain(pki.RoleRouter, "edge-2", c.id.Key.Public(), time.Hour)
			}, true},
		{"a node's certificate", pki.ReasonWrongRole.String(),
			func(c *client) *codec.DomainProofs { return c.proofsOf(one, two) },
			func(c *client) [][]byte { return two.chain(pki.RoleNode, "edge-2", c.id.Key.Public(), time.Hour) }, true},
		{"no certificate", pki.ReasonMalformed.String(),
			func(c *client) *codec.DomainProofs { return c.proofsOf(one, two) },
			func(c *client) [][]byte { return [][]byte{{1, 2, 3}} }, false},
	} {
		before := r.ignoredFor(test.reason)
		c := openedLink(t, addr, asRouter("edge-2", one, two))
		if m := nextOf[*codec.DomainProofs](c); len(m.Values) != 2 {
			t.Fatalf("%s: %d proofs", test.name, len(m.Values))
		}
		c.say(test.proofs(c))
		c.say(&codec.Grants{Chains: [][][]byte{test.grant(c)}})
		waitFor(t, test.name+" is counted", func() bool { return r.ignoredFor(test.reason) == before+1 })
		if test.hidden {
			if m := nextOf[*codec.DomainProofs](c); len(m.Values) != 1 {
				t.Errorf("%s: %d proofs follow", test.name, len(m.Values))
			}
		}
		waitProven(t, r, 1, "one.example")
		c.conn.Close()
		waitFor(t, "the link ends", func() bool { return len(linksOf(r)) == 0 })
	}
}

func TestReflectedProofsProveNothing(t *testing.T) {
	t.Parallel() // it waits for the end of HelloTimeout
	one, two := newAuthority("one.example"), newAuthority("two.example")
	r, addr := startRouter(t, func(c *Config) { c.HelloTimeout = 3 * time.Second }, one, two)
	c := openedLink(t, addr, asRouter("edge-2", one))
	c.say(nextOf[*codec.DomainProofs](c))
	for {
		m := c.control()
		if g, over := m.(*codec.Goodbye); over {
			if g.Reason != codec.GoodbyeDone || !strings.Contains(g.Text, "no domain was proven") {
				t.Errorf("%+v", g)
			}
			break
		}
		if _, ok := m.(*codec.Grants); ok {
			t.Error("reflected proofs are answered by grants")
		}
	}
	if n := r.ignoredFor(ignoredReflected); n != 2 {
		t.Errorf("%d reflected proofs counted", n)
	}
}

// What a link carries has no trace of a domain that only one end has.
func TestALinkTellsNothingOfOtherDomains(t *testing.T) {
	one, secret := newAuthority("one.example"), newAuthority("secret-tenant.example")
	r, addr := startRouter(t, nil, one, secret)
	c := openedLink(t, addr, asRouter("edge-2", one))
	c.say(c.proofsOf(one))
	waitProven(t, r, 1, "one.example")
	c.say(&codec.KeepAlive{Answer: true})
	var bodies []byte
	for answered := false; !answered; {
		f, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, f...)
		m := must(codec.DecodeControl(f.Body()))
		_, answered = m.(*codec.KeepAlive)
		if g, ok := m.(*codec.Grants); ok {
			t.Errorf("%d grants came", len(g.Chains))
		}
	}
	d := r.state().domains["secret-tenant.example"]
	digest := sha256.Sum256(secret.Root.Raw)
	for name, trace := range map[string][]byte{
		"name": []byte("secret"), "prefix": d.prefix[:], "address": d.address[:], "root": digest[:8], "certificate ID": d.certID[:], "root's key": secret.Root.RawSubjectPublicKeyInfo,
	} {
		if bytes.Contains(bodies, trace) {
			t.Errorf("the link has the %s of a domain that it does not share", name)
		}
	}
}

func TestLinksThatMustEnd(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	_, addr := startRouter(t, func(c *Config) { c.VersionCutoff, c.HelloTimeout = "1.0.0", 3*time.Second }, one, two)
	control := func(ms ...codec.Control) func(c *client) {
		return func(c *client) {
			for _, m := range ms {
				c.say(m)
			}
		}
	}
	old := routerHello()
	old.Software = "causeway/0.9.0"
	for _, test := range []struct {
		name   string
		do     func(c *client)
		reason codec.GoodbyeReason
		text   string
	}{
		{"role node", control(testHello()), codec.GoodbyeRole, "the certificate router"},
		{"old software", control(old), codec.GoodbyeVersion, "1.0.0"},
		{"proofs before hello", control(&codec.DomainProofs{Parts: 1}), codec.GoodbyeProtocol, "hello must come first"},
		{"two hellos", control(routerHello(), routerHello()), codec.GoodbyeProtocol, "once"},
		{"nothing is proven", control(routerHello(), &codec.DomainProofs{Parts: 1}), codec.GoodbyeDone, "no domain was proven"},
		{"second part first", control(routerHello(), &codec.DomainProofs{Part: 1, Parts: 2}), codec.GoodbyeProtocol, "out of order"},
		{"parts of two sets", control(routerHello(), &codec.DomainProofs{Part: 0, Parts: 2}, &codec.DomainProofs{Part: 1, Parts: 3}), codec.GoodbyeProtocol, "out of order"},
		{"a name request", control(routerHello(), &codec.NameRequest{Max: 1}), codec.GoodbyeProtocol, "router to node"},
		{"too many proofs", func(c *client) {
			c.say(routerHello())
			for range 200 {
				c.conn.Write(c.wire(c.controlFrame(&codec.DomainProofs{Parts: 1})))
			}
		}, codec.GoodbyeLimit, "a second"},
		{"a bad signature", func(c *client) {
			c.say(routerHello())
			b := c.wire(c.controlFrame(&codec.DomainProofs{Parts: 1}))
			b[len(b)-1] ^= 1
			c.write(b)
		}, codec.GoodbyeProtocol, "bad signature"},
		{"a frame before hello", func(c *client) { c.send(c.frame(c.id.Peer.Address, codec.CategoryApplication, nil)) }, codec.GoodbyeProtocol, "before hello"},
		{"a renewal of another's grant", func(c *client) {
			c.say(routerHello())
			c.say(&codec.Renewal{Chain: routerOf("other", one).Grants["one.example"].Chain})
		}, codec.GoodbyeProtocol, "another than its sender's"},
	} {
		id := asRouter("edge-2", one)
		c, err := dial(t, addr, id, clientTLS(id))
		if err != nil {
			t.Fatal(err)
		}
		test.do(c)
		if g := c.ended(); g == nil || g.Reason != test.reason || !strings.Contains(g.Text, test.text) {
			t.Errorf("%s: goodbye %+v, want %v and %q", test.name, g, test.reason, test.text)
		}
	}
	node := connect(t, addr, one.node("n"))
	node.say(&codec.DomainProofs{Parts: 1})
	if g := node.ended(); g == nil || g.Reason != codec.GoodbyeProtocol {
		t.Errorf("proofs of a node: goodbye %+v", g)
	}
}

// Link control may go in any domain whose grants were sent on the link, and in no
// other.
func TestLinkControlGoesBetweenGrantsOfOneDomain(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	r, addr := startRouter(t, nil, one, two)
	id := asRouter("edge-2", one, two)
	c := openedLink(t, addr, id)
	c.say(c.proofsOf(one, two))
	g := nextOf[*codec.Grants](c)
	c.say(&codec.Grants{Chains: [][][]byte{id.Grants["two.example"].Chain}})
	waitProven(t, r, 1, "one.example", "two.example")
	first := c.router
	c.router, id.Peer = two.verified(g.Chains[0]).Address, id.Grants["two.example"]
	c.say(&codec.KeepAlive{Answer: true})
	if k := nextOf[*codec.KeepAlive](c); k.Answer {
		t.Errorf("%+v came", k)
	}
	c.router = first // from the one domain to the other
	c.say(&codec.KeepAlive{Answer: true})
	if g := c.ended(); g == nil || g.Reason != codec.GoodbyeProtocol {
		t.Errorf("goodbye %+v", g)
	}
}

// A renewal that is refused for its chain takes its domain from the link; what is
// signed under it is link control of the neighbour all the same, and nothing else.
// Without another domain the link ends.
func TestARefusedRenewalIsGoodForLinkControlAlone(t *testing.T) {
	one, two, stranger := newAuthority("one.example"), newAuthority("two.example"), newAuthority("one.example")
	r, addr := startRouter(t, nil, one, two)
	unknown := pki.ReasonUnknownRoot.String()
	claimed := func(id *pki.Identity) *pki.Identity {
		subject := pki.Subject{Role: pki.RoleRouter, Name: id.Peer.Name, Public: id.Key.Public(), Address: id.Peer.Address}
		return &pki.Identity{Key: id.Key, Peer: stranger.verified(stranger.Chain(must(stranger.Issue(subject, stranger.now, time.Hour, rand.Reader))))}
	}
	id := asRouter("edge-2", one, two)
	c := openedLink(t, addr, id)
	c.say(c.proofsOf(one, two))
	c.say(&codec.Grants{Chains: [][][]byte{id.Grants["two.example"].Chain}})
	waitProven(t, r, 1, "one.example", "two.example")
	claim := claimed(id)
	c.say(&codec.Renewal{Chain: claim.Peer.Chain})
	waitProven(t, r, 1, "two.example")
	c.become(claim)
	c.say(&codec.KeepAlive{Answer: true})
	if k := nextOf[*codec.KeepAlive](c); k.Answer {
		t.Errorf("%+v came", k)
	}
	c.say(&codec.Renewal{Chain: claim.Peer.Chain})
	c.say(c.proofsOf(one, two))
	c.say(&codec.Grants{Chains: [][][]byte{claim.Peer.Chain}})
	waitFor(t, "all that is refused", func() bool { return r.ignoredFor(unknown) == 3 })
	waitProven(t, r, 1, "two.example")
	other := asRouter("edge-3", one)
	c = openedLink(t, addr, other)
	c.say(c.proofsOf(one))
	waitFor(t, "another link", func() bool {
		return slices.ContainsFunc(linksOf(r), func(v linkView) bool { return slices.Equal(v.proven, []string{"one.example"}) })
	})
	c.say(&codec.Renewal{Chain: claimed(other).Peer.Chain})
	if g := c.ended(); g == nil || g.Reason != codec.GoodbyeDone {
		t.Errorf("goodbye %+v", g)
	}
}
