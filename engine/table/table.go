package table

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"causeway/codec"
)

// Value is a destination: a small number whose meaning is the caller's (a
// connection's reference, a next hop). It holds no pointer, so a table of any
// size costs the garbage collector nothing. Zero means none.
type Value uint64

// slotsMin is the smallest array; slots are a power of two.
const slotsMin = 64

// A slot goes through empty → taken once and keeps its key for the array's
// life; only the value changes afterwards, to zero when the address goes. The
// writer copies what is live into a new array when three quarters are taken.
type slot struct {
	taken atomic.Uint32 // 0 empty; 1 when high and low are written
	high  uint64        // written before taken, never again
	low   uint64
	value atomic.Uint64 // 32 bytes in all: two slots a cache line
}

type array struct {
	seed  maphash.Seed
	mask  uint64
	slots []slot
}

// Table maps addresses to Values. The zero Table is not ready: use New.
type Table struct {
	current atomic.Pointer[array]

	mu    sync.Mutex // serialises writers
	taken int        // slots of current that are not empty
	live  int        // of these, with a value

	// hookMid, set by tests alone, runs with mu held in the middle of a write.
	hookMid func()
}

// New returns an empty Table.
func New() *Table {
	t := new(Table)
	t.current.Store(newArray(slotsMin))
	return t
}

func newArray(slots int) *array {
	return &array{seed: maphash.MakeSeed(), mask: uint64(slots - 1), slots: make([]slot, slots)}
}

// Lookup returns a's Value, or zero. It takes no lock, allocates nothing and
// may be called from any goroutine at any time.
func (t *Table) Lookup(a codec.Address) Value {
	arr := t.current.Load()
	high, low := words(a)
	for i := arr.home(a); ; i = (i + 1) & arr.mask {
		s := &arr.slots[i]
		if s.taken.Load() == 0 {
			return 0
		}
		if s.high == high && s.low == low {
			return Value(s.value.Load())
		}
	}
}

// Set gives a the Value v and returns the one it had before, or zero. v zero
// removes a.
func (t *Table) Set(a codec.Address, v Value) (old Value) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.setLocked(a, v)
}

// Clear removes a if its Value is still v, and tells whether it was: who owned
// an address takes only its own entry away, not a successor's.
func (t *Table) Clear(a codec.Address, v Value) bool {
	return v != 0 && t.CompareAndSwap(a, v, 0)
}

// CompareAndSwap gives a the Value next, zero to remove it, if its Value is still
// old, and tells whether it was. So writers that know of each other's Values only
// by looking do not undo each other's work.
func (t *Table) CompareAndSwap(a codec.Address, old, next Value) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Lookup(a) != old {
		return false
	}
	t.setLocked(a, next)
	return true
}

// Len returns how many addresses have a Value.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live
}

func (t *Table) setLocked(a codec.Address, v Value) (old Value) {
	arr := t.current.Load()
	high, low := words(a)
	i := arr.home(a)
	for ; arr.slots[i].taken.Load() != 0; i = (i + 1) & arr.mask {
		if s := &arr.slots[i]; s.high == high && s.low == low {
			old = Value(s.value.Swap(uint64(v)))
			t.live += count(v) - count(old)
			return old
		}
	}
	if v == 0 {
		return 0
	}
	if 4*(t.taken+1) > 3*len(arr.slots) {
		arr = t.rebuildLocked()
		for i = arr.home(a); arr.slots[i].taken.Load() != 0; i = (i + 1) & arr.mask {
		}
	}
	s := &arr.slots[i]
	s.high, s.low = high, low
	s.value.Store(uint64(v))
	if t.hookMid != nil {
		t.hookMid()
	}
	s.taken.Store(1)
	t.taken++
	t.live++
	return 0
}

// rebuildLocked replaces the array by one that is at most half full of what is
// live. Readers that hold the old one finish on it: it is a moment out of date.
func (t *Table) rebuildLocked() *array {
	old := t.current.Load()
	size := slotsMin
	for size < 2*(t.live+1) {
		size *= 2
	}
	arr := newArray(size)
	t.taken = 0
	for n := range old.slots {
		o := &old.slots[n]
		v := o.value.Load()
		if o.taken.Load() == 0 || v == 0 {
			continue
		}
		a := address(o.high, o.low)
		i := arr.home(a)
		for arr.slots[i].taken.Load() != 0 {
			i = (i + 1) & arr.mask
		}
		s := &arr.slots[i]
		s.high, s.low = o.high, o.low
		s.value.Store(v)
		s.taken.Store(1)
		t.taken++
	}
	if t.hookMid != nil {
		t.hookMid()
	}
	t.current.Store(arr)
	return arr
}

// Check returns a description of the first broken invariant, or "". It is for
// tests, which call it last.
func (t *Table) Check() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	arr := t.current.Load()
	taken, live := 0, 0
	for n := range arr.slots {
		s := &arr.slots[n]
		if s.taken.Load() == 0 {
			continue
		}
		taken++
		v := Value(s.value.Load())
		live += count(v)
		if t.Lookup(address(s.high, s.low)) != v {
			return "a taken slot cannot be reached from its home"
		}
	}
	switch {
	case taken != t.taken || live != t.live:
		return "taken or live miscounted"
	case 4*taken > 3*len(arr.slots):
		return "more than three quarters taken"
	}
	return ""
}

// home is where the search for a begins. The seed is random per array, since
// whoever runs a domain chooses its addresses.
func (arr *array) home(a codec.Address) uint64 {
	return maphash.Bytes(arr.seed, a[:]) & arr.mask
}

func words(a codec.Address) (high, low uint64) {
	return binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
}

func address(high, low uint64) (a codec.Address) {
	binary.BigEndian.PutUint64(a[:8], high)
	binary.BigEndian.PutUint64(a[8:], low)
	return a
}

func count(v Value) int {
	if v == 0 {
		return 0
	}
	return 1
}
