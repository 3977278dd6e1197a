package gate

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// sketch has a number for each source, in memory of fixed size, from which no
// source is ever evicted: who comes from many sources cannot make the gate
// forget what one of them has done.
//
// Each source has a cell per row, chosen by a secret hash; the least of its
// cells counts, as in a count-min sketch with conservative update. All numbers
// are points in time, nanoseconds since the gate's start, that only grow: a
// number is never taken for less than it is, and for more only if in each row
// another source shares the cell: with n sources that have a number above now,
// in (n / cells)^rows of cases.
type sketch struct {
	seed maphash.Seed
	bits int // of an index into a row; rows times bits are at most 64
	rows [][]int64
}

func newSketch(rows, bits int) *sketch {
	s := &sketch{seed: maphash.MakeSeed(), bits: bits}
	for range rows {
		s.rows = append(s.rows, make([]int64, 1<<bits))
	}
	return s
}

// get returns the number of source.
func (s *sketch) get(source netip.Addr) int64 {
	h := maphash.Comparable(s.seed, source)
	least := s.rows[0][s.cell(h, 0)]
	for i := range s.rows[1:] {
		least = min(least, s.rows[i+1][s.cell(h, i+1)])
	}
	return least
}

// raise makes the number of source at least v.
func (s *sketch) raise(source netip.Addr, v int64) {
	h := maphash.Comparable(s.seed, source)
	for i, row := range s.rows {
		c := &row[s.cell(h, i)]
		*c = max(*c, v)
	}
}

func (s *sketch) cell(hash uint64, row int) uint64 {
	return hash >> (row * s.bits) & (1<<s.bits - 1)
}

// The cells of a rate: 2 rows of 16,384 times 8 bytes, 256 KiB.
const (
	rateRows     = 2
	rateCellBits = 14
)

// rate is a token bucket per source. A source's number is when its bucket will
// be full again (the theoretical arrival time of GCRA).
type rate struct{ full *sketch }

func newRate() *rate { return &rate{newSketch(rateRows, rateCellBits)} }

// take takes one token of source at the time now, nanoseconds since the gate's
// start, from a bucket of burst tokens that gets one every interval.
func (r *rate) take(source netip.Addr, now int64, interval time.Duration, burst int) bool {
	full := max(r.full.get(source), now)
	if full > now+int64(interval)*int64(burst-1) {
		return false
	}
	r.full.raise(source, full+int64(interval))
	return true
}

// The cells of failures: 4 rows of 32,768 times 8 bytes, 1 MiB. With 5,000
// sources that fail, 5 in 10,000 others are taken for one of them.
const (
	failureRows     = 4
	failureCellBits = 15
)

// A failure is forgotten after failureTime, of more than failuresMax the others
// at once.
const (
	failureTime = time.Minute
	failuresMax = 6
)

// failures counts, per source, the connections that lately came to nothing. A
// source's number is when all of its failures are forgotten.
type failures struct{ until *sketch }

func newFailures() *failures { return &failures{newSketch(failureRows, failureCellBits)} }

// add counts one more at the time now, nanoseconds since the gate's start. One
// that was no fault of its source counts as the first only: many of them are a
// sign of a full house.
func (f *failures) add(source netip.Addr, now int64, fault bool) {
	until := now + int64(failureTime)
	if fault {
		until = min(max(f.until.get(source), now)+int64(failureTime), now+failuresMax*int64(failureTime))
	}
	f.until.raise(source, until)
}

// count returns how many are not forgotten, at most failuresMax.
func (f *failures) count(source netip.Addr, now int64) int {
	left := max(f.until.get(source)-now, 0)
	return int((left + int64(failureTime) - 1) / int64(failureTime))
}
