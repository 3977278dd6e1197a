package session

import "fmt"

const replayWordBits = 64

// Replay remembers which counters came, in a window below the highest (RFC 6479).
// Counter 0 never comes. It has window/8 + 8 bytes, from the first Mark on.
//
// The window is a ring of words, one more than it needs: so the word that the
// highest counter enters can be cleared whole.
type Replay struct {
	window  uint64
	highest uint64
	words   []uint64 // bit counter % 64 of word counter / 64 % len: it came
}

// NewReplay returns an empty window of so many counters, a multiple of 64.
func NewReplay(window int) Replay {
	if window <= 0 || window%replayWordBits != 0 {
		panic(fmt.Sprintf("session: NewReplay: window %d is no positive multiple of %d", window, replayWordBits))
	}
	return Replay{window: uint64(window)}
}

// Fresh reports whether the counter has not come and is not below the window.
func (r *Replay) Fresh(counter uint64) bool {
	if counter > r.highest {
		return true
	}
	if counter == 0 || r.highest-counter >= r.window {
		return false
	}
	word := counter / replayWordBits % uint64(len(r.words))
	return r.words[word]&(1<<(counter%replayWordBits)) == 0
}

// Mark takes note of a fresh counter.
func (r *Replay) Mark(counter uint64) {
	if r.words == nil {
		r.words = make([]uint64, r.window/replayWordBits+1)
	}
	size := uint64(len(r.words))
	if counter > r.highest {
		from, to := r.highest/replayWordBits, counter/replayWordBits
		for i := range min(to-from, size) {
			r.words[(to-i)%size] = 0
		}
		r.highest = counter
	}
	r.words[counter/replayWordBits%size] |= 1 << (counter % replayWordBits)
}

// Highest returns the highest counter that came, 0 before the first.
func (r *Replay) Highest() uint64 { return r.highest }
