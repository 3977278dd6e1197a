package main

import "fmt"

// What the kernels with eight signatures at once have in common, however they
// multiply: their registers, their memory, and the way through the steps.

const (
	vectorSize  = 64
	elementSize = 5 * vectorSize
)

// vectors are registers, Z0 to Z31 by number, that hold an element.
type vectors [5]int

var (
	factorA = vectors{0, 1, 2, 3, 4}
	factorB = vectors{5, 6, 7, 8, 9}
	result  = vectors{10, 11, 12, 13, 14}
)

func z(n int) string { return fmt.Sprintf("Z%d", n) }
func y(n int) string { return fmt.Sprintf("Y%d", n) }

// vmem is limb i of the element at offset from the work area.
func vmem(offset, i int) string { return mem("DI", offset+i*vectorSize) }

func (p *printer) zero(r int) { p.op("VPXORQ", z(r), z(r), z(r)) }

// vadd adds a to sum.
func (p *printer) vadd(a, sum int) { p.op("VPADDQ", z(a), z(sum), z(sum)) }

// getVectors loads the element at offset; put stores it.
func (p *printer) getVectors(offset int, v vectors) {
	for i, r := range v {
		p.op("VMOVDQU64", vmem(offset, i), z(r))
	}
}

func (p *printer) putVectors(v vectors, offset int) {
	for i, r := range v {
		p.op("VMOVDQU64", z(r), vmem(offset, i))
	}
}

// copyVectors sets to to from.
func (p *printer) copyVectors(from, to vectors) {
	for i := range from {
		p.op("VMOVDQA64", z(from[i]), z(to[i]))
	}
}

// laneRegisters hold the steps of the eight lanes, as offsets from SI.
var laneRegisters = []string{"R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"}

// loadEntryWords brings the four words of an element of the lanes' entries, at
// offset, into Z10 to Z13, by way of Z14 to Z17.
func (p *printer) loadEntryWords(offset int) {
	at := func(lane int) string { return fmt.Sprintf("%d(SI)(%s*1)", offset, laneRegisters[lane]) }
	// Lanes 0 2, 1 3, 4 6, 5 7, so that the shuffles below end in order.
	for i, pair := range [][2]int{{0, 2}, {1, 3}, {4, 6}, {5, 7}} {
		p.op("VMOVDQU", at(pair[0]), y(10+i))
		p.op("VINSERTI64X4", "$1", at(pair[1]), z(10+i), z(10+i))
	}
	for i := range 2 {
		p.op("VPUNPCKLQDQ", z(11+2*i), z(10+2*i), z(14+2*i)) // words 0 and 2
		p.op("VPUNPCKHQDQ", z(11+2*i), z(10+2*i), z(15+2*i)) // words 1 and 3
	}
	for i := range 2 {
		p.op("VSHUFI64X2", "$0x88", z(16+i), z(14+i), z(10+i))
		p.op("VSHUFI64X2", "$0xdd", z(16+i), z(14+i), z(12+i))
	}
}

// Elements in the work area; the first three are the result.
const (
	wX = iota * elementSize
	wY
	wZ
	wT
	wA
	wB
	wC
	wE
	wF
	wG
	wH
	wEnd

	prefetchAhead = 3 // steps
)

// other takes each lane from its entry to that of the negative point.
func (p *printer) other() {
	for _, r := range laneRegisters {
		p.op("XORQ", "$32", r)
	}
}

// nextSteps loads the steps of so many lanes at DX, and asks for the entries of
// later ones.
func (p *printer) nextSteps(lanes int) {
	for lane, r := range laneRegisters[:lanes] {
		p.op("MOVQ", mem("DX", 8*lane+prefetchAhead*stepStride), r)
		p.op("PREFETCHT0", fmt.Sprintf("(SI)(%s*1)", r))
		p.op("XORQ", "$64", r)
		p.op("PREFETCHT0", fmt.Sprintf("(SI)(%s*1)", r))
	}
	for lane, r := range laneRegisters[:lanes] {
		p.op("MOVQ", mem("DX", 8*lane), r)
	}
	p.op("ADDQ", fmt.Sprintf("$%d", stepStride), "DX")
}

// spare registers for carries of A and B, where result is not needed.
var (
	spareA = vectors{15, 16, 17, 18, 19}
	spareB = vectors{20, 21, 22, 23, 24}
)

// beginEvaluate begins the function that adds up the steps of eight signatures.
func (p *printer) beginEvaluate(path string) {
	p.function(fmt.Sprintf("func evaluate%s(work *laneWork, arena unsafe.Pointer, steps *group)", path), "evaluate"+path, "0", 16, 24)
	p.op("MOVQ", "work+0(FP)", "DI")
	p.op("MOVQ", "arena+8(FP)", "SI")
	p.op("MOVQ", "steps+16(FP)", "DX")
	p.passEnds()
}

// passEnds puts the end of all steps, which begin at DX, in 0(SP), and the last
// one of the pass in CX.
func (p *printer) passEnds() {
	p.op("LEAQ", mem("DX", stepsCount*stepStride), "AX")
	p.op("MOVQ", "AX", "0(SP)")
	p.op("LEAQ", mem("DX", (passSteps-1)*stepStride), "CX")
}

// passes goes through all steps but the first.
func (p *printer) passes(lanes int, doubles func(), addEntries func(withT bool)) {
	p.op("JMP", "entry")
	p.line("	PCALIGN $64")
	p.line("pass:")
	doubles()
	p.line("	PCALIGN $64")
	p.line("entry:")
	p.nextSteps(lanes)
	addEntries(true)
	p.op("CMPQ", "DX", "CX")
	p.op("JNE", "entry")
	p.comment("the last of the pass, without T")
	p.nextSteps(lanes)
	addEntries(false)
	p.op("ADDQ", fmt.Sprintf("$%d", passSteps*stepStride), "CX")
	p.op("CMPQ", "DX", "0(SP)")
	p.op("JNE", "pass")
}
