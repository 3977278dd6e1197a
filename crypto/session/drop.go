package session

// Drop says why Receive dropped a frame.
type Drop uint8

// Reasons to drop a frame (PROTOCOL.md section 15).
const (
	DropNone         Drop = iota // not dropped
	DropMalformed                // a body of another form than section 15 gives
	DropVersion                  // M1 or M2 of another version
	DropCrossed                  // M1 of a higher address, while an own one is unanswered
	DropRepeatedM1               // M1 that is pending already
	DropStaleM1                  // M1 older than two pending ones
	DropRate                     // M1, or what asks for an answer, beyond a budget
	DropHalfOpen                 // M1 beyond the pending sessions in all
	DropRefused                  // M1 or M2 with a bad public key, or an M2 that chooses what was not offered
	DropUnknownM1                // M2 to no M1 that is kept
	DropUnknownReset             // reset of another session than that in use
	DropUnknown                  // sealed body of a session that is not known
	DropReplayed                 // counter that came before, or lies below the replay window
	DropSeal                     // sealed body that does not open
	DropLate                     // after its gap was given up
	DropCredit                   // beyond the credit: the session is lost
	dropEnd
)

var dropLabels = [dropEnd]string{
	"none", "malformed", "version", "crossed", "repeated-m1", "stale-m1", "handshake-rate", "half-open", "refused",
	"unknown-m1", "unknown-reset", "unknown-session", "replayed", "bad-seal", "late", "over-credit",
}

// String returns the metric label of the reason.
func (d Drop) String() string {
	if d >= dropEnd {
		return "unknown"
	}
	return dropLabels[d]
}

// Drops returns all reasons to drop a frame.
func Drops() (all []Drop) {
	for d := DropNone + 1; d < dropEnd; d++ {
		all = append(all, d)
	}
	return all
}
