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

// decide does stages 2 to 5 for the jobs, and returns the path that it took.
func (v *Verifier) decide() Path {
	path := v.tables.path
	if path < PathAVX2 {
		v.decideEach()
		return path
	}
	if v.n >= laneJobsMin {
		v.decideLanes()
		return path
	}
	v.decideEach()
	return PathMULX
}

// evaluate sets v to the sum of lane's steps in g, without T.
func (p Path) evaluate(v *point, arena []entry, g *group, lane int) {
	if p == PathPortable {
		evaluatePortable(v, arena, g, lane)
		return
	}
	evaluateWords(v, arena, g, lane)
}
