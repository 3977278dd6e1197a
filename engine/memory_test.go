package engine

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
)

// squeeze takes all memory but so many bytes, as frames that wait for verdicts
// would, until the function that it returns is called.
func squeeze(r *Router, left int64) (release func()) {
	var taken []*buf.Buffer
	for n := int64(0); n < r.budget.Limit()-left; n += buf.SizeOf(taken[len(taken)-1]) {
		taken = append(taken, buf.Get(64<<10))
	}
	return func() {
		for _, b := range taken {
			buf.Put(b)
		}
	}
}

// stuff sends frames to a node that does not read, until some wait in its queue
// and the kernel takes no more.
func stuff(t *testing.T, r *Router, from *client, to *client) {
	t.Helper()
	from.stay()
	for range 64 {
		for range 32 {
			from.send(from.frame(to.id.Peer.Address, codec.CategoryApplication, make([]byte, 15<<10)))
		}
		from.sync()
		if standsStill(t, r, to.id.Peer.Name) {
			return
		}
	}
	t.Fatal("the kernel takes 30 MiB for a node that does not read")
}

// stay lets c's connection, which else ends when patience with it does, live as
// long from now on.
func (c *client) stay() { c.conn.SetDeadline(time.Now().Add(patience)) }

// standsStill tells whether frames wait for a node of which the kernel takes none.
// That they wait does not say so: a loop writes only so much in a turn.
func standsStill(t *testing.T, r *Router, name string) bool {
	t.Helper()
	peerNamed(t, r, name) // after it, what was on its way from another loop is there
	before := peerNamed(t, r, name)
	after := peerNamed(t, r, name) // a turn later, which has written what it could
	return before.QueueBytes > 0 && after.BytesOut == before.BytesOut
}

// deaf connects a node that does not read.
func deaf(t *testing.T, addr string, a *authority, name string) *client {
	t.Helper()
	c := connect(t, addr, a.node(name))
	c.conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	return c
}

// Many recipients that do not read, and those who flood them, take nothing from
// a pair of nodes whose queue is short; what the queues take is within the cap.
func TestAShortQueueLosesNothingWhileOthersStandStill(t *testing.T) {
	const memory, victims = memoryMin, 20
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Memory, c.VerifyNone = memory, true }, d)
	flooder, a, b := connect(t, addr, d.node("flooder")), connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	var flood []byte
	var all []*client
	for n := range victims {
		v := deaf(t, addr, d, fmt.Sprint("victim-", n))
		stuff(t, r, flooder, v)
		flood = append(flood, flooder.wire(flooder.frame(v.id.Peer.Address, codec.CategoryApplication, make([]byte, 300)))...)
		all = append(all, v)
	}
	stop := make(chan struct{})
	flooder.conn.SetDeadline(time.Time{})
	go func() { // it does not read its notices either
		defer close(stop)
		for {
			if _, err := flooder.conn.Write(flood); err != nil {
				return
			}
		}
	}()
	refused := func() float64 { return r.pressedFor(pressedRefused) }
	waitFor(t, "queues to refuse frames", func() bool { return refused() > 1000 })
	for n := range 200 {
		before := refused()
		a.stay()
		b.stay()
		for range 10 {
			a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, []byte{byte(n)}))
		}
		for range 10 {
			if f := b.next(); f.Body()[0] != byte(n) {
				t.Fatalf("batch %d: a frame of batch %d came", n, f.Body()[0])
			}
		}
		waitFor(t, "the flood to go on", func() bool { return refused() > before })
	}
	u := r.budget.Usage()
	var sum int64
	for _, n := range u {
		sum += n
	}
	if sum > memory*7/8 {
		t.Errorf("%d bytes of memory of %d: %v", sum, memory, u)
	}
	flooder.conn.NetConn().Close()
	<-stop
	for _, v := range all {
		v.conn.NetConn().Close()
	}
	waitFor(t, "all is given back", func() bool {
		u := r.budget.Usage()
		return u[buf.PartQueues]+u[buf.PartParked]+u[buf.PartPartial]+u[buf.PartReceived]+u[buf.PartNotices] == 0
	})
}

func (r *Router) pressedFor(effect int) (n float64) {
	for _, l := range r.loops {
		n += float64(l.count.pressed[effect].Load())
	}
	return n
}

// With nothing left, frames are dropped before their verdict, with a notice, and
// their sender rests; it goes on without any other event when there is room.
func TestAtTheCapFramesAreDroppedAndTheirSenderRests(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Memory = memoryMin }, d)
	a := connect(t, addr, d.node("a"))
	release := squeeze(r, 0)
	waitFor(t, "all loops to know", func() bool { return r.exhausted(t) })
	wire := a.wire(a.frame(a.id.Peer.Address, codec.CategoryApplication, []byte("lost")))
	a.write(wire)
	checkNotice(t, "at the cap", []codec.Raw{a.next()}, codec.NoticeQueueFull, codec.Raw(wire))
	waitFor(t, "it to rest", func() bool { return peerNamed(t, r, "a").PausedBy == "memory" })
	if r.droppedFor(dropQueueFull) != 1 || r.pressedFor(pressedUnchecked) != 1 || r.pressedFor(pressedPaused) != 1 {
		t.Errorf("dropped %v, pressed %v and %v", r.Counts().Dropped, r.pressedFor(pressedUnchecked), r.pressedFor(pressedPaused))
	}
	a.send(a.frame(a.id.Peer.Address, codec.CategoryApplication, []byte("kept")))
	b := connect(t, addr, d.node("b")) // newcomers are let in, and served
	b.say(&codec.KeepAlive{Answer: true})
	if _, ok := b.control().(*codec.KeepAlive); !ok {
		t.Error("a newcomer's keep-alive is not answered")
	}
	release()
	if f := a.next(); string(f.Body()) != "kept" {
		t.Errorf("%q came", f.Body())
	}
	if by := peerNamed(t, r, "a").PausedBy; by != "" {
		t.Errorf("still paused by %q", by)
	}
	// What breaks a rule that comes before the queue's is told as that.
	defer squeeze(r, 0)()
	waitFor(t, "all loops to know", func() bool { return r.exhausted(t) })
	other := newAuthority("lab.example")
	wire = a.wire(a.frame(other.node("x").Peer.Address, codec.CategoryApplication, nil))
	a.write(wire)
	checkNotice(t, "another domain", []codec.Raw{a.next()}, codec.NoticeNotPermitted, codec.Raw(wire))
}

// exhausted tells whether all loops know that nothing is left.
func (r *Router) exhausted(t *testing.T) bool {
	for _, l := range r.loops {
		known := make(chan bool)
		l.link.Post(func() { known <- l.link.Account().Exhausted() })
		if !<-known {
			return false
		}
	}
	return true
}

// Who sends much rests when little is left, and nothing of it is lost.
func TestWhoSendsMuchRestsWhileMemoryIsShort(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Memory, c.VerifyWorkers = memoryMin, 1 }, d)
	a := connect(t, addr, d.node("a"))
	release := squeeze(r, r.budget.Limit()/9) // short, and not met
	const frames = 100
	go func() {
		var wire []byte
		for range frames {
			wire = append(wire, a.wire(a.frame(a.id.Peer.Address, codec.CategoryApplication, make([]byte, 1000)))...)
		}
		a.conn.Write(wire)
	}()
	waitFor(t, "it to rest", func() bool { return peerNamed(t, r, "a").PausedBy == "memory" })
	release()
	for range frames {
		a.next()
	}
	if n := r.Counts().DroppedSum(); n != 0 {
		t.Errorf("%d frames dropped: %v", n, r.Counts().Dropped)
	}
}

// A sender that waits for room is let go when memory is short: its frame is
// dropped with a notice, and the recipient earns its pauses as before.
func TestNobodyWaitsForRoomWhileMemoryIsShort(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) {
		c.Memory, c.QueueHigh, c.PauseMax, c.StallTimeout = memoryMin, 1<<20, time.Hour, time.Hour
	}, d)
	a, from, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("from")), deaf(t, addr, d, "deaf")
	stuff(t, r, a, b)
	wire := from.wire(from.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 500<<10)))
	for peerNamed(t, r, "from").PausedBy == "" {
		from.write(wire)
		waitFor(t, "it is forwarded, or waits", func() bool {
			p := peerNamed(t, r, "from")
			return p.PausedBy != "" || p.UncheckedIn == 0
		})
	}
	if by := peerNamed(t, r, "from").PausedBy; by != codec.Address(b.id.Peer.Address).String() {
		t.Fatalf("paused by %q", by)
	}
	defer squeeze(r, r.budget.Limit()/9)()
	if n := must(codec.DecodeNotice(from.next().Body())); n.Reason != codec.NoticeQueueFull || n.Frames[0].Digest != codec.Raw(wire).Digest() {
		t.Errorf("notice %+v", n)
	}
	for _, l := range r.loops {
		l.link.Post(func() {
			if len(l.noPause) > 0 {
				t.Error("the recipient earns no more pauses")
			}
		})
	}
	b.conn.NetConn().Close()
}

// Queues that stand still lose their oldest frames when nothing would be left
// for short ones, and no more than that takes.
func TestASlowQueueGivesUpItsOldestFrames(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Memory = 4 * memoryMin }, d)
	a, b := connect(t, addr, d.node("a")), deaf(t, addr, d, "deaf")
	stuff(t, r, a, b)
	waited := 0
	for waited < 1<<20 {
		for range 32 {
			a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 4000)))
		}
		if others := a.sync(); len(others) > 0 {
			t.Fatalf("%d notices came before memory was short", len(others))
		}
		waited = peerNamed(t, r, "deaf").QueueBytes
	}
	// Just less is left than is kept for short queues.
	u, most := r.budget.Usage(), r.budget.Limit()/4*3-r.budget.Limit()/16
	taken := most - 64<<10 - u[buf.PartQueues] - u[buf.PartCiphertext] - u[buf.PartParked] - u[buf.PartLists]
	r.budget.Use(buf.PartLists, taken)
	waitFor(t, "frames are given up", func() bool { return r.pressedFor(pressedGivenUp) > 0 })
	told, given := uint64(0), uint64(0)
	waitFor(t, "their sender is told", func() bool {
		for _, f := range a.sync() {
			n := must(codec.DecodeNotice(f.Body()))
			if n.Reason != codec.NoticeQueueFull {
				t.Errorf("reason %v", n.Reason)
			}
			told += uint64(len(n.Frames)) + n.More
		}
		given = uint64(r.pressedFor(pressedGivenUp))
		return told == given
	})
	left := peerNamed(t, r, "deaf").QueueBytes
	if r.droppedFor(dropQueueFull) != given || left >= waited || left < waited/2 {
		t.Errorf("%d frames given up, %v dropped; %d bytes wait of %d", given, r.Counts().Dropped, left, waited)
	}
	r.budget.Use(buf.PartLists, -taken)
	b.conn.NetConn().Close()
}

// Answers are made where there is memory for them, and small ones always.
func TestLargeAnswersWaitForMemory(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Memory = memoryMin }, d)
	a := connect(t, addr, d.node("a"))
	for n := range 30 {
		connect(t, addr, d.node(fmt.Sprint("node-", n)))
	}
	release := squeeze(r, 0)
	waitFor(t, "all loops to know", func() bool { return r.exhausted(t) })
	a.say(&codec.NameRequest{Number: 1, Max: codec.NamesMax})
	a.say(&codec.NameRequest{Number: 2, Name: "node-1", Max: 1})
	if n, ok := a.control().(*codec.Names); !ok || n.Number != 2 || len(n.Entries) != 1 {
		t.Errorf("%+v came", n)
	}
	if n := r.sumUint(func(c *counters) uint64 { return c.unanswered.Load() }); n != 1 {
		t.Errorf("%d requests unanswered, want the first", n)
	}
	release()
	waitFor(t, "lists are answered again", func() bool {
		a.say(&codec.NameRequest{Number: 3, Max: codec.NamesMax})
		for _, f := range a.sync() {
			n, ok := must(codec.DecodeControl(f.Body())).(*codec.Names)
			return ok && n.Number == 3 && len(n.Entries) == 31
		}
		return false
	})
}

// When all connections have closed nothing counts any more but certificates, what
// is spare, and what workers remember bursts in.
func TestNothingCountsWhenAllHaveLeft(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.SkewMax = time.Minute }, d)
	for n := range 20 {
		a, b := connect(t, addr, d.node(fmt.Sprint("a", n))), connect(t, addr, d.node(fmt.Sprint("b", n)))
		for i := range 50 {
			a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 100*i)))
		}
		nobody := codec.Address(a.id.Peer.Address)
		nobody[15] ^= 1
		a.send(a.frame(nobody, codec.CategoryApplication, nil))
		a.write(a.wire(a.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 5000)))[:3000])
		if n%2 == 0 {
			b.conn.NetConn().(*net.TCPConn).SetLinger(0)
		}
		a.conn.NetConn().Close()
		b.conn.NetConn().Close()
	}
	waitFor(t, "all have left", func() bool { return r.Connections() == 0 && r.Counts().InFlight == 0 })
	waitFor(t, "nothing but what stays counts", func() bool {
		u, tables := r.budget.Usage(), r.pool.Stats()
		certificates, spare := u[buf.PartCertificates], u[buf.PartCiphertext]+u[buf.PartLists]
		u[buf.PartCertificates], u[buf.PartCiphertext], u[buf.PartLists] = 0, 0, 0
		u[buf.PartTables] -= int64(tables.Bytes + tables.TreeBytes)
		return u == [buf.Parts]int64{} && certificates > 40*certificateBytes && certificates < 50*certificateBytes && spare < 4<<20
	})
	members := r.state().domains["prod.example"].members
	members.end()
	if n := r.budget.Usage()[buf.PartCertificates]; n != 0 {
		t.Errorf("%d bytes of certificates are left of a domain that has ended", n)
	}
	members.ended = false
}

func TestMemoryThatCannotWorkIsRefused(t *testing.T) {
	d := newAuthority("prod.example")
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"at least 33554432", func(c *Config) { c.Memory = 32<<20 - 1 }},
		{"at least 536870912", func(c *Config) { c.Memory, c.BodyMax = 256<<20, 16<<20 }},
		{"high mark 4194304 is above 2097152, a 16th", func(c *Config) { c.Memory, c.QueueHigh = 32<<20, 4<<20 }},
	} {
		cfg := Config{Identity: routerOf("edge-1", d), Store: storeOf(d), Software: "causeway/0.0.1", Loops: 1}
		c.change(&cfg)
		r, err := Start(cfg)
		if err == nil {
			r.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	cfg := Config{Identity: routerOf("edge-1", d), Store: storeOf(d), Software: "causeway/0.0.1", Loops: 1, Memory: 32 << 20}
	if cfg, err := cfg.withDefaults(); err != nil || cfg.QueueHigh != 2<<20 || cfg.QueueLow != 512<<10 {
		t.Errorf("32 MiB: %v, high mark %d, low mark %d", err, cfg.QueueHigh, cfg.QueueLow)
	}
}
