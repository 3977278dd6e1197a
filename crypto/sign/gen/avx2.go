package main

import (
	"fmt"
	"math"
)

// The AVX2 kernels, with FMA of doubles as in fma.go, whose bounds hold here too:
// four signatures, one in each 64-bit lane. Instructions of AVX2 do not say how they
// round: MXCSR does, and rounds towards zero from the beginning of a function to its
// end. That matters to no sum but C + ab and the one of reduce, as others are exact.
//
// There are only sixteen registers. One factor of a product is in memory.

const (
	avx2VectorSize  = 32
	avx2ElementSize = 5 * avx2VectorSize

	avx2HighMagic = 10 // C
	avx2High      = 11 // sum of the high parts of a column
	avx2Low       = 12 // and 13: of low parts of a column and of the last
	avx2PartHigh  = 14
	avx2PartLow   = 15

	// mxcsrTowardsZero is MXCSR with all exceptions masked, rounding towards zero.
	mxcsrTowardsZero = 0x7f80
)

var (
	avx2Factor = vectors{0, 1, 2, 3, 4}
	avx2Result = vectors{5, 6, 7, 8, 9}
	avx2Spare  = vectors{11, 12, 13, 14, 15}
)

// avx2Printer has the arithmetic of four lanes in the place of that of eight.
type avx2Printer struct{ *printer }

// Elements in the work area, after the result of eight lanes.
const (
	vX = 3*elementSize + iota*avx2ElementSize
	vY
	vZ
	vT
	vA
	vB
	vC
	vE
	vF
	vG
	vH
	vSum
)

func (p avx2Printer) constant(i int) string {
	return fmt.Sprintf("avx2Constants<>+%d(SB)", avx2VectorSize*i)
}

func avx2Memory(offset, i int) string { return mem("DI", offset+i*avx2VectorSize) }

func (p avx2Printer) vadd(a, sum int) { p.op("VPADDQ", y(a), y(sum), y(sum)) }

// Constants in memory, by index: those of fma.go up to fmaSquareFix, and
const (
	avx2Half      = fmaSquareFix + iota // 2^50
	avx2Integer                         // 1.5·2^52: a limb and it are a double whose bits are the limb and known ones,
	avx2TwoPFirst                       // which these take away, and add limb 0 of 2p
	avx2TwoP                            // or limbs 1 to 4
	avx2End
)

func (p avx2Printer) data() {
	all := append(fmaValues()[:fmaSquareFix:fmaSquareFix], math.Float64bits(1<<50), math.Float64bits(1.5*(1<<52)))
	for _, limb := range []uint64{1<<52 - 38, 1<<52 - 2} {
		all = append(all, limb-math.Float64bits(1.5*(1<<52)))
	}
	p.line("")
	p.line("// What the kernels below load, for each lane.")
	for i, c := range all {
		for lane := range 4 {
			p.line("DATA avx2Constants<>+%d(SB)/8, $%#016x", avx2VectorSize*i+8*lane, c)
		}
	}
	p.line("GLOBL avx2Constants<>(SB), RODATA|NOPTR, $%d", avx2VectorSize*avx2End)
}

// begin and end stand around what is rounded towards zero; the MXCSR to be
// restored is in at(SP).
func (p avx2Printer) begin(at int) {
	p.op("STMXCSR", mem("SP", at))
	p.op("MOVL", fmt.Sprintf("$%#x", mxcsrTowardsZero), mem("SP", at+4))
	p.op("LDMXCSR", mem("SP", at+4))
	p.op("VMOVUPD", p.constant(fmaRegisters+3), y(avx2HighMagic))
}

func (p avx2Printer) end(at int) {
	p.op("LDMXCSR", mem("SP", at))
	p.op("VZEROUPPER")
	p.op("RET")
}

func (p avx2Printer) get(offset int, v vectors) {
	for i, r := range v {
		p.op("VMOVUPD", avx2Memory(offset, i), y(r))
	}
}

func (p avx2Printer) put(v vectors, offset int) {
	for i, r := range v {
		p.op("VMOVUPD", y(r), avx2Memory(offset, i))
	}
}

// plus and minus set to to the sum and the difference of v and the element at offset.
func (p avx2Printer) plus(v vectors, offset int, to vectors) {
	for i := range v {
		p.op("VADDPD", avx2Memory(offset, i), y(v[i]), y(to[i]))
	}
}

func (p avx2Printer) minus(v vectors, offset int, to vectors) {
	for i := range v {
		p.op("VSUBPD", avx2Memory(offset, i), y(v[i]), y(to[i]))
	}
}

// product leaves the product of avx2Factor and the element at offset, carried, in
// avx2Result.
func (p avx2Printer) product(offset int) {
	p.op("LEAQ", mem("DI", offset), "AX")
	p.op("CALL", "productOfFour<>(SB)")
}

func (p avx2Printer) functions() {
	p.local("Y5 to Y9 from Y0 to Y4 and the element at AX.", "productOfFour")
	t := productTerms(vectors{0, 1, 2, 3, 4}, avx2Factor)
	for k := len(t) - 1; k >= 0; k-- {
		low := avx2Low + k%2
		for n, at := range t[k] {
			h, l := avx2PartHigh, avx2PartLow
			if n == 0 {
				h, l = avx2High, low
			}
			a, b := mem("AX", avx2VectorSize*at[0]), y(at[1])
			p.op("VMOVUPD", a, y(h))
			p.op("VFMADD213PD", y(avx2HighMagic), b, y(h))
			p.op("VSUBPD", p.constant(fmaRegisters+2), y(h), y(l))
			p.op("VFMSUB231PD", a, b, y(l))
			if n > 0 {
				p.vadd(h, avx2High)
				p.vadd(l, low)
			}
		}
		p.fold(k, low)
	}
	p.carry()
	p.op("RET")
}

// fold adds column k's low parts and twice its high ones to the result.
func (p avx2Printer) fold(k, low int) {
	p.vadd(avx2High, avx2High)
	if k < 4 {
		p.vadd(avx2High, avx2Result[k+1])
	} else { // column k+1 is 19 times in limb k-4: 3 times and 16 times
		if k < 8 {
			p.vadd(avx2Low+(k+1)%2, avx2High)
		}
		to := avx2Result[k-4]
		p.op("VPADDQ", y(avx2High), y(avx2High), y(to))
		p.op("VPSLLQ", "$4", y(avx2High), y(avx2PartHigh))
		p.vadd(avx2High, to)
		p.vadd(avx2PartHigh, to)
	}
	if k <= 4 {
		p.vadd(low, avx2Result[k])
	}
}

func (p avx2Printer) carry() {
	for k, r := range avx2Result {
		p.op("VPADDQ", p.constant(fmaProductFix+k), y(r), y(r))
		p.op("VPSRLQ", "$51", y(r), y(avx2Spare[k]))
		p.toDouble(r)
	}
	p.op("VPMULUDQ", p.constant(fmaNineteen), y(avx2Spare[4]), y(avx2Spare[4]))
	for k, r := range avx2Result {
		offset := fmaLimbOffset
		if k == 0 {
			offset = fmaLimbOffset0
		}
		p.vadd(avx2Spare[(k+4)%5], r)
		p.op("VSUBPD", p.constant(offset), y(r), y(r))
	}
}

// toDouble makes 2^52 and the lower 51 bits of r, a double.
func (p avx2Printer) toDouble(r int) {
	p.op("VPAND", p.constant(fmaRegisters+1), y(r), y(r))
	p.op("VPOR", p.constant(fmaRegisters), y(r), y(r))
}

// reduce carries v, of limbs up to 2^53, with avx2Spare. What is added before
// rounding towards zero makes it rounding to the nearest.
func (p avx2Printer) reduce(v vectors) {
	for i, c := range avx2Spare {
		p.op("VADDPD", p.constant(avx2Half), y(v[i]), y(c))
		p.op("VADDPD", p.constant(fmaRound), y(c), y(c))
		p.op("VSUBPD", p.constant(fmaRound), y(c), y(c))
		p.op("VSUBPD", y(c), y(v[i]), y(v[i]))
	}
	for i, c := range avx2Spare {
		down := fmaDown
		if i == 4 {
			down = fmaDown19
		}
		p.op("VFMADD231PD", p.constant(down), y(c), y(v[(i+1)%5]))
	}
}

// loadEntry brings an element of the lanes' entries, at offset, into to, by way
// of Y5 to Y9 and Y11 to Y15.
func (p avx2Printer) loadEntry(offset int, to vectors) {
	for lane, r := range laneRegisters[:4] {
		p.op("VMOVDQU", fmt.Sprintf("%d(SI)(%s*1)", offset, r), y(11+lane))
	}
	words := []int{5, 6, 7, 8}
	for i := range 2 {
		p.op("VPUNPCKLQDQ", y(12+2*i), y(11+2*i), y(5+2*i)) // words 0 and 2
		p.op("VPUNPCKHQDQ", y(12+2*i), y(11+2*i), y(6+2*i)) // words 1 and 3
	}
	p.op("VPERM2I128", "$0x31", y(7), y(5), y(11)) // word 2
	p.op("VPERM2I128", "$0x31", y(8), y(6), y(12)) // word 3
	p.op("VPERM2I128", "$0x20", y(7), y(5), y(5))
	p.op("VPERM2I128", "$0x20", y(8), y(6), y(6))
	words[2], words[3] = 11, 12
	left := func(i int) int { return 13 + i%2 }
	for i, word := range words {
		limb := word
		p.op("VPSRLQ", fmt.Sprintf("$%d", 51-13*i), y(word), y(left(i)))
		if i > 0 {
			limb = 15
			p.op("VPSLLQ", fmt.Sprintf("$%d", 13*i), y(word), y(limb))
		}
		p.toDouble(limb)
		if i > 0 {
			p.op("VPOR", y(left(i-1)), y(limb), y(limb))
		}
		p.op("VSUBPD", p.constant(fmaRegisters), y(limb), y(to[i]))
	}
	p.op("VPOR", p.constant(fmaRegisters), y(left(3)), y(15))
	p.op("VSUBPD", p.constant(fmaRegisters), y(15), y(to[4]))
}

func (p avx2Printer) other() {
	for _, r := range laneRegisters[:4] {
		p.op("XORQ", "$32", r)
	}
}

func (p avx2Printer) addEntries(withT bool) {
	p.comment("a = (Y-X) m")
	p.other()
	p.loadEntry(0, avx2Factor)
	p.get(vY, avx2Result)
	p.minus(avx2Result, vX, avx2Result)
	p.put(avx2Result, vSum)
	p.product(vSum)
	p.put(avx2Result, vA)
	p.comment("b = (Y+X) p")
	p.other()
	p.loadEntry(0, avx2Factor)
	p.get(vY, avx2Result)
	p.plus(avx2Result, vX, avx2Result)
	p.put(avx2Result, vSum)
	p.product(vSum)
	p.put(avx2Result, vB)
	p.comment("c = T t")
	p.loadEntry(64, avx2Factor)
	p.product(vT)
	p.put(avx2Result, vC)
	p.comment("e = b-a, h = b+a")
	p.get(vB, avx2Factor)
	p.minus(avx2Factor, vA, avx2Spare)
	p.put(avx2Spare, vE)
	p.plus(avx2Factor, vA, avx2Factor)
	p.put(avx2Factor, vH)
	if withT {
		p.comment("T = EH")
		p.product(vE)
		p.put(avx2Result, vT)
	}
	p.comment("f = d-c, X = EF")
	p.get(vZ, avx2Factor)
	p.minus(avx2Factor, vC, avx2Factor)
	p.put(avx2Factor, vF)
	p.product(vE)
	p.put(avx2Result, vX)
	p.comment("g = d+c, Y = GH")
	p.get(vZ, avx2Factor)
	p.plus(avx2Factor, vC, avx2Factor)
	p.rest()
}

// rest is Y = GH and Z = FG; the factor is G.
func (p avx2Printer) rest() {
	p.product(vH)
	p.put(avx2Result, vY)
	p.comment("Z = FG")
	p.product(vF)
	p.put(avx2Result, vZ)
}

func (p avx2Printer) doubles() {
	p.comment("A = X², B = Y², XY, C = Z²")
	p.get(vX, avx2Factor)
	p.product(vX)
	p.put(avx2Result, vA)
	p.get(vY, avx2Factor)
	p.product(vY)
	p.put(avx2Result, vB)
	p.product(vX)
	p.put(avx2Result, vE)
	p.get(vZ, avx2Factor)
	p.product(vZ)
	p.comment("G = A-B, F = 2C + G, H = A+B, E = -2XY")
	p.get(vA, avx2Factor)
	p.plus(avx2Factor, vB, avx2Spare)
	p.put(avx2Spare, vH)
	p.minus(avx2Factor, vB, avx2Factor)
	p.put(avx2Factor, vG)
	for i, r := range avx2Result {
		p.op("VFMADD132PD", p.constant(fmaTwo), y(avx2Factor[i]), y(r))
	}
	p.reduce(avx2Result)
	p.put(avx2Result, vF)
	p.get(vE, avx2Factor)
	for _, r := range avx2Factor {
		p.op("VMULPD", p.constant(fmaMinusTwo), y(r), y(r))
	}
	p.put(avx2Factor, vE)
	p.comment("T = EH")
	p.product(vH)
	p.put(avx2Result, vT)
	p.comment("X = EF")
	p.product(vF)
	p.put(avx2Result, vX)
	p.comment("Y = GH")
	p.get(vG, avx2Factor)
	p.rest()
}

// toIntegers makes integers of avx2Result, carried, and adds 2p: positive, below 2^53.
func (p avx2Printer) toIntegers() {
	for i, r := range avx2Result {
		twoP := avx2TwoP
		if i == 0 {
			twoP = avx2TwoPFirst
		}
		p.op("VADDPD", p.constant(avx2Integer), y(r), y(r))
		p.op("VPADDQ", p.constant(twoP), y(r), y(r))
	}
}

// carryIntegers carries avx2Result, of integers up to 2^62: below 2^51 + 2^16.
func (p avx2Printer) carryIntegers() {
	for i, r := range avx2Result {
		p.op("VPSRLQ", "$51", y(r), y(avx2Spare[i]))
		p.op("VPAND", p.constant(fmaRegisters+1), y(r), y(r))
	}
	p.op("VPMULUDQ", p.constant(fmaNineteen), y(avx2Spare[4]), y(avx2Spare[4]))
	for i, r := range avx2Result {
		p.vadd(avx2Spare[(i+4)%5], r)
	}
}

// halfOf is limb i of an element of eight lanes in memory, four lanes of it.
func halfOf(register string, offset, half, i int) string {
	return mem(register, offset+i*vectorSize+half*avx2VectorSize)
}

func avx2(printer *printer) {
	p := avx2Printer{printer}
	p.data()
	p.functions()
	p.multiplyElements()
	for _, f := range []struct {
		name string
		do   func()
	}{
		{"product", func() { p.get(0, avx2Factor); p.op("MOVQ", "a+8(FP)", "DI"); p.product(0) }},
		{"reduce", func() { p.op("MOVQ", "a+8(FP)", "DI"); p.get(0, avx2Result); p.reduce(avx2Result) }},
	} {
		p.function(fmt.Sprintf("func %sAVX2(out, a, b *doubles4)", f.name), f.name+"AVX2", "NOSPLIT", 8, 24)
		p.begin(0)
		p.op("MOVQ", "b+16(FP)", "DI")
		f.do()
		p.op("MOVQ", "out+0(FP)", "DI")
		p.put(avx2Result, 0)
		p.end(0)
	}
	p.evaluate()
}

// multiplyElements is the multiplication of eight lanes of integers, four and four.
func (p avx2Printer) multiplyElements() {
	p.function("func multiplyAVX2(out, a, b *elements)", "multiplyAVX2", "NOSPLIT", avx2ElementSize+8, 24)
	p.begin(avx2ElementSize)
	p.op("MOVQ", "out+0(FP)", "DX")
	p.op("MOVQ", "a+8(FP)", "CX")
	p.op("MOVQ", "b+16(FP)", "BX")
	p.op("MOVQ", "SP", "DI")
	for half := range 2 {
		for _, from := range []string{"CX", "BX"} {
			for i, r := range avx2Result {
				p.op("VMOVDQU", halfOf(from, 0, half, i), y(r))
			}
			p.carryIntegers()
			for i, r := range avx2Result {
				p.op("VPOR", p.constant(fmaRegisters), y(r), y(r))
				p.op("VSUBPD", p.constant(fmaRegisters), y(r), y(avx2Factor[i]))
			}
			if from == "CX" {
				p.put(avx2Factor, 0)
			}
		}
		p.product(0)
		p.toIntegers()
		p.carryIntegers()
		for i, r := range avx2Result {
			p.op("VMOVDQU", y(r), halfOf("DX", 0, half, i))
		}
	}
	p.end(avx2ElementSize)
}

func (p avx2Printer) evaluate() {
	p.function("func evaluateAVX2(work *laneWork, arena unsafe.Pointer, steps *group, half int)", "evaluateAVX2", "0", 16, 32)
	p.begin(8)
	p.op("MOVQ", "work+0(FP)", "DI")
	p.op("MOVQ", "arena+8(FP)", "SI")
	p.op("MOVQ", "steps+16(FP)", "DX")
	p.op("MOVQ", "half+24(FP)", "AX")
	p.op("SHLQ", "$5", "AX")
	p.op("ADDQ", "AX", "DX")
	p.passEnds()

	p.comment("the first entry: X = p-m, Y = p+m, Z = 1, T = XY")
	p.nextSteps(4)
	p.loadEntry(0, avx2Factor)
	p.put(avx2Factor, vX)
	p.other()
	p.loadEntry(0, avx2Factor)
	p.get(vX, avx2Result)
	for i := range avx2Factor {
		p.op("VSUBPD", y(avx2Factor[i]), y(avx2Result[i]), y(avx2Spare[i]))
		p.op("VADDPD", y(avx2Factor[i]), y(avx2Result[i]), y(avx2Factor[i]))
	}
	p.put(avx2Spare, vX)
	p.get(vX, avx2Result)
	p.reduce(avx2Result)
	p.put(avx2Result, vX)
	p.reduce(avx2Factor)
	p.put(avx2Factor, vY)
	p.product(vX)
	p.put(avx2Result, vT)
	p.op("VMOVUPD", p.constant(fmaOne), y(0))
	for i := 1; i < 5; i++ {
		p.op("VXORPD", y(i), y(i), y(i))
	}
	p.put(avx2Factor, vZ)
	p.passes(4, p.doubles, p.addEntries)
	p.op("MOVQ", "half+24(FP)", "AX")
	p.op("SHLQ", "$5", "AX")
	p.op("ADDQ", "DI", "AX")
	for n, offset := range []int{vX, vY, vZ} {
		p.get(offset, avx2Result)
		p.toIntegers()
		for i, r := range avx2Result {
			p.op("VMOVDQU", y(r), halfOf("AX", n*elementSize, 0, i))
		}
	}
	p.end(8)
}
