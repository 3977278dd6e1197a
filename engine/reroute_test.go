package engine

import (
	"sync"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/link"
)

// announces has c, a neighbour, say that it has the nodes of its domain, attached
// at the time given; and waits until the router has a route to them.
func (c *client) announces(r *Router, attached uint64, nodes ...codec.Address) {
	c.t.Helper()
	self := c.id.Peer.Address
	source := codec.Source{Epoch: uint64(time.Now().UnixNano()), ID: [8]byte(self[8:])}
	c.say(&codec.RouteUpdate{Interval: time.Hour, Routes: []codec.Route{{Router: self, Source: source, Seqno: 1, Metric: 0}}})
	list := &codec.AddressList{Router: self, Source: source, To: 1, Parts: 1}
	for _, a := range nodes {
		list.Added = append(list.Added, codec.Attached{Node: a, Sent: attached})
	}
	c.say(&codec.ListNumbers{Lists: []codec.ListNumber{{Router: self, Source: source, Number: 1}}})
	for asked := false; !asked; {
		if f := c.next(); f.Category() == codec.CategoryControl {
			q, ok := must(codec.DecodeControl(f.Body())).(*codec.ListRequest)
			asked = ok && q.Router == self
		}
	}
	c.say(list)
	waitFor(c.t, "a route to what a neighbour announces", func() bool {
		for _, a := range nodes {
			if to, _ := r.lookup(a); to == 0 {
				return false
			}
		}
		return true
	})
}

// readsNumbered reads application frames until n have come, and returns their numbers by
// recipient, which must rise.
func (c *client) readsNumbered(n int) map[codec.Address]int {
	c.t.Helper()
	last := map[codec.Address]int{}
	for n > 0 {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v, %d frames are missing", err, n)
		}
		if f.Category() != codec.CategoryApplication {
			continue
		}
		if before, ok := last[f.Recipient()]; ok && numberOf(f) <= before {
			c.t.Fatalf("frame %d for %v comes after %d", numberOf(f), f.Recipient(), before)
		}
		last[f.Recipient()] = numberOf(f)
		n--
	}
	return last
}

// deafNeighbour is neighbourOf of one whose kernel takes little.
func deafNeighbour(t *testing.T, addr string, domains ...*authority) *client {
	t.Helper()
	c := neighbourOf(t, addr, domains...)
	c.takesLittle()
	return c
}

// told reads until notices have told c of n frames, and returns of how many by
// reason.
func (c *client) told(n int) map[codec.NoticeReason]int {
	c.t.Helper()
	all := map[codec.NoticeReason]int{}
	for n > 0 {
		for reason, more := range toldOf(c.t, []codec.Raw{c.next()}) {
			all[reason] += more
			n -= more
		}
	}
	if n < 0 {
		c.t.Fatalf("told of %d frames too many: %v", -n, all)
	}
	return all
}

// These tests send much, so that most of it stays in the queue of a link whose
// other end does not read.
const (
	stuckFrames = 500
	stuckSize   = 32 << 10
)

func manyInQueues(c *Config) { c.QueueHigh = 64 << 20 }

// fill has c send so many frames to an address, and waits until the router has
// decided on all.
func (c *client) fill(to codec.Address) {
	c.t.Helper()
	for n := range stuckFrames {
		c.numbered(to, n, stuckSize)
	}
	c.sync()
}

// What is queued for a link that ends goes on by another; of the rest the sender is
// told, of each frame once.
func TestWhatIsQueuedForALinkThatEndsGoesByAnother(t *testing.T) {
	for name, end := range map[string]func(x *client, d *authority){
		"cut": func(x *client, _ *authority) { x.conn.NetConn().Close() },
		"domain withdrawn": func(x *client, d *authority) {
			x.say(&codec.DomainProofs{Parts: 1, Values: x.proofs[1:]})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, other := newAuthority("prod.example"), newAuthority("test.example")
			r, addr := startRouter(t, manyInQueues, d, other)
			node := d.node("n").Peer.Address
			x, y := deafNeighbour(t, addr, d, other), neighbourOf(t, addr, d)
			y.announces(r, 1, node)
			x.announces(r, 2, node)
			sender := connect(t, addr, d.node("a"))
			waitFor(t, "the way to whom it has attached to last", func() bool {
				to, _ := r.lookup(node)
				return r.remoteOf(to) == x.conn.LocalAddr().String()
			})
			sender.fill(node)
			end(x, d)
			first, n := -1, 0
			for last := -1; last < stuckFrames-1; n++ {
				f := y.next()
				if f.Category() != codec.CategoryApplication {
					n--
					continue
				}
				if now := numberOf(f); last < 0 {
					first, last = now, now
				} else if now != last+1 {
					t.Fatalf("frame %d comes after %d", now, last)
				} else {
					last = now
				}
			}
			if n < stuckFrames/2 || first+n != stuckFrames {
				t.Errorf("%d frames go by the other link, from %d on", n, first)
			}
			if name == "cut" {
				told := sender.told(first)
				c := r.Counts()
				if told[codec.NoticeUnconfirmed]+told[codec.NoticeRecipientGone] != first || c.Unconfirmed != uint64(told[codec.NoticeUnconfirmed]) ||
					c.Dropped["recipient-gone"] != uint64(told[codec.NoticeRecipientGone]) {
					t.Errorf("told of %v; unconfirmed %d, dropped %v", told, c.Unconfirmed, c.Dropped)
				}
			}
			if n := r.Counts().DroppedSum() - r.droppedFor(dropRecipientGone); n != 0 {
				t.Errorf("dropped: %v", r.Counts().Dropped)
			}
			if name != "cut" {
				x.readsNumbered(first) // it still gets what was sealed
			}
		})
	}
}

// What comes back since its domain was withdrawn waits until the routes show that, and
// does not go by the same link again.
func TestWhatIsWithdrawnDoesNotGoByTheSameLinkAgain(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("test.example")
	r, addr := startRouter(t, func(c *Config) {
		manyInQueues(c)
		c.HoldTimeout, c.StallTimeout = patience, 2*patience
	}, d, other)
	node := d.node("n").Peer.Address
	x, y := deafNeighbour(t, addr, d, other), neighbourOf(t, addr, d)
	y.announces(r, 1, node)
	x.announces(r, 2, node)
	sender := connect(t, addr, d.node("a"))
	waitFor(t, "the way to whom it has attached to last", func() bool {
		to, _ := r.lookup(node)
		return r.remoteOf(to) == x.conn.LocalAddr().String()
	})
	sender.fill(node)
	goOn, running := make(chan struct{}), make(chan struct{})
	r.routing.post(func(time.Time) { close(running); <-goOn })
	<-running
	x.say(&codec.DomainProofs{Parts: 1, Values: x.proofs[1:]})
	by, _ := r.lookup(node)
	stranded := func(do func(l *loop)) (n int) {
		l, done := r.loops[by.Loop()], make(chan struct{})
		l.link.Post(func() { do(l); n = len(l.stranded.frames); close(done) })
		<-done
		return n
	}
	before := 0
	waitFor(t, "frames that come back", func() bool { before = stranded(func(*loop) {}); return before >= stuckFrames/2 })
	for n := range 3 { // what is sent before the routes have changed waits behind them
		sender.numbered(node, stuckFrames+n, stuckSize)
	}
	waitFor(t, "frames for the same link", func() bool { return stranded(func(*loop) {}) == before+3 })
	before += 3
	if n := stranded((*loop).reroute); n != before {
		t.Errorf("%d of %d frames have gone by the same link", before-n, before)
	}
	close(goOn)
	for n := range before {
		f := y.next()
		for f.Category() != codec.CategoryApplication {
			f = y.next()
		}
		if want := stuckFrames + 3 - before + n; numberOf(f) != want {
			t.Fatalf("frame %d comes, want %d", numberOf(f), want)
		}
	}
	if n := r.Counts().DroppedSum(); n != 0 {
		t.Errorf("dropped: %v", r.Counts().Dropped)
	}
}

// remoteOf returns the other end of a connection; "": it is gone.
func (r *Router) remoteOf(ref link.Ref) (addr string) {
	done := make(chan struct{})
	if !r.loops[ref.Loop()].link.Post(func() {
		if c := r.loops[ref.Loop()].link.Conn(ref); c != nil {
			addr = c.Remote().String()
		}
		close(done)
	}) {
		return ""
	}
	<-done
	return addr
}

// Where there is no other link, senders are told of all when the time is over.
func TestWhatIsQueuedForTheOnlyLinkIsTold(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) {
		manyInQueues(c)
		c.HoldTimeout = 200 * time.Millisecond
	}, d)
	node := d.node("n").Peer.Address
	x, sender := deafNeighbour(t, addr, d), connect(t, addr, d.node("a"))
	x.announces(r, 1, node)
	sender.fill(node)
	x.conn.NetConn().Close()
	told := sender.told(stuckFrames)
	if told[codec.NoticeNoRoute] < stuckFrames/2 || told[codec.NoticeNoRoute]+told[codec.NoticeUnconfirmed]+told[codec.NoticeRecipientGone] != stuckFrames {
		t.Errorf("told of %v", told)
	}
	if c := r.Counts(); c.Dropped["no-route"] != uint64(told[codec.NoticeNoRoute]) || c.InFlight != 0 || r.withdrawn.bytes.Load() != 0 {
		t.Errorf("dropped %v, in flight %d, %d bytes wait", c.Dropped, c.InFlight, r.withdrawn.bytes.Load())
	}
}

// A node whose frames meet a full queue behind a link waits, as for a node here;
// others' frames go to other recipients behind the same link meanwhile. Nothing is
// lost, and each recipient's frames come in order.
func TestANodeWaitsForAFullRecipientBehindALink(t *testing.T) {
	const few = 20
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) {
		c.QueueHigh, c.QueueLow, c.PauseMax, c.StallTimeout = 1<<20, 256<<10, patience, 2*patience
	}, d)
	one, two := d.node("one").Peer.Address, d.node("two").Peer.Address
	x := deafNeighbour(t, addr, d)
	x.announces(r, 1, one, two)
	greedy, modest := connect(t, addr, d.node("greedy")), connect(t, addr, d.node("modest"))
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := range stuckFrames {
			greedy.numbered(one, n, stuckSize)
		}
	})
	waitFor(t, "who fills a queue waits", func() bool {
		var paused uint64
		for _, l := range r.loops {
			paused += l.count.paused.Load()
		}
		return paused > 0
	})
	for n := range few {
		modest.numbered(two, n, 100)
	}
	modest.sync()
	if n := r.Counts().DroppedSum(); n != 0 {
		t.Errorf("dropped %v", r.Counts().Dropped)
	}
	last := x.readsNumbered(stuckFrames + few)
	if last[one] != stuckFrames-1 || last[two] != few-1 {
		t.Errorf("the last frames are %v", last)
	}
	sending.Wait()
	greedy.sync()
	if n := r.Counts().DroppedSum(); n != 0 {
		t.Errorf("dropped %v", r.Counts().Dropped)
	}
}

// A link that is cut under traffic: each frame arrives, once, or its sender is told
// of it.
func TestALinkIsCutUnderTraffic(t *testing.T) {
	const frames = 4000
	w := newFleet(t, "prod.example")
	all := []int{0}
	w.add(all)
	w.add(all, 0)
	w.add(all, 0, 1)
	alice, bob := w.connect(0, w.domains[0].node("alice")), w.connect(2, w.domains[0].node("bob"))
	w.knows(bob.id.Peer.Address, 0, 1)
	w.knows(alice.id.Peer.Address, 1, 2)
	in := &inbox{seen: make(map[int]int)}
	var reading sync.WaitGroup
	reading.Go(func() { in.read(bob, nil) })
	for n := range frames {
		if n == frames/2 {
			go w.cut(2, 0)
		}
		alice.numbered(bob.id.Peer.Address, n, 1000)
	}
	told := 0
	waitFor(t, "each frame is there, or told of", func() bool {
		for _, n := range toldOf(t, alice.sync()) {
			told += n
		}
		return in.size() >= frames/2 && in.size()+told >= frames // a frame may be both: perhaps delivered
	})
	bob.conn.Close()
	reading.Wait()
	for n, times := range in.seen {
		if times != 1 {
			t.Errorf("frame %d came %d times", n, times)
		}
	}
	if c := w.routers[0].Counts(); uint64(told) > c.Unconfirmed+c.DroppedSum() {
		t.Errorf("told of %d, %d unconfirmed, dropped %v", told, c.Unconfirmed, c.Dropped)
	}
}
