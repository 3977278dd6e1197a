//go:build amd64 && !purego

package sign

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

// randomWords gives any number below 2^256, extreme ones often.
func randomWords(r *rand.Rand) (w [4]uint64) {
	mode := r.IntN(4)
	for i := range w {
		switch w[i] = r.Uint64(); {
		case mode == 0:
			w[i] = ^uint64(0)
		case mode == 1 && r.IntN(2) == 0:
			w[i] = 0
		case mode == 2 && r.IntN(2) == 0:
			w[i] = ^uint64(0)
		}
	}
	if mode == 0 {
		w[0] -= r.Uint64N(80) // around multiples of p and of 2^256
		if r.IntN(2) == 0 {
			w[3] >>= 1
		}
	}
	return w
}

func TestFieldOfMULXAgainstIntegers(t *testing.T) {
	if !PathMULX.supported() {
		t.Logf("this machine: its CPU lacks %v", PathMULX)
		return
	}
	r := rand.New(rand.NewPCG(16, 17))
	for range rounds(100_000) {
		a, b := randomWords(r), randomWords(r)
		x, y := refNumber(wordBytes(a)), refNumber(wordBytes(b))
		check := func(what string, f func(out, a, b *[4]uint64), want *big.Int) {
			var out [4]uint64
			f(&out, &a, &b)
			if got := refNumber(wordBytes(out)); got.Mod(got, refP).Cmp(want.Mod(want, refP)) != 0 {
				t.Fatalf("%s of %x and %x: %x, want %x", what, a, b, got, want)
			}
		}
		check("product", multiplyMULX, new(big.Int).Mul(x, y))
		check("square", squareMULX, new(big.Int).Mul(x, x))
		check("sum", addMULX, new(big.Int).Add(x, y))
		check("difference", subtractMULX, new(big.Int).Sub(x, y))
	}
}

func BenchmarkMultiplyMULX(b *testing.B) {
	v, w := [4]uint64{1, 2, 3, 4}, [4]uint64{5, 6, 7, 8}
	for b.Loop() {
		multiplyMULX(&v, &v, &w)
	}
}
