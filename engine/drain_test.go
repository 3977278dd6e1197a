package engine

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
)

// closing is a Close under way.
type closing struct {
	t     *testing.T
	began time.Time
	err   chan error
}

func startClose(t *testing.T, r *Router, within time.Duration) *closing {
	c := &closing{t, time.Now(), make(chan error, 1)}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		err := r.close(ctx)
		r.closeOnce.Do(func() {}) // startRouter's Close has nothing to do
		c.err <- err
	}()
	return c
}

// wait returns what Close returns, and how long it took.
func (c *closing) wait() (error, time.Duration) {
	c.t.Helper()
	select {
	case err := <-c.err:
		return err, time.Since(c.began)
	case <-time.After(2 * patience):
		c.t.Fatal("Close does not return")
	}
	return nil, 0
}

// heard is all that a client has read, in a goroutine of its own.
type heard struct {
	mu       sync.Mutex
	frames   []codec.Raw // but link control and notices
	told     map[codec.NoticeReason]int
	goodbyes []*codec.Goodbye
	received uint64 // as the router has said last
	answered uint64 // what the client has said to have received
	ended    bool
}

// listen begins that; from then on c answers no questions.
func (c *client) listen() *heard {
	h := &heard{told: map[codec.NoticeReason]int{}, answered: c.received}
	c.silent = true
	go func() {
		for {
			f, err := c.read()
			h.mu.Lock()
			if err != nil {
				h.ended = true
				h.mu.Unlock()
				c.conn.Close()
				return
			}
			h.hear(f)
			h.mu.Unlock()
		}
	}()
	return h
}

func (h *heard) hear(f codec.Raw) {
	switch f.Category() {
	case codec.CategoryNotice:
		n := must(codec.DecodeNotice(f.Body()))
		h.told[n.Reason] += len(n.Frames) + int(n.More)
	case codec.CategoryControl:
		switch m := must(codec.DecodeControl(f.Body())).(type) {
		case *codec.Goodbye:
			h.goodbyes, h.received = append(h.goodbyes, m), m.Received
		case *codec.KeepAlive:
			h.received = m.Received
		}
	default:
		h.frames = append(h.frames, f)
	}
}

// has waits until ok holds of what was heard.
func (h *heard) has(t *testing.T, what string, ok func() bool) {
	t.Helper()
	waitFor(t, what, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return ok()
	})
}

// asked waits for the goodbye of a router that drains.
func (h *heard) asked(t *testing.T) *codec.Goodbye {
	t.Helper()
	h.has(t, "goodbye", func() bool { return len(h.goodbyes) > 0 })
	g := h.goodbyes[0]
	if g.Reason != codec.GoodbyeDraining {
		t.Fatalf("goodbye %+v", g)
	}
	return g
}

// confirmed waits until the router has confirmed so many frames of c.
func (h *heard) confirmed(t *testing.T, c *client, frames uint64) {
	t.Helper()
	c.say(&codec.KeepAlive{Answer: true, Received: h.answered})
	h.has(t, "confirmation", func() bool { return h.received >= frames })
}

// left says goodbye and waits for the end.
func (h *heard) left(t *testing.T, c *client) {
	t.Helper()
	c.say(&codec.Goodbye{Reason: codec.GoodbyeDone, Received: h.answered})
	h.has(t, "the end", func() bool { return h.ended })
	if len(h.goodbyes) != 1 {
		t.Errorf("%d goodbyes, want one: %+v", len(h.goodbyes), h.goodbyes[1])
	}
}

// checkNumbers asserts that frames with the numbers from `from` on came, in
// order, and how many.
func (h *heard) checkNumbers(t *testing.T, name string, from, frames int) {
	t.Helper()
	if len(h.frames) != frames {
		t.Errorf("%s: %d frames came, want %d", name, len(h.frames), frames)
	}
	for n, f := range h.frames {
		if numberOf(f) != from+n {
			t.Fatalf("%s: frame %d came as number %d", name, numberOf(f), from+n)
		}
	}
}

func checkEnds(t *testing.T, r *Router, want map[drainEnd]uint64) {
	t.Helper()
	for end, n := range r.drainEnds() {
		if n != want[drainEnd(end)] {
			t.Errorf("%d connections %v, want %d", n, drainEnd(end), want[drainEnd(end)])
		}
	}
}

func TestADrainingRouterServesWhoHasNotAnswered(t *testing.T) {
	d := newAuthority("prod.example")
	others := []string{"dbw://other.example:7100", "dbw://[fd00::1]", "dbw://third.example"}
	r, addr := startRouter(t, nil, d)
	reload(t, r, func(c *Config) { c.DrainTo = append([]string{"dbw://" + addr}, others...) })
	a, b, c := connect(t, addr, d.node("a")), connect(t, addr, d.node("b")), connect(t, addr, d.node("c"))
	atA, atB, atC := a.listen(), b.listen(), c.listen()
	end := startClose(t, r, patience)
	for _, h := range []*heard{atA, atB, atC} {
		g := h.asked(t)
		if g.ReadFor <= patience/2 || g.ReadFor > patience || !slices.Equal(slices.Sorted(slices.Values(g.Routers)), slices.Sorted(slices.Values(others))) {
			t.Errorf("goodbye %+v", g)
		}
	}
	if r.Ready() == nil {
		t.Error("ready while it stops")
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("a stopping router accepts")
	}
	const frames = 50
	for n := range frames {
		a.numbered(b.id.Peer.Address, n, 0)
		b.numbered(a.id.Peer.Address, n, 0)
	}
	atA.confirmed(t, a, frames)
	atB.confirmed(t, b, frames)
	atB.left(t, b)
	a.numbered(b.id.Peer.Address, frames, 0)
	atA.has(t, "a notice about who has answered", func() bool { return atA.told[codec.NoticeNoRoute] == 1 })
	c.conn.Close()
	atA.left(t, a)
	if err, took := end.wait(); err != nil || took > patience/2 {
		t.Errorf("Close: %v after %v", err, took)
	}
	atA.checkNumbers(t, "a", 0, frames)
	atB.checkNumbers(t, "b", 0, frames)
	checkEnds(t, r, map[drainEnd]uint64{drainAnswered: 2, drainClosed: 1})
	checkBalance(t, r)
}

// Who never answers is told again when the time is over, and what it was sent
// by then has come.
func TestADrainEndsWithoutAnAnswer(t *testing.T) {
	t.Parallel() // it waits for the end of the drain
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.DrainTo = []string{"dbw://other.example"} }, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	atA, atB := a.listen(), b.listen()
	const within = 8 * time.Second
	end := startClose(t, r, within)
	g := atA.asked(t)
	const frames = 20
	for n := range frames {
		a.numbered(b.id.Peer.Address, n, 1000)
	}
	atA.confirmed(t, a, frames)
	atA.has(t, "the end", func() bool { return atA.ended })
	atB.has(t, "the end", func() bool { return atB.ended })
	if took := time.Since(end.began); took < g.ReadFor {
		t.Errorf("ended after %v, promised to read for %v", took, g.ReadFor)
	}
	a.conn.Close()
	b.conn.Close()
	if err, took := end.wait(); err != nil || took > within+patience/4 {
		t.Errorf("Close: %v after %v", err, took)
	}
	atB.checkNumbers(t, "b", 0, frames)
	for _, h := range []*heard{atA, atB} {
		if last := h.goodbyes[len(h.goodbyes)-1]; len(h.goodbyes) != 2 || last.ReadFor != 0 || last.Reason != codec.GoodbyeDraining || len(last.Routers) != 1 {
			t.Errorf("%d goodbyes, the last %+v", len(h.goodbyes), last)
		}
	}
	checkEnds(t, r, map[drainEnd]uint64{drainLate: 2})
	checkBalance(t, r)
}

// All that a node sends while its recipient is asked to leave comes, once and in
// order, or the sender is told.
func TestAFloodDuringADrainLosesNothing(t *testing.T) {
	withLoops(t, func(t *testing.T, change func(*Config)) {
		d := newAuthority("prod.example")
		r, addr := startRouter(t, change, d)
		a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
		atA, atB := a.listen(), b.listen()
		var sent atomic.Int64
		stop, flooding := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(flooding)
			for {
				select {
				case <-stop:
					return
				default:
				}
				body := make([]byte, 2000)
				body[0], body[1], body[2], body[3] = byte(sent.Load()>>24), byte(sent.Load()>>16), byte(sent.Load()>>8), byte(sent.Load())
				if _, err := a.conn.Write(a.wire(a.frame(b.id.Peer.Address, 64, body))); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				sent.Add(1)
			}
		}()
		atB.has(t, "the flood", func() bool { return len(atB.frames) > 500 })
		end := startClose(t, r, patience)
		atB.asked(t)
		now := sent.Load()
		atB.has(t, "more of it after goodbye", func() bool { return len(atB.frames) > int(now)+500 })
		atB.left(t, b)
		atA.has(t, "notices", func() bool { return atA.told[codec.NoticeNoRoute] > 100 })
		close(stop)
		<-flooding
		atA.confirmed(t, a, uint64(sent.Load()))
		told := func() int { return atA.told[codec.NoticeNoRoute] + atA.told[codec.NoticeRecipientGone] }
		atA.has(t, "notices about the rest", func() bool { return len(atB.frames)+told() == int(sent.Load()) })
		atA.left(t, a)
		if err, _ := end.wait(); err != nil {
			t.Errorf("Close: %v", err)
		}
		atB.checkNumbers(t, "b", 0, int(sent.Load())-told())
		checkEnds(t, r, map[drainEnd]uint64{drainAnswered: 2})
		checkBalance(t, r)
	})
}

// What a peer does not read before the end is told to its senders, who are still
// there, and by Close.
func TestTheSendersOfWhatADrainCannotDeliverAreTold(t *testing.T) {
	withLoops(t, func(t *testing.T, change func(*Config)) {
		d := newAuthority("prod.example")
		r, addr := startRouter(t, func(c *Config) { change(c); c.QueueHigh = 64 << 20 }, d)
		a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
		b.conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
		atA := a.listen()
		const frames = 2000
		for n := range frames {
			a.numbered(b.id.Peer.Address, n, 8000)
		}
		atA.confirmed(t, a, frames)
		end := startClose(t, r, 2*time.Second)
		atA.asked(t)
		atA.has(t, "the end", func() bool { return atA.ended })
		a.conn.Close()
		err, _ := end.wait()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "frames could not be handed over") {
			t.Errorf("Close: %v", err)
		}
		if told, dropped := atA.told[codec.NoticeRecipientGone], r.droppedFor(dropRecipientGone); told < frames/10 || uint64(told)+r.unnoticed() != dropped {
			t.Errorf("%d told, %d not, %d dropped", told, r.unnoticed(), dropped)
		}
		checkEnds(t, r, map[drainEnd]uint64{drainLate: 2})
		checkBalance(t, r)
	})
}

// A recipient that is slow, but reads, gets all of its queue after its answer.
func TestTheQueueOfWhoHasAnsweredIsHandedOver(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.QueueHigh = 64 << 20 }, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	atA := a.listen()
	const frames = 1000
	for n := range frames {
		a.numbered(b.id.Peer.Address, n, 8000)
	}
	atA.confirmed(t, a, frames)
	end := startClose(t, r, patience)
	atA.asked(t)
	atA.left(t, a)
	waitFor(t, "the sender is gone", func() bool { return r.table.Len() == 1 })
	b.say(&codec.Goodbye{Reason: codec.GoodbyeDone}) // it has not read a byte yet
	waitFor(t, "its answer is taken", func() bool { return r.table.Len() == 0 })
	atB := b.listen()
	atB.has(t, "the end", func() bool { return atB.ended })
	if err, _ := end.wait(); err != nil {
		t.Errorf("Close: %v", err)
	}
	atB.checkNumbers(t, "b", 0, frames)
	checkEnds(t, r, map[drainEnd]uint64{drainAnswered: 2})
	checkBalance(t, r)
}

// A connection that has no hello yet is not waited for, but told where to go.
func TestWhoComesDuringADrainIsSentOn(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.DrainTo = []string{"dbw://other.example"} }, d)
	id := d.node("a")
	early := must(dial(t, addr, id, clientTLS(id)))
	early.say(testHello())
	early.control()
	silent := must(dial(t, addr, id, clientTLS(id)))
	waitFor(t, "both are there", func() bool { return r.link.Stats().Handshaking == 0 && r.drains.open.Load() == 2 })
	late, err := net.Dial("tcp", addr) // its handshake comes later
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	waitFor(t, "it is accepted", func() bool { return r.gate.State().Silent == 1 })
	atEarly := early.listen()
	end := startClose(t, r, patience)
	atEarly.asked(t)
	if g := silent.ended(); g == nil || g.Reason != codec.GoodbyeDraining || g.ReadFor != 0 || len(g.Routers) != 1 {
		t.Errorf("without a hello: goodbye %+v", g)
	}
	id = d.node("b")
	other := must(handshake(t, late, id, clientTLS(id)))
	if g := other.ended(); g == nil || g.Reason != codec.GoodbyeDraining || g.ReadFor != 0 || len(g.Routers) != 1 {
		t.Errorf("a late handshake: goodbye %+v", g)
	}
	silent.conn.Close()
	other.conn.Close()
	atEarly.left(t, early)
	if err, took := end.wait(); err != nil || took > patience/2 {
		t.Errorf("Close: %v after %v", err, took)
	}
	checkEnds(t, r, map[drainEnd]uint64{drainAnswered: 1})
}

// What waits for who may come back is given up when the router stops: its
// senders can try elsewhere.
func TestADrainingRouterHoldsNothing(t *testing.T) {
	withLoops(t, func(t *testing.T, change func(*Config)) {
		d := newAuthority("prod.example")
		r, addr := startRouter(t, change, d)
		a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
		b.goodbye()
		atA := a.listen()
		const frames = 10
		for n := range frames {
			a.numbered(b.id.Peer.Address, n, 0)
		}
		atA.confirmed(t, a, frames)
		if n := r.withdrawn.frames.Load(); n != frames {
			t.Errorf("%d frames wait", n)
		}
		end := startClose(t, r, patience)
		atA.has(t, "notices", func() bool { return atA.told[codec.NoticeNoRoute] == frames })
		a.numbered(b.id.Peer.Address, frames, 0)
		atA.has(t, "a notice at once", func() bool { return atA.told[codec.NoticeNoRoute] == frames+1 })
		atA.left(t, a)
		if err, _ := end.wait(); err != nil {
			t.Errorf("Close: %v", err)
		}
		checkBalance(t, r)
	})
}

func TestACloseWithoutTimeEndsAtOnce(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := connect(t, addr, d.node("a"))
	atA := a.listen()
	if err, took := startClose(t, r, 0).wait(); err != nil || took > patience/4 {
		t.Errorf("Close: %v after %v", err, took)
	}
	atA.has(t, "the end", func() bool { return atA.ended })
	checkEnds(t, r, nil)
}

func TestOwnListenersAreNoOtherRouters(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	if _, err := r.Listen("0.0.0.0:0"); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	listeners := slices.Clone(r.listeners)
	r.mu.Unlock()
	_, one, _ := net.SplitHostPort(addr)
	_, all, _ := net.SplitHostPort(listeners[1].Addr().String())
	own := []string{"dbw://127.0.0.1:" + one, "dbw://127.0.0.1:" + all, "dbw://127.1.2.3:" + all, "dbw://[::1]:" + all, "dbw://localhost:" + all, "dbw://localhost:" + one}
	foreign := []string{"dbw://127.0.0.2:" + one, "dbw://127.0.0.1:1", "dbw://192.0.2.7:" + all, "dbw://other.example:" + all, "dbw://127.0.0.1"}
	if got := withoutOwn(slices.Concat(own, foreign, foreign), listeners); !slices.Equal(got, foreign) {
		t.Errorf("%v\nwant %v", got, foreign)
	}
}

func TestRoutersToDrainToAreChecked(t *testing.T) {
	seventeen := make([]string, 17)
	for i := range seventeen {
		seventeen[i] = "dbw://other.example"
	}
	for text, urls := range map[string][]string{
		"at most 16": seventeen,
		"dbw://":     {"other.example:7100"},
		"port 0":     {"dbw://other.example:0"},
	} {
		if err := CheckRouters(urls); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v", urls, err)
		}
	}
	if err := CheckRouters(seventeen[:16]); err != nil {
		t.Error(err)
	}
}
