package table

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
)

func addr(n uint64) (a codec.Address) {
	a[0] = 0xfd
	binary.BigEndian.PutUint64(a[8:], n)
	return a
}

func TestTableAgreesWithAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab, model := New(), map[codec.Address]Value{}
	for step := range 200_000 {
		a := addr(r.Uint64N(3000))
		switch r.IntN(5) {
		case 0:
			if got := tab.Set(a, 0); got != model[a] {
				t.Fatalf("step %d: removed %d, want %d", step, got, model[a])
			}
			delete(model, a)
		case 1:
			v := Value(r.Uint64N(3))
			want := v != 0 && model[a] == v
			if got := tab.Clear(a, v); got != want {
				t.Fatalf("step %d: Clear = %v, want %v", step, got, want)
			}
			if want {
				delete(model, a)
			}
		case 2:
			v := Value(1 + r.Uint64N(2))
			if got := tab.Set(a, v); got != model[a] {
				t.Fatalf("step %d: Set returned %d, want %d", step, got, model[a])
			}
			model[a] = v
		case 3:
			old, next := Value(r.Uint64N(3)), Value(r.Uint64N(3))
			want := model[a] == old
			if got := tab.CompareAndSwap(a, old, next); got != want {
				t.Fatalf("step %d: CompareAndSwap = %v, want %v", step, got, want)
			}
			switch {
			case want && next == 0:
				delete(model, a)
			case want:
				model[a] = next
			}
		default:
			if got := tab.Lookup(a); got != model[a] {
				t.Fatalf("step %d: Lookup = %d, want %d", step, got, model[a])
			}
		}
	}
	if tab.Len() != len(model) {
		t.Errorf("Len = %d, want %d", tab.Len(), len(model))
	}
	if bad := tab.Check(); bad != "" {
		t.Error(bad)
	}
}

func TestLookupFinishesWhileTheWriterIsStoppedInTheMiddle(t *testing.T) {
	tab := New()
	present := uint64(slotsMin * 3 / 4)
	for n := range present {
		tab.Set(addr(n), Value(n+1))
	}
	for _, where := range []string{"rebuild", "insert"} {
		stopped, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		tab.hookMid = func() { once.Do(func() { close(stopped); <-release }) }
		var writer sync.WaitGroup
		writer.Go(func() { tab.Set(addr(1_000_000+present), 7) })
		<-stopped
		done := make(chan bool, 1)
		go func() {
			ok := true
			for n := range present {
				ok = ok && tab.Lookup(addr(n)) == Value(n+1)
			}
			done <- ok && tab.Lookup(addr(5_000_000)) == 0
		}()
		select {
		case ok := <-done:
			if !ok {
				t.Errorf("%s: a lookup found something else", where)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: lookups wait for the writer", where)
		}
		close(release)
		writer.Wait()
		tab.hookMid = nil
		if tab.Lookup(addr(1_000_000+present)) != 7 {
			t.Errorf("%s: the write is lost", where)
		}
		tab.Set(addr(1_000_000+present), 0)
		present++ // the next round inserts a fresh address without a rebuild
		tab.Set(addr(present-1), Value(present))
	}
}

// Readers must never see a value that was not some address's own.
func TestConcurrentReadersSeeOnlyTrueValues(t *testing.T) {
	tab := New()
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for n := uint64(0); !stop.Load(); n = (n + 1) % 500 {
				if v := tab.Lookup(addr(n)); v != 0 && uint64(v)%500 != n {
					t.Errorf("address %d has %d", n, v)
					return
				}
			}
		})
	}
	for round := uint64(1); round < 100; round++ {
		for n := range uint64(500) {
			v := Value(500*round + n)
			if (n+round)%3 == 0 {
				v = 0
			}
			tab.Set(addr(n), v)
		}
	}
	stop.Store(true)
	readers.Wait()
	if bad := tab.Check(); bad != "" {
		t.Error(bad)
	}
}

func TestTableShrinksAfterACrowdHasGone(t *testing.T) {
	tab := New()
	for n := range uint64(100_000) {
		tab.Set(addr(n), 1)
	}
	for n := range uint64(100_000) {
		tab.Set(addr(n), 0)
	}
	for n := range uint64(200_000) {
		tab.Set(addr(1<<40+n), 1)
		tab.Set(addr(1<<40+n), 0)
	}
	if n := len(tab.current.Load().slots); n > 4*slotsMin {
		t.Errorf("%d slots for an empty table", n)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	tab := New()
	tab.Set(addr(1), 1)
	a := addr(1)
	if n := testing.AllocsPerRun(1000, func() { tab.Lookup(a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	tab := New()
	const n = 100_000
	for i := range uint64(n) {
		tab.Set(addr(i), Value(i+1))
	}
	i := uint64(0)
	for b.Loop() {
		if tab.Lookup(addr(i%n)) == 0 {
			b.Fatal("missing")
		}
		i += 7919
	}
}
