//go:build amd64 && !purego

package sign

import "unsafe"

// evaluateIFMA sets work[0], work[1] and work[2] to X, Y and Z of the sums of
// steps, lane by lane. Limbs are below 2^59.
//
//go:noescape
func evaluateIFMA(work *laneWork, arena unsafe.Pointer, steps *group)

// multiplyIFMA sets out to a b. Limbs may be up to 2^62, and are below 2^52 in
// the result.
//
//go:noescape
func multiplyIFMA(out, a, b *elements)

// squareIFMA and subtractIFMA are for tests; b of subtractIFMA has limbs below
// 2^59, and squareIFMA ignores it.
//
//go:noescape
func squareIFMA(out, a, b *elements)

//go:noescape
func subtractIFMA(out, a, b *elements)
