package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// state is what a reload replaces as a whole: identity, trust, limits, and what
// follows from them. It is immutable, but for the members of its domains, which
// it takes over from the state before.
type state struct {
	config   Config // in force
	asked    Config // as Start or Reload was given it, defaults filled in
	domains  map[string]*domain
	byPrefix map[[pki.PrefixSize]byte]*domain
	cutoff   *codec.Version
	own      map[codec.Address]struct{} // this router's addresses, those it had before too
	refused  map[string]error           // grants that could not be used, by domain
}

// newState makes the state that follows old; nil at the start, when every grant
// must be good. Later one domain's trouble is not to keep the others from being
// brought up to date: a grant that can't be used leaves the one before in its
// place, if that is still good, or else its domain is no longer served.
func newState(r *Router, c Config, old *state, now time.Time) (*state, error) {
	s := &state{config: c, asked: c, domains: make(map[string]*domain), refused: make(map[string]error)}
	s.byPrefix = make(map[[pki.PrefixSize]byte]*domain)
	s.own = make(map[codec.Address]struct{})
	if old != nil {
		s.config.keepFixed(&old.config)
		maps.Copy(s.own, old.own)
	}
	if c.VersionCutoff != "" {
		v, err := codec.ParseVersion(c.VersionCutoff)
		if err != nil {
			return nil, fmt.Errorf("engine: version cutoff: %w", err)
		}
		s.cutoff = &v
	}
	signer, err := sign.NewSigner(c.Identity.Key)
	if err != nil {
		return nil, err
	}
	if old == nil {
		if err := checkGrants(&c, now); err != nil {
			return nil, err
		}
	}
	for name, grant := range c.Identity.Grants {
		if !c.forwards(name) {
			continue
		}
		d, err := newDomain(r, signer, c.Identity, c.Store, grant, now)
		if err != nil {
			s.refused[name] = err
			if d = old.stillGood(name, c.Store, now); d == nil {
				continue
			}
			again := *d
			again.lists = c.Store.Lists(name)
			d = &again
		}
		if old != nil && old.domains[name] != nil {
			d.members = old.domains[name].members
		}
		s.domains[name], s.byPrefix[d.prefix] = d, d
		s.own[d.address] = struct{}{}
	}
	return s, nil
}

// ready tells whether there is a domain that nodes can connect in: nil, or why not.
func (s *state) ready(now time.Time) error {
	var last *domain
	for _, d := range s.domains {
		if now.Before(d.grant.NotAfter) {
			return nil
		}
		if last == nil || d.grant.NotAfter.After(last.grant.NotAfter) {
			last = d
		}
	}
	if last == nil {
		return errors.New("no domain has a grant that can be used")
	}
	return fmt.Errorf("no domain has a grant that is valid now; that of %s was until %s; run: causeway pki renew", last.name, last.grant.NotAfter.UTC().Format(time.RFC3339))
}

// stillGood returns the domain as it was, if the store bears its grant out.
func (s *state) stillGood(name string, store *pki.Store, now time.Time) *domain {
	d := s.domains[name]
	if d == nil || store.Recheck(d.grant, now) != nil {
		return nil
	}
	return d
}

// checkGrants verifies all grants: one that the router's own trust store refuses
// would be refused by every node.
func checkGrants(c *Config, now time.Time) error {
	if err := c.Identity.Check(c.Store, now); err != nil {
		return err
	}
	for name := range c.Identity.Grants {
		if !slices.Contains(c.Store.Domains(), name) {
			return fmt.Errorf("the trust store has no domain %s, for which there is a grant; run: causeway pki trust --store DIR --root FILE", name)
		}
	}
	return nil
}

// keepFixed sets the fields that only a restart can change to what they are.
func (c *Config) keepFixed(now *Config) {
	c.Software, c.Logger = now.Software, now.Logger
	c.Loops, c.CPUs = now.Loops, now.CPUs
	c.VerifyNone, c.VerifyEdge, c.SaveList = now.VerifyNone, now.VerifyEdge, now.SaveList
	c.VerifyWorkers, c.VerifyCPUs = now.VerifyWorkers, now.VerifyCPUs
	c.BodyMax, c.QueueHigh, c.QueueLow, c.PartialMax, c.Memory = now.BodyMax, now.QueueHigh, now.QueueLow, now.PartialMax, now.Memory
	c.AddressesMax = now.AddressesMax
	c.KeepAlive, c.DeadAfter = now.KeepAlive, now.DeadAfter
	c.HandshakeTimeout, c.ReceiveBuffer = now.HandshakeTimeout, now.ReceiveBuffer
}
