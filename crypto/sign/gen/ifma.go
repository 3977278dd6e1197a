package main

import "fmt"

// The AVX-512 IFMA kernels: eight signatures, one in each 64-bit lane. A field
// element is five vectors of limbs, the sum of v[i] 2^(51 i).
//
// VPMADD52 multiplies the low 52 bits of two lanes and adds the low or the high
// 52 bits of the product; the high ones weigh 2^52, twice the next limb.
//
// Bounds:
//
//	carried  below 2^51 + 2^16: the factors of a product; entries are below 2^51
//	raw      what a product leaves. A low half is below 2^52, a high one below
//	         2^50 + 2^17. Column k has k+1 low halves and twice k high ones, and
//	         19 times the 4-k low halves and twice 5-k high ones of column k+5:
//	         124.5, 97.5, 70.5, 43.5 and 16.5 times 2^52, all below 2^59
//	bias     512 p, every limb above 255·2^52 and below 2^60: added before a raw
//	         subtrahend, or the sum of two (249·2^52), is taken away
//	sums     the largest is F of a doubling, 2·raw + raw + bias < 2^62
//
// carry moves what is above 51 bits up, below 2^11, and from the top 19-fold to the
// bottom, below 2^16.

const (
	biasRest  = 28 // limbs 1 to 4 of 512 p
	biasFirst = 29
	nineteen  = 30
	mask51    = 31
)

// highs and lows hold the sums of high halves and of low halves of the upper
// columns.
var (
	highs = []int{15, 16, 17, 18, 19}
	lows  = []int{20, 21, 22, 23}
)

// low and high add halves of the product of a and b to sum.
func (p *printer) low(a, b, sum int)  { p.op("VPMADD52LUQ", z(a), z(b), z(sum)) }
func (p *printer) high(a, b, sum int) { p.op("VPMADD52HUQ", z(a), z(b), z(sum)) }

// halves is one sum of halves of products: those of limbs i and j.
type halves struct {
	sum  int
	high bool
	of   [][2]int
}

// column returns the halves of all limbs whose indices add up to k.
func column(k, sum int, high bool) (h halves) {
	h.sum, h.high = sum, high
	for i := max(0, k-4); i <= min(k, 4); i++ {
		h.of = append(h.of, [2]int{i, k - i})
	}
	return h
}

// accumulate prints the sums in turn, one product each, so that none waits for
// its own last one.
func (p *printer) accumulate(a, b vectors, sums []halves) {
	for more := true; more; {
		more = false
		for i := range sums {
			s := &sums[i]
			if len(s.of) == 0 {
				continue
			}
			at := s.of[0]
			s.of = s.of[1:]
			more = true
			if s.high {
				p.high(a[at[0]], b[at[1]], s.sum)
			} else {
				p.low(a[at[0]], b[at[1]], s.sum)
			}
		}
	}
}

// product leaves a b, raw, in result.
func (p *printer) product(a, b vectors) {
	var upper, lower []halves
	for k := 4; k <= 8; k++ {
		upper = append(upper, column(k, highs[k-4], true))
		p.zero(highs[k-4])
		if k > 4 {
			upper = append(upper, column(k, lows[k-5], false))
			p.zero(lows[k-5])
		}
	}
	p.accumulate(a, b, upper)
	p.fold()
	for k := 0; k <= 4; k++ {
		lower = append(lower, column(k, result[k], false))
		if k < 4 {
			p.zero(highs[k])
			lower = append(lower, column(k, highs[k], true))
		}
	}
	p.accumulate(a, b, lower)
	for k := range 4 {
		p.vadd(highs[k], highs[k])
		p.vadd(highs[k], result[k+1])
	}
}

// fold sets result to 19 times the upper columns: column k is lows[k-5] and
// twice highs[k-5], whose products have indices that add up to k-1.
func (p *printer) fold() {
	for k := 5; k <= 9; k++ {
		h := highs[k-5]
		p.vadd(h, h)
		if k < 9 {
			p.vadd(lows[k-5], h)
		}
		p.op("VPMULLQ", z(nineteen), z(h), z(result[k-5]))
	}
}

// split parts the products of different limbs, of which only one is kept, from
// the squares of limbs.
func (h halves) split() (cross, diagonal halves) {
	cross, diagonal = halves{sum: h.sum, high: h.high}, halves{sum: h.sum, high: h.high}
	for _, at := range h.of {
		if at[0] < at[1] {
			cross.of = append(cross.of, at)
		} else if at[0] == at[1] {
			diagonal.of = append(diagonal.of, at)
		}
	}
	return cross, diagonal
}

// square leaves a², raw, in result. A product of different limbs counts twice:
// its sum is doubled before the squares of limbs are added. The sums are those
// of product, but low halves of the lower columns have lows until then.
func (p *printer) square(a vectors) {
	var crosses, diagonals []halves
	add := func(h halves) {
		cross, diagonal := h.split()
		p.zero(h.sum)
		crosses, diagonals = append(crosses, cross), append(diagonals, diagonal)
	}
	finish := func() {
		var doubled []int
		for _, h := range crosses {
			if len(h.of) > 0 {
				doubled = append(doubled, h.sum)
			}
		}
		p.accumulate(a, a, crosses)
		for _, r := range doubled {
			p.vadd(r, r)
		}
		p.accumulate(a, a, diagonals)
		crosses, diagonals = nil, nil
	}
	for k := 4; k <= 8; k++ {
		add(column(k, highs[k-4], true))
		if k > 4 {
			add(column(k, lows[k-5], false))
		}
	}
	finish()
	p.fold()
	for k := range 4 {
		add(column(k, highs[k], true))
		add(column(k+1, lows[k], false))
	}
	finish()
	p.low(a[0], a[0], result[0])
	for k := range 4 {
		p.vadd(highs[k], highs[k])
		p.vadd(highs[k], result[k+1])
		p.vadd(lows[k], result[k+1])
	}
}

// carry carries v, raw or a sum, with registers to spare.
func (p *printer) carry(v vectors, spare vectors) {
	for i := range v {
		p.op("VPSRLQ", "$51", z(v[i]), z(spare[i]))
		p.op("VPANDQ", z(mask51), z(v[i]), z(v[i]))
	}
	for i := range 4 {
		p.vadd(spare[i], v[i+1])
	}
	p.low(spare[4], nineteen, v[0])
}

// plusMemory adds the element at offset to v, minusMemory takes it away from v
// and the bias.
func (p *printer) plusMemory(v vectors, offset int) {
	for i, r := range v {
		p.op("VPADDQ", vmem(offset, i), z(r), z(r))
	}
}

func (p *printer) minusMemory(v vectors, offset int) {
	for i, r := range v {
		bias := biasRest
		if i == 0 {
			bias = biasFirst
		}
		p.vadd(bias, r)
		p.op("VPSUBQ", vmem(offset, i), z(r), z(r))
	}
}

// constants loads the registers that nothing changes.
func (p *printer) constants() {
	for _, c := range []struct {
		register int
		value    string
	}{
		{mask51, "$0x0007ffffffffffff"},
		{nineteen, "$19"},
		{biasFirst, "$0x0fffffffffffda00"}, // 512 (2^51 - 19)
		{biasRest, "$0x0ffffffffffffe00"},  // 512 (2^51 - 1)
	} {
		p.op("MOVQ", c.value, "AX")
		p.op("VPBROADCASTQ", "AX", z(c.register))
	}
}

// loadEntry brings an element of the lanes' entries, at offset, into to, by way
// of Z10 to Z17.
func (p *printer) loadEntry(offset int, to vectors) {
	p.loadEntryWords(offset)
	p.op("VPANDQ", z(mask51), z(10), z(to[0]))
	for i, shift := range []int{51, 38, 25} {
		p.op("VPSHRDQ", fmt.Sprintf("$%d", shift), z(11+i), z(10+i), z(to[i+1]))
		p.op("VPANDQ", z(mask51), z(to[i+1]), z(to[i+1]))
	}
	p.op("VPSRLQ", "$12", z(13), z(to[4]))
}

// Each product of addEntries and doubles uses what the last but one has left, so
// that none waits for the one before it.

func (p *printer) addEntries(withT bool) {
	p.comment("a = (Y-X) m")
	p.other()
	p.loadEntry(0, factorB)
	p.getVectors(wY, factorA)
	p.minusMemory(factorA, wX)
	p.carry(factorA, spareA)
	p.product(factorA, factorB)
	p.putVectors(result, wA)
	p.comment("b = (Y+X) p")
	p.other()
	p.loadEntry(0, factorB)
	p.getVectors(wY, factorA)
	p.plusMemory(factorA, wX)
	p.carry(factorA, spareA)
	p.product(factorA, factorB)
	p.putVectors(result, wB)
	p.comment("c = T t")
	p.loadEntry(64, factorB)
	p.getVectors(wT, factorA)
	p.carry(factorA, spareA)
	p.product(factorA, factorB)
	p.putVectors(result, wC)
	p.comment("e = b-a, h = b+a")
	p.getVectors(wB, factorA)
	p.copyVectors(factorA, factorB)
	p.minusMemory(factorA, wA)
	p.plusMemory(factorB, wA)
	p.finish(wZ, wC, withT)
}

// finish carries A, which is e, and B, which is h; f = d-c and g = d+c; X = EF,
// Y = GH, Z = FG and, if asked for, T = EH.
func (p *printer) finish(d, c int, withT bool) {
	p.carry(factorA, spareA)
	p.carry(factorB, spareB)
	p.putVectors(factorB, wH)
	if withT {
		p.comment("T = EH")
		p.product(factorA, factorB)
		p.putVectors(result, wT)
	}
	p.comment("f = d-c, X = EF")
	p.getVectors(d, factorB)
	p.minusMemory(factorB, c)
	p.carry(factorB, spareB)
	p.putVectors(factorB, wF)
	p.product(factorA, factorB)
	p.putVectors(result, wX)
	p.comment("g = d+c, Y = GH")
	p.getVectors(d, factorA)
	p.plusMemory(factorA, c)
	p.carry(factorA, spareA)
	p.getVectors(wH, factorB)
	p.product(factorA, factorB)
	p.putVectors(result, wY)
	p.comment("Z = FG")
	p.getVectors(wF, factorB)
	p.product(factorA, factorB)
	p.putVectors(result, wZ)
}

func (p *printer) doubles() {
	p.comment("A = X², B = Y², (X+Y)², C = Z²")
	p.getVectors(wX, factorA)
	p.getVectors(wY, factorB)
	p.copyVectors(factorA, vectors{10, 11, 12, 13, 14})
	for i := range factorA {
		p.vadd(factorB[i], 10+i)
	}
	p.putVectors(vectors{10, 11, 12, 13, 14}, wE)
	p.carry(factorA, spareA)
	p.square(factorA)
	p.putVectors(result, wA)
	p.carry(factorB, spareB)
	p.square(factorB)
	p.putVectors(result, wB)
	p.getVectors(wE, factorA)
	p.carry(factorA, spareA)
	p.square(factorA)
	p.putVectors(result, wE)
	p.getVectors(wZ, factorA)
	p.carry(factorA, spareA)
	p.square(factorA)
	p.putVectors(result, wC)
	p.comment("G = A-B, F = 2C + G, H = A+B, E = H - (X+Y)²")
	p.getVectors(wA, factorB)
	p.copyVectors(factorB, factorA)
	p.plusMemory(factorB, wB)
	p.minusMemory(factorA, wB)
	p.putVectors(factorA, wG)
	for i := range factorA {
		p.op("VPADDQ", z(result[i]), z(result[i]), z(result[i]))
		p.vadd(factorA[i], result[i])
	}
	p.putVectors(result, wF)
	p.copyVectors(factorB, factorA)
	p.minusMemory(factorA, wE)
	p.carry(factorA, spareA)
	p.carry(factorB, spareB)
	p.putVectors(factorB, wH)
	p.comment("T = EH")
	p.product(factorA, factorB)
	p.putVectors(result, wT)
	p.comment("X = EF")
	p.getVectors(wF, factorB)
	p.carry(factorB, spareB)
	p.putVectors(factorB, wF)
	p.product(factorA, factorB)
	p.putVectors(result, wX)
	p.comment("Y = GH")
	p.getVectors(wG, factorA)
	p.carry(factorA, spareA)
	p.getVectors(wH, factorB)
	p.product(factorA, factorB)
	p.putVectors(result, wY)
	p.comment("Z = FG")
	p.getVectors(wF, factorB)
	p.product(factorA, factorB)
	p.putVectors(result, wZ)
}

func ifma(p *printer) {
	for _, f := range []struct {
		name string
		do   func()
	}{
		{"multiply", func() { p.carry(factorB, spareB); p.product(factorA, factorB) }},
		{"square", func() { p.square(factorA) }},
		{"subtract", func() { p.copyVectors(factorA, result); p.minusMemory(result, 0) }},
	} {
		p.function(fmt.Sprintf("func %sIFMA(out, a, b *elements)", f.name), f.name+"IFMA", "NOSPLIT", 0, 24)
		p.constants()
		p.op("MOVQ", "a+8(FP)", "DI")
		p.getVectors(0, factorA)
		p.op("MOVQ", "b+16(FP)", "DI")
		p.getVectors(0, factorB)
		p.carry(factorA, spareA)
		f.do()
		p.op("MOVQ", "out+0(FP)", "DI")
		p.carry(result, spareA)
		p.putVectors(result, 0)
		p.op("VZEROUPPER")
		p.op("RET")
	}
	p.evaluateIFMA()
}

func (p *printer) evaluateIFMA() {
	p.beginEvaluate("IFMA")
	p.constants()

	p.comment("the first entry: X = p-m, Y = p+m, Z = 1, T = XY")
	p.nextSteps(8)
	p.loadEntry(0, factorA)
	p.other()
	p.loadEntry(0, factorB)
	p.putVectors(factorB, wA)
	for i := range factorA {
		p.vadd(factorA[i], factorB[i])
	}
	p.minusMemory(factorA, wA)
	p.putVectors(factorA, wX)
	p.putVectors(factorB, wY)
	p.carry(factorA, spareA)
	p.carry(factorB, spareB)
	p.product(factorA, factorB)
	p.putVectors(result, wT)
	for i := range 5 {
		p.zero(i)
	}
	p.op("MOVL", "$1", "AX")
	p.op("VPBROADCASTQ", "AX", z(0))
	p.putVectors(factorA, wZ)
	p.passes(8, p.doubles, p.addEntries)
	p.op("VZEROUPPER")
	p.op("RET")
}
