//go:build amd64 && !purego

package sign

import "unsafe"

//go:generate go run -C gen .

// evaluateMULX sets out to X, Y and Z of the sum of steps, which are 64 bytes
// apart, as numbers below 2^256.
//
//go:noescape
func evaluateMULX(out *[12]uint64, arena unsafe.Pointer, steps *step)

// evaluateWords is evaluatePortable by evaluateMULX.
func evaluateWords(v *point, arena []entry, g *group, lane int) {
	var out [12]uint64
	evaluateMULX(&out, arenaStart(arena), &g[0][lane])
	v.x = feFromWords((*[4]uint64)(out[0:]))
	v.y = feFromWords((*[4]uint64)(out[4:]))
	v.z = feFromWords((*[4]uint64)(out[8:]))
}

// The field operations of evaluateMULX by themselves, for tests.

//go:noescape
func multiplyMULX(out, a, b *[4]uint64)

// squareMULX ignores b.
//
//go:noescape
func squareMULX(out, a, b *[4]uint64)

//go:noescape
func addMULX(out, a, b *[4]uint64)

//go:noescape
func subtractMULX(out, a, b *[4]uint64)

func arenaStart(arena []entry) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(arena)) }
