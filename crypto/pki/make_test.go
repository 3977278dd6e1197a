package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// testNow is when all of this happens.
var testNow = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const testDomain = "prod.example"

// testAuthority returns a new domain's root as an Authority.
func testAuthority(t testing.TB, domain string, kind KeyType) *Authority {
	t.Helper()
	key := testKey(t, kind)
	der, err := CreateRoot(domain, key, testNow, DefaultCAValidity, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthority(domain, parse(t, der), nil, key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// testIntermediate returns an Authority below root's.
func testIntermediate(t testing.TB, root *Authority, kind KeyType) *Authority {
	t.Helper()
	key := testKey(t, kind)
	der, err := root.CreateIntermediate(key.Public(), testNow, DefaultCAValidity, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthority(root.Domain, root.Root, parse(t, der), key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testKey(t testing.TB, kind KeyType) crypto.Signer {
	t.Helper()
	key, err := NewKey(kind, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// testStore returns a store that trusts the authority's root.
func testStore(t testing.TB, a *Authority, crls ...[]byte) *Store {
	t.Helper()
	s, err := NewStore(a.Domain, []*x509.Certificate{a.Root}, crls...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// issued is a certificate, its key and the chain to show.
type issued struct {
	key   crypto.Signer
	leaf  *x509.Certificate
	chain [][]byte
}

func testIssue(t testing.TB, a *Authority, role Role, name string, kind KeyType) issued {
	t.Helper()
	key := testKey(t, kind)
	address, err := NewAddress(a.Domain, role.Kind(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.Issue(Subject{Role: role, Name: name, Address: address, Public: key.Public()}, testNow, DefaultLeafValidity, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issued{key: key, leaf: parse(t, der), chain: a.Chain(der)}
}

// altName is one raw GeneralName, for names that no well-meaning program makes.
type altName struct {
	tag   cbasn1.Tag
	value []byte
}

func uriName(s string) altName           { return altName{tagURI, []byte(s)} }
func dnsName(s string) altName           { return altName{tagDNSName, []byte(s)} }
func ipName(a [AddressSize]byte) altName { return altName{tagIPAddress, a[:]} }
func emailName(s string) altName         { return altName{cbasn1.Tag(1).ContextSpecific(), []byte(s)} }
func directoryName() altName {
	return altName{cbasn1.Tag(4).ContextSpecific().Constructed(), []byte{0x30, 0}}
}

func altNameExtension(t testing.TB, names ...altName) pkix.Extension {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range names {
			b.AddASN1(n.tag, func(b *cryptobyte.Builder) { b.AddBytes(n.value) })
		}
	})
	value, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidSubjectAltName, Value: value}
}

// leafTemplate is a certificate that keeps all rules but has no names yet.
func leafTemplate() *x509.Certificate {
	serial, err := newSerial(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// plainRoot returns a root without name constraints, so that what they would
// refuse reaches our own rules.
func plainRoot(t testing.TB) *Authority {
	t.Helper()
	key := testKey(t, KeyEd25519)
	tmpl, err := caTemplate(testDomain, "", key.Public(), testNow, DefaultCAValidity, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	unconstrain(tmpl)
	tmpl.MaxPathLen = -1
	return &Authority{Domain: testDomain, Root: sign(t, tmpl, tmpl, key.Public(), key), key: key}
}

func unconstrain(t *x509.Certificate) {
	t.PermittedDNSDomains, t.PermittedURIDomains, t.PermittedIPRanges = nil, nil, nil
	t.PermittedDNSDomainsCritical = false
}

func sign(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

func wantReason(t *testing.T, err error, want Reason) {
	t.Helper()
	got, ok := ReasonOf(err)
	if !ok || got != want {
		t.Fatalf("refused with %v, want reason %v", err, want)
	}
}

func ipRange(t testing.TB, text string) *net.IPNet {
	t.Helper()
	_, n, err := net.ParseCIDR(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var testRandom = rand.Reader
