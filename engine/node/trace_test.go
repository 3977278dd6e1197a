package node

import (
	"crypto/rand"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// chain is a way of several routers: the fake router, and others that only
// answer traces.
type chain struct {
	w       *world
	routers []*sender // of w's domain; the first is w.r
	silent  []string  // names of those that answer nothing
	old     []string  // names of those that know no traces
	stop    func(s *routerConn, f codec.Raw) bool
}

func newChain(w *world, names ...string) *chain {
	c := &chain{w: w, routers: []*sender{newSender(w.r.grant, w.r.key)}}
	for _, name := range names {
		c.routers = append(c.routers, routerIn(w.d, name))
	}
	for _, r := range c.routers {
		w.r.knows(r.peer)
	}
	w.r.intercept = c.route
	return c
}

// routerIn makes a router with a grant of d.
func routerIn(d *domain, name string) *sender {
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	return newSender(d.member(name, pki.RoleRouter, key, time.Minute, time.Hour), key)
}

// route takes 10 ms to each router, and as long back.
func (c *chain) route(s *routerConn, f codec.Raw) bool {
	e, err := codec.DecodeEcho(f.Body())
	if err != nil || e.Type != codec.EchoTrace {
		return false
	}
	ttl := int(f.TTL())
	if c.stop != nil && c.stop(s, f) {
		return true
	}
	if ttl > len(c.routers) {
		time.Sleep(20 * time.Millisecond * time.Duration(len(c.routers)))
		f.SetTTL(uint8(ttl - len(c.routers)))
		c.w.r.mu.Lock()
		to := c.w.r.live[f.Recipient()]
		c.w.r.mu.Unlock()
		_ = to.write(f)
		return true
	}
	r := c.routers[ttl-1]
	if slices.Contains(c.silent, r.peer.Name) {
		return true
	}
	time.Sleep(20 * time.Millisecond * time.Duration(ttl))
	next := f.Recipient()
	if ttl < len(c.routers) {
		next = c.routers[ttl].address()
	}
	if slices.Contains(c.old, r.peer.Name) {
		c.notice(s, r, f, codec.NoticeTTLSpent)
		return true
	}
	_ = s.write(r.hop(f, codec.Hop{TTL: 1, Time: uint64(time.Now().UnixNano()), Next: next, Software: r.peer.Name + "/1.0.0"}))
	return true
}

// hop answers a trace.
func (s *sender) hop(trace codec.Raw, h codec.Hop) codec.Raw {
	e := must(codec.DecodeEcho(trace.Body()))
	return s.frame(trace.Sender(), codec.CategoryEcho, must(codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoHop, ID: e.ID, Hop: h})))
}

func (c *chain) notice(s *routerConn, from *sender, f codec.Raw, reason codec.NoticeReason) {
	_ = s.write(from.frame(f.Sender(), codec.CategoryNotice, must(codec.AppendNotice(nil, &codec.Notice{
		Reason: reason, Recipient: f.Recipient(), Frames: []codec.NoticeFrame{{Digest: f.Digest(), SendTime: f.SendTime()}},
	}))))
}

func checkHops(t *testing.T, got Trace, end TraceEnd, names ...string) {
	t.Helper()
	var have []string
	for i, h := range got.Hops {
		if have = append(have, h.Name); h.Number != i+1 || h.Address.IsZero() != (h.Name == "") {
			t.Errorf("hop %d: %+v", i+1, h)
		}
	}
	if got.End != end || !slices.Equal(have, names) || (got.Notice != nil) != (end == TraceNoticed) {
		t.Errorf("trace ended with %v, %v after %q, want %v after %q", got.End, got.Notice, have, end, names)
	}
}

func TestTraceShowsEachHop(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		c := newChain(w, "r2", "r3")
		var told []Hop
		got, err := a.Trace(w.ctx(), b.Address(), TraceConfig{OnHop: func(h Hop) { told = append(told, h) }})
		if err != nil {
			t.Fatal(err)
		}
		checkHops(t, got, TraceArrived, "router/"+w.r.grant.Name, "router/r2", "router/r3", "b")
		if !slices.Equal(told, got.Hops) {
			t.Errorf("told of %+v", told)
		}
		second, last := got.Hops[1], got.Hops[3]
		if second.RoundTrip != 40*time.Millisecond || second.Next != c.routers[2].address() || second.Software != "r2/1.0.0" ||
			second.Time.IsZero() || second.Arrived || !last.Arrived || !last.Next.IsZero() || last.Address != b.Address() || last.Software != SoftwareDefault {
			t.Errorf("hops %+v and %+v", second, last)
		}
		if len(a.echoes.waiting) != 0 {
			t.Error("an answer is still waited for")
		}
	})
}

func TestTraceOfARouterEndsThere(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a")
		c := newChain(w, "r2")
		got, err := a.Trace(w.ctx(), c.routers[1].address(), TraceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		checkHops(t, got, TraceArrived, "router/"+w.r.grant.Name, "router/r2")
	})
}

func TestTraceSaysWhatStoppedIt(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		c := newChain(w, "r2", "r3")
		c.silent, c.old = []string{"r2"}, []string{"r3"}
		c.stop = func(s *routerConn, f codec.Raw) bool {
			if f.TTL() != 4 {
				return false
			}
			c.notice(s, c.routers[2], f, codec.NoticeQueueFull)
			return true
		}
		start := time.Now()
		got, err := a.Trace(w.ctx(), b.Address(), TraceConfig{Wait: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		checkHops(t, got, TraceNoticed, "router/"+w.r.grant.Name, "", "router/r3")
		if got.Notice.Reason != codec.NoticeQueueFull || got.Notice.FromName != "router/r3" {
			t.Errorf("notice %+v", got.Notice)
		}
		if took := time.Since(start); took < time.Second || took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		if h := got.Hops[2]; !h.Time.IsZero() || !h.Next.IsZero() || h.RoundTrip != 60*time.Millisecond {
			t.Errorf("hop by notice: %+v", h)
		}
	})
}

// A router may hold a frame for a node that has just left, and give up later.
func TestALateNoticeEndsATrace(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		c := newChain(w)
		var held codec.Raw
		c.stop = func(s *routerConn, f codec.Raw) bool {
			switch f.TTL() {
			case 1:
				return false
			case 2:
				held = f
			case 4:
				c.notice(s, c.routers[0], held, codec.NoticeNoRoute)
			}
			return true
		}
		got, err := a.Trace(w.ctx(), b.Address(), TraceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		checkHops(t, got, TraceNoticed, "router/"+w.r.grant.Name, "", "")
	})
}

func TestTraceGivesUpOnSilence(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		c := newChain(w, "r2", "r3", "r4", "r5", "r6")
		c.silent = []string{"r2", "r3", "r4", "r5"}
		got, err := a.Trace(w.ctx(), b.Address(), TraceConfig{Wait: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		checkHops(t, got, TraceSilent, "router/"+w.r.grant.Name, "", "", "", "")
		if got, err = a.Trace(w.ctx(), b.Address(), TraceConfig{HopsMax: 2, Wait: time.Second}); err != nil {
			t.Fatal(err)
		}
		checkHops(t, got, TraceHopsMax, "router/"+w.r.grant.Name, "")
		got, err = a.Trace(w.within(4500*time.Millisecond), b.Address(), TraceConfig{})
		checkError[*WaitError](t, err, "answer of hop 4")
		if len(got.Hops) != 3 || len(a.echoes.waiting) != 0 {
			t.Errorf("%+v, %d waited for", got, len(a.echoes.waiting))
		}
	})
}

func TestHopsAreBelievedOfRoutersOfTheDomainAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		c := newChain(w)
		other := routerIn(newDomain("other.example"), "r1")
		w.r.knows(other.peer)
		node := w.d.node("mallory")
		w.r.knows(node.Peer)
		mallory := newSender(node.Peer, node.Key)
		c.stop = func(s *routerConn, f codec.Raw) bool {
			_ = s.write(mallory.hop(f, codec.Hop{}))
			_ = s.write(other.hop(f, codec.Hop{}))
			wrong := must(codec.DecodeEcho(f.Body()))
			wrong.Type, wrong.ID[0] = codec.EchoHop, wrong.ID[0]+1
			_ = s.write(c.routers[0].frame(f.Sender(), codec.CategoryEcho, must(codec.AppendEcho(nil, wrong))))
			return true
		}
		got, err := a.Trace(w.ctx(), b.Address(), TraceConfig{HopsMax: 1})
		if err != nil {
			t.Fatal(err)
		}
		checkHops(t, got, TraceHopsMax, "")
		w.drops(a, map[string]uint64{"unknown-certificate": 1})
	})
}

func TestTraceRefusesWhatCannotBe(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a")
		for _, c := range []TraceConfig{{HopsMax: -1}, {HopsMax: 256}, {Wait: -1}} {
			if _, err := a.Trace(w.ctx(), a.Address(), c); err == nil {
				t.Errorf("%+v was taken", c)
			}
		}
		if _, err := a.Trace(w.ctx(), codec.Address{}, TraceConfig{}); err == nil {
			t.Error("the zero address was taken")
		}
	})
}

// A notice is believed of any router of the domain, and of no other.
func TestNoticesOfFarRouters(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		far, stranger := routerIn(w.d, "r9"), routerIn(newDomain("other.example"), "r9")
		w.r.knows(far.peer)
		w.r.knows(stranger.peer)
		from := stranger
		c := &chain{w: w}
		w.r.intercept = func(s *routerConn, f codec.Raw) bool {
			c.notice(s, from, f, codec.NoticeQueueFull)
			return true
		}
		sent := w.send(a, b.Address(), "to nobody")
		w.drops(a, map[string]uint64{"unknown-certificate": 1})
		if err := sent.noticed(); err != nil {
			t.Errorf("a router of another domain was believed: %v", err)
		}
		from = far
		sent = w.send(a, b.Address(), "to nobody")
		synctest.Wait() // it asks for the router's certificate first
		e := checkError[*NoticeError](t, sent.noticed(), "the router r9 "+far.address().String(), "queue-full")
		if e.From != far.address() || e.FromName != "router/r9" {
			t.Errorf("%+v", e)
		}
	})
}
