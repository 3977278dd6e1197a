package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"causeway/codec"
)

func TestConfirmationsAgreeWithASlowCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pending
		var all []*Sent // all written, in order
		confirmed := 0
		outstanding := 0 // 0: none; else what the ask covers
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "answer", "confirm", "want", "ask"}).Draw(t, "step") {
			case "write":
				var s *Sent
				if rapid.Bool().Draw(t, "handle") {
					s = &Sent{wanted: rapid.Bool().Draw(t, "wanted")}
				}
				p.wrote(s)
				all = append(all, s)
				if s != nil && s.index != uint64(len(all)) {
					t.Fatalf("index %d, want %d", s.index, len(all))
				}
			case "confirm":
				received := rapid.IntRange(0, len(all)+1).Draw(t, "received")
				done, ok := p.confirm(uint64(received))
				if want := received >= confirmed && received <= len(all); ok != want {
					t.Fatalf("confirm(%d) of %d..%d: %v", received, confirmed, len(all), ok)
				}
				if !ok {
					break
				}
				if len(done) != received-confirmed {
					t.Fatalf("%d done, want %d", len(done), received-confirmed)
				}
				for i, s := range done {
					if s != all[confirmed+i] {
						t.Fatalf("frame %d is another", confirmed+i)
					}
				}
				confirmed = received
			case "want":
				if n := rapid.IntRange(0, len(all)).Draw(t, "want"); n > 0 {
					p.want = max(p.want, uint64(n))
				}
			case "ask":
				due := outstanding <= confirmed && (p.want > uint64(confirmed) || len(all)-confirmed >= pendingAskEvery)
				if got := p.ask(); got != due {
					t.Fatalf("ask: %v, want %v", got, due)
				}
				if due {
					outstanding = len(all)
				}
			}
			if p.idle() != (confirmed == len(all)) || p.written != uint64(len(all)) {
				t.Fatalf("idle %v, written %d", p.idle(), p.written)
			}
		}
		if rest := p.rest(); len(rest) != len(all)-confirmed {
			t.Fatalf("%d left, want %d", len(rest), len(all)-confirmed)
		}
	})
}

func TestBackoff(t *testing.T) {
	b := backoff{min: 100 * time.Millisecond, max: 3 * time.Second}
	for _, want := range []time.Duration{100, 200, 400, 800, 1600, 3000, 3000, 3000} {
		want *= time.Millisecond
		if got := b.next(rand.Reader); got < want/2 || got > want {
			t.Errorf("pause %v, want %v to %v", got, want/2, want)
		}
	}
	b.failures = 1 << 40
	if got := b.next(rand.Reader); got < 1500*time.Millisecond || got > 3*time.Second {
		t.Errorf("pause %v", got)
	}
	b.reset()
	if got := b.next(iotest.ErrReader(errors.New("no randomness"))); got != 100*time.Millisecond {
		t.Errorf("pause %v", got)
	}
	high, low := bytes.NewReader(bytes.Repeat([]byte{0xff}, 8)), bytes.NewReader(make([]byte, 8))
	b.reset()
	one := b.next(high)
	b.reset()
	if other := b.next(low); one == other {
		t.Errorf("no jitter: %v and %v", one, other)
	}
}

func TestDeliveriesAreBoundedPerSenderAndInAll(t *testing.T) {
	const perSender, all = 3 * (100 + messageOverhead), 5 * (100 + messageOverhead)
	q := newDeliveries(perSender, all)
	a, b := codec.Address{1}, codec.Address{2}
	put := func(from codec.Address, want bool) {
		t.Helper()
		if got := q.fits(from, 100); got != want {
			t.Fatalf("fits: %v, want %v", got, want)
		}
		if want {
			q.put(Message{From: from, Body: make([]byte, 100)})
		}
	}
	for range 3 {
		put(a, true)
	}
	put(a, false) // per sender
	put(b, true)
	put(b, true)
	put(b, false) // in all
	if m, err := q.take(context.Background()); err != nil || m.From != a {
		t.Fatal(m, err)
	}
	put(a, true)
	q.end(io.EOF)
	if q.fits(a, 0) {
		t.Error("takes more after its end")
	}
	for range 5 {
		if _, err := q.take(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.take(context.Background()); err != io.EOF {
		t.Error(err)
	}
	if n, bytes := q.size(); n != 0 || bytes != 0 || len(q.perSender) != 0 {
		t.Errorf("%d messages, %d bytes, %d senders are left", n, bytes, len(q.perSender))
	}
}

func TestRecentForgetsTheOldest(t *testing.T) {
	r := newRecent(3)
	to := codec.Address{1}
	for i := byte(1); i <= 5; i++ {
		r.add(&Sent{To: to, SendTime: uint64(i), Digest: codec.Digest{i}, written: true})
	}
	for i := byte(1); i <= 5; i++ {
		found := r.find(codec.NoticeFrame{Digest: codec.Digest{i}, SendTime: uint64(i)}, to) != nil
		if found != (i > 2) {
			t.Errorf("frame %d: found %v", i, found)
		}
	}
	if r.all.len() != 3 || len(r.between(to, 1, 4)) != 2 {
		t.Errorf("%d remembered, %d in time", r.all.len(), len(r.between(to, 1, 4)))
	}
}

// When a notice counts fewer frames than could be meant, nobody knows which.
func TestCountedFramesAreMarkedOnlyWhenAllAreMeant(t *testing.T) {
	for _, test := range []struct {
		more   uint64
		marked bool
	}{{2, false}, {3, true}, {4, true}} {
		o := newOutgoing(&Config{SendQueue: 1, Now: time.Now}, rand.Reader)
		to := codec.Address{1}
		var all []*Sent
		for i := byte(1); i <= 3; i++ {
			s := &Sent{To: to, SendTime: uint64(i), Digest: codec.Digest{i}, written: true}
			o.recent.add(s)
			all = append(all, s)
		}
		e, ignored := o.notedLocked(codec.Address{9}, "router/r", &codec.Notice{Reason: codec.NoticeQueueFull, Recipient: to, More: test.more, First: 1, Last: 3}, time.Now())
		if e == nil || ignored != test.more-min(test.more, 3) {
			t.Errorf("more %d: %v, %d ignored", test.more, e, ignored)
		}
		for _, s := range all {
			if (s.notice != nil) != test.marked {
				t.Errorf("more %d: frame %d marked %v", test.more, s.SendTime, s.notice != nil)
			}
		}
	}
}

func TestCertificatesComeInParts(t *testing.T) {
	c := newCerts()
	var keys []codec.CertKey
	now := time.Now()
	for i := byte(0); i < 100; i++ {
		f := codec.Frame{Sender: codec.Address{i}, CertID: codec.CertID{i}, Signature: []byte{1}}
		if !c.park(must(f.Append(nil)), now) {
			t.Fatal("no room")
		}
		keys = append(keys, codec.CertKey{Address: codec.Address{i}, CertID: codec.CertID{i}})
	}
	on := new(conn)
	first, second := c.request(on, now), c.request(on, now)
	if len(first.Wanted) != codec.CertificatesWantedMax || len(second.Wanted) != 100-codec.CertificatesWantedMax || c.request(on, now) != nil {
		t.Fatal("requests", len(first.Wanted), len(second.Wanted))
	}
	entry := func(i int) codec.CertificateEntry { return codec.CertificateEntry{CertKey: keys[i]} }
	part := func(part uint8, entries ...codec.CertificateEntry) *codec.Certificates {
		return &codec.Certificates{Number: first.Number, Part: part, Parts: 2, Entries: entries}
	}
	if r, ok := c.answer(new(conn), part(0)); r != nil || !ok {
		t.Error("an answer on another connection was taken")
	}
	if r, ok := c.answer(on, part(0, entry(0), entry(1))); r != nil || !ok {
		t.Error("applied before it was complete")
	}
	if _, ok := c.answer(on, part(1, entry(0))); ok {
		t.Error("an entry came twice")
	}
	r, ok := c.answer(on, part(1, entry(2)))
	if !ok || r == nil || len(r.entries) != 3 {
		t.Errorf("answer: %+v, %v", r, ok)
	}
	if keys := c.expire(now.Add(time.Second)); len(keys) != len(second.Wanted) {
		t.Errorf("%d keys ran out of time, want %d", len(keys), len(second.Wanted))
	}
}

func TestKnownAndRefusedCertificatesAreBounded(t *testing.T) {
	c := newCerts()
	now := time.Now()
	key := func(i int) codec.CertKey {
		return codec.CertKey{Address: codec.Address{byte(i), byte(i >> 8), byte(i >> 16)}}
	}
	for i := range certsKnownMax + certsRefusedMax {
		c.learn(key(i), &certificate{})
		c.refuse(key(-i), now)
	}
	if len(c.known) != certsKnownMax || len(c.refused) != certsRefusedMax {
		t.Errorf("%d known, %d refused", len(c.known), len(c.refused))
	}
	parked := 0
	for i := range certsAskedMax + 10 {
		f := codec.Frame{Sender: codec.Address{0xff, byte(i), byte(i >> 8)}, CertID: codec.CertID{1}, Signature: []byte{1}}
		if c.park(must(f.Append(nil)), now) {
			parked++
		}
	}
	if parked != certsAskedMax || len(c.rooms) != certsAskedMax || len(c.wanted) != certsAskedMax {
		t.Errorf("%d parked in %d rooms", parked, len(c.rooms))
	}
}

func TestFrameTimeIsRightForAllValues(t *testing.T) {
	now := time.Unix(1_700_000_000, 123)
	if got := frameTime(uint64(now.UnixNano())); !got.Equal(now) {
		t.Errorf("%v, want %v", got, now)
	}
	for _, sendTime := range []uint64{0, 1 << 63, 1<<64 - 1} {
		if inSkew(sendTime, now, time.Hour) {
			t.Errorf("%d is within an hour of %v", sendTime, now)
		}
	}
	for _, skew := range []time.Duration{-5 * time.Second, 0, 5 * time.Second} {
		if !inSkew(uint64(now.Add(skew).UnixNano()), now, 5*time.Second) {
			t.Errorf("%v is not within 5s", skew)
		}
	}
}

// FuzzFrames reads a stream in small pieces and compares with cutting it whole.
func FuzzFrames(f *testing.F) {
	frame := codec.Frame{Body: []byte("body"), Signature: []byte("signature")}
	one := must(frame.Append(nil))
	f.Add(one, uint8(1))
	f.Add(bytes.Repeat(one, 3), uint8(7))
	f.Add(one[:len(one)-1], uint8(255))
	f.Add(bytes.Repeat([]byte{0xff}, 60), uint8(16))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		const bodyMax = 1000
		r := newFrameReader(&pieces{stream, int(piece) + 1}, bodyMax, new(atomic.Uint64))
		rest := stream
		for {
			need, cutErr := codec.Cut(rest, codec.BodyMaxOf(rest, bodyMax))
			got, err := r.next()
			switch {
			case cutErr != nil:
				if !errors.Is(err, codec.ErrMalformed) {
					t.Fatalf("%v, want malformed", err)
				}
				return
			case need > len(rest):
				if want := fmt.Sprint(endOf(rest)); err == nil || !errors.Is(err, codec.ErrMalformed) && fmt.Sprint(err) != want {
					t.Fatalf("%v, want %v", err, want)
				}
				return
			case err != nil || !bytes.Equal(got, rest[:need]):
				t.Fatalf("%x, %v; want %x", got, err, rest[:need])
			}
			rest = rest[need:]
		}
	})
}

func endOf(rest []byte) error {
	if len(rest) > 0 {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

type pieces struct {
	rest []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// FuzzLinkControl feeds a connected node what a router could say after its
// hello. It must neither panic nor hang: the bubble ends only when all its
// goroutines have.
func FuzzLinkControl(f *testing.F) {
	for _, m := range []codec.Control{
		&codec.KeepAlive{Received: 1, Answer: true}, &codec.Goodbye{Reason: codec.GoodbyeDraining, ReadFor: time.Second},
		&codec.Names{Number: 1}, &codec.Certificates{Number: 1, Parts: 1},
	} {
		f.Add(must(codec.AppendControl(nil, m)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > codec.BodyMaxDefault {
			return
		}
		inWorld(t, func(w *world) {
			n, s := w.scripted("a")
			s.give(w.member("b").frame(n.Address(), app, nil)) // a request is outstanding
			_ = s.write(s.frame(n.Address(), codec.CategoryControl, body))
			go s.awaitEnd()
			time.Sleep(time.Second)
			s.raw.Close()
			n.Close()
		})
	})
}
