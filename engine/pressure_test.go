package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
)

// Frames that wait for verdicts are bounded in bytes, not only in number.
func TestFramesThatWaitForVerdictsAreBoundedInBytes(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.VerifyWorkers = 1 }, d)
	const clients = 4
	var writers sync.WaitGroup
	for n := range clients {
		c := connect(t, addr, d.node(string(rune('a'+n))))
		to := codec.Address(c.id.Peer.Address)
		to[15] ^= 1
		wire := c.wire(c.frame(to, codec.CategoryApplication, make([]byte, 1<<20)))
		writers.Go(func() {
			for range 60 {
				c.stay()
				if _, err := c.conn.Write(wire); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	peak := int64(0)
	for busy := true; busy; {
		select {
		case <-done:
			busy = false
		case <-time.After(time.Millisecond):
			peak = max(peak, buf.Out().Bytes)
		}
	}
	waitFor(t, "all frames are decided on", func() bool { return r.Counts().InFlight == 0 })
	// A ring over its bound, a frame cut beyond it, a half-received one; each in
	// a buffer of twice its size.
	if most := int64(clients * 3 * (2 << 20)); peak > most {
		t.Errorf("%d MiB of frame memory for %d senders of 1 MiB frames, at most %d", peak>>20, clients, most>>20)
	}
}

func TestARecipientsBodyLimitIsKept(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	id := d.node("small")
	b := must(dial(t, addr, id, clientTLS(id)))
	h := testHello()
	h.BodyMax = 1000
	b.say(h)
	b.control()
	f := a.frame(id.Peer.Address, codec.CategoryApplication, make([]byte, 1001))
	wire := a.wire(f)
	a.write(wire)
	checkNotice(t, "1001 bytes for 1000", a.sync(), codec.NoticeTooLarge, codec.Raw(wire))
	a.send(a.frame(id.Peer.Address, codec.CategoryApplication, make([]byte, 1000)))
	if n := len(b.next().Body()); n != 1000 {
		t.Errorf("%d bytes came", n)
	}
	if n := r.droppedFor(dropTooLarge); n != 1 {
		t.Errorf("%d frames counted as too large", n)
	}
}

// A keep-alive's answer covers what came before it, no more, and comes after
// the notices about that.
func TestReceivedCoversWhatIsDecided(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	nobody := codec.Address(a.id.Peer.Address)
	nobody[15] ^= 1
	var all []byte
	for range 3 {
		all = append(all, a.wire(a.frame(nobody, codec.CategoryApplication, nil))...)
	}
	all = append(all, a.wire(a.controlFrame(&codec.KeepAlive{Answer: true}))...)
	for range 5 {
		all = append(all, a.wire(a.frame(nobody, codec.CategoryApplication, nil))...)
	}
	a.write(all)
	told := 0
	for {
		f := must(a.read())
		if f.Category() == codec.CategoryNotice {
			told += len(must(codec.DecodeNotice(f.Body())).Frames)
			continue
		}
		if k, ok := must(codec.DecodeControl(f.Body())).(*codec.KeepAlive); !ok || k.Received != 3 || told != 3 {
			t.Errorf("%+v came after notices about %d frames, want 3 and 3", k, told)
		}
		break
	}
}

func TestImpossibleReceivedAndForeignCertificateIDsClose(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	for _, c := range []struct {
		name string
		do   func(c *client)
	}{
		{"more than was sent", func(c *client) { c.say(&codec.KeepAlive{Received: 1 << 40}) }},
		{"less than before", func(c *client) {
			c.say(&codec.KeepAlive{Received: 1}) // the router's hello is one frame
			c.say(&codec.KeepAlive{})
		}},
		{"another certificate ID", func(c *client) {
			f := c.controlFrame(&codec.KeepAlive{})
			f.CertID[0] ^= 1
			c.send(f)
		}},
	} {
		cl := connect(t, addr, d.node("a"))
		c.do(cl)
		if g := cl.ended(); g == nil || g.Reason != codec.GoodbyeProtocol {
			t.Errorf("%s: goodbye %+v", c.name, g)
		}
	}
}

// What waited for a connection that is replaced goes to the newer one at once.
func TestTheQueueMovesToTheNewerConnection(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, func(c *Config) { c.QueueHigh = 64 << 20 }, d) // none is dropped
	a := connect(t, addr, d.node("a"))
	id := d.node("b")
	older := connect(t, addr, id)
	older.conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	const frames, size = 3000, 8000 // more than kernels buffer
	for n := range frames {
		body := make([]byte, size)
		binary.BigEndian.PutUint32(body, uint32(n))
		a.send(a.frame(id.Peer.Address, codec.CategoryApplication, body))
	}
	a.sync()
	newer := connect(t, addr, id)
	// What the kernel and TLS hold for the older is gone with it; a frame that is
	// sealed in part comes when its connection has been given up.
	seen := map[uint32]bool{}
	for !seen[frames-1] {
		n := binary.BigEndian.Uint32(newer.next().Body())
		if seen[n] {
			t.Fatalf("frame %d came twice", n)
		}
		seen[n] = true
	}
	if len(seen) < frames/20 {
		t.Errorf("%d of %d frames moved", len(seen), frames)
	}
	older.conn.NetConn().Close()
}

func TestACertificateLargerThanAControlBodyIsRefused(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	id := d.node("a")
	c := clientTLS(id)
	c.Certificates = []tls.Certificate{forge(d, func(l *x509.Certificate) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{
			Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, 66_000),
		})
	})}
	if cl, err := dial(t, addr, id, c); err == nil {
		if _, err := cl.read(); err == nil {
			t.Error("served")
		}
	}
	waitFor(t, "it is refused as malformed", func() bool { return r.refused.counts()["malformed"] == 1 })
}

// RFC 5280 section 4.1.2.5: 99991231235959Z says that a certificate has no end.
func TestCertificatesWithoutAnEndAreGood(t *testing.T) {
	d := newAuthority("prod.example")
	leaf := must(x509.ParseCertificate(forge(d, func(l *x509.Certificate) {
		l.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}).Certificate[0]))
	id := *d.node("a").Peer
	id.NotBefore, id.NotAfter = leaf.NotBefore, leaf.NotAfter
	c, now := newAnnounced(&id, nil), time.Now()
	for _, x := range []struct {
		sent time.Time
		want bool
	}{{now, true}, {now.Add(59 * time.Second), true}, {now.Add(61 * time.Second), false}, {now.Add(-61 * time.Second), false}} {
		f := must((&codec.Frame{CertID: id.CertID, SendTime: uint64(x.sent.UnixNano()), Signature: []byte{1}}).Append(nil))
		if got := c.timely(f, now, time.Minute); got != x.want {
			t.Errorf("sent %v from now: timely %v", x.sent.Sub(now), got)
		}
	}
}

func TestAnExpiredGrantEndsConnections(t *testing.T) {
	t.Parallel() // it waits for the end of the grant
	d := newAuthority("prod.example")
	_, addr := startRouter(t, func(c *Config) {
		c.Identity.Grants["prod.example"] = d.verified(d.chain(pki.RoleRouter, "edge-1", c.Identity.Key.Public(), 6*time.Second))
	}, d)
	g := connect(t, addr, d.node("a")).ended()
	if g == nil || g.Reason != codec.GoodbyeExpired || !strings.Contains(g.Text, "grant") {
		t.Errorf("goodbye %+v", g)
	}
}

func TestCloseTellsThatFramesWereCutShort(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	id := d.node("b")
	b := connect(t, addr, id)
	b.conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	for range 1100 {
		a.send(a.frame(id.Peer.Address, codec.CategoryApplication, make([]byte, 8_000)))
	}
	a.sync()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.close(ctx); err == nil {
		t.Error("no error, though a node did not read")
	}
	checkBalance(t, r)
	if r.droppedFor(dropRecipientGone) == 0 {
		t.Error("nothing was cut short")
	}
	r.closeOnce.Do(func() {}) // startRouter's Close has nothing to do
}

func TestConfigThatCannotWorkIsRefused(t *testing.T) {
	d := newAuthority("prod.example")
	for name, change := range map[string]func(*Config){
		"long software":       func(c *Config) { c.Software = "causeway/" + strings.Repeat("1", 60) },
		"long version cutoff": func(c *Config) { c.VersionCutoff = "1.0.0-" + strings.Repeat("a", 400) },
		"negative skew":       func(c *Config) { c.SkewMax = -time.Second },
		"no identity":         func(c *Config) { c.Identity = nil },
		"body above 16 MiB":   func(c *Config) { c.BodyMax = 16<<20 + 1 },
		"low mark above high": func(c *Config) { c.QueueHigh, c.QueueLow = 10, 20 },
		"dead before alive":   func(c *Config) { c.KeepAlive, c.DeadAfter = time.Minute, time.Minute },
		"TTL 1":               func(c *Config) { c.TTLMax = 1 },
		"cores for no loops":  func(c *Config) { c.CPUs = []int{0, 1, 2} },
	} {
		c := Config{Identity: routerOf("edge-1", d), Store: storeOf(d), Software: "causeway/0.0.1", Loops: 1}
		change(&c)
		if r, err := Start(c); err == nil {
			t.Errorf("%s: started", name)
			r.Close(t.Context())
		}
	}
}

// With no time to pause, who sends to a full queue is never kept waiting.
func TestWithoutPausesFramesAreDroppedAtOnce(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.QueueHigh, c.PauseMax = 64<<10, -1 }, d)
	a, deaf := connect(t, addr, d.node("a")), connect(t, addr, d.node("deaf"))
	for r.droppedFor(dropQueueFull) == 0 {
		a.send(a.frame(deaf.id.Peer.Address, codec.CategoryApplication, make([]byte, 8000)))
	}
	if n := r.sumUint(func(c *counters) uint64 { return c.paused.Load() }); n != 0 {
		t.Errorf("paused %d times", n)
	}
	if changes := reload(t, r, func(c *Config) { c.PauseMax = time.Second }); !has(changes, "pause-max: 0s → 1s") {
		t.Errorf("changes: %v", changes)
	}
}

// A recipient that does not read is disconnected, and its senders are told of
// every frame that it was not sent, and of every one that it has not said to
// have received: sent = delivered + noticed + unconfirmed.
func TestAStalledRecipientIsDisconnectedAndItsSendersTold(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.StallTimeout, c.QueueHigh = 500*time.Millisecond, 64<<20 }, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	const frames, read = 2000, 20
	for n := range frames {
		if n == read {
			b.sync() // says what it has received, and reads no more
		}
		a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 8000)))
		if n < read {
			b.next()
		}
	}
	told := map[codec.NoticeReason]uint64{}
	listen := func() { // the slower this machine, the earlier notices come
		for _, f := range a.sync() {
			n := must(codec.DecodeNotice(f.Body()))
			told[n.Reason] += uint64(len(n.Frames)) + n.More
		}
	}
	listen()
	waitFor(t, "the recipient is gone", func() bool { return r.table.Len() == 1 })
	waitFor(t, "its queue is dissolved", func() bool { return r.Counts().InFlight == 0 })
	waitFor(t, "the sender has been told", func() bool {
		listen()
		sum := uint64(0)
		for _, n := range told {
			sum += n
		}
		return sum == frames-read
	})
	c := r.Counts()
	if c.Forwarded+c.DroppedSum() != frames || c.Unconfirmed != c.Forwarded-read || told[codec.NoticeUnconfirmed] != c.Unconfirmed ||
		told[codec.NoticeRecipientGone]+told[codec.NoticeNoRoute] != c.DroppedSum() || c.DroppedSum() < frames/10 {
		t.Errorf("%d sent, %d read: %d forwarded, of these %d unconfirmed, dropped %v; told %v", frames, read, c.Forwarded, c.Unconfirmed, c.Dropped, told)
	}
	if n := r.sumUint(func(c *counters) uint64 { return c.unnoticed.Load() }); n != 0 {
		t.Errorf("%d frames without a notice", n)
	}
}

func (r *Router) sumUint(field func(*counters) uint64) (n uint64) {
	for _, l := range r.loops {
		n += field(&l.count)
	}
	return n
}

// Many half-sent frames are bounded in all, and the connection that goes slowly
// pays, not the one that sends well.
func TestHalfReceivedFramesAreBoundedInAll(t *testing.T) {
	d := newAuthority("prod.example")
	const most = 4 << 20
	r, addr := startRouter(t, func(c *Config) { c.PartialMax = most }, d)
	a := connect(t, addr, d.node("good"))
	for n := range 20 {
		c := connect(t, addr, d.node("slow-"+string(rune('a'+n))))
		wire := c.wire(c.frame(a.id.Peer.Address, codec.CategoryApplication, make([]byte, 1<<20)))
		c.write(wire[:600<<10])
		a.send(a.frame(a.id.Peer.Address, codec.CategoryApplication, make([]byte, 64<<10))) // in one go
		a.next()
	}
	waitFor(t, "most of the slow ones are gone", func() bool { return r.link.Stats().PartialEnded >= 12 })
	if n := r.link.Stats().PartialBytes; n > most {
		t.Errorf("%d bytes of half-received frames, at most %d", n, most)
	}
	if others := a.sync(); len(others) != 0 {
		t.Errorf("%d frames out of nowhere", len(others))
	}
}
