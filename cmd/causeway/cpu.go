package main

import (
	"fmt"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"github.com/spf13/cobra"

	"causeway/crypto/sign"
)

// cpuFeatures are those that a path depends on, now or in the standard
// library's cryptography.
var cpuFeatures = []cpuid.FeatureID{
	cpuid.AESNI, cpuid.CLMUL, cpuid.VAES, cpuid.VPCLMULQDQ, cpuid.SHA, cpuid.BMI2, cpuid.ADX,
	cpuid.AVX, cpuid.AVX2, cpuid.FMA3, cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512IFMA,
	cpuid.AVX512VBMI2,
}

// path is one piece of work and how this process does it.
type path struct{ work, choice string }

// paths returns the choices made at start.
func paths(verify sign.Path) []path {
	aes := "AES-128-GCM first, in AES instructions"
	if !cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL) {
		aes = "ChaCha20-Poly1305 first: this CPU has no AES instructions"
	}
	return []path{
		{"verify ed25519", verifyChoice(verify)},
		{"verify p256", "crypto/ecdsa"},
		{"tls", "crypto/tls, " + aes},
	}
}

// verifyWays says what each path of crypto/sign is.
var verifyWays = map[sign.Path]string{
	sign.PathStdlib:   "crypto/ed25519",
	sign.PathPortable: "tables of known signers, in Go",
	sign.PathMULX:     "tables of known signers, by MULX and ADX",
	sign.PathAVX2:     "tables of known signers, four at once by AVX2 and FMA",
	sign.PathFMA:      "tables of known signers, eight at once by AVX-512 FMA",
	sign.PathIFMA:     "tables of known signers, eight at once by AVX-512 IFMA",
}

func verifyChoice(p sign.Path) string {
	if p == sign.PathStdlib {
		return verifyWays[p]
	}
	return p.String() + ": " + verifyWays[p] + "; others by crypto/ed25519"
}

// verifyPaths are the names of paths.
func verifyPaths(paths []sign.Path) (names []string) {
	for _, p := range paths {
		names = append(names, p.String())
	}
	return names
}

func pathsText(verify sign.Path) string {
	var all []string
	for _, p := range paths(verify) {
		all = append(all, p.work+": "+p.choice)
	}
	return strings.Join(all, "; ")
}

func cpuCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cpu",
		Short: "Print the CPU's features and the paths chosen by them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			cores, err := allowedCores()
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "cpu       %s\ncores     %v\nfeatures ", cpuid.CPU.BrandName, cores)
			for _, f := range cpuFeatures {
				mark := " "
				if !cpuid.CPU.Supports(f) {
					mark = " -"
				}
				fmt.Fprint(w, mark+f.String())
			}
			fmt.Fprintln(w, "   (-: this CPU lacks it)")
			for _, p := range paths(sign.BestPath()) {
				fmt.Fprintf(w, "path      %-15s %s\n", p.work, p.choice)
			}
			fmt.Fprintf(w, "          --verify-path can choose %s\n", strings.Join(verifyPaths(sign.Paths()), ", "))
			if lacking := sign.LackingPaths(); len(lacking) > 0 {
				fmt.Fprintf(w, "          this CPU or build lacks %s\n", strings.Join(verifyPaths(lacking), ", "))
			}
			return nil
		},
	}
}
