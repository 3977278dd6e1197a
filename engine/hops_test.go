package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"causeway/codec"
	"causeway/engine/link"
	"causeway/engine/table"
)

// hopWorld is a table and hops under a writer that a model follows. Each router
// and each node has a domain, which the refs of its links tell.
type hopWorld struct {
	r       *Router
	rand    *rand.Rand
	routers [hopDomains][]hopRouter
	nodes   [hopNodes]hopNode
	refs    uint64
}

type hopRouter struct {
	value table.Value
	ref   link.Ref
}

type hopNode struct {
	router int // in routers of its domain; -1: nobody has it, -2: it is connected here
	ref    link.Ref
}

const (
	hopDomains = 3
	hopNodes   = 60
)

func hopAddress(node int) (a codec.Address) {
	a[0], a[1] = 0xfd, byte(node%hopDomains)
	binary.BigEndian.PutUint64(a[8:], uint64(node))
	return a
}

func newHopWorld() *hopWorld {
	w := &hopWorld{r: &Router{table: table.New(), hops: new(hops)}, rand: rand.New(rand.NewPCG(3, 4))}
	for n := range w.nodes {
		w.nodes[n].router = -1
	}
	return w
}

// ref makes a ref of a domain's link that was never there before.
func (w *hopWorld) ref(domain int) link.Ref {
	w.refs++
	return link.Ref(uint64(domain)<<52 | w.refs)
}

func domainOf(ref link.Ref) int { return ref.Loop() }

// put gives a node the Value v.
func (w *hopWorld) put(node int, v table.Value) {
	w.r.hops.count(w.r.table.Set(hopAddress(node), v), -1)
	w.r.hops.count(v, 1)
}

// step changes one thing at random.
func (w *hopWorld) step() {
	domain := w.rand.IntN(hopDomains)
	routers := &w.routers[domain]
	node := w.rand.IntN(hopNodes/hopDomains)*hopDomains + domain
	switch at := w.rand.IntN(8); {
	case at == 0 && len(*routers) < 6:
		v, ok := w.r.hops.give()
		if !ok {
			panic("no numbers left")
		}
		ref := w.ref(domain)
		w.r.hops.set(v, ref)
		*routers = append(*routers, hopRouter{v, ref})
	case at == 1 && len(*routers) > 0: // the last router goes, after its nodes
		last := len(*routers) - 1
		for n := range w.nodes {
			if n%hopDomains == domain && w.nodes[n].router == last {
				w.nodes[n].router = -1
				w.put(n, 0)
			}
		}
		w.r.hops.takeBack((*routers)[last].value)
		*routers = (*routers)[:last]
	case at <= 3 && len(*routers) > 0: // a route changes, or there is none for a while
		r := &(*routers)[w.rand.IntN(len(*routers))]
		r.ref = 0
		if w.rand.IntN(4) > 0 {
			r.ref = w.ref(domain)
		}
		w.r.hops.set(r.value, r.ref)
	case at == 4:
		w.nodes[node] = hopNode{router: -2, ref: w.ref(domain)}
		w.put(node, tableValue(w.nodes[node].ref))
	case at == 5:
		w.nodes[node] = hopNode{router: -1}
		w.put(node, 0)
	case len(*routers) > 0:
		w.nodes[node] = hopNode{router: w.rand.IntN(len(*routers))}
		w.put(node, (*routers)[w.nodes[node].router].value)
	}
}

// want is what a lookup of a node has to return.
func (w *hopWorld) want(node int) (link.Ref, bool) {
	switch n := w.nodes[node]; n.router {
	case -1:
		return 0, false
	case -2:
		return n.ref, false
	default:
		return w.routers[node%hopDomains][n.router].ref, true
	}
}

func TestLookupsAgreeWithAModel(t *testing.T) {
	w := newHopWorld()
	for step := range 30_000 {
		w.step()
		for range 3 {
			node := w.rand.IntN(hopNodes)
			to, remote := w.r.lookup(hopAddress(node))
			if want, wantRemote := w.want(node); to != want || remote != wantRemote {
				t.Fatalf("step %d: node %d by %x, %v, want %x, %v", step, node, to, remote, want, wantRemote)
			}
		}
	}
	routers := 0
	for _, of := range w.routers {
		routers += len(of)
	}
	if w.r.hops.inUse() != routers {
		t.Errorf("%d numbers in use for %d routers", w.r.hops.inUse(), routers)
	}
	if len(w.r.hops.states) > 6*hopDomains {
		t.Errorf("%d numbers were given, and there were never more than %d routers", len(w.r.hops.states), 6*hopDomains)
	}
}

// A reader that was stopped between the table and the hop must not get the hop of
// the router that has the number by then: it may be of another domain.
func TestLookupsNeverTakeANumbersNextRouterForTheOneBefore(t *testing.T) {
	w := newHopWorld()
	var stop atomic.Bool
	var readers sync.WaitGroup
	var found atomic.Int64
	for range 3 {
		readers.Go(func() {
			for n := 0; !stop.Load(); n = (n + 1) % hopNodes {
				to, _ := w.r.lookup(hopAddress(n))
				if to == 0 {
					continue
				}
				found.Add(1)
				if domainOf(to) != n%hopDomains {
					t.Errorf("node of domain %d by a link of domain %d", n%hopDomains, domainOf(to))
					return
				}
			}
		})
	}
	for step := 0; step < 200_000 || found.Load() < 1000; step++ {
		w.step()
	}
	stop.Store(true)
	readers.Wait()
}

// The Value that a reader holds outlives its number's use; this is that reader,
// stopped at the worst moments.
func TestAValueWhoseNumberWasGivenAgainIsKnown(t *testing.T) {
	h := new(hops)
	old, _ := h.give()
	h.set(old, 1)
	h.count(old, 1)
	h.takeBack(old)
	if to, ok := h.get(old); to != 0 || !ok {
		t.Errorf("a router that was lost, with entries: %x, %v", to, ok)
	}
	if other, _ := h.give(); hopNumber(other) == hopNumber(old) {
		t.Error("a number was given again that the table still has")
	}
	h.count(old, -1)
	if _, ok := h.get(old); ok {
		t.Error("a Value is taken for good after its last entry has gone")
	}
	next, _ := h.give()
	if hopNumber(next) != hopNumber(old) || next == old {
		t.Errorf("%x was followed by %x", old, next)
	}
	h.set(next, 2)
	if _, ok := h.get(old); ok {
		t.Error("a Value is taken for good whose number another router has")
	}
	if to, ok := h.get(next); to != 2 || !ok {
		t.Errorf("%x, %v", to, ok)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	w := newHopWorld()
	v, _ := w.r.hops.give()
	w.r.hops.set(v, 1)
	w.put(0, v)
	w.put(1, tableValue(2))
	if n := testing.AllocsPerRun(100, func() {
		for n := range 3 {
			w.r.lookup(hopAddress(n))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	const nodes = 100_000
	w := newHopWorld()
	var values [16]table.Value
	for i := range values {
		values[i], _ = w.r.hops.give()
		w.r.hops.set(values[i], link.Ref(i+1))
	}
	var some [1 << 10]codec.Address
	for n := range nodes {
		a := hopAddress(n)
		w.r.table.Set(a, values[n%len(values)])
		if i := n % (nodes / len(some)); i == 0 {
			some[n/(nodes/len(some))%len(some)] = a
		}
	}
	b.Run("remote", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			w.r.lookup(some[i%len(some)])
		}
	})
	for _, a := range some {
		w.r.table.Set(a, tableValue(1))
	}
	b.Run("here", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			w.r.lookup(some[i%len(some)])
		}
	})
	b.Run("table alone", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			w.r.table.Lookup(some[i%len(some)])
		}
	})
}
