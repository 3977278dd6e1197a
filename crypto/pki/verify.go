package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A chain goes through these stages, cheap ones and those that tell strangers
// from members first:
//
//	1. parse, count            Store.VerifyDER, splitChain
//	2. domain                  Store.Verify: asked for, or the leaf's URI's
//	3. signatures up to a root findIssuer
//	4. time                    checkTimes
//	5. the intermediate's rules checkIntermediate
//	6. the leaf's rules        peerOf
//	7. name constraints, path lengths, once more signatures: crypto/x509
//	8. revocation lists        domainTrust.checkRevoked

const (
	// chainMax is how many certificates a peer may present: its own, an
	// intermediate and, needlessly but often, the root.
	chainMax = 3
	// certMax is the largest certificate taken, in bytes of DER. Ours have
	// about 500; with P-256, long names and constraints it stays below 2,000.
	certMax = 8 << 10
)

// VerifyDER parses the chain, leaf first, and verifies it as Verify does. The
// slices are borrowed until return.
func (s *Store) VerifyDER(chain [][]byte, domain string, now time.Time) (*Peer, error) {
	if len(chain) == 0 || len(chain) > chainMax {
		return nil, badCount(domain, len(chain))
	}
	parsed := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		if len(der) > certMax {
			return nil, &Error{Reason: ReasonMalformed, Domain: domain, What: fmt.Sprintf("has %d bytes, more than %d", len(der), certMax)}
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, &Error{Reason: ReasonMalformed, Domain: domain, Err: err}
		}
		parsed[i] = c
	}
	return s.Verify(parsed, domain, now)
}

// Verify checks a chain, leaf first, at the time now and returns whom it
// speaks for. With a domain it is checked against that domain's roots only;
// with "" against those of the domain that the leaf names. An intermediate
// goes behind the leaf; the root may be left out and usually is. A refusal is
// an *Error. The certificates are kept in the Peer.
//
// Where a certificate is to be judged at another time than the present (a
// frame's must have been valid when it was sent, and may since have ended),
// the caller gives that time as now, and limits the difference itself.
func (s *Store) Verify(chain []*x509.Certificate, domain string, now time.Time) (*Peer, error) {
	p, err := s.verify(chain, domain, now)
	if err == nil {
		return p, nil
	}
	if e := new(Error); errors.As(err, &e) && e.Domain == "" {
		e.Domain = domain
	}
	return nil, err
}

func (s *Store) verify(chain []*x509.Certificate, domain string, now time.Time) (*Peer, error) {
	if len(chain) == 0 || len(chain) > chainMax {
		return nil, badCount(domain, len(chain))
	}
	for _, c := range chain {
		if len(c.Raw) > certMax { // TLS takes larger ones, and what we pass on has to fit a control body
			return nil, &Error{Reason: ReasonMalformed, Domain: domain, Who: whoIs(c),
				What: fmt.Sprintf("it has %d bytes and may have %d", len(c.Raw), certMax)}
		}
	}
	if domain == "" {
		domain = claimedDomain(chain[0])
	}
	d := s.domains[domain]
	if d == nil {
		return nil, &Error{
			Reason: ReasonUnknownDomain, Domain: domain, Who: whoIs(chain[0]),
			What:   "no domain " + quoted(domain) + " in the trust store",
			Remedy: "to trust it, run causeway pki trust --store DIR --root FILE --crl FILE",
		}
	}
	leaf, intermediate, err := d.splitChain(chain)
	if err != nil {
		return nil, err
	}
	path, err := d.pathOf(leaf, intermediate)
	if err != nil {
		return nil, err
	}
	if err := checkTimes(path, now); err != nil {
		return nil, err
	}
	if intermediate != nil {
		if err := checkIntermediate(intermediate, domain); err != nil {
			return nil, err
		}
	}
	p, err := peerOf(leaf, domain)
	if err != nil {
		return nil, err
	}
	if err := checkPath(path, now); err != nil {
		return nil, err
	}
	if p.RevocationUnknown, err = d.checkRevoked(path); err != nil {
		return nil, err
	}
	p.setPath(path)
	return p, nil
}

func badCount(domain string, n int) *Error {
	return &Error{Reason: ReasonMalformed, Domain: domain, What: fmt.Sprintf("the chain has %d certificates and must have 1 to %d", n, chainMax)}
}

// claimedDomain returns the domain that the leaf's first URI names, "" when
// there is none. It is a claim: the root must bear it out.
func claimedDomain(leaf *x509.Certificate) string {
	names, err := altNamesOf(leaf)
	if err != nil || len(names.uris) == 0 {
		return ""
	}
	domain, _, _, err := ParseURI(names.uris[0])
	if err != nil {
		return ""
	}
	return domain
}

// splitChain takes the chain apart; a root of the domain at its end is left
// out. intermediate is nil when there is none.
func (d *domainTrust) splitChain(chain []*x509.Certificate) (leaf, intermediate *x509.Certificate, err error) {
	rest := chain[1:]
	if n := len(rest); n > 0 && slices.ContainsFunc(d.roots, rest[n-1].Equal) {
		rest = rest[:n-1]
	}
	switch len(rest) {
	case 0:
		return chain[0], nil, nil
	case 1:
		return chain[0], rest[0], nil
	}
	if findIssuer(rest[len(rest)-1], d.roots) == nil {
		return nil, nil, unknownRoot(rest[len(rest)-1])
	}
	return nil, nil, refuse(ReasonBadChain, chain[0], fmt.Sprintf("its chain has %d intermediates, one at most is allowed", len(rest)), nil)
}

// pathOf returns leaf, intermediate if any, root: each signed by the next.
func (d *domainTrust) pathOf(leaf, intermediate *x509.Certificate) ([]*x509.Certificate, error) {
	path := []*x509.Certificate{leaf}
	top := leaf
	if intermediate != nil {
		if findIssuer(leaf, []*x509.Certificate{intermediate}) == nil {
			return nil, refuse(ReasonUnknownRoot, leaf, "is not signed by the second certificate of its chain", nil)
		}
		top = d.known(intermediate)
		path = append(path, top)
	}
	root := findIssuer(top, d.roots)
	if root == nil {
		return nil, unknownRoot(top)
	}
	return append(path, root), nil
}

func unknownRoot(top *x509.Certificate) *Error {
	return &Error{
		Reason: ReasonUnknownRoot, Who: whoIs(top),
		What:   "its chain ends in no root of the domain in the trust store",
		Remedy: "if that root is to be trusted, run causeway pki trust --store DIR --root FILE",
	}
}

// findIssuer returns which of the authorities signed c; nil when none did.
func findIssuer(c *x509.Certificate, authorities []*x509.Certificate) *x509.Certificate {
	for _, ca := range authorities {
		if string(c.RawIssuer) != string(ca.RawSubject) || !keyAllowed(ca.PublicKey) {
			continue
		}
		if c.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

func checkTimes(path []*x509.Certificate, now time.Time) error {
	for i, c := range path {
		reason := ReasonExpired
		switch {
		case now.Before(c.NotBefore):
			reason = ReasonNotYetValid
		case !now.After(c.NotAfter):
			continue
		}
		remedy := "if the clock is right, run causeway pki renew"
		if i > 0 {
			remedy = "this is an authority's: if the clock is right, its domain needs a new one"
		}
		return &Error{
			Reason: reason, Who: whoIs(c), Remedy: remedy,
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, Now: now,
		}
	}
	return nil
}

// checkIntermediate checks what an intermediate must be: an authority for
// leaves only, bound to the domain's prefix by a critical constraint.
func checkIntermediate(c *x509.Certificate, domain string) error {
	bad := func(what string) error { return refuse(ReasonBadChain, c, what, nil) }
	switch {
	case c.Version != x509v3 || !c.BasicConstraintsValid || !c.IsCA:
		return bad("stands in the chain as an intermediate and is no authority")
	case c.MaxPathLen != 0 || !c.MaxPathLenZero:
		return bad("is an intermediate whose path length is not 0")
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return bad("is an intermediate without the key usage keyCertSign")
	case !keyAllowed(c.PublicKey):
		return refuse(ReasonBadKey, c, "its key is neither Ed25519 nor ECDSA P-256", nil)
	case len(c.UnhandledCriticalExtensions) > 0:
		return refuse(ReasonCriticalExtension, c,
			"has the unknown critical extension "+c.UnhandledCriticalExtensions[0].String(), nil)
	case !c.PermittedDNSDomainsCritical: // so named, and true of all name constraints
		return bad("is an intermediate without critical name constraints")
	case !constrainedTo(c, domain):
		return bad(fmt.Sprintf("is an intermediate not constrained to %s, the prefix of %s", prefixNet(domain), domain))
	}
	return nil
}

// constrainedTo reports whether an authority's constraints permit addresses
// of the domain only.
func constrainedTo(c *x509.Certificate, domain string) bool {
	prefix := prefixNet(domain)
	for _, r := range c.PermittedIPRanges {
		ones, bits := r.Mask.Size()
		if bits != 8*AddressSize || ones < 8*PrefixSize || !prefix.Contains(r.IP) {
			return false
		}
	}
	return len(c.PermittedIPRanges) > 0
}

// checkPath has crypto/x509 verify the very same path, for the constraints
// that it knows.
func checkPath(path []*x509.Certificate, now time.Time) error {
	leaf, root := path[0], path[len(path)-1]
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	opts.Roots.AddCert(root)
	for _, c := range path[1 : len(path)-1] {
		opts.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(opts)
	if err == nil {
		return nil
	}
	reason := ReasonBadChain
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName {
		reason = ReasonConstraint
	}
	if unhandled := (x509.UnhandledCriticalExtension{}); errors.As(err, &unhandled) {
		reason = ReasonCriticalExtension
	}
	return refuse(reason, leaf, "", err)
}

// checkRevoked looks up every certificate of the path but the root, each in
// its issuer's list. unknown reports that the leaf's issuer has none.
func (d *domainTrust) checkRevoked(path []*x509.Certificate) (unknown bool, err error) {
	for i, c := range path[:len(path)-1] {
		revoked, known := d.revoked(serialOf(c), path[i+1])
		if revoked {
			e := refuse(ReasonRevoked, c, "is on its issuer's revocation list", nil)
			e.Remedy = "a revoked identity does not come back: make a new one, causeway pki request"
			return false, e
		}
		if i == 0 {
			unknown = !known
		}
	}
	return unknown, nil
}

// setPath fills in what the Peer has from the whole path.
func (p *Peer) setPath(path []*x509.Certificate) {
	p.authorities = path[1:]
	for _, c := range path[:len(path)-1] {
		p.Chain = append(p.Chain, c.Raw)
	}
	for _, c := range path {
		if c.NotBefore.After(p.NotBefore) {
			p.NotBefore = c.NotBefore
		}
		if c.NotAfter.Before(p.NotAfter) {
			p.NotAfter = c.NotAfter
		}
	}
}
