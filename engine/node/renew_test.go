package node

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// renewed issues a newer certificate for the identity, for another key if there
// is a kind of key.
func (d *domain) renewed(id *pki.Identity, kind ...pki.KeyType) *pki.Identity {
	out := &pki.Identity{Key: id.Key, Roots: id.Roots}
	for _, k := range kind {
		out.Key = must(pki.NewKey(k, rand.Reader))
	}
	out.Peer = d.renewedPeer(id.Peer, out.Key.Public())
	return out
}

func (d *domain) renewedPeer(p *pki.Peer, public crypto.PublicKey) *pki.Peer {
	der := must(d.auth.Renew(p.Leaf, public, time.Now(), time.Hour, rand.Reader))
	return must(d.store.VerifyDER(d.auth.Chain(der), d.name, time.Now()))
}

// list returns a revocation list.
func (d *domain) list(number int64, revoked ...*pki.Peer) []byte {
	var entries []x509.RevocationListEntry
	for _, p := range revoked {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: p.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	return must(d.auth.SignCRL(big.NewInt(number), entries, time.Now(), time.Hour, rand.Reader))
}

// announced returns the next frame, which must announce the identity under a
// good signature of who said it.
func (s *routerConn) announced(t *testing.T, by, next *pki.Identity, proof bool) {
	t.Helper()
	f := must(s.next())
	key := must(sign.NewKey(by.Peer.Public))
	if f.Category() != codec.CategoryControl || f.CertID() != by.Peer.CertID || !key.Verify(f.Signed(), f.Signature()) {
		t.Fatalf("category %v under %v came, want an announcement under %x", f.Category(), f.CertID(), by.Peer.CertID)
	}
	m, ok := must(codec.DecodeControl(f.Body())).(*codec.Renewal)
	if !ok || !bytes.Equal(m.Chain[0], next.Peer.Leaf.Raw) || (len(m.Proof) > 0) != proof {
		t.Fatalf("%+v came, want an announcement of %x", m, next.Peer.CertID)
	}
	if proof {
		state := s.conn.ConnectionState()
		exporter := must(state.ExportKeyingMaterial("EXPORTER-causeway-renew", nil, 32))
		signed := append([]byte("causeway renew 1\x00\x01"), exporter...)
		if !bytes.HasPrefix(codec.RenewalSigned(true, exporter, m.Chain[0]), signed) {
			t.Fatal("what is signed does not begin as the protocol says")
		}
		if !must(sign.NewKey(next.Peer.Public)).Verify(codec.RenewalSigned(true, exporter, m.Chain[0]), m.Proof) {
			t.Fatal("the new key has not signed the announcement")
		}
	}
}

// payload returns the next frame, which must be an application's under the
// identity.
func (s *routerConn) payload(t *testing.T, by *pki.Identity, body string) {
	t.Helper()
	f := must(s.next())
	if f.Category() != app || string(f.Body()) != body || f.CertID() != by.Peer.CertID ||
		!must(sign.NewKey(by.Peer.Public)).Verify(f.Signed(), f.Signature()) {
		t.Fatalf("category %v, %q under %v came; want %q under %x", f.Category(), f.Body(), f.CertID(), body, by.Peer.CertID)
	}
}

func TestRenewalIsAnnouncedBeforeItsFirstUse(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.d.node("a")
		n, s := w.scriptedWith(w.config(first))
		to := w.d.node("b").Peer.Address
		s.stayAlive()
		w.send(n, to, "one")
		s.payload(t, first, "one")
		before := first
		for _, kinds := range [][]pki.KeyType{nil, {pki.KeyP256}, {pki.KeyEd25519}} {
			time.Sleep(renewEvery) // of the bubble's time: no more often is allowed
			next := w.d.renewed(before, kinds...)
			if err := n.Renew(next); err != nil {
				t.Fatal(err)
			}
			s.announced(t, before, next, kinds != nil)
			w.send(n, to, "two")
			s.payload(t, next, "two")
			must(0, s.control(&codec.KeepAlive{Answer: true}))
			if f := must(s.next()); f.Category() != codec.CategoryControl || f.CertID() != next.Peer.CertID {
				t.Errorf("link control goes under %v after the renewal", f.CertID())
			}
			if err := n.Renew(next); err != nil {
				t.Errorf("the same again: %v", err)
			}
			before = next
		}
	})
}

// What was signed before a renewal is delivered on the next connection too,
// where the older certificate is announced before it.
func TestMessagesSignedBeforeARenewalSurviveAReconnect(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.d.node("a")
		n, s := w.scriptedWith(w.config(first))
		to := w.d.node("b").Peer.Address
		s.raw.(*pipeEnd).in.block(true) // the writer comes to a halt
		var sent []*Sent
		for range 3 {
			sent = append(sent, w.send(n, to, string(make([]byte, 100<<10))))
		}
		synctest.Wait()
		next := w.d.renewed(first, pki.KeyEd25519)
		if err := n.Renew(next); err != nil {
			t.Fatal(err)
		}
		after := w.send(n, to, "after")
		s.raw.Close()
		again := w.reconnected()
		if again.node.CertID != next.Peer.CertID {
			t.Errorf("connected with %x, want the renewed certificate", again.node.CertID)
		}
		again.announced(t, next, first, true)
		left := 0
		for _, one := range sent {
			if one.state != sentFailed {
				left++
			}
		}
		if left == 0 {
			t.Fatal("nothing was left in the queue")
		}
		for range left {
			again.payload(t, first, string(make([]byte, 100<<10)))
		}
		again.payload(t, next, "after")
		must(0, again.control(&codec.KeepAlive{Received: again.received.Load()}))
		if err := after.Confirmed(w.ctx()); err != nil {
			t.Error(err)
		}
	})
}

func TestRenewRefusesWhatIsNoRenewal(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.d.node("a")
		n, _ := w.scriptedWith(w.config(first))
		if err := n.Renew(w.d.node("a")); !errors.Is(err, ErrOtherIdentity) {
			t.Errorf("another address: %v", err)
		}
		checkError[*ConfigError](t, n.Renew(nil), "Identity")
		stranger := newDomain("prod.example")
		err := n.Renew(stranger.renewed(first))
		if reason, ok := pki.ReasonOf(err); !ok || reason != pki.ReasonUnknownRoot {
			t.Errorf("another authority's: %v", err)
		}
		for range renewBurst {
			must(0, n.Renew(w.d.renewed(first)))
		}
		if err := n.Renew(w.d.renewed(first)); !errors.Is(err, ErrRenewedTooOften) {
			t.Errorf("one too many: %v", err)
		}
		n.Close()
		if err := n.Renew(w.d.renewed(first)); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestRoutersRenewalIsTakenOnlyWithProof(t *testing.T) {
	other := func(w *world, s *routerConn) *codec.Renewal {
		peer := w.d.member("other", pki.RoleRouter, s.r.key, time.Minute, time.Hour)
		return &codec.Renewal{Chain: peer.Chain}
	}
	withKey := func(client bool, prove bool) func(w *world, s *routerConn) *codec.Renewal {
		return func(w *world, s *routerConn) *codec.Renewal {
			key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
			peer := w.d.renewedPeer(s.peer, key.Public())
			m := &codec.Renewal{Chain: peer.Chain}
			if prove {
				state := s.conn.ConnectionState()
				exporter := must(state.ExportKeyingMaterial("EXPORTER-causeway-renew", nil, 32))
				m.Proof = must(must(sign.NewSigner(key)).Sign(nil, codec.RenewalSigned(client, exporter, peer.Leaf.Raw)))
			}
			s.after = newSender(peer, key)
			return m
		}
	}
	for name, c := range map[string]struct {
		good bool
		make func(w *world, s *routerConn) *codec.Renewal
	}{
		"proven":          {true, withKey(false, true)},
		"without proof":   {false, withKey(false, false)},
		"a client's":      {false, withKey(true, true)},
		"another router":  {false, other},
		"no certificates": {false, func(*world, *routerConn) *codec.Renewal { return &codec.Renewal{Chain: [][]byte{{1}}} }},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n, s := w.scripted("a")
				must(0, s.control(c.make(w, s)))
				if !c.good {
					if g := must(expect[*codec.Goodbye](s)); g.Reason != codec.GoodbyeProtocol {
						t.Errorf("goodbye %+v", g)
					}
					return
				}
				s.after.last = s.last
				s.sender = s.after
				must(0, s.control(&codec.KeepAlive{Answer: true}))
				if _, err := expect[*codec.KeepAlive](s); err != nil || n.Stats().ProtocolErrors != 0 {
					t.Errorf("link control under the new grant: %v", err)
				}
			})
		})
	}
}

// The connection to a router whose grant ends, and is not renewed, ends with it.
func TestRoutersGrantEndsTheConnectionWhenItEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.r.grant = w.d.renewedPeer(w.r.grant, w.r.key.Public()) // for an hour
		w.r.tls.Certificates[0].Certificate = w.r.grant.Chain
		w.r.tls.Certificates[0].Leaf = w.r.grant.Leaf
		n, s := w.scripted("a")
		s.stayAlive()
		go s.awaitEnd()
		time.Sleep(time.Until(w.r.grant.NotAfter) - time.Second)
		if _, there := n.Router(); !there {
			t.Fatal("gone before the end")
		}
		time.Sleep(3 * time.Second)
		if _, there := n.Router(); there {
			t.Error("still connected after the end")
		}
		w.r.sessions <- nil
	})
}

func TestListsFromTheRouterRevokeWhatIsKnown(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		bad, good := w.d.node("bad"), w.d.node("good")
		var senders []*sender
		for _, id := range []*pki.Identity{bad, good} {
			w.r.knows(id.Peer)
			from := newSender(id.Peer, id.Key)
			senders = append(senders, from)
			must(0, s.write(from.frame(n.Address(), app, []byte("before"))))
			must(s.next())
			must(0, s.control(&codec.Certificates{Number: n.in.certs.number, Parts: 1, Entries: []codec.CertificateEntry{
				w.r.entry(codec.CertKey{Address: id.Peer.Address, CertID: id.Peer.CertID})}}))
			w.receives(n, "before")
		}
		list := w.d.list(2, bad.Peer)
		half := len(list) / 2
		must(0, s.control(&codec.RevocationList{Number: 1, Parts: 2, Data: list[:half]}))
		must(0, s.control(&codec.RevocationList{Number: 1, Part: 1, Parts: 2, Data: list[half:]}))
		must(0, s.control(&codec.RevocationList{Number: 2, Parts: 1, Data: w.d.list(1)})) // older: left alone
		must(0, s.control(&codec.RevocationList{Number: 3, Parts: 1, Data: []byte("none")}))
		for _, from := range senders {
			must(0, s.write(from.frame(n.Address(), app, []byte("after "+from.peer.Name))))
		}
		w.receives(n, "after good")
		w.drops(n, map[string]uint64{"unknown-certificate": 1})
		if got := n.Stats(); got.ListsTaken != 1 || got.ListsRefused != 1 {
			t.Errorf("%+v", got)
		}
		must(0, s.control(&codec.RevocationList{Number: 4, Parts: 1, Data: w.d.list(3, w.r.grant)}))
		s.awaitEnd()
		synctest.Wait()
		if _, there := n.Router(); there {
			t.Error("still at a revoked router")
		}
	})
}

func TestPartsOfListsComeInOrder(t *testing.T) {
	part := func(number uint64, part, parts uint16) *codec.RevocationList {
		return &codec.RevocationList{Number: number, Part: part, Parts: parts, Data: []byte{byte(part)}}
	}
	for name, c := range map[string]struct {
		parts []*codec.RevocationList
		whole []byte
		ok    bool
	}{
		"whole":               {[]*codec.RevocationList{part(1, 0, 2), part(1, 1, 2)}, []byte{0, 1}, true},
		"one after the other": {[]*codec.RevocationList{part(1, 0, 1), part(2, 0, 1)}, []byte{0}, true},
		"from the middle":     {[]*codec.RevocationList{part(1, 1, 2)}, nil, false},
		"one left out":        {[]*codec.RevocationList{part(1, 0, 3), part(1, 2, 3)}, nil, false},
		"twice":               {[]*codec.RevocationList{part(1, 0, 2), part(1, 0, 2)}, nil, false},
		"mixed":               {[]*codec.RevocationList{part(1, 0, 2), part(2, 1, 2)}, nil, false},
		"other count":         {[]*codec.RevocationList{part(1, 0, 2), part(1, 1, 3)}, nil, false},
	} {
		var l listParts
		var whole []byte
		ok := true
		for _, p := range c.parts {
			if ok {
				whole, ok = l.add(p)
			}
		}
		if ok != c.ok || !bytes.Equal(whole, c.whole) {
			t.Errorf("%s: %x, %v", name, whole, ok)
		}
	}
	var l listParts
	const parts = listMax/codec.RevocationPartMax + 2
	data := make([]byte, codec.RevocationPartMax)
	for i := range uint16(parts) {
		if whole, ok := l.add(&codec.RevocationList{Part: i, Parts: parts, Data: data}); whole != nil || !ok || len(l.data) > listMax {
			t.Fatalf("part %d: %d bytes kept, %v", i, len(l.data), ok)
		}
	}
	if _, ok := l.add(part(7, 0, 1)); !ok {
		t.Error("no list can come after one that is too large")
	}
}
