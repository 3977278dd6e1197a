package engine

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// twoLinked starts two routers with one link, that b dials.
func twoLinked(t *testing.T, ids [2]*pki.Identity, change func(*Config), domains ...*authority) (a, b *Router) {
	t.Helper()
	with := func(id *pki.Identity, to ...string) func(*Config) {
		return func(c *Config) {
			c.Identity, c.Connect = id, to
			if change != nil {
				change(c)
			}
		}
	}
	a, addr := startRouter(t, with(ids[0]), domains...)
	b, _ = startRouter(t, with(ids[1], addr), domains...)
	var names []string
	for _, d := range domains {
		names = append(names, d.Domain)
	}
	waitProven(t, a, 1, names...)
	waitProven(t, b, 1, names...)
	return a, b
}

// shown returns an identity whose Peer is the grant of the domain, as lists of
// revoked ones are made of.
func shown(id *pki.Identity, d *authority) *pki.Identity {
	return &pki.Identity{Key: id.Key, Peer: id.Grants[d.Domain]}
}

func TestARevokedGrantTakesItsDomainFromTheLink(t *testing.T) {
	one, two, three := newAuthority("one.example"), newAuthority("two.example"), newAuthority("three.example")
	ids := [2]*pki.Identity{routerOf("edge-1", one, two, three), routerOf("edge-2", one, two, three)}
	a, b := twoLinked(t, ids, nil, one, two, three)
	control := linksOf(a)[0].control
	lists := map[string][]byte{}
	left := []*authority{one, two, three}
	// First the domain of link control; of the others the lowest prefix takes over.
	for len(left) > 1 {
		gone := slices.IndexFunc(left, func(d *authority) bool { return d.Domain == control })
		d := left[gone]
		left = slices.Delete(left, gone, gone+1)
		lists[d.Domain] = d.revoking(1, shown(ids[1], d))
		reload(t, a, func(c *Config) { c.Store = storeWith(lists, one, two, three) })
		var names []string
		for _, d := range left {
			names = append(names, d.Domain)
		}
		before := waitProven(t, b, 1, names...)
		lowest := slices.MinFunc(left, func(x, y *authority) int {
			p, q := pki.Prefix(x.Domain), pki.Prefix(y.Domain)
			return bytes.Compare(p[:], q[:])
		}).Domain
		if v := waitProven(t, a, 1, names...); v[0].control != lowest || before[0].control != lowest {
			t.Errorf("link control goes in %s and %s, want %s", v[0].control, before[0].control, lowest)
		}
		control = lowest
	}
	lists[left[0].Domain] = left[0].revoking(1, shown(ids[1], left[0]))
	reload(t, a, func(c *Config) { c.Store = storeWith(lists, one, two, three) })
	waitFor(t, "the link ends", func() bool { return len(linksOf(a)) == 0 })
	waitFor(t, "the dialer knows why", func() bool { return failureTo(b, b.state().config.Connect[0]) != "" })
	if n := len(linksOf(b)); n != 0 {
		t.Errorf("%d ends of links", n)
	}
}

// After a revoked grant was replaced by a good one the domain is back, on the
// same link.
func TestADomainComesBackWithANewGrant(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	ids := [2]*pki.Identity{routerOf("edge-1", one, two), routerOf("edge-2", one, two)}
	a, b := twoLinked(t, ids, nil, one, two)
	lists := map[string][]byte{two.Domain: two.revoking(1, shown(ids[1], two))}
	reload(t, a, func(c *Config) { c.Store = storeWith(lists, one, two) })
	waitProven(t, a, 1, "one.example")
	waitProven(t, b, 1, "one.example")
	next := granted(ids[1], one) // and another of two.example
	next.Grants[two.Domain] = two.verified(two.chain(pki.RoleRouter, "edge-2", next.Key.Public(), time.Hour))
	reload(t, b, func(c *Config) { c.Identity = next })
	waitProven(t, a, 1, "one.example", "two.example")
	waitProven(t, b, 1, "one.example", "two.example")
}

func TestAnExpiredGrantTakesItsDomainFromTheLink(t *testing.T) {
	t.Parallel() // it waits for the ends of grants
	one, two := newAuthority("one.example"), newAuthority("two.example")
	ids := [2]*pki.Identity{routerOf("edge-1", one, two), routerOf("edge-2", one, two)}
	ids[1].Grants[one.Domain] = one.verified(one.chain(pki.RoleRouter, "edge-2", ids[1].Key.Public(), 8*time.Second))
	ids[1].Grants[two.Domain] = two.verified(two.chain(pki.RoleRouter, "edge-2", ids[1].Key.Public(), 16*time.Second))
	a, b := twoLinked(t, ids, nil, one, two)
	waitProven(t, a, 1, "two.example")
	waitProven(t, b, 1, "two.example")
	waitFor(t, "the link ends with the last", func() bool { return len(linksOf(a)) == 0 && len(linksOf(b)) == 0 })
}

func TestDomainsComeAndGoWithReloads(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	ids := [2]*pki.Identity{routerOf("edge-1", one, two), routerOf("edge-2", one, two)}
	a, b := twoLinked(t, ids, nil, one, two)
	for range 3 {
		reload(t, b, func(c *Config) { c.ForwardDomains = []string{"one.example"} })
		waitProven(t, a, 1, "one.example")
		waitProven(t, b, 1, "one.example")
		reload(t, b, func(c *Config) { c.ForwardDomains = nil })
		waitProven(t, a, 1, "one.example", "two.example")
		waitProven(t, b, 1, "one.example", "two.example")
	}
}

// Renewed grants are announced on the open link, under the same key and another.
func TestGrantsAreRenewedOnALink(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	ids := [2]*pki.Identity{routerOf("edge-1", one, two), routerOf("edge-2", one, two)}
	a, b := twoLinked(t, ids, nil, one, two)
	remotes := func() string { return linkRemote(a) }
	before := remotes()
	for round, key := range [][]pki.KeyType{nil, {pki.KeyEd25519}, nil, {pki.KeyP256}} {
		next := renewedGrant(ids[1], one, key...)
		next.Grants[two.Domain] = two.renewedBy(&pki.Identity{Peer: ids[1].Grants[two.Domain], Key: next.Key}, time.Hour).Peer
		reload(t, b, func(c *Config) { c.Identity = next })
		ids[1] = next
		waitFor(t, "the neighbour knows the new grants", func() bool {
			return slices.Equal(linksOf(a)[0].grants, []codec.CertID{next.Grants[one.Domain].CertID, next.Grants[two.Domain].CertID})
		})
		waitProven(t, a, 1, "one.example", "two.example")
		waitProven(t, b, 1, "one.example", "two.example")
		if remotes() != before {
			t.Fatalf("round %d: another link", round)
		}
	}
}

// storeOfBoth is a store of a domain with two roots, and of another domain.
func storeOfBoth(a, b, other *authority) *pki.Store {
	return must(pki.LoadStore(fstest.MapFS{
		a.Domain + "/root.crt":     &fstest.MapFile{Data: pki.EncodeCertificates(a.Root.Raw), Mode: 0o644},
		a.Domain + "/next.crt":     &fstest.MapFile{Data: pki.EncodeCertificates(b.Root.Raw), Mode: 0o644},
		other.Domain + "/root.crt": &fstest.MapFile{Data: pki.EncodeCertificates(other.Root.Raw), Mode: 0o644},
	}))
}

// A grant under a root that the neighbour does not have yet costs its domain alone,
// also when link control goes in that domain, until the root is there.
func TestAGrantUnderANewRootCostsItsDomainAlone(t *testing.T) {
	for _, key := range [][]pki.KeyType{nil, {pki.KeyP256}} {
		one, next, two := newAuthority("one.example"), newAuthority("one.example"), newAuthority("two.example")
		ids := [2]*pki.Identity{routerOf("edge-1", one, two), routerOf("edge-2", one, two)}
		a, b := twoLinked(t, ids, nil, one, two)
		before := linkRemote(a)
		id := renewedGrant(ids[1], two, key...)
		subject := pki.Subject{Role: pki.RoleRouter, Name: "edge-2", Public: id.Key.Public(), Address: ids[1].Grants[one.Domain].Address}
		id.Grants[one.Domain] = next.verified(next.Chain(must(next.Issue(subject, next.now, time.Hour, rand.Reader))))
		reload(t, b, func(c *Config) { c.Identity, c.Store = id, storeOfBoth(one, next, two) })
		waitFor(t, "the grant is refused", func() bool { return a.ignoredFor(pki.ReasonUnknownRoot.String()) == 1 })
		for _, r := range []*Router{a, b} {
			if v := waitProven(t, r, 1, "two.example"); v[0].control != "two.example" {
				t.Errorf("link control goes in %s", v[0].control)
			}
		}
		reload(t, a, func(c *Config) { c.Store = storeOfBoth(one, next, two) })
		v := waitProven(t, a, 1, "one.example", "two.example")
		waitProven(t, b, 1, "one.example", "two.example")
		if want := []codec.CertID{id.Grants[one.Domain].CertID, id.Grants[two.Domain].CertID}; !slices.Equal(v[0].grants, want) {
			t.Errorf("grants %v, want %v", v[0].grants, want)
		}
		if linkRemote(a) != before || a.ignoredFor(pki.ReasonUnknownRoot.String()) != 1 {
			t.Error("another link, or more was refused")
		}
	}
}

// linkRemote returns the other end of r's newest open link.
func linkRemote(r *Router) string {
	all := slices.DeleteFunc(linksOf(r), func(v linkView) bool { return v.phase != phaseOpen })
	if len(all) == 0 {
		return ""
	}
	return slices.MaxFunc(all, func(v, w linkView) int { return cmp.Compare(v.id, w.id) }).remote
}

func TestALinkIsReplacedBeforeItEnds(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	ids := [2]*pki.Identity{routerOf("edge-1", one, two), routerOf("edge-2", one, two)}
	a, b := twoLinked(t, ids, func(c *Config) {
		c.LinkRenewal, c.KeepAlive, c.DeadAfter = 400*time.Millisecond, 400*time.Millisecond, patience
	}, one, two)
	proven := func(r *Router) bool {
		return slices.ContainsFunc(linksOf(r), func(v linkView) bool {
			return v.phase == phaseOpen && slices.Equal(v.proven, []string{"one.example", "two.example"})
		})
	}
	first := linkRemote(a)
	seen := map[string]bool{first: true}
	for end := time.Now().Add(patience); len(seen) < 4; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("only %d links in turn", len(seen))
		}
		for _, r := range []*Router{a, b} {
			// One look asks loop after loop: the first before the new link is there,
			// the next after the old one has left. The second look then finds the new.
			if !proven(r) && !proven(r) {
				t.Fatalf("no link is proven: %+v", linksOf(r))
			}
		}
		seen[linkRemote(a)] = true
	}
	if n := len(linksOf(a)); n > 3 {
		t.Errorf("%d links", n)
	}
}

// A link outlives the domain that it was opened in, and is replaced all the same.
func TestALinkIsReplacedWithoutItsFirstDomain(t *testing.T) {
	for who := range 2 {
		one, two := newAuthority("one.example"), newAuthority("two.example")
		ids := [2]*pki.Identity{routerOf("edge-1", one, two), routerOf("edge-2", one, two)}
		a, b := twoLinked(t, ids, func(c *Config) {
			c.LinkRenewal, c.KeepAlive, c.DeadAfter = 400*time.Millisecond, 400*time.Millisecond, patience
		}, one, two)
		reload(t, []*Router{a, b}[who], func(c *Config) { c.ForwardDomains = []string{"two.example"} })
		left := func(r *Router) bool {
			all := linksOf(r)
			return len(all) > 0 && !slices.ContainsFunc(all, func(v linkView) bool { return v.phase != phaseOpen || !slices.Equal(v.proven, []string{"two.example"}) })
		}
		waitFor(t, "one domain alone on the link", func() bool { return left(a) && left(b) })
		seen := map[string]bool{}
		waitFor(t, "one link after another", func() bool {
			seen[linkRemote(a)] = true
			return len(seen) >= 4 // the first renewal may have begun before
		})
	}
}

func TestATargetThatIsRemovedIsLeft(t *testing.T) {
	d := newAuthority("prod.example")
	ids := [2]*pki.Identity{routerOf("edge-1", d), routerOf("edge-2", d)}
	a, b := twoLinked(t, ids, nil, d)
	to := b.state().config.Connect
	for range 2 {
		if changes := reload(t, b, func(c *Config) { c.Connect = nil }); !has(changes, "connectTo") {
			t.Errorf("changes: %v", changes)
		}
		waitFor(t, "the link is gone", func() bool { return len(linksOf(a)) == 0 && len(linksOf(b)) == 0 })
		reload(t, b, func(c *Config) { c.Connect = to })
		waitProven(t, a, 1, "prod.example")
		waitProven(t, b, 1, "prod.example")
	}
}

// Frames that are under way while one link takes another's place all arrive.
func TestReplacingALinkLosesNoFrame(t *testing.T) {
	d := newAuthority("prod.example")
	ids := [2]*pki.Identity{routerOf("edge-1", d), routerOf("edge-2", d)}
	a, b := twoLinked(t, ids, func(c *Config) {
		c.LinkRenewal, c.KeepAlive, c.DeadAfter = 500*time.Millisecond, 400*time.Millisecond, patience
	}, d)
	addrs := [2]string{a.listeners[0].Addr().String(), b.listeners[0].Addr().String()}
	one, two := connect(t, addrs[0], d.node("one")), connect(t, addrs[1], d.node("two"))
	for _, way := range []struct {
		r  *Router
		to *client
	}{{a, two}, {b, one}} {
		waitFor(t, "the routers know the nodes", func() bool { to, _ := way.r.lookup(way.to.id.Peer.Address); return to != 0 })
	}
	ends := [2]*client{one, two}
	var sent [2]atomic.Int64 // by these, once they have sent all
	before := linksEver(a, b)
	var sending sync.WaitGroup
	for i, c := range ends {
		c.silent = true // it writes already
		c.conn.SetDeadline(time.Time{})
		sending.Go(func() {
			to, n := ends[1-i].id.Peer.Address, 0
			for end := time.Now().Add(patience); linksEver(a, b)-before < 4 && time.Now().Before(end); n++ {
				c.conn.Write(c.wire(c.frame(to, codec.CategoryApplication, binary.BigEndian.AppendUint32(nil, uint32(n)))))
				time.Sleep(2 * time.Millisecond) // some are always under way
			}
			sent[i].Store(int64(n))
		})
	}
	defer sending.Wait()
	for i, c := range ends {
		c.conn.SetReadDeadline(time.Now().Add(3 * patience))
		seen := map[int]bool{}
		for all := int64(0); all == 0 || int64(len(seen)) < all; all = sent[1-i].Load() {
			f, err := c.read()
			if err != nil {
				t.Fatalf("%v, with %d of %d frames; dropped %v and %v", err, len(seen), sent[1-i].Load(), a.Counts().Dropped, b.Counts().Dropped)
			}
			switch {
			case f.Category() == codec.CategoryControl:
			case f.Category() != codec.CategoryApplication || seen[numberOf(f)]:
				t.Fatalf("category %v came, number %d, with %d frames", f.Category(), numberOf(f), len(seen))
			default:
				seen[numberOf(f)] = true
			}
		}
	}
	if n := linksEver(a, b) - before; n < 4 {
		t.Errorf("only %d ends of links are new", n)
	}
}

// linksEver counts the ends of links that these routers ever had.
func linksEver(all ...*Router) (n uint64) {
	for _, r := range all {
		n += r.links.lastID.Load()
	}
	return n
}
