package engine

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

// Nodes and router renew all at once, keys too, and no connection is closed and
// no frame lost.
func TestRenewalsOfAllKindsUnderTrafficLoseNothing(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	open := func(id *pki.Identity) *node.Node {
		n, err := node.Connect(ctx, node.Config{Identity: id, Routers: []string{"dbw://" + addr}})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	ida, idb := d.node("a"), d.nodeWith("b", pki.KeyP256)
	a, b := open(ida), open(idb)
	defer a.Close()
	defer b.Close()
	send := func(from, to *node.Node, number uint64) {
		t.Helper()
		if _, err := from.Send(ctx, to.Address(), codec.CategoryApplication, binary.BigEndian.AppendUint64(nil, number)); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(n *node.Node, number uint64) {
		t.Helper()
		m, err := n.Receive(ctx)
		if err != nil || binary.BigEndian.Uint64(m.Body) != number {
			t.Fatalf("%s: frame %x instead of %d: %v; %+v", n.Name(), m.Body, number, err, n.Stats())
		}
	}
	const window = 100
	var number uint64
	burst := func() {
		for i := range uint64(window) {
			send(a, b, number+i)
			send(b, a, number+i)
		}
	}
	kinds := [][]pki.KeyType{nil, {pki.KeyEd25519}, nil, {pki.KeyP256}}
	for _, kind := range kinds {
		burst()
		number += window
		ida, idb = d.renewedBy(ida, time.Hour, kind...), d.renewedBy(idb, time.Hour, kind...)
		grant := renewedGrant(r.state().config.Identity, d, kind...)
		renew(t, a, ida)
		reload(t, r, func(c *Config) { c.Identity = grant })
		renew(t, b, idb)
		burst()
		for i := range uint64(2 * window) {
			receive(a, number-window+i)
			receive(b, number-window+i)
		}
		number += window
		waitFor(t, "the router's own frames under the new grant", func() bool {
			_, err := a.Ping(ctx, codec.Address(grant.Grants[d.Domain].Address), nil)
			return err == nil
		})
	}
	for _, n := range []*node.Node{a, b} {
		if s := n.Stats(); s.Connections != 1 || len(s.Dropped) != 0 || s.ProtocolErrors != 0 {
			t.Errorf("%s: %+v", n.Name(), s)
		}
	}
	if c := r.Counts(); c.DroppedSum() != 0 {
		t.Errorf("the router dropped %v", c.Dropped)
	}
}

// Limits of bodies, here the router's and the nodes', are not those of link
// control: small ones let lists and certificates pass.
func TestSmallBodyLimitsLeaveLinkControlAlone(t *testing.T) {
	const bodyMax = 100
	d := newAuthority("prod.example")
	entries := make([]x509.RevocationListEntry, 5000)
	for i := range entries {
		entries[i] = x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i + 1)), RevocationTime: d.now}
	}
	list := must(d.SignCRL(big.NewInt(1), entries, d.now, time.Hour, rand.Reader))
	_, addr := startRouter(t, func(c *Config) {
		c.BodyMax, c.Store = bodyMax, storeWith(map[string][]byte{d.Domain: list}, d)
	}, d)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	open := func(name string) *node.Node {
		n, err := node.Connect(ctx, node.Config{
			Identity: d.node(name), Routers: []string{"dbw://" + addr}, Plain: true, AcceptPlain: true, BodyMax: bodyMax,
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, b := open("a"), open("b")
	defer a.Close()
	defer b.Close()
	waitFor(t, "the list at both", func() bool { return a.Stats().ListsTaken == 1 && b.Stats().ListsTaken == 1 })
	if _, err := a.Send(ctx, b.Address(), codec.CategoryApplication, make([]byte, bodyMax)); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Receive(ctx); err != nil || len(m.Body) != bodyMax {
		t.Errorf("%d bytes came, %v; %+v", len(m.Body), err, b.Stats())
	}
	var tooLarge *node.BodySizeError
	if _, err := a.Send(ctx, b.Address(), codec.CategoryApplication, make([]byte, bodyMax+1)); !errors.As(err, &tooLarge) || tooLarge.Max != bodyMax {
		t.Errorf("one byte more: %v", err)
	}
	if s := a.Stats(); s.Connections != 1 || s.ProtocolErrors != 0 {
		t.Errorf("%+v", s)
	}
}

// renew renews a node as soon as it may be.
func renew(t *testing.T, n *node.Node, id *pki.Identity) {
	t.Helper()
	waitFor(t, "the renewal", func() bool {
		err := n.Renew(id)
		if err != nil && !errors.Is(err, node.ErrRenewedTooOften) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// A node that its router tells of a revocation refuses what the revoked one has
// signed, whoever passes it on.
func TestNodesLearnOfRevocationsFromTheirRouter(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	n, err := node.Connect(ctx, node.Config{Identity: d.node("n"), Routers: []string{"dbw://" + addr}, AcceptPlain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	bad := connect(t, addr, d.node("bad"))
	bad.send(bad.frame(n.Address(), codec.CategoryApplication, []byte("before")))
	if _, err := n.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	list := d.revoking(3, bad.id)
	reload(t, r, func(c *Config) { c.Store = storeWith(map[string][]byte{d.Domain: list}, d) })
	waitFor(t, "the list at the node", func() bool { return n.Stats().ListsTaken == 1 })
	if g := bad.ended(); g == nil || g.Reason != codec.GoodbyeRevoked {
		t.Errorf("goodbye %+v", g)
	}
}
