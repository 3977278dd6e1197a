//go:build amd64 && !purego

package sign

import (
	"math"
	"math/big"
	"math/rand/v2"
	"runtime"
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

// byHalves does with eight lanes what f does with four.
func byHalves(f func(out, a, b *doubles4)) func(out, a, b *doubles) {
	return func(out, a, b *doubles) {
		for half := range 2 {
			var x, y, z doubles4
			for i := range x {
				copy(x[i][:], a[i][half*len(x[i]):])
				copy(y[i][:], b[i][half*len(y[i]):])
			}
			f(&z, &x, &y)
			for i := range z {
				copy(out[i][half*len(z[i]):], z[i][:])
			}
		}
	}
}

// Limbs are as large as they may be, and as they are in evaluateFMA: sums of two
// carried ones, entries, and small ones beside large ones.
func TestFieldsOfDoublesAgainstIntegers(t *testing.T) {
	for _, way := range []struct {
		path                    Path
		product, square, reduce func(out, a, b *doubles)
	}{
		{PathAVX2, byHalves(productAVX2), byHalves(func(out, a, _ *doubles4) { productAVX2(out, a, a) }), byHalves(reduceAVX2)},
		{PathFMA, productFMA, squareFMA, reduceFMA},
	} {
		if !way.path.supported() {
			t.Logf("this machine: its CPU lacks %v", way.path)
			continue
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
			way.product(&out, &a, &b)
			checkDoubles(t, "product", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, b) })
			way.product(&out, &b, &a)
			checkDoubles(t, "product", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, b) })
			way.reduce(&out, &a, &b)
			checkDoubles(t, "carried", &out, &a, &b, func(a, b *big.Int) *big.Int { return a })
			a = randomDoubles(r, []float64{carried, 1<<51 - 1, 2}[i%3])
			way.square(&out, &a, &b)
			checkDoubles(t, "square", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, a) })
		}
	}
}

// The kernels by AVX2 round towards zero; what Go computes after them is rounded
// to the nearest, as before.
func TestRoundingOutlivesKernels(t *testing.T) {
	if !PathAVX2.supported() {
		t.Logf("this machine: its CPU lacks %v", PathAVX2)
		return
	}
	one, most := 1.0, 1.5*0x1p-53
	check := func(after string) {
		t.Helper()
		if got := one + most; got != 1+0x1p-52 {
			t.Fatalf("after %s: %x", after, got)
		}
	}
	check("nothing")
	v := laneVerifier(t, PathAVX2)
	PathAVX2.evaluateLanes((*laneWork)(v.lanes.memory[:]), v.tables.arena, &v.groups[0], lanes)
	check("evaluateAVX2")
	var e elements
	multiplyAVX2(&e, &e, &e)
	check("multiplyAVX2")
	var d doubles4
	productAVX2(&d, &d, &d)
	check("productAVX2")
	reduceAVX2(&d, &d, &d)
	check("reduceAVX2")
	runtime.KeepAlive(&one)
	runtime.KeepAlive(&most)
}

func BenchmarkProductOfDoubles(b *testing.B) {
	if !PathFMA.supported() {
		return
	}
	r := rand.New(rand.NewPCG(34, 35))
	v, w := randomDoubles(r, 1<<50), randomDoubles(r, 1<<50)
	for b.Loop() {
		productFMA(&v, &v, &w)
	}
}
