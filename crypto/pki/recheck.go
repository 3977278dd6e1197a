package pki

import (
	"crypto/x509"
	"math/big"
	"slices"
	"time"
)

// Recheck reports whether a peer that some store has verified would pass in
// this one, at the time now: its domain and root still trusted, none of its
// chain revoked, all of it in its time. It checks no signature unless the
// chain's own root is gone, so that it can be done for all connections at once
// when a store takes another's place. A refusal is an *Error.
func (s *Store) Recheck(p *Peer, now time.Time) error {
	if !s.passes(p, now) {
		_, err := s.VerifyDER(p.Chain, p.Domain, now) // another root may have taken its place; and it has the error's text
		return err
	}
	return nil
}

// passes reports whether the path that p was verified by is still good.
func (s *Store) passes(p *Peer, now time.Time) bool {
	d := s.domains[p.Domain]
	switch {
	case d == nil || len(p.authorities) == 0 || !slices.ContainsFunc(d.roots, p.authorities[len(p.authorities)-1].Equal):
		return false
	case now.Before(p.NotBefore) || now.After(p.NotAfter):
		return false
	}
	serial := p.serial
	for _, issuer := range p.authorities {
		if revoked, _ := d.revoked(serial, issuer); revoked {
			return false
		}
		serial = serialOf(issuer)
	}
	return true
}

// List is a revocation list of a store. It is not changed after it was made.
type List struct {
	Issuer     string // the authority's name
	Number     string // CRL number, decimal
	NextUpdate time.Time
	DER        []byte
}

// Newer reports whether l has the higher number of two lists of one issuer.
func (l List) Newer(than List) bool {
	a, okA := new(big.Int).SetString(l.Number, 10)
	b, okB := new(big.Int).SetString(than.Number, 10)
	return okA && (!okB || a.Cmp(b) > 0)
}

// Lists returns the revocation lists of the domain, in the order of the
// authorities that issued them: roots, then those below. Their DER is borrowed.
func (s *Store) Lists(domain string) (all []List) {
	d := s.domains[domain]
	if d == nil {
		return nil
	}
	seen := make(map[issuerID]bool)
	for _, ca := range slices.Concat(d.roots, d.intermediates) {
		id := issuerIDOf(ca)
		if list := d.lists[id]; list != nil && !seen[id] {
			seen[id] = true
			all = append(all, List{Issuer: nameOfCA(ca), Number: numberText(list.number), NextUpdate: list.nextUpdate, DER: list.der})
		}
	}
	return all
}

func nameOfCA(ca *x509.Certificate) string {
	if ca.Subject.CommonName != "" {
		return ca.Subject.CommonName
	}
	return ca.Subject.String()
}
