package simnet_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"causeway/crypto/session"
	"causeway/engine/simnet"
)

// Two ends of sessions with a router between them that loses, repeats and delays
// frames, while they start again and their links fail, through the exported API
// and by the times that are in force. What is delivered is a sub-sequence of what
// was sent, and complete when the network is calm.

var sessionSeeds = flag.Uint64("sessions", sessionSeedsDefault, "seeds of each property test of sessions")

const (
	runTime   = 25 * time.Minute // two renewals
	calmDelay = 140 * time.Millisecond
	linkDelay = 20 * time.Millisecond // of each of two links; with calmDelay less than 200 ms
)

// weather is what the router between does.
type weather struct {
	loss, twice float64
	delay       time.Duration // of each copy, at most
	restarts    int           // of the ends
	failures    int           // of links
}

func (w weather) isCalm() bool {
	return w.loss == 0 && w.restarts+w.failures == 0 && w.delay <= calmDelay
}

// joined is two ends and the router between them.
type joined struct {
	t       *testing.T
	net     *simnet.Network
	weather weather
	ends    [2]*peerEnd
	router  simnet.NodeID
	links   [2]simnet.LinkID // of the router to each end; 0: down
}

// between is the router: it passes frames from one link to the other.
type between struct{ pair *joined }

func (b between) LinkUp(_ time.Time, l simnet.LinkID, peer simnet.NodeID) { b.pair.links[peer] = l }
func (b between) LinkDown(_ time.Time, l simnet.LinkID) {
	for i, have := range b.pair.links {
		if have == l {
			b.pair.links[i] = 0
		}
	}
}
func (b between) Tick(time.Time) {}

func (b between) Receive(_ time.Time, l simnet.LinkID, frame []byte) {
	p := b.pair
	to := 0
	if p.links[0] == l {
		to = 1
	}
	r := p.net.Rand()
	for copies := 0; copies == 0 || r.Float64() < p.weather.twice; copies++ {
		if r.Float64() < p.weather.loss {
			continue
		}
		p.net.After(time.Duration(r.Int64N(int64(p.weather.delay)+1)), func() {
			if out := p.links[to]; out != 0 {
				p.net.Send(p.router, out, append([]byte(nil), frame...))
			}
		})
	}
}

// peerEnd is a node with one peer. Numbered messages are in its outbox until they
// are sealed, as a library keeps them.
type peerEnd struct {
	pair    *joined
	number  int
	id      simnet.NodeID
	local   *session.Local
	peer    *session.Peer
	clock   uint64
	link    simnet.LinkID
	seen    map[uint64]bool // send times: a library drops duplicate frames
	out     session.Actions
	sent    uint64 // numbers given to outbox
	outbox  []uint64
	got     []uint64
	untaken []int
	lazy    bool
}

func addressOf(n int) session.Address { return session.Address{0xfd, 15: byte(n + 1)} }

// begin makes a new life: nothing of the old one is left but the clock.
func (e *peerEnd) begin() *peerEnd {
	local, err := session.New(session.Config{
		Address: addressOf(e.number), Stamp: e.stamp, Window: 64 << 10, AEADs: session.AllAEADs,
		Chain: func() [][]byte { return [][]byte{{0x30, 0}} },
		Rand:  source{e.pair.net.Rand()},
	})
	if err != nil {
		e.pair.t.Fatal(err)
	}
	return &peerEnd{
		pair: e.pair, number: e.number, id: e.id, clock: e.clock, sent: e.sent, outbox: e.outbox, got: e.got,
		local: local, peer: local.Peer(addressOf(1 - e.number)), seen: map[uint64]bool{},
	}
}

// source makes the network's randomness a reader.
type source struct{ r *rand.Rand }

func (s source) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.r.Uint32())
	}
	return len(b), nil
}

func (e *peerEnd) stamp(to session.Address, category uint8, encrypted bool, bodySize int) (h session.Header) {
	self := addressOf(e.number)
	e.pair.ends[e.number].clock = max(e.pair.ends[e.number].clock+1, uint64(e.pair.net.Now().UnixNano()))
	copy(h[:16], to[:])
	copy(h[16:32], self[:])
	h[32] = category
	binary.BigEndian.PutUint64(h[33:41], e.pair.ends[e.number].clock)
	if encrypted {
		h[49] = 1
	}
	binary.BigEndian.PutUint32(h[50:54], uint32(bodySize))
	return h
}

func (e *peerEnd) LinkUp(_ time.Time, l simnet.LinkID, _ simnet.NodeID) { e.link = l }
func (e *peerEnd) LinkDown(_ time.Time, l simnet.LinkID) {
	if e.link == l {
		e.link = 0
	}
}

func (e *peerEnd) Receive(now time.Time, _ simnet.LinkID, frame []byte) {
	at := binary.BigEndian.Uint64(frame[33:41])
	if e.seen[at] {
		return
	}
	e.seen[at] = true
	e.peer.Receive(now, session.Received{Signed: frame}, &e.out)
	e.act()
}

func (e *peerEnd) Tick(now time.Time) {
	e.peer.Tick(now, &e.out)
	e.act()
}

// act does what the last event asks for.
func (e *peerEnd) act() {
	now := e.pair.net.Now()
	for e.out.Ready || len(e.out.Frames)+len(e.out.Messages) > 0 {
		out := e.out
		e.out = session.Actions{}
		for _, f := range out.Frames {
			e.transmit(f)
		}
		for _, m := range out.Messages {
			e.got = append(e.got, binary.BigEndian.Uint64(m.Content))
			e.untaken = append(e.untaken, m.Charge)
		}
		if !e.lazy {
			e.take(len(e.untaken))
		}
		if out.Ready {
			e.pump()
		}
	}
	if at := e.peer.Deadline(); !at.IsZero() {
		if !at.After(now) {
			at = now.Add(time.Nanosecond)
		}
		e.pair.net.WakeAt(e.id, at)
	}
}

func (e *peerEnd) take(n int) {
	for _, charge := range e.untaken[:n] {
		e.peer.Taken(e.pair.net.Now(), charge, &e.out)
	}
	e.untaken = e.untaken[n:]
}

// pump seals what waits, until that is refused.
func (e *peerEnd) pump() {
	content := make([]byte, 1000)
	for len(e.outbox) > 0 {
		binary.BigEndian.PutUint64(content, e.outbox[0])
		signed, ok := e.peer.Send(e.pair.net.Now(), nil, 64, content, &e.out)
		if !ok {
			return
		}
		e.outbox = e.outbox[1:]
		for _, f := range e.out.Frames {
			e.transmit(f)
		}
		e.out.Frames = nil
		e.transmit(signed)
	}
}

func (e *peerEnd) transmit(signed []byte) {
	if e.link != 0 {
		e.pair.net.Send(e.id, e.link, append([]byte(nil), signed...))
	}
}

// say has the application send so many messages.
func (e *peerEnd) say(count int) {
	for range count {
		e.sent++
		e.outbox = append(e.outbox, e.sent)
	}
	e.pump()
	e.act()
}

func newPair(t *testing.T, seed uint64, w weather) *joined {
	p := &joined{t: t, weather: w, net: simnet.New(simnet.Config{
		Seed: seed, Start: time.Unix(1_800_000_000, 0), DelayMin: time.Millisecond, DelayMax: linkDelay, NoticeMax: 100 * time.Millisecond,
	})}
	for i := range p.ends {
		p.ends[i] = (&peerEnd{pair: p, number: i, id: simnet.NodeID(i)}).begin()
		p.net.Add(p.ends[i])
	}
	p.router = p.net.Add(between{p})
	for i := range p.ends {
		p.net.Connect(simnet.NodeID(i), p.router)
	}
	p.net.Run(time.Second)
	return p
}

// live has both ends talk, start again and lose their links for runTime.
func (p *joined) live() {
	r := p.net.Rand()
	any := func() time.Duration { return time.Duration(r.Int64N(int64(runTime))) }
	for i := range p.ends {
		for range 40 {
			p.net.After(any(), func() { p.ends[i].say(1 + r.IntN(5)) })
			p.net.After(any(), func() { // a pause of the reader
				p.ends[i].lazy = true
				p.net.After(time.Duration(r.Int64N(int64(20*time.Second))), func() {
					p.ends[i].lazy = false
					p.ends[i].take(len(p.ends[i].untaken))
					p.ends[i].act()
				})
			})
		}
		p.net.After(any(), func() { p.ends[i].say(200) }) // more than the window
	}
	for range p.weather.restarts {
		i := r.IntN(2)
		p.net.After(any(), func() { p.restart(i) })
	}
	for range p.weather.failures {
		i := r.IntN(2)
		p.net.After(any(), func() { p.reconnect(i) })
	}
	p.net.Run(runTime)
}

func (p *joined) restart(i int) {
	e := p.ends[i].begin()
	p.ends[i] = e
	p.net.Restart(e.id, e)
	p.net.Connect(e.id, p.router)
	p.net.After(time.Second, func() { p.ends[i].say(1) })
}

// reconnect fails an end's link and makes another after a moment.
func (p *joined) reconnect(i int) {
	if l := p.ends[i].link; l != 0 {
		p.net.Fail(l)
		p.net.After(time.Second, func() { p.net.Connect(simnet.NodeID(i), p.router) })
	}
}

// heal ends all trouble, and checks that a last message passes both ways.
func (p *joined) heal() {
	p.weather = weather{}
	p.net.Run(3 * time.Minute)
	for _, e := range p.ends {
		e.lazy = false
		e.take(len(e.untaken))
		e.act()
	}
	for _, e := range p.ends {
		e.say(1)
	}
	p.net.Run(2 * time.Minute)
	for i, e := range p.ends {
		if got := p.ends[1-i].got; len(e.outbox) > 0 || len(got) == 0 || got[len(got)-1] != e.sent {
			p.t.Errorf("end %d: %d messages wait after the network has healed; the last that came is not number %d", i, len(e.outbox), e.sent)
		}
	}
}

// check: numbers rise; if complete, none is missing.
func (p *joined) check(complete bool) {
	for i, e := range p.ends {
		last := uint64(0)
		for _, number := range p.ends[1-i].got {
			if number <= last || number > e.sent || complete && number != last+1 {
				p.t.Fatalf("end %d got message %d after %d, of %d sent", 1-i, number, last, e.sent)
			}
			last = number
		}
	}
}

func TestSessionsDeliverASubsequenceOfWhatWasSent(t *testing.T) {
	for seed := range *sessionSeeds {
		r := rand.New(rand.NewPCG(seed, 1))
		w := weather{
			loss: 0.3 * r.Float64(), twice: 0.3 * r.Float64(), delay: time.Duration(r.Int64N(int64(3 * time.Second))),
			restarts: r.IntN(4), failures: r.IntN(4),
		}
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newPair(t, seed, w)
			p.live()
			p.heal()
			p.check(w.isCalm())
		}) {
			t.Logf("%+v", w)
		}
	}
}

func TestSessionsDeliverEverythingThroughACalmNetwork(t *testing.T) {
	for seed := range *sessionSeeds {
		r := rand.New(rand.NewPCG(seed, 2))
		w := weather{twice: 0.3 * r.Float64(), delay: time.Duration(r.Int64N(int64(calmDelay)))}
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newPair(t, seed, w)
			p.live()
			p.heal()
			p.check(w.isCalm())
			for i, e := range p.ends {
				if got := p.ends[1-i].got; uint64(len(got)) != e.sent || e.sent < 240 {
					t.Errorf("end %d has sent %d messages, %d came", i, e.sent, len(got))
				}
			}
		}) {
			t.Logf("%+v", w)
		}
	}
}
