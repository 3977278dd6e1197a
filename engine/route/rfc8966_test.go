package route_test

import (
	"slices"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/route"
)

// One test for each rule of RFC 8966 that is kept, or for what is in its place
// (PROTOCOL.md section 14.1), named by its section. Router
// 5 is the destination, links 1 to 3 lead to neighbours; link 9 leads to one
// that only listens.

// Two routers may announce one destination, or one that starts again under another
// router ID: the newer of them alone is believed, whatever the metrics.
func TestRFC8966_2_7_SourcesOfOneDestinationAreOrdered(t *testing.T) {
	again := func(seqno, metric uint16) codec.Route {
		return codec.Route{Router: router(5), Source: source2(5), Seqno: seqno, Metric: metric}
	}
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	o.up(9, 10)
	o.settle()
	o.hear(1, 5, 7, 10)
	o.wantRoute(5, 1, 20)
	o.settle()
	o.hearRoute(2, again(0, 1000))
	o.wantRoute(5, 2, 1010)
	o.settle()
	o.wantTold(9, 5, again(0, 1010))
	o.hear(1, 5, 8, 1) // of the older one: a newer seqno and a smaller metric are no reason
	o.wantRoute(5, 2, 1010)
	o.hearRoute(2, again(0, codec.MetricInfinity))
	o.wantRoute(5, 0, 0) // nor that there is no other
	o.hearRoute(1, again(1, 5000))
	o.wantRoute(5, 1, 5010)
}

// Each link is a neighbour, with its cost and its routes; nothing of it stays when
// it ends.
func TestRFC8966_3_2_4_EachLinkIsANeighbour(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(11, 20) // to router 1 too
	o.hear(1, 5, 7, 10)
	o.wantRoute(5, 1, 20)
	o.hear(11, 5, 7, 5)
	o.wantRoute(5, 1, 20)
	o.hear(1, 5, 7, codec.MetricInfinity) // takes back what was announced by that link
	o.wantRoute(5, 11, 25)
	o.hear(1, 5, 7, 3)
	o.wantRoute(5, 1, 13)
	o.down(1)
	o.wantRoute(5, 11, 25)
	o.up(1, 10)
	o.wantRoute(5, 11, 25)
	o.down(11)
	o.wantRoute(5, 0, 0)
}

func TestRFC8966_3_2_1_SequenceNumbersWrap(t *testing.T) {
	check := func(have, update uint16, feasible bool) {
		t.Helper()
		o := newOne(t, route.Config{})
		o.up(1, 10)
		o.up(9, 10)
		o.settle()
		o.hear(1, 5, have, 10)
		o.settle()
		o.down(1)
		o.up(2, 10)
		o.hear(2, 5, update, 100)
		if got := o.via[router(5)] == 2; got != feasible {
			t.Errorf("seqno %d after %d is feasible: %v, want %v", update, have, got, feasible)
		}
	}
	check(7, 8, true)
	check(7, 7, false)
	check(7, 6, false)
	check(65535, 0, true)
	check(0, 65535, false)
	check(65000, 32767-536, true)
	check(0, 32767, true)
	check(0, 32768, false)
	check(0, 32769, false)
}

func TestRFC8966_3_2_5_DistancesAreForgotten(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(9, 10)
	o.settle()
	o.hear(1, 5, 7, 10)
	o.settle()
	o.hear(1, 5, 0, codec.MetricInfinity)
	o.wait(route.ForgetAfter - time.Second)
	o.hear(1, 5, 6, 50)
	o.wantRoute(5, 0, 0)
	o.hear(1, 5, 0, codec.MetricInfinity)
	o.wait(route.ForgetAfter)
	o.hear(1, 5, 6, 50)
	o.wantRoute(5, 1, 60)
}

func TestRFC8966_3_5_1_FeasibilityCondition(t *testing.T) {
	check := func(name string, update codec.Route, feasible bool) {
		t.Helper()
		o := newOne(t, route.Config{})
		o.up(1, 10)
		o.up(2, 10)
		o.up(9, 10)
		o.settle()
		o.hear(1, 5, 7, 90) // announced with metric 100, which is the distance
		o.settle()
		o.hear(1, 5, 7, codec.MetricInfinity)
		o.hearRoute(2, update)
		if got := o.via[router(5)] == 2; got != feasible {
			t.Errorf("%s: feasible %v, want %v", name, got, feasible)
		}
	}
	with := func(source codec.Source, seqno, metric uint16) codec.Route {
		return codec.Route{Router: router(5), Source: source, Seqno: seqno, Metric: metric}
	}
	check("smaller metric", announced(5, 7, 99), true)
	check("same metric", announced(5, 7, 100), false)
	check("greater metric", announced(5, 7, 101), false)
	check("newer seqno", announced(5, 8, 5000), true)
	check("older seqno", announced(5, 6, 0), false)
	check("retraction", announced(5, 8, codec.MetricInfinity), false)
	check("newer source", with(source2(5), 0, 5000), true)
	check("older source", with(codec.Source{Epoch: 999, ID: codec.RouterID{255}}, 9, 0), false)
	check("greater router ID", with(codec.Source{Epoch: 1000, ID: codec.RouterID{6}}, 0, 5000), true)
	check("smaller router ID", with(codec.Source{Epoch: 1000, ID: codec.RouterID{4}}, 9, 0), false)

	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.hear(1, 5, 7, 60000)
	o.wantRoute(5, 1, 60010) // no distance: feasible
}

func TestRFC8966_3_5_2_MetricsAddUp(t *testing.T) {
	check := func(cost, nodeCost, metric, want, wantTold uint16) {
		t.Helper()
		o := newOne(t, route.Config{NodeCost: nodeCost})
		o.up(1, cost)
		o.up(9, 10)
		o.settle()
		o.hear(1, 5, 7, metric)
		o.settle()
		if want == codec.MetricInfinity {
			o.wantRoute(5, 0, 0)
		} else {
			o.wantRoute(5, 1, want)
		}
		told := uint16(codec.MetricInfinity)
		for _, r := range o.told(9, 5) {
			told = r.Metric
		}
		if told != wantTold {
			t.Errorf("metric %d by cost %d, node cost %d: told %d, want %d", metric, cost, nodeCost, told, wantTold)
		}
	}
	check(1, 0, 0, 1, 1)
	check(10, 5, 20, 30, 35)
	check(65534, 0, 0, 65534, 65534)
	check(65534, 0, 1, codec.MetricInfinity, codec.MetricInfinity)
	check(100, 65535, 20, 120, codec.MetricInfinity)
	check(40000, 0, 40000, codec.MetricInfinity, codec.MetricInfinity)
}

func TestRFC8966_3_5_3_AcquiringRoutes(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	o.up(9, 10)
	o.settle()
	o.hear(1, 5, 7, codec.MetricInfinity) // of an unknown router: ignored
	if len(o.actions.Messages) != 0 || len(o.actions.Routes) != 0 {
		t.Errorf("a retraction of an unknown router: %+v", o.actions)
	}
	o.hear(1, 5, 7, 10)
	o.wantRoute(5, 1, 20)
	o.hear(1, 5, 7, 5) // the entry is updated
	o.wantRoute(5, 1, 15)
	o.settle()
	o.hear(2, 5, 7, 20) // unfeasible, but remembered: it is asked for newer ones later
	o.hear(1, 5, 7, codec.MetricInfinity)
	o.wantRoute(5, 0, 0)
	o.wantRequests("2: 5 8 64")

	// An unfeasible update of another source unselects at once.
	o = newOne(t, route.Config{})
	o.up(1, 10)
	o.up(9, 10)
	o.hearRoute(1, codec.Route{Router: router(5), Source: source2(5), Metric: 10})
	o.settle()
	o.wantRoute(5, 1, 20)
	o.hear(1, 5, 9, 1)
	o.wantRoute(5, 0, 0)
}

func TestRFC8966_3_5_3_RoutesExpire(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	repeat := func(l route.LinkID, interval time.Duration, metric uint16) {
		o.receive(l, &codec.RouteUpdate{Interval: interval, Routes: []codec.Route{announced(5, 7, metric)}})
	}
	repeat(1, 10*time.Second, 1)
	repeat(2, 20*time.Second, 5)
	o.wait(34 * time.Second)
	o.wantRoute(5, 1, 11)
	o.wait(time.Second)
	o.wantRoute(5, 2, 15)
	o.wait(34 * time.Second)
	o.wantRoute(5, 2, 15)
	repeat(2, 20*time.Second, 5)
	o.wait(69 * time.Second)
	o.wantRoute(5, 2, 15)
	o.wait(time.Second)
	o.wantRoute(5, 0, 0)
}

// No prefix covers another, so a retracted route is gone at once: it need not be
// held as unreachable until all neighbours know.
func TestRFC8966_3_5_4_RetractedRoutesAreNotHeld(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	o.up(9, 10)
	o.settle()
	o.hear(1, 5, 7, 10)
	o.settle()
	o.wait(route.BatchDelay)
	o.hear(1, 5, 7, codec.MetricInfinity)
	o.wantRoute(5, 0, 0)
	o.wantTold(9, 5, announced(5, 7, codec.MetricInfinity))
	if slices.ContainsFunc(o.Routes(), func(r route.Route) bool { return r.Router == router(5) }) {
		t.Error("the retracted route is still listed")
	}
	o.hear(2, 5, 8, 50) // in the same moment
	o.wantRoute(5, 2, 60)
	o.settle()
	o.wantTold(9, 5, announced(5, 8, 60))
}

func TestRFC8966_3_6_SelectionIsByMetricNotBySeqno(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	o.up(3, 9)
	o.hear(2, 5, 7, 10)
	o.wantRoute(5, 2, 20)
	o.hear(1, 5, 7, 10) // as good: what is in use stays
	o.wantRoute(5, 2, 20)
	o.hear(1, 5, 9, 11) // a newer seqno is no reason
	o.wantRoute(5, 2, 20)
	o.hear(3, 5, 7, 10)
	o.wantRoute(5, 3, 19)
	o.hear(3, 5, 7, codec.MetricInfinity)
	o.wantRoute(5, 2, 20)
	o.hear(2, 5, 7, 65530) // infinite with the link's cost
	o.wantRoute(5, 1, 21)
	o.hearRoute(3, codec.Route{Router: router(5), Source: source2(5), Metric: 1000}) // a newer source is one
	o.wantRoute(5, 3, 1009)
}

func TestRFC8966_3_7_1_UpdatesAreRepeated(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(9, 10)
	o.hear(1, 5, 7, 10)
	o.settle()
	o.wait(route.UpdateInterval - 3*route.BatchDelay)
	o.wantTold(9, 5)
	o.wait(3 * route.BatchDelay)
	o.wantTold(9, 5, announced(5, 7, 20))
	o.wantTold(1, 0, codec.Route{Router: router(0), Source: o.Source()})
	o.wantTold(1, 5)
}

func TestRFC8966_3_7_2_UpdatesAreTriggered(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(9, 10)
	o.settle()
	o.wait(route.BatchDelay)
	o.hear(1, 5, 7, 10) // quiet before: at once
	o.wantTold(9, 5, announced(5, 7, 20))
	o.hear(1, 5, 8, 10) // within a batch's time: together, later
	o.hear(1, 5, 9, 12)
	o.wantTold(9, 5)
	o.settle()
	o.wantTold(9, 5, announced(5, 9, 22))
	o.wait(time.Second)
	o.wantTold(9, 5) // and not again
	o.hearRoute(1, codec.Route{Router: router(5), Source: source2(5), Metric: 12})
	o.wantTold(9, 5, codec.Route{Router: router(5), Source: source2(5), Metric: 22})
	o.wait(time.Second)
	o.down(1)
	o.wantTold(9, 5, codec.Route{Router: router(5), Source: source2(5), Metric: codec.MetricInfinity})
	o.wait(time.Second)
	o.hear(9, 4, 0, codec.MetricInfinity)
	o.wantTold(9, 5) // one retraction is enough: links are reliable
}

func TestRFC8966_3_7_3_DistancesAreOfWhatWasSent(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.hear(1, 5, 7, 10) // the neighbour it comes from is the only one: nothing is sent
	o.settle()
	o.hear(1, 5, 6, 50) // an older seqno, but there is no distance
	o.wantRoute(5, 1, 60)
	o.up(9, 10)
	o.settle()
	o.hear(1, 5, 5, 10) // now there is one: 60 with seqno 6
	o.wantRoute(5, 0, 0)
	o.hear(1, 5, 6, 59)
	o.wantRoute(5, 1, 69)
	o.settle()
	o.hear(1, 5, 6, 60) // 69 was sent, which does not make the distance greater; see 3.8.2.2 for what happens
	o.wantRequests("1: 5 7 64")
}

func TestRFC8966_3_7_4_SplitHorizon(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(11, 20) // to router 1 too
	o.up(2, 10)
	o.settle()
	o.hear(1, 5, 7, 10)
	o.settle()
	o.wantTold(1, 5)
	o.wantTold(11, 5)
	o.hear(2, 5, 7, 1)
	o.settle()
	o.wantTold(1, 5, announced(5, 7, 11))
	o.wantTold(11, 5, announced(5, 7, 11))
	o.wantTold(2, 5, announced(5, 7, codec.MetricInfinity))
}

func TestRFC8966_3_8_1_2_OwnSeqnoGrowsByOne(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	o.settle()
	ask := func(seqno uint16) {
		o.wait(time.Second)
		o.receive(1, &codec.SeqnoRequest{Wanted: []codec.SeqnoWanted{{Router: router(0), Source: o.Source(), Seqno: seqno, Hops: 1}}})
	}
	own := codec.Route{Router: router(0), Source: o.Source()}
	ask(0) // has it: is told again, and only the asker
	o.wantTold(1, 0, own)
	o.wantTold(2, 0)
	own.Seqno = 1
	ask(1)
	o.wantTold(1, 0, own)
	o.wantTold(2, 0, own)
	own.Seqno = 2
	ask(1000) // by one only
	o.wantTold(1, 0, own)
}

func TestRFC8966_3_8_1_2_RequestsAreAnsweredOrForwarded(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 50)
	o.up(9, 10)
	o.hear(1, 5, 7, 10)
	o.hear(2, 5, 7, 10)
	o.settle()
	o.wait(time.Second)
	o.asked(9, 5, 7, 64) // has it
	o.wantTold(9, 5, announced(5, 7, 20))
	o.wantRequests()
	o.asked(9, 5, 8, 1) // as far as it may go
	o.wantRequests()
	o.asked(9, 5, 8, 2)
	o.wantRequests("1: 5 8 1")
	o.asked(9, 5, 8, 64) // a duplicate
	o.wantRequests()
	o.asked(9, 5, 9, 64)
	o.wantRequests("1: 5 9 63")
	o.wait(500 * time.Millisecond)
	o.asked(9, 5, 9, 64) // repeated
	o.wantRequests("1: 5 9 63")
	o.wait(500 * time.Millisecond)
	o.asked(1, 5, 9, 64) // never back: the other feasible route
	o.wantRequests("2: 5 9 63")
	o.asked(9, 6, 9, 64) // nobody knows router 6
	o.wantRequests()
	o.hear(2, 5, 7, codec.MetricInfinity)
	o.wait(time.Second)
	o.asked(1, 5, 9, 64)
	o.wantRequests()
}

func TestRFC8966_3_8_1_2_RequestsGoByUnfeasibleRoutesToo(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	o.up(9, 10)
	o.hear(1, 5, 7, 10)
	o.settle()
	o.hear(2, 5, 7, 30)
	o.wait(time.Second)
	o.asked(1, 5, 8, 64)
	o.wantRequests("2: 5 8 63")
}

func TestRFC8966_3_8_2_1_StarvationIsAskedAgainst(t *testing.T) {
	o := newOne(t, route.Config{})
	for _, l := range []route.LinkID{1, 2, 3, 9} {
		o.up(l, 10)
	}
	o.hear(1, 5, 7, 10)
	o.settle()
	o.hear(2, 5, 7, 30)
	o.hear(3, 5, 7, 40)
	o.wantRequests()
	o.down(1)
	o.wantRoute(5, 0, 0)
	o.wantRequests("2: 5 8 64", "3: 5 8 64")
	for _, pause := range []time.Duration{1, 2, 4, 8, 8} {
		o.wait(pause*time.Second - time.Millisecond)
		o.wantRequests()
		o.wait(time.Millisecond)
		o.wantRequests("2: 5 8 64", "3: 5 8 64")
	}
	o.hear(3, 5, 8, 40)
	o.wantRoute(5, 3, 50)
	o.wait(20 * time.Second)
	// The other one would be better: it is asked, see 3.8.2.2.
	o.hear(2, 5, 8, 30)
	o.wait(route.UpdateInterval)
	o.wantRequests()
}

func TestRFC8966_3_8_2_2_UnfeasibleUpdatesAreAskedAbout(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	o.up(9, 10)
	o.hear(1, 5, 7, 10)
	o.settle()
	o.hear(1, 5, 7, 100) // the selected route has grown worse
	o.wantRequests("1: 5 8 64")
	o.wantRoute(5, 1, 110)
	o.settle()
	o.hear(2, 5, 7, 150) // worse than that: not worth asking
	o.wantRequests()
	o.hear(2, 5, 7, 50) // better, but not feasible
	o.wantRequests("2: 5 8 64")
	o.wantRoute(5, 1, 110)
	o.hear(2, 5, 8, 50)
	o.wantRoute(5, 2, 60)
	o.settle()
	o.hear(1, 5, 7, codec.MetricInfinity)
	o.wait(20 * time.Second)
	o.wantRequests()
}
