package node

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
)

// swallow has the router lose frames of category 1 while on is true.
func (w *world) swallow(on *atomic.Bool) {
	w.r.intercept = func(_ *routerConn, f codec.Raw) bool { return on.Load() && f.Category() == codec.CategorySession }
}

// Who is on a list, and answers nothing, is given little time; all that wait learn it
// then, and who comes later at once.
func TestSendToARevokedMemberFailsSoon(t *testing.T) {
	inWorld(t, func(w *world) {
		var silent atomic.Bool
		w.swallow(&silent)
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		w.send(a, b.Address(), "before")
		w.receives(b, "before")
		silent.Store(true)
		if !b.applyList(w.d.list(1, a.self.Load().id.Peer)) {
			t.Fatal("the list was not taken")
		}
		time.Sleep(10 * time.Minute) // the member is forgotten
		start := time.Now()
		var sending sync.WaitGroup
		for range 5 {
			sending.Go(func() {
				_, err := b.Send(context.Background(), a.Address(), app, []byte("x"))
				checkError[*RevokedError](t, err, "prod.example/a")
			})
		}
		sending.Wait()
		if took := time.Since(start); took != revokedPatience {
			t.Errorf("failed after %v", took)
		}
		start = time.Now()
		_, err := b.Send(context.Background(), a.Address(), app, []byte("x"))
		checkError[*RevokedError](t, err)
		if took := time.Since(start); took != 0 {
			t.Errorf("failed after %v, when it was known", took)
		}
	})
}

// A Send that waits when the list comes does not wait any longer than others.
func TestSendThatWaitsLearnsOfTheRevocation(t *testing.T) {
	inWorld(t, func(w *world) {
		var silent atomic.Bool
		w.swallow(&silent)
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		if err := w.send(a, b.Address(), "before").Seen(w.ctx()); err != nil {
			t.Fatal(err)
		}
		silent.Store(true)
		b.sessions.mu.Lock()
		b.sessions.eraseLocked(b.sessions.members[a.Address()])
		b.sessions.mu.Unlock()
		failed := make(chan error, 1)
		go func() {
			_, err := b.Send(context.Background(), a.Address(), app, []byte("x"))
			failed <- err
		}()
		time.Sleep(time.Minute)
		start := time.Now()
		if !b.applyList(w.d.list(1, a.self.Load().id.Peer)) {
			t.Fatal("the list was not taken")
		}
		checkError[*RevokedError](t, <-failed)
		if took := time.Since(start); took != revokedPatience {
			t.Errorf("failed after %v", took)
		}
	})
}

// Who has another certificate is sent to, though the one that was known is revoked.
func TestMemberUnderAnotherCertificateIsSentTo(t *testing.T) {
	inWorld(t, func(w *world) {
		var silent atomic.Bool
		w.swallow(&silent)
		id := w.d.node("a")
		a, b := w.connect("spare", sealing, func(c *Config) { c.Identity = id }), w.connect("b", sealing)
		w.send(b, a.Address(), "before")
		w.receives(a, "before")
		w.send(a, b.Address(), "and back")
		w.receives(b, "and back")
		if !b.applyList(w.d.list(1, id.Peer)) {
			t.Fatal("the list was not taken")
		}
		silent.Store(true)
		_, err := b.Send(w.ctx(), a.Address(), app, []byte("lost"))
		checkError[*RevokedError](t, err)
		silent.Store(false)
		next := w.d.renewed(id)
		w.r.knows(next.Peer)
		if err := a.Renew(next); err != nil {
			t.Fatal(err)
		}
		_, err = b.Send(w.ctx(), a.Address(), app, []byte("too soon"))
		checkError[*RevokedError](t, err)
		time.Sleep(time.Hour) // in which a says nothing
		w.send(b, a.Address(), "after")
		w.receives(a, "after")
	})
}

// What a node learns when it starts is enough: the answer comes under a certificate
// that is revoked. Forged ones say nothing.
func TestAnswerUnderARevokedCertificate(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.d.node("a")
		var forge atomic.Bool
		forge.Store(true)
		w.r.intercept = func(s *routerConn, f codec.Raw) bool {
			if forge.Load() && f.Category() == codec.CategorySession && f.Sender() == id.Peer.Address {
				f[len(f)-1] ^= 1
			}
			return false
		}
		store := must(w.d.store.WithCRL(w.d.name, w.d.list(1, id.Peer)))
		a := w.connect("spare", sealing, func(c *Config) { c.Identity = id })
		b := w.connect("b", sealing, func(c *Config) { c.Trust = store })
		_, err := b.Send(w.within(5*time.Second), a.Address(), app, []byte("x"))
		checkError[*WaitError](t, err, "session")
		forge.Store(false)
		_, err = b.Send(w.within(5*time.Second), a.Address(), app, []byte("x"))
		checkError[*RevokedError](t, err, "prod.example/a")
	})
}

// A node that is to be connected to directly, and is revoked, is refused by TLS.
func TestDirectPeerThatIsRevoked(t *testing.T) {
	d := newDomain("prod.example")
	id := d.node("b")
	b, url := listener(t, id)
	a := direct(t, d.node("a"), url)
	passes(t, a, b, "before")
	if !a.applyList(d.list(1, id.Peer)) {
		t.Fatal("the list was not taken")
	}
	_, err := a.Send(patient(t), b.Address(), codec.CategoryApplication, []byte("x"))
	checkError[*RevokedError](t, err, "prod.example/b")

	c, url := listener(t, d.node("c"), func(c *Config) { c.Trust = must(d.store.WithCRL(d.name, d.list(1, id.Peer))) })
	if _, err := Connect(patient(t), Config{Identity: id, Direct: url}); err == nil {
		t.Fatal("a revoked node was let in")
	}
	until(t, "it is refused", func() bool { return c.Stats().AcceptFailed > 0 })
}
