package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"
)

// workbench is what the table of broken rules works on: a template that keeps
// all rules, to be spoilt in one way.
type workbench struct {
	t       *testing.T
	cert    *x509.Certificate
	names   []altName
	public  crypto.PublicKey
	address [AddressSize]byte
}

func (w *workbench) setKind(kind uint16) {
	w.address[kindOffset], w.address[kindOffset+1] = byte(kind>>8), byte(kind)
	w.names[1] = ipName(w.address)
}

func (w *workbench) setURI(uri string) { w.names[0] = uriName(uri) }

func newWorkbench(t *testing.T, role Role) *workbench {
	address, err := NewAddress(testDomain, role.Kind(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &workbench{t: t, cert: leafTemplate(), public: testKey(t, KeyEd25519).Public(), address: address}
	w.names = []altName{uriName(URI(testDomain, "one", role)), ipName(address)}
	if role == RoleRouter {
		w.names = append(w.names, dnsName(testDomain))
	}
	return w
}

func (w *workbench) sign(a *Authority) *x509.Certificate { return parse(w.t, w.signDER(a)) }

func (w *workbench) signDER(a *Authority) []byte {
	w.cert.ExtraExtensions = append(w.cert.ExtraExtensions, altNameExtension(w.t, w.names...))
	der, err := x509.CreateCertificate(rand.Reader, w.cert, a.Certificate(), w.public, a.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

type brokenRule struct {
	name  string
	want  Reason
	role  Role
	spoil func(w *workbench)
}

func addName(n altName) func(*workbench) {
	return func(w *workbench) { w.names = append(w.names, n) }
}

func uriRule(name, uri string) brokenRule {
	return brokenRule{name, ReasonBadURI, RoleNode, func(w *workbench) { w.setURI(uri) }}
}

var brokenRules = []brokenRule{
	{"expired", ReasonExpired, RoleNode, func(w *workbench) { w.cert.NotAfter = testNow.Add(-time.Second) }},
	{"not yet valid", ReasonNotYetValid, RoleNode, func(w *workbench) { w.cert.NotBefore = testNow.Add(time.Second) }},
	{"wrong prefix", ReasonWrongPrefix, RoleNode, func(w *workbench) { w.address[5] ^= 1; w.setKind(KindNode) }},
	{"not a local address", ReasonWrongPrefix, RoleNode, func(w *workbench) { w.address[0] = 0xfc; w.setKind(KindNode) }},
	{"node of kind 0001", ReasonWrongRole, RoleNode, func(w *workbench) { w.setKind(KindRouter) }},
	{"node of kind 0002", ReasonWrongRole, RoleNode, func(w *workbench) { w.setKind(2) }},
	{"node of kind 0100", ReasonWrongRole, RoleNode, func(w *workbench) { w.setKind(0x100) }},
	{"grant of kind 0000", ReasonWrongRole, RoleRouter, func(w *workbench) { w.setKind(KindNode) }},
	{"node's URI on a grant's address", ReasonWrongRole, RoleRouter, func(w *workbench) { w.setURI("dbw://prod.example/one") }},
	{"router's URI on a node's address", ReasonWrongRole, RoleNode, func(w *workbench) { w.setURI("dbw://prod.example/router/one") }},
	{"no IP address", ReasonBadAddress, RoleNode, func(w *workbench) { w.names = w.names[:1] }},
	{"two IP addresses", ReasonBadAddress, RoleNode, func(w *workbench) { w.names = append(w.names, w.names[1]) }},
	{"IPv4 address", ReasonBadAddress, RoleNode, func(w *workbench) { w.names[1].value = []byte{127, 0, 0, 1} }},
	{"no URI", ReasonBadURI, RoleNode, func(w *workbench) { w.names = w.names[1:] }},
	{"two URIs", ReasonBadURI, RoleNode, func(w *workbench) { w.names = append(w.names, uriName("dbw://prod.example/two")) }},
	{"no names at all", ReasonBadURI, RoleNode, func(w *workbench) { w.names = nil }},
	{"node with its domain as DNS name", ReasonBadDNSName, RoleNode, addName(dnsName(testDomain))},
	{"node with another DNS name", ReasonBadDNSName, RoleNode, addName(dnsName("www.example"))},
	{"grant without DNS name", ReasonBadDNSName, RoleRouter, func(w *workbench) { w.names = w.names[:2] }},
	{"grant with two DNS names", ReasonBadDNSName, RoleRouter, addName(dnsName("www.example"))},
	{"grant with its DNS name twice", ReasonBadDNSName, RoleRouter, addName(dnsName(testDomain))},
	{"grant with another DNS name", ReasonBadDNSName, RoleRouter, func(w *workbench) { w.names[2] = dnsName("lab.example") }},
	{"grant with a name below its domain", ReasonBadDNSName, RoleRouter, func(w *workbench) { w.names[2] = dnsName("www.prod.example") }},
	{"grant with a wildcard", ReasonBadDNSName, RoleRouter, func(w *workbench) { w.names[2] = dnsName("*.prod.example") }},
	{"grant with its domain in capitals", ReasonBadDNSName, RoleRouter, func(w *workbench) { w.names[2] = dnsName("PROD.example") }},
	{"email name", ReasonBadName, RoleNode, addName(emailName("a@prod.example"))},
	{"directory name", ReasonBadName, RoleNode, addName(directoryName())},
	{"no clientAuth", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.ExtKeyUsage = w.cert.ExtKeyUsage[:1] }},
	{"no serverAuth", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.ExtKeyUsage = w.cert.ExtKeyUsage[1:] }},
	{"no extended key usage", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.ExtKeyUsage = nil }},
	{"any extended key usage", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }},
	{"CA:TRUE", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.IsCA = true }},
	{"no key usage", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.KeyUsage = 0 }},
	{"key agreement only", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.KeyUsage = x509.KeyUsageKeyAgreement }},
	{"keyCertSign", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.KeyUsage |= x509.KeyUsageCertSign }},
	{"cRLSign", ReasonBadUsage, RoleNode, func(w *workbench) { w.cert.KeyUsage |= x509.KeyUsageCRLSign }},
	{"RSA key", ReasonBadKey, RoleNode, func(w *workbench) { w.public = rsaKey(w.t).Public() }},
	{"P-384 key", ReasonBadKey, RoleNode, func(w *workbench) {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			w.t.Fatal(err)
		}
		w.public = key.Public()
	}},
	{"unknown critical extension", ReasonCriticalExtension, RoleNode, func(w *workbench) {
		w.cert.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	}},
	uriRule("URI of another domain", "dbw://lab.example/one"),
	uriRule("other scheme", "https://prod.example/one"),
	uriRule("scheme in capitals", "DBW://prod.example/one"),
	uriRule("user in URI", "dbw://root@prod.example/one"),
	uriRule("port in URI", "dbw://prod.example:7100/one"),
	uriRule("query in URI", "dbw://prod.example/one?x=1"),
	uriRule("empty query in URI", "dbw://prod.example/one?"),
	uriRule("fragment in URI", "dbw://prod.example/one#x"),
	uriRule("escape in name", "dbw://prod.example/%6fne"),
	uriRule("no name", "dbw://prod.example/"),
	uriRule("no path", "dbw://prod.example"),
	uriRule("slash behind name", "dbw://prod.example/one/"),
	uriRule("router without name", "dbw://prod.example/router/"),
	uriRule("other path", "dbw://prod.example/admin/one"),
	uriRule("path upwards", "dbw://prod.example/../one"),
	uriRule("name upwards", "dbw://prod.example/.."),
	uriRule("name in capitals", "dbw://prod.example/One"),
	// crypto/x509 does not even parse these.
	{"escape in domain", ReasonMalformed, RoleNode, func(w *workbench) { w.setURI("dbw://prod%2eexample/one") }},
	{"domain with a dot behind", ReasonMalformed, RoleNode, func(w *workbench) { w.setURI("dbw://prod.example./one") }},
	uriRule("opaque", "dbw:prod.example/one"),
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestEachBrokenRuleIsRefusedByName(t *testing.T) {
	root := plainRoot(t)
	store := testStore(t, root)
	for _, role := range []Role{RoleNode, RoleRouter} {
		leaf := newWorkbench(t, role).sign(root)
		if _, err := store.Verify([]*x509.Certificate{leaf}, testDomain, testNow); err != nil {
			t.Fatalf("the unspoilt %s is refused: %v", role, err)
		}
	}
	for _, r := range brokenRules {
		t.Run(r.name, func(t *testing.T) {
			w := newWorkbench(t, r.role)
			r.spoil(w)
			_, err := store.VerifyDER([][]byte{w.signDER(root)}, testDomain, testNow)
			wantReason(t, err, r.want)
		})
	}
}

// What needs neither signature nor clock nor domain to be told, ReadLeaf tells.
func TestReadLeafRefusesWhatALeafBreaksByItself(t *testing.T) {
	root := plainRoot(t)
	for _, r := range brokenRules {
		switch r.name {
		case "expired", "not yet valid":
			continue
		case "URI of another domain":
			r.want = ReasonWrongPrefix
		}
		w := newWorkbench(t, r.role)
		r.spoil(w)
		leaf, err := x509.ParseCertificate(w.signDER(root))
		if err != nil {
			if r.want != ReasonMalformed {
				t.Errorf("%s: %v", r.name, err)
			}
			continue
		}
		_, err = ReadLeaf(leaf)
		if got, ok := ReasonOf(err); !ok || got != r.want {
			t.Errorf("%s: refused with %v, want %v", r.name, err, r.want)
		}
	}
}

func TestOversizedCertificateIsNotEvenParsed(t *testing.T) {
	root := plainRoot(t)
	w := newWorkbench(t, RoleNode)
	w.cert.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: make([]byte, certMax)}}
	_, err := testStore(t, root).VerifyDER([][]byte{w.signDER(root)}, testDomain, testNow)
	wantReason(t, err, ReasonMalformed)
}
