package buf

import (
	"math/rand/v2"
	"sync"
	"testing"
)

const (
	testLimit = 64 << 20
	testFrame = 1000 // bytes of memory
)

// fill has each destination take frames while it may, in turn, until none does.
func fill(a *Account, queues []int64) {
	for more := true; more; {
		more = false
		for i := range queues {
			if queues[i]+testFrame <= a.QueueMax() {
				a.Use(PartQueues, testFrame)
				queues[i] += testFrame
				more = true
			}
		}
	}
}

func drain(a *Account, queues []int64) {
	for i, n := range queues {
		a.Use(PartQueues, -n)
		queues[i] = 0
	}
}

// n destinations that all want more get q/(n+8) each, and leave 8q/(n+8), so that
// another one still gets its part.
func TestGreedyQueuesGetEqualPartsAndLeaveSome(t *testing.T) {
	a := NewBudget(testLimit, 1).Account()
	q := float64(a.room)
	for _, n := range []int{1, 2, 10, 100, 500} {
		queues := make([]int64, n)
		fill(a, queues)
		want := q / float64(n+queuePart)
		for i, got := range queues {
			if float64(got) < want-2*testFrame || float64(got) > want+2*testFrame {
				t.Fatalf("%d destinations: number %d has %d bytes, want %.0f", n, i, got, want)
			}
		}
		if most := a.QueueMax(); float64(most) < want-2*testFrame || a.Wanting() > 0 {
			t.Errorf("%d destinations: a newcomer may have %d bytes, want %.0f", n, most, want)
		}
		drain(a, queues)
	}
	if a.Look(); a.room != int64(q) {
		t.Errorf("%.0f bytes of room before, %d after", q, a.room)
	}
}

// When destinations that never drain come one after another, each takes a
// fraction of what is left: Wanting tells how much has to be given up.
func TestQueuesThatStandStillAreToldToGiveUp(t *testing.T) {
	a := NewBudget(testLimit, 1).Account()
	var queues []int64
	for range 100 {
		queues = append(queues, make([]int64, 100)...)
		fill(a, queues)
		if a.Wanting() > 0 {
			break
		}
	}
	wanting := a.Wanting()
	if wanting <= 0 || a.room >= sureMax*queuePart {
		t.Fatalf("wanting %d with room for %d", wanting, a.room)
	}
	if a.QueueMax() < testFrame {
		t.Error("a short queue is refused at once")
	}
	a.Use(PartQueues, -wanting)
	if a.Wanting() != 0 || a.QueueMax() < sureMax {
		t.Errorf("after giving up %d bytes still %d wanting, a newcomer may have %d", wanting, a.Wanting(), a.QueueMax())
	}
}

// Loops know of each other late; the sum stays within its bound all the same.
func TestLoopsTogetherKeepToTheLimit(t *testing.T) {
	const loops, perLoop, rounds, largest = 8, 20, 30_000, 20_300
	b := NewBudget(testLimit, loops)
	var all sync.WaitGroup
	var worst [loops]int64
	for l := range loops {
		all.Go(func() {
			a := b.Account()
			rng := rand.New(rand.NewPCG(1, uint64(l)))
			var queues [perLoop]int64
			for range rounds {
				i, n := rng.IntN(perLoop), int64(300+rng.IntN(largest-300))
				if queues[i]+n <= a.QueueMax() {
					a.Use(PartQueues, n)
					queues[i] += n
				} else if rng.IntN(50) == 0 {
					a.Use(PartQueues, -queues[i])
					queues[i] = 0
				}
				worst[l] = max(worst[l], b.parts[PartQueues].n.Load())
			}
			drain(a, queues[:])
			a.Look()
		})
	}
	all.Wait()
	most := int64(testLimit/4*3 - testLimit/sidePart + testLimit/surePart + // short queues still get a little
		loops*(max(testLimit/stepPart/loops, stepMin)+largest)) // each looks after a step, which a frame may exceed
	for _, n := range worst {
		if n > most {
			t.Errorf("%d bytes in queues, at most %d", n, most)
		}
	}
	if n := b.parts[PartQueues].n.Load(); n != 0 {
		t.Errorf("%d bytes left in the end", n)
	}
}

func TestReceivedIsWhatIsOutAndNowhereElse(t *testing.T) {
	b := NewBudget(testLimit, 1)
	a := b.Account()
	before := b.Usage()[PartReceived]
	x, y := Get(5000), Get(100)
	if n := b.Usage()[PartReceived] - before; n != SizeOf(x)+SizeOf(y) {
		t.Errorf("%d bytes received, want %d", n, SizeOf(x)+SizeOf(y))
	}
	a.Use(PartQueues, SizeOf(x))
	b.Use(PartPartial, SizeOf(y))
	a.Look()
	if u := b.Usage(); u[PartReceived] != before || u[PartQueues] != SizeOf(x) || u[PartPartial] != SizeOf(y) {
		t.Errorf("usage %v", u)
	}
	a.Use(PartQueues, -SizeOf(x))
	b.Use(PartPartial, -SizeOf(y))
	a.Look()
	Put(x)
	Put(y)
	if u := b.Usage(); u != ([Parts]int64{}) && before == 0 {
		t.Errorf("usage %v in the end", u)
	}
}

// What the parts leave each other, at the ends of what each may have.
func TestPartsLeaveEachOtherWhatDocSays(t *testing.T) {
	const m = testLimit
	for _, c := range []struct {
		name                    string
		queues, side, partial   int64
		room, partialMax        int64
		scarce, short, met, out bool
	}{
		{"nothing", 0, 0, 0, m/4*3 - m/16, m / 2, false, false, false, false},
		{"side within its reserve", 0, m / 16, 0, m/4*3 - m/16, m / 2, false, false, false, false},
		{"side beyond it", 0, m / 8, 0, m/4*3 - m/8, m / 2, false, false, false, false},
		{"partial at its bound", 0, 0, m / 2, m/8*3 - m/16, m / 2, false, false, false, false},
		{"queues at theirs", m/4*3 - m/16, 0, 0, 0, m / 16 * 3, true, false, false, false},
		{"both", m / 8 * 3, 0, m / 2, -m / 16, m / 2, true, false, false, false},
		{"almost all", m/4*3 + m/8, 0, 0, -m/8 - m/16, 0, true, false, false, false},
		{"short", m / 16 * 15, 0, 0, -m / 4, -m / 16, true, true, true, true},
	} {
		b := NewBudget(m, 1)
		b.Use(PartQueues, c.queues)
		b.Use(PartNotices, c.side)
		b.Use(PartPartial, c.partial)
		out := Out()
		a := b.Account()
		if out.Buffers != 0 {
			t.Fatalf("%+v out", out)
		}
		if a.room != c.room || a.PartialMax() != c.partialMax {
			t.Errorf("%s: room %d, want %d; partial frames at most %d, want %d", c.name, a.room, c.room, a.PartialMax(), c.partialMax)
		}
		if a.Scarce() != c.scarce || a.Short() != c.short || a.Met() != c.met || a.Exhausted() != c.out {
			t.Errorf("%s: scarce %v, short %v, met %v, exhausted %v", c.name, a.Scarce(), a.Short(), a.Met(), a.Exhausted())
		}
	}
}

func TestNoLimitIsNeverMet(t *testing.T) {
	a := NewBudget(0, 1).Account()
	a.Use(PartQueues, 1<<40)
	a.Took(1 << 40)
	if a.Scarce() || a.Short() || a.QueueMax() < 1<<40 || a.OwnMax() < 1<<40 || a.PartialMax() < 1<<40 {
		t.Errorf("%+v", a)
	}
	var none *Account
	none.Use(PartLists, 1)
	none.Took(1)
	if none.Scarce() {
		t.Error("no account, and memory is scarce")
	}
}

func TestEveryPartHasANameOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for p := range Part(Parts) {
		if name := p.String(); name == "" || seen[name] {
			t.Errorf("part %d is called %q", p, name)
		} else {
			seen[name] = true
		}
	}
}

// BenchmarkFrame is what a frame's accounting costs: received, queued, sent, and
// the threshold asked for.
func BenchmarkFrame(b *testing.B) {
	a := NewBudget(testLimit, 2).Account()
	for b.Loop() {
		a.Took(testFrame)
		if a.QueueMax() > testFrame && !a.Short() && !a.Met() {
			a.Use(PartQueues, testFrame)
			a.Use(PartQueues, -testFrame)
		}
	}
}

func BenchmarkLook(b *testing.B) {
	a := NewBudget(testLimit, 2).Account()
	for b.Loop() {
		a.Look()
	}
}
