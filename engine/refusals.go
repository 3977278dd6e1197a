package engine

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"causeway/crypto/pki"
)

// refusalLogEvery bounds the log lines about refused connections, per reason.
const refusalLogEvery = time.Second

// refusals counts the connections that did not come to be, by reason, and tells
// the operator, with bounds: whoever knocks must not write our log.
type refusals struct {
	mu       sync.Mutex
	byReason map[string]*refusal
}

type refusal struct {
	count    uint64
	logged   time.Time
	unlogged uint64 // since then
}

// add counts err under its certificate's reason, if that is what it is about,
// else under reason, which must be from a bounded set.
func (r *refusals) add(log *slog.Logger, remote netip.AddrPort, reason string, err error) {
	if certificate, ok := pki.ReasonOf(err); ok {
		reason = certificate.String()
	}
	now := time.Now()
	r.mu.Lock()
	if r.byReason == nil {
		r.byReason = make(map[string]*refusal)
	}
	f := r.byReason[reason]
	if f == nil {
		f = &refusal{}
		r.byReason[reason] = f
	}
	f.count++
	silent := now.Sub(f.logged) < refusalLogEvery
	unlogged := f.unlogged
	if silent {
		f.unlogged++
	} else {
		f.logged, f.unlogged = now, 0
	}
	r.mu.Unlock()
	if !silent {
		log.Warn("connection refused", "remote", remote, "reason", reason, "error", err, "more_since_last_line", unlogged)
	}
}

// counts returns the refusals by reason.
func (r *refusals) counts() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]uint64, len(r.byReason))
	for reason, f := range r.byReason {
		all[reason] = f.count
	}
	return all
}
