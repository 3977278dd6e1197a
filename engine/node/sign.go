package node

import (
	"causeway/codec"
	"causeway/crypto/sign"
)

// The writer signs what is queued, just before it writes: frames that wait
// together then are signed in bursts (PROTOCOL.md section 2), and one that
// waits alone gets a plain signature at once. Nothing ever waits for others to
// come. So a node that sends little makes plain signatures, and the more it
// sends the less each frame's costs; recipients and routers, which remember trees,
// are spared as much.
//
// One tree has frames under one certificate, and either sealed ones, to
// whomever, or plain ones to one recipient, whom the hashes of others' plain frames
// would tell something.
//
// P-256 keys sign no bursts: their frames are signed in the goroutines that call
// Send, several at once.

const (
	// burstFramesMax is how many frames share a tree. Of a burst of 64 a 64th of a
	// signature's time falls on each frame, less than its hashes take. Larger trees
	// have longer paths, 32 bytes for each doubling, and crowd each other out of
	// verifiers' memories.
	burstFramesMax = 64
	burstSteps     = 6 // of the inclusion paths of so many

	// What is signed before anything of it is written, so that the first frame does
	// not wait long for the last: a millisecond at most, or what one frame takes.
	turnFramesMax = 4 * burstFramesMax
	turnBytesMax  = 128 << 10 // of frames, but for a single larger one
	turnTreesMax  = 16        // so many signatures

	// turnSlotsMax is how far down the queue frames for these trees are looked for:
	// of messages to many recipients in turn some are for the same one.
	turnSlotsMax = 1024
)

// Compile-time: the trees are of a size that may be, and their paths are counted
// right.
var (
	_ [0]struct{} = [1<<burstSteps - burstFramesMax]struct{}{}
	_ [codec.BurstSizeMax - burstFramesMax]struct{}
)

// treeKey says which frames may be in one tree: those with the same.
type treeKey struct {
	self   *self
	sealed bool
	to     codec.Address // of plain ones
}

func treeKeyOf(s *slot) treeKey {
	f := codec.Raw(s.frame)
	if f.Encrypted() {
		return treeKey{self: s.self, sealed: true}
	}
	return treeKey{self: s.self, to: f.Recipient()}
}

// tree is frames that are signed together, or one that is signed alone.
type tree struct {
	self   *self
	slots  []*slot
	frames [][]byte // those of slots, once they are signed
	err    error    // why they are not
}

// signing is what a writer signs in a turn. It belongs to the writer, and its
// memory is used again.
//
//	gatherLocked  under the lock: which frames; they are slotSigning then
//	sign          without the lock
//	settleLocked  under the lock: they are slotReady
type signing struct {
	trees  []tree // [:used]
	used   int
	open   map[treeKey]int // the tree that takes more
	last   treeKey         // looked up last, which is often the next one too
	lastAt int
	frames int
	bytes  int

	burst sign.Burst
	field []byte
}

// gatherLocked takes unsigned frames from the queue, oldest first, unless those
// before them fill a write: the longer they wait, the more there are to share a
// tree. It reports whether it took any.
func (g *signing) gatherLocked(queue []*slot) bool {
	ready := 0 // bytes at the front
	for _, s := range queue[:min(len(queue), turnSlotsMax)] {
		if s.state == slotReady && g.frames == 0 {
			ready += len(s.frame)
		}
		if s.state != slotUnsigned {
			continue
		}
		if ready >= writeBatch {
			break
		}
		if g.frames == turnFramesMax || g.frames > 0 && g.bytes+len(s.frame) > turnBytesMax {
			break
		}
		t := g.treeFor(treeKeyOf(s))
		if t == nil {
			continue
		}
		s.state = slotSigning
		t.slots = append(t.slots, s)
		g.frames++
		g.bytes += len(s.frame)
	}
	return g.frames > 0
}

// treeFor returns the tree for another frame with the key; nil when it needs one
// more than there may be.
func (g *signing) treeFor(key treeKey) *tree {
	at, ok := g.lastAt, key == g.last
	if !ok {
		at, ok = g.open[key]
	}
	if !ok || len(g.trees[at].slots) == burstFramesMax {
		if g.used == turnTreesMax {
			return nil
		}
		if at = g.used; at == len(g.trees) {
			g.trees = append(g.trees, tree{})
		}
		g.used++
		g.trees[at].self = key.self
		if g.open == nil {
			g.open = make(map[treeKey]int, turnTreesMax)
		}
		g.open[key] = at
	}
	g.last, g.lastAt = key, at
	return &g.trees[at]
}

// sign signs what was gathered. Slots may be looked at by others meanwhile, so
// nothing of them is changed.
func (g *signing) sign() {
	for i := range g.used {
		t := &g.trees[i]
		if len(t.slots) == 1 {
			var frame []byte
			if frame, t.err = t.self.signAlone(t.slots[0].frame); t.err == nil {
				t.frames = append(t.frames, frame)
			}
			continue
		}
		t.err = g.signBurst(t)
	}
}

func (g *signing) signBurst(t *tree) error {
	g.burst.Reset()
	for _, s := range t.slots {
		g.burst.Add(s.frame[ttlSize:])
	}
	if err := g.burst.Sign(t.self.signer); err != nil {
		return err
	}
	for i, s := range t.slots {
		g.field = g.burst.AppendField(g.field[:0], i)
		frame, err := codec.AppendSignature(s.frame, g.field)
		if err != nil {
			return err
		}
		t.frames = append(t.frames, frame)
	}
	return nil
}

// settleLocked makes the frames ready to be taken, and forgets them. What could
// not be signed fails.
func (g *signing) settleLocked(count *counters) {
	for i := range g.used {
		t := &g.trees[i]
		if n := len(t.slots); n > 1 && t.err == nil {
			count.bursts.Add(1)
			count.burstFrames.Add(uint64(n))
		}
		for i, s := range t.slots {
			if t.err != nil {
				s.failLocked(t.err, count)
				continue
			}
			s.frame, s.state = t.frames[i], slotReady
		}
		clear(t.slots)
		clear(t.frames)
		*t = tree{slots: t.slots[:0], frames: t.frames[:0]}
	}
	clear(g.open)
	g.used, g.last, g.lastAt, g.frames, g.bytes = 0, treeKey{}, 0, 0, 0
}

// failLocked gives up a frame that could not be signed.
func (s *slot) failLocked(err error, count *counters) {
	s.state = slotVoid
	if s.answer {
		count.answersLost.Add(1)
		return
	}
	s.sent.resolveLocked(sentFailed, &UnsentError{err})
}

// signWaiting signs frames that are to be written next, and reports whether there
// were any. Another connection's writer may take over meanwhile; the frames are
// its to write then.
func (w *writer) signWaiting() bool {
	c, o := w.c, w.c.out
	o.mu.Lock()
	due := o.drainsLocked(c) && c.bye == nil && !c.pend.full() && w.signing.gatherLocked(o.slots.rest())
	o.mu.Unlock()
	if !due {
		return false
	}
	w.signing.sign()
	o.mu.Lock()
	defer o.mu.Unlock()
	w.signing.settleLocked(&c.n.counters)
	if o.writer != nil && o.writer != c {
		o.writer.wakeWriter()
	}
	return true
}
