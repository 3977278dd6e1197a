package session

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"
)

// steady lets an end send a numbered message every so often, until stop.
func (e *end) steady(every time.Duration) (sent *int, stop func()) {
	count, on := 0, true
	var next func()
	next = func() {
		if on {
			count++
			e.send(fmt.Sprint(count))
			e.net.after(every, next)
		}
	}
	next()
	return &count, func() { on = false }
}

// whole checks that an end got all messages of steady.
func (e *end) whole(sent int) {
	e.net.t.Helper()
	for i, c := range e.texts() {
		if c != fmt.Sprint(i+1) {
			e.net.t.Fatalf("message %d is %q", i+1, c)
		}
	}
	if len(e.got) != sent {
		e.net.t.Fatalf("%d of %d messages came; drops %v", len(e.got), sent, e.drops)
	}
}

func TestSessionsAreRenewedUnderTrafficWithoutLoss(t *testing.T) {
	n := newNetwork(t, 20)
	a, b := n.join()
	a.got = nil
	sentA, stopA := a.steady(300 * time.Millisecond)
	sentB, stopB := b.steady(700 * time.Millisecond)
	first := a.peer.current
	n.run(9 * time.Minute)
	if a.peer.current != first {
		t.Fatal("renewed before its time")
	}
	n.run(90 * time.Second)
	if a.peer.current == first || len(a.peer.sessions) != 2 {
		t.Fatalf("not renewed after 10 minutes; %d sessions", len(a.peer.sessions))
	}
	n.run(time.Hour)
	stopA()
	stopB()
	n.run(time.Second)
	b.whole(*sentA)
	a.whole(*sentB)
	if m1s := a.bodies["M1"] + b.bodies["M1"]; m1s < 7 || m1s > 8 {
		t.Errorf("%d handshakes in 71 minutes", m1s)
	}
	n.same()
}

// Over a path this long each M2 comes when two later M1s are under way, and the
// responder has dropped its session: more than oldMax of them follow each other,
// while the responder goes on in the one before them all.
func TestSessionsAreRenewedOverALongPathWithoutLoss(t *testing.T) {
	for _, delay := range []time.Duration{1600 * time.Millisecond, 2 * time.Second, 3 * time.Second} {
		n := newNetwork(t, 36)
		a, b := n.join()
		n.route = func(*end, []byte) []time.Duration { return []time.Duration{delay} }
		sentA, stopA := a.steady(300 * time.Millisecond)
		sentB, stopB := b.steady(300 * time.Millisecond)
		first, epoch := b.peer.current, a.peer.epoch
		a.peer.renewNow(n.now, a.peer.current, &a.out)
		a.act()
		for deadline := n.now.Add(2 * time.Minute); b.peer.current == first && n.now.Before(deadline); {
			n.run(time.Second)
		}
		stopA()
		stopB()
		n.run(time.Minute)
		a.whole(*sentB)
		b.whole(*sentA)
		n.same()
		if made := a.peer.epoch - epoch; b.peer.current == first || made <= oldMax {
			t.Errorf("%v: not renewed, or by only %d sessions", delay, made)
		}
	}
}

func TestSessionsAreRenewedByTheirMessages(t *testing.T) {
	n := newNetwork(t, 21)
	for _, e := range n.ends {
		e.pace.renewMessages, e.pace.holdMessages = 100, 200
		e.restart()
	}
	a, b := n.ends[0], n.ends[1]
	sent, stop := a.steady(10 * time.Millisecond) // b counts what it hears, not what it sends
	n.run(10 * time.Second)
	stop()
	n.run(time.Second)
	b.whole(*sent)
	if a.bodies["M1"]+b.bodies["M1"] < 8 {
		t.Errorf("%v handshakes for %d messages", a.bodies, *sent)
	}

	n = newNetwork(t, 21)
	for _, e := range n.ends {
		e.pace.renewMessages, e.pace.holdMessages = 100, 200
		e.restart()
	}
	a, b = n.join()
	heal := n.lose(a, "M1")
	n.lose(b, "M1")
	for i := range 300 {
		a.send(fmt.Sprint(i + 1))
	}
	n.run(10 * time.Second)
	if a.peer.current.last != 200 || len(b.got) >= 300 {
		t.Errorf("the last counter is %d, and %d messages came", a.peer.current.last, len(b.got))
	}
	heal()
	n.run(time.Minute)
	b.whole(300)
}

func TestASessionEndsWithoutRenewal(t *testing.T) {
	n := newNetwork(t, 22)
	a, b := n.join()
	n.run(11 * time.Minute) // renewed, since it has carried a message
	if a.bodies["M1"]+b.bodies["M1"] != 2 {
		t.Fatalf("M1s %v and %v", a.bodies, b.bodies)
	}
	n.run(25 * time.Minute) // not renewed
	for i, e := range n.ends {
		if len(e.peer.sessions) != 0 || !e.peer.Idle(n.now) || !e.peer.Deadline().IsZero() {
			t.Errorf("end %d keeps a session that has carried nothing for 25 minutes", i)
		}
	}
	n.talk()

	// Renewal fails: nothing is sent after 20 minutes.
	heals := []func(){n.lose(a, "M1"), n.lose(b, "M1")}
	n.run(20*time.Minute + 10*time.Second)
	b.got = nil
	a.send("held")
	n.run(5 * time.Second)
	if len(b.got) != 0 {
		t.Error("a message was sent in a session of 20 minutes")
	}
	heals[0]()
	n.run(time.Minute)
	if len(b.got) != 1 {
		t.Errorf("b got %q", b.texts())
	}
}

func TestOldKeysAreErased(t *testing.T) {
	n := newNetwork(t, 23)
	a, b := n.join()
	var olds []weak.Pointer[session]
	renew := func() {
		for _, e := range n.ends {
			olds = append(olds, weak.Make(e.peer.current))
		}
		a.peer.renewNow(n.now, a.peer.current, &a.out)
		a.act()
		n.run(time.Second)
	}
	renew()
	for i, e := range n.ends {
		if s := e.peer.sessions[0]; len(e.peer.sessions) != 2 || s.state != old || s.seal != nil || s.open == nil {
			t.Fatalf("end %d: after the change the old session is %+v", i, s)
		}
		e.send("after the change")
	}
	n.run(58 * time.Second)
	if len(a.peer.sessions) != 2 {
		t.Error("the old key to receive was erased early")
	}
	n.run(3 * time.Second)
	if len(a.peer.sessions) != 1 || len(b.peer.sessions) != 1 {
		t.Error("the old key to receive is kept longer than 60 s")
	}
	offers := a.peer.offers
	runtime.GC()
	runtime.GC()
	for i, o := range olds {
		if o.Value() != nil {
			t.Errorf("something still holds old session %d", i)
		}
	}
	if offers != nil {
		t.Error("private keys of a finished handshake are kept")
	}
	runtime.KeepAlive(n)
}

func TestRevocationErasesEverything(t *testing.T) {
	n := newNetwork(t, 24)
	a, b := n.join()
	n.talk()
	held := b.peer.current
	b.peer.place(n.now, held, held.stream.done+5, &Message{Charge: 300}, &b.out)
	b.peer.waiting += 300
	b.peer.Erase()
	if held.open != nil || held.seal != nil || len(b.peer.sessions) != 0 || b.peer.current != nil || b.peer.waiting != 0 || !b.peer.Deadline().IsZero() {
		t.Errorf("left after Erase: %+v", held)
	}
	a.send("to one who has revoked a")
	n.run(time.Millisecond)
	if b.drops[DropUnknown] != 1 {
		t.Errorf("drops %v", b.drops)
	}

	// An M1 under way has private keys.
	n = newNetwork(t, 24)
	n.lose(n.ends[0], "M1")
	n.ends[0].send("x")
	n.ends[0].peer.Erase()
	if p := n.ends[0].peer; p.attempting || len(p.offers) != 0 || !p.Deadline().IsZero() {
		t.Error("an M1 is left after Erase")
	}
}

func TestAnotherCertificateKeepsTheSession(t *testing.T) {
	n := newNetwork(t, 25)
	a, _ := n.join()
	first := a.peer.current
	a.local.cfg.Chain = func() [][]byte { return [][]byte{[]byte("new leaf"), []byte("intermediate")} }
	n.talk()
	if a.peer.current != first {
		t.Error("the session has changed with the certificate")
	}
	m1s := n.capture("M1")
	a.peer.renewNow(n.now, first, &a.out)
	a.act()
	n.run(time.Second)
	if chain, err := Chain((*m1s)[0][HeaderSize:]); err != nil || len(chain) != 2 || string(chain[0]) != "new leaf" {
		t.Errorf("the next M1 has %q, %v", chain, err)
	}
	n.talk()
}

func TestMessagesKeepTheirOrderAcrossAChange(t *testing.T) {
	n := newNetwork(t, 26)
	a, b := n.join()
	slow := true
	n.route = func(from *end, signed []byte) []time.Duration {
		if slow && kindOf(signed) == "message" {
			return []time.Duration{150 * time.Millisecond} // the others take 1 ms
		}
		return []time.Duration{time.Millisecond}
	}
	a.send("1", "2", "3")
	b.got, a.got = nil, nil
	b.send("1", "2")
	slow = false
	a.peer.renewNow(n.now, a.peer.current, &a.out)
	a.act()
	n.run(5 * time.Millisecond)
	a.send("4")
	b.send("3")
	n.run(20 * time.Millisecond)
	if len(a.got) != 0 || len(b.got) != 0 {
		t.Fatalf("delivered %q and %q before what the old session still brings", a.texts(), b.texts())
	}
	n.run(time.Second)
	b.whole(4)
	a.whole(3)
}

func TestAGapIsWaitedForAndThenGivenUp(t *testing.T) {
	n := newNetwork(t, 27)
	a, b := n.join()
	delays := []time.Duration{0, 190 * time.Millisecond, 0, 250 * time.Millisecond, 0, -1, 0}
	n.route = func(from *end, signed []byte) []time.Duration {
		if kindOf(signed) != "message" {
			return []time.Duration{0}
		}
		d := delays[0]
		delays = delays[1:]
		if d < 0 {
			return nil
		}
		return []time.Duration{d}
	}
	a.send("1", "2", "3", "4", "5", "6", "7")
	n.run(100 * time.Millisecond)
	if got := b.texts(); !slices.Equal(got, []string{"1"}) {
		t.Errorf("after 100 ms %q", got)
	}
	n.run(95 * time.Millisecond)
	if got := b.texts(); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("after 195 ms %q", got)
	}
	n.run(10 * time.Millisecond)
	if got := b.texts(); !slices.Equal(got, []string{"1", "2", "3", "5", "7"}) {
		t.Errorf("after 205 ms %q", got)
	}
	n.run(time.Second)
	if len(b.got) != 5 || b.drops[DropLate] != 1 {
		t.Errorf("%q, drops %v", b.texts(), b.drops)
	}
}

func TestAnyBitCounts(t *testing.T) {
	n := newNetwork(t, 28)
	a, b := n.join()
	signed, ok := a.peer.Send(n.now, nil, 64, []byte("content"), &a.out)
	if !ok {
		t.Fatal("no session")
	}
	for bit := range 8 * len(signed) {
		changed := slices.Clone(signed)
		changed[bit/8] ^= 1 << (bit % 8)
		if d := b.receive(changed); d == DropNone || len(b.got) != 0 {
			t.Fatalf("bit %d changed: %v", bit, d)
		}
	}
	if d := b.receive(slices.Clone(signed)); d != DropNone || string(b.got[0]) != "content" {
		t.Errorf("unchanged: %v", d)
	}
	if d := b.receive(signed); d != DropReplayed {
		t.Errorf("again: %v", d)
	}
}

// An M1 that was delayed until a later session is in use makes an earlier one.
func TestAnEarlierSessionNeverOvertakes(t *testing.T) {
	n := newNetwork(t, 29)
	a, b := n.ends[0], n.ends[1]
	var out Actions
	early := a.local.Peer(b.address)
	early.start(n.now, &out)
	delayed := out.Frames[0]
	n.run(time.Second)
	n.join()
	n.talk()
	current := b.peer.current
	m2s := n.capture("M2")
	if d := b.receive(delayed); d != DropNone || len(*m2s) != 1 {
		t.Fatalf("%v, %d M2s", d, len(*m2s))
	}
	if d := early.Receive(n.now, Received{Signed: (*m2s)[0]}, &out); d != DropNone {
		t.Fatal(d)
	}
	signed, ok := early.Send(n.now, nil, 64, []byte("too late"), &out)
	if !ok {
		t.Fatal("no session")
	}
	got := len(b.got)
	if d := b.receive(signed); d != DropLate || len(b.got) != got || b.peer.current != current {
		t.Errorf("%v; %d messages delivered; the session in use has changed: %v", d, len(b.got)-got, b.peer.current != current)
	}
	n.talk()
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	n := newNetwork(t, 34)
	a, b := n.join()
	n.route = func(*end, []byte) []time.Duration { return nil }
	a.peer.current.last++ // a gap
	for range heldMax + 100 {
		b.receive(a.peer.sealFrame(nil, a.peer.current, categorySession, []byte{contentGrant}))
	}
	st := &b.peer.current.stream
	if len(st.held) > heldMax || b.peer.arrivals.len() > heldMax || st.done < 2 {
		t.Errorf("%d held, %d arrivals, done %d", len(st.held), b.peer.arrivals.len(), st.done)
	}
	a.peer.current.last++
	for i := range heldMax / 2 {
		a.peer.current.last += uint64(i % 3)
		b.receive(a.peer.sealFrame(nil, a.peer.current, categorySession, []byte{contentProbe, 0}))
	}
	if len(st.held) > heldMax || b.peer.arrivals.len() > heldMax {
		t.Errorf("%d held, %d arrivals", len(st.held), b.peer.arrivals.len())
	}
}
