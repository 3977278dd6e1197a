package node

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// another starts one more scripted router.
func (w *world) another(name string) (*fakeRouter, string) {
	r := newFakeRouter(w.d, name)
	r.scripted = true
	w.t.Cleanup(r.stop)
	return r, w.net.listen(name+".test:7100", r)
}

// greeted returns the next connection to a scripted router.
func (w *world) greeted(r *fakeRouter) *routerConn {
	w.t.Helper()
	s := <-r.sessions
	if !s.greet() {
		w.t.Fatal("no hello")
	}
	w.t.Cleanup(func() { s.raw.Close() })
	return s
}

// moved connects a node to a scripted router that then drains, naming another,
// and returns both connections.
func (w *world) moved(changes ...func(*Config)) (n *Node, old, next *routerConn) {
	w.t.Helper()
	n, old = w.scripted("a", changes...)
	r, url := w.another("r2")
	old.bye(codec.GoodbyeDraining, 10*time.Second, url)
	next = w.greeted(r)
	go old.obey()
	synctest.Wait()
	return n, old, next
}

// obey answers keep-alives and closes at the node's goodbye.
func (s *routerConn) obey() {
	for {
		f, err := s.next()
		if err != nil {
			return
		}
		if f.Category() != codec.CategoryControl {
			continue
		}
		switch m := must(codec.DecodeControl(f.Body())).(type) {
		case *codec.KeepAlive:
			if m.Answer {
				_ = s.control(&codec.KeepAlive{Received: s.received.Load()})
			}
		case *codec.Goodbye:
			s.raw.Close()
			return
		}
	}
}

// decide has the router treat each frame of the node as decide says: a notice
// with that reason, or 0: it is taken, and confirmed when asked. It returns what
// was taken when the connection has ended.
func (s *routerConn) decide(decide func(codec.Raw) codec.NoticeReason) (taken []codec.Raw) {
	for {
		f, err := s.next()
		if err != nil {
			return taken
		}
		if f.Category() != codec.CategoryControl {
			if reason := decide(f); reason != 0 {
				s.notice(f, reason)
			} else {
				taken = append(taken, f)
			}
			continue
		}
		switch m := must(codec.DecodeControl(f.Body())).(type) {
		case *codec.KeepAlive:
			if m.Answer {
				_ = s.control(&codec.KeepAlive{Received: s.received.Load()})
			}
		case *codec.Goodbye:
			s.raw.Close()
			return taken
		}
	}
}

// deciding is decide in a goroutine; the result comes when the node has closed.
func (s *routerConn) deciding(decide func(codec.Raw) codec.NoticeReason) <-chan []codec.Raw {
	done := make(chan []codec.Raw, 1)
	go func() { done <- s.decide(decide) }()
	return done
}

func noRoute(codec.Raw) codec.NoticeReason { return codec.NoticeNoRoute }

func bodies(frames []codec.Raw) (out []string) {
	for _, f := range frames {
		out = append(out, string(f.Body()))
	}
	return out
}

func TestNoticedFramesGoAgainByteForByteAfterAMove(t *testing.T) {
	inWorld(t, func(w *world) {
		var told atomic.Uint64
		n, _, s := w.moved(func(c *Config) { c.OnNotice = func(*NoticeError) { told.Add(1) } })
		var copies []codec.Raw
		done := s.deciding(func(f codec.Raw) codec.NoticeReason {
			copies = append(copies, f)
			return []codec.NoticeReason{codec.NoticeNoRoute, codec.NoticeRecipientGone, 0}[len(copies)-1]
		})
		sent := w.send(n, w.d.node("b").Peer.Address, "x")
		if err := sent.Confirmed(w.ctx()); err != nil {
			t.Fatal(err)
		}
		n.Close()
		if taken := <-done; len(taken) != 1 || len(copies) != 3 || !bytes.Equal(copies[0], copies[1]) || !bytes.Equal(copies[1], copies[2]) {
			t.Errorf("%d copies, %d taken", len(copies), len(taken))
		}
		if st := n.Stats(); st.Resent != 2 || st.WaitingResend != 0 || st.FramesOut != 3 || told.Load() != 0 {
			t.Errorf("%d told, %+v", told.Load(), st)
		}
	})
}

// What the old router notices goes out by the next one, and before what was sent
// later.
func TestNoticesOfTheOldRouterAreMendedByTheNext(t *testing.T) {
	inWorld(t, func(w *world) {
		n, old := w.scripted("a")
		r2, url := w.another("r2")
		to := w.d.node("b").Peer.Address
		var all []*Sent
		var frames []codec.Raw
		for i := range 5 {
			all = append(all, w.send(n, to, fmt.Sprint(i)))
			frames = append(frames, must(old.next()))
		}
		old.bye(codec.GoodbyeDraining, 10*time.Second, url)
		for _, f := range frames[2:] {
			old.notice(f, codec.NoticeNoRoute)
		}
		s := <-r2.sessions
		all = append(all, w.send(n, to, "later"))
		go old.obey()
		if !s.greet() {
			t.Fatal("no hello")
		}
		done := s.deciding(func(codec.Raw) codec.NoticeReason { return 0 })
		for i, one := range all {
			if err := one.Confirmed(w.ctx()); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		n.Close()
		if got := bodies(<-done); !slices.Equal(got, []string{"2", "3", "4", "later"}) {
			t.Errorf("the next router got %q", got)
		}
	})
}

func TestSendingAgainEndsAfterFiveSeconds(t *testing.T) {
	inWorld(t, func(w *world) {
		notices := make(chan *NoticeError, 10)
		n, _, s := w.moved(func(c *Config) { c.OnNotice = func(e *NoticeError) { notices <- e } })
		s.stayAlive()
		count := 0
		go s.decide(func(codec.Raw) codec.NoticeReason { count++; return codec.NoticeNoRoute })
		to := w.d.node("b").Peer.Address
		start := time.Now()
		first, second := w.send(n, to, "x"), w.send(n, to, "y")
		e := checkError[*NoticeError](t, first.Confirmed(w.ctx()), "no-route")
		if took := time.Since(start); took < 5*time.Second || took > 5500*time.Millisecond {
			t.Errorf("told after %v", took)
		}
		checkError[*NoticeError](t, second.Confirmed(w.ctx()), "no-route")
		if count < 10 || count > 30 {
			t.Errorf("%d copies", count)
		}
		synctest.Wait()
		total := 0
		for range len(notices) {
			total += len((<-notices).Frames)
		}
		if total != 2 || len(e.Frames) == 0 || e.From != codec.Address(s.r.grant.Address) || e.Recipient != to {
			t.Errorf("OnNotice has told of %d frames; %+v", total, e)
		}
		start = time.Now() // the move is over, too
		checkError[*NoticeError](t, w.send(n, to, "z").Confirmed(w.ctx()), "no-route")
		if took := time.Since(start); took > time.Second {
			t.Errorf("after the move told after %v", took)
		}
	})
}

func TestANodeThatHasNotMovedIsToldAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		go s.decide(noRoute)
		start := time.Now()
		checkError[*NoticeError](t, w.send(n, w.d.node("b").Peer.Address, "x").Confirmed(w.ctx()), "no-route")
		if time.Since(start) > 0 || n.Stats().Resent > 0 {
			t.Errorf("after %v, %d sent again", time.Since(start), n.Stats().Resent)
		}
	})
}

// Reasons that another router does not mend, or that may mean that the frame
// has arrived, are told at once.
func TestOtherReasonsAreNotSentAgain(t *testing.T) {
	for reason := codec.NoticeNoRoute; reason <= codec.NoticeTooLarge; reason++ {
		if reason == codec.NoticeNoRoute || reason == codec.NoticeRecipientGone {
			continue
		}
		inWorld(t, func(w *world) {
			n, _, s := w.moved()
			go s.decide(func(codec.Raw) codec.NoticeReason { return reason })
			e := checkError[*NoticeError](t, w.send(n, w.d.node("b").Peer.Address, "x").Confirmed(w.ctx()))
			if e.Reason != reason || n.Stats().Resent != 0 {
				t.Errorf("%v; %d sent again", e, n.Stats().Resent)
			}
		})
	}
}

// Frames to one recipient keep their order while it is looked for, and frames to
// another do not wait for it.
func TestOrderPerRecipientHoldsWhileFramesGoAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		n, _, s := w.moved()
		x, y := w.d.node("x").Peer.Address, w.d.node("y").Peer.Address
		back := time.Now().Add(1200 * time.Millisecond)
		waited := false
		done := s.deciding(func(f codec.Raw) codec.NoticeReason {
			if f.Recipient() == x && time.Now().Before(back) {
				return codec.NoticeNoRoute
			}
			waited = waited || f.Recipient() == y && time.Now().After(back)
			return 0
		})
		var last *Sent
		for i := range 50 {
			last = w.send(n, x, fmt.Sprint("x", i))
			w.send(n, y, fmt.Sprint("y", i))
			if i%5 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		if err := last.Confirmed(w.ctx()); err != nil {
			t.Fatal(err)
		}
		if time.Now().Before(back) {
			t.Error("confirmed before x was there")
		}
		n.Close()
		next := map[byte]int{}
		for _, f := range <-done {
			who := f.Body()[0]
			if want := fmt.Sprintf("%c%d", who, next[who]); string(f.Body()) != want {
				t.Fatalf("%q was taken, want %q", f.Body(), want)
			}
			next[who]++
		}
		if next['x'] != 50 || next['y'] != 50 || waited {
			t.Errorf("taken %v; y waited: %v", next, waited)
		}
	})
}

// Nothing goes, and nobody spins, while as many frames are unconfirmed as may be.
func TestFramesGoAgainWhenTheRouterConfirmsOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		n, _, s := w.moved()
		x, y := w.d.node("x").Peer.Address, w.d.node("y").Peer.Address
		sent := w.send(n, x, "x")
		f := must(s.next())
		go func() {
			for range pendingMax {
				w.send(n, y, "y")
			}
		}()
		for range pendingMax - 1 {
			for must(s.next()).Category() == codec.CategoryControl {
			}
		}
		s.notice(f, codec.NoticeNoRoute)
		time.Sleep(time.Second) // it would go now
		if st := n.Stats(); st.Resent != 0 || st.WaitingResend != 1 {
			t.Errorf("%+v", st)
		}
		must(0, s.control(&codec.KeepAlive{Received: s.received.Load()}))
		for string(must(s.next()).Body()) != "x" {
		}
		go s.obey()
		if err := sent.Confirmed(w.ctx()); err != nil {
			t.Error(err)
		}
	})
}

func TestFramesThatWaitAreBoundedByTheSendQueue(t *testing.T) {
	inWorld(t, func(w *world) {
		const queue = 100 << 10
		n, _, s := w.moved(func(c *Config) { c.SendQueue = queue })
		go s.decide(noRoute)
		to := w.d.node("b").Peer.Address
		first := w.send(n, to, "x")
		synctest.Wait()
		var err error
		var behind []*Sent
		for err == nil {
			var s *Sent
			if s, err = n.Send(w.within(time.Second), to, app, make([]byte, 10<<10)); err == nil {
				behind = append(behind, s)
			}
		}
		checkError[*WaitError](t, err, "room")
		if waiting := n.Stats().WaitingOutBytes; len(behind) < 8 || waiting > queue {
			t.Errorf("%d wait, with %d bytes", len(behind), waiting)
		}
		checkError[*NoticeError](t, first.Confirmed(w.ctx()))
		for _, s := range behind {
			checkError[*NoticeError](t, s.Confirmed(w.ctx()))
		}
	})
}

func TestWhatIsNotKeptAnyMoreIsToldAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		n, old := w.scripted("a", func(c *Config) { c.ResendQueue = 50 << 10 })
		r2, url := w.another("r2")
		to := w.d.node("b").Peer.Address
		var all []*Sent
		var frames []codec.Raw
		for range 10 {
			all = append(all, w.send(n, to, string(make([]byte, 10<<10))))
			frames = append(frames, must(old.next()))
		}
		if kept := n.Stats().KeptBytes; kept > 50<<10 {
			t.Errorf("%d bytes are kept", kept)
		}
		old.bye(codec.GoodbyeDraining, 10*time.Second, url)
		for _, f := range frames {
			old.notice(f, codec.NoticeNoRoute)
		}
		go old.obey()
		s := w.greeted(r2)
		go s.decide(func(codec.Raw) codec.NoticeReason { return 0 })
		lost, mended := 0, 0
		for _, one := range all {
			switch err := one.Confirmed(w.ctx()); {
			case err == nil:
				mended++
			case errors.As(err, new(*NoticeError)) && mended == 0:
				lost++
			default:
				t.Error(err)
			}
		}
		if mended != 4 || lost != 6 {
			t.Errorf("%d were mended, %d lost", mended, lost)
		}
	})
}

func TestKeptFramesAreLetGoInTime(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		s.stayAlive()
		go s.awaitEnd()
		sent := w.send(n, w.d.node("b").Peer.Address, "x")
		time.Sleep(keptFor - time.Second)
		if n.Stats().KeptBytes == 0 {
			t.Error("let go too early")
		}
		time.Sleep(2 * time.Second)
		if kept := n.Stats().KeptBytes; kept != 0 || sent.frame != nil {
			t.Errorf("%d bytes are kept", kept)
		}
	})
}

func TestCloseWhileFramesWaitToGoAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		var told atomic.Uint64
		n, _, s := w.moved(func(c *Config) {
			c.CloseTimeout = time.Second
			c.OnNotice = func(e *NoticeError) { told.Add(uint64(len(e.Frames))) }
		})
		go s.decide(noRoute)
		to := w.d.node("b").Peer.Address
		noticed := []*Sent{w.send(n, to, "1")}
		synctest.Wait()
		behind := []*Sent{w.send(n, to, "2"), w.send(n, to, "3")}
		synctest.Wait()
		start := time.Now()
		e := checkError[*CloseError](t, n.Close())
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("Close took %v", took)
		}
		if e.Unsent != 2 || e.Unconfirmed != 0 || told.Load() != 1 {
			t.Errorf("%+v, %d told", e, told.Load())
		}
		for _, s := range noticed {
			checkError[*NoticeError](t, s.Confirmed(w.ctx()), "no-route")
		}
		for _, s := range behind {
			checkError[*UnsentError](t, s.Confirmed(w.ctx()), "closed")
		}
		if st := n.Stats(); st.WaitingResend != 0 || st.KeptBytes != 0 || st.WaitingOutBytes != 0 {
			t.Errorf("left over: %+v", st)
		}
	})
}

// Close waits for what goes again as it does for the queue.
func TestCloseWaitsForFramesThatGoAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		n, _, s := w.moved()
		back := time.Now().Add(time.Second)
		done := s.deciding(func(codec.Raw) codec.NoticeReason {
			if time.Now().Before(back) {
				return codec.NoticeNoRoute
			}
			return 0
		})
		to := w.d.node("b").Peer.Address
		w.send(n, to, "1")
		synctest.Wait()
		w.send(n, to, "2")
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if got := bodies(<-done); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("taken %q", got)
		}
	})
}

func TestFramesGoAgainAcrossASecondMove(t *testing.T) {
	for _, how := range []string{"drains", "is lost"} {
		inWorld(t, func(w *world) {
			r3, url := w.another("r3")
			n, _, second := w.moved(func(c *Config) { c.Routers = append(c.Routers, url) })
			w.net.unlisten(routerHost)
			to := w.d.node("b").Peer.Address
			ended := second.deciding(noRoute)
			sent, behind := w.send(n, to, "1"), w.send(n, to, "2")
			time.Sleep(300 * time.Millisecond)
			if how == "drains" {
				second.bye(codec.GoodbyeDraining, 10*time.Second, url)
			} else {
				second.raw.Close()
			}
			s := w.greeted(r3)
			count := 0
			done := s.deciding(func(codec.Raw) codec.NoticeReason {
				if count++; count < 3 {
					return codec.NoticeNoRoute
				}
				return 0
			})
			for _, one := range []*Sent{sent, behind} {
				if err := one.Confirmed(w.ctx()); err != nil {
					t.Errorf("%s: %v", how, err)
				}
			}
			n.Close()
			if got := bodies(<-done); !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("%s: taken %q", how, got)
			}
			<-ended
		})
	}
}

// The bytes stay, so the certificate does: the next router is told of it first.
func TestFramesGoAgainUnderTheCertificateTheyWereSignedWith(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.d.node("a")
		n, old := w.scriptedWith(w.config(first))
		r2, url := w.another("r2")
		sent := w.send(n, w.d.node("b").Peer.Address, "x")
		f := must(old.next())
		next := w.d.renewed(first, pki.KeyP256)
		if err := n.Renew(next); err != nil {
			t.Fatal(err)
		}
		old.announced(t, first, next, true)
		old.bye(codec.GoodbyeDraining, 10*time.Second, url)
		old.notice(f, codec.NoticeNoRoute)
		go old.obey()
		s := w.greeted(r2)
		if s.node.CertID != next.Peer.CertID {
			t.Errorf("connected under %x", s.node.CertID)
		}
		s.announced(t, next, first, true)
		if again := must(s.next()); !bytes.Equal(again, f) {
			t.Error("another frame came")
		}
		must(0, s.control(&codec.KeepAlive{Received: 1}))
		if err := sent.Confirmed(w.ctx()); err != nil {
			t.Error(err)
		}
	})
}
