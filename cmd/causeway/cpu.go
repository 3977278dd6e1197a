package main

import (
	"fmt"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"github.com/spf13/cobra"
)

// cpuFeatures are those that a path depends on, now or in the standard
// library's cryptography.
var cpuFeatures = []cpuid.FeatureID{
	cpuid.AESNI, cpuid.CLMUL, cpuid.VAES, cpuid.VPCLMULQDQ, cpuid.SHA, cpuid.BMI2, cpuid.ADX,
	cpuid.AVX, cpuid.AVX2, cpuid.FMA3, cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512IFMA,
}

// path is one piece of work and how this process does it.
type path struct{ work, choice string }

// paths returns the choices made at start.
func paths() []path {
	aes := "AES-128-GCM first, in AES instructions"
	if !cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL) {
		aes = "ChaCha20-Poly1305 first: this CPU has no AES instructions"
	}
	return []path{
		{"verify ed25519", "crypto/ed25519"},
		{"verify p256", "crypto/ecdsa"},
		{"tls", "crypto/tls, " + aes},
	}
}

func pathsText() string {
	var all []string
	for _, p := range paths() {
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
			for _, p := range paths() {
				fmt.Fprintf(w, "path      %-15s %s\n", p.work, p.choice)
			}
			return nil
		},
	}
}
