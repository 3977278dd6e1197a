//go:build amd64 && !purego

package sign

import (
	"crypto/sha512"
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// eachLanePath runs test for the paths with eight signatures at once.
func eachLanePath(t *testing.T, test func(t *testing.T, p Path)) {
	for _, p := range []Path{PathAVX2, PathFMA, PathIFMA} {
		if !p.supported() {
			t.Logf("this machine: its CPU lacks %v", p)
			continue
		}
		t.Run(p.String(), func(t *testing.T) { test(t, p) })
	}
}

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

func laneVerifier(t *testing.T, p Path) *Verifier {
	v := &Verifier{tables: sharedTables(t, p)}
	v.lanes.init()
	return v
}

func TestProductsOfLanesAgainstIntegers(t *testing.T) {
	eachLanePath(t, func(t *testing.T, p Path) {
		r := rand.New(rand.NewPCG(28, 29))
		for i := range rounds(10_000) {
			most := []uint64{1 << 62, 1<<51 + 1<<16, mask51, 1 << 52}[i%4]
			a, b := randomElements(r, most), randomElements(r, most)
			var out elements
			p.multiplyLanes(&out, &a, &b)
			checkLanes(t, "product", &out, &a, &b, func(a, b *big.Int) *big.Int { return a.Mul(a, b) }, 1<<51+1<<16)
		}
	})
}

func TestLanesAreInvertedTogether(t *testing.T) {
	eachLanePath(t, func(t *testing.T, p Path) {
		r := rand.New(rand.NewPCG(20, 21))
		for range rounds(3_000) {
			a := randomElements(r, mask51)
			for lane := range lanes {
				a[0][lane] |= 1 // not zero
			}
			out := p.invertLanes(&a)
			for lane := range lanes {
				v, inverse := a.lane(lane), out.lane(lane)
				v.mul(&v, &inverse)
				if v.words() != feOne.words() {
					t.Fatalf("lane %d of %x: %x", lane, a, out)
				}
			}
		}
	})
}

// evaluateLanes gives the points of evaluatePortable, for all kinds of steps.
func TestSumsOfLanesAgainstPortable(t *testing.T) {
	eachLanePath(t, func(t *testing.T, p Path) {
		v := laneVerifier(t, p)
		r := rand.New(rand.NewPCG(22, 23))
		for range rounds(200) {
			g := &v.groups[0]
			for i := range steps {
				for lane := range lanes {
					g[i][lane] = r.Uint64N(baseTableEntries)*entrySize + r.Uint64N(2)*stepNegative
					if lane == 3 {
						g[i][lane] = g[0][lane] ^ uint64(i%2)*stepNegative // a point and its negative
					}
				}
			}
			p.evaluateLanes((*laneWork)(v.lanes.memory[:]), v.tables.arena, g, lanes)
			for lane := range lanes {
				var want point
				evaluatePortable(&want, v.tables.arena, g, lane)
				got := v.lanes.result(0)
				x, y, z := got[0].lane(lane), got[1].lane(lane), got[2].lane(lane)
				if p := (point{x: x, y: y, z: z}); p.z.isZero() || !p.ref().equal(want.ref()) {
					t.Fatalf("lane %d: another point", lane)
				}
			}
		}
	})
}

// Lanes without a job have a Z that is not zero, whatever was in the memory.
func TestIdleLanesDoNotSpoilTheInversion(t *testing.T) {
	eachLanePath(t, func(t *testing.T, p Path) {
		for jobs := 1; jobs <= lanes; jobs++ {
			v := laneVerifier(t, p)
			p.evaluateLanes((*laneWork)(v.lanes.memory[:]), v.tables.arena, &v.groups[0], jobs)
			for lane := range lanes {
				if z := v.lanes.result(0)[2].lane(lane); z.isZero() {
					t.Fatalf("%d jobs: Z of lane %d is zero", jobs, lane)
				}
			}
		}
	})
}

// Entries of extreme limbs, which are no points, go through the same formulas and
// leave the same X, Y and Z.
func TestSumsOfExtremeEntriesAgainstPortable(t *testing.T) {
	eachLanePath(t, func(t *testing.T, p Path) {
		v := laneVerifier(t, p)
		r := rand.New(rand.NewPCG(30, 31))
		arena := make([]entry, 64)
		for round := range rounds(500) {
			for i := range arena {
				for at := 0; at < len(arena[i]); at += 4 {
					w := randomWords(r)
					w[3] &= 1<<63 - 1
					copy(arena[i][at:], w[:])
				}
			}
			g := &v.groups[0]
			for i := range steps {
				for lane := range lanes {
					g[i][lane] = r.Uint64N(uint64(len(arena)))*entrySize + r.Uint64N(2)*stepNegative
				}
			}
			p.evaluateLanes((*laneWork)(v.lanes.memory[:]), arena, g, lanes)
			for lane := range lanes {
				var want point
				evaluatePortable(&want, arena, g, lane)
				for i, w := range []fe{want.x, want.y, want.z} {
					if got := v.lanes.result(0)[i].lane(lane); got.words() != w.words() {
						t.Fatalf("round %d, lane %d, coordinate %d: %x, want %x", round, lane, i, got.words(), w.words())
					}
				}
			}
		}
	})
}

func TestHashesOfLanesAgainstTheStandardLibrary(t *testing.T) {
	if !PathFMA.supported() {
		t.Logf("this machine: its CPU lacks %v", PathFMA)
		return
	}
	m := &caseMaker{rand: rand.New(rand.NewPCG(24, 25))}
	v := sharedTables(t, PathFMA).NewVerifier()
	check := func(lengths []int) {
		t.Helper()
		var jobs []job
		for _, n := range lengths {
			j := job{message: m.bytes(n), signature: m.bytes(64), table: &table{offset: uint64(baseTableEntries+m.rand.IntN(1000)*tableEntries) * entrySize}, s: scalar{m.rand.Uint64() | 1, 2, 3, m.rand.Uint64() >> 1}}
			copy(j.table.key[:], m.bytes(32))
			jobs = append(jobs, j)
		}
		var got, want group
		v.hashLanes(&got, jobs)
		for lane, j := range jobs {
			h := sha512.New()
			h.Write(j.signature[:32])
			h.Write(j.table.key[:])
			h.Write(j.message)
			var x [8]uint64
			for i := range x {
				x[i] = binary.LittleEndian.Uint64(h.Sum(nil)[8*i:])
			}
			var k scalar
			k.setHash(&x)
			want.setSteps(lane, j.table.offset, &k, &j.s)
		}
		for lane := len(jobs); lane < lanes; lane++ {
			want.setSteps(lane, 0, &scalar{1}, &scalar{1})
		}
		if got != want {
			t.Fatalf("other steps for messages of %v bytes", lengths)
		}
	}
	for n := range 400 {
		check([]int{n, n, n, n, n, n, n, n})
		check([]int{m.rand.IntN(n + 1), 0, m.rand.IntN(700), n})
	}
	longest := laneBlocksMax*sha512.BlockSize - prefixSize - paddingMin
	for n := range 5 {
		check([]int{100, longest - 2 + n, 0, longest + 100*n, longest})
	}
}

func TestWordsOfScalarsAreDigits(t *testing.T) {
	if !PathFMA.supported() {
		t.Logf("this machine: its CPU lacks %v", PathFMA)
		return
	}
	r := rand.New(rand.NewPCG(26, 27))
	for range rounds(3_000) {
		var h hashLanes
		var got, want group
		for lane := range lanes {
			k, s := scalar(randomWords(r)), scalar(randomWords(r))
			k[0], s[0], k[3], s[3] = k[0]|1, s[0]|1, k[3]>>1, s[3]>>1
			offset := r.Uint64N(1<<20) * entrySize
			h.setLane(lane, offset, &k, &s)
			want.setSteps(lane, offset, &k, &s)
		}
		if stepsLanes(&got, &h.offsets, &h.k, &h.s); got != want {
			t.Fatalf("other steps for %x", h)
		}
	}
}

func BenchmarkHashLanes(b *testing.B) {
	if !PathFMA.supported() {
		return
	}
	var h hashLanes
	for lane := range lanes {
		h.blocks[lane] = unsafe.Pointer(&h.buffer[lane])
	}
	for b.Loop() {
		sha512Lanes(&h.state, &h.blocks)
	}
}
