package node

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// heldUp has messages queued while the node's writer is held up by one before
// them, and returns so many frames, as they came after that one.
func (w *world) heldUp(n *Node, s *routerConn, count int, queue func()) []codec.Raw {
	w.t.Helper()
	w.holdUp(n, s, queue)
	return s.payloads(count)
}

func (w *world) holdUp(n *Node, s *routerConn, queue func()) {
	w.t.Helper()
	half := s.raw.(*pipeEnd).in
	half.block(true)
	w.send(n, w.d.node("first").Peer.Address, "first")
	synctest.Wait()
	queue()
	synctest.Wait()
	half.block(false)
	if f := s.payloads(1)[0]; string(f.Body()) != "first" {
		w.t.Fatalf("first came %q", f.Body())
	}
}

// payloads returns the node's next frames that are not link control.
func (s *routerConn) payloads(count int) (frames []codec.Raw) {
	for len(frames) < count {
		if f := must(s.next()); f.Category() != codec.CategoryControl {
			frames = append(frames, f)
		}
	}
	return frames
}

type fataler interface{ Fatalf(string, ...any) }

// treesOf checks every frame's signature by itself, and returns how many frames
// share each, in the order of their first; 1 is a plain one. It checks that no
// plain body shares a tree with a frame to somebody else.
func treesOf(t fataler, key *sign.Key, frames []codec.Raw) (sizes []int) {
	var heads [][]byte
	trees := map[string][]codec.Raw{}
	for i, f := range frames {
		if !key.Verify(f.Signed(), f.Signature()) {
			t.Fatalf("frame %d: bad signature", i)
		}
		head := f.Signature()[:ed25519.SignatureSize]
		if trees[string(head)] == nil {
			heads = append(heads, head)
		}
		trees[string(head)] = append(trees[string(head)], f)
	}
	for _, head := range heads {
		tree := trees[string(head)]
		sizes = append(sizes, len(tree))
		seen := map[uint16]bool{}
		for _, f := range tree {
			if len(f.Signature()) == ed25519.SignatureSize {
				continue
			}
			var b codec.Burst
			if err := b.Decode(f.Signature()); err != nil || int(b.Size) != len(tree) || seen[b.Index] {
				t.Fatalf("leaf %d of %d, in a tree of %d: %v", b.Index, b.Size, len(tree), err)
			}
			seen[b.Index] = true
		}
		plain := func(f codec.Raw) bool { return !f.Encrypted() }
		elsewhere := func(f codec.Raw) bool { return f.Recipient() != tree[0].Recipient() || f.CertID() != tree[0].CertID() }
		if slices.ContainsFunc(tree, plain) && slices.ContainsFunc(tree, elsewhere) {
			t.Fatalf("a plain body shares a tree with a frame to somebody else, or under another certificate")
		}
	}
	return sizes
}

func keyOf(id *pki.Identity) *sign.Key { return must(sign.NewKey(id.Peer.Public)) }

func TestWhatWaitsTogetherIsSignedTogether(t *testing.T) {
	for _, test := range []struct {
		queued int
		want   []int // 1: a plain signature
	}{
		{1, []int{1}},
		{2, []int{2}},
		{3, []int{3}},
		{64, []int{64}},
		{65, []int{64, 1}},
		{300, []int{64, 64, 64, 64, 44}},
	} {
		inWorld(t, func(w *world) {
			id := w.d.node("a")
			n, s := w.scriptedWith(w.config(id))
			to := w.d.node("b").Peer.Address
			frames := w.heldUp(n, s, test.queued, func() {
				for i := range test.queued {
					w.send(n, to, fmt.Sprint(i))
				}
			})
			for i, f := range frames {
				if string(f.Body()) != fmt.Sprint(i) {
					t.Fatalf("frame %d has body %q", i, f.Body())
				}
			}
			if got := treesOf(t, keyOf(id), frames); !slices.Equal(got, test.want) {
				t.Errorf("%d frames in trees of %v, want %v", test.queued, got, test.want)
			}
			var bursts, in uint64
			for _, size := range test.want {
				if size > 1 {
					bursts++
					in += uint64(size)
				}
			}
			if st := n.Stats(); st.Bursts != bursts || st.BurstFrames != in || st.WaitingOutBytes != 0 {
				t.Errorf("%+v, want %d bursts of %d frames", st, bursts, in)
			}
		})
	}
}

func TestP256SignsEachFrame(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.d.nodeOf("a", pki.KeyP256, time.Minute, time.Hour)
		n, s := w.scriptedWith(w.config(id))
		frames := w.heldUp(n, s, 10, func() {
			for range 10 {
				w.send(n, w.d.node("b").Peer.Address, "x")
			}
		})
		for i, f := range frames {
			if !keyOf(id).Verify(f.Signed(), f.Signature()) {
				t.Errorf("frame %d: bad signature", i)
			}
		}
		if st := n.Stats(); st.Bursts != 0 || st.BurstFrames != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestALoneFrameIsSignedPlainlyAndNotDelayed(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.d.node("a")
		n, s := w.scriptedWith(w.config(id))
		to := w.d.node("b").Peer.Address
		start := time.Now()
		for i := range 50 {
			w.send(n, to, fmt.Sprint(i))
			f := s.payloads(1)[0]
			if len(f.Signature()) != ed25519.SignatureSize || !keyOf(id).Verify(f.Signed(), f.Signature()) {
				t.Fatalf("frame %d has a signature of %d bytes", i, len(f.Signature()))
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("time passed: %v", took)
		}
		if st := n.Stats(); st.Bursts != 0 || st.BurstFrames != 0 || st.FramesOut != 50 {
			t.Errorf("%+v", st)
		}
	})
}

// Messages to many recipients in turn: those to one share a tree, and all keep
// their places.
func TestPlainBodiesToDifferentRecipientsShareNoTree(t *testing.T) {
	for _, test := range []struct{ recipients, each, size int }{
		{3, 30, 30}, {turnTreesMax + 1, 4, 4}, {100, 3, 3}, {200, 5, 5}, {200, 30, 0},
	} {
		inWorld(t, func(w *world) {
			id := w.d.node("a")
			n, s := w.scriptedWith(w.config(id))
			recipients := make([]codec.Address, test.recipients)
			for i := range recipients {
				recipients[i] = codec.Address{0xfd, byte(i), 1}
			}
			count := test.recipients * test.each
			frames := w.heldUp(n, s, count, func() {
				for i := range count {
					w.send(n, recipients[i%len(recipients)], fmt.Sprint(i))
				}
			})
			for i, f := range frames {
				if string(f.Body()) != fmt.Sprint(i) {
					t.Fatalf("frame %d has body %q", i, f.Body())
				}
			}
			sizes := treesOf(t, keyOf(id), frames)
			if want := slices.Repeat([]int{test.size}, test.recipients); test.size > 0 && !slices.Equal(sizes, want) {
				t.Errorf("trees of %v, want %v", sizes, want)
			}
			// Of a long queue a part is looked at, and signed before the rest is.
			if least := turnSlotsMax / test.recipients; test.size == 0 && len(sizes) > 5*count/(4*least) {
				t.Errorf("%d signatures for %d messages, want one for %d or so", len(sizes), count, least)
			}
		})
	}
}

// queueOf draws slots as they may stand in a queue.
func queueOf(t *rapid.T, selves []*self) (queue []*slot) {
	for i := range rapid.IntRange(0, 150).Draw(t, "slots") {
		s := &slot{
			state: rapid.SampledFrom([]slotState{slotUnsigned, slotUnsigned, slotUnsigned, slotReserved, slotSigning, slotReady, slotVoid}).Draw(t, "state"),
			self:  rapid.SampledFrom(selves).Draw(t, "self"),
		}
		if s.state == slotUnsigned {
			f := codec.Frame{
				TTL: codec.TTLDefault, Recipient: codec.Address{byte(rapid.IntRange(1, 20).Draw(t, "to"))}, SendTime: uint64(i),
				CertID: s.self.certID, Encrypted: rapid.Bool().Draw(t, "sealed"), Body: make([]byte, rapid.SampledFrom([]int{0, 1, 50_000}).Draw(t, "body")),
			}
			s.charge = len(f.Body) + frameOverhead
			s.frame = f.AppendSigned([]byte{f.TTL})
			s.sent = &Sent{To: f.Recipient}
		}
		queue = append(queue, s)
	}
	return queue
}

// Whatever stands in the queue: each turn signs the oldest frame at least, and no
// more than it may, unless there is enough to write before it; in the end all are
// signed, by trees as they may be.
func TestAnyQueueIsSignedInTurns(t *testing.T) {
	d := newDomain("prod.example")
	var selves []*self
	keys := map[codec.CertID]*sign.Key{}
	for _, name := range []string{"a", "b"} {
		id := d.node(name)
		selves = append(selves, must(newSelf(id)))
		keys[id.Peer.CertID] = keyOf(id)
	}
	rapid.Check(t, func(t *rapid.T) {
		all := queueOf(t, selves)
		queue := all
		before := make([]slotState, len(queue))
		for i, s := range queue {
			before[i] = s.state
		}
		var g signing
		var count counters
		var bursts, in uint64
		for {
			first := slices.IndexFunc(queue, func(s *slot) bool { return s.state == slotUnsigned })
			ready := 0
			for _, s := range queue[:max(first, 0)] {
				if s.state == slotReady {
					ready += len(s.frame)
				}
			}
			if got, want := g.gatherLocked(queue), first >= 0 && ready < writeBatch; got != want {
				t.Fatalf("the first is slot %d, %d bytes are ready before it, and it is gathered: %v", first, ready, got)
			}
			if first < 0 {
				break
			}
			if ready >= writeBatch {
				queue = queue[first:] // they are written
				continue
			}
			if queue[first].state != slotSigning {
				t.Fatalf("the oldest is left out")
			}
			if g.used > turnTreesMax || g.frames > turnFramesMax || g.bytes > turnBytesMax && g.frames > 1 {
				t.Fatalf("%d trees, %d frames, %d bytes in one turn", g.used, g.frames, g.bytes)
			}
			turn := slices.Clone(g.trees[:g.used])
			for i := range turn {
				turn[i].slots = slices.Clone(turn[i].slots)
			}
			g.sign()
			g.settleLocked(&count)
			alone := map[treeKey]int{}
			for _, tree := range turn {
				var frames []codec.Raw
				for _, s := range tree.slots {
					if s.state != slotReady || len(s.frame) > s.charge {
						t.Fatalf("state %d, %d bytes of %d", s.state, len(s.frame), s.charge)
					}
					frames = append(frames, s.frame)
				}
				if sizes := treesOf(t, keys[tree.self.certID], frames); len(sizes) != 1 || len(frames) > burstFramesMax {
					t.Fatalf("a tree of %d is of %v", len(frames), sizes)
				}
				if len(frames) > 1 {
					bursts++
					in += uint64(len(frames))
				} else if alone[treeKeyOf(tree.slots[0])]++; alone[treeKeyOf(tree.slots[0])] > 1 {
					t.Fatalf("two frames that may share a tree are signed alone")
				}
			}
		}
		for i, s := range all {
			if want := before[i]; s.state != want && (want != slotUnsigned || s.state != slotReady) {
				t.Fatalf("slot %d was in state %d and is in %d", i, want, s.state)
			}
		}
		if count.bursts.Load() != bursts || count.burstFrames.Load() != in {
			t.Fatalf("counted %d bursts of %d frames, want %d of %d", count.bursts.Load(), count.burstFrames.Load(), bursts, in)
		}
	})
}

// Goroutines that send at once, with the writer held up so that bursts form: the
// recipient gets all messages of each in order.
func TestBurstsArriveInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		w.r.mu.Lock()
		half := w.r.live[a.Address()].raw.(*pipeEnd).in
		w.r.mu.Unlock()
		half.block(true)
		const goroutines, each = 8, 200
		var senders sync.WaitGroup
		for i := range goroutines {
			senders.Go(func() {
				for k := range each {
					w.send(a, b.Address(), fmt.Sprintf("%d %d", i, k))
				}
			})
		}
		synctest.Wait()
		half.block(false)
		next := map[string]int{}
		var last uint64
		for range goroutines * each {
			m, err := b.Receive(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			var i string
			var k int
			must(fmt.Sscan(string(m.Body), &i, &k))
			if k != next[i] || m.SendTime <= last {
				t.Fatalf("goroutine %s: message %d came in the place of %d", i, k, next[i])
			}
			next[i], last = k+1, m.SendTime
		}
		senders.Wait()
		w.receivesNothing(b)
		if st := a.Stats(); st.Bursts == 0 || st.BurstFrames < st.FramesOut/2 || st.FramesOut != goroutines*each {
			t.Errorf("%+v", st)
		}
	})
}

// What goes again has the signature it had.
func TestFramesOfABurstGoAgainByteForByte(t *testing.T) {
	inWorld(t, func(w *world) {
		n, _, s := w.moved()
		to := w.d.node("b").Peer.Address
		var sent []*Sent
		w.holdUp(n, s, func() {
			for i := range 5 {
				sent = append(sent, w.send(n, to, fmt.Sprint(i)))
			}
		})
		first := map[codec.Digest]codec.Raw{}
		done := s.deciding(func(f codec.Raw) codec.NoticeReason {
			if first[f.Digest()] != nil {
				return 0
			}
			first[f.Digest()] = f
			return codec.NoticeNoRoute
		})
		for _, one := range sent {
			if err := one.Confirmed(w.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		n.Close()
		again := <-done
		if got := bodies(again); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
			t.Fatalf("%q went again", got)
		}
		for i, f := range again {
			if !bytes.Equal(f, first[f.Digest()]) {
				t.Errorf("frame %d is another when it goes again", i)
			}
		}
		if got := treesOf(t, must(sign.NewKey(s.node.Public)), again); !slices.Equal(got, []int{5}) {
			t.Errorf("trees of %v", got)
		}
	})
}

// Messages that wait beside the queue, since others to their recipient are to be
// sent again, hold up none behind them, however many they are.
func TestMessagesBesideTheQueueHoldUpNoOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		n, _, s := w.moved()
		lost := w.d.node("b").Peer.Address
		w.send(n, lost, "lost")
		s.notice(s.payloads(1)[0], codec.NoticeNoRoute)
		synctest.Wait()
		start := time.Now()
		w.holdUp(n, s, func() {
			for range 3 * turnFramesMax {
				w.send(n, lost, "beside")
			}
			w.send(n, w.d.node("c").Peer.Address, "straight on")
		})
		if got := bodies(s.payloads(1)); got[0] != "straight on" || time.Since(start) != 0 {
			t.Errorf("%q came after %v", got, time.Since(start))
		}
		if st := n.Stats(); st.WaitingResend != 1 || st.BurstFrames != 3*turnFramesMax {
			t.Errorf("%+v", st)
		}
	})
}

// A renewal parts the frames before it from those after it.
func TestABurstIsUnderOneCertificate(t *testing.T) {
	for _, kind := range [][]pki.KeyType{nil, {pki.KeyEd25519}} {
		inWorld(t, func(w *world) {
			first := w.d.node("a")
			next := w.d.renewed(first, kind...)
			n, s := w.scriptedWith(w.config(first))
			to := w.d.node("b").Peer.Address
			frames := w.heldUp(n, s, 7, func() {
				for range 3 {
					w.send(n, to, "before")
				}
				if err := n.Renew(next); err != nil {
					t.Fatal(err)
				}
				for range 4 {
					w.send(n, to, "after")
				}
			})
			for i, part := range []struct {
				id     *pki.Identity
				frames []codec.Raw
			}{{first, frames[:3]}, {next, frames[3:]}} {
				if got := treesOf(t, keyOf(part.id), part.frames); len(got) != 1 || part.frames[0].CertID() != part.id.Peer.CertID {
					t.Errorf("part %d: trees of %v under %v", i, got, part.frames[0].CertID())
				}
			}
		})
	}
}

// gatedKey is an Ed25519 key that asks before it signs.
type gatedKey struct {
	ed25519.PrivateKey
	gate func(message []byte) error
}

func (k gatedKey) Sign(r io.Reader, message []byte, o crypto.SignerOpts) ([]byte, error) {
	if err := k.gate(message); err != nil {
		return nil, err
	}
	return k.PrivateKey.Sign(r, message, o)
}

// gated connects a node with such a key to a scripted router.
func (w *world) gated(gate func(message []byte) error) (*pki.Identity, *Node, *routerConn) {
	w.t.Helper()
	id := w.d.node("a")
	id.Key = gatedKey{id.Key.(ed25519.PrivateKey), gate}
	n, s := w.scriptedWith(w.config(id))
	return id, n, s
}

func isBurst(message []byte) bool {
	return bytes.HasPrefix(message, []byte("causeway burst signature 1"))
}

// Frames that are being signed when the node moves on to another router go to
// that one, and those behind them wait for it.
func TestFramesThatAreBeingSignedGoToTheNextRouter(t *testing.T) {
	inWorld(t, func(w *world) {
		goOn := make(chan struct{})
		id, n, old := w.gated(func(message []byte) error {
			if isBurst(message) {
				<-goOn
			}
			return nil
		})
		r, url := w.another("r2")
		to := w.d.node("b").Peer.Address
		w.holdUp(n, old, func() {
			for i := range 3 {
				w.send(n, to, fmt.Sprint(i))
			}
		})
		synctest.Wait()
		old.bye(codec.GoodbyeDraining, 10*time.Second, url)
		next := w.greeted(r)
		synctest.Wait()
		w.send(n, codec.Address{0xfd, 2}, "3")
		synctest.Wait()
		if st := n.Stats(); st.FramesOut != 1 || st.Bursts != 0 {
			t.Errorf("before they are signed: %+v", st)
		}
		start := time.Now()
		close(goOn)
		frames := next.payloads(4)
		if took := time.Since(start); took != 0 {
			t.Errorf("the next router waits %v for what is signed", took)
		}
		go old.obey()
		if got := bodies(frames); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
			t.Errorf("%q came", got)
		}
		if got := treesOf(t, keyOf(id), frames); !slices.Equal(got, []int{3, 1}) {
			t.Errorf("trees of %v", got)
		}
		if old.received.Load() != 1 {
			t.Errorf("the old router got %d frames", old.received.Load())
		}
	})
}

// A key that fails costs the messages that it was to sign, which are told, and no
// others.
func TestMessagesThatCannotBeSignedAreTold(t *testing.T) {
	errBroken := errors.New("the token is gone")
	for _, count := range []int{1, 3} {
		inWorld(t, func(w *world) {
			var broken atomic.Bool
			const categoryAt = 2 * codec.AddressSize // in signed bytes
			id, n, s := w.gated(func(message []byte) error {
				if broken.Load() && (isBurst(message) || message[0] == 0xfd && message[categoryAt] == byte(app)) {
					return errBroken
				}
				return nil
			})
			to := w.d.node("b").Peer.Address
			var sent []*Sent
			w.holdUp(n, s, func() {
				for range count {
					sent = append(sent, w.send(n, to, "x"))
				}
				broken.Store(true)
			})
			synctest.Wait()
			for _, one := range sent {
				if err := one.Confirmed(w.ctx()); !errors.Is(err, errBroken) {
					t.Errorf("%v", err)
				}
				checkError[*UnsentError](t, one.Confirmed(w.ctx()), "token")
			}
			broken.Store(false)
			w.send(n, to, "after")
			s.payload(t, id, "after")
			if st := n.Stats(); st.WaitingOutBytes != 0 || st.FramesOut != 2 || st.Bursts != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// BenchmarkSigning is the time of a frame with 256 bytes of body from the queue,
// alone and in bursts.
func BenchmarkSigning(b *testing.B) {
	d := newDomain("prod.example")
	id := d.node("a")
	by := must(newSelf(id))
	for _, size := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var queue []*slot
			for i := range size {
				frame, state, err := by.compose(id.Peer.Address, codec.Address{0xfd, 1}, app, uint64(i), make([]byte, 256))
				if err != nil || state != slotUnsigned {
					b.Fatal(state, err)
				}
				queue = append(queue, &slot{self: by, frame: frame})
			}
			unsigned := len(queue[0].frame)
			var g signing
			var count counters
			for b.Loop() {
				for _, s := range queue {
					s.state, s.frame = slotUnsigned, s.frame[:unsigned]
				}
				if !g.gatherLocked(queue) {
					b.Fatal("nothing to sign")
				}
				g.sign()
				g.settleLocked(&count)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/frame")
			if treesOf(b, keyOf(id), framesOf(queue)); int(count.burstFrames.Load()) != b.N*size && size > 1 {
				b.Fatalf("%d frames in bursts", count.burstFrames.Load())
			}
		})
	}
}

func framesOf(queue []*slot) (frames []codec.Raw) {
	for _, s := range queue {
		frames = append(frames, s.frame)
	}
	return frames
}
