package session

import (
	"container/heap"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// network joins two ends in memory. Its time is its own; nothing happens but in
// run and what a test does in between.
type network struct {
	t      testing.TB
	now    time.Time
	random *rand.ChaCha8
	events events
	count  int
	ends   [2]*end

	// route says after which delays copies of a frame arrive; none: it is lost.
	route func(from *end, signed []byte) []time.Duration
}

// event is a frame's arrival or something to do.
type event struct {
	at    time.Time
	count int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].count < e[j].count
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// end is a node and its application.
type end struct {
	net     *network
	cfg     Config
	pace    pace
	address Address
	other   *end
	local   *Local
	peer    *Peer
	clock   uint64 // last send time
	skew    time.Duration
	out     Actions

	outbox  [][]byte // what the application waits to send
	got     [][]byte // what it was given, without sink
	sink    func(content []byte)
	lazy    bool  // it takes nothing of itself
	untaken []int // charges
	drops   map[Drop]int
	frames  int            // sent
	bodies  map[string]int // sent, by kind of body
	many    bool           // its Local has other peers
}

// newNetwork has ends 0, of the lower address, and 1, and loses nothing.
func newNetwork(t testing.TB, seed uint64) *network {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	n := &network{t: t, now: time.Unix(1_800_000_000, 0), random: rand.NewChaCha8(key)}
	n.route = func(*end, []byte) []time.Duration { return []time.Duration{time.Millisecond} }
	for i := range n.ends {
		n.ends[i] = &end{net: n, address: Address{0xfd, 15: byte(i + 1)}, pace: normalPace, drops: map[Drop]int{}, bodies: map[string]int{}}
	}
	for i, e := range n.ends {
		e.other = n.ends[1-i]
		e.cfg = Config{
			Address: e.address, Rand: n.random, AEADs: AllAEADs, Stamp: e.stamp,
			Chain: func() [][]byte { return [][]byte{{0x30, 0x01, byte(i)}} },
		}
		e.restart()
	}
	return n
}

// restart forgets all but the clock.
func (e *end) restart() {
	e.net.t.Helper()
	local, err := New(e.cfg)
	if err != nil {
		e.net.t.Fatal(err)
	}
	local.pace = e.pace
	e.local, e.peer, e.untaken = local, local.Peer(e.other.address), nil
}

// withKEM gives e ML-KEM.
func (e *end) withKEM() {
	e.cfg.Encapsulate = func(key []byte) ([]byte, []byte, error) {
		k, err := mlkem.NewEncapsulationKey768(key)
		if err != nil {
			return nil, nil, err
		}
		var seed [32]byte
		mustRead(e.net.random, seed[:])
		return mlkemtest.Encapsulate768(k, seed[:])
	}
	e.restart()
}

func (e *end) stamp(to Address, category uint8, encrypted bool, bodySize int) (h Header) {
	e.clock = max(e.clock+1, uint64(e.net.now.Add(e.skew).UnixNano()))
	copy(h[:16], to[:])
	copy(h[16:32], e.address[:])
	h[offsetCategory] = category
	binary.BigEndian.PutUint64(h[offsetSendTime:], e.clock)
	if encrypted {
		h[offsetFlag] = 1
	}
	binary.BigEndian.PutUint32(h[offsetBodyLength:], uint32(bodySize))
	return h
}

// kindOf names a frame's body.
func kindOf(signed []byte) string {
	if signed[offsetCategory] != categorySession {
		return "message"
	}
	return map[byte]string{bodyM1: "M1", bodyM2: "M2", bodyReset: "reset", bodySealed: "sealed"}[signed[HeaderSize]]
}

func (e *end) transmit(signed []byte) {
	e.frames++
	e.bodies[kindOf(signed)]++
	for _, delay := range e.net.route(e, signed) {
		copied := append([]byte(nil), signed...)
		e.net.after(delay, func() { e.other.receive(copied) })
	}
}

// receive is given a frame of the other end.
func (e *end) receive(signed []byte) Drop {
	drop := e.peer.Receive(e.net.now, Received{Signed: signed}, &e.out)
	e.drops[drop]++
	e.act()
	return drop
}

// act does what the last event asks for.
func (e *end) act() {
	frames, messages, ready := e.out.Frames, e.out.Messages, e.out.Ready
	e.out = Actions{}
	for _, f := range frames {
		e.transmit(f)
	}
	for _, m := range messages {
		if e.sink != nil {
			e.sink(m.Content)
		} else {
			e.got = append(e.got, append([]byte(nil), m.Content...))
		}
		e.untaken = append(e.untaken, m.Charge)
	}
	if !e.lazy {
		e.take(len(e.untaken))
	}
	if ready {
		e.pump()
	}
	e.check()
}

// take lets the application take n messages.
func (e *end) take(n int) {
	for ; n > 0; n-- {
		charge := e.untaken[0]
		e.untaken = e.untaken[1:]
		e.peer.Taken(e.net.now, charge, &e.out)
	}
	if len(e.out.Frames) > 0 || e.out.Ready {
		e.act()
	}
}

// send lets the application send.
func (e *end) send(contents ...string) {
	for _, c := range contents {
		e.outbox = append(e.outbox, []byte(c))
	}
	e.pump()
}

func (e *end) pump() {
	for len(e.outbox) > 0 {
		signed, ok := e.peer.Send(e.net.now, nil, 64, e.outbox[0], &e.out)
		if ok {
			e.outbox = e.outbox[1:]
		}
		e.act()
		if !ok {
			return
		}
		e.transmit(signed)
	}
}

// after does something later.
func (n *network) after(d time.Duration, do func()) {
	n.count++
	heap.Push(&n.events, event{n.now.Add(d), n.count, do})
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	for end := n.now.Add(d); n.step(end); {
	}
}

// step goes to the next event or deadline, at most to end.
func (n *network) step(end time.Time) bool {
	next, what := end, func() {}
	found := false
	if len(n.events) > 0 && !n.events[0].at.After(next) {
		next, what, found = n.events[0].at, func() { heap.Pop(&n.events).(event).do() }, true
	}
	for _, e := range n.ends {
		if d := e.peer.Deadline(); !d.IsZero() && (d.Before(next) || !found && d.Equal(next)) {
			next, found = d, true
			what = func() {
				e.peer.Tick(n.now, &e.out)
				if again := e.peer.Deadline(); !again.IsZero() && !again.After(n.now) {
					n.t.Fatalf("end %d: the deadline is still %v after Tick at %v", e.address[15], again, n.now)
				}
				e.act()
			}
		}
	}
	if next.After(n.now) {
		n.now = next
	}
	what()
	return found
}

// check looks at what must always hold of a peer.
func (e *end) check() {
	t, p := e.net.t, e.peer
	t.Helper()
	pendings, olds, waiting, held := 0, 0, 0, 0
	for i, s := range p.sessions {
		if i > 0 && p.sessions[i-1].order > s.order {
			t.Fatal("sessions out of order")
		}
		if (s.state == inUse) != (s == p.current) || s.open == nil || (s.seal == nil) != (s.state == old) {
			t.Fatalf("session in state %d: current %v, seal %v, open %v", s.state, s == p.current, s.seal, s.open)
		}
		switch s.state {
		case pending:
			pendings++
		case old:
			olds++
		}
		for _, h := range s.stream.held {
			if h.counter <= s.stream.done {
				t.Fatalf("held counter %d is at or below %d, which is done", h.counter, s.stream.done)
			}
			if h.message != nil {
				waiting += h.message.Charge
				held++
			}
		}
		sum := uint64(0)
		for _, c := range s.out.underWay.items[s.out.underWay.head:] {
			sum += uint64(c.bytes)
		}
		if sum != s.out.outstanding {
			t.Fatalf("%d bytes under way, counted %d", sum, s.out.outstanding)
		}
	}
	for _, c := range e.untaken {
		waiting += c
	}
	if pendings > e.local.halfOpen || !e.many && pendings != e.local.halfOpen || pendings > pendingMax || olds > oldMax || len(p.offers) > offersMax || len(p.offers) > 0 && !p.attempting {
		t.Fatalf("%d pending sessions, counted %d; %d old; %d offers, attempting %v", pendings, e.local.halfOpen, olds, len(p.offers), p.attempting)
	}
	if i := p.Info(); held != i.Held || held != p.Held() || pendings != i.Pending || olds != i.Old || (p.current == nil) != i.Made.IsZero() {
		t.Fatalf("%d messages are held, %d sessions pending, %d old: %+v", held, pendings, olds, i)
	}
	if waiting != p.waiting {
		t.Fatalf("%d bytes wait, counted %d", waiting, p.waiting)
	}
	if p.waiting > waitingFactor*e.local.cfg.Window {
		t.Fatalf("%d bytes wait, the window has %d", p.waiting, e.local.cfg.Window)
	}
}

// texts is what the application was given.
func (e *end) texts() (all []string) {
	for _, c := range e.got {
		all = append(all, string(c))
	}
	return all
}

// join makes a session by one message from a to b.
func (n *network) join() (a, b *end) {
	n.t.Helper()
	a, b = n.ends[0], n.ends[1]
	a.send("first")
	n.run(time.Second)
	if len(b.got) != 1 || a.peer.current == nil || b.peer.current == nil {
		n.t.Fatalf("no session: %q, drops %v and %v", b.texts(), a.drops, b.drops)
	}
	b.got = nil
	return a, b
}
