package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

const listenPatience = 30 * time.Second

// listener returns a node that listens on the loopback, with no router.
func listener(t *testing.T, id *pki.Identity, changes ...func(*Config)) (*Node, string) {
	t.Helper()
	c := Config{Identity: id, Listen: []string{"dbw://127.0.0.1:0"}, Kind: "server"}
	n := startNode(t, c, changes...)
	return n, n.Listening()[0]
}

// direct returns a node that is connected to the one at that URL.
func direct(t *testing.T, id *pki.Identity, url string, changes ...func(*Config)) *Node {
	t.Helper()
	return startNode(t, Config{Identity: id, Direct: url}, changes...)
}

func startNode(t *testing.T, c Config, changes ...func(*Config)) *Node {
	t.Helper()
	for _, change := range changes {
		change(&c)
	}
	n, err := Connect(patient(t), c)
	if err != nil {
		t.Fatalf("%s: %v", c.Identity.Peer.Name, err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), listenPatience)
	t.Cleanup(cancel)
	return ctx
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for by := time.Now().Add(listenPatience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// passes sends a message and checks that it comes, and that both ends say so.
func passes(t *testing.T, from, to *Node, body string) Message {
	t.Helper()
	ctx := patient(t)
	s, err := from.Send(ctx, to.Address(), codec.CategoryApplication, []byte(body))
	if err != nil {
		t.Fatalf("sending %q: %v", body, err)
	}
	m, err := to.Receive(ctx)
	if err != nil || string(m.Body) != body || m.From != from.Address() || m.FromName != from.Name() {
		t.Fatalf("received %+v, %v; want %q", m, err, body)
	}
	if err := s.Confirmed(ctx); err != nil {
		t.Errorf("confirmed: %v", err)
	}
	if err := s.Seen(ctx); err != nil {
		t.Errorf("seen: %v", err)
	}
	return m
}

func TestTwoNodesWithoutARouter(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"))
	a := direct(t, d.node("a"), url)
	if m := passes(t, a, b, "to who listens"); !m.Sealed {
		t.Error("the message was not sealed")
	}
	if m := passes(t, b, a, "to who has dialled"); !m.Sealed {
		t.Error("the message was not sealed")
	}
	for _, way := range [][2]*Node{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		if _, err := from.Ping(patient(t), to.Address(), []byte("payload")); err != nil {
			t.Errorf("%s pings %s: %v", from.Name(), to.Name(), err)
		}
		e, err := from.Lookup(patient(t), to.Name())
		if err != nil || e.Address != to.Address() {
			t.Errorf("%s looks %s up: %+v, %v", from.Name(), to.Name(), e, err)
		}
		peers := from.Peers()
		if len(peers) != 1 || peers[0].Name != to.Name() || peers[0].Accepted != (from == b) {
			t.Errorf("peers of %s: %+v", from.Name(), peers)
		}
		if r, ok := from.Router(); ok {
			t.Errorf("%s has a router: %+v", from.Name(), r)
		}
	}
	if s := b.Stats(); s.Accepted != 1 || s.Peers != 1 || s.AcceptFailed != 0 {
		t.Errorf("stats %+v", s)
	}
	for _, n := range []*Node{a, b} {
		if err := n.Close(); err != nil {
			t.Errorf("closing %s: %v", n.Name(), err)
		}
		if d := n.Stats().Dropped; len(d) > 0 {
			t.Errorf("%s dropped %v", n.Name(), d)
		}
	}
}

// Nothing is lost when either end leaves right after it has sent.
func TestWhoLeavesHasSentAll(t *testing.T) {
	const messages = 200
	d := newDomain("prod.example")
	for _, listens := range []bool{false, true} {
		b, url := listener(t, d.node("b"))
		a := direct(t, d.node("a"), url)
		from, to := a, b
		if listens {
			from, to = b, a
			until(t, "a is a peer", func() bool { return b.Stats().Peers == 1 })
		}
		for range messages {
			if _, err := from.Send(patient(t), to.Address(), codec.CategoryApplication, []byte("m")); err != nil {
				t.Fatal(err)
			}
		}
		if err := from.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		for i := range messages {
			if _, err := to.Receive(patient(t)); err != nil {
				t.Fatalf("message %d: %v (%+v)", i, err, to.Stats())
			}
		}
	}
}

// A node that dials comes back to one that was started anew.
func TestDirectConnectionIsMadeAgain(t *testing.T) {
	d := newDomain("prod.example")
	id := d.node("b")
	b, url := listener(t, id)
	a := direct(t, d.node("a"), url)
	passes(t, a, b, "before")
	b.Close()
	b, _ = listener(t, id, func(c *Config) { c.Listen = []string{url} })
	until(t, "a is back", func() bool { return b.Stats().Peers == 1 })
	passes(t, b, a, "after")
}

func TestDirectNodeSendsToItsPeerAlone(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"))
	c := direct(t, d.node("c"), url)
	a := direct(t, d.node("a"), url)
	_, err := a.Send(patient(t), c.Address(), codec.CategoryApplication, []byte("x"))
	checkError[*DirectError](t, err, b.Name(), b.Address().String())
	_, err = a.Lookup(patient(t), "c")
	checkError[*DirectError](t, err)
	_, err = a.List(patient(t))
	checkError[*DirectError](t, err)
	passes(t, a, b, "still")
	passes(t, c, b, "still")
}

// A frame that would have to be forwarded, or was, closes the connection.
func TestNodesForwardNothing(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.AcceptPlain = true })
	other := direct(t, d.node("other"), url)
	id := d.node("a")
	s := newSender(id.Peer, id.Key)
	stranger := d.node("stranger")
	for _, frame := range []codec.Raw{
		s.frame(other.Address(), codec.CategoryApplication, []byte("for another")),
		newSender(stranger.Peer, stranger.Key).frame(b.Address(), codec.CategoryApplication, []byte("of another")),
	} {
		conn := greeted(t, id, url, b.Address())
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		if g := lastWord(t, conn); g == nil || g.Reason != codec.GoodbyeProtocol || !strings.Contains(g.Text, "forwards nothing") {
			t.Errorf("the last word was %+v", g)
		}
	}
	if s := b.Stats(); s.Delivered != 0 || s.ProtocolErrors != 2 {
		t.Errorf("stats %+v", s)
	}
	if got := other.Stats().FramesIn; got != 0 {
		t.Errorf("the other node got %d frames", got)
	}
}

// knock does the handshake with b at url as id, and hears what comes of it.
func knock(t *testing.T, id *pki.Identity, url string, change func(*tls.Config)) *tls.Conn {
	t.Helper()
	own := id.TLSCertificate("")
	tc := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, ServerName: id.Peer.Domain, InsecureSkipVerify: true,
		GetClientCertificate: func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(asked.AcceptableCAs) > 0 {
				t.Error("the certificate request names authorities")
			}
			return &own, nil
		},
	}
	if change != nil {
		change(tc)
	}
	raw, err := net.Dial("tcp", strings.TrimPrefix(url, "dbw://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	conn := tls.Client(raw, tc)
	_ = conn.SetDeadline(time.Now().Add(listenPatience))
	return conn
}

func helloOf(id *pki.Identity, to codec.Address, role codec.Role) []byte {
	return newSender(id.Peer, id.Key).frame(to, codec.CategoryControl, must(codec.AppendControl(nil, &codec.Hello{
		Version: codec.ProtocolVersion, Role: role, Software: "test/1.0.0",
		KeepAlive: codec.KeepAliveDefault, DeadAfter: codec.DeadAfterDefault, BodyMax: codec.BodyMaxDefault,
	})))
}

// greeted is knock, and hellos.
func greeted(t *testing.T, id *pki.Identity, url string, to codec.Address) *tls.Conn {
	t.Helper()
	conn := knock(t, id, url, nil)
	if _, err := conn.Write(helloOf(id, to, codec.RoleNode)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// lastWord reads to the end, and returns the goodbye.
func lastWord(t *testing.T, conn *tls.Conn) (last *codec.Goodbye) {
	t.Helper()
	r := newFrameReader(conn, codec.BodyMaxDefault, new(atomic.Uint64))
	for {
		raw, err := r.next()
		if err != nil {
			return last
		}
		if raw.Category() != codec.CategoryControl {
			continue
		}
		if g, ok := must(codec.DecodeControl(raw.Body())).(*codec.Goodbye); ok {
			last = g
		}
	}
}

func TestWhoMayNotConnectToANode(t *testing.T) {
	d, foreign := newDomain("prod.example"), newDomain("other.example")
	b, url := listener(t, d.node("b"))
	grantKey := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	grant := &pki.Identity{Key: grantKey, Peer: d.member("r1", pki.RoleRouter, grantKey, time.Minute, time.Hour), Roots: d.store.Roots(d.name)}
	expired := d.nodeOf("late", pki.KeyEd25519, 30*time.Minute, 10*time.Minute)
	a := d.node("a")
	inDomain := func(c *tls.Config) { c.ServerName = d.name }
	for i, c := range []struct {
		name   string
		id     *pki.Identity
		change func(*tls.Config)
		alert  string
	}{
		{"node of another domain", foreign.node("a"), inDomain, "bad certificate"},
		{"a router's grant", grant, nil, "bad certificate"},
		{"expired", expired, nil, "bad certificate"},
		{"wrong SNI", a, func(c *tls.Config) { c.ServerName = "other.example" }, "unrecognized name"},
		{"no SNI", a, func(c *tls.Config) { c.ServerName = "" }, "unrecognized name"},
		{"no certificate", a, func(c *tls.Config) { c.GetClientCertificate = nil }, "certificate required"},
		{"no ALPN", a, func(c *tls.Config) { c.NextProtos = nil }, "bad certificate"},
		{"TLS 1.2", a, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, "protocol version not supported"},
	} {
		conn := knock(t, c.id, url, c.change)
		err := conn.Handshake()
		if err == nil { // TLS 1.3: the server says no afterwards
			_, err = conn.Read(make([]byte, 1))
		}
		if alert, ok := remoteAlert(err); !ok || alert != c.alert {
			t.Errorf("%s: %v; want alert %q", c.name, err, c.alert)
		}
		conn.Close()
		until(t, "it is counted", func() bool { return b.Stats().AcceptFailed == uint64(i+1) })
	}
	conn := knock(t, a, url, nil)
	if _, err := conn.Write(helloOf(a, b.Address(), codec.RoleRouter)); err != nil {
		t.Fatal(err)
	}
	if g := lastWord(t, conn); g == nil || g.Reason != codec.GoodbyeRole {
		t.Errorf("non-node role: the last word was %+v", g)
	}
	until(t, "all are counted", func() bool { return b.Stats().AcceptFailed == 9 })
	if s := b.Stats(); s.Accepted != 0 || s.Peers != 0 {
		t.Errorf("stats %+v", s)
	}
}

// Who wants a router refuses a node, and the other way round.
func TestDialerSaysWhomItWants(t *testing.T) {
	d := newDomain("prod.example")
	_, url := listener(t, d.node("b"))
	_, err := Connect(patient(t), Config{Identity: d.node("a"), Routers: []string{url}})
	checkError[*RouterCertificateError](t, err, "grant", "node's certificate")
	_, err = Connect(patient(t), Config{Identity: newDomain("other.example").node("a"), Direct: url})
	checkError[*RefusedError](t, err)
	inWorld(t, func(w *world) {
		c := w.config(w.d.node("a"))
		c.Routers, c.Direct = nil, w.url
		_, err := Connect(w.ctx(), c)
		checkError[*RouterCertificateError](t, err, "node certificate", "router's certificate")
	})
}

func TestPeersAreBounded(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.PeersMax = 1 })
	first := d.node("a")
	a := direct(t, first, url)
	_, err := Connect(patient(t), Config{Identity: d.node("c"), Direct: url})
	if g := checkError[*GoodbyeError](t, err); g.Reason != codec.GoodbyeLimit {
		t.Errorf("goodbye %v", g.Reason)
	}
	again := direct(t, first, url) // the same node may always
	select {
	case <-a.Done():
	case <-time.After(listenPatience):
		t.Fatal("the older one goes on")
	}
	if !errors.Is(a.Err(), ErrReplaced) {
		t.Errorf("the older one ended by %v", a.Err())
	}
	passes(t, again, b, "the newer one")
	passes(t, b, again, "the newer one")
}

// A node that connects and says nothing is not waited for longer than it may.
func TestSilentPeersEnd(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.DialTimeout, c.HelloTimeout = 50*time.Millisecond, 50*time.Millisecond })
	raw, err := net.Dial("tcp", strings.TrimPrefix(url, "dbw://"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	until(t, "no handshake", func() bool { return b.Stats().AcceptFailed == 1 })
	b2, url := listener(t, d.node("b2"), func(c *Config) { c.HelloTimeout = 50 * time.Millisecond })
	if err := knock(t, d.node("a"), url, nil).Handshake(); err != nil {
		t.Fatal(err)
	}
	until(t, "no hello", func() bool { return b2.Stats().AcceptFailed == 1 })
}

// Either end goes on under a newer certificate, for the same key or another.
func TestRenewalBetweenNodes(t *testing.T) {
	d := newDomain("prod.example")
	ids := map[string]*pki.Identity{"a": d.node("a"), "b": d.node("b")}
	b, url := listener(t, ids["b"])
	a := direct(t, ids["a"], url)
	passes(t, a, b, "before")
	for _, n := range []*Node{a, b} {
		if err := n.Renew(d.renewed(ids[n.Name()])); err != nil {
			t.Fatal(err)
		}
		passes(t, a, b, "after "+n.Name())
		passes(t, b, a, "after "+n.Name())
	}
	if s := b.Stats(); s.Accepted != 1 || len(s.Dropped) > 0 {
		t.Errorf("stats %+v", s)
	}
}

// A peer's connection ends with its certificate, also by revocation.
func TestPeersEndWithTheirCertificates(t *testing.T) {
	d := newDomain("prod.example")
	var ahead atomic.Int64
	b, url := listener(t, d.node("b"), func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	id := d.nodeOf("a", pki.KeyEd25519, time.Minute, time.Hour)
	direct(t, id, url)
	until(t, "a is there", func() bool { return b.Stats().Peers == 1 })
	ahead.Store(int64(2 * time.Hour))
	until(t, "a has gone", func() bool { return b.Stats().Peers == 0 })

	c, url := listener(t, d.node("c"))
	id = d.node("a")
	direct(t, id, url)
	until(t, "a is there", func() bool { return c.Stats().Peers == 1 })
	if !c.applyList(d.list(1, id.Peer)) {
		t.Fatal("the list was not taken")
	}
	until(t, "a has gone", func() bool { return c.Stats().Peers == 0 })
	until(t, "a is refused", func() bool { return c.Stats().AcceptFailed > 0 })
}

// A node with a router is reached directly while it is connected so, and by the
// router otherwise.
func TestDirectAndByRouter(t *testing.T) {
	d := NewTestDomain()
	defer d.Close()
	b := startNode(t, d.Config("b"), func(c *Config) { c.Listen = []string{"dbw://127.0.0.1:0"} })
	carol := startNode(t, d.Config("carol"))
	d.Settle(2)
	passes(t, carol, b, "by the router")

	aRouted := d.Config("a")
	a := direct(t, aRouted.Identity, b.Listening()[0])
	passes(t, a, b, "directly")
	passes(t, b, a, "directly")
	passes(t, b, carol, "by the router, still")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "a has left", func() bool { return b.Stats().Peers == 0 })
	a = startNode(t, aRouted)
	d.Settle(3)
	passes(t, a, b, "by the router now")
	passes(t, b, a, "by the router now")
}

// What the other end has not announced on the connection is nobody's to ask for.
func TestUnannouncedCertificatesOfPeers(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.AcceptPlain = true })
	id := d.node("a")
	conn := greeted(t, id, url, b.Address())
	newer := newSender(d.renewed(id).Peer, id.Key)
	older := newSender(id.Peer, id.Key)
	for _, frame := range []codec.Raw{
		newer.frame(b.Address(), codec.CategoryApplication, []byte("not announced")),
		older.frame(b.Address(), codec.CategoryApplication, []byte("announced")),
	} {
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := b.Receive(patient(t)); err != nil || string(m.Body) != "announced" {
		t.Errorf("received %q, %v", m.Body, err)
	}
	s := b.Stats()
	if s.Dropped["unknown-certificate"] != 1 || s.CertificatesAsked != 0 || s.Parked != 0 {
		t.Errorf("stats %+v", s)
	}
	question := older.frame(b.Address(), codec.CategoryControl, must(codec.AppendControl(nil, &codec.NameRequest{Number: 1, Name: "b", Max: 1})))
	if _, err := conn.Write(question); err != nil {
		t.Fatal(err)
	}
	if g := lastWord(t, conn); g == nil || g.Reason != codec.GoodbyeProtocol {
		t.Errorf("asked as a router is, its last word was %+v", g)
	}
}

func TestHandshakesOfPeersAreBounded(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"))
	begun := func() int {
		b.peers.mu.Lock()
		defer b.peers.mu.Unlock()
		return b.peers.handshakes
	}
	dial := func() net.Conn {
		t.Helper()
		raw, err := net.Dial("tcp", strings.TrimPrefix(url, "dbw://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		return raw
	}
	oneMore := func(what string) {
		t.Helper()
		raw := dial()
		_ = raw.SetDeadline(time.Now().Add(handshakeTimeMax / 2))
		if _, err := raw.Read(make([]byte, 1)); !isClosed(err) {
			t.Errorf("%s, and one more: %v", what, err)
		}
	}
	others := make([]netip.Prefix, handshakesMax)
	for i := range others {
		others[i] = sourceOf(&net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(i/handshakesOfOne))})
		if !b.peers.begin(others[i]) {
			t.Fatal("there is no place")
		}
	}
	oneMore("all places are taken")
	for _, from := range others {
		b.peers.done(from)
	}
	for range handshakesOfOne {
		dial()
	}
	until(t, "one source has its places", func() bool { return begun() == handshakesOfOne })
	oneMore("one source has its places")
	until(t, "silent ones are given up", func() bool { return begun() == 0 })
	direct(t, d.node("a"), url)
}

func TestSourcesOfHandshakes(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1":              "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1":     "192.0.2.7/32",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"[fe80::1%1]:1":            "fe80::/64",
	} {
		if got := sourceOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))); got.String() != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

// Nobody who connects to a node has to wait until that has a router.
func TestWhoConnectsNeedNotWaitForARouter(t *testing.T) {
	d := NewTestDomain()
	defer d.Close()
	cfg := d.Config("b")
	there := make(chan struct{})
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		select {
		case <-there:
			return dial(ctx, address)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	cfg.Listen = []string{"dbw://127.0.0.1:0"}
	b := startNode(t, cfg)
	a := direct(t, d.Config("a").Identity, b.Listening()[0])
	passes(t, a, b, "without a router")
	passes(t, b, a, "without a router")
	if _, err := a.Ping(patient(t), b.Address(), nil); err != nil {
		t.Error(err)
	}
	if r, ok := b.Router(); ok {
		t.Errorf("there is a router: %+v", r)
	}
	close(there)
	carol := startNode(t, d.Config("carol"))
	d.Settle(2)
	passes(t, carol, b, "by the router")
	passes(t, a, b, "directly, still")
	if err := b.Close(); err != nil {
		t.Error(err)
	}

	cfg.Routers = []string{"dbw://gone.test:1"} // and who closes it has not to wait either
	b = startNode(t, cfg)
	until(t, "the router was tried", func() bool { return b.Stats().ConnectFailed > 0 })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
