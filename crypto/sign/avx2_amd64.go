//go:build amd64 && !purego

package sign

import "unsafe"

// evaluateAVX2 sets lanes 4 half to 4 half + 3 of work[0], work[1] and work[2] to
// X, Y and Z of the sums of their steps. Limbs are below 2^53.
//
//go:noescape
func evaluateAVX2(work *laneWork, arena unsafe.Pointer, steps *group, half int)

// multiplyAVX2 is multiplyIFMA.
//
//go:noescape
func multiplyAVX2(out, a, b *elements)

// doubles4 are four field elements as evaluateAVX2 has them.
type doubles4 [5][lanes / 2]float64

// productAVX2 and reduceAVX2 are productFMA and reduceFMA with four lanes.

//go:noescape
func productAVX2(out, a, b *doubles4)

//go:noescape
func reduceAVX2(out, a, b *doubles4)

// evaluateHalves is evaluateLanes by evaluateAVX2. Without a job in the second
// half its lanes get Z = 1, for the inversion.
func evaluateHalves(work *laneWork, arena []entry, steps *group, jobs int) {
	evaluateAVX2(work, arenaStart(arena), steps, 0)
	if jobs > lanes/2 {
		evaluateAVX2(work, arenaStart(arena), steps, 1)
		return
	}
	for lane := lanes / 2; lane < lanes; lane++ {
		for e := range resultElements {
			work[e].setLane(lane, &fe{})
		}
		work[resultElements-1][0][lane] = 1
	}
}

func (e *elements) setLane(i int, v *fe) {
	for limb := range e {
		e[limb][i] = v[limb]
	}
}
