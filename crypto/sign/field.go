package sign

import (
	"encoding/binary"
	"math/bits"
)

// fe is an element of the field of p = 2^255 - 19: the sum of v[i] 2^(51 i).
//
// Bounds, as multiples of 2^51: mul and square take limbs up to 2^54 and give
// limbs below 2^51 + 2^15 ("reduced"); add gives the sum of its operands'
// bounds; sub takes a reduced or once added subtrahend, below 2^53 - 76, and adds
// 2^53 to the minuend's bound.
type fe [5]uint64

const mask51 = 1<<51 - 1

var (
	feOne    = fe{1}
	feD      = feFromWords(&[4]uint64{0x75eb4dca135978a3, 0x00700a4d4141d8ab, 0x8cc740797779e898, 0x52036cee2b6ffe73}) // -121665/121666
	feSqrtM1 = feFromWords(&[4]uint64{0xc4ee1b274a0ea0b0, 0x2f431806ad2fe478, 0x2b4d00993dfbd7a7, 0x2b8324804fc1df0b})
)

// feFromWords takes 256 bits, lowest word first. The value may be p or more.
func feFromWords(w *[4]uint64) fe {
	return fe{
		w[0] & mask51,
		(w[0]>>51 | w[1]<<13) & mask51,
		(w[1]>>38 | w[2]<<26) & mask51,
		(w[2]>>25 | w[3]<<39) & mask51,
		w[3] >> 12, // 52 bits
	}
}

// feFromBytes takes 32 bytes, little-endian, without the top bit.
func feFromBytes(b *[32]byte) fe {
	w := wordsOf(b)
	w[3] &= 1<<63 - 1
	return feFromWords(&w)
}

// wordsOf reads 32 bytes as four little-endian words.
func wordsOf(b *[32]byte) (w [4]uint64) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return w
}

// carry returns v with each limb's excess moved to the next: reduced for limbs
// below 2^63.
func (v *fe) carry() {
	c0, c1, c2, c3, c4 := v[0]>>51, v[1]>>51, v[2]>>51, v[3]>>51, v[4]>>51
	v[0] = v[0]&mask51 + c4*19
	v[1] = v[1]&mask51 + c0
	v[2] = v[2]&mask51 + c1
	v[3] = v[3]&mask51 + c2
	v[4] = v[4]&mask51 + c3
}

// words returns the canonical value, below p, in four words.
func (v *fe) words() [4]uint64 {
	t := *v
	t.carry()
	t.carry()
	// t < 2^255 + 2^13·19. The quotient by p is that of t + 19 by 2^255.
	q := (t[0] + 19) >> 51
	for i := 1; i < 5; i++ {
		q = (t[i] + q) >> 51
	}
	t[0] += 19 * q
	for i := range 4 {
		t[i+1] += t[i] >> 51
		t[i] &= mask51
	}
	t[4] &= mask51
	return [4]uint64{
		t[0] | t[1]<<51,
		t[1]>>13 | t[2]<<38,
		t[2]>>26 | t[3]<<25,
		t[3]>>39 | t[4]<<12,
	}
}

func (v *fe) add(a, b *fe) {
	for i := range v {
		v[i] = a[i] + b[i]
	}
}

// sub adds 4p, so that no limb goes below zero.
func (v *fe) sub(a, b *fe) {
	v[0] = a[0] + (1<<53 - 76) - b[0]
	v[1] = a[1] + (1<<53 - 4) - b[1]
	v[2] = a[2] + (1<<53 - 4) - b[2]
	v[3] = a[3] + (1<<53 - 4) - b[3]
	v[4] = a[4] + (1<<53 - 4) - b[4]
}

func (v *fe) negate(a *fe) {
	var zero fe
	v.sub(&zero, a)
	v.carry()
}

// half returns the canonical value of v/2.
func (v *fe) half() [4]uint64 {
	w := v.words()
	odd := -(w[0] & 1) // all ones: add p
	var c uint64
	w[0], c = bits.Add64(w[0], odd&0xffffffffffffffed, 0)
	w[1], c = bits.Add64(w[1], odd, c)
	w[2], c = bits.Add64(w[2], odd, c)
	w[3], _ = bits.Add64(w[3], odd&0x7fffffffffffffff, c)
	return [4]uint64{w[0]>>1 | w[1]<<63, w[1]>>1 | w[2]<<63, w[2]>>1 | w[3]<<63, w[3] >> 1}
}

func (v *fe) isZero() bool { return v.words() == [4]uint64{} }

// column is a sum of products below 2^115.
type column struct{ hi, lo uint64 }

func product(a, b uint64) column {
	hi, lo := bits.Mul64(a, b)
	return column{hi, lo}
}

func (c column) plus(a, b uint64) column {
	hi, lo := bits.Mul64(a, b)
	lo, carry := bits.Add64(lo, c.lo, 0)
	hi, _ = bits.Add64(hi, c.hi, carry)
	return column{hi, lo}
}

// excess is what goes to the next limb.
func (c column) excess() uint64 { return c.hi<<13 | c.lo>>51 }

// limb is what stays, below 2^51.
func (c column) limb() uint64 { return c.lo & mask51 }

// mul does two rounds of carries, as square does. Both are written out: nothing
// of them may be a call.
func (v *fe) mul(a, b *fe) {
	a0, a1, a2, a3, a4 := a[0], a[1], a[2], a[3], a[4]
	b0, b1, b2, b3, b4 := b[0], b[1], b[2], b[3], b[4]
	a1x19, a2x19, a3x19, a4x19 := a1*19, a2*19, a3*19, a4*19
	c0 := product(a0, b0).plus(a1x19, b4).plus(a2x19, b3).plus(a3x19, b2).plus(a4x19, b1)
	c1 := product(a0, b1).plus(a1, b0).plus(a2x19, b4).plus(a3x19, b3).plus(a4x19, b2)
	r1 := c1.limb() + c0.excess()
	c2 := product(a0, b2).plus(a1, b1).plus(a2, b0).plus(a3x19, b4).plus(a4x19, b3)
	r2 := c2.limb() + c1.excess()
	c3 := product(a0, b3).plus(a1, b2).plus(a2, b1).plus(a3, b0).plus(a4x19, b4)
	r3 := c3.limb() + c2.excess()
	c4 := product(a0, b4).plus(a1, b3).plus(a2, b2).plus(a3, b1).plus(a4, b0)
	r4 := c4.limb() + c3.excess()
	r0 := c0.limb() + c4.excess()*19
	v[0] = r0&mask51 + r4>>51*19
	v[1] = r1&mask51 + r0>>51
	v[2] = r2&mask51 + r1>>51
	v[3] = r3&mask51 + r2>>51
	v[4] = r4&mask51 + r3>>51
}

func (v *fe) square(a *fe) {
	a0, a1, a2, a3, a4 := a[0], a[1], a[2], a[3], a[4]
	a0x2, a1x2 := a0*2, a1*2
	a1x38, a2x38, a3x38 := a1*38, a2*38, a3*38
	a3x19, a4x19 := a3*19, a4*19
	c0 := product(a0, a0).plus(a1x38, a4).plus(a2x38, a3)
	c1 := product(a0x2, a1).plus(a2x38, a4).plus(a3x19, a3)
	r1 := c1.limb() + c0.excess()
	c2 := product(a0x2, a2).plus(a1, a1).plus(a3x38, a4)
	r2 := c2.limb() + c1.excess()
	c3 := product(a0x2, a3).plus(a1x2, a2).plus(a4x19, a4)
	r3 := c3.limb() + c2.excess()
	c4 := product(a0x2, a4).plus(a1x2, a3).plus(a2, a2)
	r4 := c4.limb() + c3.excess()
	r0 := c0.limb() + c4.excess()*19
	v[0] = r0&mask51 + r4>>51*19
	v[1] = r1&mask51 + r0>>51
	v[2] = r2&mask51 + r1>>51
	v[3] = r3&mask51 + r2>>51
	v[4] = r4&mask51 + r3>>51
}

// squareTimes squares v n times.
func (v *fe) squareTimes(a *fe, n int) {
	*v = *a
	for range n {
		v.square(v)
	}
}

// pow22523 raises a to (p-5)/8 = 2^252 - 3.
func (v *fe) pow22523(a *fe) {
	var ones [8]fe // a^(2^(2^i) - 1): 2^i ones
	ones[0] = *a
	var t fe
	for i := range 7 {
		t.squareTimes(&ones[i], 1<<i)
		ones[i+1].mul(&t, &ones[i])
	}
	// 250 ones = 128 + 64 + 32 + 16 + 8 + 2, then 01.
	t = ones[7]
	for _, i := range []int{6, 5, 4, 3, 1} {
		t.squareTimes(&t, 1<<i)
		t.mul(&t, &ones[i])
	}
	t.squareTimes(&t, 2)
	v.mul(&t, a)
}
