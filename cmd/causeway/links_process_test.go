package main

import "testing"

// ringPlan is five routers in a ring with a chord, and two domains: one at all of
// them, the other at four, through the chord. Each can lose any link, and any one
// router, and stay connected.
func ringPlan() meshPlan {
	return meshPlan{
		domains: []meshDomain{{"prod.example", []int{1, 2, 3, 4, 5}, 12}, {"lab.example", []int{1, 2, 4, 5}, 8}},
		links:   [][2]int{{1, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 1}, {2, 4}},
	}
}

func TestLinksAreMadeAgain(t *testing.T) {
	m := startMesh(t, ringPlan())
	m.linked()
	for _, w := range m.wires {
		w.cut()
	}
	for _, n := range m.numbers() {
		waitUntil(t, m.routers[n].name+" has no links", func() bool { return m.routers[n].neighbours() == "" })
	}
	for _, w := range m.wires {
		w.restore()
	}
	m.linked()
	m.routers[4].kill()
	m.linked()
	m.routers[4].start()
	m.linked()
	m.routers[2].terminate()
	m.linked()
	m.routers[2].start()
	m.linked()
	m.end()
}

// A link that carries nothing, and is not closed, is found out by keep-alives.
func TestASilentLinkIsLeft(t *testing.T) {
	plan := ringPlan()
	plan.flags = []string{"--keep-alive", "500ms", "--dead-after", "2s"}
	m := startMesh(t, plan)
	m.linked()
	silent := m.wires[[2]int{1, 2}]
	silent.hold()
	waitUntil(t, "the link is left", func() bool { return m.routers[1].neighbours() == "edge-5" })
	silent.cut()
	silent.release()
	silent.restore()
	m.linked()
	m.end()
}
