package main

import "testing"

// onePlan is the least mesh.
func onePlan() meshPlan {
	return meshPlan{domains: []meshDomain{{"prod.example", []int{1}, 3}, {"lab.example", []int{1}, 3}}}
}

func TestOneRouterCarriesNumberedMessages(t *testing.T) {
	checkOne(t, startMesh(t, onePlan()))
}

// What the other tests use where namespaces are not permitted.
func TestSitesOnLoopbackAddresses(t *testing.T) {
	before := *onLoopback
	*onLoopback = true
	t.Cleanup(func() { *onLoopback = before })
	m := startMesh(t, onePlan())
	if m.sites.namespaces() {
		t.Fatal("sites are namespaces")
	}
	checkOne(t, m)
}

func checkOne(t *testing.T, m *mesh) {
	t.Helper()
	tr := startTraffic(m, 100, 100)
	tr.start()
	tr.flow(100)
	tr.crossDomains()
	tr.flow(100)
	l := tr.finish()
	l.nothingLost(t)
	t.Log(l)
	m.balanced()
	tr.close()
	m.end()
}
