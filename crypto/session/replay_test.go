package session

import (
	"math/rand/v2"
	"testing"
)

// The window must agree with a map of all counters that came.
func TestReplayAgreesWithASet(t *testing.T) {
	for _, window := range []int{64, 2048, 16384} {
		r := rand.New(rand.NewPCG(uint64(window), 7))
		w := NewReplay(window)
		came, highest := map[uint64]bool{}, uint64(0)
		for range 200_000 {
			c := highest + r.Uint64N(8)
			switch r.IntN(20) {
			case 0:
				c += r.Uint64N(3 * uint64(window))
			case 1, 2, 3, 4, 5, 6, 7, 8:
				c -= min(highest, r.Uint64N(uint64(window)+100))
			}
			fresh := c != 0 && !came[c] && (c > highest || highest-c < uint64(window))
			if got := w.Fresh(c); got != fresh {
				t.Fatalf("window %d, highest %d: Fresh(%d) is %v", window, highest, c, got)
			}
			if fresh {
				w.Mark(c)
				came[c] = true
				highest = max(highest, c)
			}
			if w.Highest() != highest {
				t.Fatalf("highest is %d, want %d", w.Highest(), highest)
			}
		}
	}
}

func TestReplayTakesTheLastCounters(t *testing.T) {
	w := NewReplay(64)
	for _, c := range []uint64{1<<64 - 1, 1<<64 - 2, 1<<64 - 64} {
		if !w.Fresh(c) {
			t.Errorf("%d is not fresh", c)
		}
		w.Mark(c)
		if w.Fresh(c) {
			t.Errorf("%d is fresh again", c)
		}
	}
	if w.Fresh(1<<64-65) || w.Fresh(0) || w.Fresh(1) {
		t.Error("what lies below the window is fresh")
	}
}
