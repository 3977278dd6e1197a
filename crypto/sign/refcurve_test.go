package sign

import (
	"math/big"
	"slices"
)

// The curve of RFC 8032 section 5.1 in math/big: slow, obvious, and what all
// else in the tests is compared with.

var (
	refP  = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	refL  = new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 252), bigInt("27742317777372353535851937790883648493"))
	refD  = refMul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), refP))
	refB  = refBase()
	refO  = refPoint{big.NewInt(0), big.NewInt(1)}
	ref8T = refTorsion()
)

func bigInt(decimal string) *big.Int {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		panic("not a number: " + decimal)
	}
	return n
}

func refMul(a, b *big.Int) *big.Int {
	c := new(big.Int).Mul(a, b)
	return c.Mod(c, refP)
}

// refPoint is affine.
type refPoint struct{ x, y *big.Int }

func (p refPoint) equal(q refPoint) bool { return p.x.Cmp(q.x) == 0 && p.y.Cmp(q.y) == 0 }

func (p refPoint) neg() refPoint {
	x := new(big.Int).Neg(p.x)
	return refPoint{x.Mod(x, refP), p.y}
}

// add is the complete addition law of section 5.1.4, with one inversion.
func (p refPoint) add(q refPoint) refPoint {
	x1y2, y1x2 := refMul(p.x, q.y), refMul(p.y, q.x)
	y1y2, x1x2 := refMul(p.y, q.y), refMul(p.x, q.x)
	t := refMul(refD, refMul(x1y2, y1x2))
	up, down := new(big.Int).Add(big.NewInt(1), t), new(big.Int).Sub(big.NewInt(1), t)
	inverse := new(big.Int).ModInverse(refMul(up, new(big.Int).Mod(down, refP)), refP)
	return refPoint{
		refMul(new(big.Int).Add(x1y2, y1x2), refMul(down, inverse)),
		refMul(new(big.Int).Add(y1y2, x1x2), refMul(up, inverse)),
	}
}

func (p refPoint) mul(n *big.Int) refPoint {
	r := refPoint{big.NewInt(0), big.NewInt(1)}
	for i := n.BitLen() - 1; i >= 0; i-- {
		r = r.add(r)
		if n.Bit(i) == 1 {
			r = r.add(p)
		}
	}
	return r
}

// encode writes y and the lowest bit of x (section 5.1.2).
func (p refPoint) encode() []byte { return refEncode(p.y, p.x.Bit(0)) }

func refEncode(y *big.Int, sign uint) []byte {
	b := refBytes(y)
	b[31] |= byte(sign << 7)
	return b
}

// refBytes is n < 2^256 in 32 bytes, little-endian.
func refBytes(n *big.Int) []byte {
	b := n.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}

func refNumber(little []byte) *big.Int {
	b := slices.Clone(little)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

// refDecode takes what crypto/ed25519 takes: y may be p or more, and x = 0 may
// have the sign bit, unlike in section 5.1.3.
func refDecode(b []byte) (p refPoint, ok bool) {
	y := refNumber(b)
	sign := y.Bit(255)
	y.SetBit(y, 255, 0).Mod(y, refP)
	yy := refMul(y, y)
	u := new(big.Int).Sub(yy, big.NewInt(1))
	v := new(big.Int).Add(refMul(refD, yy), big.NewInt(1))
	x := new(big.Int).ModSqrt(refMul(u, new(big.Int).ModInverse(v, refP)), refP)
	if x == nil {
		return p, false
	}
	if x.Bit(0) != sign {
		x.Neg(x).Mod(x, refP)
	}
	return refPoint{x, y}, true
}

func refBase() refPoint {
	b, _ := refDecode(refBytes(refMul(big.NewInt(4), new(big.Int).ModInverse(big.NewInt(5), refP))))
	return b
}

// refTorsion returns the eight points of small order: multiples of one of order 8.
func refTorsion() (all [8]refPoint) {
	for y := int64(2); ; y++ {
		p, ok := refDecode(refBytes(big.NewInt(y)))
		if !ok {
			continue
		}
		t := p.mul(refL)
		if t.mul(big.NewInt(4)).equal(refO) {
			continue
		}
		for i := range all {
			all[i] = t.mul(big.NewInt(int64(i)))
		}
		return all
	}
}
