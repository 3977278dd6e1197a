package node

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// sealing has a node neither send nor take plain messages: the default.
func sealing(c *Config) { c.Plain, c.AcceptPlain = false, false }

// tapped keeps what passes the router, of each category.
type tapped struct {
	mu     sync.Mutex
	frames []codec.Raw
}

// tap has the router keep a copy of each frame. Of is what it has of a category.
func (w *world) tap() *tapped {
	t := &tapped{}
	w.r.intercept = func(_ *routerConn, f codec.Raw) bool { t.take(f); return false }
	return t
}

// take keeps a copy of a frame.
func (t *tapped) take(f codec.Raw) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frames = append(t.frames, bytes.Clone(f))
}

// all returns what it has, and from then on it has nothing.
func (t *tapped) all() []codec.Raw {
	t.mu.Lock()
	defer t.mu.Unlock()
	frames := t.frames
	t.frames = nil
	return frames
}

func (t *tapped) of(c codec.Category) (all []codec.Raw) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.frames {
		if f.Category() == c {
			all = append(all, f)
		}
	}
	return all
}

// sessionWith returns what n shows of its sessions with that address.
func sessionWith(t *testing.T, n *Node, a codec.Address) Session {
	t.Helper()
	for _, s := range n.Sessions() {
		if s.Address == a {
			return s
		}
	}
	t.Fatalf("no member %s among %+v", a, n.Sessions())
	return Session{}
}

func TestMessagesAreSealedUnlessToldOtherwise(t *testing.T) {
	for _, keyType := range []pki.KeyType{pki.KeyEd25519, pki.KeyP256} {
		inWorld(t, func(w *world) {
			tap := w.tap()
			a := w.connect("a", sealing, func(c *Config) { c.Identity = w.d.nodeOf("a", keyType, time.Minute, time.Hour) })
			b := w.connect("b", sealing)
			s := w.send(a, b.Address(), "a secret of sixteen bytes and more")
			if err := s.Confirmed(w.ctx()); err != nil {
				t.Fatal(err)
			}
			m := w.receives(b, "a secret of sixteen bytes and more")
			if !m.Sealed || m.From != a.Address() || m.FromName != "a" || m.SendTime != s.SendTime || m.Digest != s.Digest || m.Category != app {
				t.Errorf("message %+v does not fit %+v", m, s)
			}
			if err := s.Seen(w.ctx()); err != nil {
				t.Errorf("Seen: %v", err)
			}
			w.send(b, a.Address(), "an answer of more than sixteen bytes")
			w.receives(a, "an answer of more than sixteen bytes")
			if got := tap.of(app); len(got) != 2 || !got[0].Encrypted() || !got[1].Encrypted() || len(got[0].Body()) != 32+34 {
				t.Errorf("%d frames of messages passed: %v", len(got), got)
			}
			for _, f := range tap.all() {
				if bytes.Contains(f, []byte("of sixteen")) || bytes.Contains(f, []byte("more than sixteen")) {
					t.Errorf("a body passed in a frame of category %v", f.Category())
				}
			}
			w.drops(a, nil)
			w.drops(b, nil)
			x, y := sessionWith(t, a, b.Address()), sessionWith(t, b, a.Address())
			if x.Epoch != 1 || y.Epoch != 1 || !x.Initiator || y.Initiator || x.KeyExchange != "X25519+ML-KEM-768" || x.AEAD != y.AEAD || x.AEAD == "" ||
				x.Sent != 1 || x.Received != 1 || y.Sent != 1 || y.Received != 1 || x.Name != "b" || y.Name != "a" {
				t.Errorf("sessions %+v and %+v", x, y)
			}
		})
	}
}

// A node that sends plain messages takes sealed ones; no node answers one kind with
// the other by itself.
func TestNothingFallsBackToPlain(t *testing.T) {
	inWorld(t, func(w *world) {
		tap := w.tap()
		open, closed := w.connect("open"), w.connect("closed", sealing)
		w.send(closed, open.Address(), "sealed")
		if m := w.receives(open, "sealed"); !m.Sealed {
			t.Error("a plain message")
		}
		checkError[*NoticeError](t, w.send(open, closed.Address(), "plain").Seen(w.ctx()), "not-permitted", "--plain")
		w.drops(closed, map[string]uint64{"plain": 1})
		w.receivesNothing(closed)
		w.r.intercept = func(_ *routerConn, f codec.Raw) bool { // sessions do not get through
			tap.take(f)
			return f.Category() == codec.CategorySession
		}
		other := w.connect("other", sealing)
		tap.all()
		_, err := other.Send(w.within(40*time.Second), closed.Address(), app, []byte("never plain"))
		checkError[*WaitError](t, err, "session with", closed.Address().String())
		if got := tap.of(codec.CategorySession); len(got) < 5 || len(tap.of(app)) != 0 {
			t.Errorf("%d handshakes and %d messages", len(got), len(tap.of(app)))
		}
	})
}

func TestDeviceTrafficIsAlwaysSealed(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		if _, err := a.Send(w.ctx(), b.Address(), codec.CategoryDevice, []byte("to a device")); err != nil {
			t.Fatal(err)
		}
		if m := w.receives(b, "to a device"); !m.Sealed || m.Category != codec.CategoryDevice {
			t.Errorf("message %+v", m)
		}
	})
}

func TestSealingNeedsAnotherNode(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a", sealing)
		for _, to := range []codec.Address{a.Address(), w.r.grant.Address} {
			if _, err := a.Send(w.ctx(), to, app, nil); err != errToSelf && err != errToRouter {
				t.Errorf("Send: %v", err)
			}
		}
		if len(a.Sessions()) != 0 {
			t.Errorf("sessions %+v", a.Sessions())
		}
	})
}

func TestLargeAndEmptySealedBodiesArrive(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		large := string(make([]byte, codec.BodyMaxDefault-32))
		for _, body := range []string{"", large, "x", large, ""} {
			w.send(a, b.Address(), body)
			w.receives(b, body)
		}
		_, err := a.Send(w.ctx(), b.Address(), app, append([]byte(large), 1))
		checkError[*BodySizeError](t, err, "1048545", "1048544", "router")
	})
}

// Many senders, both ways, at once: handshakes cross.
func TestCrossingHandshakesMakeOneSession(t *testing.T) {
	const each = 100
	inWorld(t, func(w *world) {
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		var sending sync.WaitGroup
		for _, n := range [][2]*Node{{a, b}, {b, a}} {
			sending.Go(func() {
				for i := range each {
					w.send(n[0], n[1].Address(), fmt.Sprint(i))
				}
			})
		}
		for i := range each {
			w.receives(a, fmt.Sprint(i))
			w.receives(b, fmt.Sprint(i))
		}
		sending.Wait()
		w.receivesNothing(a)
		w.receivesNothing(b)
		time.Sleep(3 * time.Second)
		x, y := sessionWith(t, a, b.Address()), sessionWith(t, b, a.Address())
		if x.Initiator == y.Initiator || x.AEAD != y.AEAD {
			t.Errorf("sessions %+v and %+v", x, y)
		}
		w.send(a, b.Address(), "after")
		w.receives(b, "after")
	})
}

// Who waits for a session with somebody that is not there learns it at once, and so
// do all others that wait; when it has come the next message finds it.
func TestWaitingForASessionEndsWithTheNotice(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a", sealing)
		id := w.d.node("b")
		w.r.intercept = func(*routerConn, codec.Raw) bool {
			time.Sleep(20 * time.Millisecond)
			return false
		}
		var sending sync.WaitGroup
		for range 10 {
			sending.Go(func() {
				start := time.Now()
				_, err := a.Send(w.ctx(), id.Peer.Address, app, []byte("x"))
				e := checkError[*NoticeError](t, err, "no-route")
				if took := time.Since(start); took > 30*time.Millisecond || e.Recipient != id.Peer.Address {
					t.Errorf("after %v: %+v", took, e)
				}
			})
		}
		sending.Wait()
		w.connect("spare", sealing, func(c *Config) { c.Identity = id })
		start := time.Now()
		w.send(a, id.Peer.Address, "x")
		if took := time.Since(start); took > 1100*time.Millisecond {
			t.Errorf("the next message waited for %v", took)
		}
	})
}

// An end that has started anew does not know the session: it resets it, the message
// that was under way is noticed, and the next one goes in a new session.
func TestRestartsOfEitherSide(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a", sealing)
		id := w.d.node("b")
		b := w.connect("spare", sealing, func(c *Config) { c.Identity = id })
		w.send(a, b.Address(), "first")
		w.receives(b, "first")
		b.Close()
		time.Sleep(time.Second) // its clock goes on
		b = w.connect("spare", sealing, func(c *Config) { c.Identity = id })
		lost := w.send(a, b.Address(), "to the one before")
		e := checkError[*NoticeError](t, lost.Seen(w.ctx()), "recipient-gone")
		if e.From != b.Address() {
			t.Errorf("notice %+v", e)
		}
		w.drops(b, map[string]uint64{"session-unknown": 1})
		w.send(a, b.Address(), "second")
		w.receives(b, "second")
		if s := sessionWith(t, a, b.Address()); s.Epoch != 2 {
			t.Errorf("session %+v", s)
		}
		b.Close()
		time.Sleep(time.Second) // its clock goes on
		b = w.connect("spare", sealing, func(c *Config) { c.Identity = id })
		w.send(b, a.Address(), "from the new one") // it is the one that begins
		w.receives(a, "from the new one")
		w.send(a, b.Address(), "third")
		w.receives(b, "third")
		w.receivesNothing(b)
	})
}

// Nothing is lost and nothing comes twice while sessions are renewed, twice.
func TestRenewalUnderTraffic(t *testing.T) {
	inWorld(t, func(w *world) {
		w.r.alive = true
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		w.send(a, b.Address(), "first")
		w.receives(b, "first")
		const count = 2500 // half a second apart
		var sending sync.WaitGroup
		for _, n := range [][2]*Node{{a, b}, {b, a}} {
			sending.Go(func() {
				for i := range count {
					if _, err := n[0].Send(w.ctx(), n[1].Address(), app, fmt.Append(nil, i)); err != nil {
						t.Errorf("message %d: %v", i, err)
						return
					}
					time.Sleep(500 * time.Millisecond)
				}
			})
		}
		for i := range count {
			w.receives(a, fmt.Sprint(i))
			w.receives(b, fmt.Sprint(i))
		}
		sending.Wait()
		w.receivesNothing(a)
		w.receivesNothing(b)
		w.drops(a, nil)
		w.drops(b, nil)
		for _, s := range []Session{sessionWith(t, a, b.Address()), sessionWith(t, b, a.Address())} {
			if s.Epoch != 3 || s.Sent+s.Received != 2*count+1 || s.AgeSeconds > 650 {
				t.Errorf("session %+v", s)
			}
		}
		time.Sleep(40 * time.Minute) // idle ones are forgotten, and with them all keys
		if len(a.Sessions()) != 0 || len(b.Sessions()) != 0 {
			t.Errorf("sessions %+v and %+v", a.Sessions(), b.Sessions())
		}
	})
}

// The keys under which an end received in an old session are gone after 60 s.
func TestOldKeysAreErased(t *testing.T) {
	inWorld(t, func(w *world) {
		w.r.alive = true
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		w.send(a, b.Address(), "x")
		w.receives(b, "x")
		old := func() int { return sessionWith(t, a, b.Address()).Old + sessionWith(t, b, a.Address()).Old }
		time.Sleep(10*time.Minute + 20*time.Second)
		if old() != 2 {
			t.Errorf("%d old sessions after the renewal, want 2", old())
		}
		time.Sleep(time.Minute)
		if old() != 0 {
			t.Errorf("%d old sessions a minute later", old())
		}
	})
}

func TestCertificateRenewalKeepsASession(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		w.send(a, b.Address(), "before")
		w.receives(b, "before")
		next := w.d.renewed(a.self.Load().id)
		if err := a.Renew(next); err != nil {
			t.Fatal(err)
		}
		w.r.knows(next.Peer)
		w.send(a, b.Address(), "after")
		w.receives(b, "after")
		w.send(b, a.Address(), "and back")
		w.receives(a, "and back")
		if s := sessionWith(t, b, a.Address()); s.Epoch != 1 {
			t.Errorf("session %+v", s)
		}
	})
}

func TestRevocationEndsASession(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		w.send(a, b.Address(), "before")
		w.receives(b, "before")
		if !b.applyList(w.d.list(1, a.self.Load().id.Peer)) {
			t.Fatal("the list was not taken")
		}
		if s := sessionWith(t, b, a.Address()); !s.Made.IsZero() || s.Old+s.Pending > 0 {
			t.Errorf("session %+v", s)
		}
		w.send(a, b.Address(), "after")
		w.drops(b, map[string]uint64{"unknown-certificate": 1})
		w.receivesNothing(b)
		start := time.Now()
		_, err := b.Send(w.ctx(), a.Address(), app, []byte("to who is revoked"))
		e := checkError[*RevokedError](t, err, "no session with "+a.Address().String(), "revoked", "prod.example/a")
		if took := time.Since(start); took > revokedPatience || e.Recipient != a.Address() {
			t.Errorf("after %v: %+v", took, e)
		}
		w.receivesNothing(a)
	})
}

// longStream makes TestSlowReaderSlowsItsSender send 1 GiB.
var longStream = flag.Bool("long-stream", false, "send 1 GiB to a slow reader")

// A slow reader costs its sender time, and nobody anything else.
func TestSlowReaderSlowsItsSender(t *testing.T) {
	const size = 64 << 10
	count := 24 << 20 / size
	if *longStream {
		count = 1 << 30 / size
	}
	inWorld(t, func(w *world) {
		w.r.alive = true
		a, b, c := w.connect("a", sealing), w.connect("b", sealing), w.connect("c", sealing)
		var sending sync.WaitGroup
		sending.Go(func() {
			body := make([]byte, size)
			for i := range count {
				copy(body, fmt.Sprintf("%08d", i))
				if _, err := a.Send(context.Background(), b.Address(), app, body); err != nil {
					t.Errorf("message %d: %v", i, err)
					return
				}
			}
		})
		most, others := 0, 0
		for next := 0; next < count; {
			time.Sleep(10 * time.Millisecond)
			most = max(most, b.Stats().WaitingInBytes)
			m, err := b.Receive(w.ctx())
			switch {
			case err == nil && m.From == c.Address():
				others++
				continue
			case err != nil || len(m.Body) != size || string(m.Body[:8]) != fmt.Sprintf("%08d", next):
				t.Fatalf("message %d: %q, %v", next, m.Body[:min(8, len(m.Body))], err)
			}
			if next++; next%64 == 0 {
				if err := w.send(c, b.Address(), "from another").Seen(w.ctx()); err != nil {
					t.Errorf("another sender: %v", err)
				}
			}
		}
		sending.Wait()
		for ; others < count/64; others++ {
			w.receives(b, "from another")
		}
		w.drops(b, nil)
		if window := b.cfg.Window; most > window+4096 || most < window/2 {
			t.Errorf("%d bytes waited, the window is %d", most, window)
		}
	})
}

// Who waits for a session, and has a router again, does not wait for the pause that
// has grown meanwhile.
func TestWaitingForASessionGoesOnWithTheNextConnection(t *testing.T) {
	inWorld(t, func(w *world) {
		var silent atomic.Bool
		w.swallow(&silent)
		silent.Store(true)
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		start := time.Now()
		time.AfterFunc(20*time.Second, func() { // the pause is from 15 s to 31 s
			silent.Store(false)
			w.r.mu.Lock()
			defer w.r.mu.Unlock()
			w.r.live[a.Address()].raw.Close()
		})
		w.send(a, b.Address(), "x")
		w.receives(b, "x")
		if took := time.Since(start); took > 22*time.Second {
			t.Errorf("sent after %v", took)
		}
	})
}
