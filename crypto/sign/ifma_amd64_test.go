//go:build amd64 && !purego

package sign

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

func TestFieldOfIFMAAgainstIntegers(t *testing.T) {
	if !PathIFMA.supported() {
		t.Logf("this machine: its CPU lacks %v", PathIFMA)
		return
	}
	r := rand.New(rand.NewPCG(18, 19))
	const carried, raw = 1<<51 + 1<<16, 1<<59 - 1
	for i := range rounds(10_000) {
		most := []uint64{1 << 62, carried, mask51, 1 << 52}[i%4]
		a, b := randomElements(r, most), randomElements(r, most)
		var out elements
		multiplyIFMA(&out, &a, &b)
		checkLanes(t, "product", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, b) }, carried)
		squareIFMA(&out, &a, &b)
		checkLanes(t, "square", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, a) }, carried)
		b = randomElements(r, raw)
		subtractIFMA(&out, &a, &b)
		checkLanes(t, "difference", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Sub(a, b) }, carried)
	}
}
