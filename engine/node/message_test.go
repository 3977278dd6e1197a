package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

func TestMessageArrivesAndIsConfirmed(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		s := w.send(a, b.Address(), "hello")
		if err := s.Confirmed(w.ctx()); err != nil {
			t.Fatal(err)
		}
		m := w.receives(b, "hello")
		if m.From != a.Address() || m.To != b.Address() || m.FromName != "a" || m.Category != codec.CategoryApplication ||
			m.SendTime != s.SendTime || m.Digest != s.Digest {
			t.Errorf("message %+v does not fit %+v", m, s)
		}
		if err := s.Seen(w.ctx()); err != nil {
			t.Errorf("Seen: %v", err)
		}
	})
}

func TestNodesWithEitherKeyUnderstandEachOther(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a", func(c *Config) { c.Identity = w.d.nodeOf("a", pki.KeyP256, time.Minute, time.Hour) })
		b := w.connect("b")
		w.send(a, b.Address(), "from p256")
		w.receives(b, "from p256")
		w.send(b, a.Address(), "from ed25519")
		w.receives(a, "from ed25519")
	})
}

func TestMessagesOfOneSenderKeepTheirOrder(t *testing.T) {
	const count = 900
	inWorld(t, func(w *world) {
		b := w.connect("b")
		var senders sync.WaitGroup
		for i := range 3 {
			a := w.connect(fmt.Sprint("a", i))
			senders.Go(func() {
				for k := range count / 3 {
					w.send(a, b.Address(), fmt.Sprintf("%d %d", i, k))
				}
			})
		}
		next := map[string]int{}
		for range count {
			m, err := b.Receive(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("%s %d", m.FromName[1:], next[m.FromName]); string(m.Body) != want {
				t.Fatalf("%s: received %q, want %q", m.FromName, m.Body, want)
			}
			next[m.FromName]++
		}
		senders.Wait()
		w.receivesNothing(b)
	})
}

// Many goroutines send at once; whoever was given a later send time must stand
// later in the queue.
func TestSendTimesFollowTheQueue(t *testing.T) {
	inWorld(t, func(w *world) {
		a, s := w.scripted("a")
		to := w.d.node("b").Peer.Address
		var senders sync.WaitGroup
		const goroutines, each = 8, 100
		for range goroutines {
			senders.Go(func() {
				for range each {
					w.send(a, to, "x")
				}
			})
		}
		last := uint64(0)
		for range goroutines * each {
			f, err := s.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.Category() == codec.CategoryControl {
				continue
			}
			if f.SendTime() <= last {
				t.Fatalf("send time %d comes after %d", f.SendTime(), last)
			}
			last = f.SendTime()
		}
		senders.Wait()
	})
}

func TestLargeAndEmptyBodiesArrive(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		large := string(make([]byte, codec.BodyMaxDefault))
		for _, body := range []string{"", large, "x", large, ""} {
			s := w.send(a, b.Address(), body)
			w.receives(b, body)
			if err := s.Confirmed(w.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := a.Send(w.ctx(), b.Address(), codec.CategoryApplication, append([]byte(large), 1))
		checkError[*BodySizeError](t, err, "1048577", "1048576", "router")
	})
}

func TestSendRefusesWhatIsNotForApplications(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a")
		for _, category := range []codec.Category{1, 2, 3, 4, 6, 63} {
			_, err := a.Send(w.ctx(), a.Address(), category, nil)
			checkError[*CategoryError](t, err, fmt.Sprint(uint8(category)), "64")
		}
		if _, err := a.Send(w.ctx(), codec.Address{}, 64, nil); err == nil {
			t.Error("the zero address was taken")
		}
	})
}

func TestPlainIsRefusedWithANoticeUnlessAccepted(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b", func(c *Config) { c.AcceptPlain = false })
		s := w.send(a, b.Address(), "readable")
		e := checkError[*NoticeError](t, s.Seen(w.ctx()), "not-permitted", "AcceptPlain")
		if e.From != b.Address() || e.Reason != codec.NoticeNotPermitted {
			t.Errorf("notice %+v", e)
		}
		w.drops(b, map[string]uint64{"plain": 1})
		w.receivesNothing(b)
	})
}

func TestRecipientThatDoesNotReadCostsItsSendersOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		small := func(c *Config) { c.ReceiveQueue, c.ReceiveQueuePerSender = 2<<20, 2<<20 }
		a, c := w.connect("a"), w.connect("c")
		b := w.connect("b", small)
		body := string(make([]byte, 900<<10))
		for range 2 {
			if err := w.send(a, b.Address(), body).Seen(w.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		e := checkError[*NoticeError](t, w.send(a, b.Address(), body).Seen(w.ctx()), "queue-full")
		if e.From != b.Address() {
			t.Errorf("notice from %s", e.From)
		}
		if err := w.send(c, b.Address(), "small").Seen(w.ctx()); err != nil {
			t.Errorf("another sender: %v", err)
		}
		if _, err := a.Ping(w.ctx(), b.Address(), nil); err != nil {
			t.Errorf("b does not answer while its queue is full: %v", err)
		}
		w.drops(b, map[string]uint64{"queue-full": 1})
		w.receives(b, body)
		w.receives(b, body)
		w.receives(b, "small")
	})
}

// 1,500 frames are refused: the notices list some and count the rest, and each
// Sent still learns of it.
func TestNoticesCountWhatTheyDoNotList(t *testing.T) {
	inWorld(t, func(w *world) {
		var told sync.Map
		a := w.connect("a", func(c *Config) { c.OnNotice = func(e *NoticeError) { told.Store(e, true) } })
		b := w.connect("b", func(c *Config) { c.AcceptPlain = false })
		var all []*Sent
		for range 1500 {
			all = append(all, w.send(a, b.Address(), "x"))
		}
		time.Sleep(10 * time.Second) // of the bubble
		for _, s := range all {
			checkError[*NoticeError](t, s.Confirmed(w.ctx()), "not-permitted")
		}
		listed, counted := 0, 0
		told.Range(func(e, _ any) bool {
			listed += len(e.(*NoticeError).Frames)
			counted += int(e.(*NoticeError).More)
			return true
		})
		if listed+counted != 1500 || listed == 0 || counted == 0 {
			t.Errorf("notices list %d frames and count %d more, want 1500 in all", listed, counted)
		}
		if lost := a.Stats().CallbacksLost; lost != 0 {
			t.Errorf("%d callbacks lost", lost)
		}
	})
}

func TestNoRouteIsToldToTheSender(t *testing.T) {
	inWorld(t, func(w *world) {
		notices := make(chan *NoticeError, 1)
		a := w.connect("a", func(c *Config) { c.OnNotice = func(e *NoticeError) { notices <- e } })
		nobody := w.d.node("nobody").Peer.Address
		s := w.send(a, nobody, "x")
		e := checkError[*NoticeError](t, s.Confirmed(w.ctx()), "no-route", "not connected")
		if e.Recipient != nobody || e.From != codec.Address(w.r.grant.Address) || len(e.Frames) != 1 || e.Frames[0].Digest != s.Digest {
			t.Errorf("notice %+v", e)
		}
		if got := <-notices; got != e {
			t.Errorf("OnNotice got %+v", got)
		}
		_, err := a.Ping(w.ctx(), nobody, nil)
		checkError[*NoticeError](t, err, "no-route")
		synctest.Wait()
		if len(notices) != 0 {
			t.Error("OnNotice was called for a ping")
		}
	})
}

func TestPing(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		w.r.intercept = func(s *routerConn, f codec.Raw) bool {
			time.Sleep(15 * time.Millisecond)
			return false
		}
		rtt, err := a.Ping(w.ctx(), b.Address(), []byte("payload"))
		if err != nil || rtt != 30*time.Millisecond {
			t.Errorf("Ping: %v, %v; want 30ms", rtt, err)
		}
		if _, err := a.Ping(w.ctx(), b.Address(), make([]byte, codec.EchoPayloadMax+1)); err == nil {
			t.Error("a payload that is too long was taken")
		}
	})
}

func TestPingEndsWithItsContext(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		w.r.intercept = func(*routerConn, codec.Raw) bool { return true }
		_, err := a.Ping(w.within(3*time.Second), b.Address(), nil)
		checkError[*WaitError](t, err, "answer", b.Address().String())
		if len(a.echoes.waiting) != 0 {
			t.Error("the ping is still waited for")
		}
	})
}

// Seen goes on asking: here the recipient gets the message only after four
// requests.
func TestSeenAsksUntilTheRecipientHasIt(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		var held codec.Raw
		asked := 0
		w.r.intercept = func(s *routerConn, f codec.Raw) bool {
			if f.Category() == codec.CategoryApplication {
				held = f
				return true
			}
			if f.Sender() == a.Address() && f.Category() == codec.CategoryEcho {
				if asked++; asked == 4 {
					w.r.mu.Lock()
					to := w.r.live[f.Recipient()]
					w.r.mu.Unlock()
					_ = to.write(held)
				}
			}
			return false
		}
		s := w.send(a, b.Address(), "late")
		start := time.Now()
		if err := s.Seen(w.ctx()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); asked != 4 || took != 3*time.Second {
			t.Errorf("seen after %d requests and %v, want 4 and 3s", asked, took)
		}
	})
}

func TestSeenEndsWithItsContext(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		w.r.intercept = func(_ *routerConn, f codec.Raw) bool { return f.Category() == codec.CategoryApplication }
		s := w.send(a, b.Address(), "lost")
		err := s.Seen(w.within(2500 * time.Millisecond))
		checkError[*WaitError](t, err, "receipt")
	})
}

func TestReceiveEndsWithItsContextAndWithTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a")
		if _, err := a.Receive(w.within(time.Second)); err != context.DeadlineExceeded {
			t.Errorf("Receive: %v", err)
		}
		errs := make(chan error, 2)
		for range 2 {
			go func() { _, err := a.Receive(context.Background()); errs <- err }()
		}
		synctest.Wait()
		a.Close()
		for range 2 {
			if err := <-errs; err != ErrClosed {
				t.Errorf("Receive: %v, want ErrClosed", err)
			}
		}
	})
}
