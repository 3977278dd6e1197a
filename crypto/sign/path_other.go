//go:build !amd64 || purego

package sign

func (p Path) supported() bool { return p == PathStdlib || p == PathPortable }

// laneState is what a path with several signatures at once would need.
type laneState struct{}

func (*laneState) init() {}

// decide does stages 2 to 5 for the jobs, and returns the path that it took.
func (v *Verifier) decide() Path {
	v.decideEach()
	return v.tables.path
}

// evaluate sets v to the sum of lane's steps in g, without T.
func (p Path) evaluate(v *point, arena []entry, g *group, lane int) {
	evaluatePortable(v, arena, g, lane)
}
