package node

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// What waits for a way goes by the recipient's own connection when there is one.
func TestSendGoesToWhoConnectsMeanwhile(t *testing.T) {
	for _, plain := range []bool{false, true} {
		d := newDomain("prod.example")
		b, url := listener(t, d.node("b"), func(c *Config) { c.Plain = plain })
		id := d.node("a")
		sent := make(chan error, 1)
		go func() {
			_, err := b.Send(patient(t), id.Peer.Address, codec.CategoryApplication, []byte("early"))
			sent <- err
		}()
		until(t, "Send waits", func() bool {
			b.out.mu.Lock()
			defer b.out.mu.Unlock()
			return b.out.waiters.Len() == 1
		})
		a := direct(t, id, url, func(c *Config) { c.AcceptPlain = true })
		if m, err := a.Receive(patient(t)); err != nil || string(m.Body) != "early" {
			t.Errorf("plain %t: received %q, %v", plain, m.Body, err)
		}
		if err := <-sent; err != nil {
			t.Errorf("plain %t: %v", plain, err)
		}
	}
}

// renewedTo announces the certificate on a connection that the test drives.
func renewedTo(s *sender, next *pki.Identity, to codec.Address) codec.Raw {
	return s.frame(to, codec.CategoryControl, must(codec.AppendControl(nil, &codec.Renewal{Chain: next.Peer.Chain, Proof: []byte{}})))
}

// onlyPeer returns the one connection, once it is there under that certificate.
func onlyPeer(t *testing.T, n *Node, id *pki.Identity) (c *conn) {
	t.Helper()
	until(t, "the peer is there", func() bool {
		all := n.peers.all()
		if len(all) != 1 || all[0].newest.Load().CertID != id.Peer.CertID {
			return false
		}
		c = all[0]
		return true
	})
	return c
}

// The newest certificate counts, also when that of the handshake has ended.
func TestRevokedAfterRenewal(t *testing.T) {
	for _, ended := range []bool{false, true} {
		d := newDomain("prod.example")
		var ahead atomic.Int64
		b, url := listener(t, d.node("b"), func(c *Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		first := d.nodeOf("a", pki.KeyEd25519, time.Minute, 2*time.Minute)
		a := direct(t, first, url)
		next := d.renewed(first)
		if err := a.Renew(next); err != nil {
			t.Fatal(err)
		}
		c := onlyPeer(t, b, next)
		if ended {
			ahead.Store(int64(10 * time.Minute))
		}
		if !b.applyList(d.list(1, next.Peer)) {
			t.Fatal("the list was not taken")
		}
		select {
		case <-c.ended:
		case <-time.After(listenPatience):
			t.Errorf("ended %t: the connection goes on", ended)
		}
		checkError[*RouterCertificateError](t, c.cause(), "revoked")
	}
}

// A certificate that was announced and then revoked is not learnt again.
func TestRevokedCertificateIsNotLearntAgain(t *testing.T) {
	d := newDomain("prod.example")
	var ahead atomic.Int64
	b, url := listener(t, d.node("b"), func(c *Config) {
		c.AcceptPlain = true
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	first := d.node("a")
	next := d.renewed(first)
	older, newer := newSender(first.Peer, first.Key), newSender(next.Peer, next.Key)
	conn := greeted(t, first, url, b.Address())
	if _, err := conn.Write(renewedTo(older, next, b.Address())); err != nil {
		t.Fatal(err)
	}
	onlyPeer(t, b, next)
	if !b.applyList(d.list(1, first.Peer)) {
		t.Fatal("the list was not taken")
	}
	ahead.Store(int64(certsRefusedFor + time.Second))
	for _, frame := range []codec.Raw{
		older.frame(b.Address(), codec.CategoryApplication, []byte("revoked")),
		newer.frame(b.Address(), codec.CategoryApplication, []byte("good")),
	} {
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := b.Receive(patient(t)); err != nil || string(m.Body) != "good" {
		t.Errorf("received %q, %v", m.Body, err)
	}
	if got := b.Stats().Dropped["unknown-certificate"]; got != 1 {
		t.Errorf("dropped %d of the revoked certificate, want 1", got)
	}
}

// Who is revoked between its handshake and its hello is refused.
func TestRevokedBeforeItsHello(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.HelloTimeout = listenPatience })
	id := d.node("a")
	conn := knock(t, id, url, nil)
	hello := helloOf(id, b.Address(), codec.RoleNode)
	if _, err := conn.Write(hello[:10]); err != nil {
		t.Fatal(err)
	}
	until(t, "TLS is done", func() bool { return b.Stats().BytesIn > 0 })
	if !b.applyList(d.list(1, id.Peer)) {
		t.Fatal("the list was not taken")
	}
	if _, err := conn.Write(hello[10:]); err != nil {
		t.Fatal(err)
	}
	if g := lastWord(t, conn); g == nil || g.Reason != codec.GoodbyeRevoked {
		t.Errorf("the last word was %+v", g)
	}
	until(t, "it is refused", func() bool { return b.Stats().AcceptFailed == 1 })
	if s := b.Stats(); s.Accepted != 0 || s.Peers != 0 {
		t.Errorf("stats %+v", s)
	}
}

// What others bring in a peer's name does not hold up what it says itself.
func TestPeersDoNotWaitForParkedFrames(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.AcceptPlain = true })
	id := d.node("a")
	a := direct(t, id, url, func(c *Config) { c.Plain = true })
	passes(t, a, b, "before")
	madeUp := newSender(d.renewed(id).Peer, id.Key)
	b.in.mu.Lock()
	parked := b.in.certs.park(madeUp.frame(b.Address(), codec.CategoryApplication, []byte("made up")), time.Now())
	b.in.mu.Unlock()
	if !parked {
		t.Fatal("there is no room")
	}
	passes(t, a, b, "after")
}

// A peer has a budget of bad signatures.
func TestBadSignaturesOfPeersEndTheConnection(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.AcceptPlain = true })
	id := d.node("a")
	s := newSender(id.Peer, id.Key)
	conn := greeted(t, id, url, b.Address())
	for i := range badSignaturesMax + 1 {
		if i == badSignaturesMax { // until then the connection goes on
			if _, err := conn.Write(s.frame(b.Address(), codec.CategoryApplication, []byte("good"))); err != nil {
				t.Fatal(err)
			}
			if m, err := b.Receive(patient(t)); err != nil || string(m.Body) != "good" {
				t.Fatalf("received %q, %v", m.Body, err)
			}
		}
		bad := s.frame(b.Address(), codec.CategoryApplication, []byte("bad"))
		bad[len(bad)-1] ^= 1
		if _, err := conn.Write(bad); err != nil {
			t.Fatal(err)
		}
	}
	if g := lastWord(t, conn); g == nil || g.Reason != codec.GoodbyeBadSignatures {
		t.Errorf("the last word was %+v", g)
	}
	if got := b.Stats().Dropped["bad-signature"]; got != badSignaturesMax+1 {
		t.Errorf("dropped %d, want %d", got, badSignaturesMax+1)
	}
}

// A frame may be signed under a renewal that the peer's queue is not told of yet.
func TestRenewalReachesThePeersQueueLater(t *testing.T) {
	d := newDomain("prod.example")
	id := d.node("b")
	b, url := listener(t, id, func(c *Config) { c.Plain = true })
	a := direct(t, d.node("a"), url, func(c *Config) { c.AcceptPlain = true })
	passes(t, b, a, "before")
	if err := b.out.renew(must(newSelf(d.renewed(id)))); err != nil { // Renew, until it comes to the peers
		t.Fatal(err)
	}
	passes(t, b, a, "between")
	b.peers.renew(b.out)
	passes(t, b, a, "after")
}

// Connections that leave are counted too.
func TestLeavingPeersAreBounded(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"))
	live := func(more int) int {
		b.peers.mu.Lock()
		defer b.peers.mu.Unlock()
		b.peers.live += more
		return b.peers.live
	}
	id := d.node("a")
	live(b.peers.max + handshakesMax)
	_, err := Connect(patient(t), Config{Identity: id, Direct: url})
	if g := checkError[*GoodbyeError](t, err); g.Reason != codec.GoodbyeLimit {
		t.Errorf("goodbye %v", g.Reason)
	}
	live(-1)
	a := direct(t, id, url)
	passes(t, a, b, "the last one")
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	until(t, "a has gone", func() bool { return live(0) == b.peers.max+handshakesMax-1 })
}

// Before its hello a peer has the room of link control, and after it the whole.
func TestBodiesBeforeTheHelloAreSmall(t *testing.T) {
	d := newDomain("prod.example")
	b, url := listener(t, d.node("b"), func(c *Config) { c.HelloTimeout, c.AcceptPlain = 2*listenPatience, true })
	id := d.node("a")
	conn := knock(t, id, url, nil)
	large := newSender(id.Peer, id.Key).frame(b.Address(), codec.CategoryApplication, make([]byte, codec.ControlBodyMax+1))
	if _, err := conn.Write(large[:codec.HeaderSize]); err != nil {
		t.Fatal(err)
	}
	until(t, "it is refused", func() bool { return b.Stats().AcceptFailed == 1 })
	a := direct(t, d.node("other"), url, func(c *Config) { c.Plain = true })
	passes(t, a, b, strings.Repeat("x", codec.ControlBodyMax+1))
}
