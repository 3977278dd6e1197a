package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
)

// fleet is two routers that drain, die and come back while nodes send through
// them. Neither knows the other's nodes: those find each other when they have all
// moved.
type fleet struct {
	w       *world
	routers []*fakeRouter
	urls    []string

	mu     sync.Mutex
	copies map[codec.Digest]int // of a frame that routers got
	paths  map[path][]routed    // what was handed over, in order
	told   map[codec.NoticeReason]int
}

// path is a connection that a frame came by, and the one that it left by.
type path struct{ from, to *routerConn }

type routed struct {
	digest   codec.Digest
	sendTime uint64
}

func newFleet(w *world) *fleet {
	f := &fleet{w: w, copies: map[codec.Digest]int{}, paths: map[path][]routed{}, told: map[codec.NoticeReason]int{}}
	other := newFakeRouter(w.d, "r2")
	w.t.Cleanup(other.stop)
	f.routers = []*fakeRouter{w.r, other}
	f.urls = []string{w.url, w.net.listen("r2.test:7100", other)}
	for _, r := range f.routers {
		r.intercept, r.alive = f.route, true
	}
	return f
}

func (f *fleet) route(s *routerConn, raw codec.Raw) bool {
	f.mu.Lock()
	f.copies[raw.Digest()]++
	f.mu.Unlock()
	s.r.mu.Lock()
	to := s.r.live[raw.Recipient()]
	s.r.mu.Unlock()
	reason := codec.NoticeNoRoute
	if to != nil {
		if to.write(raw) == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			p := path{s, to}
			f.paths[p] = append(f.paths[p], routed{raw.Digest(), raw.SendTime()})
			return true
		}
		reason = codec.NoticeRecipientGone
	}
	f.mu.Lock()
	f.told[reason]++
	f.mu.Unlock()
	s.notice(raw, reason)
	return true
}

// sessions returns the router's connections.
func (f *fleet) sessions(i int) (all []*routerConn) {
	r := f.routers[i]
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.live {
		all = append(all, s)
	}
	return all
}

// drain has the nodes leave the router, each some time after the one before, and
// brings it back.
func (f *fleet) drain(i int, rng *rand.Rand) {
	address := f.urls[i][len("dbw://"):]
	f.w.net.unlisten(address)
	for _, s := range f.sessions(i) {
		s.bye(codec.GoodbyeDraining, 4*time.Second, f.urls[1-i])
		time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
	}
	for len(f.sessions(i)) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	f.w.net.listen(address, f.routers[i])
}

// kill cuts all connections at once.
func (f *fleet) kill(i int, rng *rand.Rand) {
	address := f.urls[i][len("dbw://"):]
	f.w.net.unlisten(address)
	for _, s := range f.sessions(i) {
		s.raw.Close()
	}
	time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
	f.w.net.listen(address, f.routers[i])
}

// checkOrder checks that what went out once came in the order of send times on
// each path.
func (f *fleet) checkOrder(t *testing.T) {
	for _, all := range f.paths {
		last := uint64(0)
		for _, r := range all {
			if f.copies[r.digest] > 1 {
				continue
			}
			if r.sendTime <= last {
				t.Errorf("a frame sent at %d came after one of %d", r.sendTime, last)
			}
			last = r.sendTime
		}
	}
}

// outcomes are what became of messages, as their sender was told.
type outcomes struct{ delivered, noticed, unconfirmed int }

// TestNothingIsLostOrDoubledWhileNodesMove: every message is delivered exactly
// once, or its sender is told that it was not, or that perhaps it was.
func TestNothingIsLostOrDoubledWhileNodesMove(t *testing.T) {
	for _, test := range []struct {
		name    string
		kills   bool
		changes []func(*Config)
	}{
		{"drains", false, nil}, {"drains and kills", true, nil},
		{"sealed, drains", false, []func(*Config){sealing}}, {"sealed, drains and kills", true, []func(*Config){sealing}},
	} {
		tried := 0
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", test.name, seed), func(t *testing.T) {
				inWorld(t, func(w *world) {
					rng := rand.New(rand.NewPCG(seed, 1))
					f := newFleet(w)
					got := moveAbout(w, f, rng, test.kills, test.changes...)
					f.checkOrder(t)
					t.Logf("%+v; notices %v", got, f.told)
					tried += len(f.told)
					if got.delivered == 0 {
						t.Error("nothing was delivered")
					}
					if !test.kills && got.unconfirmed > 0 {
						t.Errorf("%d unconfirmed, and no connection was lost", got.unconfirmed)
					}
				})
			})
		}
		if tried == 0 {
			t.Errorf("%s: there was not one notice", test.name)
		}
	}
}

func moveAbout(w *world, f *fleet, rng *rand.Rand, kills bool, changes ...func(*Config)) outcomes {
	t := w.t
	const each = 250 // messages from each sender to each recipient
	var nodes []*Node
	for i := range 4 {
		n := w.connect(fmt.Sprint("n", i), append(changes, func(c *Config) { c.Routers = f.urls })...)
		nodes = append(nodes, n)
	}
	senders, recipients := nodes[:2], nodes[2:]
	var mu sync.Mutex
	came := map[codec.Digest]int{}
	stop, end := context.WithCancel(context.Background())
	defer end()
	var receiving, sending sync.WaitGroup
	for _, n := range recipients {
		receiving.Go(func() {
			for {
				m, err := n.Receive(stop)
				if err != nil {
					return
				}
				mu.Lock()
				came[m.Digest]++
				mu.Unlock()
			}
		})
	}
	var all []*Sent
	for i, n := range senders {
		pauses := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		sending.Go(func() {
			for number := range uint64(each) {
				for _, to := range recipients {
					s, err := n.Send(w.within(30*time.Second), to.Address(), app, binary.BigEndian.AppendUint64(nil, number))
					for errors.As(err, new(*NoticeError)) { // no session, since the recipient is at the other router
						s, err = n.Send(w.within(30*time.Second), to.Address(), app, binary.BigEndian.AppendUint64(nil, number))
					}
					if err != nil {
						t.Errorf("Send: %v", err)
						return
					}
					if number%10 == 0 {
						sending.Go(func() { _ = s.Confirmed(w.within(time.Minute)) }) // so that the router is asked
					}
					mu.Lock()
					all = append(all, s)
					mu.Unlock()
				}
				time.Sleep(time.Duration(pauses.IntN(60)) * time.Millisecond)
			}
		})
	}
	for range 5 {
		time.Sleep(time.Duration(rng.IntN(2500)) * time.Millisecond)
		if kills && rng.IntN(2) == 0 {
			f.kill(rng.IntN(2), rng)
		} else {
			f.drain(rng.IntN(2), rng)
		}
	}
	sending.Wait()
	time.Sleep(15 * time.Second) // all notices are there, and nothing is sent again
	var got outcomes
	for _, s := range all {
		err := s.Confirmed(w.within(30 * time.Second))
		mu.Lock()
		times := came[s.Digest]
		mu.Unlock()
		switch {
		case times > 1:
			t.Errorf("a message came %d times", times)
		case err == nil:
			got.delivered++
			if times != 1 {
				t.Errorf("a message is confirmed, and did not come")
			}
		case errors.As(err, new(*NoticeError)):
			got.noticed++
			if times != 0 {
				t.Errorf("a message came in spite of %v", err)
			}
		case errors.As(err, new(*UnconfirmedError)):
			got.unconfirmed++
		default:
			t.Errorf("outcome: %v", err)
		}
	}
	for _, n := range nodes {
		if st := n.Stats(); st.WaitingResend != 0 || st.WaitingOutBytes != 0 || st.NoticesIgnored != 0 {
			t.Errorf("%s: %+v", n.Name(), st)
		}
		if err := n.Close(); err != nil {
			t.Errorf("%s: %v", n.Name(), err)
		}
	}
	end()
	receiving.Wait()
	synctest.Wait()
	return got
}
