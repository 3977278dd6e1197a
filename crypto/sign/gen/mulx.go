package main

import "fmt"

// The MULX/ADX kernels: one signature, a field element in four words of 64 bits.
//
// Bounds: an element is any number below 2^256 that is congruent to the value
// modulo p = 2^255 - 19; 2^256 is congruent to 38. Every operation takes and
// gives such numbers:
//
//	mul  the product of 512 bits is low + 2^256 high < 2^512; low + 38 high is
//	     below 39·2^256; the fifth word, at most 38, times 38 is added; a carry
//	     from that leaves less than 38·38, so the last addition of 38 has none
//	add  a carry leaves less than 2^256 - 1; one more carry leaves less than 38
//	sub  likewise with borrows, which leave 2^256 - 38 and more
//
// Registers: R8 to R15 the product, its low half the result; AX, BX, DX
// temporary; CX zero; SI, DI addresses of an entry.

var (
	mulxRows   = []string{"R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"}
	mulxResult = mulxRows[:4]
)

// element is an element in memory.
type element struct {
	register string
	offset   int
}

func (e element) word(i int) string { return mem(e.register, e.offset+8*i) }

// multiply leaves a b in the result registers. CX is zero.
func (p *printer) multiply(a, b element) {
	r := mulxRows
	p.op("MOVQ", a.word(0), "DX")
	p.op("MULXQ", b.word(0), r[0], r[1])
	p.op("MULXQ", b.word(1), "AX", r[2])
	p.op("ADDQ", "AX", r[1])
	p.op("MULXQ", b.word(2), "AX", r[3])
	p.op("ADCQ", "AX", r[2])
	p.op("MULXQ", b.word(3), "AX", r[4])
	p.op("ADCQ", "AX", r[3])
	p.op("ADCQ", "CX", r[4])
	p.comment("rows end without carries: no top word overflows")
	p.op("XORL", "AX", "AX") // no carry of either kind
	for i := 1; i < 4; i++ {
		p.op("MOVQ", a.word(i), "DX")
		for j := range 3 {
			p.op("MULXQ", b.word(j), "AX", "BX")
			p.op("ADCXQ", "AX", r[i+j])
			p.op("ADOXQ", "BX", r[i+j+1])
		}
		p.op("MULXQ", b.word(3), "AX", r[i+4])
		p.op("ADCXQ", "AX", r[i+3])
		p.op("ADOXQ", "CX", r[i+4])
		p.op("ADCXQ", "CX", r[i+4])
	}
	p.foldWords()
}

// square4 leaves a² in the result registers.
func (p *printer) square4(a element) {
	r := mulxRows
	p.comment("products of different words")
	p.op("MOVQ", a.word(0), "DX")
	p.op("MULXQ", a.word(1), r[1], r[2])
	p.op("MULXQ", a.word(2), "AX", r[3])
	p.op("ADDQ", "AX", r[2])
	p.op("MULXQ", a.word(3), "AX", r[4])
	p.op("ADCQ", "AX", r[3])
	p.op("ADCQ", "CX", r[4])
	p.op("MOVQ", a.word(1), "DX")
	p.op("MULXQ", a.word(2), "AX", "BX")
	p.op("MULXQ", a.word(3), r[0], r[5])
	p.op("ADDQ", "AX", r[3])
	p.op("ADCQ", "BX", r[4])
	p.op("ADCQ", "CX", r[5])
	p.op("ADDQ", r[0], r[4])
	p.op("ADCQ", "CX", r[5])
	p.op("MOVQ", a.word(2), "DX")
	p.op("MULXQ", a.word(3), "AX", r[6])
	p.op("ADDQ", "AX", r[5])
	p.op("ADCQ", "CX", r[6])
	p.comment("twice, and the squares of words")
	p.op("XORL", r[7], r[7])
	p.op("ADDQ", r[1], r[1])
	for i := 2; i < 8; i++ {
		p.op("ADCQ", r[i], r[i])
	}
	for i := range 4 {
		p.op("MOVQ", a.word(i), "DX")
		if i == 0 {
			p.op("MULXQ", "DX", r[0], "BX")
			p.op("ADDQ", "BX", r[1])
			continue
		}
		p.op("MULXQ", "DX", "AX", "BX")
		p.op("ADCQ", "AX", r[2*i])
		p.op("ADCQ", "BX", r[2*i+1])
	}
	p.op("XORL", "AX", "AX") // no carry of either kind
	p.foldWords()
}

// foldWords adds 38 times the high half of the product to the low one.
func (p *printer) foldWords() {
	r := mulxRows
	p.op("MOVL", "$38", "DX")
	for i := range 4 {
		p.op("MULXQ", r[4+i], "AX", "BX")
		p.op("ADCXQ", "AX", r[i])
		if i < 3 {
			p.op("ADOXQ", "BX", r[i+1])
		}
	}
	p.op("ADOXQ", "CX", "BX")
	p.op("ADCXQ", "CX", "BX")
	p.op("IMUL3Q", "$38", "BX", "BX")
	p.op("ADDQ", "BX", r[0])
	for i := 1; i < 4; i++ {
		p.op("ADCQ", "$0", r[i])
	}
	p.rarely("ADDQ", r[0])
}

// rarely does the last step of an operation, which one case in 2^56 needs: a
// branch never taken has no latency. All is public.
func (p *printer) rarely(name, r string) {
	after := p.label("after")
	p.op("JCC", after)
	p.op(name, "$38", r)
	p.line("%s:", after)
}

// load brings e into registers.
func (p *printer) load(e element, registers []string) {
	for i, r := range registers {
		p.op("MOVQ", e.word(i), r)
	}
}

func (p *printer) store(registers []string, e element) {
	for i, r := range registers {
		p.op("MOVQ", r, e.word(i))
	}
}

// plus adds e to registers.
func (p *printer) plus(registers []string, e element) {
	p.linear("ADDQ", "ADCQ", registers, e)
}

// minus subtracts e from registers.
func (p *printer) minus(registers []string, e element) {
	p.linear("SUBQ", "SBBQ", registers, e)
}

func (p *printer) linear(first, then string, r []string, e element) {
	for i := range r {
		name := then
		if i == 0 {
			name = first
		}
		p.op(name, e.word(i), r[i])
	}
	// The carry or borrow of 2^256 is 38, and once more.
	p.op("SBBQ", "AX", "AX")
	p.op("ANDL", "$38", "AX")
	p.op(first, "AX", r[0])
	for i := 1; i < 4; i++ {
		p.op(then, "$0", r[i])
	}
	p.rarely(first, r[0])
}

var (
	mulxLow  = mulxRows[:4]
	mulxHigh = mulxRows[4:]
)

// Elements in the frame.
var (
	mX = element{"SP", 0}
	mY = element{"SP", 32}
	mZ = element{"SP", 64}
	mT = element{"SP", 96}
	mA = element{"SP", 128}
	mE = element{"SP", 160}
	mF = element{"SP", 192}
	mG = element{"SP", 224}
	mH = element{"SP", 256}
	mB = element{"SP", 288}
	mC = element{"SP", 320}
)

const (
	mulxStepAt = 352 // the next step's address
	mulxEndAt  = 360 // where the pass ends
	mulxLastAt = 368 // where the last pass ends
	mulxArena  = 376
	mulxFrame  = 384

	mulxAhead = 12 // steps

	stepStride = 64 // bytes from a lane's step to its next
	stepsCount = 48
	passSteps  = 6
)

// sumAndDifference leaves in the frame low - e in difference and low + e in sum,
// with low in the result registers.
func (p *printer) sumAndDifference(e, sum, difference element) {
	for i, r := range mulxLow {
		p.op("MOVQ", r, mulxHigh[i])
	}
	p.plus(mulxLow, e)
	p.store(mulxLow, sum)
	p.minus(mulxHigh, e)
	p.store(mulxHigh, difference)
}

// Each product of addEntry and double uses what the last but one has left, as far
// as can be, so that it need not wait for the one before it.

// addEntry adds the entry at SI; DI is SI with the sign changed.
func (p *printer) addEntry(withT bool) {
	p.comment("a = (Y-X) m, b = (Y+X) p, c = T t")
	p.load(mY, mulxLow)
	p.sumAndDifference(mX, mH, mA)
	p.multiply(mA, element{"DI", 0})
	p.store(mulxLow, mA)
	p.multiply(mH, element{"SI", 0})
	p.store(mulxLow, mB)
	p.multiply(mT, element{"SI", 64})
	p.store(mulxLow, mC)
	p.comment("e = b-a, h = b+a, T = EH")
	p.load(mB, mulxLow)
	p.sumAndDifference(mA, mH, mE)
	if withT {
		p.multiply(mE, mH)
		p.store(mulxLow, mT)
	}
	p.comment("f = Z-c, g = Z+c, X = EF, Y = GH, Z = FG")
	p.load(mZ, mulxLow)
	p.sumAndDifference(mC, mG, mF)
	p.products()
}

// products does X = EF, Y = GH and Z = FG.
func (p *printer) products() {
	p.multiply(mE, mF)
	p.store(mulxLow, mX)
	p.multiply(mG, mH)
	p.store(mulxLow, mY)
	p.multiply(mF, mG)
	p.store(mulxLow, mZ)
}

// double doubles the point.
func (p *printer) double() {
	p.comment("A = X², B = Y², (X+Y)², Z²")
	p.load(mX, mulxLow)
	p.plus(mulxLow, mY)
	p.store(mulxLow, mE)
	p.square4(mX)
	p.store(mulxLow, mA)
	p.square4(mY)
	p.store(mulxLow, mB)
	p.square4(mE)
	p.store(mulxLow, mE)
	p.square4(mZ)
	p.store(mulxLow, mC)
	p.comment("H = A+B, G = A-B, E = H - (X+Y)², T = EH")
	p.load(mA, mulxLow)
	p.sumAndDifference(mB, mH, mG)
	p.load(mH, mulxLow)
	p.minus(mulxLow, mE)
	p.store(mulxLow, mE)
	p.multiply(mE, mH)
	p.store(mulxLow, mT)
	p.comment("F = 2Z² + G, X = EF, Y = GH, Z = FG")
	p.load(mC, mulxLow)
	p.plus(mulxLow, mC)
	p.plus(mulxLow, mG)
	p.store(mulxLow, mF)
	p.products()
}

// nextEntry sets SI and DI to the entry of the next step, and asks for that of a
// later one.
func (p *printer) nextEntry() {
	p.op("MOVQ", mem("SP", mulxStepAt), "SI")
	p.op("MOVQ", mem("SI", mulxAhead*stepStride), "BX")
	p.op("ADDQ", mem("SP", mulxArena), "BX")
	p.op("PREFETCHT0", "(BX)")
	p.op("XORQ", "$64", "BX")
	p.op("PREFETCHT0", "(BX)")
	p.op("MOVQ", "SI", "DI")
	p.op("ADDQ", fmt.Sprintf("$%d", stepStride), "DI")
	p.op("MOVQ", "DI", mem("SP", mulxStepAt))
	p.op("MOVQ", "(SI)", "SI")
	p.op("ADDQ", mem("SP", mulxArena), "SI")
	p.op("MOVQ", "SI", "DI")
	p.op("XORQ", "$32", "DI")
}

func mulx(p *printer) {
	for _, f := range []struct {
		name string
		do   func(a, b element)
	}{
		{"multiply", p.multiply},
		{"square", func(a, _ element) { p.square4(a) }},
		{"add", func(a, b element) { p.load(a, mulxLow); p.plus(mulxLow, b) }},
		{"subtract", func(a, b element) { p.load(a, mulxLow); p.minus(mulxLow, b) }},
	} {
		p.function(fmt.Sprintf("func %sMULX(out, a, b *[4]uint64)", f.name), f.name+"MULX", "NOSPLIT", 0, 24)
		p.op("MOVQ", "a+8(FP)", "SI")
		p.op("MOVQ", "b+16(FP)", "DI")
		p.op("XORL", "CX", "CX")
		f.do(element{"SI", 0}, element{"DI", 0})
		p.op("MOVQ", "out+0(FP)", "DI")
		p.store(mulxLow, element{"DI", 0})
		p.op("RET")
	}
	p.evaluateMULX()
}

func (p *printer) evaluateMULX() {
	p.function("func evaluateMULX(out *[12]uint64, arena unsafe.Pointer, steps *step)", "evaluateMULX", "0", mulxFrame, 24)
	p.op("MOVQ", "arena+8(FP)", "AX")
	p.op("MOVQ", "steps+16(FP)", "SI")
	p.op("MOVQ", "AX", mem("SP", mulxArena))
	p.op("MOVQ", "SI", mem("SP", mulxStepAt))
	p.op("LEAQ", mem("SI", stepsCount*stepStride), "DI")
	p.op("MOVQ", "DI", mem("SP", mulxLastAt))
	p.op("LEAQ", mem("SI", (passSteps-1)*stepStride), "DI")
	p.op("MOVQ", "DI", mem("SP", mulxEndAt))
	p.comment("fetch the first entries; so many prefetches at once would be dropped")
	p.op("MOVL", fmt.Sprintf("$%d", mulxAhead), "DX")
	p.line("fetch:")
	p.op("MOVQ", "(SI)", "BX")
	p.op("MOVQ", "(AX)(BX*1)", "R8")
	p.op("XORQ", "$64", "BX")
	p.op("MOVQ", "(AX)(BX*1)", "R9")
	p.op("ADDQ", fmt.Sprintf("$%d", stepStride), "SI")
	p.op("DECL", "DX")
	p.op("JNZ", "fetch")

	p.comment("the first entry: X = p-m, Y = p+m, Z = 1, T = XY")
	p.op("XORL", "CX", "CX")
	p.nextEntry()
	p.load(element{"SI", 0}, mulxLow)
	p.sumAndDifference(element{"DI", 0}, mY, mX)
	for i := range 4 {
		p.op("MOVQ", "CX", mZ.word(i))
	}
	p.op("MOVQ", "$1", mZ.word(0))
	p.multiply(mX, mY)
	p.store(mulxLow, mT)
	p.op("JMP", "entry")

	p.line("pass:")
	p.double()
	p.line("entry:")
	p.nextEntry()
	p.addEntry(true)
	p.op("MOVQ", mem("SP", mulxStepAt), "SI")
	p.op("CMPQ", "SI", mem("SP", mulxEndAt))
	p.op("JNE", "entry")
	p.comment("the last of the pass, without T")
	p.nextEntry()
	p.addEntry(false)
	p.op("ADDQ", fmt.Sprintf("$%d", passSteps*stepStride), mem("SP", mulxEndAt))
	p.op("MOVQ", mem("SP", mulxStepAt), "SI")
	p.op("CMPQ", "SI", mem("SP", mulxLastAt))
	p.op("JNE", "pass")
	p.op("MOVQ", "out+0(FP)", "DI")
	for i, e := range []element{mX, mY, mZ} {
		p.load(e, mulxLow)
		p.store(mulxLow, element{"DI", 32 * i})
	}
	p.op("RET")
}
