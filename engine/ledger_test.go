package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"
	"unsafe"

	"causeway/codec"
)

var _ [0]struct{} = [onTheWaySize - unsafe.Sizeof(onTheWay{})]struct{}{}

// A ledger agrees with a list that is cut from the front, whatever comes.
func TestLedgerAgreesWithAList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		l := ledger{isLink: round%2 == 1}
		var list []onTheWay // of all that was sealed
		covered, grown := uint64(0), 0
		most := []uint64{3, 100, 5000}[round%3]
		for range 400 {
			switch random.IntN(4) {
			case 0, 1:
				for range random.Uint64N(most) {
					f := onTheWay{sent: random.Uint64N(3)}
					binary.BigEndian.PutUint64(f.sender[:], random.Uint64())
					list = append(list, f)
					grown += l.add(f, toOf(f), 1, 1<<30)
				}
			case 2:
				covered += random.Uint64N(uint64(len(list)) - covered + 1)
				l.cover(covered)
			case 3:
				grown += l.release()
			}
			if grown != l.size(len(l.ring)) || l.isLink != (len(l.to) > 0) && len(l.ring) > 0 {
				t.Fatalf("%d bytes reported for %d places", grown, len(l.ring))
			}
		}
		checkEnd(t, &l, list, covered, random.IntN(5))
	}
}

// toOf is the recipient of f in these tests.
func toOf(f onTheWay) (to codec.Address) {
	for i, b := range f.sender {
		to[i] = ^b
	}
	return to
}

// checkEnd compares what a ledger tells at the end with the list.
func checkEnd(t *testing.T, l *ledger, list []onTheWay, covered uint64, lost int) {
	t.Helper()
	list = slices.Clone(list[max(int(covered), len(list)-ledgerMax):])
	if uint64(len(list)) != l.sealed-l.head {
		t.Fatalf("%d on the way, want %d", l.sealed-l.head, len(list))
	}
	list = slices.DeleteFunc(list, func(f onTheWay) bool { return f.sent == 0 })
	slices.Reverse(list)
	n := 0
	l.end(lost, func(f onTheWay, to codec.Address, isLost bool) {
		if n >= len(list) || f != list[n] || isLost != (n < lost) || l.isLink && to != toOf(f) {
			t.Fatalf("frame %d from the end: %v, lost %v", n, f, isLost)
		}
		n++
	})
	if n != len(list) || l.head != l.sealed {
		t.Errorf("%d frames told of, want %d", n, len(list))
	}
	if l.release(); l.ring != nil || l.to != nil {
		t.Error("memory is kept")
	}
}

// Without memory frames are forgotten, the oldest first, and covered all the same.
func TestLedgerWithoutRoomForgets(t *testing.T) {
	var l ledger
	for n := range 10 {
		if l.add(onTheWay{sent: uint64(n + 1)}, codec.Address{}, 1, 0) != 0 {
			t.Fatal("grows")
		}
	}
	if l.sealed != 10 || l.head != 10 {
		t.Errorf("%d sealed, %d forgotten", l.sealed, l.head)
	}
	l.cover(4)
	room := int64(ledgerMin * onTheWaySize)
	for n := range ledgerMin + 5 {
		room -= int64(l.add(onTheWay{sent: uint64(n + 1)}, codec.Address{}, 1, room))
		l.add(onTheWay{}, codec.Address{}, 1, 0)
	}
	if l.sealed != 10+2*(ledgerMin+5) || l.sealed-l.head != ledgerMin || l.covered != 4 {
		t.Errorf("%d sealed, %d listed, %d covered", l.sealed, l.sealed-l.head, l.covered)
	}
	told := 0
	l.end(0, func(onTheWay, codec.Address, bool) { told++ })
	if told != ledgerMin/2 {
		t.Errorf("%d told of", told)
	}
}

func TestLedgerAsks(t *testing.T) {
	var l ledger
	f := onTheWay{sent: 1}
	for n := range askFrames {
		if l.due() {
			t.Fatalf("asks after %d frames", n)
		}
		l.add(f, codec.Address{}, 100, 1<<30)
	}
	if !l.due() {
		t.Error("does not ask for the number of frames")
	}
	l.ask()
	for range 2 * ledgerMax { // and forgets
		l.add(f, codec.Address{}, 100, 1<<30)
	}
	if l.due() {
		t.Error("asks twice")
	}
	l.cover(askFrames)
	if l.due() {
		t.Error("asks at once after an answer")
	}
	for range askFrames {
		l.add(f, codec.Address{}, 100, 1<<30)
	}
	if !l.due() {
		t.Error("does not ask again")
	}
	l.ask()
	l.cover(l.sealed)
	l.add(f, codec.Address{}, askBytes, 1<<30)
	if !l.due() {
		t.Error("does not ask for the number of bytes")
	}
	l.ask()
	l.cover(l.sealed)
	l.add(f, codec.Address{}, 1, 1<<30)
	now := time.Now()
	if l.dueAt(now) || l.dueAt(now.Add(askAfter-1)) || !l.dueAt(now.Add(askAfter)) {
		t.Error("asks too early or too late for one frame")
	}
}

// Recipients are asked what they have received, so that the end of one leaves
// few frames in doubt; one that does not answer costs bounded memory.
func TestRecipientsAreAsked(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b, mute := connect(t, addr, d.node("a")), connect(t, addr, d.node("b")), connect(t, addr, d.node("mute"))
	mute.silent = true
	const body = 64 << 10
	const frames = 4 * askBytes / body
	for range frames {
		for _, to := range []*client{b, mute} {
			a.send(a.frame(to.id.Peer.Address, codec.CategoryApplication, make([]byte, body)))
			to.next()
		}
	}
	mute.conn.NetConn().Close()
	b.conn.NetConn().Close()
	waitFor(t, "both are gone", func() bool { return r.link.Stats().Connections == 1 })
	told := map[codec.Address]uint64{}
	waitFor(t, "the sender is told of all", func() bool {
		for _, f := range a.sync() {
			n := must(codec.DecodeNotice(f.Body()))
			if n.Reason != codec.NoticeUnconfirmed || n.First > n.Last || n.Last > a.last.Load() {
				t.Errorf("%+v", n)
			}
			told[n.Recipient] += n.More
		}
		return told[mute.id.Peer.Address]+told[b.id.Peer.Address] == r.Counts().Unconfirmed
	})
	if n := told[mute.id.Peer.Address]; n != frames {
		t.Errorf("told of %d frames to who never answered, want %d", n, frames)
	}
	if n := told[b.id.Peer.Address]; n > 2*askBytes/body {
		t.Errorf("told of %d frames to who answers, of %d", n, frames)
	}
	a.conn.NetConn().Close() // which has not said that it has the notices
	waitFor(t, "the ledgers' memory is given back", func() bool {
		return r.sumUint(func(c *counters) uint64 { return uint64(c.ledger.Load()) }) == 0
	})
}

// A question waits behind the frames that it is about. What goes ahead of it meanwhile
// says no more of what was received than it does, or the count would go back; who asked
// gets the whole answer behind it.
func TestTheCountOfReceivedFramesNeverGoesBack(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.HoldTimeout = -1 }, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	b.silent = true
	queued := uint64(0)
	waitFor(t, "a queue of which the kernel takes nothing any more", func() bool {
		waits := r.link.Stats().QueuedBytes
		if time.Sleep(10 * time.Millisecond); waits >= 1<<19 && r.link.Stats().QueuedBytes == waits {
			return true
		}
		for range 20 {
			a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 4000)))
			queued++
		}
		return false
	})
	ref, _ := r.lookup(b.id.Peer.Address)
	asked := make(chan struct{})
	r.onPeer(ref, func(p *peer) {
		p.ask()
		close(asked)
	})
	<-asked
	const sent = 10
	for range sent {
		b.send(b.frame(a.id.Peer.Address, codec.CategoryApplication, nil))
	}
	b.say(&codec.KeepAlive{Answer: true})
	waitFor(t, "the router has what b has sent and asked", func() bool {
		has := make(chan bool)
		r.onPeer(ref, func(p *peer) { has <- p.decided() == sent && (p.owesAnswer || p.pokes.used > 0) })
		return <-has
	})
	one := make(chan bool)
	r.onPeer(ref, func(p *peer) {
		p.say(&codec.KeepAlive{Received: p.decidedAhead()})
		waits := p.behindAt
		p.ask() // as it would be due if b's count had covered the first
		one <- waits != 0 && p.behindAt == waits
	})
	if !<-one {
		t.Error("another question waits behind the first: what goes ahead of it knows only one count")
	}
	for last := uint64(0); b.received < queued || last < sent; {
		f := must(b.read())
		if f.Category() != codec.CategoryControl {
			continue
		}
		if k, ok := must(codec.DecodeControl(f.Body())).(*codec.KeepAlive); ok {
			if k.Received < last {
				t.Fatalf("received went from %d to %d", last, k.Received)
			}
			last = k.Received
		}
	}
}

// Frames that are lost with a connection, and that its ledger had no room for, are
// not in doubt as well.
func TestWhatIsLostIsNotInDoubt(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.HoldTimeout = -1 }, d)
	for _, l := range r.loops {
		done := make(chan struct{})
		l.link.Post(func() { l.ledgersMax = 0; close(done) })
		<-done
	}
	a, deaf := connect(t, addr, d.node("a")), connect(t, addr, d.node("deaf"))
	sent := uint64(0)
	for ; r.link.Stats().QueuedBytes < 1<<20; sent++ {
		a.send(a.frame(deaf.id.Peer.Address, codec.CategoryApplication, make([]byte, 4000)))
	}
	_ = deaf.conn.NetConn().(*net.TCPConn).SetLinger(0)
	deaf.conn.NetConn().Close()
	waitFor(t, "all frames decided on", func() bool { c := r.Counts(); return c.InFlight == 0 && c.Forwarded+c.DroppedSum() == sent })
	if c := r.Counts(); c.Unconfirmed != c.Forwarded {
		t.Errorf("%d frames in doubt of %d forwarded; dropped %v", c.Unconfirmed, c.Forwarded, c.Dropped)
	}
	waitFor(t, "every frame told of, or counted as not", func() bool {
		a.sync()
		told := r.sumUint(func(c *counters) uint64 { return c.noticed.Load() + c.unnoticed.Load() })
		if told > sent {
			t.Fatalf("told of %d frames, %d sent", told, sent)
		}
		return told == sent
	})
}

// Who says goodbye and reads on gets what was queued for it, says so, and
// nothing is in doubt.
func TestGoodbyeWithTimeLeavesNothingInDoubt(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	const frames = 500
	for range frames {
		a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 8000)))
	}
	a.sync()
	b.say(&codec.Goodbye{Reason: codec.GoodbyeDone, ReadFor: patience})
	if g := b.ended(); g == nil || g.Reason != codec.GoodbyeDone || g.ReadFor != 0 {
		t.Errorf("goodbye %+v", g)
	}
	b.conn.NetConn().Close()
	waitFor(t, "it is gone", func() bool { return r.link.Stats().Connections == 1 })
	for _, f := range a.sync() {
		t.Errorf("%v came", f.Category())
	}
	if c := r.Counts(); b.received != frames || c.Unconfirmed != 0 || c.Forwarded != frames {
		t.Errorf("%d received, %+v", b.received, c)
	}
}

// A peer that says goodbye again and again has only the first few verified on
// the loop.
func TestTheLoopVerifiesFewGoodbyes(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	b.silent = true
	a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, nil))
	b.next() // and does not say so: it is waited for
	ref, _ := r.lookup(b.id.Peer.Address)
	peers := make(chan *peer, 1)
	r.onPeer(ref, func(p *peer) { peers <- p })
	atRouter := <-peers
	before := r.Counts().Consumed
	const said = 3 * goodbyesOnLoop
	var all []byte // at once: the router does not wait for long
	for range said {
		all = append(all, b.wire(b.controlFrame(&codec.Goodbye{Reason: codec.GoodbyeDone, ReadFor: patience}))...)
	}
	b.write(all)
	waitFor(t, "all are handled", func() bool { c := r.Counts(); return c.Consumed+c.Dropped["closing"] >= before+said })
	on := make(chan uint8, 1)
	atRouter.loop.link.Post(func() { on <- atRouter.goodbyes })
	if n := <-on; n != goodbyesOnLoop {
		t.Errorf("%d of %d verified on the loop", n, said)
	}
}

// Who says goodbye, reads on and does not answer is left when its time is over.
func TestGoodbyeWithTimeEnds(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a, b := connect(t, addr, d.node("a")), connect(t, addr, d.node("b"))
	b.silent = true
	a.send(a.frame(b.id.Peer.Address, codec.CategoryApplication, nil))
	b.next()
	b.say(&codec.Goodbye{Reason: codec.GoodbyeDone, ReadFor: 300 * time.Millisecond})
	if g := b.ended(); g == nil || g.Reason != codec.GoodbyeDone {
		t.Errorf("goodbye %+v", g)
	}
	b.conn.NetConn().Close()
	waitFor(t, "the frame is counted as unconfirmed", func() bool { return r.Counts().Unconfirmed == 1 })
	f := a.next()
	if n := must(codec.DecodeNotice(f.Body())); n.Reason != codec.NoticeUnconfirmed || n.More != 1 {
		t.Errorf("%+v", n)
	}
}
