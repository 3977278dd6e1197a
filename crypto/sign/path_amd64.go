//go:build amd64 && !purego

package sign

import "golang.org/x/sys/cpu"

func (p Path) supported() bool {
	switch p {
	case PathStdlib, PathPortable:
		return true
	case PathMULX:
		return cpu.X86.HasBMI2 && cpu.X86.HasADX
	case PathAVX2:
		return PathMULX.supported() && cpu.X86.HasAVX2 && cpu.X86.HasFMA
	case PathFMA:
		return PathMULX.supported() && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL
	case PathIFMA:
		return PathFMA.supported() && cpu.X86.HasAVX512IFMA && cpu.X86.HasAVX512VBMI2
	}
	return false
}

// decide does stages 2 to 5 for the jobs.
func (v *Verifier) decide() {
	if v.tables.path >= PathAVX2 && v.n >= laneJobsMin {
		v.decideLanes()
		return
	}
	v.decideEach()
}

// evaluate sets v to the sum of lane's steps in g, without T.
func (p Path) evaluate(v *point, arena []entry, g *group, lane int) {
	if p == PathPortable {
		evaluatePortable(v, arena, g, lane)
		return
	}
	evaluateWords(v, arena, g, lane)
}
