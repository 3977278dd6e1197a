package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

type vectorCert struct {
	Address, Name, Certificate, Key string
	CertificateID                   string `json:"certificate_id"`
}

type vectorDomain struct {
	Domain, Prefix, Root string
	Node, Grant          vectorCert
}

func vectors(t testing.TB) []vectorDomain {
	t.Helper()
	text, err := os.ReadFile("testdata/identity.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Domains []vectorDomain }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Domains) == 0 {
		t.Fatal("identity.json has no domains")
	}
	return file.Domains
}

func decodeOne(t testing.TB, text string) *x509.Certificate {
	t.Helper()
	certs, err := DecodeCertificates([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestVectorsVerify(t *testing.T) {
	for _, d := range vectors(t) {
		prefix := Prefix(d.Domain)
		if got := hexText(prefix[:]); got != d.Prefix {
			t.Errorf("prefix of %s is %s, want %s", d.Domain, got, d.Prefix)
		}
		store, err := NewStore(d.Domain, []*x509.Certificate{decodeOne(t, d.Root)})
		if err != nil {
			t.Fatal(err)
		}
		for role, v := range map[Role]vectorCert{RoleNode: d.Node, RoleRouter: d.Grant} {
			for _, domain := range []string{d.Domain, ""} {
				p, err := store.Verify([]*x509.Certificate{decodeOne(t, v.Certificate)}, domain, testNow)
				if err != nil {
					t.Errorf("%s %s: %v", d.Domain, v.Name, err)
					continue
				}
				if got := hexText(p.Address[:]); got != v.Address {
					t.Errorf("%s: address %s, want %s", v.Name, got, v.Address)
				}
				if got := hexText(p.CertID[:]); got != v.CertificateID {
					t.Errorf("%s: certificate ID %s, want %s", v.Name, got, v.CertificateID)
				}
				if got := strings.TrimPrefix(p.URI(), "dbw://"+d.Domain+"/"); got != v.Name {
					t.Errorf("name %s, want %s", got, v.Name)
				}
				if p.Role != role || p.Domain != d.Domain || len(p.Chain) != 1 || !p.RevocationUnknown {
					t.Errorf("%s: got %+v", v.Name, p)
				}
				key, err := DecodeKey([]byte(v.Key))
				if err != nil {
					t.Fatal(err)
				}
				if !SameKey(p.Public, key.Public()) {
					t.Errorf("%s: the key is not the certificate's", v.Name)
				}
			}
		}
	}
}

func TestVectorsOfOneDomainAreStrangersInAnother(t *testing.T) {
	all := vectors(t)
	store, err := NewStore(all[0].Domain, []*x509.Certificate{decodeOne(t, all[0].Root)})
	if err != nil {
		t.Fatal(err)
	}
	foreign := []*x509.Certificate{decodeOne(t, all[1].Node.Certificate)}
	_, err = store.Verify(foreign, all[0].Domain, testNow)
	wantReason(t, err, ReasonUnknownRoot)
	_, err = store.Verify(foreign, "", testNow)
	wantReason(t, err, ReasonUnknownDomain)
	_, err = store.Verify(foreign, all[1].Domain, testNow)
	wantReason(t, err, ReasonUnknownDomain)
}

func TestTimeBordersAreInclusive(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	store := testStore(t, root)
	leaf := testIssue(t, root, RoleNode, "one", KeyEd25519)
	for _, at := range []time.Time{leaf.leaf.NotBefore, leaf.leaf.NotAfter} {
		if _, err := store.VerifyDER(leaf.chain, testDomain, at); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
	}
	_, err := store.VerifyDER(leaf.chain, testDomain, leaf.leaf.NotBefore.Add(-time.Nanosecond))
	wantReason(t, err, ReasonNotYetValid)
	_, err = store.VerifyDER(leaf.chain, testDomain, leaf.leaf.NotAfter.Add(time.Nanosecond))
	wantReason(t, err, ReasonExpired)
	_, err = store.VerifyDER(leaf.chain, testDomain, time.Time{})
	wantReason(t, err, ReasonNotYetValid)
}

func TestExpiryShowsBothClocks(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	leaf := testIssue(t, root, RoleNode, "one", KeyEd25519)
	_, err := testStore(t, root).VerifyDER(leaf.chain, testDomain, testNow.Add(31*24*time.Hour))
	want := "certificate of dbw://prod.example/one refused (expired): certificate valid from 2026-06-01T11:55:00Z to 2026-07-01T12:00:00Z, " +
		"this machine's clock says 2026-07-02T12:00:00Z; if the clock is right, run causeway pki renew"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestExpiredAuthorityIsRefused(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	w := newWorkbench(t, RoleNode)
	w.cert.NotAfter = root.Root.NotAfter.Add(time.Hour)
	leaf := w.sign(root)
	_, err := testStore(t, root).Verify([]*x509.Certificate{leaf}, testDomain, root.Root.NotAfter.Add(time.Minute))
	wantReason(t, err, ReasonExpired)
}

func TestForeignRootWithTheSameNameIsRefused(t *testing.T) {
	mine, other := plainRoot(t), plainRoot(t)
	other.Root.RawSubject = mine.Root.RawSubject
	other.Root.SubjectKeyId = mine.Root.SubjectKeyId
	leaf := newWorkbench(t, RoleNode).sign(other)
	_, err := testStore(t, mine).Verify([]*x509.Certificate{leaf}, testDomain, testNow)
	wantReason(t, err, ReasonUnknownRoot)
}

func TestRootItselfIsNoPeer(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	_, err := testStore(t, root).VerifyDER([][]byte{root.Root.Raw}, testDomain, testNow)
	wantReason(t, err, ReasonBadUsage)
}

func TestRootConstraintsAreKept(t *testing.T) {
	key := testKey(t, KeyEd25519)
	tmpl, err := caTemplate(testDomain, "", key.Public(), testNow, DefaultCAValidity, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.PermittedURIDomains = []string{"lab.example"}
	root := &Authority{Domain: testDomain, Root: sign(t, tmpl, tmpl, key.Public(), key), key: key}
	leaf := newWorkbench(t, RoleNode).sign(root)
	_, err = testStore(t, root).Verify([]*x509.Certificate{leaf}, testDomain, testNow)
	wantReason(t, err, ReasonConstraint)
}

func TestOnlyConstrainedIntermediatesPass(t *testing.T) {
	cases := []struct {
		name  string
		want  Reason
		spoil func(c *x509.Certificate)
	}{
		{"unconstrained", ReasonBadChain, unconstrain},
		{"constraints not critical", ReasonBadChain, func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false }},
		{"constrained by name alone", ReasonBadChain, func(c *x509.Certificate) { c.PermittedIPRanges = nil }},
		{"constrained to another prefix", ReasonBadChain, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{prefixNet("lab.example")} }},
		{"constrained to two prefixes", ReasonBadChain, func(c *x509.Certificate) {
			c.PermittedIPRanges = append(c.PermittedIPRanges, prefixNet("lab.example"))
		}},
		{"constrained to all of fd00::/8", ReasonBadChain, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{ipRange(t, "fd00::/8")} }},
		{"constrained to twice the prefix", ReasonBadChain, func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{ipRange(t, "fde1:4b0f:2020::/47")}
		}},
		{"path length 1", ReasonBadChain, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 1, false }},
		{"no path length", ReasonBadChain, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = -1, false }},
		{"no authority", ReasonUnknownRoot, func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLenZero = false; c.MaxPathLen = -1 }},
		{"no keyCertSign", ReasonUnknownRoot, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }},
		{"expired", ReasonExpired, func(c *x509.Certificate) { c.NotAfter = testNow.Add(-time.Second) }},
		{"unknown critical extension", ReasonCriticalExtension, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}},
		{"as issued", reasons, func(*x509.Certificate) {}},
	}
	root := plainRoot(t)
	store := testStore(t, root)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			key := testKey(t, KeyEd25519)
			tmpl, err := caTemplate(testDomain, "intermediate", key.Public(), testNow, DefaultCAValidity, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			tmpl.MaxPathLenZero = true
			c.spoil(tmpl)
			below := &Authority{Domain: testDomain, Root: root.Root, key: key}
			below.Intermediate = sign(t, tmpl, root.Root, key.Public(), root.key)
			leaf := newWorkbench(t, RoleNode).sign(below)
			p, err := store.Verify([]*x509.Certificate{leaf, below.Intermediate}, testDomain, testNow)
			if c.want != reasons {
				wantReason(t, err, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Chain) != 2 {
				t.Errorf("chain of %d certificates, want leaf and intermediate", len(p.Chain))
			}
		})
	}
}

func TestChainsOfOtherShapesAreRefused(t *testing.T) {
	root := plainRoot(t)
	store := testStore(t, root)
	first := testIntermediate(t, root, KeyEd25519)
	second := &Authority{Domain: testDomain, Root: first.Intermediate, key: first.key}
	leafOfSecond := testIntermediateBelow(t, second)
	leaf := testIssue(t, first, RoleNode, "one", KeyEd25519).leaf
	other := testIssue(t, root, RoleNode, "two", KeyEd25519).leaf
	check := func(name string, want Reason, chain ...*x509.Certificate) {
		t.Helper()
		_, err := store.Verify(chain, testDomain, testNow)
		if got, ok := ReasonOf(err); !ok || got != want {
			t.Errorf("%s: refused with %v, want %v", name, err, want)
		}
	}
	check("empty", ReasonMalformed)
	check("too long", ReasonMalformed, leaf, leaf, leaf, leaf)
	check("two intermediates", ReasonBadChain, leafOfSecond[0], leafOfSecond[1], first.Intermediate)
	check("intermediate missing", ReasonUnknownRoot, leaf)
	check("needless intermediate", ReasonUnknownRoot, other, first.Intermediate)
	check("stranger as third", ReasonUnknownRoot, leaf, first.Intermediate, testAuthority(t, testDomain, KeyEd25519).Root)
	for _, chain := range [][]*x509.Certificate{{leaf, first.Intermediate}, {leaf, first.Intermediate, root.Root}, {other, root.Root}} {
		p, err := store.Verify(chain, testDomain, testNow)
		if err != nil {
			t.Fatal(err)
		}
		for _, der := range p.Chain {
			if string(der) == string(root.Root.Raw) {
				t.Error("the root is in the peer's chain")
			}
		}
	}
}

// testIntermediateBelow returns a leaf and the intermediate that signed it,
// itself signed by a's root, which is an intermediate too.
func testIntermediateBelow(t *testing.T, a *Authority) []*x509.Certificate {
	key := testKey(t, KeyEd25519)
	tmpl, err := caTemplate(testDomain, "second", key.Public(), testNow, DefaultCAValidity, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.MaxPathLenZero = true
	below := &Authority{Domain: testDomain, Root: sign(t, tmpl, a.Root, key.Public(), a.key), key: key}
	return []*x509.Certificate{newWorkbench(t, RoleNode).sign(below), below.Root}
}

func TestUnparsableChainIsMalformed(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	store := testStore(t, root)
	for _, chain := range [][][]byte{nil, {nil}, {[]byte("x")}, {make([]byte, certMax+1)}, {root.Root.Raw[:100]}} {
		_, err := store.VerifyDER(chain, testDomain, testNow)
		wantReason(t, err, ReasonMalformed)
	}
}

func TestPeerTimesAreThoseOfTheWholePath(t *testing.T) {
	root := testAuthority(t, testDomain, KeyP256)
	leaf := testIssue(t, root, RoleRouter, "edge-1", KeyP256)
	p, err := testStore(t, root).VerifyDER(leaf.chain, "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	if !p.NotAfter.Equal(testNow.Add(DefaultLeafValidity)) || !p.NotBefore.Equal(testNow.Add(-Backdate)) {
		t.Errorf("valid %v to %v", p.NotBefore, p.NotAfter)
	}
	short := testIntermediate(t, root, KeyEd25519)
	der, err := root.CreateIntermediate(short.key.Public(), testNow, time.Hour, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short.Intermediate = parse(t, der)
	w := newWorkbench(t, RoleNode)
	w.cert.NotAfter = testNow.Add(48 * time.Hour)
	p, err = testStore(t, root).Verify([]*x509.Certificate{w.sign(short), short.Intermediate}, "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	if want := testNow.Add(time.Hour); !p.NotAfter.Equal(want) {
		t.Errorf("ends %v, want %v, when its authority does", p.NotAfter, want)
	}
}

func TestRevokedLeafAndIntermediateAreRefused(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	below := testIntermediate(t, root, KeyP256)
	direct := testIssue(t, root, RoleNode, "one", KeyEd25519)
	free := testIssue(t, root, RoleNode, "two", KeyEd25519)
	viaBelow := testIssue(t, below, RoleNode, "three", KeyEd25519)
	entry := func(c *x509.Certificate) x509.RevocationListEntry {
		return x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: testNow}
	}
	list := signList(t, root, 2, entry(direct.leaf), entry(below.Intermediate))
	store := testStore(t, root, list)
	_, err := store.VerifyDER(direct.chain, testDomain, testNow)
	wantReason(t, err, ReasonRevoked)
	_, err = store.VerifyDER(viaBelow.chain, testDomain, testNow)
	wantReason(t, err, ReasonRevoked)
	p, err := store.VerifyDER(free.chain, testDomain, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if p.RevocationUnknown {
		t.Error("revocation unknown although the list is there")
	}
	// An expired list stays in force.
	_, err = store.VerifyDER(direct.chain, testDomain, direct.leaf.NotAfter)
	wantReason(t, err, ReasonRevoked)
}

// A serial number is revoked for its issuer alone.
func TestRevocationIsPerIssuer(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	below := testIntermediate(t, root, KeyEd25519)
	viaBelow := testIssue(t, below, RoleNode, "three", KeyEd25519)
	list := signList(t, root, 1, x509.RevocationListEntry{SerialNumber: viaBelow.leaf.SerialNumber, RevocationTime: testNow})
	p, err := testStore(t, root, list).VerifyDER(viaBelow.chain, testDomain, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if !p.RevocationUnknown {
		t.Error("the intermediate's list is missing, and the peer does not say so")
	}
}

func signList(t testing.TB, a *Authority, number int64, entries ...x509.RevocationListEntry) []byte {
	t.Helper()
	der, err := a.SignCRL(big.NewInt(number), entries, testNow, time.Hour, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRequireRoleTellsNodesFromRouters(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	p, err := testStore(t, root).VerifyDER(testIssue(t, root, RoleNode, "one", KeyEd25519).chain, "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.RequireRole(RoleNode); err != nil {
		t.Error(err)
	}
	wantReason(t, p.RequireRole(RoleRouter), ReasonWrongRole)
}

func TestEveryReasonHasALabelOfItsOwn(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range Reasons() {
		if r.String() == "" || seen[r.String()] {
			t.Errorf("reason %d has the label %q", r, r)
		}
		seen[r.String()] = true
	}
}
