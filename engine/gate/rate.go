package gate

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// The cells of a rate: 2 rows of 16,384 times 8 bytes, 256 KiB.
const (
	rateRows     = 2
	rateCellBits = 14
	rateCells    = 1 << rateCellBits
)

// rate is a token bucket per source, in memory of fixed size, from which no
// source is ever evicted: who comes from many sources cannot make the gate
// forget what one of them has used.
//
// Each source has a cell per row, chosen by a secret hash. A cell holds when
// its bucket will be full again (the theoretical arrival time of GCRA), zero
// being full long ago. The fullest of a source's cells counts, as in a count-min sketch with
// conservative update: a bucket is never taken for fuller than it is, and a
// source that does nothing is taken for a busy one only if in each row a busy one
// shares its cell: with n sources at their limit at the same moment (n / 16,384)².
type rate struct {
	seed  maphash.Seed
	cells [rateRows][rateCells]int64 // nanoseconds since the gate's start
}

func newRate() *rate { return &rate{seed: maphash.MakeSeed()} }

// take takes one token of source at the time now, nanoseconds since the gate's
// start, from a bucket of burst tokens that gets one every interval.
func (r *rate) take(source netip.Addr, now int64, interval time.Duration, burst int) bool {
	h := maphash.Comparable(r.seed, source)
	var mine [rateRows]*int64
	for i := range mine {
		mine[i] = &r.cells[i][h>>(i*rateCellBits)&(rateCells-1)]
	}
	full := *mine[0]
	for _, c := range mine[1:] {
		full = min(full, *c)
	}
	full = max(full, now)
	if full > now+int64(interval)*int64(burst-1) {
		return false
	}
	full += int64(interval)
	for _, c := range mine {
		*c = max(*c, full)
	}
	return true
}
