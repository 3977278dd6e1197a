package route_test

import (
	"bytes"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/route"
)

// What one neighbour can cost, PROTOCOL.md section 14.4.

func many(from, count int, sent uint64) (all []codec.Attached) {
	for n := range count {
		all = append(all, attachedAt(from+n, sent))
	}
	return all
}

// bomb has the neighbour on link 1 announce a router and its list, in parts.
func (o *one) bomb(n, from, count int) {
	o.t.Helper()
	o.receive(1, numberOf(n, source(n), 1))
	parts, err := codec.SplitAddressList(router(n), source(n), 1, many(from, count, 100))
	if err != nil {
		o.t.Fatal(err)
	}
	for _, p := range parts {
		o.receive(1, p)
	}
	o.hear(1, n, 0, 0)
}

func (o *one) owned() (count int) {
	for _, owner := range o.owners {
		if owner != nobody {
			count++
		}
	}
	return count
}

func TestAllListsTogetherAreLimited(t *testing.T) {
	o := newOne(t, route.Config{MaxAddresses: 3000, MaxTotal: 5000})
	o.up(1, 10)
	for n := 5; n < 9; n++ {
		o.bomb(n, 10_000*n, 3000)
	}
	if o.owned() != 5000 || o.Refused().Limit != 4*3000-5000 {
		t.Errorf("%d addresses are kept of 5,000, %+v", o.owned(), o.Refused())
	}

	// A list may take the place of itself, though both are there for a moment.
	before := o.Refused().Limit
	o.receive(1, numberOf(5, source2(5), 1))
	parts, _ := codec.SplitAddressList(router(5), source2(5), 1, many(90_000, 3000, 100))
	for _, p := range parts {
		o.receive(1, p)
	}
	if o.owned() != 5000 || o.Refused().Limit != before {
		t.Errorf("%d addresses after another list, %+v", o.owned(), o.Refused())
	}

	// Room is there again when a list is taken back.
	o.receive(1, whole(5, source2(5), 2))
	if o.owned() != 5000 {
		t.Errorf("%d addresses after a list that was not asked for", o.owned())
	}
	o.receive(1, numberOf(5, source2(5), 2))
	o.receive(1, whole(5, source2(5), 2))
	o.bomb(9, 200_000, 3000)
	if o.owned() != 5000 {
		t.Errorf("%d addresses after one list has gone and another has come", o.owned())
	}
}

// Lists whose last part never comes take memory too.
func TestPartsOfListsAreLimited(t *testing.T) {
	o := newOne(t, route.Config{MaxAddresses: 3000, MaxTotal: 5000})
	o.up(1, 10)
	begin := func(n int) {
		o.receive(1, numberOf(n, source(n), 1))
		parts, _ := codec.SplitAddressList(router(n), source(n), 1, many(10_000*n, 3000, 100))
		o.receive(1, parts[0])
		o.receive(1, parts[1])
	}
	for n := 5; n < 9; n++ {
		begin(n)
	}
	if limit := o.Refused().Limit; limit != 2*1024 { // the first parts of the third and the fourth
		t.Errorf("%d refused", limit)
	}
	o.wait(6 * time.Second) // nothing more comes
	before := o.Refused().Limit
	begin(9)
	if limit := o.Refused().Limit; limit != before {
		t.Errorf("%d more refused after the others were given up", limit-before)
	}
	o.down(1)
	o.up(1, 10)
	o.bomb(4, 40_000, 3000)
	if o.owned() != 3000 || o.Refused().Limit != before {
		t.Errorf("%d addresses after the link has ended, %+v", o.owned(), o.Refused())
	}
}

// A neighbour that sends a part now and then keeps the list from others not for
// ever.
func TestAListThatComesTooSlowlyIsAskedForElsewhere(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	parts, _ := codec.SplitAddressList(router(5), source(5), 1, many(0, 40*codec.AddressListEntriesMax, 100))
	o.receive(1, numberOf(5, source(5), 1))
	o.receive(2, numberOf(5, source(5), 1))
	var asked []route.LinkID
	for _, p := range parts {
		o.receive(1, p)
		o.wait(4 * time.Second)
		for _, m := range o.actions.Messages {
			if _, ok := m.Body.(*codec.ListRequest); ok {
				asked = append(asked, m.Link)
			}
		}
	}
	if len(asked) == 0 || asked[0] != 2 {
		t.Errorf("asked %v while the first takes %v", asked, 4*time.Second*time.Duration(len(parts)))
	}
}

// One message may ask for many seqnos; only one is given between two updates, so
// that nobody's distance falls half of all seqnos behind.
func TestSeqnoGrowsByOneBetweenTwoUpdates(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.settle()
	asking := &codec.SeqnoRequest{}
	for n := range codec.SeqnoRequestsMax {
		asking.Wanted = append(asking.Wanted, codec.SeqnoWanted{Router: router(0), Source: o.Source(), Seqno: uint16(n + 1), Hops: 1})
	}
	told := uint16(0)
	for range 3 {
		o.receive(1, asking)
		first := o.actions
		o.receive(1, asking)
		o.settle()
		for _, m := range append(first.Messages, o.actions.Messages...) {
			if u, ok := m.Body.(*codec.RouteUpdate); ok {
				if step := u.Routes[0].Seqno - told; step > 1 {
					t.Fatalf("seqno %d after %d", u.Routes[0].Seqno, told)
				}
				told = u.Routes[0].Seqno
			}
		}
	}
	if told < 2 {
		t.Errorf("the last seqno told is %d", told)
	}
}

// Everything is looked at when something is due: not once for each of many routes
// that expire one after another.
func TestLooksAtEverythingAreFew(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	for n := range 1000 {
		o.receive(1, &codec.RouteUpdate{Interval: time.Second, Routes: []codec.Route{announced(1000+n, 0, 0)}})
		o.now = o.now.Add(time.Millisecond)
	}
	ticks := 0
	for until := o.now.Add(4 * time.Second); ; ticks++ {
		at := o.actions.Deadline
		if at.After(until) {
			break
		}
		if at.After(o.now) {
			o.now = at
		}
		o.note(o.Tick(o.now), nil)
	}
	if len(o.Routes()) != 0 {
		t.Fatalf("%d routes have not expired", len(o.Routes()))
	}
	if ticks > 60 {
		t.Errorf("%d ticks for 1,000 routes that expire within a second", ticks)
	}
}

// A router that claims a node again and again, each time by a later attachment,
// has it probed no more often than a probe takes.
func TestProbesOfOneNodeAreFew(t *testing.T) {
	o := listing(t, route.Config{})
	o.note(o.Attach(o.now, node(9), 1000))
	probes := 0
	number := uint64(3)
	for n := range 100 {
		o.receive(1, change(number, []codec.Attached{attachedAt(9, 2000+uint64(n))}))
		number++
		probes += len(o.actions.Probes)
		o.note(o.Answered(o.now, node(9)), nil)
		o.wait(100 * time.Millisecond)
		probes += len(o.actions.Probes)
		if len(o.actions.Withdrawn) > 0 {
			t.Fatal("a node that answers was withdrawn")
		}
	}
	if probes < 3 || probes > 6 {
		t.Errorf("%d probes for 100 claims in 10 s, want one in 2 s", probes)
	}
	// The last claim is not forgotten: who does not answer for it is withdrawn.
	var withdrawn []codec.Address
	o.wait(5 * time.Second)
	if withdrawn = o.actions.Withdrawn; len(withdrawn) != 1 || withdrawn[0] != node(9) {
		t.Errorf("withdrawn %v", withdrawn)
	}
}

// Whole lists are long, and requests short.
func TestListRequestsAreAnsweredWithinABudget(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.up(2, 10)
	for n := 5; n < 15; n++ {
		o.bomb(n, 100_000*n, 50_000)
	}
	entries := 0
	ask := func(l route.LinkID) {
		for n := 5; n < 15; n++ {
			o.receive(l, &codec.ListRequest{Router: router(n)})
			for _, m := range o.actions.Messages {
				if list, ok := m.Body.(*codec.AddressList); ok {
					entries += len(list.Added)
				}
			}
		}
	}
	ask(2)
	if entries != 500_000 {
		t.Errorf("the first time %d of 500,000 addresses were sent", entries)
	}
	for range 4 {
		o.wait(1100 * time.Millisecond)
		ask(2)
	}
	if entries > 1_500_000 {
		t.Errorf("%d addresses were sent in 4.4 s", entries)
	}
}

// One node that many routers list: each message about it looks at all of them.
func BenchmarkNodesThatManyRoutersList(b *testing.B) {
	const routers, nodes = 500, 100
	i, err := route.New(route.Config{Self: router(0), Random: bytes.NewReader(make([]byte, 8))}, start)
	if err != nil {
		b.Fatal(err)
	}
	receive := func(m codec.Control) {
		if _, err := i.Receive(start, 1, m); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := i.LinkUp(start, 1, router(1), 10); err != nil {
		b.Fatal(err)
	}
	for n := range routers {
		receive(&codec.RouteUpdate{Interval: route.UpdateInterval, Routes: []codec.Route{announced(1000+n, 0, 0)}})
		receive(numberOf(1000+n, source(n), 1))
		receive(whole(1000+n, source(n), 1, many(0, nodes, uint64(n))...))
	}
	for b.Loop() {
		receive(&codec.RouteUpdate{Interval: route.UpdateInterval, Routes: []codec.Route{announced(1000, 0, codec.MetricInfinity)}})
		receive(&codec.RouteUpdate{Interval: route.UpdateInterval, Routes: []codec.Route{announced(1000, 0, 0)}})
	}
}
