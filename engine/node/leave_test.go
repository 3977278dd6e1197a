package node

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
)

// From the goodbye on nothing is written to the router that drains, but at the
// next one.
func TestNothingMoreIsWrittenToARouterThatDrains(t *testing.T) {
	inWorld(t, func(w *world) {
		n, old := w.scripted("a")
		r2, url := w.another("r2")
		old.bye(codec.GoodbyeDraining, 10*time.Second, url)
		s := <-r2.sessions
		to := w.d.node("b").Peer.Address
		for i := range 100 {
			w.send(n, to, fmt.Sprint(i))
		}
		synctest.Wait()
		if !s.greet() {
			t.Fatal("no hello")
		}
		for i := range 100 {
			if got := s.nextBody(); got != fmt.Sprint(i) {
				t.Fatalf("%q, want %d", got, i)
			}
		}
		old.obey()
		if got := old.received.Load(); got != 0 {
			t.Errorf("the old one got %d frames", got)
		}
		s.raw.Close()
	})
}

// A named router that does not answer leaves time for the others; and if there
// is none the old one is answered, and Send waits.
func TestDrainingRouterIsAnsweredInTwoSeconds(t *testing.T) {
	for _, found := range []bool{true, false} {
		inWorld(t, func(w *world) {
			r2, url := w.another("r2")
			n, old := w.scripted("a", func(c *Config) {
				dial := c.Dial
				c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
					if address == "deaf.test:1" || address == "r2.test:7100" && !found {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return dial(ctx, address)
				}
				c.Routers = append(c.Routers, url)
			})
			start := time.Now()
			old.bye(codec.GoodbyeDraining, time.Minute, "dbw://deaf.test:1")
			if found {
				w.greeted(r2)
			}
			if _, err := expect[*codec.Goodbye](old); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("answered after %v", took)
			}
			synctest.Wait() // the next connection takes the place of the old one after its goodbye
			if _, ok := n.Router(); ok != found {
				t.Errorf("connected: %v", ok)
			}
			if !found {
				_, err := n.Send(w.within(time.Second), w.d.node("b").Peer.Address, app, nil)
				checkError[*NotConnectedError](t, err)
			}
			old.raw.Close()
		})
	}
}

// A router that was sent a hello may have taken the node already, and frames for
// it: it is not left because it takes long to answer.
func TestRouterThatWasSentAHelloIsWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		n, old := w.scripted("a")
		r2, url := w.another("r2")
		start := time.Now()
		old.bye(codec.GoodbyeDraining, 10*time.Second, url)
		if _, err := expect[*codec.Goodbye](old); err != nil || time.Since(start) != drainDialMax {
			t.Fatalf("answered after %v, %v", time.Since(start), err)
		}
		old.raw.Close()
		s := <-r2.sessions
		time.Sleep(time.Second)
		if !s.greet() {
			t.Fatal("no hello")
		}
		w.t.Cleanup(func() { s.raw.Close() })
		synctest.Wait()
		if r, ok := n.Router(); !ok || r.Name != "r2" || n.Stats().ConnectFailed != 0 {
			t.Errorf("%+v, %v", r, n.Stats())
		}
	})
}

// A node that knows only the router that stops goes on trying those that it named.
func TestNamedRouterIsTriedUntilItAnswers(t *testing.T) {
	for _, readFor := range []time.Duration{0, 10 * time.Second} {
		inWorld(t, func(w *world) {
			n, old := w.scripted("a")
			r2, url := w.another("r2")
			w.net.unlisten("r2.test:7100")
			w.net.unlisten(routerHost)
			old.bye(codec.GoodbyeDraining, readFor, url)
			go old.obey()
			time.Sleep(20 * time.Second)
			if _, ok := n.Router(); ok {
				t.Fatal("connected")
			}
			w.net.listen("r2.test:7100", r2)
			w.greeted(r2)
		})
	}
}

// What the old router still has comes, also after this node's goodbye, also from
// a sender whose certificate has to be asked for at the next one.
func TestOldConnectionIsReadToItsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		n, old := w.scripted("a")
		r2, url := w.another("r2")
		b := w.member("b")
		r2.knows(b.peer)
		old.bye(codec.GoodbyeDraining, 10*time.Second, url)
		s := w.greeted(r2)
		must(expect[*codec.Goodbye](old))
		time.Sleep(5 * time.Second)
		old.give(b.frame(n.Address(), app, []byte("last")))
		old.raw.Close()
		s.answerCertificates()
		w.receives(n, "last")
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A node that leaves, for another router or for good, says what it has received
// until the router has no question any more, and nothing else.
func TestLeavingNodeConfirmsWhatStillComes(t *testing.T) {
	for _, closes := range []bool{true, false} {
		inWorld(t, func(w *world) {
			n, s := w.scripted("a")
			b := w.member("b")
			w.introduce(n, s, b)
			start := time.Now()
			closed := make(chan error, 1)
			if closes {
				go func() { closed <- n.Close() }()
			} else {
				s.bye(codec.GoodbyeDraining, 30*time.Second, "dbw://gone.test:1")
			}
			if g := must(expect[*codec.Goodbye](s)); g.Received != 1 || g.ReadFor == 0 {
				t.Errorf("goodbye %+v", g)
			}
			for i := range uint64(3) {
				s.give(b.frame(n.Address(), app, []byte("late")))
				must(0, s.control(&codec.KeepAlive{Answer: true}))
				if f := must(s.next()); f.Category() != codec.CategoryControl {
					t.Errorf("category %v came", f.Category())
				} else if k := must(codec.DecodeControl(f.Body())).(*codec.KeepAlive); k.Received != 2+i || k.Answer {
					t.Errorf("keep-alive %+v", k)
				}
				w.receives(n, "late")
			}
			if !closes {
				time.Sleep(20 * time.Second) // nothing comes by itself
			}
			must(0, s.control(&codec.Goodbye{Reason: codec.GoodbyeDone, Received: s.received.Load()}))
			if f, err := s.next(); err == nil {
				t.Errorf("category %v came after the goodbye", f.Category())
			}
			if closes {
				if err := <-closed; err != nil || time.Since(start) > time.Second/2 {
					t.Errorf("Close: %v, after %v", err, time.Since(start))
				}
			}
		})
	}
}

// Routers that all drain are not tried in a tight loop.
func TestRoutersThatAllDrainAreNotTriedInALoop(t *testing.T) {
	inWorld(t, func(w *world) {
		r2, url := w.another("r2")
		n, s := w.scripted("a", func(c *Config) { c.Routers = append(c.Routers, url) })
		stop := make(chan struct{})
		var connections atomic.Int64
		drain := func(r *fakeRouter) {
			for {
				select {
				case s := <-r.sessions:
					connections.Add(1)
					s.greet()
					s.bye(codec.GoodbyeDraining, 10*time.Second)
					go s.obey()
				case <-stop:
					return
				}
			}
		}
		go drain(w.r)
		go drain(r2)
		s.bye(codec.GoodbyeDraining, 10*time.Second)
		go s.obey()
		time.Sleep(5 * time.Minute)
		n.Close()
		close(stop)
		if count := connections.Load(); count < 100 || count > 700 {
			t.Errorf("%d connections in five minutes", count)
		}
	})
}

func TestUnconfirmedFramesAreNumbered(t *testing.T) {
	inWorld(t, func(w *world) {
		n, old := w.scripted("a", func(c *Config) { c.CloseTimeout = time.Second })
		r2, url := w.another("r2")
		to := w.d.node("b").Peer.Address
		var all []*Sent
		for i := range 3 {
			all = append(all, w.send(n, to, fmt.Sprint(i)))
			must(old.next())
		}
		must(0, old.control(&codec.Goodbye{Reason: codec.GoodbyeDraining, Routers: []string{url}, ReadFor: 10 * time.Second}))
		go old.awaitEnd() // confirms nothing
		s := w.greeted(r2)
		go s.awaitEnd()
		synctest.Wait()
		e := checkError[*CloseError](t, n.Close(), "3 not confirmed")
		if e.Unconfirmed != 3 || e.Unsent != 0 || n.Stats().Unconfirmed != 3 {
			t.Errorf("%+v; %+v", e, n.Stats())
		}
		for _, one := range all {
			checkError[*UnconfirmedError](t, one.Confirmed(w.ctx()))
		}
	})
}
