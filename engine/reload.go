package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/admin"
	"causeway/engine/gate"
	"causeway/engine/link"
)

// Results of a reload, labels of causeway_reloads_total.
const (
	reloadOK        = "ok"
	reloadUnchanged = "unchanged"
	reloadFailed    = "failed"
)

// reloads counts reloads and what they changed.
type reloads struct {
	one sync.Mutex // held during a reload

	mu      sync.Mutex
	results map[string]uint64
	changes map[changeLabels]uint64
	last    time.Time // the last that did not fail; the start counts
}

type changeLabels struct{ key, domain string }

func newReloads(now time.Time) *reloads {
	return &reloads{
		results: map[string]uint64{reloadOK: 0, reloadUnchanged: 0, reloadFailed: 0},
		changes: make(map[changeLabels]uint64), last: now,
	}
}

func (r *reloads) done(result string, changes []Change, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[result]++
	if result != reloadFailed {
		r.last = now
	}
	for _, c := range changes {
		r.changes[changeLabels{c.Key, c.Domain}]++
	}
}

// Reload puts what load returns in the place of the router's identity, trust
// store and limits, all at once, and returns what that has changed. load is
// given the configuration as it was asked for last, and returns one that Start
// would take; what only a restart can change is kept as it is, and is among the
// changes. When load or a check fails, everything stays as it was; the error
// says why, and is the caller's to log. Connections whose certificate is no longer good get goodbye and are
// closed within a second; those of domains that are no longer served too.
// Nobody else notices. Log and metrics tell as well.
func (r *Router) Reload(load func(old Config) (Config, error)) ([]Change, error) {
	r.reloads.one.Lock()
	defer r.reloads.one.Unlock()
	old := r.state()
	next, err := r.loadState(old, load)
	if err != nil {
		r.reloads.done(reloadFailed, nil, time.Now())
		return nil, err
	}
	changes := old.changesTo(next)
	if len(changes) == 0 {
		r.reloads.done(reloadUnchanged, nil, time.Now())
		r.log.Info("reload: nothing has changed")
		return nil, nil
	}
	r.apply(old, next)
	r.reloads.done(reloadOK, changes, time.Now())
	for _, c := range changes {
		r.log.Log(context.Background(), changeLevel(c), "changed", "key", c.Key, "domain", c.Domain, "what", c.What,
			"from", c.From, "to", c.To, "why", c.Why, "needs_restart", c.Restart)
	}
	r.log.Info("reload done", "changes", len(changes))
	return changes, nil
}

func changeLevel(c Change) slog.Level {
	if c.Restart || c.Why != "" {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (r *Router) loadState(old *state, load func(Config) (Config, error)) (*state, error) {
	c, err := load(old.asked)
	if err != nil {
		return nil, err
	}
	if c, err = c.withDefaults(); err != nil {
		return nil, err
	}
	return newState(r, c, old, time.Now())
}

// apply makes next the state. New connections meet it at once; the others when
// their loop looks at them, which is its next turn.
func (r *Router) apply(old, next *state) {
	now := time.Now()
	for name, d := range next.domains {
		if before := old.domains[name]; before == nil || before.certID != d.certID {
			d.members.hold(d.grant)
		}
	}
	r.routing.serve(next.servedBeside(old)) // before anybody can attach in a new domain
	r.current.Store(next)
	r.routing.serve(next.served())
	r.dialAll(next)
	r.gate.SetLimits(*next.config.Limits, now)
	if l := next.config.Firewall; !gate.Same(old.config.Firewall, l) {
		r.log.Info("firewall", "connections_denied", r.SetFirewall(l), "everybody", l == nil)
	}
	for name, d := range old.domains {
		if after := next.domains[name]; after == nil || after.certID != d.certID {
			d.members.release(d.grant, now, next.config.SkewMax)
		}
		d.members.recheck(next.config.Store, now)
		if next.domains[name] == nil {
			d.members.end()
		}
	}
	for _, l := range r.loops {
		l.link.Post(func() { l.adopt(next) })
	}
}

// adopt looks at all connections of the loop with a new state.
func (l *loop) adopt(s *state) {
	l.keys.forgetAll()
	l.link.Range(func(c *link.Conn) { peerOf(c).adopt(s) })
}

// adopt makes the new state p's: it ends the connection if that has to end, and
// else has the peer told what is new for it.
func (p *peer) adopt(s *state) {
	if p.phase >= phaseLeaving {
		return
	}
	if p.far != nil {
		p.adoptLink(s)
		return
	}
	name := p.domain.name
	d := s.domains[name]
	switch {
	case d == nil:
		p.leave(codec.GoodbyeDraining, "this router no longer serves "+name)
		return
	case d.address != p.domain.address:
		p.leave(codec.GoodbyeDraining, "this router has another address in "+name+"; connect again")
		return
	}
	now := p.loop.link.Now()
	if err := s.config.Store.Recheck(p.id, now); err != nil {
		p.expel(refusalReason(err), err.Error())
		return
	}
	for i := len(p.certs) - 1; i >= 0; i-- {
		if isRevoked(s.config.Store.Recheck(p.certs[i].id, now)) {
			p.forget(i, now, 0)
		}
	}
	if p.phase == phaseOpen {
		p.loop.tellLater(p)
	}
}

func isRevoked(err error) bool {
	reason, ok := pki.ReasonOf(err)
	return ok && reason != pki.ReasonExpired
}

// refusalReason is what a peer is told whose certificate is refused.
func refusalReason(err error) codec.GoodbyeReason {
	switch reason, _ := pki.ReasonOf(err); reason {
	case pki.ReasonExpired, pki.ReasonNotYetValid:
		return codec.GoodbyeExpired
	default:
		return codec.GoodbyeRevoked // itself, or the authority that it comes from
	}
}

// Alarms returns what is wrong with the trust store now.
func (r *Router) Alarms(now time.Time) []pki.Alarm { return r.state().config.Store.Alarms(now) }

func (r *Router) addReloadMetrics(m *admin.Metrics) {
	m.Add(admin.Family{
		Name: "causeway_reloads_total", Help: "Reloads, by result.", Counter: true, Labels: []string{"result"},
		Read: func() []admin.Sample {
			r.reloads.mu.Lock()
			defer r.reloads.mu.Unlock()
			return samples(r.reloads.results)
		},
	})
	gauge(m, "causeway_config_last_reload_success_timestamp_seconds", "When the configuration in force was read, seconds since the Unix epoch.",
		func() float64 {
			r.reloads.mu.Lock()
			defer r.reloads.mu.Unlock()
			return float64(r.reloads.last.UnixMilli()) / 1000
		})
	m.Add(admin.Family{
		Name: "causeway_config_changes_total", Help: "What reloads have changed, by key and domain.", Counter: true, Labels: []string{"key", "domain"},
		Read: func() (s []admin.Sample) {
			r.reloads.mu.Lock()
			defer r.reloads.mu.Unlock()
			for l, n := range r.reloads.changes {
				s = append(s, admin.Sample{Labels: []string{l.key, l.domain}, Value: float64(n)})
			}
			return s
		},
	})
	m.Add(admin.Family{
		Name: "causeway_grants_refused", Help: "Grants that can't be used, by domain and reason.", Labels: []string{"domain", "reason"},
		Read: func() (s []admin.Sample) {
			for name, err := range r.state().refused {
				reason := "other"
				if known, ok := pki.ReasonOf(err); ok {
					reason = known.String()
				}
				s = append(s, admin.Sample{Labels: []string{name, reason}, Value: 1})
			}
			return s
		},
	})
}
