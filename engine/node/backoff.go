package node

import (
	"encoding/binary"
	"io"
	"time"
)

// backoff is the pause between two rounds over the list of routers: it doubles
// from min to max, and each pause is drawn from its upper half, so that nodes
// that lost one router together don't come back together.
type backoff struct {
	min, max time.Duration
	failures uint // rounds failed since the last reset
}

// next returns the pause after one more failed round.
func (b *backoff) next(rand io.Reader) time.Duration {
	pause := b.min
	for range b.failures {
		if pause >= b.max/2 {
			pause = b.max
			break
		}
		pause *= 2
	}
	b.failures++
	half := pause / 2
	var draw [8]byte
	if _, err := io.ReadFull(rand, draw[:]); err != nil {
		return pause // without randomness: the whole pause is safe
	}
	return half + time.Duration(binary.BigEndian.Uint64(draw[:])%uint64(pause-half+1))
}

// reset forgets the failures.
func (b *backoff) reset() { b.failures = 0 }
