package main

import (
	"fmt"
	"math/big"
)

// SHA-512 of eight messages at once (FIPS 180-4 section 6.4), a message in each
// 64-bit lane: Z0 to Z7 the working variables a to h, Z8 to Z23 sixteen words of
// the schedule, Z24 to Z31 temporary.

const (
	scheduleFirst = 8
	temporary     = 24
)

func sha512(p *printer) {
	p.line("")
	p.line("// The round constants of FIPS 180-4 section 4.2.3.")
	for i, k := range roundConstants() {
		p.line("DATA roundConstants<>+%d(SB)/8, $%#016x", 8*i, k)
	}
	p.line("GLOBL roundConstants<>(SB), RODATA|NOPTR, $640")
	p.line("")
	p.line("// The bytes of a word in reverse.")
	p.line("DATA reverse<>+0(SB)/8, $0x0001020304050607")
	p.line("DATA reverse<>+8(SB)/8, $0x08090a0b0c0d0e0f")
	p.line("GLOBL reverse<>(SB), RODATA|NOPTR, $16")

	p.function("func sha512Lanes(state *[8][lanes]uint64, blocks *[lanes]unsafe.Pointer)", "sha512Lanes", "NOSPLIT", 0, 16)
	p.op("MOVQ", "blocks+8(FP)", "AX")
	for lane, r := range laneRegisters {
		p.op("MOVQ", mem("AX", 8*lane), r)
	}
	p.op("VBROADCASTI32X4", "reverse<>(SB)", z(31))
	p.loadWords(0, scheduleFirst)
	p.loadWords(64, scheduleFirst+8)
	p.op("MOVQ", "state+0(FP)", "DI")
	for i := range 8 {
		p.op("VMOVDQU64", mem("DI", 64*i), z(i))
	}
	p.op("LEAQ", "roundConstants<>(SB)", "SI")
	p.op("MOVL", "$4", "CX")
	p.line("\tPCALIGN $64")
	p.line("rounds:")
	for i := range 16 {
		p.round(i)
		p.schedule(i)
	}
	p.op("ADDQ", "$128", "SI")
	p.op("DECL", "CX")
	p.op("JNZ", "rounds")
	for i := range 16 {
		p.round(i)
	}
	for i := range 8 {
		p.op("VPADDQ", mem("DI", 64*i), z(i), z(i))
		p.op("VMOVDQU64", z(i), mem("DI", 64*i))
	}
	p.op("VZEROUPPER")
	p.op("RET")
}

// loadWords brings eight words of each lane's block, at offset, into registers
// from first on, a word of all lanes in each.
func (p *printer) loadWords(offset, first int) {
	// Into the working variables and back: rows of lanes, pairs, quads, words.
	row := func(i int) int { return i }
	for lane, r := range laneRegisters {
		p.op("VMOVDQU64", mem(r, offset), z(row(lane)))
		p.op("VPSHUFB", z(31), z(row(lane)), z(row(lane)))
	}
	for i := range 4 {
		p.op("VPUNPCKLQDQ", z(row(2*i+1)), z(row(2*i)), z(first+2*i))
		p.op("VPUNPCKHQDQ", z(row(2*i+1)), z(row(2*i)), z(first+2*i+1))
	}
	// first+2i has words 0 2 4 6 of lanes 2i and 2i+1, the next the odd ones.
	// Quads of lanes: words 0 and 4 (or 1 and 5), then 2 and 6.
	for half := range 2 {
		for odd := range 2 {
			a, b := first+4*half+odd, first+4*half+2+odd
			p.op("VSHUFI64X2", "$0x88", z(b), z(a), z(4*half+odd))   // words 0+odd and 4+odd
			p.op("VSHUFI64X2", "$0xdd", z(b), z(a), z(4*half+2+odd)) // words 2+odd and 6+odd
		}
	}
	for word := range 4 {
		p.op("VSHUFI64X2", "$0x88", z(4+word), z(word), z(first+word))
		p.op("VSHUFI64X2", "$0xdd", z(4+word), z(word), z(first+4+word))
	}
}

// xor3 leaves a, b and c xored in a.
func (p *printer) xor3(a, b, c int) { p.op("VPTERNLOGQ", "$0x96", z(c), z(b), z(a)) }

func (p *printer) rotate(n, from, to int) { p.op("VPRORQ", fmt.Sprintf("$%d", n), z(from), z(to)) }

// round does round i of sixteen, whose constants are at SI.
func (p *printer) round(i int) {
	v := func(n int) int { return (n - i + 16) % 8 } // a to h move by one each round
	a, b, c, d, e, f, g, h := v(0), v(1), v(2), v(3), v(4), v(5), v(6), v(7)
	t := temporary
	p.vadd(scheduleFirst+i, h)
	p.op("VPADDQ.BCST", mem("SI", 8*i), z(h), z(h))
	p.rotate(14, e, t)
	p.rotate(18, e, t+1)
	p.rotate(41, e, t+2)
	p.op("VMOVDQA64", z(e), z(t+3))
	p.op("VPTERNLOGQ", "$0xca", z(g), z(f), z(t+3)) // e ? f : g
	p.vadd(t+3, h)
	p.xor3(t, t+1, t+2)
	p.rotate(28, a, t+4)
	p.rotate(34, a, t+5)
	p.rotate(39, a, t+6)
	p.op("VMOVDQA64", z(a), z(t+7))
	p.op("VPTERNLOGQ", "$0xe8", z(c), z(b), z(t+7)) // majority
	p.xor3(t+4, t+5, t+6)
	p.vadd(t, h)
	p.vadd(h, d)
	p.vadd(t+4, h)
	p.vadd(t+7, h)
}

// schedule replaces word i by the one of sixteen rounds later.
func (p *printer) schedule(i int) {
	w := func(n int) int { return scheduleFirst + (i+n)%16 }
	t := temporary
	p.rotate(1, w(1), t)
	p.rotate(8, w(1), t+1)
	p.op("VPSRLQ", "$7", z(w(1)), z(t+2))
	p.rotate(19, w(14), t+4)
	p.rotate(61, w(14), t+5)
	p.op("VPSRLQ", "$6", z(w(14)), z(t+6))
	p.vadd(w(9), w(0))
	p.xor3(t, t+1, t+2)
	p.xor3(t+4, t+5, t+6)
	p.vadd(t, w(0))
	p.vadd(t+4, w(0))
}

// roundConstants are the first 64 bits of the fractions of the cube roots of the
// first eighty primes.
func roundConstants() (all []uint64) {
	for n := int64(2); len(all) < 80; n++ {
		if !big.NewInt(n).ProbablyPrime(0) {
			continue
		}
		// floor(cbrt(n) 2^64), by halving an interval.
		cube := new(big.Int).Lsh(big.NewInt(n), 192)
		root := new(big.Int)
		for bit := 67; bit >= 0; bit-- {
			root.SetBit(root, bit, 1)
			if new(big.Int).Exp(root, big.NewInt(3), nil).Cmp(cube) > 0 {
				root.SetBit(root, bit, 0)
			}
		}
		all = append(all, root.Uint64()) // the low 64 bits
	}
	return all
}
