package sign

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// Tables holds the precomputed multiples of signers' keys, 64 KiB each, in
// memory that its caller provides, and those of the base point.
//
// Life of a table: Verifiers count the good signatures of keys without one and
// put a key that has buildAfter into a bounded channel (Wanted); one goroutine of
// the caller takes it out and has it built (Build); Verifiers find it behind the
// key. When no slot is free the table least recently used makes room (CLOCK): it
// is first taken from its key, and its slot is written again only after every
// Verifier has ended the batch that it was in.
type Tables struct {
	// fixed
	path    Path
	arena   []entry // of the base point, then the slots
	pause   time.Duration
	wanted  chan *Key
	builder *builder // Build only, as all up to the atomics

	based    bool // the tables of the base point are made
	byKey    map[[ed25519.PublicKeySize]byte]*table
	slots    []*table // nil: free
	used     int      // slots[:used] were used before
	hand     int      // of the CLOCK
	free     []int
	retiring retirement
	nextAt   time.Time

	// atomic
	verifiers  atomic.Pointer[Verifier] // linked by next
	distrusted atomic.Bool
	builds     atomic.Uint64
	evictions  atomic.Uint64
	rejected   atomic.Uint64
	tables     atomic.Int64
	bytes      atomic.Int64 // of the arena that were written
	treeBytes  atomic.Int64 // of what Verifiers remember of bursts
	treeNodes  int          // that each of them remembers
}

// table is what stands behind a Key for its slot.
type table struct {
	owner  *Tables
	key    [ed25519.PublicKeySize]byte
	slot   int
	offset uint64 // in bytes from the beginning of the arena

	live   atomic.Bool
	recent atomic.Bool // used since the hand last passed
}

// noTable stands behind keys that cannot have a table, having torsion or being
// no point at all.
var noTable = &table{slot: -1}

// retirement is a slot that was taken from its key while Verifiers may still
// read it: those in a batch then, and the number of that batch.
type retirement struct {
	pending bool
	slot    int
	readers map[*Verifier]uint64
}

const (
	// buildAfter good signatures a key is wanted a table for: building costs as
	// much as about four checks by crypto/ed25519.
	buildAfter = 6
	wantedMax  = 256

	// busyRetry is when to ask again for a slot under a running batch.
	busyRetry = time.Millisecond

	tableSize     = tableEntries * entrySize
	baseTableSize = baseTableEntries * entrySize

	// TablesMemoryMin is the least memory for Tables: those of the base point, one
	// of a signer, and what aligning costs.
	TablesMemoryMin = baseTableSize + tableSize + entrySize
)

// TablesMemory returns how much memory the tables of so many signers take, in
// bytes, together with those of the base point.
func TablesMemory(signers int) int { return baseTableSize + signers*tableSize }

// ErrTablesMemory says that the memory is below TablesMemoryMin.
var ErrTablesMemory = errors.New("sign: too little memory for verification tables")

// TablesConfig says what Tables are made of.
type TablesConfig struct {
	// Memory is taken: nobody else may touch it while the Tables are used. It
	// bounds how many signers have a table, 64 KiB each besides 8 MiB. Best are
	// huge pages outside the heap. Ignored with PathStdlib.
	Memory []byte
	// Path as chosen by ParsePath; 0: the best one.
	Path Path
	// TreeMemory is what each Verifier may take to remember bursts, in bytes; at
	// least 0.4 MB and at most 1.5 MB, whatever it says.
	TreeMemory int
	// BuildPause is the least time between the beginnings of two builds, so that
	// signers who come and go cost a bounded share of the time.
	BuildPause time.Duration
}

// NewTables returns Tables without any. ErrTablesMemory, or ErrPath if the CPU
// lacks the path.
func NewTables(c TablesConfig) (*Tables, error) {
	if c.Path == 0 {
		c.Path = BestPath()
	}
	if !c.Path.supported() {
		return nil, ErrPath
	}
	t := &Tables{path: c.Path, pause: c.BuildPause, treeNodes: nodesFor(c.TreeMemory), wanted: make(chan *Key, wantedMax), byKey: map[[ed25519.PublicKeySize]byte]*table{}}
	if c.Path == PathStdlib {
		return t, nil
	}
	if len(c.Memory) < TablesMemoryMin {
		return nil, ErrTablesMemory
	}
	at := unsafe.Pointer(unsafe.SliceData(c.Memory))
	skip := int(-uintptr(at) % entrySize)
	t.arena = unsafe.Slice((*entry)(unsafe.Add(at, skip)), (len(c.Memory)-skip)/entrySize)
	t.slots = make([]*table, (len(t.arena)-baseTableEntries)/tableEntries)
	t.builder = new(builder)
	return t, nil
}

// makeBase computes the tables of the base point.
func (t *Tables) makeBase() {
	var base point
	base.decode(&basePoint)
	t.builder.build(t.arena[:baseTableEntries], &base, baseBlocks, baseTeeth)
	t.based = true
	t.bytes.Add(baseTableSize)
}

// basePoint is B, encoded: y = 4/5.
var basePoint = [32]byte([]byte("\x58" + strings.Repeat("\x66", 31)))

// Path returns the path that Verifiers take.
func (t *Tables) Path() Path { return t.path }

// Wanted returns the channel of keys that should have a table.
func (t *Tables) Wanted() <-chan *Key { return t.wanted }

// want asks for a table for k; when too many wait, k asks again later.
func (t *Tables) want(k *Key) {
	select {
	case t.wanted <- k:
	default:
	}
}

// Build makes a table for k, off the data path: it takes about a quarter of a
// millisecond, but up to 100 ms the first time, when those of the base point are
// made. A result above zero says that k must wait so long, for the pause
// between builds or for a slot that is still read; call again with the same key.
// One goroutine only.
func (t *Tables) Build(k *Key, now time.Time) (again time.Duration) {
	if t.path == PathStdlib || k.algorithm != Ed25519 || k.lookUp(t) != nil || k.table.Load() == noTable {
		return 0
	}
	public := [ed25519.PublicKeySize]byte(k.ed)
	if known := t.byKey[public]; known != nil {
		k.table.Store(known)
		return 0
	}
	if wait := t.nextAt.Sub(now); wait > 0 {
		return wait
	}
	if !t.based {
		t.makeBase()
	}
	slot, ok := t.takeSlot()
	if !ok {
		return busyRetry
	}
	t.nextAt = now.Add(t.pause)
	offset := baseTableEntries + slot*tableEntries
	if !t.compute(t.arena[offset:offset+tableEntries], offset*entrySize, &public) {
		t.free = append(t.free, slot)
		t.rejected.Add(1)
		k.table.Store(noTable)
		return 0
	}
	made := &table{owner: t, key: public, slot: slot, offset: uint64(offset * entrySize)}
	made.live.Store(true)
	t.slots[slot], t.byKey[public] = made, made
	t.builds.Add(1)
	t.tables.Add(1)
	k.table.Store(made)
	return 0
}

// compute fills entries with the comb of -A. False if A is no point, or has
// torsion: then L A is not the identity, and A times k and times k - L differ.
func (t *Tables) compute(entries []entry, offset int, public *[32]byte) bool {
	var a point
	if !a.decode(public) {
		return false
	}
	a.negate()
	t.builder.build(entries, &a, blocks, teeth)
	var g group
	g.setSteps(0, uint64(offset), &orderL, &orderL)
	var sum point
	t.path.evaluate(&sum, t.arena, &g, 0)
	return sum.isIdentity()
}

// takeSlot returns a slot that nobody reads; false if there is none yet.
func (t *Tables) takeSlot() (slot int, ok bool) {
	if n := len(t.free); n > 0 {
		slot = t.free[n-1]
		t.free = t.free[:n-1]
		return slot, true
	}
	if t.used < len(t.slots) {
		t.used++
		t.bytes.Add(tableSize)
		return t.used - 1, true
	}
	if !t.retiring.pending {
		t.evict()
	}
	for v, batch := range t.retiring.readers {
		if v.batch.Load() != batch {
			delete(t.retiring.readers, v)
		}
	}
	if len(t.retiring.readers) > 0 {
		return 0, false
	}
	t.retiring.pending = false
	return t.retiring.slot, true
}

// evict takes the table at the hand from its key, after giving a second chance
// to those that were used since the hand last passed. No slot is empty.
func (t *Tables) evict() {
	for t.slots[t.hand].recent.Swap(false) {
		t.hand = (t.hand + 1) % len(t.slots)
	}
	victim := t.slots[t.hand]
	t.slots[t.hand] = nil
	t.hand = (t.hand + 1) % len(t.slots)
	victim.live.Store(false)
	delete(t.byKey, victim.key)
	t.evictions.Add(1)
	t.tables.Add(-1)
	// Whoever begins a batch from here on sees that the table is dead.
	t.retiring = retirement{pending: true, slot: victim.slot, readers: map[*Verifier]uint64{}}
	for v := t.verifiers.Load(); v != nil; v = v.next {
		if batch := v.batch.Load(); batch&1 == 1 {
			t.retiring.readers[v] = batch
		}
	}
}

// lookUp returns k's table in t, nil if it has none. The caller is in a batch,
// or is Build.
func (k *Key) lookUp(t *Tables) *table {
	found := k.table.Load()
	if found == nil || found.owner != t || !found.live.Load() {
		return nil
	}
	return found
}
