package engine

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math/big"
	"testing"
	"time"

	"crypto/x509"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
	"causeway/engine/link"
)

// renewedBy returns a newer certificate of the node, for another key if there
// is a kind of key.
func (a *authority) renewedBy(id *pki.Identity, validity time.Duration, kind ...pki.KeyType) *pki.Identity {
	out := &pki.Identity{Key: id.Key, Roots: id.Roots}
	for _, k := range kind {
		out.Key = must(pki.NewKey(k, rand.Reader))
	}
	out.Peer = a.verified(a.Chain(must(a.Renew(id.Peer.Leaf, out.Key.Public(), a.now, validity, rand.Reader))))
	return out
}

// renewedGrant returns a router's identity with a renewed grant, for another
// key if there is a kind of key.
func renewedGrant(id *pki.Identity, a *authority, kind ...pki.KeyType) *pki.Identity {
	as := a.renewedBy(&pki.Identity{Peer: id.Grants[a.Domain], Key: id.Key}, time.Hour, kind...)
	return &pki.Identity{Key: as.Key, Grants: map[string]*pki.Peer{a.Domain: as.Peer}}
}

// announcement is what c says to announce next.
func (c *client) announcement(next *pki.Identity, prove bool) *codec.Renewal {
	m := &codec.Renewal{Chain: next.Peer.Chain}
	if prove {
		state := c.conn.ConnectionState()
		exporter := must(state.ExportKeyingMaterial("EXPORTER-causeway-renew", nil, 32))
		m.Proof = must(must(sign.NewSigner(next.Key)).Sign(nil, codec.RenewalSigned(true, exporter, next.Peer.Leaf.Raw)))
	}
	return m
}

// become makes c sign under another identity.
func (c *client) become(id *pki.Identity) {
	c.id, c.signer = id, must(sign.NewSigner(id.Key))
}

func TestFramesUnderRenewedCertificatesPassBesidesTheOldOnes(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	old := a.id
	for round, next := range []struct {
		id    *pki.Identity
		prove bool
	}{
		{d.renewedBy(old, time.Hour), false},
		{d.renewedBy(old, time.Hour, pki.KeyP256), true},
		{d.renewedBy(old, time.Hour, pki.KeyEd25519), true},
	} {
		a.say(a.announcement(next.id, next.prove))
		for _, id := range []*pki.Identity{next.id, old} {
			a.become(id)
			text := fmt.Sprintf("round %d under %x", round, id.Peer.CertID)
			a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, []byte(text)))
			if f := b.next(); string(f.Body()) != text || f.CertID() != id.Peer.CertID {
				t.Fatalf("%q came", f.Body())
			}
		}
		b.say(&codec.CertificateRequest{Number: 1, Wanted: []codec.CertKey{{Address: old.Peer.Address, CertID: next.id.Peer.CertID}}})
		m, ok := must(codec.DecodeControl(b.next().Body())).(*codec.Certificates)
		if !ok || len(m.Entries) != 1 || len(m.Entries[0].Chain) == 0 || !bytes.Equal(m.Entries[0].Chain[0], next.id.Peer.Leaf.Raw) {
			t.Errorf("the renewed certificate is not served: %+v", m)
		}
		a.become(next.id)
	}
	if n := r.droppedFor(dropUnknownCertificate) + r.droppedFor(dropBadSignature); n != 0 {
		t.Errorf("%d frames dropped", n)
	}
}

func TestBadRenewalsEndTheConnection(t *testing.T) {
	d, stranger := newAuthority("prod.example"), newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	for _, c := range []struct {
		name   string
		reason codec.GoodbyeReason
		make   func(c *client) *codec.Renewal
	}{
		{"another's certificate", codec.GoodbyeProtocol, func(c *client) *codec.Renewal { return c.announcement(d.node("other"), true) }},
		{"another name", codec.GoodbyeProtocol, func(c *client) *codec.Renewal {
			s := pki.Subject{Role: pki.RoleNode, Name: "other", Public: c.id.Key.Public(), Address: c.id.Peer.Address}
			return &codec.Renewal{Chain: d.Chain(must(d.Issue(s, d.now, time.Hour, rand.Reader)))}
		}},
		{"another authority's", codec.GoodbyeProtocol, func(c *client) *codec.Renewal { return c.announcement(stranger.renewedBy(c.id, time.Hour), false) }},
		{"a new key without proof", codec.GoodbyeProtocol, func(c *client) *codec.Renewal {
			return c.announcement(d.renewedBy(c.id, time.Hour, pki.KeyEd25519), false)
		}},
		{"a proof by the old key", codec.GoodbyeProtocol, func(c *client) *codec.Renewal {
			next := d.renewedBy(c.id, time.Hour, pki.KeyEd25519)
			next.Key = c.id.Key
			return c.announcement(next, true)
		}},
		{"a proof from the other end", codec.GoodbyeProtocol, func(c *client) *codec.Renewal {
			next := d.renewedBy(c.id, time.Hour, pki.KeyEd25519)
			state := c.conn.ConnectionState()
			exporter := must(state.ExportKeyingMaterial("EXPORTER-causeway-renew", nil, 32))
			proof := must(must(sign.NewSigner(next.Key)).Sign(nil, codec.RenewalSigned(false, exporter, next.Peer.Leaf.Raw)))
			return &codec.Renewal{Chain: next.Peer.Chain, Proof: proof}
		}},
		{"a proof without need", codec.GoodbyeProtocol, func(c *client) *codec.Renewal { return c.announcement(d.renewedBy(c.id, time.Hour), true) }},
		{"no certificate", codec.GoodbyeProtocol, func(c *client) *codec.Renewal { return &codec.Renewal{Chain: [][]byte{{1, 2, 3}}} }},
		{"expired", codec.GoodbyeExpired, func(c *client) *codec.Renewal {
			late := &pki.Identity{Key: c.id.Key}
			der := must(d.Renew(c.id.Peer.Leaf, c.id.Key.Public(), time.Now(), time.Second, rand.Reader))
			late.Peer = &pki.Peer{Chain: d.Chain(der), Leaf: must(x509.ParseCertificate(der))}
			waitFor(t, "the certificate's end", func() bool { return time.Now().After(late.Peer.Leaf.NotAfter) })
			return c.announcement(late, false)
		}},
		{"a router's", codec.GoodbyeProtocol, func(c *client) *codec.Renewal {
			return &codec.Renewal{Chain: d.chain(pki.RoleRouter, "a", c.id.Key.Public(), time.Hour)}
		}},
	} {
		cl := connect(t, addr, d.node("a"))
		cl.say(c.make(cl))
		if g := cl.ended(); g == nil || g.Reason != c.reason || g.Text == "" {
			t.Errorf("%s: goodbye %+v, want %v", c.name, g, c.reason)
		}
	}
}

// A renewal of who is a member no more, since frames to it came back from a
// connection that is at its end and still read, keeps nothing for ever.
func TestRenewalOfWhoIsNoMemberAnyMoreIsForgotten(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	for _, l := range r.loops {
		done := make(chan struct{})
		l.link.Post(func() {
			l.link.Range(func(c *link.Conn) { peerOf(c).unregister(true) })
			close(done)
		})
		<-done
	}
	for range codec.RenewalsKept { // the first certificate is forgotten by the last
		next := d.renewedBy(a.id, time.Hour)
		a.say(a.announcement(next, false))
		a.become(next)
	}
	a.sync()
	a.conn.NetConn().Close()
	waitFor(t, "it is gone", func() bool { return r.link.Stats().Connections == 0 })
	members := r.state().domains[d.Domain].members
	members.mu.Lock()
	defer members.mu.Unlock()
	for key, c := range members.certs {
		if router := key.Address == r.state().domains[d.Domain].address; c.users != 0 && !router || c.users != 1 && router {
			t.Errorf("the certificate %v is held by %d connections", key, c.users)
		}
	}
}

func TestRenewalsAreBoundedInRateAndNumber(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	first := a.id
	for range codec.RenewalsKept {
		next := d.renewedBy(first, time.Hour)
		a.say(a.announcement(next, false))
		a.become(next)
	}
	a.send(a.frame(first.Peer.Address, codec.CategoryApplication, []byte("newest")))
	if got := string(a.next().Body()); got != "newest" {
		t.Errorf("%q came", got)
	}
	newest := a.id
	a.become(first)
	a.send(a.frame(first.Peer.Address, codec.CategoryApplication, []byte("forgotten")))
	a.become(newest)
	a.sync()
	if n := r.droppedFor(dropUnknownCertificate); n != 1 {
		t.Errorf("%d frames under the oldest of %d certificates dropped, want 1", n, codec.RenewalsKept+1)
	}
	var more []byte // than come again, however slow this machine is
	for range 3 * codec.RenewalsKept {
		more = append(more, a.wire(a.controlFrame(a.announcement(d.renewedBy(first, time.Hour), false)))...)
	}
	a.conn.Write(more) // the router may have closed before the last
	if g := a.ended(); g == nil || g.Reason != codec.GoodbyeLimit {
		t.Errorf("goodbye %+v, want limit", g)
	}
}

// The connection lives as long as its newest certificate.
func TestRenewedConnectionOutlivesItsFirstCertificate(t *testing.T) {
	t.Parallel() // it waits for the ends of certificates
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	ends := time.Now().Add(6 * time.Second).Truncate(time.Second)
	short := &pki.Identity{Peer: d.verified(d.chain(pki.RoleNode, "short", key.Public(), ends.Sub(d.now))), Key: key, Roots: d.node("x").Roots}
	c := connect(t, addr, short)
	next := d.renewedBy(short, ends.Add(2*time.Second).Sub(d.now))
	c.say(c.announcement(next, false))
	c.become(next)
	g := c.ended()
	if g == nil || g.Reason != codec.GoodbyeExpired {
		t.Errorf("goodbye %+v", g)
	}
	if late := time.Since(next.Peer.NotAfter); late < 0 || late > patience/4 {
		t.Errorf("ended %v after the newest certificate's end", late)
	}
}

// awaits returns the next link-control message of the kind M.
func awaits[M codec.Control](c *client) (m M, f codec.Raw) {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if f.Category() != codec.CategoryControl {
			continue
		}
		if m, ok := must(codec.DecodeControl(f.Body())).(M); ok {
			return m, f
		}
	}
}

func TestRouterAnnouncesItsRenewedGrantAndSpeaksUnderIt(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	before := r.config.Identity
	for _, kind := range [][]pki.KeyType{nil, {pki.KeyEd25519}, {pki.KeyP256}} {
		old := must(sign.NewKey(before.Grants[d.Domain].Public))
		after := renewedGrant(before, d, kind...)
		grant := after.Grants[d.Domain]
		if changes := reload(t, r, func(c *Config) { c.Identity = after }); !has(changes, "grant prod.example") {
			t.Errorf("changes %v", changes)
		}
		m, f := awaits[*codec.Renewal](a)
		if !old.Verify(f.Signed(), f.Signature()) || f.CertID() != before.Grants[d.Domain].CertID {
			t.Error("the announcement is not signed under the grant before")
		}
		if !bytes.Equal(m.Chain[0], grant.Leaf.Raw) || (len(m.Proof) > 0) != (kind != nil) {
			t.Errorf("announced %d certificates, proof of %d bytes", len(m.Chain), len(m.Proof))
		}
		key := must(sign.NewKey(grant.Public))
		if kind != nil {
			state := a.conn.ConnectionState()
			exporter := must(state.ExportKeyingMaterial("EXPORTER-causeway-renew", nil, 32))
			if !key.Verify(codec.RenewalSigned(false, exporter, m.Chain[0]), m.Proof) {
				t.Error("the proof is not by the new key")
			}
		}
		a.say(&codec.KeepAlive{Answer: true})
		if _, f := awaits[*codec.KeepAlive](a); f.CertID() != grant.CertID || !key.Verify(f.Signed(), f.Signature()) {
			t.Error("the router does not speak under its new grant")
		}
		before = after
	}
	b := connect(t, addr, d.node("b")) // with the new key in TLS
	b.sync()
}

func TestNodesGetRevocationListsInParts(t *testing.T) {
	d := newAuthority("prod.example")
	var entries []x509.RevocationListEntry
	for i := range 7000 {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: big.NewInt(int64(1000 + i)), RevocationTime: d.now})
	}
	large := must(d.SignCRL(big.NewInt(7), entries, d.now, time.Hour, rand.Reader))
	r, addr := startRouter(t, func(c *Config) { c.Store = storeWith(map[string][]byte{d.Domain: large}, d) }, d)
	a := connect(t, addr, d.node("a"))
	collect := func() (whole []byte) {
		for {
			m, _ := awaits[*codec.RevocationList](a)
			whole = append(whole, m.Data...)
			if m.Part+1 == m.Parts {
				return whole
			}
		}
	}
	if got := collect(); !bytes.Equal(got, large) || len(large) < 2*codec.RevocationPartMax {
		t.Errorf("a list of %d bytes came, of %d", len(got), len(large))
	}
	next := d.revoking(8)
	reload(t, r, func(c *Config) { c.Store = storeWith(map[string][]byte{d.Domain: next}, d) })
	if got := collect(); !bytes.Equal(got, next) {
		t.Errorf("a list of %d bytes came, of %d", len(got), len(next))
	}
	reload(t, r, func(c *Config) { c.TTLMax = 9 })
	a.sync()
}
