//go:build !amd64 || purego

package sign

func (p Path) supported() bool { return p == PathStdlib || p == PathPortable }

// evaluate sets v to the sum of lane's steps in g, without T.
func (p Path) evaluate(v *point, arena []entry, g *group, lane int) {
	evaluatePortable(v, arena, g, lane)
}
