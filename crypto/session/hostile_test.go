package session

import (
	"slices"
	"testing"
	"time"
)

// tell has an end seal a content and the other receive it at once.
func (e *end) tell(c content) Drop {
	return e.other.receive(e.peer.sealFrame(nil, e.peer.current, categorySession, c.append(nil)))
}

// A peer that asks without end gets few answers, each of which costs a signature.
func TestAnswersToOnePeerAreFew(t *testing.T) {
	for kind, c := range map[string]content{"probe": {kind: contentProbe}, "confirm": {kind: contentConfirm}} {
		n := newNetwork(t, 60)
		a, b := n.join()
		n.run(time.Minute)
		n.route = func(*end, []byte) []time.Duration { return nil }
		frames := b.frames
		for range 10_000 {
			a.tell(c)
		}
		if answers := b.frames - frames; answers == 0 || answers > answersBurst {
			t.Errorf("%d answers to 10,000 of %s at once", answers, kind)
		}
		if b.drops[DropRate] == 0 {
			t.Errorf("%s: not counted: %v", kind, b.drops)
		}
		frames = b.frames
		for range 10 {
			n.run(time.Second)
			a.tell(c)
		}
		if answers := b.frames - frames; answers != 10 {
			t.Errorf("%d answers to one %s a second, for 10 s", answers, kind)
		}
	}
}

// The peer exceeds its credit while this end waits for some of its own.
func TestWhoWaitsForCreditGoesOnWhenTheSessionIsLost(t *testing.T) {
	n := newNetwork(t, 61)
	for _, e := range n.ends {
		e.cfg.Window = 8192
		e.restart()
	}
	a, b := n.join()
	a.lazy = true
	for range 10 {
		b.send(string(make([]byte, 1000)))
	}
	if len(b.outbox) == 0 {
		t.Fatal("nothing waits for credit")
	}
	silent := n.lose(a, "sealed")
	a.peer.current.out.granted = 1 << 40
	b.lazy = true
	for range 10 {
		if n.run(2 * time.Millisecond); b.drops[DropCredit] == 0 {
			a.send(string(make([]byte, 1000)))
		}
	}
	if b.drops[DropCredit] != 1 {
		t.Fatalf("drops %v", b.drops)
	}
	b.lazy = false
	a.outbox = nil
	a.peer.GiveUp()
	a.lazy = false
	a.act()
	n.run(10 * time.Millisecond)
	silent()
	n.run(20 * time.Second)
	if len(b.outbox) != 0 {
		t.Errorf("%d messages wait, deadline %v, now %v", len(b.outbox), b.peer.Deadline(), n.now)
	}
	n.talk()
}

// A session is renewed while a sender waits for credit, and has none at first in
// the new one. The grant that would let it go on is lost.
func TestWhoWaitsForCreditProbesInTheNextSessionToo(t *testing.T) {
	n := newNetwork(t, 62)
	for _, e := range n.ends {
		e.cfg.Window = 8192
		e.restart()
	}
	a, b := n.join()
	b.lazy = true
	for range 20 {
		a.send(string(make([]byte, 1000)))
	}
	n.run(10 * time.Millisecond)
	first := a.peer.current
	b.peer.renewNow(n.now, b.peer.current, &b.out)
	b.act()
	n.run(500 * time.Millisecond)
	if a.peer.current == first || len(a.outbox) == 0 {
		t.Fatalf("renewed: %v, %d messages wait", a.peer.current != first, len(a.outbox))
	}
	heal := n.lose(b, "sealed")
	b.take(len(b.untaken))
	n.run(10 * time.Millisecond)
	heal()
	b.lazy = false
	n.run(20 * time.Second)
	if len(a.outbox) != 0 {
		t.Errorf("%d messages wait, and no probe is to be sent", len(a.outbox))
	}
}

// Bodies that are sealed have flag 1, but for those of category 1, and no category
// that routers or libraries act upon.
func TestOnlySealedCategoriesAreTaken(t *testing.T) {
	n := newNetwork(t, 63)
	a, b := n.join()
	for category := range 256 {
		sealable := category == 0 || category == 5 || category >= 64
		p, s := a.peer, a.peer.current
		dst := p.stamp(nil, uint8(category), true, SealedOverhead)
		d := b.receive(s.sealBody(dst, nil, slices.Clone(dst)))
		if (d == DropNone) != sealable {
			t.Errorf("category %d with flag 1: %v", category, d)
		}
	}
	n.run(time.Second)
	if got := len(b.got); got != 2+256-64 {
		t.Errorf("%d messages were delivered", got)
	}
}

func TestNothingIsSentInASessionThatMayNotBeSentIn(t *testing.T) {
	n := newNetwork(t, 64)
	a, b := n.join()
	n.run(10 * time.Second)
	n.lose(a, "M1")
	n.lose(b, "M1")
	n.run(20*time.Minute - 5*time.Second)
	frames := b.bodies["sealed"]
	for _, c := range []content{{kind: contentProbe}, {kind: contentConfirm}} {
		n.run(time.Second)
		a.tell(c)
	}
	if got := b.bodies["sealed"] - frames; b.peer.current == nil || got != 0 {
		t.Errorf("%d answers in a session of 20 minutes", got)
	}
	frames = b.bodies["sealed"]
	b.peer.current.made = n.now
	b.peer.current.last = b.local.pace.holdMessages
	for _, c := range []content{{kind: contentProbe}, {kind: contentConfirm}} {
		n.run(time.Second)
		a.tell(c)
	}
	if got := b.bodies["sealed"] - frames; got != 0 {
		t.Errorf("%d answers after the last counter", got)
	}
}

// A node starts again with a clock that was ahead before: its M1 seems older than
// the session in use.
func TestAPeerWhoseClockWentBackIsHeard(t *testing.T) {
	for who := range 2 {
		n := newNetwork(t, 65)
		n.ends[who].skew = time.Minute
		n.join()
		n.talk()
		a, b := n.ends[who], n.ends[1-who]
		a.clock, a.skew = 0, 0
		a.restart()
		b.got = nil
		_, stop := a.steady(500 * time.Millisecond)
		n.run(8 * time.Second)
		if stop(); len(b.got) == 0 {
			t.Errorf("end %d has started again: of its messages %d arrive in 8 s, drops %v", who, len(b.got), b.drops)
		}
		n.run(time.Second)
		n.talk()
	}
}
