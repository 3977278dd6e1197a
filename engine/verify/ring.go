package verify

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"causeway/codec"
	"causeway/crypto/sign"
	"causeway/engine/buf"
)

// RingSize is how many frames of one connection can wait for a verdict. Whoever
// reads the connection stops reading when its Ring is full, so the bound holds
// per connection, and the pool's queue is bounded by the sum of the rings.
const RingSize = 128

// LongRingSize is the same of a connection that carries the frames of many, and takes
// the place of several (Pool.NewLongRing): with RingSize frames the loop would hand
// over, wait and stop reading many times for what one read brings.
const LongRingSize = 1024

var _ [0]struct{} = [RingSize&(RingSize-1) + LongRingSize&(LongRingSize-1)]struct{}{} // powers of two

// Verdict is what is known about a frame's signature.
type Verdict uint32

const (
	Pending Verdict = iota
	Good
	Bad
)

// slot holds one frame between Push and Pop. The home loop writes frame and key
// before the job is submitted; a worker then writes verdict, once.
type slot struct {
	frame   *buf.Buffer
	key     *sign.Key
	tag     uint64
	verdict atomic.Uint32
}

// slots are the memory of a Ring.
type slots struct {
	at   []slot
	jobs []uint16 // places of slots that wait for a worker; guarded by Pool.mu
	mask uint32   // one less than their number
}

func newSlots(size int) *slots {
	return &slots{at: make([]slot, size), jobs: make([]uint16, size), mask: uint32(size - 1)}
}

// slotBytes is what one slot takes.
const slotBytes = int64(unsafe.Sizeof(slot{}) + unsafe.Sizeof(uint16(0)))

// rings and longRings lend slots: a Ring has them only while frames wait in it, so
// an idle connection holds none.
var (
	rings     = sync.Pool{New: func() any { return newSlots(RingSize) }}
	longRings = sync.Pool{New: func() any { return newSlots(LongRingSize) }}
)

// Ring keeps the frames of one connection in order. All methods are for its
// home loop. The zero Ring is not ready: use Pool.NewRing.
type Ring struct {
	pool    *Pool
	size    int        // slots
	lender  *sync.Pool // of them
	notify  func()
	account *buf.Account

	slots      *slots // nil when empty
	head, tail uint32 // free-running; tail-head frames wait
	bytes      int

	// guarded by pool.mu
	jobs jobs
	next *Ring // in the pool's queue
}

// NewRing returns an empty Ring, which must not be copied once it is used. notify is called by workers, from their
// goroutines, after slots of this ring have got verdicts; it must be quick. account, of the ring's home loop, is told
// what the ring takes beside the frames; nil: nobody is.
func (p *Pool) NewRing(notify func(), account *buf.Account) Ring {
	return Ring{pool: p, size: RingSize, lender: &rings, notify: notify, account: account}
}

// NewLongRing is NewRing for LongRingSize frames.
func (p *Pool) NewLongRing(notify func(), account *buf.Account) Ring {
	return Ring{pool: p, size: LongRingSize, lender: &longRings, notify: notify, account: account}
}

// Len returns how many frames wait, with or without a verdict.
func (r *Ring) Len() int { return int(r.tail - r.head) }

// Size returns how many frames the ring has room for.
func (r *Ring) Size() int { return r.size }

// Full tells whether Push would panic.
func (r *Ring) Full() bool { return r.Len() == r.size }

// Bytes returns the size of the frames that wait.
func (r *Ring) Bytes() int { return r.bytes }

// Push takes frame, one whole frame, and has it checked under key; a nil key
// means that nothing is to be checked: Good. The job waits in batch until
// Pool.Submit. tag is the caller's, see HeadTag. It panics when the ring is full.
func (r *Ring) Push(frame *buf.Buffer, key *sign.Key, tag uint64, batch *Batch) {
	if r.Full() {
		panic("verify: Ring.Push: ring is full")
	}
	r.needSlots()
	at := uint16(r.tail & r.slots.mask)
	s := &r.slots.at[at]
	r.tail++
	r.bytes += len(frame.B)
	s.frame, s.key, s.tag = frame, key, tag
	switch {
	case key == nil:
		s.verdict.Store(uint32(Good))
	default:
		s.verdict.Store(uint32(Pending))
		batch.pushed = append(batch.pushed, pushed{r, at})
	}
}

func (r *Ring) needSlots() {
	if r.slots == nil {
		r.slots = r.lender.Get().(*slots)
		r.account.Use(buf.PartLists, int64(r.size)*slotBytes)
	}
}

// Unpop gives back frame, the last that was popped, and its tag: it is the oldest
// again, and Good. Nothing may have been pushed since.
func (r *Ring) Unpop(frame *buf.Buffer, tag uint64) {
	if r.Full() {
		panic("verify: Ring.Unpop: ring is full")
	}
	r.needSlots()
	r.head--
	s := r.first()
	r.bytes += len(frame.B)
	s.frame, s.key, s.tag = frame, nil, tag
	s.verdict.Store(uint32(Good))
}

// Head returns the oldest frame, borrowed, and its verdict; Pending and nil
// when no frame waits.
func (r *Ring) Head() (*buf.Buffer, Verdict) {
	if r.head == r.tail {
		return nil, Pending
	}
	s := r.first()
	return s.frame, Verdict(s.verdict.Load())
}

// first returns the slot of the oldest frame; the ring has slots.
func (r *Ring) first() *slot { return &r.slots.at[r.head&r.slots.mask] }

// HeadTag returns the tag of the oldest frame; ok is false when no frame waits.
func (r *Ring) HeadTag() (tag uint64, ok bool) {
	if r.head == r.tail {
		return 0, false
	}
	return r.first().tag, true
}

// Pop removes the oldest frame, which must have its verdict, and gives it to
// the caller.
func (r *Ring) Pop() *buf.Buffer {
	if r.head == r.tail || Verdict(r.first().verdict.Load()) == Pending {
		panic("verify: Ring.Pop: no frame with a verdict")
	}
	s := r.first()
	frame := s.frame
	s.frame, s.key = nil, nil
	r.head++
	r.bytes -= len(frame.B)
	if r.head == r.tail {
		r.lender.Put(r.slots)
		r.slots = nil
		r.account.Use(buf.PartLists, -int64(r.size)*slotBytes)
	}
	return frame
}

// raw returns the slot's frame.
func (s *slot) raw() codec.Raw { return s.frame.B }
