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

// instructions are all that the assembly has, by what the CPU must have for them
// with vectors of 512 bits, or with what else they are used.
var instructions = map[string]string{
	"": `ADCQ ADDQ ANDL CALL CMPQ DECL IMUL3Q JCC JMP JNE JNZ LEAQ MOVL MOVQ PREFETCHT0 RET SBBQ SUBQ XORL XORQ`,

	"BMI2": `MULXQ`,
	"ADX":  `ADCXQ ADOXQ`,

	"AVX": `VMOVDQU VZEROUPPER`,
	"AVX512F": `VADDPD VBROADCASTI32X4 VFMADD132PD VFMADD231PD VINSERTI64X4 VMOVAPD VMOVDQA64 VMOVDQU64 VMULPD VPADDQ VPANDQ
		VPBROADCASTQ VPMULUDQ VPORQ VPRORQ VPSLLQ VPSRLQ VPSUBQ VPTERNLOGQ VPTESTNMQ VPUNPCKHQDQ VPUNPCKLQDQ VPXORQ VSHUFI64X2 VSUBPD`,
	"AVX512BW":    `VPSHUFB`,
	"AVX512DQ":    `VCVTPD2QQ VCVTQQ2PD VPMULLQ`,
	"AVX512IFMA":  `VPMADD52HUQ VPMADD52LUQ`,
	"AVX512VBMI2": `VPSHRDQ`,
}

// filePaths are the paths that run what is in a file.
var filePaths = map[string][]Path{
	"mulx_amd64.s":  {PathMULX, PathFMA, PathIFMA},
	"lanes_amd64.s": {PathFMA, PathIFMA},
	"fma_amd64.s":   {PathFMA},
	"ifma_amd64.s":  {PathIFMA},
}

// features are those of instructions; AVX comes with AVX512F.
var features = map[string]*bool{
	"BMI2": &cpu.X86.HasBMI2, "ADX": &cpu.X86.HasADX, "AVX": &cpu.X86.HasAVX512F, "AVX512F": &cpu.X86.HasAVX512F,
	"AVX512BW": &cpu.X86.HasAVX512BW, "AVX512DQ": &cpu.X86.HasAVX512DQ, "AVX512VL": &cpu.X86.HasAVX512VL,
	"AVX512IFMA": &cpu.X86.HasAVX512IFMA, "AVX512VBMI2": &cpu.X86.HasAVX512VBMI2,
}

var (
	instruction = regexp.MustCompile(`^\t([A-Z][A-Z0-9]*)[.A-Z_]*(?: (.*))?$`)
	shortVector = regexp.MustCompile(`\b[XY][0-9]+\b`)
	shortEVEX   = regexp.MustCompile(`\b[XY](1[6-9]|2[0-9]|3[01])\b|\bK[1-7]\b.*\b[XY]`)
)

// needs returns the features of the instructions in a file.
func needs(t *testing.T, file string) map[string]bool {
	t.Helper()
	of := map[string]string{}
	for feature, names := range instructions {
		for _, name := range strings.Fields(names) {
			of[name] = feature
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
		feature, known := of[m[1]]
		switch {
		case !known:
			t.Errorf("%s: %s is not in the table of instructions", file, m[1])
		case shortEVEX.MatchString(m[2]):
			found["AVX512VL"] = true
		case shortVector.MatchString(m[2]) && feature != "AVX":
			t.Errorf("%s: %s with a shorter vector: the table is for 512 bits", file, m[1])
		}
		if feature != "" {
			found[feature] = true
		}
	}
	return found
}

// A path is not there when one of the features is missing that its instructions
// need, and needs no other: the FMA path runs where there is no IFMA.
func TestPathsAskForWhatTheirInstructionsNeed(t *testing.T) {
	files, _ := filepath.Glob("*_amd64.s")
	if len(files) != len(filePaths) {
		t.Fatalf("assembly in %v", files)
	}
	for _, flag := range features {
		defer func(was bool) { *flag = was }(*flag)
		*flag = true
	}
	asked := map[Path]map[string]bool{PathMULX: {}, PathFMA: {}, PathIFMA: {}}
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
	for _, feature := range []string{"AVX512IFMA", "AVX512VBMI2"} {
		if asked[PathFMA][feature] {
			t.Errorf("%v needs %s", PathFMA, feature)
		}
		if *features[feature] = false; BestPath() != PathFMA {
			t.Errorf("without %s the path is %v", feature, BestPath())
		}
		*features[feature] = true
	}
}
