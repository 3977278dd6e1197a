package route_test

import (
	"flag"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/simnet"
)

var scale = flag.Bool("scale", false, "TestScale goes up to 50 routers and 10,000 addresses")

// TestScale has routers and addresses from nothing to convergence, then a link
// fail, then a router start again, then a node move, and prints what each costs;
// the routers form a ring with as many chords, with 1 to 20 ms for a message. No
// update is repeated before the last line, a minute in which nothing changes.
func TestScale(t *testing.T) {
	sizes, addresses := []int{5, 20}, 400
	if *scale {
		sizes, addresses = []int{5, 10, 20, 50}, 10_000
	}
	t.Log("routers  links  addresses  what            messages       bytes  converged")
	for _, count := range sizes {
		w := ringWithChords(count)
		links := len(w.net.Links())
		run := func(what string, limit time.Duration, change func()) {
			t.Helper()
			before, began := w.net.Stats(), w.net.Now()
			w.lastChange = began
			change()
			w.net.Run(10 * time.Second)
			after := w.net.Stats()
			took := w.lastChange.Sub(began)
			t.Logf("%7d  %5d  %9d  %-14s  %8d  %10d  %9.3f s", count, links, addresses, what,
				after.Messages-before.Messages, after.Bytes-before.Bytes, took.Seconds())
			if err := w.converged(); w.broken != nil || err != nil {
				t.Fatalf("%d routers, %s: %v, %v", count, what, w.broken, err)
			}
			if took > limit {
				t.Errorf("%d routers, %s: converged after %v, want at most %v", count, what, took, limit)
			}
		}
		run("all start", 5*time.Second, func() {
			for node := range addresses {
				w.attach(node%count, 0, node)
			}
		})
		run("a link fails", 5*time.Second, func() { w.net.Fail(w.net.Links()[0]) })
		run("one starts again", 5*time.Second, func() {
			w.restart(1, 0)
			for range 3 {
				w.connect(1, 3+w.net.Rand().IntN(count-3), 10)
			}
			for node := 1; node < addresses; node += count {
				w.attach(1, 0, node)
			}
		})
		run("a node moves", 5*time.Second, func() {
			w.attach(2, 0, 0)
			w.detach(0, 0, 0)
		})
		run("a minute's rest", 0, func() { w.net.Run(50 * time.Second) })
	}
}

func ringWithChords(count int) *world {
	w := newWorld(simnet.Config{
		Seed:     uint64(count),
		DelayMin: time.Millisecond, DelayMax: 20 * time.Millisecond,
		NoticeMax: 10 * time.Millisecond,
	})
	w.isLarge = true
	for range count {
		w.add(1, 0)
	}
	for n := range count {
		w.connect(n, (n+1)%count, 10)
	}
	for range count {
		a, b := w.net.Rand().IntN(count), w.net.Rand().IntN(count-1)
		if b >= a {
			b++
		}
		w.connect(a, b, uint16(5+w.net.Rand().IntN(20)))
	}
	return w
}

// BenchmarkUpdate is one update of 50 routes that all change.
func BenchmarkUpdate(b *testing.B) {
	w := ringWithChords(5)
	w.net.Run(settleTime)
	d := w.routers[0].byDomain[0]
	link := d.via[routerAddress(0, 1)]
	u := &codec.RouteUpdate{Interval: time.Minute}
	for n := range 50 {
		u.Routes = append(u.Routes, codec.Route{Router: addressOf(0, codec.KindRouter, 100+n), Source: codec.Source{Epoch: 1}})
	}
	now := w.net.Now()
	b.ReportAllocs()
	for b.Loop() {
		for n := range u.Routes {
			u.Routes[n].Seqno++
		}
		now = now.Add(100 * time.Millisecond)
		if _, err := d.Receive(now, link, u); err != nil {
			b.Fatal(err)
		}
	}
}
