package sign

import "math/bits"

// Scalars are integers below 2^256 as four words, lowest first. The order of B
// is L = 2^252 + c.
type scalar [4]uint64

var (
	orderL = scalar{0x5812631a5cf5d3ed, 0x14def9dea2f79cd6, 0, 1 << 60}
	// 2L, for keeping a difference above zero.
	orderLx2 = scalar{0xb024c634b9eba7da, 0x29bdf3bd45ef39ac, 0, 1 << 61}
)

const (
	c0 = 0x5812631a5cf5d3ed // c = L - 2^252, 125 bits
	c1 = 0x14def9dea2f79cd6

	mask60 = 1<<60 - 1
)

// setCanonical takes s of a signature; false if it is L or more.
func (s *scalar) setCanonical(b *[32]byte) bool {
	*s = wordsOf(b)
	var borrow uint64
	for i := range s {
		_, borrow = bits.Sub64(s[i], orderL[i], borrow)
	}
	return borrow == 1
}

func (s *scalar) add(a, b *scalar) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(a[i], b[i], carry)
	}
}

func (s *scalar) sub(a, b *scalar) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(a[i], b[i], borrow)
	}
}

// timesC sets the first n+2 words of out to a c.
func timesC(out, a []uint64) {
	var low, high uint64 // of the row by c0, by c1
	var previous uint64
	var carry0, carry1 uint64
	for i, w := range a {
		h0, l0 := bits.Mul64(w, c0)
		l0, carry0 = bits.Add64(l0, low, 0)
		low = h0 + carry0
		out[i], carry1 = bits.Add64(l0, previous, 0)
		h1, l1 := bits.Mul64(w, c1)
		l1, carry0 = bits.Add64(l1, high, carry1)
		high = h1 + carry0
		previous = l1
	}
	n := len(a)
	out[n], carry0 = bits.Add64(low, previous, 0)
	out[n+1] = high + carry0
}

// setHash sets s to an odd number below 2^255 that is x, a hash of 64 bytes
// read little-endian, modulo L. Nothing needs the canonical one.
//
// With x = h 2^252 + l, x = l - h c. Three times over, h having 260, 133 and 6
// bits: x = l1 - l2 + l3 - h3 c, between -2^252 - 2^131 and 2^253. 2L makes it
// positive, L more makes it odd.
func (s *scalar) setHash(x *[8]uint64) {
	var h1 [5]uint64
	for i := range 4 {
		h1[i] = x[i+3]>>60 | x[i+4]<<4
	}
	h1[4] = x[7] >> 60
	var y [7]uint64 // 385 bits
	timesC(y[:], h1[:])
	h2 := [3]uint64{y[3]>>60 | y[4]<<4, y[4]>>60 | y[5]<<4, y[5]>>60 | y[6]<<4}
	var z [5]uint64 // 258 bits
	timesC(z[:], h2[:])
	var w [3]uint64
	timesC(w[:], []uint64{z[3]>>60 | z[4]<<4})

	l1 := scalar{x[0], x[1], x[2], x[3] & mask60}
	l2 := scalar{y[0], y[1], y[2], y[3] & mask60}
	l3 := scalar{z[0], z[1], z[2], z[3] & mask60}
	s.add(&l1, &l3)
	s.add(s, &orderLx2)
	s.sub(s, &l2)
	s.sub(s, &scalar{w[0], w[1], w[2]})
	s.makeOdd()
}

// makeOdd adds L to an even s. For points of order L that changes nothing.
func (s *scalar) makeOdd() {
	if s[0]&1 == 0 {
		s.add(s, &orderL)
	}
}

// signs returns n of the signed binary form of s, odd and below 2^255: s is the
// sum of 2^i where bit i of n is set and of -2^i where it is not, for all i below
// 256. So s = 2n - (2^256 - 1).
func (s *scalar) signs() (n scalar) {
	return scalar{s[0]>>1 | s[1]<<63, s[1]>>1 | s[2]<<63, s[2]>>1 | s[3]<<63, s[3]>>1 | 1<<63}
}

// transpose returns w, as eight rows of eight bits, with rows and columns
// swapped: byte p of the result has bit p of every byte.
func transpose(w uint64) uint64 {
	t := (w ^ w>>7) & 0x00aa00aa00aa00aa
	w ^= t ^ t<<7
	t = (w ^ w>>14) & 0x0000cccc0000cccc
	w ^= t ^ t<<14
	t = (w ^ w>>28) & 0x00000000f0f0f0f0
	return w ^ t ^ t<<28
}
