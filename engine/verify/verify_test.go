package verify

import (
	"crypto/ed25519"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"causeway/codec"
	"causeway/crypto/sign"
	"causeway/engine/buf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type signer struct {
	sign *sign.Signer
	key  *sign.Key
}

func newSigner(t testing.TB, n byte) signer {
	t.Helper()
	priv := ed25519.NewKeyFromSeed(append(make([]byte, 31), n))
	s, err := sign.NewSigner(priv)
	if err != nil {
		t.Fatal(err)
	}
	k, err := sign.NewKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, k}
}

// frame returns a frame whose send time is n, well signed or not.
func (s signer) frame(t testing.TB, n int, good bool) *buf.Buffer {
	t.Helper()
	f := codec.Frame{TTL: 32, SendTime: uint64(n), Category: codec.CategoryApplication, Body: []byte("body")}
	f.Sender[0], f.Recipient[0] = 0xfd, 0xfd
	var err error
	if f.Signature, err = s.sign.Sign(nil, f.AppendSigned(nil)); err != nil {
		t.Fatal(err)
	}
	if !good {
		f.Signature[7] ^= 1
	}
	wire, err := f.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := buf.Get(len(wire))
	copy(b.B, wire)
	return b
}

func TestVerdictsComeInOrderWhateverTheWorkersDo(t *testing.T) {
	for _, workers := range []int{0, 1, 4} {
		p := NewPool(Config{Workers: workers})
		var conns sync.WaitGroup
		for c := range 3 {
			conns.Go(func() {
				s := newSigner(t, byte(c))
				r := rand.New(rand.NewPCG(uint64(c), 1))
				notified := make(chan struct{}, 1)
				ring := p.NewRing(func() {
					select {
					case notified <- struct{}{}:
					default:
					}
				}, nil)
				var batch Batch
				const frames = 400
				want := make([]bool, frames)
				pushed, popped := 0, 0
				for popped < frames {
					for pushed < frames && !ring.Full() && r.IntN(20) != 0 {
						want[pushed] = r.IntN(3) != 0
						ring.Push(s.frame(t, pushed, want[pushed]), s.key, uint64(pushed), &batch)
						pushed++
					}
					p.Submit(&batch)
					if workers > 0 && ring.Len() > 0 {
						<-notified
					}
					for {
						_, v := ring.Head()
						if v == Pending {
							break
						}
						if tag, ok := ring.HeadTag(); !ok || tag != uint64(popped) {
							t.Errorf("tag %d of frame %d", tag, popped)
						}
						b := ring.Pop()
						if n := int(codec.Raw(b.B).SendTime()); n != popped {
							t.Errorf("frame %d came as number %d", n, popped)
						}
						if (v == Good) != want[popped] {
							t.Errorf("frame %d: verdict %v", popped, v)
						}
						buf.Put(b)
						popped++
					}
				}
				if ring.Len() != 0 || ring.Bytes() != 0 || ring.slots != nil {
					t.Error("an empty ring holds something")
				}
			})
		}
		conns.Wait()
		p.Close()
		if p.Queued() != 0 {
			t.Errorf("%d queued at the end", p.Queued())
		}
	}
	if u := buf.Out(); u.Buffers != 0 {
		t.Errorf("%+v not put back", u)
	}
}

func TestFramesWithoutAKeyKeepTheirPlace(t *testing.T) {
	p := NewPool(Config{Workers: 1})
	defer p.Close()
	s := newSigner(t, 1)
	notified := make(chan struct{}, 1)
	ring := p.NewRing(func() { notified <- struct{}{} }, nil)
	var batch Batch
	ring.Push(s.frame(t, 0, true), s.key, 0, &batch)
	ring.Push(s.frame(t, 1, false), nil, 1, &batch)
	if _, v := ring.Head(); v != Pending {
		t.Fatalf("verdict %v before Submit", v)
	}
	p.Submit(&batch)
	<-notified
	for n := range 2 {
		if _, v := ring.Head(); v != Good {
			t.Errorf("frame %d: verdict %v", n, v)
		}
		buf.Put(ring.Pop())
	}
}

func TestCloseFinishesWhatIsQueued(t *testing.T) {
	var batches, frames atomic.Int64
	p := NewPool(Config{Workers: 2, Observe: func(n int, d time.Duration) {
		batches.Add(1)
		frames.Add(int64(n))
		if d <= 0 || n < 1 || n > takeMax {
			t.Errorf("observed %d frames in %v", n, d)
		}
	}})
	s := newSigner(t, 1)
	ring := p.NewRing(func() {}, nil)
	var batch Batch
	for n := range RingSize {
		ring.Push(s.frame(t, n, true), s.key, 0, &batch)
	}
	p.Submit(&batch)
	p.Close()
	for ring.Len() > 0 {
		if _, v := ring.Head(); v != Good {
			t.Fatal("a frame without a verdict after Close")
		}
		buf.Put(ring.Pop())
	}
	if frames.Load() != RingSize || batches.Load() < RingSize/takeMax {
		t.Errorf("observed %d frames in %d batches", frames.Load(), batches.Load())
	}
}

func TestAFullRingRefusesMore(t *testing.T) {
	p := NewPool(Config{})
	ring := p.NewRing(nil, nil)
	s := newSigner(t, 1)
	for n := range RingSize {
		ring.Push(s.frame(t, n, true), nil, 0, nil)
	}
	defer func() {
		if recover() == nil {
			t.Error("Push into a full ring did not panic")
		}
		for ring.Len() > 0 {
			buf.Put(ring.Pop())
		}
	}()
	ring.Push(nil, nil, 0, nil)
}

// However much one connection has waiting, another's frame waits for one share
// of it, not for all.
func TestAFloodDelaysOthersByOneShare(t *testing.T) {
	var order []string
	s := newSigner(t, 1)
	p := NewPool(Config{Workers: 1})
	flood := p.NewRing(func() { order = append(order, "flood") }, nil) // one worker: no race
	lone := p.NewRing(func() { order = append(order, "lone") }, nil)
	var batch Batch
	for n := range RingSize {
		flood.Push(s.frame(t, n, true), s.key, 0, &batch)
	}
	lone.Push(s.frame(t, 0, true), s.key, 0, &batch)
	p.Submit(&batch)
	p.Close()
	if at := slices.Index(order, "lone"); at < 0 || at > 1 || len(order) != RingSize/takeMax+1 {
		t.Errorf("shares were taken in the order %v", order)
	}
	for _, r := range []*Ring{&flood, &lone} {
		for r.Len() > 0 {
			buf.Put(r.Pop())
		}
	}
}
