package engine

import (
	"testing"
	"time"

	"causeway/codec"
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
}

func (to *told) ready(codec.Address) bool { return !to.deaf }

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
