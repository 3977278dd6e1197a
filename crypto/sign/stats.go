package sign

import "strconv"

// TablesStats are counters since the Tables were made, except Tables, Slots,
// Bytes and TreeBytes.
type TablesStats struct {
	Batches     BatchCounts
	ByTable     uint64 // Ed25519 signatures checked with a table
	ByStdlib    uint64 // and without, the key having none
	ByTree      uint64 // frames of bursts whose head was, or was being, checked
	ByP256      uint64 // ECDSA signatures
	Rechecked   uint64 // of those by table, again with crypto/ed25519
	Differences uint64 // between the two: must be zero; from the first on no table is used
	Builds      uint64
	Evictions   uint64
	Untabled    uint64 // keys that cannot have a table
	Tables      int    // now
	Slots       int    // for tables
	Bytes       int    // of memory that were written for tables, those of the base point included
	TreeBytes   int    // of memory in which Verifiers remember bursts
}

// sizeClasses is how many classes of sizes batches are counted by.
const sizeClasses = 7

// sizeFrom is the least size of each class: where a path begins to be used, and
// how many groups of lanes there are.
var sizeFrom = [sizeClasses]int{1, 2, 3, 8, 16, 32, batchMax}

// sizeClass returns the class of a batch of n signatures, at least one.
func sizeClass(n int) (class int) {
	for class < sizeClasses-1 && n >= sizeFrom[class+1] {
		class++
	}
	return class
}

// sizeName returns the sizes of a class, such as 3-7.
func sizeName(class int) string {
	from := strconv.Itoa(sizeFrom[class])
	if class == sizeClasses-1 || sizeFrom[class+1] == sizeFrom[class]+1 {
		return from
	}
	return from + "-" + strconv.Itoa(sizeFrom[class+1]-1)
}

// BatchCounts says how many batches of Ed25519 signatures there were, by the path
// that they took and by their size. What a Verifier is given at once may come to
// two: signatures with a table, and others, which PathStdlib checks one by one.
type BatchCounts [pathEnd][sizeClasses]uint64

// Of returns the counts of one path by sizes, such as 3-7.
func (c *BatchCounts) Of(p Path) map[string]uint64 {
	counts := make(map[string]uint64, sizeClasses)
	for class, n := range c[p] {
		counts[sizeName(class)] = n
	}
	return counts
}

// Sum returns how many there were in all.
func (c *BatchCounts) Sum() (sum uint64) {
	for _, sizes := range c {
		for _, n := range sizes {
			sum += n
		}
	}
	return sum
}

// batch counts a batch of n signatures, if there was one.
func (c *verifierCounts) batch(p Path, n int) {
	if n > 0 {
		c.batches[p][sizeClass(n)].Add(1)
	}
}

// Stats may be called at any time, by anyone.
func (t *Tables) Stats() TablesStats {
	s := TablesStats{
		Builds: t.builds.Load(), Evictions: t.evictions.Load(), Untabled: t.rejected.Load(),
		Tables: int(t.tables.Load()), Slots: len(t.slots), Bytes: int(t.bytes.Load()), TreeBytes: int(t.treeBytes.Load()),
	}
	for v := t.verifiers.Load(); v != nil; v = v.next {
		s.ByTable += v.count.byTable.Load()
		s.ByStdlib += v.count.byStdlib.Load()
		s.ByTree += v.count.byTree.Load()
		s.ByP256 += v.count.byP256.Load()
		s.Rechecked += v.count.rechecked.Load()
		s.Differences += v.count.differences.Load()
		for p := range v.count.batches {
			for class := range v.count.batches[p] {
				s.Batches[p][class] += v.count.batches[p][class].Load()
			}
		}
	}
	return s
}
