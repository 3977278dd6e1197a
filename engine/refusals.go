package engine

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
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
	count uint64
	seldom
}

// seldom bounds log lines.
type seldom struct {
	logged   time.Time
	unlogged uint64 // since then
}

// now tells whether a line may be written at the time given, and how many were
// not since the last one.
func (s *seldom) now(at time.Time) (speak bool, unlogged uint64) {
	if at.Sub(s.logged) < refusalLogEvery {
		s.unlogged++
		return false, 0
	}
	unlogged, s.logged, s.unlogged = s.unlogged, at, 0
	return true, unlogged
}

// lines are log lines of one kind that the network can cause, written by any
// goroutine.
type lines struct {
	mu sync.Mutex
	of seldom
}

// now is seldom's.
func (l *lines) now(at time.Time) (speak bool, unlogged uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of.now(at)
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
	speak, unlogged := f.now(now)
	r.mu.Unlock()
	if speak {
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

// replacements counts connections that a newer one of the same address has
// taken the place of, and tells the operator, with bounds: an address that
// flaps is two processes with one identity.
type replacements struct {
	count atomic.Uint64
	lines
}

func (r *replacements) add(log *slog.Logger, now time.Time, old *peer, by fmt.Stringer) {
	r.count.Add(1)
	if speak, unlogged := r.now(now); speak {
		log.Warn("connection replaced: the same address has connected again", "peer", describe(old.id), "old", old.conn.Remote(), "new", by,
			"age", now.Sub(old.opened).Round(time.Millisecond), "more_since_last_line", unlogged)
	}
}
