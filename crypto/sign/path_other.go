//go:build !amd64 || purego

package sign

func (p Path) supported() bool { return p == PathStdlib || p == PathPortable }

// laneState is what a path with several signatures at once would need.
type laneState struct{}

func (*laneState) init() {}

// addUp sets jobs' verdicts by the sums of their steps.
func (v *Verifier) addUp() { v.addUpEach() }

// evaluate sets v to the sum of lane's steps in g, without T.
func (p Path) evaluate(v *point, arena []entry, g *group, lane int) {
	evaluatePortable(v, arena, g, lane)
}
