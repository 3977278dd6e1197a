package session

import "time"

// What handshakes may cost (PROTOCOL.md section 15.11).
const (
	peerHandshakesBurst = 8    // M1s of one peer at once, then one a second
	handshakesPerSecond = 1000 // M1s answered and resets sent, in all; as many at once
	halfOpenMax         = 1024 // pending sessions in all
	pendingMax          = 2    // pending sessions of one peer
	offersMax           = 3    // own M1s that are kept
	oldMax              = 4    // old sessions of one peer
	answersBurst        = 16   // answers to probes and confirms of one peer at once
	answersPerSecond    = 4    // later
)

// bucket is a token bucket. Its zero value is full from the first take on.
type bucket struct {
	tokens float64
	at     time.Time // of tokens; zero: full
}

// take takes a token, if there is one, from a bucket of that size and refill.
func (b *bucket) take(now time.Time, size, perSecond float64) bool {
	if b.full(now, size, perSecond) {
		b.tokens = size
	} else if now.After(b.at) {
		b.tokens += now.Sub(b.at).Seconds() * perSecond
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// full reports whether nothing is missing.
func (b *bucket) full(now time.Time, size, perSecond float64) bool {
	return b.at.IsZero() || b.tokens+now.Sub(b.at).Seconds()*perSecond >= size
}
