package sign

import (
	"math/bits"
	"unsafe"
)

// Combs (Lim and Lee, "More flexible exponentiation with precomputation", 1994).
// A scalar is a sum of 256 signed powers of two. It is cut into blocks of teeth;
// the tooth t of a block at bit b stands at bits b + 8t to b + 8t + 7, one for
// each of 8 passes. A block's table has the sum of its teeth with the topmost one
// positive and every choice of signs for the others:
//
//	entry m = 2^b (2^(8(teeth-1)) P + sum over t of ±2^(8t) P), + where bit t of m is set
//
// With the topmost negative it is minus the entry of the complement. A signature
// needs 7 doublings and 48 additions, of -A in four blocks and of B in two.
const (
	passes     = 8
	blocks     = 4 // of -A
	teeth      = 8
	baseBlocks = 2
	baseTeeth  = 16

	blockEntries     = 1 << (teeth - 1)
	baseBlockEntries = 1 << (baseTeeth - 1)
	tableEntries     = blocks * blockEntries         // 64 KiB
	baseTableEntries = baseBlocks * baseBlockEntries // 8 MiB

	steps        = passes * (blocks + baseBlocks)
	stepsPerPass = blocks + baseBlocks
)

// entry is an affine point, halved to spare the doubling of Z in an addition, as
// four field elements in plain words. The offsets of an element and of what takes
// its place for the negative point differ in one bit.
type entry [16]uint64

const (
	entryPlus   = 0  // (y+x)/2
	entryMinus  = 4  // (y-x)/2
	entryT      = 8  // d x y
	entryMinusT = 12 // -d x y

	entrySize = 128 // bytes: two lines of the cache

	// stepNegative in a step stands for the negative of the entry.
	stepNegative = 8 * (entryMinus ^ entryPlus)
)

var (
	_ [0]struct{} = [unsafe.Sizeof(entry{}) - entrySize]struct{}{}
	_ [0]struct{} = [entryMinusT ^ entryT ^ stepNegative/8]struct{}{}
)

// A step is one addition: the offset in bytes of an entry from the beginning of
// the arena, plus stepNegative.
type step = uint64

// A group is the work of eight signatures: the steps of each in its column, and
// some that are fetched ahead but not done. They are zero, as are the columns of
// idle lanes: a step that is always good.
type group [steps + stepsAhead][lanes]step

const stepsAhead = 12

const lanes = 8

// setSteps writes lane's column: of -A, whose table is at offset, times k, plus
// B, at offset zero, times s. Both are odd and below 2^255.
func (g *group) setSteps(lane int, offset uint64, k, s *scalar) {
	kSigns, sSigns := k.signs(), s.signs()
	for block, w := range kSigns {
		digits := transpose(w)
		at := offset + uint64(block*blockEntries*entrySize)
		for i := (passes-1)*stepsPerPass + block; i >= 0; i -= stepsPerPass {
			g[i][lane] = at + stepOf(digits&(1<<teeth-1), teeth)
			digits >>= teeth
		}
	}
	for block := range baseBlocks {
		low, high := transpose(sSigns[2*block]), transpose(sSigns[2*block+1])
		at := uint64(block * baseBlockEntries * entrySize)
		for i := (passes-1)*stepsPerPass + blocks + block; i >= 0; i -= stepsPerPass {
			g[i][lane] = at + stepOf(low&0xff|high&0xff<<8, baseTeeth)
			low, high = low>>8, high>>8
		}
	}
}

// stepOf returns the offset within a block of the entry for the digit d, and its
// sign.
func stepOf(d uint64, teeth uint) uint64 {
	negative := d>>(teeth-1) - 1 // all ones if the topmost tooth is not set
	return (d^negative)&(1<<(teeth-1)-1)*entrySize | negative&stepNegative
}

// builder makes tables. It keeps what it needs between two.
type builder struct {
	points  [buildChunk]point
	at      [buildChunk]int
	inverse [buildChunk]fe
	chunk   int
}

// buildChunk is how many entries share an inversion. It divides the size of
// every table.
const buildChunk = 256

// build fills table with the comb of p in blocks of so many teeth.
func (b *builder) build(table []entry, p *point, blocks, teeth int) {
	var doubles [baseTeeth]cached // of the teeth's points
	power := *p
	for block := range blocks {
		var sum point // of the lower teeth, negative, and of the topmost
		for t := range teeth {
			var c cached
			c.set(&power)
			switch {
			case t == 0:
				sum = power
				sum.negate()
			case t < teeth-1:
				c.negate()
				sum.add(&c)
			default:
				sum.add(&c)
			}
			power.double(true)
			doubles[t].set(&power)
			for i := range passes - 1 {
				power.double(i == passes-2)
			}
		}
		b.fill(table[block<<(teeth-1):(block+1)<<(teeth-1)], &sum, &doubles)
	}
}

// fill walks through a block's entries in the order of the Gray code: from one
// to the next only one tooth changes its sign. first is the entry 0.
func (b *builder) fill(block []entry, first *point, doubles *[baseTeeth]cached) {
	sum := *first
	b.put(block, 0, &sum)
	for i := 1; i < len(block); i++ {
		t := bits.TrailingZeros(uint(i))
		m := i ^ i>>1
		c := doubles[t]
		if m>>t&1 == 0 {
			c.negate()
		}
		sum.add(&c)
		b.put(block, m, &sum)
	}
	b.flush(block)
}

func (b *builder) put(block []entry, m int, p *point) {
	b.points[b.chunk], b.at[b.chunk] = *p, m
	if b.chunk++; b.chunk == buildChunk {
		b.flush(block)
	}
}

// flush writes the entries of the chunk. Every Z is nonzero, since additions are
// complete.
func (b *builder) flush(block []entry) {
	if b.chunk == 0 {
		return
	}
	product := feOne
	for i := range b.chunk {
		b.inverse[i] = product // of those before
		product.mul(&product, &b.points[i].z)
	}
	product.invert(&product)
	for i := b.chunk - 1; i >= 0; i-- {
		p := &b.points[i]
		var inverse, x, y fe
		inverse.mul(&product, &b.inverse[i])
		product.mul(&product, &p.z)
		x.mul(&p.x, &inverse)
		y.mul(&p.y, &inverse)
		block[b.at[i]].set(&x, &y)
	}
	b.chunk = 0
}

// set makes the entry of the affine point x, y.
func (e *entry) set(x, y *fe) {
	var plus, minus, dxy, minusT fe
	plus.add(y, x)
	minus.sub(y, x)
	dxy.mul(x, y)
	dxy.mul(&dxy, &feD)
	minusT.negate(&dxy)
	*(*[4]uint64)(e[entryPlus:]) = plus.half()
	*(*[4]uint64)(e[entryMinus:]) = minus.half()
	*(*[4]uint64)(e[entryT:]) = dxy.words()
	*(*[4]uint64)(e[entryMinusT:]) = minusT.words()
}
