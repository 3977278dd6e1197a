package sign

import (
	"errors"
	"fmt"
)

// Path is a way to check Ed25519 signatures. All give the same verdicts.
type Path uint8

const (
	// PathStdlib is crypto/ed25519, without tables.
	PathStdlib Path = iota + 1
	// PathPortable is Go with tables, for every architecture.
	PathPortable
	// PathMULX is assembly for amd64 with BMI2 and ADX, one signature at a time.
	PathMULX
	// PathAVX2 is assembly for amd64 with AVX2 and FMA, four signatures at once; a
	// lone one goes through PathMULX.
	PathAVX2
	// PathFMA is assembly for amd64 with AVX-512 F, DQ, BW and VL, eight signatures
	// at once; a lone one goes through PathMULX.
	PathFMA
	// PathIFMA is PathFMA with the integer multiplication of AVX-512 IFMA.
	PathIFMA

	pathEnd
)

// ErrPath says that there is no such path, or that the CPU or the build lacks it.
var ErrPath = errors.New("sign: no such path")

var pathNames = [pathEnd]string{PathStdlib: "stdlib", PathPortable: "portable", PathMULX: "mulx", PathAVX2: "avx2", PathFMA: "fma", PathIFMA: "ifma"}

// String returns the name used on the command line and in listings.
func (p Path) String() string {
	if p < PathStdlib || p >= pathEnd {
		return "unknown"
	}
	return pathNames[p]
}

// Paths returns the paths that this CPU and this build have, the fastest last.
func Paths() (have []Path) {
	for p := PathStdlib; p < pathEnd; p++ {
		if p.supported() {
			have = append(have, p)
		}
	}
	return have
}

// LackingPaths returns those it has not.
func LackingPaths() (lacking []Path) {
	for p := PathStdlib; p < pathEnd; p++ {
		if !p.supported() {
			lacking = append(lacking, p)
		}
	}
	return lacking
}

// BestPath returns the last of Paths.
func BestPath() Path {
	have := Paths()
	return have[len(have)-1]
}

// ParsePath returns the path called name, or the best one for "auto". The error
// wraps ErrPath.
func ParsePath(name string) (Path, error) {
	if name == "auto" {
		return BestPath(), nil
	}
	for p := PathStdlib; p < pathEnd; p++ {
		if p.String() != name {
			continue
		}
		if !p.supported() {
			return 0, fmt.Errorf("%w here: %s; there are %v", ErrPath, name, Paths())
		}
		return p, nil
	}
	return 0, fmt.Errorf("%w: %q; there are auto and %v", ErrPath, name, Paths())
}
