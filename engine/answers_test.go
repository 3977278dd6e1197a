package engine

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// keyOfNode is under what a node's frames are signed.
func keyOfNode(id *pki.Identity) codec.CertKey {
	return codec.CertKey{Address: id.Peer.Address, CertID: id.Peer.CertID}
}

// madeUp returns keys of the domain that nobody has.
func madeUp(d *authority, n int) (keys []codec.CertKey) {
	for range n {
		key := codec.CertKey{Address: must(pki.NewAddress(d.Domain, pki.RoleNode.Kind(), rand.Reader))}
		copy(key.CertID[:], key.Address[8:])
		keys = append(keys, key)
	}
	return keys
}

// askFor asks for certificates and returns the chains that come, by key.
func (c *client) askFor(number uint64, keys ...codec.CertKey) map[codec.CertKey][][]byte {
	c.t.Helper()
	c.say(&codec.CertificateRequest{Number: number, Wanted: keys})
	chains := make(map[codec.CertKey][][]byte)
	for {
		m := messageOf[*codec.Certificates](c)
		if m.Number != number {
			continue
		}
		for _, e := range m.Entries {
			chains[e.CertKey] = e.Chain
		}
		if m.Part+1 == m.Parts {
			return chains
		}
	}
}

func (f *fetcher) endsOf(v fetchVerdict) uint64 { return f.ends[v].Load() }

// A node is told the certificate of one that is several routers away, and the
// routers between them know it from then on.
func TestCertificatesAreFetchedHopByHop(t *testing.T) {
	d := newAuthority("prod.example")
	routers, addrs := line(t, 3, patient, d)
	here, far := connect(t, addrs[0], d.node("here")), connect(t, addrs[2], d.node("far"))
	key, none := keyOfNode(far.id), madeUp(d, 1)[0]
	grant := codec.CertKey{Address: routers[2].state().domains[d.Domain].address, CertID: routers[2].state().domains[d.Domain].certID}
	got := here.askFor(1, key, none, grant)
	if len(got) != 3 || !slices.EqualFunc(got[key], far.id.Peer.Chain, slices.Equal) || len(got[none]) != 0 {
		t.Errorf("%d entries, chains of %d and %d", len(got), len(got[key]), len(got[none]))
	}
	if len(got[grant]) == 0 {
		t.Error("the other router's grant did not come")
	}
	for _, r := range routers[:2] {
		if r.state().domains[d.Domain].members.key(key) == nil {
			t.Error("a router on the way does not know it")
		}
	}
	asked := routers[0].fetcher.asked.Load()
	if again := here.askFor(2, key, none); len(again[key]) == 0 || len(again[none]) != 0 || routers[0].fetcher.asked.Load() != asked {
		t.Errorf("asked again: %d chains, asked %d and %d", len(again[key]), asked, routers[0].fetcher.asked.Load())
	}
}

// What is asked of another domain, or in an unproven one, is not known; nobody is
// asked.
func TestCertificatesOfOtherDomainsAreNotAnswered(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("lab.example")
	r, addr := startRouter(t, nil, d, other)
	secret := connect(t, addr, other.node("secret"))
	h := connectRouter(t, addr, routerOf("edge-2", d), d)
	waitProven(t, r, 1, d.Domain)
	node := connect(t, addr, d.node("n"))
	for name, c := range map[string]*client{"neighbour": h.client, "node": node} {
		if got := c.askFor(1, keyOfNode(secret.id)); len(got[keyOfNode(secret.id)]) != 0 {
			t.Errorf("a %s of another domain got it", name)
		}
	}
	if got := h.askFor(2, keyOfNode(node.id)); len(got[keyOfNode(node.id)]) == 0 {
		t.Error("a neighbour did not get a node's of a proven domain")
	}
	if n := r.fetcher.asked.Load(); n != 0 {
		t.Errorf("asked for %d", n)
	}
}

// A neighbour and a node that ask for made-up certificates as fast as they may,
// where another neighbour does not answer, keep nobody else from what is there.
func TestFloodsOfRequestsLeaveOthersTheirs(t *testing.T) {
	d := newAuthority("prod.example")
	routers, addrs := line(t, 2, func(_ int, c *Config) { c.fetchTime = 10 * time.Second }, d)
	r := routers[0]
	honest, far := connect(t, addrs[0], d.node("honest")), connect(t, addrs[1], d.node("far"))
	floods := []*client{connectRouter(t, addrs[0], routerOf("edge-8", d), d).client, connect(t, addrs[0], d.node("flood"))}
	connectRouter(t, addrs[0], routerOf("edge-9", d), d)
	waitProven(t, r, 3, d.Domain)
	for _, c := range floods {
		for n := range 60 {
			c.say(&codec.CertificateRequest{Number: uint64(n + 10), Wanted: madeUp(d, codec.CertificatesWantedMax)})
		}
		if n := r.fetcher.wanted.Load(); n > 2*fetchesMax {
			t.Fatalf("%d are wanted", n)
		}
	}
	if got := honest.askFor(1, keyOfNode(far.id)); len(got[keyOfNode(far.id)]) == 0 {
		t.Error("the honest node did not get it")
	}
	waitFor(t, "made-up ones asked for in vain", func() bool { return r.fetcher.endsOf(fetchAbsent) > 0 })
	waitFor(t, "all are answered or not", func() bool { return r.fetcher.wanted.Load() == 0 })
	if r.fetcher.endsOf(fetchFound) != 1 {
		t.Errorf("%d found, want the honest node's", r.fetcher.endsOf(fetchFound))
	}
}
