//go:build amd64 && !purego

package sign

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

func randomElements(r *rand.Rand, most uint64) (e elements) {
	for lane := range lanes {
		v := randomLimbs(r, most)
		for i := range v {
			e[i][lane] = v[i]
		}
	}
	return e
}

func checkLanes(t *testing.T, what string, got, a, b *elements, want func(a, b *big.Int) *big.Int, bound uint64) {
	t.Helper()
	for lane := range lanes {
		x, y, out := a.lane(lane), b.lane(lane), got.lane(lane)
		checkFe(t, what, &out, want(x.big(), y.big()), bound)
	}
}

func TestFieldOfIFMAAgainstIntegers(t *testing.T) {
	if !PathIFMA.supported() {
		t.Logf("this CPU lacks %v", PathIFMA)
		return
	}
	r := rand.New(rand.NewPCG(18, 19))
	const carried, raw = 1<<51 + 1<<16, 1<<59 - 1
	for i := range 10_000 {
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

func TestLanesAreInvertedTogether(t *testing.T) {
	if !PathIFMA.supported() {
		t.Logf("this CPU lacks %v", PathIFMA)
		return
	}
	r := rand.New(rand.NewPCG(20, 21))
	for range 3_000 {
		a := randomElements(r, mask51)
		for lane := range lanes {
			a[0][lane] |= 1 // not zero
		}
		out := invertLanes(&a)
		for lane := range lanes {
			v, inverse := a.lane(lane), out.lane(lane)
			v.mul(&v, &inverse)
			if v.words() != feOne.words() {
				t.Fatalf("lane %d of %x: %x", lane, a, out)
			}
		}
	}
}

// evaluateIFMA gives the points of evaluatePortable, for all kinds of steps.
func TestSumsOfIFMAAgainstPortable(t *testing.T) {
	if !PathIFMA.supported() {
		t.Logf("this CPU lacks %v", PathIFMA)
		return
	}
	tables := sharedTables(t, PathPortable)
	var v Verifier
	v.tables = tables
	v.lanes.init()
	r := rand.New(rand.NewPCG(22, 23))
	for range 200 {
		g := &v.groups[0]
		for i := range steps {
			for lane := range lanes {
				g[i][lane] = r.Uint64N(baseTableEntries)*entrySize + r.Uint64N(2)*stepNegative
				if lane == 3 {
					g[i][lane] = g[0][lane] ^ uint64(i%2)*stepNegative // a point and its negative
				}
			}
		}
		evaluateIFMA((*workIFMA)(v.lanes.memory[:]), arenaStart(tables.arena), g)
		for lane := range lanes {
			var want point
			evaluatePortable(&want, tables.arena, g, lane)
			got := v.lanes.result(0)
			x, y, z := got[0].lane(lane), got[1].lane(lane), got[2].lane(lane)
			if p := (point{x: x, y: y, z: z}); p.z.isZero() || !p.ref().equal(want.ref()) {
				t.Fatalf("lane %d: another point", lane)
			}
		}
	}
}
