package main

import "fmt"

// The steps of eight signatures from their scalars, a signature in each 64-bit
// lane. What the digits are stands in comb.go. These and SHA-512 need no more of
// AVX-512 than F and BW.

const (
	stepBlocks     = 4
	stepBaseBlocks = 2
	stepPasses     = 8
	blockSize      = 128 * 128 // bytes
	baseBlockSize  = 32768 * 128
)

func steps(p *printer) {
	p.function("func stepsLanes(out *group, offsets *[lanes]uint64, k, s *[4][lanes]uint64)", "stepsLanes", "NOSPLIT", 0, 32)
	p.op("MOVQ", "k+16(FP)", "AX")
	p.op("MOVQ", "s+24(FP)", "BX")
	for i := range 4 {
		p.op("VMOVDQU64", mem("AX", 64*i), z(i))
		p.op("VMOVDQU64", mem("BX", 64*i), z(4+i))
	}
	p.op("MOVQ", "offsets+8(FP)", "AX")
	p.op("VMOVDQU64", "(AX)", z(8)) // of the block
	p.op("MOVQ", "out+0(FP)", "DI")
	constants := map[int]string{
		16: "$0x00aa00aa00aa00aa", 17: "$0x0000cccc0000cccc", 18: "$0x00000000f0f0f0f0", 19: "$0x8000000000000000",
		20: "$0xff", 21: "$0x7f", 22: "$0x80", 23: "$0xffff", 24: "$0x7fff", 25: "$0x8000", 26: "$32",
		27: fmt.Sprintf("$%d", blockSize), 28: "$0xff00",
	}
	for r := 16; r <= 28; r++ {
		p.op("MOVQ", constants[r], "AX")
		p.op("VPBROADCASTQ", "AX", z(r))
	}
	p.comment("the signs: halves, and the topmost bit")
	for _, first := range []int{0, 4} {
		for i := range 3 {
			p.op("VPSRLQ", "$1", z(first+i), z(first+i))
			p.op("VPSLLQ", "$63", z(first+i+1), z(9))
			p.op("VPORQ", z(9), z(first+i), z(first+i))
		}
		p.op("VPSRLQ", "$1", z(first+3), z(first+3))
		p.op("VPORQ", z(19), z(first+3), z(first+3))
	}
	p.comment("rows and columns of bits swapped")
	for i, shift := range []int{7, 14, 28} {
		for w := range 8 {
			p.op("VPSRLQ", fmt.Sprintf("$%d", shift), z(w), z(9))
			p.op("VPTERNLOGQ", "$0x28", z(16+i), z(w), z(9)) // (9 ^ w) & mask
			p.op("VPSLLQ", fmt.Sprintf("$%d", shift), z(9), z(10))
			p.xor3(w, 9, 10)
		}
	}
	p.comment("-A")
	for block := range stepBlocks {
		for pass := range stepPasses {
			p.op("VPSRLQ", fmt.Sprintf("$%d", 8*pass), z(block), z(9))
			p.op("VPANDQ", z(20), z(9), z(9))
			p.digit(pass, block, 20, 21, 22)
		}
		p.vadd(27, 8)
	}
	p.comment("B, at the beginning of the arena")
	p.zero(8)
	p.op("MOVQ", fmt.Sprintf("$%d", baseBlockSize), "AX")
	p.op("VPBROADCASTQ", "AX", z(27))
	for block := range stepBaseBlocks {
		low, high := 4+2*block, 5+2*block
		for pass := range stepPasses {
			p.op("VPSRLQ", fmt.Sprintf("$%d", 8*pass), z(low), z(9))
			p.op("VPANDQ", z(20), z(9), z(9))
			if pass == 0 {
				p.op("VPSLLQ", "$8", z(high), z(10))
			} else {
				p.op("VPSRLQ", fmt.Sprintf("$%d", 8*(pass-1)), z(high), z(10))
			}
			p.op("VPANDQ", z(28), z(10), z(10))
			p.op("VPORQ", z(10), z(9), z(9))
			p.digit(pass, stepBlocks+block, 23, 24, 25)
		}
		p.vadd(27, 8)
	}
	p.op("VZEROUPPER")
	p.op("RET")
}

// digit makes the step of the digit in Z9, for the table at Z8: complemented if
// its topmost bit is not set.
func (p *printer) digit(pass, block, all, lower, top int) {
	p.op("VPTESTNMQ", z(top), z(9), "K1")
	p.op("VPXORQ", z(all), z(9), "K1", z(9))
	p.op("VPANDQ", z(lower), z(9), z(9))
	p.op("VPSLLQ", "$7", z(9), z(9))
	p.vadd(8, 9)
	p.op("VPADDQ", z(26), z(9), "K1", z(9))
	p.op("VMOVDQU64", z(9), mem("DI", ((stepPasses-1-pass)*passSteps+block)*stepStride))
}
