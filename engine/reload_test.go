package engine

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/admin"
)

// revoking returns a list of the authority's with that number.
func (a *authority) revoking(number int64, ids ...*pki.Identity) []byte {
	var entries []x509.RevocationListEntry
	for _, id := range ids {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: id.Peer.Leaf.SerialNumber, RevocationTime: a.now})
	}
	return must(a.SignCRL(big.NewInt(number), entries, a.now, time.Hour, rand.Reader))
}

// storeWith is storeOf with revocation lists, by domain.
func storeWith(lists map[string][]byte, domains ...*authority) *pki.Store {
	files := fstest.MapFS{}
	for _, a := range domains {
		files[a.Domain+"/root.crt"] = &fstest.MapFile{Data: pki.EncodeCertificates(a.Root.Raw), Mode: 0o644}
		if lists[a.Domain] != nil {
			files[a.Domain+"/ca.crl"] = &fstest.MapFile{Data: pki.EncodeCRL(lists[a.Domain]), Mode: 0o644}
		}
	}
	return must(pki.LoadStore(files))
}

// granted returns id with grants of these domains only, made anew for those it
// did not have.
func granted(id *pki.Identity, domains ...*authority) *pki.Identity {
	out := &pki.Identity{Key: id.Key, Grants: map[string]*pki.Peer{}}
	for _, a := range domains {
		if out.Grants[a.Domain] = id.Grants[a.Domain]; out.Grants[a.Domain] == nil {
			out.Grants[a.Domain] = a.verified(a.chain(pki.RoleRouter, "edge-1", id.Key.Public(), time.Hour))
		}
	}
	return out
}

func reload(t *testing.T, r *Router, change func(c *Config)) []Change {
	t.Helper()
	changes, err := r.Reload(func(c Config) (Config, error) { change(&c); return c, nil })
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// has tells whether there is a change whose text begins with all of the words.
func has(changes []Change, text string) bool {
	return slices.ContainsFunc(changes, func(c Change) bool { return strings.Contains(c.String(), text) })
}

// A revoked node's connection ends with the reload, whether it reads or not (and
// not only when it has stalled for StallTimeout), and everybody else's frames all
// arrive.
func TestRevokedNodesAreGoneAtOnceAndNobodyElseLosesAFrame(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	reads, deaf := connect(t, addr, d.node("reads")), connect(t, addr, d.node("deaf"))
	const frames = 3000
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := range frames {
			if _, err := a.conn.Write(a.wire(a.frame(b.id.Peer.Address, codec.CategoryApplication, fmt.Appendf(nil, "%d", n)))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer sending.Wait()
	for n := range frames {
		if n == frames/3 {
			list := d.revoking(1, reads.id, deaf.id)
			started := time.Now()
			changes := reload(t, r, func(c *Config) { c.Store = storeWith(map[string][]byte{d.Domain: list}, d) })
			if !has(changes, "crl prod.example") || !has(changes, "none → 1") || len(changes) != 1 {
				t.Errorf("changes: %v", changes)
			}
			if g := reads.ended(); g == nil || g.Reason != codec.GoodbyeRevoked {
				t.Errorf("goodbye %+v, want revoked", g)
			}
			waitFor(t, "the deaf one gone", func() bool { return r.link.Stats().Connections == 2 })
			if took := time.Since(started); took > patience/4 {
				t.Errorf("gone after %v", took)
			}
		}
		if got := string(b.next().Body()); got != fmt.Sprint(n) {
			t.Fatalf("frame %s came as number %d", got, n)
		}
	}
	if again, err := dial(t, addr, reads.id, clientTLS(reads.id)); err == nil {
		again.ended() // a TLS 1.3 client's handshake ends before the server's
	}
	waitFor(t, "the refusal counted", func() bool { return r.refused.counts()["revoked"] > 0 })
}

func TestRemovedRootEndsTheConnectionsItVouchedFor(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Store = storeOf2(d, other) }, d)
	old, young := connect(t, addr, d.node("old")), other.node("young")
	config := clientTLS(young)
	config.RootCAs.AddCert(d.Root)
	fresh, err := dial(t, addr, young, config)
	if err != nil {
		t.Fatal(err)
	}
	fresh.say(testHello())
	fresh.control()
	identity := granted(r.state().config.Identity)
	identity.Grants[d.Domain] = other.verified(other.Chain(must(other.Renew(r.state().domains[d.Domain].grant.Leaf, identity.Key.Public(), other.now, time.Hour, rand.Reader))))
	changes := reload(t, r, func(c *Config) { c.Identity, c.Store = identity, storeOf(other) })
	if !has(changes, "root prod.example") || !has(changes, "grant prod.example") {
		t.Errorf("changes: %v", changes)
	}
	if g := old.ended(); g == nil || g.Reason != codec.GoodbyeRevoked || g.Text == "" {
		t.Errorf("goodbye %+v", g)
	}
	fresh.send(fresh.frame(fresh.id.Peer.Address, codec.CategoryApplication, []byte("still here")))
	if got := string(fresh.next().Body()); got != "still here" {
		t.Errorf("%q came", got)
	}
}

// storeOf2 trusts the roots of two authorities of one domain.
func storeOf2(a, b *authority) *pki.Store {
	return must(pki.LoadStore(fstest.MapFS{
		a.Domain + "/root.crt":   {Data: pki.EncodeCertificates(a.Root.Raw), Mode: 0o644},
		a.Domain + "/root-2.crt": {Data: pki.EncodeCertificates(b.Root.Raw), Mode: 0o644},
	}))
}

func TestDomainsComeAndGoWhileOthersGoOn(t *testing.T) {
	d, lab := newAuthority("prod.example"), newAuthority("lab.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	inLab := lab.node("x")
	if _, err := dial(t, addr, inLab, clientTLS(inLab)); err == nil {
		t.Error("a domain that is not served yet is served")
	}
	both := granted(r.config.Identity, d, lab)
	changes := reload(t, r, func(c *Config) { c.Identity, c.Store = both, storeOf(d, lab) })
	if !has(changes, "domain lab.example: none → served") || !has(changes, "trust lab.example") {
		t.Errorf("changes: %v", changes)
	}
	x := connect(t, addr, inLab)
	x.send(x.frame(x.id.Peer.Address, codec.CategoryApplication, []byte("new")))
	if got := x.next(); string(got.Body()) != "new" {
		t.Errorf("%q came", got.Body())
	}

	// The trust store's directory is removed and the grant is still there.
	changes = reload(t, r, func(c *Config) { c.Store = storeOf(d) })
	if !has(changes, "domain lab.example: served → none") {
		t.Errorf("changes: %v", changes)
	}
	if g := x.ended(); g == nil || g.Reason != codec.GoodbyeDraining || !strings.Contains(g.Text, "lab.example") {
		t.Errorf("goodbye %+v", g)
	}
	a.send(a.frame(a.id.Peer.Address, codec.CategoryApplication, []byte("all the time")))
	if got := a.next(); string(got.Body()) != "all the time" {
		t.Errorf("%q came", got.Body())
	}
	waitFor(t, "lab's connection gone", func() bool { return r.link.Stats().Connections == 1 })
	reload(t, r, func(c *Config) { c.Store = storeOf(d, lab) })
	connect(t, addr, inLab)
}

func TestFailedReloadLeavesAllAsItWasAndSaysWhy(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	before := r.state()
	broken := errors.New("file is broken")
	for name, load := range map[string]func(Config) (Config, error){
		"load fails":         func(c Config) (Config, error) { return c, broken },
		"no grants":          func(c Config) (Config, error) { c.Identity = &pki.Identity{Key: c.Identity.Key}; return c, nil },
		"limit out of range": func(c Config) (Config, error) { c.TTLMax = 1; return c, nil },
		"cutoff that is none": func(c Config) (Config, error) {
			c.VersionCutoff = "one"
			return c, nil
		},
	} {
		if changes, err := r.Reload(load); err == nil || changes != nil {
			t.Errorf("%s: %v, %v", name, changes, err)
		}
	}
	if r.state() != before {
		t.Error("a failed reload has changed the state")
	}
	if _, err := r.Reload(func(c Config) (Config, error) { return c, broken }); !errors.Is(err, broken) {
		t.Errorf("%v does not say why", err)
	}
	text := metricsOf(r)
	for _, want := range []string{`causeway_reloads_total{result="failed"} 5`, `causeway_reloads_total{result="ok"} 0`} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	a.send(a.frame(a.id.Peer.Address, codec.CategoryApplication, nil))
	a.next()
}

// metricsOf returns what /metrics shows.
func metricsOf(r *Router) string {
	m := admin.NewMetrics()
	r.AddMetrics(m)
	server := must(admin.Serve(admin.Config{Listen: "127.0.0.1:0", Metrics: m, Ready: r.Ready}))
	defer server.Close(context.Background())
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer := must(web.Get("http://" + server.Addr().String() + "/metrics"))
	defer answer.Body.Close()
	return string(must(io.ReadAll(answer.Body)))
}

// One domain's expired or revoked grant does not keep another domain's
// revocations from being acted on.
func TestBadGrantOfOneDomainHoldsNobodyElseUp(t *testing.T) {
	d, lab := newAuthority("prod.example"), newAuthority("lab.example")
	r, addr := startRouter(t, nil, d, lab)
	a, x := connect(t, addr, d.node("a")), connect(t, addr, lab.node("x"))
	grant := &pki.Identity{Peer: r.config.Identity.Grants[lab.Domain]}
	lists := map[string][]byte{d.Domain: d.revoking(1, a.id), lab.Domain: lab.revoking(1, grant)}
	changes := reload(t, r, func(c *Config) { c.Store = storeWith(lists, d, lab) })
	if !has(changes, "domain lab.example: served → none (") || !has(changes, "revoked") {
		t.Errorf("changes: %v", changes)
	}
	if g := a.ended(); g == nil || g.Reason != codec.GoodbyeRevoked {
		t.Errorf("goodbye to the revoked node: %+v", g)
	}
	if g := x.ended(); g == nil || g.Reason != codec.GoodbyeDraining {
		t.Errorf("goodbye to who lost the router: %+v", g)
	}
	if text := metricsOf(r); !strings.Contains(text, `causeway_grants_refused{domain="lab.example",reason="revoked"} 1`) {
		t.Error("the refused grant is not in the metrics")
	}
}

// A grant file that has gone bad leaves the one before in force while that is
// good.
func TestGrantBeforeStaysWhenTheNextIsNoGood(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	stranger := newAuthority("prod.example")
	bad := granted(r.config.Identity)
	bad.Grants[d.Domain] = stranger.verified(stranger.chain(pki.RoleRouter, "edge-1", bad.Key.Public(), time.Hour))
	changes := reload(t, r, func(c *Config) { c.Identity, c.TTLMax = bad, 7 })
	if !has(changes, "grant prod.example") || !has(changes, "stays (") || !has(changes, "max-ttl: 32 → 7") {
		t.Errorf("changes: %v", changes)
	}
	f := a.send(a.frame(a.id.Peer.Address, codec.CategoryApplication, nil))
	if got := a.next(); got.TTL() != 6 {
		t.Errorf("TTL %d after %d", got.TTL(), f.TTL)
	}
	connect(t, addr, d.node("b"))
}

// A grant for another domain that can't be used is no secret.
func TestRefusedGrantOfAnotherDomainIsToldOf(t *testing.T) {
	d, lab := newAuthority("prod.example"), newAuthority("lab.example")
	r, _ := startRouter(t, nil, d)
	both := granted(r.config.Identity, d, lab)
	changes := reload(t, r, func(c *Config) { c.Identity = both })
	if len(changes) != 1 || !has(changes, "grant lab.example: none → refused: unknown-domain (") {
		t.Errorf("changes: %v", changes)
	}
	if text := metricsOf(r); !strings.Contains(text, `causeway_grants_refused{domain="lab.example",reason="unknown-domain"} 1`) {
		t.Error("the refused grant is not in the metrics")
	}
	if changes := reload(t, r, func(*Config) {}); len(changes) != 0 {
		t.Errorf("nothing new, and %v", changes)
	}
	if changes := reload(t, r, func(c *Config) { c.Identity = granted(both, d) }); len(changes) != 1 || !has(changes, "grant lab.example: refused: unknown-domain → none") {
		t.Errorf("changes: %v", changes)
	}
}

// A changed firewall is a change like others: counted, and not made when the
// reload fails.
func TestFirewallIsReloadedWithAllElse(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	deny := firewall(t, "deny 127.0.0.1/32")
	if _, err := r.Reload(func(c Config) (Config, error) { c.Firewall, c.TTLMax = deny, 1; return c, nil }); err == nil {
		t.Fatal("reloaded")
	}
	connect(t, addr, d.node("b"))
	if changes := reload(t, r, func(c *Config) { c.Firewall = deny }); len(changes) != 1 || !has(changes, "firewall: everybody → lines: 1") {
		t.Errorf("changes: %v", changes)
	}
	if g := a.ended(); g == nil || g.Reason != codec.GoodbyeLimit {
		t.Errorf("goodbye %+v", g)
	}
	text := metricsOf(r)
	for _, want := range []string{`causeway_config_changes_total{domain="",key="firewall"} 1`, `causeway_reloads_total{result="ok"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if changes := reload(t, r, func(c *Config) { c.Firewall = firewall(t, "# the same\ndeny 127.0.0.1/32") }); len(changes) != 0 {
		t.Errorf("the same list, and %v", changes)
	}
	if changes := reload(t, r, func(c *Config) { c.Firewall = nil }); !has(changes, "firewall: lines: 1 → everybody") {
		t.Errorf("changes: %v", changes)
	}
	connect(t, addr, d.node("c"))
}

func TestReadyNeedsAValidGrant(t *testing.T) {
	d := newAuthority("prod.example")
	r, _ := startRouter(t, nil, d)
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
	err := r.state().ready(r.state().domains[d.Domain].grant.NotAfter.Add(time.Second))
	if err == nil || !strings.Contains(err.Error(), "prod.example") || !strings.Contains(err.Error(), "causeway pki renew") {
		t.Errorf("with an expired grant: %v", err)
	}
	reload(t, r, func(c *Config) { c.Store = storeOf(newAuthority("lab.example")) })
	if err := r.Ready(); err == nil {
		t.Error("ready without a domain")
	}
}

func TestWhatNeedsARestartIsSaidAndLeft(t *testing.T) {
	d := newAuthority("prod.example")
	r, _ := startRouter(t, nil, d)
	loops := r.config.Loops
	changes := reload(t, r, func(c *Config) { c.Loops, c.BodyMax, c.SkewMax = 7, 5000, time.Minute })
	for _, want := range []string{"loops: 2 → 7, after a restart", "max-body: 1048576 → 5000, after a restart", "max-skew: 5m0s → 1m0s"} {
		if !has(changes, want) {
			t.Errorf("changes %v lack %q", changes, want)
		}
	}
	if c := r.state().config; c.Loops != loops || c.BodyMax != codec.BodyMaxDefault || c.SkewMax != time.Minute {
		t.Errorf("in force: %d loops, bodies of %d, skew %v", c.Loops, c.BodyMax, c.SkewMax)
	}
	if changes := reload(t, r, func(c *Config) {}); len(changes) != 0 {
		t.Errorf("nothing new, and %v", changes)
	}
}

// Expiry acts by itself, and soon.
func TestExpiredCertificatesEndTheirConnections(t *testing.T) {
	t.Parallel() // it waits for the end of the certificate
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	ends := time.Now().Add(6 * time.Second).Truncate(time.Second)
	id := &pki.Identity{Peer: d.verified(d.chain(pki.RoleNode, "short", key.Public(), ends.Sub(d.now))), Key: key, Roots: []*x509.Certificate{d.Root}}
	c := connect(t, addr, id)
	g := c.ended()
	if g == nil || g.Reason != codec.GoodbyeExpired {
		t.Errorf("goodbye %+v", g)
	}
	if late := time.Since(id.Peer.NotAfter); late < 0 || late > patience/4 {
		t.Errorf("ended %v after the certificate's end %v", late, id.Peer.NotAfter)
	}
}
