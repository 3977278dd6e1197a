package route_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/route"
)

// one is a single instance, router 0 of domain 0, whose neighbours are played by
// the test: link n leads to router n, link 10n+m too.
type one struct {
	t *testing.T
	*route.Instance
	now     time.Time
	actions route.Actions // of the last event, or of all in wait
	via     map[codec.Address]route.LinkID
	owners  map[codec.Address]codec.Address
}

var start = time.Unix(1_700_000_000, 0)

func newOne(t *testing.T, config route.Config) *one {
	config.Self = router(0)
	config.Random = bytes.NewReader([]byte("router00"))
	i, err := route.New(config, start)
	if err != nil {
		t.Fatal(err)
	}
	o := &one{t: t, Instance: i, now: start, via: map[codec.Address]route.LinkID{}, owners: map[codec.Address]codec.Address{}}
	t.Cleanup(func() {
		if broken := i.Check(); broken != "" {
			t.Error(broken)
		}
	})
	return o
}

func router(n int) codec.Address { return addressOf(0, codec.KindRouter, n) }
func node(n int) codec.Address   { return addressOf(0, codec.KindNode, n) }

func leadsTo(l route.LinkID) codec.Address {
	for l >= 10 {
		l /= 10
	}
	return router(int(l))
}

func (o *one) note(actions route.Actions, err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
	o.actions = actions
	for _, c := range actions.Routes {
		o.via[c.Router] = c.Via
	}
	for _, c := range actions.Owners {
		o.owners[c.Node] = c.Router
	}
}

func (o *one) up(l route.LinkID, cost uint16) {
	o.t.Helper()
	o.note(o.LinkUp(o.now, l, leadsTo(l), cost))
}

func (o *one) down(l route.LinkID) {
	o.t.Helper()
	o.note(o.LinkDown(o.now, l), nil)
}

func (o *one) receive(l route.LinkID, m codec.Control) {
	o.t.Helper()
	o.note(o.Receive(o.now, l, m))
}

// source is the first life of a router, source2 a later one.
func source(n int) codec.Source  { return codec.Source{Epoch: 1000, ID: codec.RouterID{byte(n)}} }
func source2(n int) codec.Source { return codec.Source{Epoch: 2000, ID: codec.RouterID{byte(n)}} }

func announced(n int, seqno, metric uint16) codec.Route {
	return codec.Route{Router: router(n), Source: source(n), Seqno: seqno, Metric: metric}
}

// hear has the neighbour on l announce a route of router n's first life.
func (o *one) hear(l route.LinkID, n int, seqno, metric uint16) {
	o.t.Helper()
	o.hearRoute(l, announced(n, seqno, metric))
}

func (o *one) hearRoute(l route.LinkID, routes ...codec.Route) {
	o.t.Helper()
	o.receive(l, &codec.RouteUpdate{Interval: route.UpdateInterval, Routes: routes})
}

func (o *one) asked(l route.LinkID, n int, seqno uint16, hops uint8) {
	o.t.Helper()
	o.receive(l, &codec.SeqnoRequest{Wanted: []codec.SeqnoWanted{{Router: router(n), Source: source(n), Seqno: seqno, Hops: hops}}})
}

// wait lets time pass; all that is due happens.
func (o *one) wait(d time.Duration) {
	o.t.Helper()
	until := o.now.Add(d)
	var all route.Actions
	o.actions.Deadline = o.now
	for !o.actions.Deadline.After(until) {
		if o.actions.Deadline.After(o.now) {
			o.now = o.actions.Deadline
		}
		o.note(o.Tick(o.now), nil)
		all.Messages = append(all.Messages, o.actions.Messages...)
		all.Probes = append(all.Probes, o.actions.Probes...)
		all.Withdrawn = append(all.Withdrawn, o.actions.Withdrawn...)
		if !o.actions.Deadline.After(o.now) {
			o.t.Fatalf("at %v the next deadline is %v", o.now, o.actions.Deadline)
		}
	}
	o.now = until
	o.actions = all
}

// settle lets a batch go out.
func (o *one) settle() { o.t.Helper(); o.wait(route.BatchDelay) }

// wantRoute checks by which link a router is reached (0: not at all), and the
// metric.
func (o *one) wantRoute(n int, via route.LinkID, metric uint16) {
	o.t.Helper()
	if o.via[router(n)] != via {
		o.t.Errorf("router %d is reached by link %d, want %d", n, o.via[router(n)], via)
	}
	for _, r := range o.Routes() {
		if r.Router == router(n) && (r.Via != via || r.Metric != metric) {
			o.t.Errorf("the route to %d goes by link %d, metric %d, want %d, %d", n, r.Via, r.Metric, via, metric)
		}
	}
}

// told returns what the last actions tell l about router n, one by one.
func (o *one) told(l route.LinkID, n int) (all []codec.Route) {
	for _, m := range o.actions.Messages {
		if u, ok := m.Body.(*codec.RouteUpdate); ok && m.Link == l {
			for _, r := range u.Routes {
				if r.Router == router(n) {
					all = append(all, r)
				}
			}
		}
	}
	return all
}

func (o *one) wantTold(l route.LinkID, n int, want ...codec.Route) {
	o.t.Helper()
	if got := o.told(l, n); !slices.Equal(got, want) {
		o.t.Errorf("link %d is told %+v about router %d, want %+v", l, got, n, want)
	}
}

// wantRequests checks the seqno requests of the last actions: "link: router
// seqno hops", in order.
func (o *one) wantRequests(want ...string) {
	o.t.Helper()
	var got []string
	for _, m := range o.actions.Messages {
		if q, ok := m.Body.(*codec.SeqnoRequest); ok {
			for _, w := range q.Wanted {
				got = append(got, fmt.Sprintf("%d: %d %d %d", m.Link, w.Router[15]-1, w.Seqno, w.Hops))
			}
		}
	}
	if !slices.Equal(got, want) {
		o.t.Errorf("seqno requests %q, want %q", got, want)
	}
}

// wantMessages checks all messages of one type in the last actions.
func wantMessages[M any](o *one, want ...route.Message) {
	o.t.Helper()
	var got []route.Message
	for _, m := range o.actions.Messages {
		if _, ok := any(m.Body).(M); ok {
			got = append(got, m)
		}
	}
	show := func(all []route.Message) (s string) {
		for _, m := range all {
			s += fmt.Sprintf("\n  %d: %+v", m.Link, m.Body)
		}
		return s
	}
	if show(got) != show(want) {
		o.t.Errorf("messages:%s\nwant:%s", show(got), show(want))
	}
}
