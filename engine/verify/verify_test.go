package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	mathrand "math/rand/v2"
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

// newPool returns a Pool that can be had.
func newPool(t testing.TB, c Config) *Pool {
	t.Helper()
	p, err := NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// idlePool returns a Pool whose one worker is the test.
func idlePool() *Pool {
	p := &Pool{workers: 1, chosen: sign.PathStdlib, quit: make(chan struct{})}
	p.wake.L = &p.mu
	p.newTables(0)
	return p
}

type signer struct {
	sign *sign.Signer
	key  *sign.Key
}

func newSigner(t testing.TB, n byte) signer {
	t.Helper()
	return signerOf(t, ed25519.NewKeyFromSeed(append(make([]byte, 31), n)))
}

func newP256Signer(t testing.TB) signer {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, priv)
}

func signerOf(t testing.TB, priv crypto.Signer) signer {
	t.Helper()
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
	for i, workers := range []int{0, 1, 4, 0, 2} {
		c := Config{Workers: workers, TableMemory: sign.TablesMemoryMin + sign.TablesMemory(3) - sign.TablesMemory(0)}
		if i < 2 {
			c.Path = sign.PathStdlib
		}
		p := newPool(t, c)
		var conns sync.WaitGroup
		for c := range 3 {
			conns.Go(func() {
				s := newSigner(t, byte(c))
				if c == 0 {
					s = newP256Signer(t)
				}
				r := mathrand.New(mathrand.NewPCG(uint64(c), 1))
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
					if ring.Len() > 0 {
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
		if s := p.Stats(); s.ByP256 != 400 || s.ByTable+s.ByStdlib != 800 || s.Differences != 0 {
			t.Errorf("%+v", s)
		}
	}
	if u := buf.Out(); u.Buffers != 0 {
		t.Errorf("%+v not put back", u)
	}
}

func TestFramesWithoutAKeyKeepTheirPlace(t *testing.T) {
	p := newPool(t, Config{Workers: 1})
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

// More frames than it has room for go through a long ring, which is full at times.
func TestALongRingKeepsOrder(t *testing.T) {
	p := newPool(t, Config{Workers: 1})
	defer p.Close()
	s := newSigner(t, 1)
	notified := make(chan struct{}, 1)
	ring := p.NewLongRing(func() {
		select {
		case notified <- struct{}{}:
		default:
		}
	}, nil)
	const frames = 2*LongRingSize + 100
	var batch Batch
	for pushed, popped := 0, 0; popped < frames; {
		for ; pushed < frames && !ring.Full(); pushed++ {
			key := s.key
			if pushed%3 == 0 {
				key = nil // waits its turn all the same
			}
			ring.Push(s.frame(t, pushed, pushed%7 != 0), key, uint64(pushed), &batch)
		}
		p.Submit(&batch)
		for _, v := ring.Head(); v == Pending; _, v = ring.Head() {
			<-notified
		}
		for range min(100, ring.Len()) { // so that where it is full goes round
			_, v := ring.Head()
			if v == Pending {
				break
			}
			if good := popped%3 == 0 || popped%7 != 0; (v == Good) != good {
				t.Errorf("frame %d: verdict %v", popped, v)
			}
			b := ring.Pop()
			if n := int(codec.Raw(b.B).SendTime()); n != popped {
				t.Fatalf("frame %d came as number %d", n, popped)
			}
			buf.Put(b)
			popped++
		}
	}
}

func TestUnpopPutsTheOldestBack(t *testing.T) {
	p := newPool(t, Config{Path: sign.PathStdlib})
	defer p.Close()
	s := newSigner(t, 1)
	account := buf.NewBudget(0, 1).Account()
	defer account.Close()
	for _, most := range []int{1, 2, RingSize, LongRingSize} {
		ring := p.NewRing(nil, account)
		if most > RingSize {
			ring = p.NewLongRing(nil, account)
		}
		for n := range most {
			ring.Push(s.frame(t, n, true), nil, uint64(n), nil)
		}
		bytes := ring.Bytes()
		for n := range most {
			want := ring.Pop()
			ring.Unpop(want, uint64(n))
			tag, _ := ring.HeadTag()
			if b, v := ring.Head(); b != want || v != Good || tag != uint64(n) {
				t.Fatalf("frame %d of %d: verdict %v, tag %d, the same %v", n, most, v, tag, b == want)
			}
			if n == 0 && (ring.Len() != most || ring.Bytes() != bytes) {
				t.Fatalf("%d frames of %d bytes, want %d of %d", ring.Len(), ring.Bytes(), most, bytes)
			}
			buf.Put(ring.Pop())
		}
		if ring.Len() != 0 || ring.Bytes() != 0 {
			t.Errorf("%d frames of %d bytes are left", ring.Len(), ring.Bytes())
		}
	}
}

func TestCloseFinishesWhatIsQueued(t *testing.T) {
	var batches, frames atomic.Int64
	p := newPool(t, Config{Workers: 2, Observe: func(n int, d time.Duration) {
		batches.Add(1)
		frames.Add(int64(n))
		if d <= 0 || n < 1 || n > gatherMax {
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
	if frames.Load() != RingSize || batches.Load() < RingSize/gatherMax {
		t.Errorf("observed %d frames in %d batches", frames.Load(), batches.Load())
	}
}

func TestAFullRingRefusesMore(t *testing.T) {
	p := newPool(t, Config{Path: sign.PathStdlib})
	defer p.Close()
	check := func(ring Ring, size int) {
		s := newSigner(t, 1)
		for n := range size {
			if ring.Full() || ring.Size() != size {
				t.Fatalf("with %d frames a ring for %d is full: %v", n, ring.Size(), ring.Full())
			}
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
	check(p.NewRing(nil, nil), RingSize)
	check(p.NewLongRing(nil, nil), LongRingSize)
}

// However much one connection has waiting, another's frame is checked together
// with the first share of it.
func TestAFloodDelaysOthersByOneShare(t *testing.T) {
	s := newSigner(t, 1)
	p := idlePool()
	flood, lone := p.NewRing(func() {}, nil), p.NewRing(func() {}, nil)
	var batch Batch
	for n := range RingSize {
		flood.Push(s.frame(t, n, true), s.key, 0, &batch)
	}
	lone.Push(s.frame(t, 0, true), s.key, 0, &batch)
	p.Submit(&batch)
	var g gathered
	p.gather(&g)
	if len(g.shares) < 2 || g.shares[0] != (share{&flood, takeMax}) || g.shares[1] != (share{&lone, takeMax + 1}) || g.n != gatherMax {
		t.Errorf("gathered %+v, %d in all", g.shares, g.n)
	}
	c := p.newChecker()
	for done := 0; ; p.gather(&g) {
		p.run(c, &g)
		if done += g.n; done == RingSize+1 {
			break
		}
	}
	for _, r := range []*Ring{&flood, &lone} {
		for r.Len() > 0 {
			if _, v := r.Head(); v != Good {
				t.Fatalf("verdict %v", v)
			}
			buf.Put(r.Pop())
		}
	}
}

// Large frames are shared out by bytes.
func TestSharesAreBoundedInBytes(t *testing.T) {
	p := idlePool()
	s := newSigner(t, 1)
	ring := p.NewRing(func() {}, nil)
	var batch Batch
	for range 4 {
		b := buf.Get(takeBytesMax - 100)
		copy(b.B, make([]byte, len(b.B)))
		ring.Push(b, s.key, 0, &batch)
	}
	p.Submit(&batch)
	other := p.NewRing(func() {}, nil)
	other.Push(s.frame(t, 1, true), s.key, 0, &batch)
	p.Submit(&batch)
	var g gathered
	p.gather(&g)
	if len(g.shares) < 2 || g.shares[0] != (share{&ring, 1}) || g.shares[1].ring != &other {
		t.Errorf("gathered %+v", g.shares)
	}
	buf.Put(other.slots.at[0].frame)
	for i := range 4 {
		buf.Put(ring.slots.at[i].frame)
	}
}

// Signers who send much get a table, and the verdicts stay.
func TestSignersGetTables(t *testing.T) {
	if sign.BestPath() == sign.PathStdlib {
		return // nothing to get
	}
	for _, workers := range []int{0, 2} {
		p := newPool(t, Config{Workers: workers})
		s := newSigner(t, 1)
		notified := make(chan struct{}, 1)
		ring := p.NewRing(func() {
			select {
			case notified <- struct{}{}:
			default:
			}
		}, nil)
		var batch Batch
		end := time.Now().Add(20 * time.Second)
		for n := 0; p.Stats().ByTable < 1000; n++ {
			if time.Now().After(end) {
				t.Fatalf("no table: %+v", p.Stats())
			}
			for ring.Len() < 50 {
				ring.Push(s.frame(t, n, n%3 > 0), s.key, 0, &batch)
			}
			p.Submit(&batch)
			<-notified
			for {
				_, v := ring.Head()
				if v == Pending {
					break
				}
				b := ring.Pop()
				if want := codec.Raw(b.B).SendTime()%3 > 0; (v == Good) != want {
					t.Fatalf("verdict %v, want good: %v", v, want)
				}
				buf.Put(b)
			}
		}
		if st := p.Stats(); st.Tables != 1 || st.Builds != 1 || st.Bytes != sign.TablesMemory(1) || st.Differences != 0 {
			t.Errorf("%+v", st)
		}
		if p.Path() != sign.BestPath() || p.Chosen() != p.Path() || p.Err() != nil {
			t.Errorf("path %v, %v", p.Path(), p.Err())
		}
		for ring.Len() > 0 {
			if _, v := ring.Head(); v == Pending {
				<-notified
				continue
			}
			buf.Put(ring.Pop())
		}
		p.Close()
	}
	if u := buf.Out(); u.Buffers != 0 {
		t.Errorf("%+v not put back", u)
	}
}

// Without the memory for a table signatures are checked all the same.
func TestTooLittleMemoryForTables(t *testing.T) {
	if sign.BestPath() == sign.PathStdlib {
		return
	}
	p := newPool(t, Config{TableMemory: 4096})
	if p.Err() == nil || p.Path() != sign.PathStdlib || p.Chosen() != sign.BestPath() {
		t.Errorf("error %v; path %v, chosen %v", p.Err(), p.Path(), p.Chosen())
	}
	s := newSigner(t, 1)
	ring := p.NewRing(func() {}, nil)
	var batch Batch
	ring.Push(s.frame(t, 1, true), s.key, 0, &batch)
	p.Submit(&batch)
	if _, v := ring.Head(); v != Good {
		t.Errorf("verdict %v", v)
	}
	buf.Put(ring.Pop())
	p.Close()
}

// Whoever checks, and however: what was checked is counted.
func TestWhatWasCheckedIsCounted(t *testing.T) {
	for _, path := range []sign.Path{sign.PathStdlib, sign.BestPath()} {
		p := newPool(t, Config{Path: path})
		ring := p.NewRing(func() {}, nil)
		var batch Batch
		ed, ec := newSigner(t, 1), newP256Signer(t)
		for n := range 5 {
			ring.Push(ed.frame(t, n, n > 0), ed.key, 0, &batch)
		}
		ring.Push(ec.frame(t, 5, true), ec.key, 0, &batch)
		p.Submit(&batch)
		if s := p.Stats(); s.ByStdlib != 5 || s.ByP256 != 1 || s.Batches.Sum() != 1 || s.Batches.Of(sign.PathStdlib)["3-7"] != 1 || s.Bytes != 0 {
			t.Errorf("%v: %+v", path, s)
		}
		for ring.Len() > 0 {
			buf.Put(ring.Pop())
		}
		p.Close()
	}
}

// A table that gives another verdict than crypto/ed25519 is the last that was
// used; the verdict was right all the same.
func TestADifferenceStopsTheFastPath(t *testing.T) {
	if sign.BestPath() == sign.PathStdlib {
		return
	}
	p := newPool(t, Config{})
	defer p.Close()
	s := newSigner(t, 1)
	ring := p.NewRing(func() {}, nil)
	var batch Batch
	check := func() {
		t.Helper()
		ring.Push(s.frame(t, 1, true), s.key, 0, &batch)
		p.Submit(&batch)
		if _, v := ring.Head(); v != Good {
			t.Fatalf("verdict %v", v)
		}
		buf.Put(ring.Pop())
	}
	for end := time.Now().Add(20 * time.Second); p.Stats().ByTable == 0; {
		if check(); time.Now().After(end) {
			t.Fatalf("no table: %+v", p.Stats())
		}
	}
	if p.Path() != sign.BestPath() {
		t.Errorf("path %v", p.Path())
	}
	for i := 0; i < p.Stats().Bytes; i += 32 { // every coordinate
		p.arena[i] ^= 4
	}
	before := p.Stats().ByTable
	for range 3 {
		check()
	}
	if st := p.Stats(); st.Differences != 1 || st.ByTable != before+1 || p.Path() != sign.PathStdlib || p.Chosen() != sign.BestPath() {
		t.Errorf("path %v, %+v", p.Path(), st)
	}
}
