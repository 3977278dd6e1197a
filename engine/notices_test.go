package engine

import (
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
)

func testFrame(t *testing.T, sender, recipient byte, at uint64) codec.Raw {
	t.Helper()
	f := codec.Frame{SendTime: at, Category: codec.CategoryApplication, Signature: []byte{1}}
	f.Sender[15], f.Recipient[15] = sender, recipient
	wire, err := f.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// told counts what senders are told.
type told struct {
	t       *testing.T
	of      map[byte]uint64
	notices int
	deaf    bool
	away    bool
}

func (to *told) ready(codec.Address) bool   { return !to.deaf }
func (to *told) reached(codec.Address) bool { return !to.away }

func (to *told) tell(sender codec.Address, _ *domain, n *noticed) {
	to.notices++
	to.of[sender[15]] += uint64(len(n.frames)) + n.more
	if len(n.frames) > codec.NoticeFramesMax {
		to.t.Errorf("%d frames in a notice", len(n.frames))
	}
	if n.more > 0 && (n.first == 0 || n.last < n.first) {
		to.t.Errorf("%d more between %d and %d", n.more, n.first, n.last)
	}
}

// A sender may be about to be reached: one that has just connected to another
// router. It is not waited for long.
func TestNoticesWaitForWhoIsNotReached(t *testing.T) {
	b := newBook(1 << 30)
	now := time.Unix(1_700_000_000, 0)
	to := &told{t: t, of: map[byte]uint64{}, away: true}
	owe := func() { b.owe(nil, codec.NoticeNoRoute, testFrame(t, 1, 1, 1), now) }
	owe()
	b.payFresh(now, to)
	now = now.Add(noticePatience / 2)
	owe()
	b.payFresh(now, to)
	b.payAll(now, to)
	if to.notices != 0 {
		t.Errorf("%d notices for who is not reached", to.notices)
	}
	to.away = false
	b.payAll(now, to)
	if to.of[1] != 2 {
		t.Errorf("told of %d frames, want 2", to.of[1])
	}
	to.away = true
	owe()
	b.payAll(now.Add(noticePatience-1), to)
	if to.of[1] != 2 {
		t.Error("the next ones did not wait")
	}
	b.payAll(now.Add(noticePatience), to)
	if to.of[1] != 3 {
		t.Error("they wait for ever")
	}
}

// Whatever the buckets hold back, every frame owed is in the end told of
// exactly once, listed or counted.
func TestNoticesCoverEveryFrameExactly(t *testing.T) {
	b := newBook(1 << 30)
	now := time.Unix(1_700_000_000, 0)
	to := &told{t: t, of: map[byte]uint64{}}
	owed := map[byte]uint64{}
	at := uint64(1)
	for turn := range 200 {
		for i := range 300 {
			sender := byte(1 + i%3)
			if !b.owe(nil, codec.NoticeNoRoute, testFrame(t, sender, byte(turn%7), at), now) {
				t.Fatal("no room for one of 21 troubles")
			}
			owed[sender]++
			at++
		}
		b.payFresh(now, to)
	}
	if most := 3 * noticesBurst; to.notices > most {
		t.Errorf("%d notices at one moment, at most %d", to.notices, most)
	}
	to.deaf = true
	before := to.notices
	b.payAll(now.Add(time.Second), to)
	if to.notices != before {
		t.Error("a sender that does not read was told more")
	}
	to.deaf = false
	for range 20 {
		now = now.Add(time.Second)
		b.payAll(now, to)
	}
	for sender, n := range owed {
		if to.of[sender] != n {
			t.Errorf("sender %d was told of %d frames, owed %d", sender, to.of[sender], n)
		}
	}
	if len(b.debts) != 0 {
		t.Errorf("%d senders remembered when nothing is owed", len(b.debts))
	}
}

func TestNoticesAreBoundedPerSenderAndInAll(t *testing.T) {
	b := newBook(1 << 30)
	now := time.Unix(1_700_000_000, 0)
	kinds, refused := 0, 0
	for _, reason := range []codec.NoticeReason{codec.NoticeNoRoute, codec.NoticeQueueFull, codec.NoticeLate} {
		for recipient := range byte(200) {
			kinds++
			if !b.owe(nil, reason, testFrame(t, 1, recipient, 1), now) {
				refused++
			}
		}
	}
	if refused != kinds-noticeKindsMax {
		t.Errorf("%d refused, want %d", refused, kinds-noticeKindsMax)
	}
}

// Who leaves is told all that it is owed, some at a time, and who leaves again and
// again no more than others in the long run.
func TestWhoLeavesIsToldAllAndOverdrawsItsBucket(t *testing.T) {
	b := newBook(1 << 30)
	now := time.Unix(1_700_000_000, 0)
	to := &told{t: t, of: map[byte]uint64{}}
	sender := codec.Raw(testFrame(t, 1, 0, 1)).Sender()
	leave := func(kinds int) {
		for n := range kinds {
			reason := codec.NoticeNoRoute
			if n > 0xff {
				reason = codec.NoticeQueueFull
			}
			if !b.owe(nil, reason, testFrame(t, 1, byte(n), 1), now) {
				t.Fatal("no room")
			}
		}
		for {
			before := to.notices
			more := b.payOff(sender, now, to, 10)
			if n := to.notices - before; n > 10 || more && n != 10 {
				t.Fatalf("%d notices at a time", n)
			}
			if !more {
				return
			}
		}
	}
	leave(300)
	if to.notices != 300 || to.of[1] != 300 {
		t.Errorf("%d notices about %d frames", to.notices, to.of[1])
	}
	leave(300)
	if most := noticesBurst + noticeKindsMax; to.notices != most {
		t.Errorf("%d notices without a pause, want %d", to.notices, most)
	}
	b.payAll(now.Add(time.Second), to)
	if most := noticesBurst + noticeKindsMax; to.notices != most {
		t.Errorf("%d notices a second later", to.notices-most)
	}
	for s := range 60 {
		b.payAll(now.Add(time.Duration(s+1)*time.Second), to)
	}
	if to.of[1] != 600 || len(b.debts) != 0 {
		t.Errorf("told of %d frames, %d debts", to.of[1], len(b.debts))
	}
}

// connectWith is connect with a limit of bodies.
func connectWith(t *testing.T, addr string, id *pki.Identity, bodyMax uint32) *client {
	t.Helper()
	c := must(dial(t, addr, id, clientTLS(id)))
	h := testHello()
	h.BodyMax = bodyMax
	c.say(h)
	if _, ok := c.control().(*codec.Hello); !ok {
		t.Fatal("no hello came back")
	}
	return c
}

func TestNoticesKeepToTheSendersBodyLimit(t *testing.T) {
	const frames = 300
	d := newAuthority("prod.example")
	for _, limit := range []uint32{200, 1000} {
		r, addr := startRouter(t, nil, d)
		c := connectWith(t, addr, d.node("small"), limit)
		var all []byte
		for range frames {
			f := c.frame(c.id.Peer.Address, codec.CategoryApplication, nil)
			f.Recipient[15] ^= 1
			all = append(all, c.wire(f)...)
		}
		c.write(all)
		told, listed := 0, 0
		for told < frames {
			f := c.next()
			if n := len(f.Body()); n > int(limit) {
				t.Fatalf("a notice of %d bytes, at most %d", n, limit)
			}
			n := must(codec.DecodeNotice(f.Body()))
			told += len(n.Frames) + int(n.More)
			listed += len(n.Frames)
		}
		if told != frames || listed == 0 {
			t.Errorf("told of %d frames, %d listed; sent %d", told, listed, frames)
		}
		if n := r.sum(func(c *counters) *atomic.Uint64 { return &c.unnoticed })(); n != 0 {
			t.Errorf("%v frames without a notice", n)
		}
	}
}

// Before the last goodbye to who leaves stand the notices that it is owed, of all
// loops: what it is told that has been received is delivered, or it knows better.
func TestWhoLeavesIsToldOfAllThatWasNotDelivered(t *testing.T) {
	const kinds = 100
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	c := connect(t, addr, d.node("hub"))
	nobody := func(n int) codec.Address {
		a := codec.Address(c.id.Peer.Address)
		a[14], a[15] = a[14]^1, byte(n)
		return a
	}
	// What the loops owe for frames that came back to them.
	for _, l := range r.loops {
		done := make(chan struct{})
		l.link.Post(func() {
			defer close(done)
			for n := range kinds {
				what := trouble{codec.NoticeRecipientGone, nobody(n)}
				l.book.oweCount(r.state().domains[d.Domain], what, c.id.Peer.Address, 1, l.link.Now())
			}
		})
		<-done
	}
	var all []byte
	for n := range kinds {
		all = append(all, c.wire(c.frame(nobody(n), codec.CategoryApplication, nil))...)
	}
	c.write(append(all, c.wire(c.controlFrame(&codec.Goodbye{Reason: codec.GoodbyeDone, ReadFor: patience}))...))
	told := map[codec.NoticeReason]uint64{}
	for {
		f, err := c.read()
		if err != nil {
			t.Fatalf("%v after notices about %v", err, told)
		}
		if f.Category() == codec.CategoryNotice {
			n := must(codec.DecodeNotice(f.Body()))
			told[n.Reason] += uint64(len(n.Frames)) + n.More
		} else if g, ok := must(codec.DecodeControl(f.Body())).(*codec.Goodbye); ok {
			if g.Received != kinds {
				t.Errorf("goodbye says that %d frames were received", g.Received)
			}
			break
		}
	}
	if told[codec.NoticeNoRoute] != kinds || told[codec.NoticeRecipientGone] != uint64(kinds*len(r.loops)) {
		t.Errorf("told of %v", told)
	}
	if n := r.sum(func(c *counters) *atomic.Uint64 { return &c.unnoticed })(); n != 0 {
		t.Errorf("%v frames without a notice", n)
	}
}

func TestBucketGivesItsRateAndNoMore(t *testing.T) {
	var b bucket
	now := time.Unix(1_700_000_000, 0)
	taken := 0
	for step := range 3000 { // 3 s in steps of a millisecond
		for range 3 {
			if b.take(now.Add(time.Duration(step)*time.Millisecond), 100, 100) {
				taken++
			}
		}
	}
	if taken < 390 || taken > 401 {
		t.Errorf("%d tokens in 3 s of a bucket of 100 a second that was full", taken)
	}
}

// What is owed takes no more memory than it may; one sender's lists leave room
// for others', and every frame is told of or refused, whatever there is room for.
func TestWhatIsOwedIsBoundedInMemory(t *testing.T) {
	const max = 256 << 10
	b := newBook(max)
	budget := buf.NewBudget(0, 1)
	b.account = budget.Account()
	now := time.Unix(1_700_000_000, 0)
	to := &told{t: t, of: map[byte]uint64{}, deaf: true}
	owed, refused := map[byte]uint64{}, 0
	listed := func(sender byte) (n int) {
		for _, w := range b.debts[codec.Raw(testFrame(t, sender, 0, 1)).Sender()].waits {
			n += len(w.frames)
		}
		return n
	}
	owe := func(sender byte, kinds, frames int) {
		for n := range frames {
			if b.owe(nil, codec.NoticeNoRoute, testFrame(t, sender, byte(n%kinds), uint64(n+1)), now) {
				owed[sender]++
			} else {
				refused++
			}
			if b.size > max {
				t.Fatalf("%d bytes of memory, at most %d", b.size, max)
			}
		}
	}
	owe(1, noticeKindsMax, 20_000)
	if n := listed(1); n*int(listedBytes) > max/noticeListsPart/noticeSenderPart+int(listedBytes) || n < 100 {
		t.Errorf("one sender has %d frames listed", n)
	}
	owe(2, 1, 100)
	if n := listed(2); n != 100 {
		t.Errorf("the next one has %d of 100 frames listed", n)
	}
	for sender := byte(3); sender < 250; sender++ {
		owe(sender, 10, 200)
	}
	if refused == 0 || len(owed) < 50 {
		t.Errorf("%d frames refused, %d senders owed something", refused, len(owed))
	}
	b.account.Look()
	if n := budget.Usage()[buf.PartNotices]; n != b.size || n < max*9/10 {
		t.Errorf("%d bytes counted, the book has %d", n, b.size)
	}
	to.deaf = false
	for range 20 {
		now = now.Add(time.Second)
		b.payAll(now, to)
	}
	for sender, n := range owed {
		if to.of[sender] != n {
			t.Errorf("sender %d was told of %d frames, owed %d", sender, to.of[sender], n)
		}
	}
	b.account.Look()
	if n := budget.Usage()[buf.PartNotices]; n != 0 || b.size != 0 {
		t.Errorf("%d bytes counted, the book has %d when nothing is owed", n, b.size)
	}
}

func TestAListBecomesACount(t *testing.T) {
	n := noticed{}
	for at := range uint64(3) {
		n.add(testFrame(t, 1, 2, 7+at), 1<<20)
	}
	n.add(testFrame(t, 1, 2, 5), 0) // there is room in the list for one more
	n.add(testFrame(t, 1, 2, 99), 0)
	if len(n.frames) != 4 || n.more != 1 || n.first != 99 || n.last != 99 {
		t.Fatalf("%+v", n)
	}
	n.countAll()
	if len(n.frames) != 0 || n.more != 5 || n.first != 5 || n.last != 99 || n.size() != noticedBytes {
		t.Errorf("%+v", n)
	}
}
