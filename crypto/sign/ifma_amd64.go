//go:build amd64 && !purego

package sign

import "unsafe"

// elements are eight field elements, a limb of each in a vector of the CPU, as
// fe otherwise: v[i][lane].
type elements [5][lanes]uint64

// workIFMA is the memory of evaluateIFMA, best aligned to 64 bytes. Its first
// three elements are the result.
type workIFMA [11]elements

// evaluateIFMA sets work[0], work[1] and work[2] to X, Y and Z of the sums of
// steps, lane by lane. Limbs are below 2^59.
//
//go:noescape
func evaluateIFMA(work *workIFMA, arena unsafe.Pointer, steps *group)

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

// stepsLanes does what group.setSteps does, for eight lanes: offsets of tables,
// and scalars with a word of all lanes in each row.
//
//go:noescape
func stepsLanes(out *group, offsets *[lanes]uint64, k, s *[4][lanes]uint64)

// sha512Lanes adds a block of 128 bytes to each lane's SHA-512.
//
//go:noescape
func sha512Lanes(state *[8][lanes]uint64, blocks *[lanes]unsafe.Pointer)
