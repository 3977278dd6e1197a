package gate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// door is a gate whose passes have names, and what it tells them.
type door struct {
	t    *testing.T
	gate *Gate
	now  time.Time
	told []string // in order: what was begun, and ended after how long
	slow bool     // handshakes are not answered when they begin
}

func newDoor(t *testing.T, l Limits) *door { return &door{t: t, gate: New(l, start), now: start} }

// come has a connection come that says nothing.
func (d *door) come(name, from string) *Pass {
	d.t.Helper()
	p, err := d.gate.Admit(ip(from), d.now, func(why error, after time.Duration) {
		if why != ErrDisplaced {
			d.t.Errorf("%s: %v", name, why)
		}
		d.told = append(d.told, fmt.Sprint(name, " ends ", after))
	})
	if err != nil {
		d.t.Fatalf("%s: %v", name, err)
	}
	return p
}

func (d *door) ready(name string, p *Pass) {
	p.Ready(d.now, func() {
		d.told = append(d.told, name+" begins")
		if !d.slow {
			p.Answered(d.now)
		}
	})
}

// ask is come and ready.
func (d *door) ask(name, from string) *Pass {
	d.t.Helper()
	p := d.come(name, from)
	d.ready(name, p)
	return p
}

func (d *door) check(want ...string) {
	d.t.Helper()
	if !slices.Equal(d.told, want) {
		d.t.Errorf("told %q, want %q", d.told, want)
	}
	d.told = nil
	check(d.t, d.gate)
}

func (d *door) handshaken(p *Pass) {
	d.t.Helper()
	if err := p.Handshaken(d.now); err != nil {
		d.t.Error(err)
	}
}

// waiting is how many may wait in a test that fills the room.
const waiting = 16

const patienceAtFirst = patienceFactor * tookAtFirst

func TestWhoSaysNothingHoldsNoHandshake(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 1})
	silent := d.come("silent", "192.0.2.1")
	d.ask("a", "192.0.2.2")
	d.check("a begins")
	if s := d.gate.State(); s.Silent != 1 || s.Ready != 0 || s.Handshaking != 1 {
		t.Errorf("%+v", s)
	}
	silent.Gone(d.now)
	d.check()
}

func TestAtTheLimitHandshakesYield(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 3})
	a := d.ask("a", "192.0.2.1")
	b1 := d.ask("b1", "192.0.2.2")
	b2 := d.ask("b2", "192.0.2.2")
	d.check("a begins", "b1 begins", "b2 begins")
	c := d.ask("c", "192.0.2.3") // of the source with the most, the oldest, at once
	d.check("b1 ends 0s")
	b1.Gone(d.now)
	d.check("c begins")
	d.now = d.now.Add(patienceAtFirst / 4)
	d1 := d.ask("d1", "192.0.2.4") // each has one, but b2's source had one that came to nothing
	d.check(fmt.Sprint("b2 ends ", patienceAtFirst*3/4))
	d.handshaken(b2) // within its time: it stays
	d.check("d1 begins")
	d2 := d.ask("d2", "192.0.2.4") // it does not throw out others, that have no more
	d.check()
	e := d.ask("e", "192.0.2.5") // the oldest, when its time is over
	d.check(fmt.Sprint("a ends ", patienceFactor*d.gate.took-patienceAtFirst/4))
	a.Gone(d.now)
	d.check("e begins") // d2's source has another under way
	c.Gone(d.now)
	d.check("d2 begins")
	d.now = d.now.Add(time.Hour)
	d.ask("f", "192.0.2.6") // d1 has been there for long, and its source has most
	d.check("d1 ends 0s")
	d1.Gone(d.now)
	d.check("f begins")
	e.Gone(d.now)
	d2.Gone(d.now)
	d.check()
}

func TestHowLongHandshakesTakeDecidesHowLongTheyMay(t *testing.T) {
	g := New(Limits{Handshakes: 1}, start)
	r := rand.New(rand.NewPCG(1, 2))
	stranger := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
	}
	// asks has a source come and another make it yield, and tells when.
	asks := func() (patience time.Duration) {
		first, err := g.Admit(stranger(), start, func(_ error, after time.Duration) { patience = after })
		if err != nil {
			t.Fatal(err)
		}
		begin(t, first, start)
		first.Answered(start)
		second, err := g.Admit(stranger(), start, func(error, time.Duration) {})
		if err != nil {
			t.Fatal(err)
		}
		second.Ready(start, func() {})
		first.Gone(start)
		second.Gone(start)
		return patience
	}
	take := func(took time.Duration) {
		for range 100 {
			p := admit(t, g, "192.0.2.3", nil)
			begin(t, p, start)
			p.Answered(start)
			if err := p.Handshaken(start.Add(took)); err != nil {
				t.Fatal(err)
			}
			p.Gone(start)
		}
	}
	for _, c := range []struct{ took, least, most time.Duration }{
		{time.Millisecond, patienceMin, patienceMin},
		{300 * time.Millisecond, 1190 * time.Millisecond, 1200 * time.Millisecond},
		{time.Minute, patienceMax, patienceMax},
		{-time.Second, patienceMin, patienceMin},
	} {
		take(c.took)
		if got := asks(); got < c.least || got > c.most {
			t.Errorf("handshakes take %v: %v of patience, want %v to %v", c.took, got, c.least, c.most)
		}
	}
}

// A source whose connections come to nothing stands behind one that was never
// seen, and makes nobody yield who has not failed more often.
func TestWhoHasFailedStandsBack(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 1})
	d.come("x", "192.0.2.1").Gone(d.now) // said nothing
	d.come("y", "192.0.2.2").Gone(d.now)
	d.come("y", "192.0.2.2").Gone(d.now)
	y := d.ask("y", "192.0.2.2")
	d.check("y begins") // there is room
	x := d.ask("x", "192.0.2.1")
	d.check(fmt.Sprint("y ends ", patienceAtFirst)) // y has failed more often
	z1 := d.ask("z1", "192.0.2.3")
	z2 := d.ask("z2", "192.0.2.4")
	d.check()
	y.Gone(d.now)
	d.check("z1 begins", fmt.Sprint("z1 ends ", patienceAtFirst)) // z2 has not failed either
	for range 5 {
		x.Gone(d.now) // it was not served, which counts as one failure however often
		x = d.ask("x", "192.0.2.1")
	}
	if x.source.failures != 1 {
		t.Errorf("%d failures", x.source.failures)
	}
	z2.Gone(d.now)
	z1.Gone(d.now)
	d.check("x begins")
	d.ask("y", "192.0.2.2")
	d.check() // x has failed less often
	d.now = d.now.Add(failuresMax * failureTime)
	d.ask("y", "192.0.2.2")
	d.check("x ends 0s") // all is forgotten
}

// A source with many nodes, all good, holds its own against one with few that
// has failed.
func TestManyNodesBehindOneAddressAreNotPushedOut(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 4, Waiting: 8})
	for range 3 {
		d.come("x", "192.0.2.66").Gone(d.now)
	}
	d.ask("x", "192.0.2.66")
	for i := range 3 {
		d.ask(fmt.Sprint("n", i), "192.0.2.1")
	}
	d.check("x begins", "n0 begins", "n1 begins", "n2 begins")
	d.ask("n3", "192.0.2.1")
	d.check(fmt.Sprint("x ends ", patienceAtFirst))
	for i := range 7 {
		d.come(fmt.Sprint("m", i), "192.0.2.1")
	}
	admitAt(t, d.gate, "192.0.2.66", d.now, ErrWaiting)
	d.check()
}

// fill has as many silent connections come as may wait, each from a source of
// its own, and returns them.
func (d *door) fill(n int) (all []*Pass) {
	for i := range n {
		all = append(all, d.come(fmt.Sprint("s", i), fmt.Sprintf("10.0.%d.%d", i>>8, i&255)))
	}
	return all
}

func TestTheOldestOfThoseWhoWaitMakesRoom(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 1, Waiting: waiting})
	all := d.fill(waiting)
	d.check()
	n := d.come("n", "192.0.2.1")
	d.check("s0 ends 0s")
	all[0].Ready(d.now, func() { t.Error("a handshake begins that was told to end") })
	if s := d.gate.State(); s.Silent != waiting || s.Sources != waiting+1 {
		t.Errorf("%+v", s)
	}
	all[0].Gone(d.now)
	d.come("o", "192.0.2.2")
	d.check("s1 ends 0s")
	n.Gone(d.now)
	d.check()
}

// Who has sent its first record goes after who has not; a newcomer cannot have.
func TestWhoIsReadyStaysLonger(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 1, Waiting: waiting})
	d.ask("x", "192.0.2.9")
	all := d.fill(waiting)
	for i, p := range all {
		if i != 7 {
			d.ready(fmt.Sprint("s", i), p)
		}
	}
	d.check("x begins", fmt.Sprint("x ends ", patienceAtFirst))
	d.ask("n", "192.0.2.1")
	d.check("s7 ends 0s")
	d.come("o", "192.0.2.2")
	d.check("s0 ends 0s")
}

func TestTheSourceWithMostWaitingMakesRoom(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 1, Waiting: waiting})
	d.fill(waiting - 4)
	for i := range 4 {
		d.come(fmt.Sprint("a", i), "192.0.2.1")
	}
	d.come("b0", "192.0.2.2")
	d.check("a0 ends 0s")
	d.come("b1", "192.0.2.2")
	d.check("a1 ends 0s")
	admitAt(t, d.gate, "192.0.2.2", d.now, ErrWaiting) // it would have more than a
	d.check()
	d.come("c", "192.0.2.3")
	d.come("e", "192.0.2.4")
	d.check("b0 ends 0s", "b1 ends 0s") // one of theirs has come to nothing
	d.come("f", "192.0.2.5")
	d.check("a2 ends 0s")
	d.come("g", "192.0.2.6")
	d.check("s0 ends 0s") // now each has one
}

func TestWhoHasFailedMostMakesRoom(t *testing.T) {
	d := newDoor(t, Limits{Waiting: waiting})
	for range 2 {
		d.come("x", "192.0.2.1").Gone(d.now)
	}
	d.come("y", "192.0.2.2").Gone(d.now)
	d.fill(waiting - 2)
	d.come("y", "192.0.2.2")
	d.come("x", "192.0.2.1")
	d.check()
	d.come("n", "192.0.2.4")
	d.check("x ends 0s")
	d.come("o", "192.0.2.5")
	d.check("y ends 0s")
	admitAt(t, d.gate, "192.0.2.1", d.now, ErrWaiting) // it is itself the one
	d.come("p", "192.0.2.6")
	d.check("s0 ends 0s")
}

// Work on first records is done a little at a time: handshakes that have done
// theirs, and all others that want the processor, do not stand behind all of it.
func TestFewHandshakesStartAtATime(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 4, Starting: 2})
	d.slow = true
	a, b := d.ask("a", "192.0.2.1"), d.ask("b", "192.0.2.2")
	c := d.ask("c", "192.0.2.3")
	e := d.ask("e", "192.0.2.4")
	d.check("a begins", "b begins")
	a.Answered(d.now)
	a.Answered(d.now)
	d.check("c begins")
	b.Gone(d.now)
	d.check("e begins")
	c.Answered(d.now)
	e.Answered(d.now)
	d.now = d.now.Add(time.Hour)
	f := d.ask("f", "192.0.2.5")
	g := d.ask("g", "192.0.2.6")
	h := d.ask("h", "192.0.2.7")
	d.ask("i", "192.0.2.8").Gone(d.now)
	d.check("f begins", "a ends 0s") // of those that were answered; one at a time
	a.Gone(d.now)
	d.check("g begins")
	d.handshaken(e) // f and g are starting
	d.check()
	f.Answered(d.now)
	d.check("h begins")
	for _, p := range []*Pass{c, e, f, g, h} {
		p.Gone(d.now)
	}
	d.check()
}

func TestMoreRoomIsUsedAtOnce(t *testing.T) {
	d := newDoor(t, Limits{Handshakes: 1})
	d.ask("a", "192.0.2.1")
	d.ask("b", "192.0.2.1")
	d.ask("c", "192.0.2.1")
	d.check("a begins")
	d.gate.SetLimits(Limits{Handshakes: 3}, d.now)
	d.check("b begins", "c begins")
}

func TestARankingKeepsTheFirstAtHand(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	k := ranking{
		before: func(a, b *source) bool { return a.failures < b.failures },
		at:     func(s *source) *position { return &s.inCrowd },
	}
	all := make([]source, 50)
	in := map[*source]bool{}
	for range 20_000 {
		s := &all[r.IntN(len(all))]
		s.failures = r.IntN(30)
		in[s] = r.IntN(3) > 0
		k.place(s, in[s])
		var least *source
		for s, there := range in {
			if there && (least == nil || s.failures < least.failures) {
				least = s
			}
		}
		first := k.first()
		if (first == nil) != (least == nil) || first != nil && first.failures != least.failures {
			t.Fatalf("first is %+v, least %+v", first, least)
		}
		if bad := k.check(); bad != "" {
			t.Fatal(bad)
		}
	}
}
