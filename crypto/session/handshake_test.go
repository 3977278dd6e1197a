package session

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"
)

// capture keeps copies of frames of one kind that pass, both ways.
func (n *network) capture(kind string) *[][]byte {
	var kept [][]byte
	before := n.route
	n.route = func(from *end, signed []byte) []time.Duration {
		if kindOf(signed) == kind {
			kept = append(kept, bytes.Clone(signed))
		}
		return before(from, signed)
	}
	return &kept
}

// lose lets frames of a kind from an end be lost; the result ends that.
func (n *network) lose(from *end, kind string) (heal func()) {
	before := n.route
	n.route = func(e *end, signed []byte) []time.Duration {
		if e == from && kindOf(signed) == kind {
			return nil
		}
		return before(e, signed)
	}
	return func() { n.route = before }
}

// same checks that both ends use one session.
func (n *network) same() {
	n.t.Helper()
	a, b := n.ends[0].peer.current, n.ends[1].peer.current
	if a == nil || b == nil || a.id != b.peerID || b.id != a.peerID || a.initiator == b.initiator {
		n.t.Fatalf("the ends do not use one session: %+v and %+v", a, b)
	}
}

// talk checks that messages pass both ways, in order and each once.
func (n *network) talk() {
	n.t.Helper()
	for _, e := range n.ends {
		e.got = nil
	}
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("message ", i))
	}
	for _, e := range n.ends {
		e.send(want...)
	}
	n.run(5 * time.Second)
	for i, e := range n.ends {
		if !slices.Equal(e.texts(), want) {
			n.t.Fatalf("end %d got %q; drops %v", i, e.texts(), e.drops)
		}
	}
	n.same()
}

func TestMLKEMIsUsedBetweenTwoThatHaveIt(t *testing.T) {
	for _, have := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		n := newNetwork(t, 3)
		for i, e := range n.ends {
			if have[i] {
				e.withKEM()
			}
		}
		m1s, m2s := n.capture("M1"), n.capture("M2")
		n.join()
		n.talk()
		var first m1
		var second m2
		if err := first.decode((*m1s)[0][HeaderSize:]); err != nil {
			t.Fatal(err)
		}
		if err := second.decode((*m2s)[0][HeaderSize:]); err != nil {
			t.Fatal(err)
		}
		if (len(first.kemKey) > 0) != have[0] || (len(second.ciphertext) > 0) != (have[0] && have[1]) {
			t.Errorf("ML-KEM %v: key of %d bytes, ciphertext of %d", have, len(first.kemKey), len(second.ciphertext))
		}
	}
}

func TestAESIsUsedBetweenTwoThatHaveIt(t *testing.T) {
	chacha := AEADs(ChaCha20Poly1305)
	for _, c := range []struct {
		sets [2]AEADs
		want AEAD
	}{
		{[2]AEADs{AllAEADs, AllAEADs}, AES256GCM}, {[2]AEADs{AllAEADs, chacha}, ChaCha20Poly1305},
		{[2]AEADs{chacha, AllAEADs}, ChaCha20Poly1305}, {[2]AEADs{chacha, chacha}, ChaCha20Poly1305},
	} {
		n := newNetwork(t, 4)
		for i, e := range n.ends {
			e.cfg.AEADs = c.sets[i]
			e.restart()
		}
		m2s := n.capture("M2")
		n.join()
		n.talk()
		var m m2
		if err := m.decode((*m2s)[0][HeaderSize:]); err != nil || m.aead != c.want {
			t.Errorf("%v: %v, %v", c.sets, m.aead, err)
		}
	}
	if !CPUAEADs().Has(ChaCha20Poly1305) || AES256GCM.String() != "AES-256-GCM" || AEAD(3).String() != "unknown" {
		t.Error("AEADs of this CPU, or names")
	}
}

func TestOfCrossingM1sTheLowerAddressWins(t *testing.T) {
	n := newNetwork(t, 5)
	for _, e := range n.ends {
		e.send("at once")
	}
	n.run(time.Second)
	n.same()
	if !n.ends[0].peer.current.initiator {
		t.Error("the session is not that of the lower address")
	}
	if n.ends[0].drops[DropCrossed] != 1 || n.ends[0].bodies["M1"] != 1 || n.ends[1].bodies["M1"] != 1 {
		t.Errorf("M1s %v and %v, drops %v", n.ends[0].bodies, n.ends[1].bodies, n.ends[0].drops)
	}
	n.talk()
}

func TestM1IsRepeatedAfterGrowingWaits(t *testing.T) {
	n := newNetwork(t, 6)
	a, b := n.ends[0], n.ends[1]
	started := n.now
	var at []time.Duration
	found := n.lose(a, "M1")
	lost := n.route
	n.route = func(e *end, signed []byte) []time.Duration {
		at = append(at, n.now.Sub(started))
		return lost(e, signed)
	}
	a.send("hello")
	n.run(100 * time.Second)
	s := time.Second
	if want := []time.Duration{0, s, 3 * s, 7 * s, 15 * s, 31 * s, 61 * s, 91 * s}; !slices.Equal(at, want) {
		t.Errorf("M1s at %v, want %v", at, want)
	}
	if len(a.peer.offers) != offersMax {
		t.Errorf("%d M1s are kept, want %d", len(a.peer.offers), offersMax)
	}
	found()
	n.run(30 * time.Second)
	if len(b.got) != 1 {
		t.Error("no message after the network has healed")
	}

	n = newNetwork(t, 6)
	a = n.ends[0]
	n.lose(a, "M1")
	a.send("hello")
	a.peer.GiveUp()
	n.run(10 * time.Minute)
	if a.peer.attempting || !a.peer.Deadline().IsZero() || !a.peer.Idle(n.now) {
		t.Error("an attempt that nobody waits for goes on")
	}
}

func TestConfirmIsRepeatedUntilTheResponderIsHeard(t *testing.T) {
	n := newNetwork(t, 7)
	a, b := n.ends[0], n.ends[1]
	heal := n.lose(a, "sealed")
	a.send("a")
	a.outbox = nil
	n.lose(a, "message")
	n.run(10 * time.Second)
	if b.peer.current != nil || a.bodies["sealed"] < 4 {
		t.Fatalf("current %v, sent %v", b.peer.current, a.bodies)
	}
	heal()
	n.run(10 * time.Second)
	n.same()
	sent := a.bodies["sealed"]
	n.run(time.Minute)
	if a.bodies["sealed"] != sent {
		t.Error("confirm is repeated though it was answered")
	}
	n.talk()

	n = newNetwork(t, 7)
	n.lose(n.ends[1], "sealed") // the responder's confirm, once and again
	n.join()
	n.run(5 * time.Minute)
	if got := n.ends[0].bodies["sealed"]; got != 7 {
		t.Errorf("%d confirms of an initiator that hears nothing, want 7", got)
	}
}

func TestReplayedHandshakesDisplaceNothing(t *testing.T) {
	n := newNetwork(t, 8)
	m1s, m2s := n.capture("M1"), n.capture("M2")
	for range 4 {
		n.join()
		for _, e := range n.ends {
			e.restart()
		}
	}
	a, b := n.join()
	currents := [2]*session{a.peer.current, b.peer.current}
	replay := func() {
		for _, m := range slices.Concat(*m1s, *m2s) {
			a.receive(bytes.Clone(m))
			b.receive(bytes.Clone(m))
		}
	}
	replay()
	n.run(time.Second)
	if a.peer.current != currents[0] || b.peer.current != currents[1] {
		t.Fatal("a replayed handshake has displaced the session in use")
	}
	if b.drops[DropRepeatedM1] == 0 || b.drops[DropUnknownM1] == 0 {
		t.Errorf("drops %v", b.drops)
	}
	n.talk()

	// In the midst of a handshake, to one that remembers nothing.
	b.restart()
	replay()
	a.restart()
	a.send("after the replay")
	replay()
	n.run(10 * time.Second)
	if len(b.got) == 0 || string(b.got[len(b.got)-1]) != "after the replay" {
		t.Fatalf("b got %q; drops %v and %v", b.texts(), a.drops, b.drops)
	}
	n.talk()
}

func TestTheM1OfTheLowestSendTimeGivesWay(t *testing.T) {
	n := newNetwork(t, 9)
	a, b := n.ends[0], n.ends[1]
	m1s := n.capture("M1")
	n.lose(b, "M2")
	a.send("x")
	n.run(4 * time.Second) // M1s at 0, 1 and 3 s
	if len(*m1s) != 3 || b.peer.find(ID{}) != nil || b.local.halfOpen != 2 {
		t.Fatalf("%d M1s, %d pending", len(*m1s), b.local.halfOpen)
	}
	if b.receive((*m1s)[1]) != DropRepeatedM1 || b.receive((*m1s)[0]) != DropStaleM1 {
		t.Errorf("drops %v", b.drops)
	}
	a.outbox = nil
	a.peer.GiveUp()
	a.peer.endAttempt()
	n.run(40 * time.Second)
	if b.local.halfOpen != 0 || len(b.peer.sessions) != 0 {
		t.Errorf("%d pending sessions are left", b.local.halfOpen)
	}
}

func TestAnswerToTheThirdLastM1IsHeldUntilThePeerIsHeard(t *testing.T) {
	n := newNetwork(t, 10)
	a, b := n.ends[0], n.ends[1]
	heal := n.lose(b, "M2")
	m2s := n.capture("M2")
	a.send("x")
	n.run(4 * time.Second)
	heal()
	a.receive((*m2s)[0]) // b has dropped its session for the third M1's
	if a.peer.current == nil || !a.peer.current.unsure || a.bodies["message"] != 0 || len(a.outbox) != 1 {
		t.Fatalf("current %+v, sent %v", a.peer.current, a.bodies)
	}
	n.run(10 * time.Second)
	if len(b.got) != 1 || b.drops[DropUnknown] == 0 {
		t.Fatalf("b got %q, drops %v", b.texts(), b.drops)
	}
	if s := a.peer.current; s.previous != (ID{}) || s.previousEnd != 0 {
		t.Error("confirm names a session in which no message was sent")
	}
	n.talk()
}

func TestEitherEndMayRestart(t *testing.T) {
	for who := range 2 {
		for speaker := range 2 {
			n := newNetwork(t, 11)
			n.join()
			n.talk()
			n.ends[who].restart()
			n.ends[speaker].send("lost, when the other has restarted")
			n.run(2 * time.Second)
			n.ends[speaker].send("not lost")
			n.run(5 * time.Second)
			got := n.ends[1-speaker].texts()
			if len(got) == 0 || got[len(got)-1] != "not lost" {
				t.Fatalf("end %d restarted, end %d speaks: %q", who, speaker, got)
			}
			n.talk()
		}
	}
}

func TestAResetCountsOnlyForTheSessionInUse(t *testing.T) {
	n := newNetwork(t, 12)
	a, b := n.join()
	reset := func(id ID) Drop {
		h := b.stamp(a.address, categorySession, false, typeSize+idSize)
		return a.receive(appendReset(h[:], id))
	}
	if d := reset(ID{1, 2, 3}); d != DropUnknownReset {
		t.Errorf("unknown ID: %v", d)
	}
	if d := reset(a.peer.current.id); d != DropUnknownReset {
		t.Errorf("the ID a receives under: %v", d)
	}
	if a.bodies["M1"] != 1 {
		t.Error("a reset that does not count has started a handshake")
	}
	old := a.peer.current
	n.run(time.Second)
	if d := reset(old.peerID); d != DropNone || a.peer.current != old || a.bodies["M1"] != 2 {
		t.Errorf("%v, M1s %d", d, a.bodies["M1"])
	}
	a.send("held until the handshake is over")
	if a.bodies["message"] != 1 {
		t.Error("a message was sent in a session that was reset")
	}
	n.run(time.Second)
	if a.peer.current == old {
		t.Error("no new session after a reset")
	}
	n.talk()
}

func TestResetsAreAtMostOneASecond(t *testing.T) {
	n := newNetwork(t, 13)
	a, b := n.join()
	n.lose(b, "reset")
	b.restart()
	for range 100 {
		a.send("?")
		n.run(25 * time.Millisecond)
	}
	if got := b.bodies["reset"]; got != 3 {
		t.Errorf("%d resets in 2.5 s, want 3", got)
	}
}

func TestBadKeysAndChoicesAreRefused(t *testing.T) {
	n := newNetwork(t, 14)
	a, b := n.ends[0], n.ends[1]
	b.withKEM()
	frame := func(from *end, body []byte) []byte {
		h := from.stamp(from.other.address, categorySession, false, len(body))
		return append(h[:], body...)
	}
	first := m1{id: ID{1}, aeads: AllAEADs, chain: [][]byte{{1}}} // X25519 key zero: of low order
	if d := b.receive(frame(a, first.append(nil))); d != DropRefused {
		t.Errorf("M1 with a public key of low order: %v", d)
	}
	first.public = [32]byte{9}
	first.kemKey = bytes.Repeat([]byte{0xff}, kemKeySize) // coefficients above the modulus
	if d := b.receive(frame(a, first.append(nil))); d != DropRefused {
		t.Errorf("M1 with a bad ML-KEM key: %v", d)
	}
	if len(b.peer.sessions) != 0 || b.frames != 0 {
		t.Error("a refused M1 has left or answered something")
	}

	a.cfg.AEADs = AEADs(ChaCha20Poly1305)
	a.restart()
	n.lose(a, "M1")
	m1s := n.capture("M1")
	try := func(what string, change func(*m2)) {
		t.Helper()
		a.restart()
		a.outbox = nil
		a.send("x")
		m := m2{id: ID{2}, public: [32]byte{9}, aead: ChaCha20Poly1305, m1: hashOf((*m1s)[len(*m1s)-1]), chain: [][]byte{{1}}}
		change(&m)
		if d := a.receive(frame(b, m.append(nil))); d != DropRefused || a.peer.current != nil {
			t.Errorf("M2 with %s: %v", what, d)
		}
		if d := a.receive(frame(b, m.append(nil))); d != DropUnknownM1 {
			t.Errorf("second M2 with %s: %v", what, d)
		}
	}
	try("a public key of low order", func(m *m2) { m.public = [32]byte{} })
	try("an AEAD that was not offered", func(m *m2) { m.aead = AES256GCM })
	try("a ciphertext without a key", func(m *m2) { m.ciphertext = make([]byte, kemCiphertextSize) })
}

func TestFloodsOfHandshakesAreBounded(t *testing.T) {
	n := newNetwork(t, 15)
	a, b := n.ends[0], n.ends[1]
	b.many = true
	flood := func(p *Peer, count int) (drops map[Drop]int) {
		drops = map[Drop]int{}
		for range count {
			keys := newKeyPair(n.random, false)
			m := m1{id: ID{1}, aeads: AllAEADs, chain: [][]byte{{1}}}
			copy(m.public[:], keys.x.PublicKey().Bytes())
			body := m.append(nil)
			h := a.stamp(b.address, categorySession, false, len(body))
			var out Actions
			drops[p.Receive(n.now, Received{Signed: append(h[:], body...)}, &out)]++
		}
		return drops
	}
	if d := flood(b.peer, 100); d[DropNone] != peerHandshakesBurst || d[DropRate] != 100-peerHandshakesBurst || b.local.halfOpen != pendingMax {
		t.Errorf("one peer: %v, %d pending", d, b.local.halfOpen)
	}
	n.run(3 * time.Second)
	if d := flood(b.peer, 100); d[DropNone] != 3 {
		t.Errorf("one peer, 3 s later: %v", d)
	}
	peers, answered, full := []*Peer{}, 0, 0
	for i := range 3 * halfOpenMax {
		p := b.local.Peer(Address{0xfd, 1, byte(i >> 8), byte(i)})
		d := flood(p, 1)
		answered += d[DropNone]
		full += d[DropHalfOpen]
		peers = append(peers, p)
		if i%500 == 0 {
			n.run(time.Second)
		}
	}
	if b.local.halfOpen != halfOpenMax || answered != halfOpenMax-pendingMax || full == 0 {
		t.Errorf("many peers: %d pending, %d answered, %d refused", b.local.halfOpen, answered, full)
	}
	n.run(pendingFor)
	var out Actions
	for _, p := range append(peers, b.peer) {
		p.Tick(n.now, &out)
		if len(p.sessions) != 0 {
			t.Fatal("a half-open session has not expired")
		}
	}
	if b.local.halfOpen != 0 {
		t.Errorf("%d sessions are counted as pending", b.local.halfOpen)
	}
	answered = 0
	for i := range 1500 {
		answered += flood(b.local.Peer(Address{0xfd, 2, byte(i >> 8), byte(i)}), 1)[DropNone]
	}
	if answered != handshakesPerSecond {
		t.Errorf("%d M1s answered at once, want %d", answered, handshakesPerSecond)
	}
	n.run(time.Minute)
	if p := b.local.Peer(Address{0xfd, 3}); !p.Idle(n.now) || peers[0].Idle(n.now) != true {
		t.Error("a peer without anything is not idle")
	}
}
