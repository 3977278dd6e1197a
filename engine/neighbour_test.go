package engine

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/link"
	"causeway/engine/route"
)

// linkView is what a test sees of one end of a link.
type linkView struct {
	name, control string
	phase         phase
	dialed        bool
	proven        []string
	cost, node    uint16
	id            route.LinkID
	remote        string
	grants        []codec.CertID // the neighbour's, in the order of proven
}

// linksOf returns the ends of r's links.
func linksOf(r *Router) (all []linkView) {
	for _, l := range r.loops {
		got := make(chan []linkView, 1)
		if !l.link.Post(func() {
			var views []linkView
			l.link.Range(func(c *link.Conn) {
				p := peerOf(c)
				if p.far == nil {
					return
				}
				v := linkView{name: p.id.Name, control: p.domain.name, phase: p.phase, dialed: c.Dialed(), cost: p.far.cost, node: p.far.nodeCost}
				for _, up := range p.far.proven {
					v.proven = append(v.proven, up.domain.name)
				}
				slices.Sort(v.proven)
				for _, name := range v.proven {
					v.grants = append(v.grants, p.far.proven[pki.Prefix(name)].grant.id.CertID)
				}
				v.id, v.remote = p.far.id, c.Remote().String()
				views = append(views, v)
			})
			got <- views
		}) {
			continue
		}
		all = append(all, <-got...)
	}
	return all
}

// waitProven waits until r has n open links, on each of which these domains are
// proven.
func waitProven(t *testing.T, r *Router, n int, domains ...string) []linkView {
	t.Helper()
	var all []linkView
	slices.Sort(domains)
	waitFor(t, "links with "+strings.Join(domains, ", "), func() bool {
		all = linksOf(r)
		return len(all) == n && !slices.ContainsFunc(all, func(v linkView) bool { return v.phase != phaseOpen || !slices.Equal(v.proven, domains) })
	})
	return all
}

// failureTo returns why r has no link to a target; "" while it has one.
func failureTo(r *Router, target string) string {
	r.links.mu.Lock()
	defer r.links.mu.Unlock()
	if d := r.links.dialers[target]; d != nil {
		if text := d.failure.Load(); text != nil {
			return *text
		}
	}
	return ""
}

// linkedTo is a router's configuration with links to others.
func linkedTo(name string, domains []*authority, to ...string) func(*Config) {
	return func(c *Config) {
		c.Identity, c.Connect = routerOf(name, domains...), to
	}
}

func TestRoutersProveTheDomainsThatBothHave(t *testing.T) {
	one, two, three, four := newAuthority("one.example"), newAuthority("two.example"), newAuthority("three.example"), newAuthority("four.example")
	a, addr := startRouter(t, func(c *Config) { c.NodeCost = 7 }, one, two, three)
	b, _ := startRouter(t, func(c *Config) {
		linkedTo("edge-2", []*authority{two, three, four}, addr)(c)
		c.LinkCosts = map[string]uint16{addr: 5}
	}, two, three, four)
	theirs := waitProven(t, a, 1, "three.example", "two.example")
	ours := waitProven(t, b, 1, "three.example", "two.example")
	if v := theirs[0]; v.name != "edge-2" || v.dialed || v.cost != LinkCostDefault || v.node != 0 {
		t.Errorf("accepted: %+v", v)
	}
	if v := ours[0]; v.name != "edge-1" || !v.dialed || v.cost != 5 || v.node != 7 {
		t.Errorf("dialed: %+v", v)
	}
}

func TestALinkThatIsLostIsDialedAgain(t *testing.T) {
	d := newAuthority("prod.example")
	a, addr := startRouter(t, nil, d)
	b, _ := startRouter(t, linkedTo("edge-2", []*authority{d}, addr), d)
	for range 3 {
		waitProven(t, a, 1, "prod.example")
		before := waitProven(t, b, 1, "prod.example")
		for _, l := range a.loops {
			l.link.Post(func() { l.link.Range(func(c *link.Conn) { c.CloseOnLoop(&leftError{}) }) })
		}
		waitFor(t, "the link is lost", func() bool { return len(linksOf(a)) == 0 || !slices.EqualFunc(linksOf(b), before, sameView) })
	}
	waitProven(t, b, 1, "prod.example")
}

func sameView(a, b linkView) bool { return a.id == b.id && slices.Equal(a.proven, b.proven) }

func TestWithoutDiscoveryALinkServesOneDomain(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	a, addr := startRouter(t, nil, one, two)
	b, _ := startRouter(t, func(c *Config) {
		linkedTo("edge-2", []*authority{one, two}, addr)(c)
		c.NoDiscovery, c.LinkDomain = true, "two.example"
	}, one, two)
	waitProven(t, a, 1, "two.example")
	waitProven(t, b, 1, "two.example")
}

// A router that shares but its last domain with the target gets its link.
func TestDomainsAreTriedInTurn(t *testing.T) {
	one, two, three := newAuthority("one.example"), newAuthority("three.example"), newAuthority("two.example")
	a, addr := startRouter(t, nil, three)
	b, _ := startRouter(t, linkedTo("edge-2", []*authority{one, two, three}, addr), one, two, three)
	waitProven(t, a, 1, "two.example")
	if v := waitProven(t, b, 1, "two.example"); v[0].control != "two.example" {
		t.Errorf("%+v", v)
	}
}

func TestARouterDoesNotLinkToItself(t *testing.T) {
	d := newAuthority("prod.example")
	id := routerOf("edge-1", d)
	a, addr := startRouter(t, func(c *Config) { c.Identity = id }, d)
	b, _ := startRouter(t, func(c *Config) { c.Identity, c.Connect = id, []string{addr} }, d)
	waitFor(t, "the self link is refused", func() bool { return strings.Contains(failureTo(b, addr), "is this one") })
	if n := len(linksOf(a)) + len(linksOf(b)); n != 0 {
		t.Errorf("%d ends of links", n)
	}
}

func TestAtMostFourLinksToOneRouter(t *testing.T) {
	d := newAuthority("prod.example")
	a, addr := startRouter(t, nil, d)
	var to []string
	for range 5 {
		more, err := a.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		to = append(to, more.String())
	}
	b, _ := startRouter(t, linkedTo("edge-2", []*authority{d}, append(to, addr)...), d)
	waitFor(t, "four links", func() bool {
		return len(slices.DeleteFunc(linksOf(b), func(v linkView) bool { return v.phase != phaseOpen || len(v.proven) == 0 })) == 4
	})
	waitFor(t, "the others are told why", func() bool {
		told := 0
		for _, target := range append(to, addr) {
			if strings.Contains(failureTo(b, target), "limit") {
				told++
			}
		}
		return told == 2
	})
	if len(slices.DeleteFunc(linksOf(a), func(v linkView) bool { return v.phase != phaseOpen })) > 4 {
		t.Errorf("%+v", linksOf(a))
	}
}

func TestADialerRefusesANode(t *testing.T) {
	d := newAuthority("prod.example")
	id := d.node("n")
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() { raw.Close(); <-served })
	go func() {
		defer close(served)
		for {
			c, err := raw.Accept()
			if err != nil {
				return
			}
			node := tls.Server(c, &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, ClientAuth: tls.RequireAnyClientCert,
				Certificates: []tls.Certificate{id.TLSCertificate("")},
			})
			node.SetDeadline(time.Now().Add(patience))
			node.Handshake()
			node.Close()
		}
	}()
	addr := raw.Addr().String()
	r, _ := startRouter(t, linkedTo("edge-2", []*authority{d}, addr), d)
	waitFor(t, "the node is refused", func() bool { return strings.Contains(failureTo(r, addr), pki.ReasonWrongRole.String()) })
}
