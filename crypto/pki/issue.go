package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"
)

// Validity when nothing else was said.
const (
	DefaultCAValidity   = 3650 * 24 * time.Hour // 10 years
	DefaultLeafValidity = 30 * 24 * time.Hour
	DefaultListValidity = 90 * 24 * time.Hour
)

// Backdate is how long before the moment of issue a certificate or list
// begins to be valid: as much as clocks may be apart (five minutes, the
// default of --max-skew), so that a machine whose clock is behind takes a
// fresh certificate at once.
const Backdate = 5 * time.Minute

const (
	serialSize    = 16 // random, in bytes: RFC 5280 allows 20
	keyIDSize     = 20 // of SKI and AKI, in bytes: RFC 7093 section 2, method 1
	commonNameMax = 64 // ub-common-name, RFC 5280 appendix A.1
)

// Authority is who signs in a domain: its root, or the one intermediate below
// it.
type Authority struct {
	Domain       string
	Root         *x509.Certificate
	Intermediate *x509.Certificate // nil when the root signs itself
	key          crypto.Signer
}

// NewAuthority checks that root, intermediate (nil for none) and key belong
// together and to the domain. key is the intermediate's if there is one.
func NewAuthority(domain string, root, intermediate *x509.Certificate, key crypto.Signer) (*Authority, error) {
	if err := CheckDomain(domain); err != nil {
		return nil, err
	}
	if err := checkRoot(root, domain); err != nil {
		return nil, fmt.Errorf("the root certificate %w", err)
	}
	a := &Authority{Domain: domain, Root: root, Intermediate: intermediate, key: key}
	if intermediate != nil {
		if findIssuer(intermediate, []*x509.Certificate{root}) == nil {
			return nil, errors.New("the intermediate certificate is not signed by the root")
		}
		if err := checkIntermediate(intermediate, domain); err != nil {
			return nil, err
		}
	}
	if !SameKey(a.Certificate().PublicKey, key.Public()) {
		return nil, errors.New("the authority's key does not fit its certificate")
	}
	return a, nil
}

// Certificate returns the certificate of the key that signs.
func (a *Authority) Certificate() *x509.Certificate {
	if a.Intermediate != nil {
		return a.Intermediate
	}
	return a.Root
}

// Chain returns DER certificates for a peer to show: leaf, then the
// intermediate if there is one.
func (a *Authority) Chain(leaf []byte) [][]byte {
	if a.Intermediate == nil {
		return [][]byte{leaf}
	}
	return [][]byte{leaf, a.Intermediate.Raw}
}

// DomainOfRoot returns the domain that a root was made for: its one permitted
// DNS name, else its common name. ok is false when neither is a domain.
func DomainOfRoot(root *x509.Certificate) (domain string, ok bool) {
	domain = root.Subject.CommonName
	if len(root.PermittedDNSDomains) == 1 {
		domain = root.PermittedDNSDomains[0]
	}
	return domain, domainProblem(domain) == nil
}

// CreateRoot returns a new root certificate of the domain for the key, DER.
// It is constrained to the domain's prefix and names, so that whoever trusts
// it for the domain's sake trusts it for nothing else.
func CreateRoot(domain string, key crypto.Signer, now time.Time, validity time.Duration, random io.Reader) ([]byte, error) {
	if err := CheckDomain(domain); err != nil {
		return nil, err
	}
	t, err := caTemplate(domain, "", key.Public(), now, validity, random)
	if err != nil {
		return nil, err
	}
	t.MaxPathLen = 1
	return x509.CreateCertificate(random, t, t, key.Public(), key)
}

// CreateIntermediate returns a certificate, DER, that lets pub's holder issue
// in the domain in the root's place. The Authority must be the root's.
func (a *Authority) CreateIntermediate(pub crypto.PublicKey, now time.Time, validity time.Duration, random io.Reader) ([]byte, error) {
	if a.Intermediate != nil {
		return nil, errors.New("an intermediate can't make another")
	}
	t, err := caTemplate(a.Domain, "intermediate", pub, now, validity, random)
	if err != nil {
		return nil, err
	}
	if err := a.clip(t, now); err != nil {
		return nil, err
	}
	t.MaxPathLenZero = true
	return x509.CreateCertificate(random, t, a.Root, pub, a.key)
}

// caTemplate is what root and intermediate have in common. The subject has
// the key's ID as serial number: with that, two roots of a domain differ in
// name, and programs that look up issuers and lists by name find the right one.
func caTemplate(domain, unit string, pub crypto.PublicKey, now time.Time, validity time.Duration, random io.Reader) (*x509.Certificate, error) {
	if !keyAllowed(pub) {
		return nil, errCAKey
	}
	id, err := keyID(pub)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: clipped(domain), SerialNumber: hexText(id[:CertIDSize])}
	if unit != "" {
		subject.OrganizationalUnit = []string{unit}
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: now.Add(-Backdate), NotAfter: now.Add(validity),
		BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: id,
		PermittedDNSDomainsCritical: true, // that is: all constraints are
		PermittedDNSDomains:         []string{domain},
		PermittedURIDomains:         []string{domain},
		PermittedIPRanges:           []*net.IPNet{prefixNet(domain)},
	}, nil
}

// Subject is who gets a certificate.
type Subject struct {
	Role    Role
	Name    string
	Address [AddressSize]byte
	Public  crypto.PublicKey
}

// Issue returns a certificate for the subject, DER: a node's, or for a router
// a grant. It ends when the authority's does, at the latest. It fails with
// *Error when the authority's own is not valid now.
func (a *Authority) Issue(s Subject, now time.Time, validity time.Duration, random io.Reader) ([]byte, error) {
	if err := CheckName(s.Name); err != nil {
		return nil, err
	}
	if !keyAllowed(s.Public) {
		return nil, errKeyKind
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, err
	}
	uri := URI(a.Domain, s.Name, s.Role)
	parsed, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		// A label for people; programs read the URI. The slash in it keeps
		// OpenSSL from taking a dotted name for a host name, which it would
		// hold against the root's constraints.
		Subject:   pkix.Name{CommonName: clipped(s.Role.String() + "/" + s.Name)},
		NotBefore: now.Add(-Backdate), NotAfter: now.Add(validity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:           []net.IP{s.Address[:]},
		URIs:                  []*url.URL{parsed},
	}
	if s.Role == RoleRouter {
		t.DNSNames = []string{a.Domain}
	}
	if err := a.clip(t, now); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(random, t, a.Certificate(), s.Public, a.key)
	if err != nil {
		return nil, err
	}
	return der, a.selfCheck(der, now)
}

// clip keeps a certificate from outliving its issuer.
func (a *Authority) clip(t *x509.Certificate, now time.Time) error {
	path := []*x509.Certificate{a.Certificate(), a.Root}
	if err := checkTimes(path, now); err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Remedy = "this is the authority itself: if the clock is right, make a new one by causeway pki init"
		}
		return err
	}
	for _, c := range path {
		if t.NotAfter.After(c.NotAfter) {
			t.NotAfter = c.NotAfter
		}
		if t.NotBefore.Before(c.NotBefore) {
			t.NotBefore = c.NotBefore
		}
	}
	if !t.NotAfter.After(t.NotBefore) {
		return errors.New("the validity asked for is not positive")
	}
	return nil
}

// selfCheck verifies what was just issued, as everybody else will.
func (a *Authority) selfCheck(leaf []byte, now time.Time) error {
	store, err := NewStore(a.Domain, []*x509.Certificate{a.Root})
	if err != nil {
		return err
	}
	_, err = store.VerifyDER(a.Chain(leaf), a.Domain, now)
	return err
}

// Renew returns a certificate, DER, with old's name, role and address: for
// old's key, or for pub when that is not nil. old must be this authority's,
// or another's of the same domain; the caller has made sure that it was not
// revoked.
func (a *Authority) Renew(old *x509.Certificate, pub crypto.PublicKey, now time.Time, validity time.Duration, random io.Reader) ([]byte, error) {
	peer, err := peerOf(old, "")
	if err != nil {
		return nil, err
	}
	if peer.Domain != a.Domain {
		return nil, fmt.Errorf("%s is of another domain than this authority's, %s", peer.URI(), a.Domain)
	}
	if pub == nil {
		pub = peer.Public
	}
	return a.Issue(Subject{Role: peer.Role, Name: peer.Name, Address: peer.Address, Public: pub}, now, validity, random)
}

// SignCRL returns a revocation list with that number, DER. number must be
// above that of the list before; entries are all that are revoked, each with
// serial number and time.
func (a *Authority) SignCRL(number *big.Int, entries []x509.RevocationListEntry, now time.Time, validity time.Duration, random io.Reader) ([]byte, error) {
	t := &x509.RevocationList{
		Number: number, RevokedCertificateEntries: entries,
		ThisUpdate: now.Add(-Backdate), NextUpdate: now.Add(validity),
	}
	return x509.CreateRevocationList(random, t, a.Certificate(), a.key)
}

// newSerial draws a positive serial number of 127 random bits.
func newSerial(random io.Reader) (*big.Int, error) {
	b := make([]byte, serialSize)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40 // positive, and of one length
	return new(big.Int).SetBytes(b), nil
}

// keyID returns the subject key identifier: the first 160 bits of SHA-256 over
// the public key's bits (RFC 7093 section 2, method 1).
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:keyIDSize], nil
}

func clipped(s string) string { return s[:min(len(s), commonNameMax)] }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
