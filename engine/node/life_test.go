package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
)

// reconnected returns the node's next connection to the scripted router.
func (w *world) reconnected() *routerConn {
	w.t.Helper()
	s := <-w.r.sessions
	if !s.greet() {
		w.t.Fatal("no hello")
	}
	w.t.Cleanup(func() { s.raw.Close() })
	return s
}

// nextBody returns the body of the next frame that is not link control.
func (s *routerConn) nextBody() string {
	for {
		if f := must(s.next()); f.Category() != codec.CategoryControl {
			return string(f.Body())
		}
	}
}

func TestManyConfirmationsCostOneKeepAlive(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		to := w.d.node("b").Peer.Address
		const count = 500
		var waiting sync.WaitGroup
		first := w.send(n, to, "first")
		waiting.Go(func() { must(0, first.Confirmed(w.ctx())) })
		synctest.Wait() // its keep-alive is out, and unanswered
		for range count {
			sent := w.send(n, to, "x")
			waiting.Go(func() { must(0, sent.Confirmed(w.ctx())) })
		}
		synctest.Wait()
		var asked []uint64 // by how many frames had come before
		for len(asked) < 2 {
			f := must(s.next())
			if f.Category() != codec.CategoryControl {
				continue
			}
			if m := must(codec.DecodeControl(f.Body())).(*codec.KeepAlive); m.Answer {
				asked = append(asked, s.received.Load())
				must(0, s.control(&codec.KeepAlive{Received: asked[len(asked)-1]}))
			}
		}
		waiting.Wait()
		if asked[0] != 1 || asked[1] != count+1 {
			t.Errorf("asked after %v frames, want 1 and %d", asked, count+1)
		}
	})
}

func TestNobodyAsksWhenNobodyWantsToKnow(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		to := w.d.node("b").Peer.Address
		for range 100 {
			w.send(n, to, "x")
		}
		for s.received.Load() < 100 {
			if f := must(s.next()); f.Category() == codec.CategoryControl {
				t.Fatal("link control came")
			}
		}
	})
}

func TestRouterThatNeverConfirmsIsLeftInTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		sent := w.send(n, w.d.node("b").Peer.Address, "x")
		confirmed := make(chan error, 1)
		go func() { confirmed <- sent.Confirmed(context.Background()) }()
		go s.awaitEnd()
		start := time.Now()
		s.stayAlive()
		err := <-confirmed
		checkError[*UnconfirmedError](t, err, "confirmed nothing", "perhaps delivered")
		if took := time.Since(start); took < 100*time.Second || took > 115*time.Second {
			t.Errorf("left after %v", took)
		}
		w.reconnected()
	})
}

// What was written and not confirmed fails as perhaps delivered; what was not
// written goes out by the next connection.
func TestNothingIsLostInSilenceWhenAConnectionDies(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		to := w.d.node("b").Peer.Address
		written := w.send(n, to, "written")
		if got := s.nextBody(); got != "written" {
			t.Fatal(got)
		}
		s.raw.(*pipeEnd).in.block(true) // the connection takes nothing more
		var queued []*Sent
		body := string(make([]byte, 100<<10))
		for i := range 20 {
			queued = append(queued, w.send(n, to, fmt.Sprint(i, body)))
		}
		synctest.Wait()
		s.raw.Close()
		checkError[*UnconfirmedError](t, written.Confirmed(w.ctx()), "perhaps delivered", "closed the connection")

		next := w.reconnected()
		went := make(chan string, 100)
		go func() {
			for {
				f, err := next.next()
				if err != nil {
					close(went)
					return
				}
				if f.Category() != codec.CategoryControl {
					went <- string(f.Body())
				} else if m, ok := must(codec.DecodeControl(f.Body())).(*codec.KeepAlive); ok && m.Answer {
					_ = next.control(&codec.KeepAlive{Received: next.received.Load()})
				}
			}
		}()
		confirmed, unconfirmed := 0, 0
		for i, sent := range queued {
			switch err := sent.Confirmed(w.ctx()); {
			case err == nil:
				confirmed++
				if got := <-went; got != fmt.Sprint(i, body) {
					t.Errorf("frame %d: got %.3s", i, got)
				}
			case errors.As(err, new(*UnconfirmedError)):
				unconfirmed++
				if confirmed > 0 {
					t.Error("order changed")
				}
			default:
				t.Error(err)
			}
		}
		if confirmed == 0 || unconfirmed == 0 {
			t.Errorf("%d confirmed, %d perhaps delivered: both were expected", confirmed, unconfirmed)
		}
		if st := n.Stats(); st.Unconfirmed != uint64(unconfirmed+1) {
			t.Errorf("%d counted as unconfirmed, want %d", st.Unconfirmed, unconfirmed+1)
		}
	})
}

func TestDisconnectInMidFrame(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		w.introduce(n, s, b)
		f := b.frame(n.Address(), app, []byte("whole on the next connection"))
		must(0, s.write(f[:len(f)/2]))
		s.raw.Close()
		next := w.reconnected()
		next.give(f)
		w.receives(n, "whole on the next connection")
	})
}

func TestSendBlocksWithItsContext(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a", func(c *Config) { c.SendQueue = 300 << 10 })
		to := w.d.node("b").Peer.Address
		body := make([]byte, 100<<10)
		s.raw.(*pipeEnd).in.block(true)
		var err error
		for err == nil {
			_, err = n.Send(w.within(time.Second), to, app, body)
		}
		checkError[*WaitError](t, err, "room")
		if waiting := n.Stats().WaitingOutBytes; waiting > 300<<10 {
			t.Errorf("%d bytes wait", waiting)
		}
		// With room again, who came first goes first.
		for i := range 2 {
			go w.send(n, to, fmt.Sprint("blocked ", i, string(body)))
			synctest.Wait()
		}
		s.raw.(*pipeEnd).in.block(false)
		for next := 0; next < 2; {
			if got := s.nextBody(); strings.HasPrefix(got, "blocked") {
				if !strings.HasPrefix(got, fmt.Sprint("blocked ", next)) {
					t.Errorf("%.10s came as number %d", got, next)
				}
				next++
			}
		}
		s.raw.Close()
		w.net.unlisten(routerHost)
		synctest.Wait()
		_, err = n.Send(w.within(time.Second), to, app, nil)
		checkError[*NotConnectedError](t, err, "not connected", "deadline")
		if _, ok := n.Router(); ok {
			t.Error("Router says it is connected")
		}
	})
}

func TestReplacedEndsTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.config(w.d.node("a"))
		first, err := Connect(w.ctx(), a)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Connect(w.ctx(), a)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		_, err = first.Receive(w.ctx())
		if !errors.Is(err, ErrReplaced) || !errors.Is(first.Err(), ErrReplaced) {
			t.Errorf("Receive: %v; Err: %v", err, first.Err())
		}
		if _, err := first.Send(w.ctx(), second.Address(), app, nil); !errors.Is(err, ErrReplaced) {
			t.Errorf("Send: %v", err)
		}
		if err := first.Close(); !errors.Is(err, ErrReplaced) {
			t.Errorf("Close: %v", err)
		}
		if st := second.Stats(); st.Connections != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestDrainingRouterIsLeftWithoutLoss(t *testing.T) {
	inWorld(t, func(w *world) {
		other := newFakeRouter(w.d, "r2")
		defer other.stop()
		otherURL := w.net.listen("other.test:1", other)
		n, s := w.scripted("a", func(c *Config) { c.Routers = append(c.Routers, otherURL) })
		b := w.member("b")
		w.introduce(n, s, b)
		sent := w.send(n, b.address(), "before")
		s.nextBody()
		s.bye(codec.GoodbyeDraining, 10*time.Second)
		s.give(b.frame(n.Address(), app, []byte("while draining")))
		w.receives(n, "while draining")
		for {
			f := must(s.next())
			m := must(codec.DecodeControl(f.Body()))
			if k, ok := m.(*codec.KeepAlive); ok && k.Answer {
				must(0, s.control(&codec.KeepAlive{Received: s.received.Load()}))
			}
			if g, ok := m.(*codec.Goodbye); ok {
				if g.Reason != codec.GoodbyeDone || g.ReadFor == 0 || g.ReadFor > 10*time.Second || g.Received != 2 {
					t.Errorf("goodbye %+v", g)
				}
				break
			}
		}
		synctest.Wait() // the switch comes right after the goodbye
		if r, ok := n.Router(); !ok || r.Name != "r2" {
			t.Errorf("router %+v: the next connection was not made before goodbye", r)
		}
		if err := sent.Confirmed(w.ctx()); err != nil {
			t.Error(err)
		}
		s.raw.Close()
		if err := w.send(n, n.Address(), "after").Confirmed(w.ctx()); err != nil {
			t.Error(err)
		}
		w.receives(n, "after")
	})
}

func TestDrainingRouterNamesAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		other := newFakeRouter(w.d, "r2")
		defer other.stop()
		otherURL := w.net.listen("other.test:1", other)
		n, s := w.scripted("a")
		s.bye(codec.GoodbyeDraining, 0, "nonsense", "dbw://gone.test:1", otherURL)
		synctest.Wait()
		if r, ok := n.Router(); !ok || r.Name != "r2" {
			t.Errorf("router %+v, %v", r, ok)
		}
	})
}

func TestLoneRouterThatDrainsIsLeftAndComesBack(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		s.bye(codec.GoodbyeDraining, 10*time.Second)
		if _, err := expect[*codec.Goodbye](s); err != nil {
			t.Fatal(err)
		}
		s.raw.Close()
		w.reconnected()
		synctest.Wait()
		if _, ok := n.Router(); !ok {
			t.Error("not connected again")
		}
	})
}

func TestSilentRouterIsDead(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		start := time.Now()
		go s.awaitEnd()
		w.reconnected()
		if took := time.Since(start); took < 25*time.Second || took > 30*time.Second {
			t.Errorf("given up after %v", took)
		}
		synctest.Wait()
		if st := n.Stats(); st.Connections != 2 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestRouterThatDoesNotReadIsDead(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		s.raw.(*pipeEnd).in.block(true)
		sent := w.send(n, w.d.node("b").Peer.Address, "x")
		s.stayAlive()
		checkError[*UnconfirmedError](t, sent.Confirmed(w.ctx()))
		w.reconnected()
	})
}

func TestKeepAlivesComeInTime(t *testing.T) {
	inWorld(t, func(w *world) {
		_, s := w.scripted("a", func(c *Config) { c.KeepAlive = 4 * time.Second })
		s.stayAlive()
		for range 10 {
			start := time.Now()
			m := must(expect[*codec.KeepAlive](s))
			if gap := time.Since(start); gap > 4*time.Second || gap < 2*time.Second || m.Answer {
				t.Errorf("keep-alive %+v after %v", m, gap)
			}
		}
	})
}

func TestKeepAliveIsAnsweredWithWhatWasReceived(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		w.introduce(n, s, b)
		s.give(b.frame(n.Address(), app, nil))
		must(0, s.control(&codec.KeepAlive{Answer: true}))
		if m := must(expect[*codec.KeepAlive](s)); m.Received != 2 || m.Answer {
			t.Errorf("answer %+v", m)
		}
	})
}

func TestReconnectBacksOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.connect("a")
		w.net.mu.Lock()
		delete(w.net.routers, routerHost)
		w.net.dialed = nil
		w.net.mu.Unlock()
		w.r.stop()
		time.Sleep(10 * time.Minute)
		w.net.mu.Lock()
		defer w.net.mu.Unlock()
		// Half of 30 s to 30 s between attempts, and a few in the beginning.
		if count := len(w.net.dialed); count < 20 || count > 55 {
			t.Errorf("%d attempts in 10 minutes", count)
		}
	})
}

// A router that accepts nodes and then breaks the protocol at once must not be
// dialled in a tight loop.
func TestShortConnectionsDoNotResetTheBackoff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.r.scripted = true
		stop := make(chan struct{})
		connections := 0
		go func() {
			for {
				select {
				case s := <-w.r.sessions:
					connections++
					s.greet()
					s.raw.Close()
				case <-stop:
					return
				}
			}
		}()
		n, err := Connect(w.ctx(), w.config(w.d.node("a")))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		n.Close()
		close(stop)
		synctest.Wait()
		if connections < 20 || connections > 55 {
			t.Errorf("%d connections in 10 minutes", connections)
		}
	})
}

// TestFramesInAddUp: every frame has one fate.
func TestFramesInAddUp(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a")
		b := w.connect("b", func(c *Config) { c.ReceiveQueue, c.ReceiveQueuePerSender, c.BodyMax = 100<<10, 100<<10, 1024 })
		for range 1000 {
			w.send(a, b.Address(), "x")
		}
		if err := w.send(a, b.Address(), "last").Confirmed(w.ctx()); err != nil {
			t.Fatal(err)
		}
		_, _ = a.Ping(w.ctx(), b.Address(), nil)
		time.Sleep(5 * time.Second)
		s := b.Stats()
		sum := s.Delivered + s.Consumed + s.Parked
		for _, v := range s.Dropped {
			sum += v
		}
		if s.FramesIn != sum || s.FramesIn != 1002 || s.Dropped["queue-full"] == 0 {
			t.Errorf("%d frames in, %d accounted for: %+v", s.FramesIn, sum, s)
		}
		if out := a.Stats(); out.FramesOut < 1002 || out.Confirmed == 0 {
			t.Errorf("%+v", out)
		}
	})
}
