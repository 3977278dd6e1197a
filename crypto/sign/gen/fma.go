package main

import (
	"fmt"
	"math"
)

// The AVX-512 kernels for CPUs without IFMA: eight signatures, one in each 64-bit
// lane, by fused multiply-add of doubles. A field element is five vectors of
// signed limbs, whole numbers in doubles, the sum of v[i] 2^(51 i).
//
// A product of limbs is cut in two by its own roundings. C = 1.5·2^104 is so large
// that the last place of ab + C is 2^52; the rest is exact:
//
//	high = ab + C, rounded towards zero      C + 2^52 k
//	low  = ab + (C + 2^52 - high)            2^52 + (ab - 2^52 k), which is below 2^53
//
// Their bits, taken as integers, are k and ab - 2^52 k above known ones, and sums
// of them the sums of those: modulo 2^64 all the known ones of a column go away
// with one addition, after the fold by 19. High ones weigh 2^52, twice the next limb.
//
// Bounds of magnitudes:
//
//	carried  2^50 + 2^11: what a product leaves. The sums of two go into products
//	entry    below 2^51, and not negative
//	product  |ab| < 2^103 for all its limbs, so that ab + C has C's exponent; thus
//	         |k| < 2^51, and low parts are below 2^52
//	column   column k has n low parts of n products, and twice the high ones of column
//	         k-1: at most 1, 3, 5, 7 and 9 times 2^52, and 19 times 9, 7, 5, 3 and 1
//	         of column k+5: at most 172·2^52 < 2^60
//
// A carry adds 2^60 + 2^50 to every column, so that nothing is negative and the
// lower 51 bits are a limb above -2^50. What is above them is below 2^10, and 2^9 of
// that, which the next limb gets (19 times from the top to the bottom), is taken
// away again with the 2^50.
//
// Words of entries are cut into limbs as they are loaded. Entries of doubles would
// save 4 of 100 instructions of an addition, but lone signatures take the words.

const (
	fmaOne52     = 28 // 2^52: its bits, under those of a limb, are a double
	fmaMask51    = 29
	fmaLowMagic  = 30 // C + 2^52
	fmaHighMagic = 31 // C

	fmaLow      = 25 // and 26: sums of low parts of a column and of the last
	fmaTopShift = 60 // log2 of what makes columns positive
)

// fmaHighs and fmaLows hold the parts of products; the first low one goes where
// the sum shall be.
var (
	fmaHighs = []int{15, 16, 17, 18, 19}
	fmaLows  = []int{0, 20, 21, 22, 23}
)

// Constants in memory, by index.
const (
	fmaNineteen   = iota
	fmaLimbOffset // what a carried limb, as a double, is above its value
	fmaLimbOffset0
	fmaTwo
	fmaMinusTwo
	fmaRound      // 1.5·2^103: a sum with it is rounded to a multiple of 2^51
	fmaDown       // 2^-51
	fmaDown19     // 19·2^-51
	fmaTwoP       // limbs 1 to 4 of 2p, an integer
	fmaTwoPFirst  // limb 0
	fmaOne        // a double
	fmaRegisters  // of fmaOne52 and the following
	fmaProductFix = fmaRegisters + 4
	fmaSquareFix  = fmaProductFix + 5
	fmaEnd        = fmaSquareFix + 5
)

// fmaPrinter has the arithmetic of doubles in the place of the one by IFMA.
type fmaPrinter struct{ *printer }

func fmaConstant(i int) string { return fmt.Sprintf("fmaConstants<>+%d(SB)", 8*i) }

// terms are the products of limbs of each column, as pairs of registers or limbs.
type terms [9][][2]int

// productTerms are those of a b.
func productTerms(a, b vectors) (t terms) {
	for i := range a {
		for j := range b {
			t[i+j] = append(t[i+j], [2]int{a[i], b[j]})
		}
	}
	return t
}

// squareTerms are those of a²; twice is 2a.
func squareTerms(a, twice vectors) (t terms) {
	for i := range a {
		t[2*i] = append(t[2*i], [2]int{a[i], a[i]})
		for j := i + 1; j < len(a); j++ {
			t[i+j] = append(t[i+j], [2]int{a[i], twice[j]})
		}
	}
	return t
}

// fixes returns what a carry adds to each column: it takes away the bits of the
// magic numbers, and makes what is left positive and rounded.
func (t *terms) fixes() (fix [5]uint64) {
	low := math.Float64bits(math.Ldexp(1, 52))
	high := math.Float64bits(math.Ldexp(1.5, 104))
	known := func(k int) (sum uint64) {
		if k < len(t) {
			sum = uint64(len(t[k])) * low
		}
		if k > 0 {
			sum += 2 * uint64(len(t[k-1])) * high
		}
		return sum
	}
	for k := range fix {
		fix[k] = 1<<fmaTopShift + 1<<50 - known(k) - 19*known(k+5)
	}
	return fix
}

// fmaValues are the constants.
func fmaValues() []uint64 {
	var all [fmaEnd]uint64
	for i, f := range map[int]float64{
		fmaLimbOffset: 1<<52 + 1<<50 + 1<<(fmaTopShift-51), fmaLimbOffset0: 1<<52 + 1<<50 + 19<<(fmaTopShift-51),
		fmaTwo: 2, fmaMinusTwo: -2, fmaRound: math.Ldexp(1.5, 103), fmaDown: math.Ldexp(1, -51), fmaDown19: math.Ldexp(19, -51), fmaOne: 1,
		fmaRegisters: 1 << 52, fmaRegisters + 2: math.Ldexp(1.5, 104) + 1<<52, fmaRegisters + 3: math.Ldexp(1.5, 104),
	} {
		all[i] = math.Float64bits(f)
	}
	all[fmaNineteen], all[fmaTwoP], all[fmaTwoPFirst], all[fmaRegisters+1] = 19, 1<<52-2, 1<<52-38, 1<<51-1
	product, square := productTerms(factorA, factorB), squareTerms(factorA, factorB)
	for k := range 5 {
		all[fmaProductFix+k], all[fmaSquareFix+k] = product.fixes()[k], square.fixes()[k]
	}
	return all[:]
}

func (p fmaPrinter) data() {
	p.line("")
	p.line("// What the kernels below load.")
	for i, c := range fmaValues() {
		p.line("DATA %s/8, $%#016x", fmaConstant(i), c)
	}
	p.line("GLOBL fmaConstants<>(SB), RODATA|NOPTR, $%d", 8*fmaEnd)
}

// constants loads the registers that nothing changes.
func (p fmaPrinter) constants() {
	for i := range 4 {
		p.op("VPBROADCASTQ", fmaConstant(fmaRegisters+i), z(fmaOne52+i))
	}
}

// parts leaves the sum of the high parts of products in Z15, that of the low ones
// in low, as bits.
func (p fmaPrinter) parts(products [][2]int, low int) {
	lows := append([]int{low}, fmaLows[1:]...)
	for i, at := range products {
		p.op("VMOVAPD", z(fmaHighMagic), z(fmaHighs[i]))
		p.op("VFMADD231PD.RZ_SAE", z(at[0]), z(at[1]), z(fmaHighs[i]))
	}
	for i := range products {
		p.op("VSUBPD", z(fmaHighs[i]), z(fmaLowMagic), z(lows[i]))
	}
	for i, at := range products {
		p.op("VFMADD231PD", z(at[0]), z(at[1]), z(lows[i]))
		if i > 0 {
			p.vadd(fmaHighs[i], fmaHighs[0])
		}
	}
	for i := 1; i < len(products); i++ {
		p.vadd(lows[i], low)
	}
}

// columns leaves the sum of products, carried, in result; fix is the index of
// what the carry adds.
func (p fmaPrinter) columns(t terms, fix int) {
	for k := len(t) - 1; k >= 0; k-- {
		high, low := fmaHighs[0], fmaLow+k%2
		p.parts(t[k], low)
		p.vadd(high, high)
		if k >= 4 { // column k+1 is 19 times in limb k-4
			if k < 8 {
				p.vadd(fmaLow+(k+1)%2, high)
			}
			p.op("VPMULLQ.BCST", fmaConstant(fmaNineteen), z(high), z(result[k-4]))
		} else {
			p.vadd(high, result[k+1])
		}
		if k <= 4 {
			p.vadd(low, result[k])
		}
	}
	for k, r := range result {
		above := fmaHighs[k]
		p.op("VPADDQ.BCST", fmaConstant(fix+k), z(r), z(r))
		p.op("VPSRLQ", "$51", z(r), z(above))
		p.op("VPTERNLOGQ", "$0xea", z(fmaOne52), z(fmaMask51), z(r)) // r & mask | 2^52
	}
	p.op("VPMULUDQ.BCST", fmaConstant(fmaNineteen), z(fmaHighs[4]), z(fmaHighs[4]))
	for k, r := range result {
		offset := fmaLimbOffset
		if k == 0 {
			offset = fmaLimbOffset0
		}
		p.vadd(fmaHighs[(k+4)%5], r)
		p.op("VSUBPD.BCST", fmaConstant(offset), z(r), z(r))
	}
}

// product leaves factorA times factorB in result, square the square of factorA,
// which is carried; it overwrites factorB. They are functions of their own, not
// for Go to call: written out each time the loop would not fit into the caches of
// instructions.
func (p fmaPrinter) product() { p.op("CALL", "productOfDoubles<>(SB)") }
func (p fmaPrinter) square()  { p.op("CALL", "squareOfDoubles<>(SB)") }

func (p fmaPrinter) functions() {
	p.local("factorA times factorB: Z10 to Z14 from Z0 to Z4 and Z5 to Z9.", "productOfDoubles")
	p.columns(productTerms(factorA, factorB), fmaProductFix)
	p.op("RET")
	p.local("The square of factorA, with twice of it in factorB.", "squareOfDoubles")
	for i := 1; i < len(factorA); i++ {
		p.op("VADDPD", z(factorA[i]), z(factorA[i]), z(factorB[i]))
	}
	p.columns(squareTerms(factorA, factorB), fmaSquareFix)
	p.op("RET")
}

// reduce carries v, of limbs up to 2^53, with registers to spare.
func (p fmaPrinter) reduce(v, spare vectors) {
	for i := range v {
		p.op("VADDPD.BCST", fmaConstant(fmaRound), z(v[i]), z(spare[i]))
		p.op("VSUBPD.BCST", fmaConstant(fmaRound), z(spare[i]), z(spare[i]))
		p.op("VSUBPD", z(spare[i]), z(v[i]), z(v[i]))
	}
	for i := range v {
		down := fmaDown
		if i == 4 {
			down = fmaDown19
		}
		p.op("VFMADD231PD.BCST", fmaConstant(down), z(spare[i]), z(v[(i+1)%5]))
	}
}

// plusMemory and minusMemory add the element at offset to v, and take it away.
func (p fmaPrinter) plusMemory(v vectors, offset int) {
	for i, r := range v {
		p.op("VADDPD", vmem(offset, i), z(r), z(r))
	}
}

func (p fmaPrinter) minusMemory(v vectors, offset int) {
	for i, r := range v {
		p.op("VSUBPD", vmem(offset, i), z(r), z(r))
	}
}

// loadEntry brings an element of the lanes' entries, at offset, into to, by way
// of Z10 to Z17.
func (p fmaPrinter) loadEntry(offset int, to vectors) {
	p.loadEntryWords(offset)
	// Limb i has the lowest bits of word i above what word i-1 has left over.
	left := func(i int) int { return 15 + i%2 }
	for i := range 4 {
		limb := 10
		p.op("VPSRLQ", fmt.Sprintf("$%d", 51-13*i), z(10+i), z(left(i)))
		if i > 0 {
			limb = 14
			p.op("VPSLLQ", fmt.Sprintf("$%d", 13*i), z(10+i), z(limb))
		}
		p.op("VPTERNLOGQ", "$0xea", z(fmaOne52), z(fmaMask51), z(limb)) // limb & mask | 2^52
		if i > 0 {
			p.op("VPORQ", z(left(i-1)), z(limb), z(limb))
		}
		p.op("VSUBPD", z(fmaOne52), z(limb), z(to[i]))
	}
	p.op("VPORQ", z(left(3)), z(fmaOne52), z(14))
	p.op("VSUBPD", z(fmaOne52), z(14), z(to[4]))
}

func (p fmaPrinter) addEntries(withT bool) {
	p.comment("a = (Y-X) m")
	p.other()
	p.loadEntry(0, factorB)
	p.getVectors(wY, factorA)
	p.minusMemory(factorA, wX)
	p.product()
	p.putVectors(result, wA)
	p.comment("b = (Y+X) p")
	p.other()
	p.loadEntry(0, factorB)
	p.getVectors(wY, factorA)
	p.plusMemory(factorA, wX)
	p.product()
	p.putVectors(result, wB)
	p.comment("c = T t")
	p.loadEntry(64, factorB)
	p.getVectors(wT, factorA)
	p.product()
	p.putVectors(result, wC)
	p.comment("e = b-a, h = b+a")
	p.getVectors(wB, factorA)
	p.copyVectors(factorA, factorB)
	p.minusMemory(factorA, wA)
	p.plusMemory(factorB, wA)
	p.putVectors(factorB, wH)
	if withT {
		p.comment("T = EH")
		p.product()
		p.putVectors(result, wT)
	}
	p.comment("f = d-c, X = EF")
	p.getVectors(wZ, factorB)
	p.minusMemory(factorB, wC)
	p.putVectors(factorB, wF)
	p.product()
	p.putVectors(result, wX)
	p.comment("g = d+c, Y = GH")
	p.getVectors(wZ, factorA)
	p.plusMemory(factorA, wC)
	p.rest()
}

// rest is Y = GH and Z = FG; A is G.
func (p fmaPrinter) rest() {
	p.getVectors(wH, factorB)
	p.product()
	p.putVectors(result, wY)
	p.comment("Z = FG")
	p.getVectors(wF, factorB)
	p.product()
	p.putVectors(result, wZ)
}

// doubles has 2XY in the place of (X+Y)² - A - B, whose square would need a carry:
// one product more, one square less.
func (p fmaPrinter) doubles() {
	p.comment("A = X², B = Y², XY, C = Z²")
	p.getVectors(wX, factorA)
	p.square()
	p.putVectors(result, wA)
	p.getVectors(wY, factorA)
	p.square()
	p.putVectors(result, wB)
	p.getVectors(wX, factorB)
	p.product()
	p.putVectors(result, wE)
	p.getVectors(wZ, factorA)
	p.square()
	p.comment("G = A-B, F = 2C + G, H = A+B, E = -2XY; of these F, up to four times a carried one, has to be carried")
	p.getVectors(wA, factorB)
	p.copyVectors(factorB, factorA)
	p.plusMemory(factorB, wB)
	p.minusMemory(factorA, wB)
	p.putVectors(factorA, wG)
	p.putVectors(factorB, wH)
	for i, r := range result {
		p.op("VFMADD132PD.BCST", fmaConstant(fmaTwo), z(factorA[i]), z(r))
	}
	p.reduce(result, spareA)
	p.putVectors(result, wF)
	p.getVectors(wE, factorA)
	for _, r := range factorA {
		p.op("VMULPD.BCST", fmaConstant(fmaMinusTwo), z(r), z(r))
	}
	p.comment("T = EH")
	p.product()
	p.putVectors(result, wT)
	p.comment("X = EF")
	p.getVectors(wF, factorB)
	p.product()
	p.putVectors(result, wX)
	p.comment("Y = GH")
	p.getVectors(wG, factorA)
	p.rest()
}

// carryIntegers carries v, of integers up to 2^62: below 2^51 + 2^16.
func (p fmaPrinter) carryIntegers(v, spare vectors) {
	for i := range v {
		p.op("VPSRLQ", "$51", z(v[i]), z(spare[i]))
		p.op("VPANDQ", z(fmaMask51), z(v[i]), z(v[i]))
	}
	p.op("VPMULUDQ.BCST", fmaConstant(fmaNineteen), z(spare[4]), z(spare[4]))
	for i := range v {
		p.vadd(spare[i], v[(i+1)%5])
	}
}

// toIntegers makes integers of v, carried, and adds 2p: positive, below 2^53.
func (p fmaPrinter) toIntegers(v vectors) {
	for i, r := range v {
		twoP := fmaTwoP
		if i == 0 {
			twoP = fmaTwoPFirst
		}
		p.op("VCVTPD2QQ", z(r), z(r))
		p.op("VPADDQ.BCST", fmaConstant(twoP), z(r), z(r))
	}
}

func fma(printer *printer) {
	p := fmaPrinter{printer}
	p.data()
	p.functions()
	for _, f := range []struct {
		name, arguments string
		integers        bool
		do              func()
	}{
		{"multiplyFMA", "out, a, b *elements", true, func() { p.product() }},
		{"productFMA", "out, a, b *doubles", false, func() { p.product() }},
		{"squareFMA", "out, a, b *doubles", false, func() { p.square() }},
		{"reduceFMA", "out, a, b *doubles", false, func() { p.copyVectors(factorA, result); p.reduce(result, spareA) }},
	} {
		p.function(fmt.Sprintf("func %s(%s)", f.name, f.arguments), f.name, "NOSPLIT", 0, 24)
		p.constants()
		for i, v := range []vectors{factorA, factorB} {
			p.op("MOVQ", []string{"a+8(FP)", "b+16(FP)"}[i], "DI")
			p.getVectors(0, v)
			if f.integers {
				p.carryIntegers(v, spareA)
				for _, r := range v {
					p.op("VCVTQQ2PD", z(r), z(r))
				}
			}
		}
		f.do()
		if f.integers {
			p.toIntegers(result)
			p.carryIntegers(result, spareA)
		}
		p.op("MOVQ", "out+0(FP)", "DI")
		p.putVectors(result, 0)
		p.op("VZEROUPPER")
		p.op("RET")
	}
	p.evaluate()
}

func (p fmaPrinter) evaluate() {
	p.beginEvaluate("FMA")
	p.constants()

	p.comment("the first entry: X = p-m, Y = p+m, Z = 1, T = XY")
	p.nextSteps(8)
	p.loadEntry(0, factorA)
	p.other()
	p.loadEntry(0, factorB)
	for i := range factorA {
		p.op("VSUBPD", z(factorB[i]), z(factorA[i]), z(result[i]))
		p.op("VADDPD", z(factorB[i]), z(factorA[i]), z(factorB[i]))
	}
	p.copyVectors(result, factorA)
	p.reduce(factorA, spareA)
	p.reduce(factorB, spareA)
	p.putVectors(factorA, wX)
	p.putVectors(factorB, wY)
	p.product()
	p.putVectors(result, wT)
	for i := range 5 {
		p.zero(i)
	}
	p.op("VPBROADCASTQ", fmaConstant(fmaOne), z(0))
	p.putVectors(factorA, wZ)
	p.passes(8, p.doubles, p.addEntries)
	for _, offset := range []int{wX, wY, wZ} {
		p.getVectors(offset, factorA)
		p.toIntegers(factorA)
		p.putVectors(factorA, offset)
	}
	p.op("VZEROUPPER")
	p.op("RET")
}
