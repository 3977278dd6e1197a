package link

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	slotsPerChunk = 1 << 10
	chunksMax     = 1 << slotBits / slotsPerChunk
)

// slot is what other loops may read and write of a connection. It outlives the
// connection and serves the next one in its place, so frames that are still
// under way to an earlier one stay in its backlog until they are accounted for.
type slot struct {
	generation atomic.Uint32 // of the connection in it now, or of the next one
	waiting    atomic.Bool   // waiters is not empty
	backlog    atomic.Int64  // bytes of frames given to Send and not yet written, undeliverable or lost

	mu      sync.Mutex
	waiters []waiter // guarded by mu

	frameMax atomic.Uint32          // largest frame for the connection, bytes; 0: not said
	epoch    atomic.Uint32          // of the last shares
	shares   atomic.Pointer[shares] // nil: the queue is short
}

var _ [0]struct{} = [unsafe.Sizeof(slot{}) % 64]struct{}{} // a slot fills a cache line of its own

// waiter is a connection that is paused until a slot's backlog is low.
type waiter struct {
	ref Ref
	seq uint32    // of the wait, so that the end of an earlier one is not taken for it
	to  recipient // behind a link; 0: any
}

// slotTable has a loop's slots. The home loop adds chunks; all loops read.
type slotTable struct {
	chunks [chunksMax]atomic.Pointer[[slotsPerChunk]slot]
}

// get returns slot i, or nil when there is none.
func (t *slotTable) get(i int) *slot {
	if c := t.chunks[i/slotsPerChunk].Load(); c != nil {
		return &c[i%slotsPerChunk]
	}
	return nil
}

// addOnLoop makes slot i exist.
func (t *slotTable) addOnLoop(i int) *slot {
	if t.chunks[i/slotsPerChunk].Load() == nil {
		t.chunks[i/slotsPerChunk].Store(new([slotsPerChunk]slot))
	}
	return t.get(i)
}

// slotOf returns the slot that ref names, whatever its generation, or nil.
func (e *Engine) slotOf(ref Ref) *slot {
	if ref == 0 || ref.Loop() >= len(e.loops) {
		return nil
	}
	return e.loops[ref.Loop()].slots.get(ref.slot())
}

// liveSlot is slotOf, nil also when ref's connection is gone.
func (e *Engine) liveSlot(ref Ref) *slot {
	if s := e.slotOf(ref); s != nil && s.generation.Load() == ref.generation() {
		return s
	}
	return nil
}

// add registers w unless the slot's connection is not (or no longer) of the
// given generation.
func (s *slot) add(generation uint32, w waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation.Load() != generation {
		return false
	}
	s.waiters = append(s.waiters, w)
	s.waiting.Store(true)
	return true
}

// remove takes back the wait of that number of the connection ref. It tells whether
// it was still registered.
func (s *slot) remove(ref Ref, seq uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.waiters {
		if s.waiters[i].ref == ref && s.waiters[i].seq == seq {
			last := len(s.waiters) - 1
			s.waiters[i] = s.waiters[last]
			s.waiters = s.waiters[:last]
			s.waiting.Store(last > 0)
			return true
		}
	}
	return false
}

// waitersKeptMax bounds the list that a slot keeps for the next waiters: the
// usual destination has few, and those of one come and go often.
const waitersKeptMax = 4

// take empties the waiters, into a list that it appends to.
func (s *slot) take(into []waiter) []waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	into = append(into, s.waiters...)
	s.waiters = s.waiters[:0]
	if cap(s.waiters) > waitersKeptMax {
		s.waiters = nil
	}
	s.waiting.Store(false)
	return into
}

// takeIf is take for those waiters of which ends is true; it must be quick.
func (s *slot) takeIf(into []waiter, ends func(waiter) bool) []waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if ends(w) {
			into = append(into, w)
		} else {
			kept = append(kept, w)
		}
	}
	s.waiters = kept
	s.waiting.Store(len(kept) > 0)
	return into
}
