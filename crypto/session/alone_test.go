package session

import (
	"testing"
	"time"
)

// A handshake that goes on alone has long pauses; who begins to wait has them begin
// anew, and then they grow as ever.
func TestWhoBeginsToWaitHurriesAHandshake(t *testing.T) {
	n := newNetwork(t, 70)
	a := n.ends[0]
	now, out := n.now, &Actions{}
	send := func() {
		t.Helper()
		if _, ok := a.peer.Send(now, nil, 64, nil, out); ok {
			t.Fatal("there is a session")
		}
	}
	send()
	for range 4 { // at 1, 3, 7, 15 s
		now = a.peer.Deadline()
		a.peer.Tick(now, out)
	}
	if len(out.Frames) != 5 || !a.peer.Info().Handshake {
		t.Fatalf("%d M1s, %+v", len(out.Frames), a.peer.Info())
	}
	now = now.Add(500 * time.Millisecond)
	send() // one more that waits changes nothing
	if wait := a.peer.Deadline().Sub(now); wait != 15500*time.Millisecond {
		t.Errorf("the next M1 is due in %v", wait)
	}
	a.peer.GiveUp()
	send()
	if wait := a.peer.Deadline().Sub(now); wait != 500*time.Millisecond { // M1s are a second apart
		t.Errorf("the next M1 is due in %v", wait)
	}
	now = a.peer.Deadline()
	a.peer.Tick(now, out)
	if wait := a.peer.Deadline().Sub(now); len(out.Frames) != 6 || wait != time.Second {
		t.Errorf("%d M1s; the next one is due in %v", len(out.Frames), wait)
	}
}

// A notice ends a handshake that nobody waits for and that is to renew nothing.
func TestNoticeEndsAHandshakeThatNobodyWaitsFor(t *testing.T) {
	n := newNetwork(t, 71)
	a, out := n.ends[0], &Actions{}
	a.peer.Send(n.now, nil, 64, nil, out)
	a.peer.Unreachable()
	if !a.peer.Info().Handshake {
		t.Error("it ended while somebody waited")
	}
	a.peer.GiveUp()
	a.peer.Unreachable()
	if a.peer.Info().Handshake || len(a.peer.offers) != 0 || !a.peer.Idle(n.now) {
		t.Errorf("it goes on: %+v, %d offers", a.peer.Info(), len(a.peer.offers))
	}

	b, _ := newNetwork(t, 72).join()
	b.peer.start(b.net.now, &b.out)
	b.peer.Unreachable()
	if !b.peer.Info().Handshake {
		t.Error("a renewal ended")
	}
}
