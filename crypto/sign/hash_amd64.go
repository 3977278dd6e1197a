//go:build amd64 && !purego

package sign

import (
	"crypto/sha512"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// hashLanes is what Verifier.hashLanes works in.
type hashLanes struct {
	state   [8][lanes]uint64
	blocks  [lanes]unsafe.Pointer // the next of each lane
	buffer  [lanes][sha512.BlockSize]byte
	count   [lanes]int // of blocks
	k, s    [4][lanes]uint64
	offsets [lanes]uint64
}

const (
	// prefixSize is what is hashed before the message: R and A.
	prefixSize = 64
	// paddingMin is what is hashed after it: a one bit, and the length.
	paddingMin = 1 + 16

	// laneBlocksMax is the longest message hashed beside others, as eight lanes
	// take as long as the longest of them.
	laneBlocksMax = 64
)

// sha512Start is the initial hash value (FIPS 180-4 section 5.3.5).
var sha512Start = [8]uint64{
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
}

// hashOnes is hashLanes without vectors, one message after the other.
func (v *Verifier) hashOnes(g *group, jobs []job) {
	for lane := range lanes {
		if lane >= len(jobs) {
			g.setSteps(lane, 0, &scalar{1}, &scalar{1})
			continue
		}
		var k scalar
		v.hashOne(&jobs[lane], &k)
		g.setSteps(lane, jobs[lane].table.offset, &k, &jobs[lane].s)
	}
}

// hashLanes sets the steps of jobs, eight at most, in g. Lanes that have no job
// get the same good steps: of others, left by earlier jobs, the tables may be
// gone, and a Z of zero would spoil the inversion of all.
func (v *Verifier) hashLanes(g *group, jobs []job) {
	h := &v.lanes.hash
	blocks := 0
	for lane := range lanes {
		h.count[lane] = 0
		h.blocks[lane] = unsafe.Pointer(&h.buffer[lane])
		if lane >= len(jobs) {
			h.setLane(lane, 0, &scalar{1}, &scalar{1})
			continue
		}
		j := &jobs[lane]
		n := (prefixSize + len(j.message) + paddingMin + sha512.BlockSize - 1) / sha512.BlockSize
		if n > laneBlocksMax {
			var k scalar
			v.hashOne(j, &k)
			h.setLane(lane, j.table.offset, &k, &j.s)
			continue
		}
		h.count[lane] = n
		blocks = max(blocks, n)
	}
	for i := range h.state {
		for lane := range lanes {
			h.state[i][lane] = sha512Start[i]
		}
	}
	for block := range blocks {
		for lane := range jobs {
			if block < h.count[lane] {
				h.setBlock(lane, block, &jobs[lane])
			}
		}
		sha512Lanes(&h.state, &h.blocks)
		for lane := range jobs {
			if block == h.count[lane]-1 {
				k := h.sum(lane)
				h.setLane(lane, jobs[lane].table.offset, &k, &jobs[lane].s)
			}
		}
	}
	stepsLanes(g, &h.offsets, &h.k, &h.s)
	h.blocks = [lanes]unsafe.Pointer{} // messages are borrowed
}

func (h *hashLanes) setLane(lane int, offset uint64, k, s *scalar) {
	h.offsets[lane] = offset
	for i := range k {
		h.k[i][lane], h.s[i][lane] = k[i], s[i]
	}
}

// sum returns k from the lane's state.
func (h *hashLanes) sum(lane int) (k scalar) {
	var x [8]uint64
	for i := range x {
		x[i] = bits.ReverseBytes64(h.state[i][lane])
	}
	k.setHash(&x)
	return k
}

// setBlock sets lane's next block: where it is, if that is all message, or a
// copy with what comes before and after.
func (h *hashLanes) setBlock(lane, block int, j *job) {
	const size = sha512.BlockSize
	total := prefixSize + len(j.message)
	begin := block * size
	if block > 0 && begin+size <= total {
		h.blocks[lane] = unsafe.Pointer(&j.message[begin-prefixSize])
		return
	}
	b := &h.buffer[lane]
	h.blocks[lane] = unsafe.Pointer(b)
	n := 0
	if block == 0 {
		copy(b[:], j.signature[:32])
		copy(b[32:], j.table.key[:])
		n = prefixSize + copy(b[prefixSize:], j.message)
	} else if begin < total {
		n = copy(b[:], j.message[begin-prefixSize:])
	}
	clear(b[n:])
	if begin <= total && total < begin+size {
		b[n] = 0x80
	}
	if block == h.count[lane]-1 {
		binary.BigEndian.PutUint64(b[size-8:], uint64(total)*8)
	}
}

// stepsLanes does what group.setSteps does, for eight lanes: offsets of tables,
// and scalars with a word of all lanes in each row.
//
//go:noescape
func stepsLanes(out *group, offsets *[lanes]uint64, k, s *[4][lanes]uint64)

// sha512Lanes adds a block of 128 bytes to each lane's SHA-512.
//
//go:noescape
func sha512Lanes(state *[8][lanes]uint64, blocks *[lanes]unsafe.Pointer)
