//go:build amd64 && !purego

package sign

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// lane is the value of v's lane.
func (v *doubles) lane(lane int) *big.Int {
	n := new(big.Int)
	for i := 4; i >= 0; i-- {
		n.Lsh(n, 51).Add(n, big.NewInt(int64(v[i][lane])))
	}
	return n.Mod(n, refP)
}

// randomDoubles gives limbs up to most in size, extreme ones often.
func randomDoubles(r *rand.Rand, most float64) (v doubles) {
	for i := range v {
		for lane := range lanes {
			x := most
			switch r.IntN(6) {
			case 0:
				x = 0
			case 1, 2:
				x = math.Trunc(most * r.Float64())
			case 3:
				x = most - float64(r.IntN(3))
			}
			if r.IntN(2) == 0 {
				x = -x
			}
			v[i][lane] = x
		}
	}
	return v
}

func checkDoubles(t *testing.T, what string, got, a, b *doubles, want func(a, b *big.Int) *big.Int) {
	t.Helper()
	for lane := range lanes {
		if n := want(a.lane(lane), b.lane(lane)); got.lane(lane).Cmp(n.Mod(n, refP)) != 0 {
			t.Fatalf("%s, lane %d of %v and %v: %x, want %x", what, lane, a, b, got.lane(lane), n)
		}
		for i := range got {
			if x := got[i][lane]; x != math.Trunc(x) || math.Abs(x) > 1<<50+1<<11 {
				t.Fatalf("%s: limb %d is %v", what, i, x)
			}
		}
	}
}

// Limbs are as large as they may be, and as they are in evaluateFMA: sums of two
// carried ones, entries, and small ones beside large ones.
func TestFieldOfFMAAgainstIntegers(t *testing.T) {
	if !PathFMA.supported() {
		t.Logf("this CPU lacks %v", PathFMA)
		return
	}
	r := rand.New(rand.NewPCG(32, 33))
	const carried = 1<<50 + 1<<11
	factors := [][2]float64{
		{2 * carried, 2 * carried}, {1<<51 + 1<<16, 1<<51 + 1<<16}, {2 * carried, 1<<51 - 1}, {1 << 53, 1<<50 - 1}, {1<<52 - 1, 1<<51 - 1},
		{carried, carried}, {3, 1 << 51}, {1, 2},
	}
	for i := range rounds(10_000) {
		most := factors[i%len(factors)]
		a, b := randomDoubles(r, most[0]), randomDoubles(r, most[1])
		var out doubles
		productFMA(&out, &a, &b)
		checkDoubles(t, "product", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, b) })
		productFMA(&out, &b, &a)
		checkDoubles(t, "product", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, b) })
		reduceFMA(&out, &a, &b)
		checkDoubles(t, "carried", &out, &a, &b, func(a, b *big.Int) *big.Int { return a })
		a = randomDoubles(r, []float64{carried, 1<<51 - 1, 2}[i%3])
		squareFMA(&out, &a, &b)
		checkDoubles(t, "square", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, a) })
	}
}

func BenchmarkProductFMA(b *testing.B) {
	if !PathFMA.supported() {
		return
	}
	r := rand.New(rand.NewPCG(34, 35))
	v, w := randomDoubles(r, 1<<50), randomDoubles(r, 1<<50)
	for b.Loop() {
		productFMA(&v, &v, &w)
	}
}
