package sign

import (
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"testing"
)

func (s *scalar) big() *big.Int { return refNumber(wordBytes(*s)) }

func TestHashesAreReducedModuloTheOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range rounds(20_000) {
		var h [64]byte
		for j := range h {
			h[j] = byte(r.Uint32())
			if i%4 == 0 {
				h[j] = []byte{0, 0xff}[r.IntN(2)]
			} else if i%4 == 1 && j > i/4%64 {
				h[j] = byte(-(i % 8 / 4))
			}
		}
		var s scalar
		var x [8]uint64
		for j := range x {
			x[j] = binary.LittleEndian.Uint64(h[8*j:])
		}
		s.setHash(&x)
		got, want := s.big(), refNumber(h[:])
		if got.Bit(0) != 1 || got.BitLen() > 255 {
			t.Fatalf("hash %x: %x", h, got)
		}
		if got.Mod(got, refL).Cmp(want.Mod(want, refL)) != 0 {
			t.Fatalf("hash %x: %x, want %x", h, got, want)
		}
	}
}

func TestCanonicalScalarsAreBelowTheOrder(t *testing.T) {
	one := big.NewInt(1)
	for n, want := range map[*big.Int]bool{
		new(big.Int): true, one: true, new(big.Int).Sub(refL, one): true, refL: false, new(big.Int).Add(refL, one): false,
		new(big.Int).Lsh(one, 252): true, new(big.Int).Lsh(one, 253): false, new(big.Int).Sub(new(big.Int).Lsh(one, 256), one): false,
	} {
		var s scalar
		if got := s.setCanonical((*[32]byte)(refBytes(n))); got != want || s.big().Cmp(n) != 0 {
			t.Errorf("%x: %v, want %v", n, got, want)
		}
	}
}

func TestTransposeSwapsRowsAndColumns(t *testing.T) {
	for row := range 8 {
		for column := range 8 {
			if got, want := transpose(1<<(8*row+column)), uint64(1)<<(8*column+row); got != want {
				t.Errorf("row %d column %d: %x, want %x", row, column, got, want)
			}
		}
	}
}

// ref is the affine value of v.
func (v *point) ref() refPoint {
	inverse := new(big.Int).ModInverse(v.z.big(), refP)
	return refPoint{refMul(v.x.big(), inverse), refMul(v.y.big(), inverse)}
}

func fromRef(p refPoint) (v point) {
	x, y := wordsOf((*[32]byte)(refBytes(p.x))), wordsOf((*[32]byte)(refBytes(p.y)))
	v.x, v.y, v.z = feFromWords(&x), feFromWords(&y), feOne
	v.t.mul(&v.x, &v.y)
	return v
}

func TestPointsAgainstTheAffineLaw(t *testing.T) {
	m := &caseMaker{rand: rand.New(rand.NewPCG(9, 10))}
	points := append([]refPoint{refB}, ref8T[:]...)
	for range 6 {
		points = append(points, refB.mul(m.scalar()), refB.mul(m.scalar()).add(ref8T[m.rand.IntN(8)]))
	}
	for _, p := range points {
		for _, q := range points {
			var c cached
			a, b := fromRef(p), fromRef(q)
			c.set(&b)
			if a.add(&c); !a.ref().equal(p.add(q)) {
				t.Fatal("add")
			}
			if a.add(&c); !a.ref().equal(p.add(q).add(q)) {
				t.Fatal("add twice")
			}
			var e entry
			e.set(&b.x, &b.y)
			for _, negative := range []bool{false, true} {
				a, q := fromRef(p), q
				if negative {
					q = q.neg()
				}
				if a.addEntry(&e, negative, true); !a.ref().equal(p.add(q)) {
					t.Fatal("addEntry")
				}
				if a.addEntry(&e, negative, false); !a.ref().equal(p.add(q).add(q)) {
					t.Fatal("addEntry twice")
				}
				if a.setEntry(&e, negative); !a.ref().equal(q) {
					t.Fatal("setEntry")
				}
			}
		}
		a := fromRef(p)
		a.double(true)
		if a.double(true); !a.ref().equal(p.mul(big.NewInt(4))) || a.isIdentity() != p.mul(big.NewInt(4)).equal(refO) {
			t.Fatal("double twice")
		}
	}
}

func TestDecodingAgainstIntegers(t *testing.T) {
	check := func(b []byte) {
		t.Helper()
		want, ok := refDecode(b)
		var got point
		if got.decode((*[32]byte)(b)) != ok || ok && !got.ref().equal(want) {
			t.Fatalf("%x: ok %v", b, ok)
		}
	}
	m := &caseMaker{rand: rand.New(rand.NewPCG(11, 12))}
	for range 300 {
		check(m.bytes(32))
	}
	for y := range int64(40) {
		for sign := range uint(2) {
			check(refEncode(new(big.Int).Add(refP, big.NewInt(y-20)), sign))
			check(refEncode(big.NewInt(y), sign))
		}
	}
}
