package engine

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
)

// goodbye leaves as PROTOCOL.md section 12 says, and returns what came before
// the end.
func (c *client) goodbye() (rest []codec.Raw) {
	c.t.Helper()
	c.say(&codec.Goodbye{Reason: codec.GoodbyeDone, Received: c.received})
	return c.toEnd()
}

// toEnd reads to the end of the connection and returns what is not link control.
func (c *client) toEnd() (rest []codec.Raw) {
	c.t.Helper()
	for {
		f, err := c.read()
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			c.t.Fatal("the connection stays open")
		}
		if err != nil {
			c.conn.Close()
			return rest
		}
		if f.Category() != codec.CategoryControl {
			rest = append(rest, f)
		}
	}
}

// numbered sends a frame with a number and a body of so many bytes.
func (c *client) numbered(to codec.Address, n, size int) codec.Raw {
	c.t.Helper()
	body := make([]byte, max(size, 4))
	binary.BigEndian.PutUint32(body, uint32(n))
	wire := c.wire(c.frame(to, codec.CategoryApplication, body))
	c.write(wire)
	return wire
}

func numberOf(f codec.Raw) int { return int(binary.BigEndian.Uint32(f.Body())) }

// toldOf counts the frames that notices tell of, by reason.
func toldOf(t *testing.T, frames []codec.Raw) map[codec.NoticeReason]int {
	t.Helper()
	told := map[codec.NoticeReason]int{}
	for _, f := range frames {
		if f.Category() == codec.CategoryNotice {
			n := must(codec.DecodeNotice(f.Body()))
			told[n.Reason] += len(n.Frames) + int(n.More)
		}
	}
	return told
}

// withLoops has every test of a frame's way run on one loop and on several.
func withLoops(t *testing.T, run func(t *testing.T, change func(*Config))) {
	for _, loops := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			run(t, func(c *Config) { c.Loops, c.HoldTimeout = loops, patience })
		})
	}
}

func TestFramesWaitForWhoHasJustLeftAndComesBack(t *testing.T) {
	for name, leave := range map[string]func(c *client){
		"goodbye": func(c *client) { c.goodbye() },
		"close":   func(c *client) { c.conn.Close() },
		"reset":   func(c *client) { c.conn.NetConn().(*net.TCPConn).SetLinger(0); c.conn.NetConn().Close() },
	} {
		withLoops(t, func(t *testing.T, change func(*Config)) {
			d := newAuthority("prod.example")
			r, addr := startRouter(t, change, d)
			id := d.node("b")
			b := connect(t, addr, id)
			var senders []*client
			for n := range 5 {
				senders = append(senders, connect(t, addr, d.node(fmt.Sprintf("a%d", n))))
			}
			leave(b)
			waitFor(t, "it is gone", func() bool { return r.table.Len() == len(senders) })
			const each = 20
			for n := range each {
				for _, a := range senders {
					a.numbered(id.Peer.Address, n, 0)
				}
			}
			for _, a := range senders {
				if told := a.sync(); len(told) != 0 {
					t.Errorf("%s: told %v", name, toldOf(t, told))
				}
			}
			if n, c := r.withdrawn.frames.Load(), r.Counts(); n != each*int64(len(senders)) || c.InFlight != uint64(n) {
				t.Errorf("%s: %d frames wait, %d in flight", name, n, c.InFlight)
			}
			b = connect(t, addr, id)
			for n := range each {
				for _, a := range senders {
					a.numbered(id.Peer.Address, each+n, 0)
				}
			}
			next := map[codec.Address]int{}
			for range 2 * each * len(senders) {
				f := b.next()
				if numberOf(f) != next[f.Sender()] || f.TTL() != 31 {
					t.Fatalf("%s: frame %d with TTL %d came as number %d", name, numberOf(f), f.TTL(), next[f.Sender()])
				}
				next[f.Sender()]++
			}
			if n, bytes := r.withdrawn.frames.Load(), r.withdrawn.bytes.Load(); n != 0 || bytes != 0 {
				t.Errorf("%s: %d frames of %d bytes wait still", name, n, bytes)
			}
		})
	}
}

func TestFramesForWhoDoesNotComeBackAreNoticedWhenItsTimeIsOver(t *testing.T) {
	d := newAuthority("prod.example")
	const hold = 400 * time.Millisecond
	r, addr := startRouter(t, func(c *Config) { c.HoldTimeout = hold }, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	left := time.Now()
	b.goodbye()
	wire := a.numbered(b.id.Peer.Address, 1, 0)
	checkNotice(t, "who has just left", []codec.Raw{a.next()}, codec.NoticeNoRoute, wire)
	if took := time.Since(left); took < hold {
		t.Errorf("noticed after %v, held for %v", took, hold)
	}
	wire = a.numbered(b.id.Peer.Address, 2, 0)
	checkNotice(t, "who left some time ago", a.sync(), codec.NoticeNoRoute, wire)
	waitFor(t, "the withdrawal is forgotten", func() bool { return r.withdrawn.count.Load() == 0 })
	if n := r.droppedFor(dropNoRoute); n != 2 || r.withdrawn.bytes.Load() != 0 {
		t.Errorf("%d frames dropped, %d bytes wait", n, r.withdrawn.bytes.Load())
	}
}

func TestNothingWaitsForWhoWasNeverThereOrWasSentAway(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.HoldTimeout, c.BadSignatures = patience, 1 }, d)
	a := connect(t, addr, d.node("a"))
	nobody := codec.Address(a.id.Peer.Address)
	nobody[15] ^= 1
	wire := a.numbered(nobody, 1, 0)
	checkNotice(t, "nobody", a.sync(), codec.NoticeNoRoute, wire)
	bad := connect(t, addr, d.node("bad"))
	for range 2 {
		w := bad.wire(bad.frame(nobody, 64, nil))
		w[len(w)-1] ^= 1
		bad.write(w)
	}
	bad.ended()
	wire = a.numbered(bad.id.Peer.Address, 1, 0)
	checkNotice(t, "sent away", a.sync(), codec.NoticeNoRoute, wire)
	b := connect(t, addr, d.node("b"))
	reload(t, r, func(c *Config) { c.Store = storeWith(map[string][]byte{d.Domain: d.revoking(1, b.id)}, d) })
	if g := b.ended(); g == nil || g.Reason != codec.GoodbyeRevoked {
		t.Errorf("goodbye %+v", g)
	}
	wire = a.numbered(b.id.Peer.Address, 1, 0)
	answers := slices.DeleteFunc(a.sync(), func(f codec.Raw) bool { return f.Category() == codec.CategoryControl }) // the list
	checkNotice(t, "revoked", answers, codec.NoticeNoRoute, wire)
	if n := r.withdrawn.frames.Load(); n != 0 {
		t.Errorf("%d frames wait", n)
	}
}

func TestHoldingCanBeTurnedOff(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.HoldTimeout = -1 }, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	b.goodbye()
	wire := a.numbered(b.id.Peer.Address, 1, 0)
	checkNotice(t, "who has just left", a.sync(), codec.NoticeNoRoute, wire)
	if n := r.withdrawn.count.Load(); n != 0 {
		t.Errorf("%d addresses noted", n)
	}
}

func TestWhatWaitsForOneAddressIsBounded(t *testing.T) {
	withLoops(t, func(t *testing.T, change func(*Config)) {
		d := newAuthority("prod.example")
		r, addr := startRouter(t, change, d)
		id := d.node("b")
		a, other := connect(t, addr, d.node("a")), connect(t, addr, d.node("other"))
		connect(t, addr, id).goodbye()
		const frames, size = 100, 50 << 10
		for n := range frames {
			a.numbered(id.Peer.Address, n, size)
		}
		refused := 0
		waitFor(t, "all are kept or refused", func() bool {
			refused += toldOf(t, a.sync())[codec.NoticeQueueFull]
			return int(r.withdrawn.frames.Load())+refused == frames
		})
		if bytes := r.withdrawn.bytes.Load(); bytes > roomBytesMax || bytes < roomBytesMax/2 {
			t.Errorf("%d bytes wait, at most %d", bytes, roomBytesMax)
		}
		other.numbered(id.Peer.Address, 0, size) // the bound is the address's, on all loops
		if refused := toldOf(t, other.sync())[codec.NoticeQueueFull]; refused != 1 {
			t.Errorf("%d frames of another sender refused", refused)
		}
		b := connect(t, addr, id)
		for n := range frames - refused {
			if got := numberOf(b.next()); got != n {
				t.Fatalf("frame %d came as number %d", got, n)
			}
		}
	})
}

// A frame that alone is above the bound may wait, but not behind another.
func TestOneLargeFrameMayWait(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, func(c *Config) { c.HoldTimeout = patience }, d)
	id := d.node("b")
	a := connect(t, addr, d.node("a"))
	connect(t, addr, id).goodbye()
	a.numbered(id.Peer.Address, 0, 1<<20)
	a.numbered(id.Peer.Address, 1, 0)
	if refused := toldOf(t, a.sync())[codec.NoticeQueueFull]; refused != 1 {
		t.Errorf("%d frames refused, want the second", refused)
	}
	if got := numberOf(connect(t, addr, id).next()); got != 0 {
		t.Errorf("frame %d came", got)
	}
}

func TestWithdrawalsAreBoundedInAll(t *testing.T) {
	now := time.Now()
	w := newWithdrawals(now, memoryDefault)
	address := func(n int) (a codec.Address) {
		binary.BigEndian.PutUint64(a[8:], uint64(n))
		return a
	}
	for n := range withdrawnMax { // that were connected to other routers
		w.add(address(n), 0, now, time.Second, withdrawnRemoteMax)
	}
	if len(w.of) != withdrawnRemoteMax || w.missed.Load() != withdrawnMax-withdrawnRemoteMax {
		t.Errorf("%d addresses noted, %d not, at most %d", len(w.of), w.missed.Load(), withdrawnRemoteMax)
	}
	for n := range withdrawnMax + 10 {
		w.add(address(n), 0, now, time.Second, withdrawnMax)
	}
	if len(w.of) != withdrawnMax || w.find(address(withdrawnMax)) != nil {
		t.Errorf("%d addresses noted, at most %d", len(w.of), withdrawnMax)
	}
	const large = roomBytesMax
	taken := 0
	for n := range 100 {
		if w.take(w.find(address(n)), large) {
			taken++
		}
	}
	if taken != heldBytesMax/large || w.bytes.Load() != heldBytesMax {
		t.Errorf("%d of %d bytes taken, at most %d in all", taken, large, heldBytesMax)
	}
	for n := range taken {
		w.giveBack(w.find(address(n)), large)
	}
	w.add(address(1), 0, now, time.Minute, withdrawnMax) // left again
	w.forget(now.Add(2 * time.Second))
	if w.find(address(0)) != nil || w.find(address(1)) == nil || w.count.Load() != 1 {
		t.Errorf("%d addresses after their time, want the one that left again", w.count.Load())
	}
	w.forget(now.Add(time.Hour))
	if len(w.of) != 0 || w.order != nil || w.bytes.Load() != 0 || w.frames.Load() != 0 {
		t.Errorf("%d addresses, %d bytes, %d frames at the end", len(w.of), w.bytes.Load(), w.frames.Load())
	}
	w.add(address(0), 0, now, time.Second, withdrawnMax)
	if n := testing.AllocsPerRun(100, func() { w.find(address(7)) }); n != 0 {
		t.Errorf("%v allocations for an address that nobody has had", n)
	}
}

// What comes back from a broken connection waits too, before what comes later.
func TestTheQueueOfABrokenConnectionWaits(t *testing.T) {
	withLoops(t, func(t *testing.T, change func(*Config)) {
		d := newAuthority("prod.example")
		r, addr := startRouter(t, func(c *Config) { change(c); c.QueueHigh = 64 << 20 }, d)
		a := connect(t, addr, d.node("a"))
		id := d.node("b")
		b := connect(t, addr, id)
		b.conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
		const frames, size = 2000, 8000 // more than kernels buffer
		for n := range frames {
			a.numbered(id.Peer.Address, n, size)
		}
		a.sync()
		b.conn.NetConn().(*net.TCPConn).SetLinger(0)
		b.conn.NetConn().Close()
		waitFor(t, "it is gone", func() bool { return r.table.Len() == 1 })
		a.numbered(id.Peer.Address, frames, size)
		refused, kept := 0, 0
		waitFor(t, "all that came back is kept or refused", func() bool {
			refused += toldOf(t, a.sync())[codec.NoticeQueueFull]
			kept = int(r.withdrawn.frames.Load())
			return r.Counts().InFlight == uint64(kept) && r.droppedFor(dropQueueFull) == uint64(refused)
		})
		if kept < roomBytesMax/2/(2*size) || refused < frames/4 {
			t.Errorf("%d frames wait, %d refused", kept, refused)
		}
		b = connect(t, addr, id)
		a.numbered(id.Peer.Address, frames+1, size)
		waitFor(t, "it is there", func() bool { return r.table.Len() == 2 })
		if a.sync(); r.droppedFor(dropQueueFull) == uint64(refused) { // else it has met the full room
			kept++
		}
		last := -1
		for n := range kept {
			got := numberOf(b.next())
			if got <= last || got > frames && n != kept-1 {
				t.Fatalf("frame %d after %d, as number %d of %d", got, last, n, kept)
			}
			last = got
		}
	})
}

// One that comes and goes gets everything, once and in order, whatever loops
// its senders are on.
func TestOneThatComesAndGoesMissesNothing(t *testing.T) {
	withLoops(t, func(t *testing.T, change func(*Config)) {
		d := newAuthority("prod.example")
		r, addr := startRouter(t, change, d)
		id := d.node("b")
		const senders, rounds, each = 6, 5, 100
		var sending, stopped sync.WaitGroup
		var sent [senders]int
		var got atomic.Int64
		stop := make(chan struct{})
		window := make(chan struct{}, 200)
		from := map[codec.Address]int{}
		sending.Add(1)
		for n := range senders {
			a := connect(t, addr, d.node(fmt.Sprintf("a%d", n)))
			from[a.id.Peer.Address] = n
			stopped.Go(func() {
				sending.Wait()
				for {
					select {
					case <-stop:
						return
					case window <- struct{}{}:
					}
					wire := a.wire(a.frame(id.Peer.Address, 64, binary.BigEndian.AppendUint32(nil, uint32(sent[n]))))
					a.conn.SetWriteDeadline(time.Now().Add(patience))
					if _, err := a.conn.Write(wire); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					sent[n]++
				}
			})
		}
		var next [senders]int
		take := func(f codec.Raw) {
			if f.Category() != 64 {
				return
			}
			s := from[f.Sender()]
			if numberOf(f) != next[s] {
				t.Fatalf("frame %d of sender %d came as number %d", numberOf(f), s, next[s])
			}
			next[s]++
			got.Add(1)
			<-window
		}
		b := connect(t, addr, id)
		sending.Done()
		for range rounds {
			for before := got.Load(); got.Load() < before+each; {
				take(b.next())
			}
			for _, f := range b.goodbye() {
				take(f)
			}
			b = connect(t, addr, id)
		}
		close(stop)
		stopped.Wait()
		for next != sent {
			take(b.next())
		}
		if c := r.Counts(); c.DroppedSum() != 0 {
			t.Errorf("dropped %v", c.Dropped)
		}
	})
}
