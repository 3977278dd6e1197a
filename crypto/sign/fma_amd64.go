//go:build amd64 && !purego

package sign

import "unsafe"

// evaluateFMA is evaluateIFMA without IFMA, by fused multiply-add of doubles.
// Limbs are below 2^53.
//
//go:noescape
func evaluateFMA(work *laneWork, arena unsafe.Pointer, steps *group)

// multiplyFMA is multiplyIFMA.
//
//go:noescape
func multiplyFMA(out, a, b *elements)

// doubles are eight field elements as evaluateFMA has them: limbs are whole
// numbers, negative ones too.
type doubles [5][lanes]float64

// The parts of evaluateFMA by themselves, for tests: productFMA takes limbs whose
// products are below 2^103 in size, squareFMA below 2^51, reduceFMA up to 2^53.
// Those of the result are up to 2^50 + 2^11. squareFMA and reduceFMA ignore b.

//go:noescape
func productFMA(out, a, b *doubles)

//go:noescape
func squareFMA(out, a, b *doubles)

//go:noescape
func reduceFMA(out, a, b *doubles)
