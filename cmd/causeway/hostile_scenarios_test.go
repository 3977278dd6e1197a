package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

// hostileWorld is two routers of two domains, and a third with a grant of one of
// them that is linked to the first. What it could do there, and what not, is what
// PROTOCOL.md section 11 says. The other domain's messages flow all the time.
type hostileWorld struct {
	*mesh
	tr         *traffic // of the other domain
	dir        string
	carol      *trafficNode // of the hostile router's domain, at router 1
	dave       *trafficNode // at router 2
	alice, bob *trafficNode // of the other domain
	came       chan string  // to dave
}

const (
	hostileDomain = "lab.example"
	otherDomain   = "prod.example"
)

func startHostileWorld(t *testing.T) *hostileWorld {
	t.Helper()
	m := startMesh(t, meshPlan{
		domains: []meshDomain{{otherDomain, []int{1, 2}, 4}, {hostileDomain, []int{1, 2}, 2}},
		links:   [][2]int{{1, 2}},
	})
	m.linked()
	w := &hostileWorld{mesh: m, tr: startTraffic(m, 20, 100), dir: m.makeHostile(hostileDomain)}
	w.tr.flows = slices.DeleteFunc(w.tr.flows, func(f *trafficFlow) bool { return f.from.Domain() == hostileDomain })
	for _, n := range w.tr.nodes {
		switch {
		case n.Domain() == otherDomain && w.alice == nil:
			w.alice = n
		case n.Domain() == otherDomain && w.bob == nil:
			w.bob = n
		case n.Domain() == hostileDomain && w.carol == nil:
			w.carol = n
		case n.Domain() == hostileDomain:
			w.dave = n
		}
	}
	w.tr.nodes = slices.DeleteFunc(w.tr.nodes, func(n *trafficNode) bool { return n.Domain() == hostileDomain })
	w.tr.start()
	w.came = make(chan string, 1000)
	w.tr.receiving.Go(func() {
		for {
			m, err := w.dave.Receive(w.tr.ctx)
			if err != nil {
				return
			}
			w.came <- string(m.Body)
		}
	})
	w.tr.flow(10)
	return w
}

// steal has the hostile router get a message of carol's for dave, by its claim
// that dave is attached to it.
func (w *hostileWorld) steal(h *hostileRouter, body string) (stolen codec.Raw, sent *node.Sent) {
	w.t.Helper()
	h.claim(w.dave.Address())
	all := map[codec.Digest]*node.Sent{}
	waitUntil(w.t, "the hostile router gets a message of its domain", func() bool {
		s, err := w.carol.Send(w.tr.ctx, w.dave.Address(), codec.CategoryApplication, []byte(body))
		if err != nil {
			w.t.Fatal(err)
		}
		all[s.Digest] = s
		for _, raw := range h.carried() {
			if sent = all[raw.Digest()]; sent != nil {
				stolen = raw
				return true
			}
		}
		return false
	})
	// It gives up its claim, so that what it sends on is not sent back to it.
	h.claim()
	waitUntil(w.t, "dave is found where he is", func() bool { return w.tr.echo(w.carol, w.dave.Address()) })
	const last = "the last of these"
	if _, err := w.carol.Send(w.tr.ctx, w.dave.Address(), codec.CategoryApplication, []byte(last)); err != nil {
		w.t.Fatal(err)
	}
	for w.comes() != last { // older ones come before it
	}
	return stolen, sent
}

// comes waits for the next message to dave.
func (w *hostileWorld) comes() string {
	w.t.Helper()
	select {
	case body := <-w.came:
		return body
	case <-w.tr.ctx.Done():
		w.t.Fatalf("nothing comes to dave\n%s", w.logs())
		return ""
	}
}

// last has carol send dave a message, and asserts that it is the next to come.
func (w *hostileWorld) last(body string) {
	w.t.Helper()
	if _, err := w.carol.Send(w.tr.ctx, w.dave.Address(), codec.CategoryApplication, []byte(body)); err != nil {
		w.t.Fatal(err)
	}
	if got := w.comes(); got != body {
		w.t.Errorf("dave gets %q, want %q", got, body)
	}
}

// In its own domain it can say that nodes are attached to it, read what is for
// them, and let it disappear; it can replay, once, and it can alter nothing.
func TestAHostileRouterCanReadAndDropInItsDomainButNotForge(t *testing.T) {
	w := startHostileWorld(t)
	h := w.linkHostile(w.dir, 1, hostileDomain)
	stolen, _ := w.steal(h, "for dave only")
	if !bytes.Equal(stolen.Body(), []byte("for dave only")) {
		t.Errorf("the hostile router reads %q", stolen.Body())
	}

	altered := slices.Clone(stolen)
	altered.Body()[0] ^= 1
	renamed := slices.Clone(stolen)
	alice := w.alice.Address()
	copy(renamed[17:], alice[:]) // the sender, PROTOCOL.md section 1
	later := slices.Clone(stolen)
	later[41] ^= 1 // the last byte of the send time
	own := h.make(h.grant.Address, w.dave.Address(), codec.CategoryApplication, []byte("from a router"))
	inHerName := h.make(w.carol.Address(), w.dave.Address(), codec.CategoryApplication, []byte("from carol, it says"))
	duplicates := w.dave.Stats().Dropped["duplicate"]
	h.send(altered, renamed, later, own, inHerName, stolen, stolen, stolen)
	if got := w.comes(); got != "for dave only" {
		t.Errorf("dave gets %q, which nobody has sent to him", got)
	}
	waitUntil(t, "dave has dropped the copies", func() bool { return w.dave.Stats().Dropped["duplicate"] == duplicates+2 })
	w.last("the next")
	h.learned()
	h.close()
	w.stayedWell()
}

// It can send notices in its domain, under its own name, and in no other name or
// domain.
func TestAHostileRouterCanSendNoticesInItsDomainOnly(t *testing.T) {
	w := startHostileWorld(t)
	h := w.linkHostile(w.dir, 1, hostileDomain)
	_, sent := w.steal(h, "lost")
	other := w.alice.newest.Load()
	here := w.grant(1, otherDomain)
	before := w.alice.Stats()
	h.send(
		h.notice(h.grant.Address, w.alice.Address(), other.To, other.Digest, other.SendTime),
		h.notice(here, w.alice.Address(), other.To, other.Digest, other.SendTime),
		h.notice(other.To, w.alice.Address(), other.To, other.Digest, other.SendTime),
		h.notice(w.grant(2, hostileDomain), w.carol.Address(), w.dave.Address(), sent.Digest, sent.SendTime),
	)
	if err := sent.Confirmed(w.tr.ctx); err != nil {
		t.Errorf("carol believes a notice in another router's name: %v", err)
	}
	h.send(h.notice(h.grant.Address, w.carol.Address(), w.dave.Address(), sent.Digest, sent.SendTime))
	var noticed *node.NoticeError
	waitUntil(t, "carol gets the notice", func() bool { return errors.As(sent.Confirmed(w.tr.ctx), &noticed) })
	if noticed.From != codec.Address(h.grant.Address) {
		t.Errorf("the notice is from %v, not from the hostile router", noticed.From)
	}
	w.tr.flow(5)
	after := w.alice.Stats()
	if after.NoticesIgnored != before.NoticesIgnored || after.Dropped["forged-notice"] != before.Dropped["forged-notice"] {
		t.Errorf("notices of another domain's router have come to alice: before %+v, after %+v", before, after)
	}
	h.learned()
	h.close()
	w.stayedWell()
}

// Of another domain it learns that it is served when it knows the domain's root,
// which is no secret; it can neither route there, nor send, nor hear.
func TestAHostileRouterHasNoPowerInAnotherDomain(t *testing.T) {
	w := startHostileWorld(t)
	h := w.linkHostile(w.dir, 1, hostileDomain, otherDomain)
	for metric := range uint16(2) {
		h.say(h.routes(w.grant(2, otherDomain), metric))
	}
	h.say(h.list(w.grant(2, otherDomain), 1<<40, w.alice.Address(), w.bob.Address()))
	h.say(&codec.ListRequest{Router: w.grant(1, otherDomain)})
	h.say(&codec.CertificateRequest{Number: 1, Wanted: []codec.CertKey{{Address: w.alice.Address()}}})
	h.send(
		h.make(w.bob.Address(), w.alice.Address(), codec.CategoryApplication, []byte("from bob, it says")),
		h.make(h.grant.Address, w.alice.Address(), codec.CategoryEcho, nil),
		h.make(w.carol.Address(), w.alice.Address(), codec.CategoryApplication, []byte("across")))
	w.tr.flow(20)
	h.learned()
	h.mu.Lock()
	for _, m := range h.control {
		if c, ok := m.(*codec.Certificates); ok {
			for _, e := range c.Entries {
				if len(e.Chain) > 0 {
					t.Errorf("the hostile router gets a certificate of another domain: %v", e.Address)
				}
			}
		}
	}
	h.mu.Unlock()
	h.close()
	w.stayedWell()
}

// A flood of routes ends its link, or is taken; the others do not notice.
func TestAHostileRouterFloodsRoutes(t *testing.T) {
	w := startHostileWorld(t)
	h := w.linkHostile(w.dir, 1, hostileDomain)
	flooded := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		defer func() { flooded <- n }()
		for address := h.grant.Address; ; n++ {
			update := &codec.RouteUpdate{Interval: time.Minute}
			for range 100 {
				for i := len(address) - 1; i >= 8; i-- { // the next address
					if address[i]++; address[i] != 0 {
						break
					}
				}
				update.Routes = append(update.Routes, codec.Route{Router: address, Source: h.source, Seqno: uint16(n), Metric: uint16(n % 7)})
			}
			h.say(update)
			select {
			case <-stop:
				return
			case <-h.ended:
				return
			default:
			}
		}
	}()
	w.tr.flow(60)
	if !w.tr.echo(w.carol, w.dave.Address()) {
		t.Error("carol can't reach dave during the flood")
	}
	close(stop)
	t.Logf("%d messages of 100 routes each; goodbyes: %d", <-flooded, heard[*codec.Goodbye](h))
	h.learned()
	h.close()
	w.stayedWell()
}

// A router whose grant is of another authority of the same name gets nowhere.
func TestARouterWithoutAGrantGetsNoLink(t *testing.T) {
	w := startHostileWorld(t)
	other := t.TempDir()
	verb(t, "pki", "init", "--domain", otherDomain, "--out", other+"/ca")
	verb(t, "pki", "grant", "--ca", other+"/ca", "--name", "edge-2", "--out", other+"/router")
	id, err := pki.LoadIdentity(os.DirFS(other + "/router"))
	if err != nil {
		t.Fatal(err)
	}
	before := w.routers[1].metrics()[`causeway_handshakes_refused_total{reason="unknown-root"}`]
	raw, err := w.sites.hub.dial(t.Context(), w.routers[1].listens())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{
		ServerName: otherDomain, NextProtos: []string{"dbw/1"}, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{{Certificate: id.Grants[otherDomain].Chain, PrivateKey: id.Key}},
	})
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the router takes a grant of an authority that it does not know")
	}
	waitUntil(t, "the refusal is counted", func() bool {
		return w.routers[1].metrics()[`causeway_handshakes_refused_total{reason="unknown-root"}`] == before+1
	})
	w.stayedWell()
}

// stayedWell asserts that the other domain has noticed nothing, and ends it all.
func (w *hostileWorld) stayedWell() {
	w.t.Helper()
	w.tr.flow(10)
	l := w.tr.finish()
	w.t.Log(l)
	l.nothingLost(w.t)
	for _, n := range []*trafficNode{w.carol, w.dave} {
		n.Close()
	}
	w.tr.close()
	w.end()
}
