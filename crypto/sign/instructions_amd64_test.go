//go:build amd64 && !purego

package sign

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

// instructions are all that the assembly has, by what the CPU must have for them.
// Of those with vectors two features are named, for 256 bits and for 512.
var instructions = map[string]string{
	"": `ADCQ ADDQ ANDL CALL CMPQ DECL IMUL3Q JCC JMP JNE JNZ LDMXCSR LEAQ MOVL MOVQ PREFETCHT0 RET SBBQ SHLQ STMXCSR SUBQ XORL XORQ`,

	"BMI2": `MULXQ`,
	"ADX":  `ADCXQ ADOXQ`,

	"AVX":          `VMOVDQU VMOVUPD VXORPD VZEROUPPER`,
	"AVX AVX512F":  `VADDPD VMULPD VSUBPD`,
	"AVX2":         `VPAND VPERM2I128 VPOR`,
	"AVX2 AVX512F": `VPADDQ VPMULUDQ VPSLLQ VPSRLQ VPUNPCKHQDQ VPUNPCKLQDQ`,
	"FMA":          `VFMADD213PD VFMSUB231PD`,
	"FMA AVX512F":  `VFMADD132PD VFMADD231PD`,

	" AVX512F": `VBROADCASTI32X4 VINSERTI64X4 VMOVAPD VMOVDQA64 VMOVDQU64 VPANDQ VPBROADCASTQ VPORQ VPRORQ VPSUBQ VPTERNLOGQ
		VPTESTNMQ VPXORQ VSHUFI64X2`,
	" AVX512BW":    `VPSHUFB`,
	" AVX512DQ":    `VCVTPD2QQ VCVTQQ2PD VPMULLQ`,
	" AVX512IFMA":  `VPMADD52HUQ VPMADD52LUQ`,
	" AVX512VBMI2": `VPSHRDQ`,
}

// filePaths are the paths that run what is in a file.
var filePaths = map[string][]Path{
	"mulx_amd64.s":  {PathMULX, PathAVX2, PathFMA, PathIFMA},
	"avx2_amd64.s":  {PathAVX2},
	"lanes_amd64.s": {PathFMA, PathIFMA},
	"fma_amd64.s":   {PathFMA},
	"ifma_amd64.s":  {PathIFMA},
}

// features are those of instructions; AVX, which all with vectors have, comes with
// each of the others.
var features = map[string]*bool{
	"BMI2": &cpu.X86.HasBMI2, "ADX": &cpu.X86.HasADX, "AVX2": &cpu.X86.HasAVX2, "FMA": &cpu.X86.HasFMA, "AVX512F": &cpu.X86.HasAVX512F,
	"AVX512BW": &cpu.X86.HasAVX512BW, "AVX512DQ": &cpu.X86.HasAVX512DQ, "AVX512VL": &cpu.X86.HasAVX512VL,
	"AVX512IFMA": &cpu.X86.HasAVX512IFMA, "AVX512VBMI2": &cpu.X86.HasAVX512VBMI2,
}

var (
	instruction = regexp.MustCompile(`^\t([A-Z][A-Z0-9]*)[.A-Z_]*(?: (.*))?$`)
	short       = regexp.MustCompile(`\bY([0-9]|1[0-5])\b`)
	// shortEVEX are shorter vectors that only AVX512VL has.
	shortEVEX = regexp.MustCompile(`\bX[0-9]|\bY(1[6-9]|[23][0-9])\b|\bK[0-7]\b.*\bY|\bY.*\bK[0-7]\b`)
	long      = regexp.MustCompile(`\bZ[0-9]`)
)

// needs returns the features of the instructions in a file.
func needs(t *testing.T, file string) map[string]bool {
	t.Helper()
	of := map[string][]string{}
	for needed, names := range instructions {
		for _, name := range strings.Fields(names) {
			of[name] = strings.Split(needed, " ")
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		m := instruction.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil || m[1] == "PCALIGN" {
			continue
		}
		needed, known := of[m[1]]
		vectors := long.MatchString(m[2])
		switch {
		case !known:
			t.Errorf("%s: %s is not in the table of instructions", file, m[1])
		case shortEVEX.MatchString(m[2]):
			t.Errorf("%s: %q needs AVX512VL", file, line)
		case vectors && (short.MatchString(m[2]) || len(needed) < 2), short.MatchString(m[2]) && needed[0] == "":
			t.Errorf("%s: %q is not in the table with vectors of this size", file, line)
		case vectors:
			found[needed[1]] = true
		default:
			found[needed[0]] = true
		}
	}
	delete(found, "")
	delete(found, "AVX")
	return found
}

// A path is not there when one of the features is missing that its instructions
// need, and the next best one is.
func TestPathsAskForWhatTheirInstructionsNeed(t *testing.T) {
	files, _ := filepath.Glob("*_amd64.s")
	if len(files) != len(filePaths) {
		t.Fatalf("assembly in %v", files)
	}
	for _, flag := range features {
		defer func(was bool) { *flag = was }(*flag)
		*flag = true
	}
	asked := map[Path]map[string]bool{PathMULX: {}, PathAVX2: {}, PathFMA: {}, PathIFMA: {}}
	for _, file := range files {
		for feature := range needs(t, file) {
			for _, p := range filePaths[file] {
				asked[p][feature] = true
			}
		}
	}
	for p, all := range asked {
		if !p.supported() {
			t.Errorf("%v is not there with all features", p)
		}
		for feature := range all {
			if *features[feature] = false; p.supported() {
				t.Errorf("%v does without %s, which its instructions need", p, feature)
			}
			*features[feature] = true
		}
	}
	for feature, want := range map[string]Path{
		"AVX512IFMA": PathFMA, "AVX512VBMI2": PathFMA, "AVX512DQ": PathAVX2, "AVX512BW": PathAVX2, "AVX512VL": PathAVX2, "AVX512F": PathAVX2,
		"BMI2": PathPortable,
	} {
		if *features[feature] = false; BestPath() != want {
			t.Errorf("without %s the path is %v, not %v", feature, BestPath(), want)
		}
		*features[feature] = true
	}
}
