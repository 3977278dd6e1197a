package engine

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

func TestFramesReachTheirRecipientUnchangedButForTheTTL(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.nodeWith("b", pki.KeyP256))
	for _, c := range []struct {
		from, to *client
		ttl      uint8
		body     []byte
		category codec.Category
	}{
		{a, b, 32, []byte("hello"), codec.CategoryApplication},
		{b, a, 2, nil, codec.CategoryData},
		{a, b, 255, bytes.Repeat([]byte("x"), 1<<20), 255},
		{a, a, 5, []byte("to oneself"), codec.CategoryApplication},
		{b, a, 5, []byte("reserved"), 6},
	} {
		f := c.from.frame(c.to.id.Peer.Address, c.category, c.body)
		f.TTL = c.ttl
		c.from.send(f)
		got := c.to.next()
		f.TTL = min(c.ttl, 32) - 1
		if want := must(f.Append(nil)); !bytes.Equal(got, want) {
			t.Errorf("%.80x\nwant %.80x", []byte(got), want)
		}
	}
}

func TestOrderHoldsPerConnection(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, func(c *Config) { c.VerifyWorkers = 4 }, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	const frames = 2000
	go func() {
		for n := range frames {
			f := a.frame(b.id.Peer.Address, codec.CategoryApplication, fmt.Appendf(nil, "%d", n))
			if _, err := a.conn.Write(a.wire(f)); err != nil {
				return // the reader tells
			}
		}
	}()
	for n := range frames {
		if got := string(b.next().Body()); got != fmt.Sprint(n) {
			t.Fatalf("frame %s came as number %d", got, n)
		}
	}
}

// TestHostileFramesAreDroppedAndCounted has one line for each rule of
// PROTOCOL.md section 8 that drops a frame.
func TestHostileFramesAreDroppedAndCounted(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("lab.example")
	r, addr := startRouter(t, nil, d, other)
	a, b, foreign := connect(t, addr, d.node("a")), connect(t, addr, d.node("b")), connect(t, addr, other.node("c"))
	nobody := codec.Address(must(pki.NewAddress("prod.example", 0, rand.Reader)))
	to := codec.Address(b.id.Peer.Address)
	forged := must(codec.AppendNotice(nil, &codec.Notice{Reason: codec.NoticeNoRoute, Recipient: nobody,
		Frames: []codec.NoticeFrame{{SendTime: 1}}}))
	for _, c := range []struct {
		name   string
		reason dropReason
		notice codec.NoticeReason // 0: none
		to     codec.Address
		change func(f *codec.Frame)
		after  func(wire []byte)
	}{
		{"sends as another's address", dropForeignSender, 0, to, func(f *codec.Frame) { f.Sender = to }, nil},
		{"sends as the router", dropForeignSender, 0, to, func(f *codec.Frame) { f.Sender = a.router }, nil},
		{"names a certificate it did not announce", dropUnknownCertificate, 0, to, func(f *codec.Frame) { f.CertID[0] ^= 1 }, nil},
		{"bad signature", dropBadSignature, 0, to, nil, func(w []byte) { w[len(w)-1] ^= 1 }},
		{"body changed", dropBadSignature, 0, to, nil, func(w []byte) { w[codec.HeaderSize] ^= 1 }},
		{"echo marked as encrypted", dropCategory, 0, to, func(f *codec.Frame) { f.Category, f.Encrypted = codec.CategoryEcho, true }, nil},
		{"device traffic in plain", dropCategory, 0, to, func(f *codec.Frame) { f.Category = codec.CategoryDevice }, nil},
		{"too old", dropLate, codec.NoticeLate, to, func(f *codec.Frame) { f.SendTime -= uint64(6 * time.Minute) }, nil},
		{"from the future", dropLate, codec.NoticeLate, to, func(f *codec.Frame) { f.SendTime += uint64(6 * time.Minute) }, nil},
		{"beyond 2^63 ns", dropLate, codec.NoticeLate, to, func(f *codec.Frame) { f.SendTime |= 1 << 63 }, nil},
		{"forged notice", dropForgedNotice, 0, to, func(f *codec.Frame) { f.Category, f.Body = codec.CategoryNotice, forged }, nil},
		{"notice that is none", dropForgedNotice, 0, to, func(f *codec.Frame) { f.Category = codec.CategoryNotice }, nil},
		{"across domains, to one who is there", dropForeignDomain, codec.NoticeNotPermitted, foreign.id.Peer.Address, nil, nil},
		{"across domains, to nobody", dropForeignDomain, codec.NoticeNotPermitted, codec.Address{0xfd, 1, 2}, nil, nil},
		{"data for the router", dropCategory, codec.NoticeNotPermitted, a.router, nil, nil},
		{"TTL 1", dropTTL, codec.NoticeTTLSpent, to, func(f *codec.Frame) { f.TTL = 1 }, nil},
		{"TTL 0", dropTTL, codec.NoticeTTLSpent, to, func(f *codec.Frame) { f.TTL = 0 }, nil},
		{"nobody there", dropNoRoute, codec.NoticeNoRoute, nobody, nil, nil},
	} {
		before := r.droppedFor(c.reason)
		f := a.frame(c.to, codec.CategoryApplication, []byte("body"))
		if c.change != nil {
			c.change(f)
		}
		wire := a.wire(f)
		if c.after != nil {
			c.after(wire)
		}
		a.write(wire)
		answers := a.sync()
		if n := r.droppedFor(c.reason) - before; n != 1 {
			t.Errorf("%s: %d frames counted as %v", c.name, n, c.reason)
		}
		checkNotice(t, c.name, answers, c.notice, codec.Raw(wire))
	}
	for _, c := range []*client{b, foreign} {
		if others := c.sync(); len(others) != 0 {
			t.Errorf("%s got %d frames", c.id.Peer.Name, len(others))
		}
	}
}

func checkNotice(t *testing.T, name string, answers []codec.Raw, want codec.NoticeReason, about codec.Raw) {
	t.Helper()
	if want == 0 {
		if len(answers) != 0 {
			t.Errorf("%s: %d frames came back", name, len(answers))
		}
		return
	}
	if len(answers) != 1 || answers[0].Category() != codec.CategoryNotice {
		t.Errorf("%s: %d frames came back, want one notice", name, len(answers))
		return
	}
	n, err := codec.DecodeNotice(answers[0].Body())
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if n.Reason != want || n.Recipient != about.Recipient() || len(n.Frames) != 1 ||
		n.Frames[0].Digest != about.Digest() || n.Frames[0].SendTime != about.SendTime() {
		t.Errorf("%s: notice %+v", name, n)
	}
}

func TestWhatBreaksTheProtocolClosesTheConnection(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	keepAlive := must(codec.AppendControl(nil, &codec.KeepAlive{}))
	for _, c := range []struct {
		name  string
		bytes func(c *client) []byte
	}{
		{"encrypted flag 2", func(c *client) []byte {
			w := c.wire(c.frame(c.id.Peer.Address, 64, nil))
			w[50] = 2
			return w
		}},
		{"body too long", func(c *client) []byte {
			w := c.wire(c.frame(c.id.Peer.Address, 64, nil))
			return append(w[:51], 0, 0x10, 0, 1)
		}},
		{"signature too long", func(c *client) []byte {
			w := c.wire(c.frame(c.id.Peer.Address, 64, nil))
			return append(w[:55], 0, 0, 2, 1)
		}},
		{"control from another's address", func(c *client) []byte {
			f := c.frame(c.router, codec.CategoryControl, keepAlive)
			f.Sender[15] ^= 1
			return c.wire(f)
		}},
		{"control for another", func(c *client) []byte {
			f := c.frame(c.id.Peer.Address, codec.CategoryControl, keepAlive)
			return c.wire(f)
		}},
		{"control that is no CBOR", func(c *client) []byte {
			return c.wire(c.frame(c.router, codec.CategoryControl, []byte("hello")))
		}},
		{"control with a bad signature", func(c *client) []byte {
			w := c.wire(c.frame(c.router, codec.CategoryControl, keepAlive))
			w[len(w)-1] ^= 1
			return w
		}},
		{"a second hello", func(c *client) []byte {
			return c.wire(c.frame(c.router, codec.CategoryControl, must(codec.AppendControl(nil, testHello()))))
		}},
		{"a message that only routers send", func(c *client) []byte {
			return c.wire(c.frame(c.router, codec.CategoryControl, must(codec.AppendControl(nil, &codec.Names{}))))
		}},
	} {
		cl := connect(t, addr, d.node("a"))
		cl.write(c.bytes(cl))
		g := cl.ended()
		if malformed := g == nil; malformed != (r.link.Stats().Malformed > 0) && malformed {
			t.Errorf("%s: closed without goodbye, and not counted as malformed", c.name)
		}
		if g != nil && (g.Reason != codec.GoodbyeProtocol || g.Text == "") {
			t.Errorf("%s: goodbye %+v", c.name, g)
		}
	}
	if n := r.link.Stats().Malformed; n != 3 {
		t.Errorf("%d connections counted as malformed, want 3", n)
	}
}

func TestHelloIsCheckedBeforeAnythingElse(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, func(c *Config) { c.VersionCutoff, c.HelloTimeout = "1.5.0", patience }, d)
	_, hasty := startRouter(t, func(c *Config) { c.HelloTimeout = 100 * time.Millisecond }, d)
	hello := func(change func(*codec.Hello)) func(c *client) []byte {
		return func(c *client) []byte {
			h := testHello()
			h.Software = "test/1.6.0"
			change(h)
			return c.wire(c.frame(c.router, codec.CategoryControl, must(codec.AppendControl(nil, h))))
		}
	}
	for _, c := range []struct {
		name   string
		addr   string
		bytes  func(c *client) []byte
		reason codec.GoodbyeReason
		text   string
	}{
		{"nothing", hasty, func(*client) []byte { return nil }, codec.GoodbyeProtocol, "no hello came in time"},
		{"a frame", addr, func(c *client) []byte { return c.wire(c.frame(c.id.Peer.Address, 64, nil)) }, codec.GoodbyeProtocol, "before hello"},
		{"a keep-alive", addr, func(c *client) []byte {
			return c.wire(c.frame(c.router, codec.CategoryControl, must(codec.AppendControl(nil, &codec.KeepAlive{}))))
		}, codec.GoodbyeProtocol, "hello must come first"},
		{"protocol version 2", addr, hello(func(h *codec.Hello) { h.Version = 2 }), codec.GoodbyeVersion, "version 2"},
		{"role router", addr, hello(func(h *codec.Hello) { h.Role = codec.RoleRouter }), codec.GoodbyeRole, "router"},
		{"old software", addr, hello(func(h *codec.Hello) { h.Software = "test/1.4.9" }), codec.GoodbyeVersion, "1.5.0"},
		{"a clock ten minutes ahead", addr, func(c *client) []byte {
			f := c.frame(c.router, codec.CategoryControl, must(codec.AppendControl(nil, testHello())))
			f.SendTime += uint64(10 * time.Minute)
			return c.wire(f)
		}, codec.GoodbyeClock, "your clock says"},
	} {
		id := d.node("a")
		cl, err := dial(t, c.addr, id, clientTLS(id))
		if err != nil {
			t.Fatal(err)
		}
		if b := c.bytes(cl); b != nil {
			cl.write(b)
		}
		g := cl.ended()
		if g == nil || g.Reason != c.reason || !strings.Contains(g.Text, c.text) {
			t.Errorf("%s: goodbye %+v, want %v and %q", c.name, g, c.reason, c.text)
		}
	}
}

func TestHandshakesThatMustFail(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("lab.example")
	foreign := newAuthority("prod.example") // same name, another root
	r, addr := startRouter(t, func(c *Config) { c.HandshakeTimeout = patience }, d, other)
	hasty, _ := startRouter(t, func(c *Config) { c.HandshakeTimeout = 300 * time.Millisecond }, d)
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	asNode := func(a *authority, role pki.Role, validity time.Duration) tls.Certificate {
		return tls.Certificate{Certificate: a.chain(role, "x", key.Public(), validity), PrivateKey: key}
	}
	for _, c := range []struct {
		name, reason string
		change       func(c *tls.Config)
	}{
		{"no client certificate", "no-certificate", func(c *tls.Config) { c.Certificates = nil }},
		{"TLS 1.2", "version", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }},
		{"no ALPN", "no-alpn", func(c *tls.Config) { c.NextProtos = nil }},
		{"another ALPN", "no-alpn", func(c *tls.Config) { c.NextProtos = []string{"h2"} }},
		{"unknown SNI", "unknown-name", func(c *tls.Config) { c.ServerName = "nowhere.example" }},
		{"no SNI", "unknown-name", func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true }},
		{"expired certificate", "expired", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{forge(d, func(l *x509.Certificate) { l.NotAfter = time.Now().Add(-time.Minute) })}
		}},
		{"foreign root of the same name", "unknown-root", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{asNode(foreign, pki.RoleNode, time.Hour)}
		}},
		{"certificate of another domain", "unknown-root", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{asNode(other, pki.RoleNode, time.Hour)}
		}},
		{"address outside the domain's prefix", "wrong-prefix", func(c *tls.Config) {
			elsewhere := must(pki.NewAddress("lab.example", 0, rand.Reader))
			c.Certificates = []tls.Certificate{forge(d, func(l *x509.Certificate) { l.IPAddresses = []net.IP{elsewhere[:]} })}
		}},
	} {
		before := r.refused.counts()[c.reason]
		id := d.node("a")
		conf := clientTLS(id)
		c.change(conf)
		if cl, err := dial(t, addr, id, conf); err == nil {
			cl.conn.Write(cl.wire(cl.frame(cl.router, codec.CategoryControl, must(codec.AppendControl(nil, testHello())))))
			if f, err := cl.read(); err == nil {
				t.Errorf("%s: the router answered with category %v", c.name, f.Category())
			}
		}
		waitFor(t, c.name+" counted as "+c.reason+fmt.Sprint(r.refused.counts()), func() bool { return r.refused.counts()[c.reason] == before+1 })
	}
	for _, c := range []struct {
		r                  *Router
		name, reason, send string
	}{
		{r, "plain text on the port", "not-tls", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
		{hasty, "a handshake that never ends", "timeout", "\x16\x03\x01\x02\x00\x01"},
		{hasty, "nothing at all", "timeout", ""},
	} {
		before := c.r.refused.counts()[c.reason]
		raw, err := net.Dial("tcp", c.r.listeners[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		raw.Write([]byte(c.send))
		waitFor(t, c.name+" counted as "+c.reason, func() bool { return c.r.refused.counts()[c.reason] == before+1 })
	}
	if c := connect(t, addr, d.node("good")); len(c.sync()) != 0 {
		t.Error("a good node got frames out of nowhere")
	}
}

func TestP256NodesAreServed(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.nodeWith("a", pki.KeyP256))
	if _, ok := a.id.Key.Public().(*ecdsa.PublicKey); !ok {
		t.Fatal("not a P-256 key")
	}
	a.send(a.frame(a.id.Peer.Address, 64, []byte("x")))
	if got := a.next(); string(got.Body()) != "x" {
		t.Errorf("%q", got.Body())
	}
}

func TestTheNewerConnectionOfAnAddressReplacesTheOlder(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	id := d.node("a")
	older, sender := connect(t, addr, id), connect(t, addr, d.node("b"))
	newer := connect(t, addr, id)
	if g := older.ended(); g == nil || g.Reason != codec.GoodbyeReplaced {
		t.Errorf("goodbye %+v", g)
	}
	sender.send(sender.frame(id.Peer.Address, 64, []byte("for the newer")))
	if got := newer.next(); string(got.Body()) != "for the newer" {
		t.Errorf("%q", got.Body())
	}
	if r.table.Len() != 2 {
		t.Errorf("%d addresses", r.table.Len())
	}
}

// A connection that is not in the table yet, since frames that wait for its address
// are on their way to it, does not replace one that has come after it and is.
func TestTheNewerConnectionWinsAlsoWhenItEntersFirst(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	id := d.node("a")
	older, sender := connect(t, addr, id), connect(t, addr, d.node("b"))
	first, _ := r.lookup(id.Peer.Address)
	r.table.Clear(id.Peer.Address, tableValue(first)) // as long as enterAfter has it wait
	newer := connect(t, addr, id)
	newer.sync()
	entered := make(chan struct{})
	r.onPeer(first, func(p *peer) { p.enter(); close(entered) })
	<-entered
	if g := older.ended(); g == nil || g.Reason != codec.GoodbyeReplaced {
		t.Errorf("goodbye %+v", g)
	}
	sender.send(sender.frame(id.Peer.Address, 64, []byte("for the newer")))
	if got := newer.next(); string(got.Body()) != "for the newer" {
		t.Errorf("%q", got.Body())
	}
	if n := r.replaced.count.Load(); n != 1 || r.table.Len() != 2 {
		t.Errorf("%d replaced, %d addresses", n, r.table.Len())
	}
}

func TestBadSignaturesHaveABudget(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, func(c *Config) { c.BadSignatures = 5 }, d)
	a := connect(t, addr, d.node("a"))
	for range 6 {
		w := a.wire(a.frame(a.id.Peer.Address, 64, nil))
		w[len(w)-1] ^= 1
		a.write(w)
	}
	if g := a.ended(); g == nil || g.Reason != codec.GoodbyeBadSignatures {
		t.Errorf("goodbye %+v", g)
	}
}

func TestGoodbyeIsAnsweredByGoodbye(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	a.send(a.frame(a.id.Peer.Address, 64, nil))
	a.next()
	a.say(&codec.Goodbye{Reason: codec.GoodbyeDone, ReadFor: time.Second})
	if g := a.ended(); g == nil || g.Reason != codec.GoodbyeDone || g.Received != 1 {
		t.Errorf("goodbye %+v", g)
	}
	waitFor(t, "the address is gone", func() bool { return r.table.Len() == 0 })
}

// A node that leaves right after sending has its frames delivered: they were
// accepted.
func TestFramesOutliveTheirSendersConnection(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	const frames = 100
	var all []byte
	for n := range frames {
		all = append(all, a.wire(a.frame(b.id.Peer.Address, 64, fmt.Appendf(nil, "%d", n)))...)
	}
	a.write(all)
	a.conn.Close()
	for n := range frames {
		if got := string(b.next().Body()); got != fmt.Sprint(n) {
			t.Fatalf("frame %s came as number %d", got, n)
		}
	}
	waitFor(t, "the sender is gone", func() bool { return r.table.Len() == 1 })
}
