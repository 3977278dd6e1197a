package session

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

func TestASlowReaderOfAGibibyteLosesNothingAndHoldsNoMoreThanItsWindow(t *testing.T) {
	const size, total = 64 << 10, 1 << 30
	n := newNetwork(t, 30)
	a, b := n.join()
	b.lazy = true
	came := 0
	b.sink = func(c []byte) {
		if len(c) != size || binary.BigEndian.Uint64(c) != uint64(came) {
			t.Fatalf("message %d has %d bytes and number %d", came, len(c), binary.BigEndian.Uint64(c))
		}
		came++
	}
	most := 0
	r := rand.New(n.random)
	for i := range total / size {
		content := make([]byte, size)
		binary.BigEndian.PutUint64(content, uint64(i))
		a.outbox = append(a.outbox, content)
		a.pump()
		for len(a.outbox) > 8 {
			n.run(time.Duration(r.IntN(20)) * time.Millisecond)
			most = max(most, b.peer.waiting)
			b.take(min(len(b.untaken), r.IntN(40)))
		}
	}
	b.lazy = false
	for range 20 {
		b.act()
		n.run(time.Second)
	}
	if came != total/size || b.drops[DropLate] != 0 {
		t.Errorf("%d of %d messages came, drops %v", came, total/size, b.drops)
	}
	if most > WindowDefault || most < WindowDefault/2 {
		t.Errorf("at most %d bytes waited, the window has %d", most, WindowDefault)
	}
	if a.peer.current.initiator && a.bodies["sealed"] > 20 {
		t.Errorf("%d probes and confirms, though nothing was lost", a.bodies["sealed"])
	}
}

// A lossy network takes all grants, so that only probes can help.
func TestABlockedSenderProbes(t *testing.T) {
	n := newNetwork(t, 31)
	for _, e := range n.ends {
		e.cfg.Window = 8192
		e.restart()
	}
	a, b := n.join()
	n.run(10 * time.Second)
	heal := n.lose(a, "message")
	for range 100 {
		a.send(string(make([]byte, 1000)))
	}
	if len(a.outbox) == 0 || len(a.outbox) == 100 {
		t.Fatalf("%d of 100 messages wait", len(a.outbox))
	}
	waited, sealed := len(a.outbox), a.bodies["sealed"]
	n.run(900 * time.Millisecond)
	if a.bodies["sealed"] != sealed || len(a.outbox) != waited {
		t.Error("a probe was sent before a second was over")
	}
	n.run(200 * time.Millisecond)
	if a.bodies["sealed"] == sealed || len(a.outbox) == waited {
		t.Error("no probe after a second, or no grant for what was lost")
	}
	heal()
	n.run(30 * time.Second)
	if len(a.outbox) != 0 || len(b.got) == 0 {
		t.Errorf("%d messages still wait, %d came", len(a.outbox), len(b.got))
	}
	n.talk()
}

func TestProbesOfAPatientSenderGrowRare(t *testing.T) {
	n := newNetwork(t, 32)
	for _, e := range n.ends {
		e.cfg.Window = 8192
		e.restart()
	}
	a, b := n.join()
	b.lazy = true
	for range 100 {
		a.send(string(make([]byte, 1000)))
	}
	sealed := a.bodies["sealed"]
	n.run(60 * time.Second)
	if probes := a.bodies["sealed"] - sealed; probes != 9 { // 1 2 4 8 … s
		t.Errorf("%d probes in a minute, want 9", probes)
	}
	a.peer.GiveUp()
	sealed = a.bodies["sealed"]
	n.run(60 * time.Second)
	if a.bodies["sealed"] != sealed {
		t.Error("somebody probes for nobody")
	}
	if b.peer.waiting > 8192 {
		t.Errorf("%d bytes wait", b.peer.waiting)
	}
}

func TestWhoExceedsItsCreditLosesTheSession(t *testing.T) {
	n := newNetwork(t, 33)
	a, b := n.join()
	b.lazy = true
	a.peer.current.out.granted = 1 << 40
	for range 100 {
		a.send(string(make([]byte, 64<<10)))
	}
	n.run(500 * time.Millisecond)
	if b.drops[DropCredit] != 1 || b.drops[DropUnknown] == 0 || b.peer.waiting > WindowDefault {
		t.Errorf("drops %v, %d bytes wait", b.drops, b.peer.waiting)
	}
	b.lazy = false
	b.act()
	n.run(5 * time.Second)
	n.talk()
}

func TestOfTwoGrantsTheLaterCounts(t *testing.T) {
	var o outbound
	for c := uint64(1); c <= 10; c++ {
		o.sent(c, 300)
	}
	check := func(granted, outstanding uint64) {
		t.Helper()
		if o.granted != granted || o.outstanding != outstanding {
			t.Errorf("%d bytes granted, %d under way; want %d and %d", o.granted, o.outstanding, granted, outstanding)
		}
	}
	o.grant(5, 4, 1000)
	check(1000, 1800)
	o.grant(4, 9, 5000) // sent before the other
	check(1000, 1800)
	o.grant(6, 4, 4000)
	check(4000, 1800)
	o.grant(7, 10, 0)
	check(0, 0)
	if o.covers(1) || o.underWay.items != nil && len(o.underWay.items) != 0 {
		t.Error("a grant of nothing covers something, or what is not under way is kept")
	}
}

func TestWindowsAreChecked(t *testing.T) {
	for _, w := range []int{-1, 1, WindowMax + 1} {
		if _, err := New(Config{Window: w}); err == nil {
			t.Errorf("a window of %d is taken", w)
		}
	}
	for _, w := range []int{0, WindowMax} {
		if _, err := New(Config{Window: w}); err != nil {
			t.Error(err)
		}
	}
}
