//go:build amd64 && !purego

package sign

import "golang.org/x/sys/cpu"

func (p Path) supported() bool {
	switch p {
	case PathStdlib, PathPortable:
		return true
	case PathMULX:
		return cpu.X86.HasBMI2 && cpu.X86.HasADX
	}
	return false
}

// evaluate sets v to the sum of lane's steps in g, without T.
func (p Path) evaluate(v *point, arena []entry, g *group, lane int) {
	if p == PathPortable {
		evaluatePortable(v, arena, g, lane)
		return
	}
	evaluateWords(v, arena, g, lane)
}
