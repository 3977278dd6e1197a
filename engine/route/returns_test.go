package route

import (
	"bytes"
	"testing"
	"time"

	"causeway/codec"
)

// A neighbour whose routes come and go has the lists behind it looked at no more
// often than its budget allows, and its nodes are there again in the end.
func TestWhatComesBackTooOftenWaits(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	address := func(kind codec.Kind, n byte) codec.Address {
		return codec.Address{0xfd, 1, 2, 3, 4, 5, 0, byte(kind), 15: n}
	}
	far, near, node := address(codec.KindRouter, 5), address(codec.KindRouter, 1), address(codec.KindNode, 9)
	i, err := New(Config{Self: address(codec.KindRouter, 0), Random: bytes.NewReader(make([]byte, 8))}, now)
	if err != nil {
		t.Fatal(err)
	}
	var deadline time.Time
	changes, owner, via := 0, codec.Address{}, LinkID(0)
	note := func(a Actions, err error) {
		t.Helper()
		if broken := i.Check(); err != nil || broken != "" {
			t.Fatal(err, broken)
		}
		for _, o := range a.Owners {
			changes, owner = changes+1, o.Router
		}
		for _, r := range a.Routes {
			via = r.Via
		}
		deadline = a.Deadline
	}
	source := codec.Source{Epoch: 1000}
	announce := func(metric uint16) {
		t.Helper()
		note(i.Receive(now, 1, &codec.RouteUpdate{Interval: UpdateInterval, Routes: []codec.Route{{Router: far, Source: source, Metric: metric}}}))
	}
	note(i.LinkUp(now, 1, near, 10))
	note(i.Receive(now, 1, &codec.ListNumbers{Lists: []codec.ListNumber{{Router: far, Source: source, Number: 1}}}))
	note(i.Receive(now, 1, &codec.AddressList{Router: far, Source: source, To: 1, Parts: 1, Added: []codec.Attached{{Node: node, Sent: 7}}}))
	announce(0)
	if owner != far {
		t.Fatal("the node is not there at first")
	}
	announce(infinity)
	announce(0)
	if owner != far || changes != 3 {
		t.Fatalf("one return: owner %v after %d changes", owner, changes)
	}

	// As if lists of 500,000 addresses had come back: nothing is left of the budget.
	i.returns[near] = now.Add(returnsAhead + time.Second)
	changes = 0
	for range 100 {
		announce(infinity)
		announce(0)
	}
	if changes != 1 || owner != (codec.Address{}) || via != 1 {
		t.Errorf("%d changes of owner for 100 returns; owner %v; the router is reached by link %d", changes, owner, via)
	}
	for until := now.Add(1100 * time.Millisecond); deadline.Before(until); {
		now = deadline
		note(i.Tick(now), nil)
	}
	if owner != far || changes != 2 {
		t.Errorf("a second later: owner %v after %d changes", owner, changes)
	}

	// Another neighbour has its own budget, and a new link none of its own.
	i.returns[near] = now.Add(returnsAhead + time.Second)
	note(i.LinkDown(now, 1), nil)
	note(i.LinkUp(now, 2, near, 10))
	note(i.Receive(now, 2, &codec.RouteUpdate{Interval: UpdateInterval, Routes: []codec.Route{{Router: far, Source: source}}}))
	if owner == far {
		t.Error("a new link of the same neighbour has a new budget")
	}
	note(i.LinkUp(now, 3, address(codec.KindRouter, 3), 1))
	note(i.Receive(now, 3, &codec.RouteUpdate{Interval: UpdateInterval, Routes: []codec.Route{{Router: far, Source: source}}}))
	if owner != far {
		t.Error("another neighbour pays for the first")
	}
}
