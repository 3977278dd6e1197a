package engine

import (
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// trace makes a trace to the address given.
func (c *client) trace(to codec.Address, ttl, id byte) *codec.Frame {
	f := c.frame(to, codec.CategoryEcho, must(codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoTrace, ID: [8]byte{id}})))
	f.TTL = ttl
	return f
}

// hop returns the next frame's hop, which answers the trace of that ID.
func (c *client) hop(id byte) codec.Hop {
	c.t.Helper()
	f := c.next()
	e, err := codec.DecodeEcho(f.Body())
	if err != nil || f.Category() != codec.CategoryEcho || e.Type != codec.EchoHop || e.ID[0] != id {
		c.t.Fatalf("%v came: %+v, %v", f.Category(), e, err)
	}
	if f.Sender() != c.router || f.Recipient() != c.id.Peer.Address || e.Hop.Software != "causeway/0.0.1" ||
		time.Since(time.Unix(0, int64(e.Hop.Time))).Abs() > patience {
		c.t.Errorf("hop %+v from %v", e.Hop, f.Sender())
	}
	return e.Hop
}

func TestATraceWithoutTTLIsAnsweredByAHop(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	to, nobody := b.id.Peer.Address, codec.Address(d.node("nobody").Peer.Address)
	for ttl := range byte(2) {
		a.send(a.trace(to, ttl, ttl))
		if h := a.hop(ttl); h.TTL != ttl || h.Next != to {
			t.Errorf("hop of a trace with TTL %d: %+v", ttl, h)
		}
	}
	a.send(a.trace(nobody, 1, 2))
	if h := a.hop(2); !h.Next.IsZero() {
		t.Errorf("a way to nobody is known: %+v", h)
	}
	a.send(a.trace(a.router, 7, 3))
	if h := a.hop(3); !h.Next.IsZero() || h.TTL != 7 {
		t.Errorf("hop of the recipient: %+v", h)
	}
	a.send(a.trace(to, 2, 4)) // it goes on
	if f := b.next(); f.TTL() != 1 || f.Category() != codec.CategoryEcho {
		t.Errorf("%v came with TTL %d", f.Category(), f.TTL())
	}
	if n := r.droppedFor(dropTTL); n != 0 {
		t.Errorf("%d dropped for their TTL", n)
	}
	ping := a.frame(to, codec.CategoryEcho, must(codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoRequest})))
	ping.TTL = 1
	a.send(ping) // all but traces have a notice
	if f := a.next(); f.Category() != codec.CategoryNotice || must(codec.DecodeNotice(f.Body())).Reason != codec.NoticeTTLSpent {
		t.Errorf("%v came", f.Category())
	}
}

func TestTracesOfAnotherDomainHaveNoHop(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("other.example")
	_, addr := startRouter(t, nil, d, other)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, other.node("b"))
	a.send(a.trace(b.id.Peer.Address, 1, 1))
	if f := a.next(); f.Category() != codec.CategoryNotice || must(codec.DecodeNotice(f.Body())).Reason != codec.NoticeNotPermitted {
		t.Errorf("%v came", f.Category())
	}
}

func TestHopsHaveTheRateOfEchoes(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), d.node("b")
	var wire []byte
	const sent = 3 * echoesPerSecond
	for range sent {
		wire = append(wire, a.wire(a.trace(b.Peer.Address, 1, 1))...)
	}
	began := time.Now()
	a.write(wire)
	hops := len(a.sync())
	most := echoesPerSecond*(1+time.Since(began).Seconds()) + 1
	if dropped := r.droppedFor(dropEchoRate); hops < echoesPerSecond || float64(hops) > most || int(dropped)+hops != sent {
		t.Errorf("%d hops and %d dropped of %d, at most %.0f hops", hops, dropped, sent, most)
	}
}

func TestATraceOverLinksShowsEachRouter(t *testing.T) {
	w := newFleet(t, "prod.example")
	for n := range 3 {
		w.add([]int{0}, []int{n - 1}[:min(n, 1)]...)
	}
	alice, bob := w.connect(0, w.domains[0].node("alice")), w.connect(2, w.domains[0].node("bob"))
	to := codec.Address(bob.id.Peer.Address)
	w.knows(to, 0, 1)
	w.knows(w.self(2, 0), 0)
	w.knows(alice.id.Peer.Address, 1, 2)
	ask := func(to codec.Address, ttl byte, from, next codec.Address, left uint8) {
		t.Helper()
		alice.send(alice.trace(to, ttl, ttl))
		f := alice.next()
		e, err := codec.DecodeEcho(f.Body())
		if err != nil || f.Category() != codec.CategoryEcho || e.Type != codec.EchoHop || e.ID[0] != ttl ||
			f.Sender() != from || e.Hop.Next != next || e.Hop.TTL != left {
			t.Errorf("TTL %d: %v from %v: %+v, %v", ttl, f.Category(), f.Sender(), e, err)
		}
	}
	none := codec.Address{}
	ask(to, 1, w.self(0, 0), w.self(1, 0), 1)
	ask(to, 2, w.self(1, 0), w.self(2, 0), 1)
	ask(to, 3, w.self(2, 0), to, 1)
	ask(w.self(2, 0), 2, w.self(1, 0), w.self(2, 0), 1)
	ask(w.self(2, 0), 32, w.self(2, 0), none, 30)
	alice.send(alice.trace(to, 4, 4))
	if f := bob.next(); f.Category() != codec.CategoryEcho || f.TTL() != 1 {
		t.Errorf("%v came with TTL %d", f.Category(), f.TTL())
	}
}

// A node may ask before it is known here where it is.
func TestEchoesWaitForWhoIsNotReached(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	id, nobody := d.node("late"), d.node("nobody")
	l := r.loops[0]
	onLoop := func(do func()) {
		done := make(chan struct{})
		l.link.Post(func() { do(); close(done) })
		<-done
	}
	domain := r.state().domains[d.Domain]
	onLoop(func() {
		for _, to := range []*pki.Identity{id, nobody} {
			l.sayEcho(domain, to.Peer.Address, &codec.Echo{Type: codec.EchoReply, ID: [8]byte{1}}, 0)
		}
		for i := range l.lateEchoes {
			l.lateEchoes[i].until = l.link.Now().Add(patience)
		}
	})
	c := connect(t, addr, id)
	if f := c.next(); f.Category() != codec.CategoryEcho || must(codec.DecodeEcho(f.Body())).Type != codec.EchoReply {
		t.Errorf("%v came", f.Category())
	}
	left := 0
	onLoop(func() {
		left = len(l.lateEchoes)
		l.lateEchoes[0].until = l.link.Now()
	})
	if left != 1 {
		t.Errorf("%d wait, want 1", left)
	}
	waitFor(t, "an end of waiting", func() bool {
		onLoop(func() { left = len(l.lateEchoes) })
		return left == 0
	})
}
