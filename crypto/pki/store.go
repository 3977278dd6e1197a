package pki

import (
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"
)

// Store is a trust store: domains, their roots, the authorities below them
// that are known, and one revocation list per issuer. A Store is never
// changed; what updates it returns a new one.
type Store struct {
	domains map[string]*domainTrust
	alarms  []Alarm // found while loading
}

// domainTrust is what the store knows of one domain.
type domainTrust struct {
	roots         []*x509.Certificate
	rootFiles     []string // same order
	intermediates []*x509.Certificate
	lists         map[issuerID]*revocationList
}

// issuerID is the key that signs: its SubjectPublicKeyInfo. Lists are kept
// per key, since both Go and OpenSSL know only lists signed by the
// certificate's own issuer.
type issuerID string

func issuerIDOf(c *x509.Certificate) issuerID { return issuerID(c.RawSubjectPublicKeyInfo) }

// revocationList is a CRL whose signature was checked.
type revocationList struct {
	file       string
	der        []byte
	number     *big.Int
	nextUpdate time.Time
	serials    map[string]struct{} // of what is revoked, big-endian bytes
}

// NewStore returns a store of one domain: its roots and any lists of theirs,
// DER-encoded CRLs. A node, which trusts only its own root, uses it.
func NewStore(domain string, roots []*x509.Certificate, crls ...[]byte) (*Store, error) {
	b := newStoreBuilder()
	if err := b.addDomain(domain); err != nil {
		return nil, err
	}
	for i, root := range roots {
		if err := b.addCA(domain, fmt.Sprintf("root %d", i+1), root); err != nil {
			return nil, err
		}
	}
	for i, crl := range crls {
		if err := b.addList(domain, fmt.Sprintf("revocation list %d", i+1), crl); err != nil {
			return nil, err
		}
	}
	return b.finish(nil)
}

// Domains returns the names of the domains, sorted.
func (s *Store) Domains() []string { return slices.Sorted(maps.Keys(s.domains)) }

// Roots returns the roots of the domain; nil when the store does not have it.
// The slice is borrowed.
func (s *Store) Roots(domain string) []*x509.Certificate {
	if d := s.domains[domain]; d != nil {
		return d.roots
	}
	return nil
}

// CRLs returns the revocation lists of the domain, DER, in no order of
// meaning. The slices in it are borrowed.
func (s *Store) CRLs(domain string) [][]byte {
	d := s.domains[domain]
	if d == nil {
		return nil
	}
	var all [][]byte
	for _, id := range slices.Sorted(maps.Keys(d.lists)) {
		all = append(all, d.lists[id].der)
	}
	return all
}

// WithCRL returns a store in which the DER-encoded list has taken the place of
// its issuer's previous one. When it is not newer than that (by CRL number,
// RFC 5280 section 5.2.3), the result is s itself and no error. It fails when
// the domain is unknown, or none of its known authorities signed the list.
func (s *Store) WithCRL(domain string, der []byte) (*Store, error) {
	if s.domains[domain] == nil {
		return nil, &Error{Reason: ReasonUnknownDomain, Domain: domain, What: "no domain " + quoted(domain) + " in the trust store"}
	}
	next, _, err := s.WithCRLOf([]string{domain}, der)
	return next, err
}

// WithCRLOf is WithCRL for a list of one of several domains, and returns which: it
// is signed by an authority of that one. Domains that the store does not have
// are passed over.
func (s *Store) WithCRLOf(domains []string, der []byte) (next *Store, domain string, err error) {
	parsed, err := ParseCRL(der)
	if err != nil {
		return nil, "", fmt.Errorf("revocation list received: %w", err)
	}
	for _, domain := range domains {
		d := s.domains[domain]
		if d == nil {
			continue
		}
		issuer, err := issuerOfList(parsed, slices.Concat(d.roots, d.intermediates))
		if err == nil {
			return s.withList(domain, issuerIDOf(issuer), newList("received", parsed)), domain, nil
		}
	}
	return nil, "", fmt.Errorf("revocation list received: %w", errListIssuer)
}

// withList returns a store that has the list, unless it is not newer than what s
// has: then s.
func (s *Store) withList(domain string, id issuerID, list *revocationList) *Store {
	d := s.domains[domain]
	if have := d.lists[id]; have != nil && have.number.Cmp(list.number) >= 0 {
		return s
	}
	next := *d
	next.lists = maps.Clone(d.lists)
	next.lists[id] = list
	out := &Store{domains: maps.Clone(s.domains), alarms: s.alarms}
	out.domains[domain] = &next
	return out
}

// revoked reports whether the issuer's list has that serial; known is false
// when there is no such list.
func (d *domainTrust) revoked(serial string, issuer *x509.Certificate) (revoked, known bool) {
	list := d.lists[issuerIDOf(issuer)]
	if list == nil {
		return false, false
	}
	_, revoked = list.serials[serial]
	return revoked, true
}

// serialOf returns the certificate's serial number, big-endian.
func serialOf(c *x509.Certificate) string { return string(c.SerialNumber.Bytes()) }

// known returns the store's own copy of an authority below the roots, if it has
// one, else c.
func (d *domainTrust) known(c *x509.Certificate) *x509.Certificate {
	if i := slices.IndexFunc(d.intermediates, c.Equal); i >= 0 {
		return d.intermediates[i]
	}
	return c
}
