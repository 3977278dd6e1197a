package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Peer is what a verified chain says. It is not changed after it was made.
type Peer struct {
	Domain  string
	Name    string // without the "router/" of a grant's URI
	Role    Role
	Address [AddressSize]byte
	CertID  [CertIDSize]byte
	Public  crypto.PublicKey  // ed25519.PublicKey or *ecdsa.PublicKey on P-256
	Leaf    *x509.Certificate // nil in a compact Peer
	Chain   [][]byte          // DER, leaf first, without the root
	Issued  time.Time         // when the leaf's own time begins

	// The time in which all certificates of the chain are valid, its
	// authorities included.
	NotBefore, NotAfter time.Time

	// RevocationUnknown: no list of the leaf's issuer is at hand, so that
	// nobody can tell whether it was revoked.
	RevocationUnknown bool

	serial      string              // the leaf's, big-endian
	authorities []*x509.Certificate // from who issued it to the root, once verified
}

// Compact returns a Peer that says the same without the parsed leaf, which takes
// 2.5 KB, for who keeps many. It borrows nothing from the chain that was
// verified.
func (p *Peer) Compact() *Peer {
	c := *p
	c.Leaf = nil
	c.authorities = slices.Clone(p.authorities) // the leaf is in the same memory
	c.Chain = make([][]byte, len(p.Chain))
	for i, der := range p.Chain {
		if i > 0 && i <= len(p.authorities) {
			c.Chain[i] = p.authorities[i-1].Raw // the store's own, when it has it
			continue
		}
		c.Chain[i] = bytes.Clone(der)
	}
	if key, ok := p.Public.(ed25519.PublicKey); ok {
		c.Public = ed25519.PublicKey(bytes.Clone(key)) // a part of the leaf's DER
	}
	return &c
}

// URI returns the peer's URI, dbw://DOMAIN/NAME or dbw://DOMAIN/router/NAME.
func (p *Peer) URI() string { return URI(p.Domain, p.Name, p.Role) }

// RequireRole returns nil when the peer has the role, else an *Error with
// ReasonWrongRole.
func (p *Peer) RequireRole(role Role) error {
	if p.Role == role {
		return nil
	}
	return &Error{
		Reason: ReasonWrongRole, Domain: p.Domain, Who: p.URI(),
		What: fmt.Sprintf("this is a %s's certificate and a %s's is needed here", p.Role, role),
	}
}

// SameKey reports whether two public keys are one.
func SameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// ReadLeaf checks all rules that a leaf must keep by itself and returns what it
// says. No signature, time or list was looked at: the result is a claim, good
// for showing and for an authority's own records.
func ReadLeaf(leaf *x509.Certificate) (*Peer, error) { return peerOf(leaf, "") }

// peerOf checks all rules that the leaf must keep by itself and reads the
// Peer out of it; NotBefore and NotAfter are the leaf's, Chain is empty. With
// a domain in want, it must be of that domain.
func peerOf(leaf *x509.Certificate, want string) (*Peer, error) {
	names, err := altNamesOf(leaf)
	if err != nil {
		return nil, refuse(ReasonMalformed, leaf, "", err)
	}
	if err := checkLeafForm(leaf); err != nil {
		return nil, err
	}
	if len(names.uris) != 1 {
		return nil, refuse(ReasonBadURI, leaf, fmt.Sprintf("has %d URI names and must have exactly one", len(names.uris)), nil)
	}
	domain, name, role, err := ParseURI(names.uris[0])
	if err != nil {
		return nil, refuse(ReasonBadURI, leaf, "its URI "+quoted(names.uris[0]), err)
	}
	if want != "" && domain != want {
		return nil, refuse(ReasonBadURI, leaf, "its URI names the domain "+domain+" and its chain ends in the root of "+want, nil)
	}
	address, err := checkAddress(leaf, names.ips, domain, role)
	if err != nil {
		return nil, err
	}
	if err := checkOtherNames(leaf, names, domain, role); err != nil {
		return nil, err
	}
	return &Peer{
		Domain: domain, Name: name, Role: role, Address: address,
		CertID: CertID(leaf.Raw), Public: leaf.PublicKey, Leaf: leaf, Issued: leaf.NotBefore, serial: serialOf(leaf),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}, nil
}

// checkLeafForm checks what the leaf may do, all but its names.
func checkLeafForm(leaf *x509.Certificate) error {
	if leaf.Version != x509v3 {
		return refuse(ReasonMalformed, leaf, fmt.Sprintf("has X.509 version %d and must have 3", leaf.Version), nil)
	}
	if !keyAllowed(leaf.PublicKey) {
		return refuse(ReasonBadKey, leaf, "its key is neither Ed25519 nor ECDSA P-256", nil)
	}
	if len(leaf.UnhandledCriticalExtensions) > 0 {
		return refuse(ReasonCriticalExtension, leaf,
			"has the unknown critical extension "+leaf.UnhandledCriticalExtensions[0].String(), nil)
	}
	switch {
	case leaf.IsCA:
		return refuse(ReasonBadUsage, leaf, "is an authority's (CA:TRUE)", nil)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refuse(ReasonBadUsage, leaf, "lacks the key usage digitalSignature", nil)
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return refuse(ReasonBadUsage, leaf, "has a key usage of authorities", nil)
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return refuse(ReasonBadUsage, leaf, "lacks the extended key usage clientAuth", nil)
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth):
		return refuse(ReasonBadUsage, leaf, "lacks the extended key usage serverAuth", nil)
	}
	return nil
}

// checkAddress checks the IP names and returns the one.
func checkAddress(leaf *x509.Certificate, ips [][]byte, domain string, role Role) (a [AddressSize]byte, err error) {
	if len(ips) != 1 {
		return a, refuse(ReasonBadAddress, leaf, fmt.Sprintf("has %d IP addresses and must have exactly one", len(ips)), nil)
	}
	if len(ips[0]) != AddressSize {
		return a, refuse(ReasonBadAddress, leaf, "its IP address is not of 16 bytes", nil)
	}
	a = [AddressSize]byte(ips[0])
	if prefixOf(a) != Prefix(domain) {
		return a, refuse(ReasonWrongPrefix, leaf,
			fmt.Sprintf("its address %s is outside %s, the prefix of %s", addressText(a), prefixNet(domain), domain), nil)
	}
	if kindOf(a) != role.Kind() {
		return a, refuse(ReasonWrongRole, leaf,
			fmt.Sprintf("its URI is a %s's and its address %s, of kind %04x, is not", role, addressText(a), kindOf(a)), nil)
	}
	return a, nil
}

// checkOtherNames checks the DNS names, and that there are no names of types
// that say nothing here.
func checkOtherNames(leaf *x509.Certificate, names altNames, domain string, role Role) error {
	switch {
	case names.others > 0:
		return refuse(ReasonBadName, leaf, "has names that are neither URI, IP address nor DNS name", nil)
	case role == RoleNode && len(names.dns) > 0:
		return refuse(ReasonBadDNSName, leaf, "is a node's and has a DNS name, which only routers have", nil)
	case role == RoleRouter && len(names.dns) != 1:
		return refuse(ReasonBadDNSName, leaf,
			fmt.Sprintf("is a router's and has %d DNS names instead of one, %s", len(names.dns), domain), nil)
	case role == RoleRouter && names.dns[0] != domain:
		return refuse(ReasonBadDNSName, leaf, "its DNS name "+quoted(names.dns[0])+" is not its domain", nil)
	}
	return nil
}

const x509v3 = 3

// keyAllowed reports whether the key is of one of the two kinds.
func keyAllowed(pub crypto.PublicKey) bool {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	}
	return false
}

// refuse makes the Error about one certificate.
func refuse(reason Reason, c *x509.Certificate, what string, err error) *Error {
	e := &Error{Reason: reason, Who: whoIs(c), What: what, Err: err}
	switch reason {
	case ReasonBadChain, ReasonBadKey, ReasonBadUsage, ReasonCriticalExtension, ReasonBadURI,
		ReasonBadAddress, ReasonWrongPrefix, ReasonWrongRole, ReasonBadDNSName, ReasonBadName, ReasonConstraint:
		e.Remedy = "have it issued anew by causeway pki issue, or pki grant for a router"
	}
	return e
}

// whoIs names a certificate in an error text: by its URI, else its subject.
func whoIs(c *x509.Certificate) string {
	if names, err := altNamesOf(c); err == nil && len(names.uris) > 0 {
		if _, _, _, err := ParseURI(names.uris[0]); err == nil {
			return names.uris[0]
		}
	}
	return quoted(c.Subject.String())
}
