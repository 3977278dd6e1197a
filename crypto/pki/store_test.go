package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io/fs"
	"math/big"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// Two domains whose names have the same first 40 bits of SHA-256; found by
// trying d0.example, d1.example and so on.
const collidingA, collidingB = "d1090933.example", "d1862765.example"

func file(text []byte) *fstest.MapFile { return &fstest.MapFile{Data: text, Mode: 0o600} }

func rootFile(a *Authority) *fstest.MapFile { return file(EncodeCertificates(a.Root.Raw)) }

func load(t testing.TB, fsys fs.FS) *Store {
	t.Helper()
	s, err := LoadStore(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func alarmKindsOf(s *Store, now time.Time) string {
	var kinds []string
	for _, a := range s.Alarms(now) {
		kinds = append(kinds, a.Domain+" "+a.Kind.String())
		if a.String() == "" {
			kinds = append(kinds, "(no text)")
		}
	}
	return strings.Join(kinds, ", ")
}

func TestStoreOfTwoDomainsTellsThemApart(t *testing.T) {
	prod, lab := testAuthority(t, "prod.example", KeyEd25519), testAuthority(t, "lab.example", KeyP256)
	s := load(t, fstest.MapFS{
		"prod.example/root.crt": rootFile(prod), "prod.example/root.crl": file(EncodeCRL(signList(t, prod, 1))),
		"lab.example/root.crt": rootFile(lab), "lab.example/root.crl": file(EncodeCRL(signList(t, lab, 1))),
		"lab.example/README": file([]byte("hello")), ".hidden": file(nil), "lab.example/.tmp.crt": file([]byte("half")),
	})
	if got := strings.Join(s.Domains(), " "); got != "lab.example prod.example" {
		t.Errorf("domains %s", got)
	}
	if got := alarmKindsOf(s, testNow); got != "" {
		t.Errorf("alarms %s", got)
	}
	leaf := testIssue(t, lab, RoleNode, "one", KeyEd25519)
	if _, err := s.VerifyDER(leaf.chain, "lab.example", testNow); err != nil {
		t.Error(err)
	}
	_, err := s.VerifyDER(leaf.chain, "prod.example", testNow)
	wantReason(t, err, ReasonUnknownRoot)
	if len(s.Roots("lab.example")) != 1 || s.Roots("x") != nil || len(s.CRLs("lab.example")) != 1 || s.CRLs("x") != nil {
		t.Error("Roots or CRLs are not those of the domain")
	}
}

func TestTwoRootsServeWhileOneReplacesTheOther(t *testing.T) {
	old, fresh := testAuthority(t, testDomain, KeyEd25519), testAuthority(t, testDomain, KeyEd25519)
	s := load(t, fstest.MapFS{
		"prod.example/root.crt":   rootFile(old),
		"prod.example/root-2.crt": rootFile(fresh),
		"prod.example/a.crl":      file(EncodeCRL(signList(t, old, 7))),
		"prod.example/b.crl":      file(EncodeCRL(signList(t, fresh, 1))),
	})
	for _, a := range []*Authority{old, fresh} {
		p, err := s.VerifyDER(testIssue(t, a, RoleNode, "one", KeyEd25519).chain, testDomain, testNow)
		if err != nil {
			t.Fatal(err)
		}
		if p.RevocationUnknown {
			t.Error("a root's list was not found")
		}
	}
}

func TestIntermediateInTheStoreBringsItsList(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	below := testIntermediate(t, root, KeyEd25519)
	leaf := testIssue(t, below, RoleNode, "one", KeyEd25519)
	list := signList(t, below, 3, x509.RevocationListEntry{SerialNumber: leaf.leaf.SerialNumber, RevocationTime: testNow})
	s := load(t, fstest.MapFS{
		"prod.example/a-intermediate.crt": file(EncodeCertificates(below.Intermediate.Raw)),
		"prod.example/root.crt":           rootFile(root),
		"prod.example/a.crl":              file(EncodeCRL(list)),
	})
	_, err := s.VerifyDER(leaf.chain, testDomain, testNow)
	wantReason(t, err, ReasonRevoked)
	if got := alarmKindsOf(s, testNow); got != "prod.example crl-missing" {
		t.Errorf("alarms: %s; want the root's list missed", got)
	}
}

func TestBadStoresAreErrorsThatNameTheFile(t *testing.T) {
	prod, lab := testAuthority(t, "prod.example", KeyEd25519), testAuthority(t, "lab.example", KeyEd25519)
	leaf := testIssue(t, prod, RoleNode, "one", KeyEd25519)
	key, err := EncodeKey(leaf.key)
	if err != nil {
		t.Fatal(err)
	}
	list := signList(t, prod, 1)
	forged := append([]byte(nil), list...)
	forged[len(forged)-1] ^= 1
	plain := plainRoot(t)
	cases := []struct {
		name, file, problem string
		fsys                fstest.MapFS
	}{
		{"no root", "prod.example", "no root", fstest.MapFS{"prod.example/README": file(nil)}},
		{"bad domain name", "Prod", "not named after a domain", fstest.MapFS{"Prod/root.crt": rootFile(prod)}},
		{"file among the directories", "prod.crt", "directory for each domain", fstest.MapFS{"prod.crt": rootFile(prod)}},
		{"no PEM", "prod.example/root.crt", "no PEM block", fstest.MapFS{"prod.example/root.crt": file([]byte("hello"))}},
		{"broken certificate", "prod.example/root.crt", "no certificates to go by", fstest.MapFS{"prod.example/root.crt": file(pemText(pemCertificate, "junk"))}},
		{"key in it", "prod.example/root.crt", "private key", fstest.MapFS{"prod.example/root.crt": file(append(rootFile(prod).Data, key...))}},
		{"other block", "prod.example/root.crt", "no certificate", fstest.MapFS{"prod.example/root.crt": file(EncodeCRL(list))}},
		{"leaf as root", "prod.example/root.crt", "signed by no root", fstest.MapFS{"prod.example/root.crt": file(EncodeCertificates(leaf.chain[0]))}},
		{"leaf as intermediate", "prod.example/node.crt", "is no authority", fstest.MapFS{
			"prod.example/root.crt": rootFile(prod), "prod.example/node.crt": file(EncodeCertificates(leaf.chain[0]))}},
		{"another domain's root", "prod.example/root.crt", "another domain", fstest.MapFS{"prod.example/root.crt": rootFile(lab)}},
		{"one root in two domains", "prod.example/root.crt", "already the root of another domain, lab.example", fstest.MapFS{
			"lab.example/root.crt": rootFile(plain), "prod.example/root.crt": rootFile(plain)}},
		{"no list", "prod.example/a.crl", "one PEM block X509 CRL", fstest.MapFS{
			"prod.example/root.crt": rootFile(prod), "prod.example/a.crl": file([]byte("x"))}},
		{"two lists in one file", "prod.example/a.crl", "one PEM block X509 CRL", fstest.MapFS{
			"prod.example/root.crt": rootFile(prod), "prod.example/a.crl": file(append(EncodeCRL(list), EncodeCRL(list)...))}},
		{"forged list", "prod.example/a.crl", "signed by none", fstest.MapFS{
			"prod.example/root.crt": rootFile(prod), "prod.example/a.crl": file(EncodeCRL(forged))}},
		{"another domain's list", "prod.example/a.crl", "signed by none", fstest.MapFS{
			"prod.example/root.crt": rootFile(prod), "prod.example/a.crl": file(EncodeCRL(signList(t, lab, 1)))}},
		{"file too large", "prod.example/root.crt", "more than", fstest.MapFS{"prod.example/root.crt": file(make([]byte, fileMax+1))}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadStore(c.fsys)
			var fe *FileError
			if !errors.As(err, &fe) {
				t.Fatalf("got %v, want a FileError", err)
			}
			if fe.File != c.file || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("got %q of file %q; want %q of %q", err, fe.File, c.problem, c.file)
			}
			if placed := WithDir(err, "/etc/trust").Error(); !strings.HasPrefix(placed, "/etc/trust/"+c.file) || strings.Contains(placed, dirMark) {
				t.Errorf("with its directory: %s", placed)
			}
		})
	}
	if _, err := LoadStore(fstest.MapFS{}); err != nil {
		t.Errorf("an empty store: %v", err)
	}
}

func pemText(kind, content string) []byte {
	return []byte("-----BEGIN " + kind + "-----\n" + strings.TrimRight(content, "\n") + "\n-----END " + kind + "-----\n")
}

func TestRootsThatAreNoneAreRefused(t *testing.T) {
	cases := []struct {
		name  string
		want  error
		spoil func(c *x509.Certificate)
	}{
		{"no authority", errNotCA, func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLen = -1 }},
		{"no keyCertSign", errNotCA, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }},
		{"critical extension", errCACritical, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}},
		{"constrained elsewhere", errOtherPrefix, func(c *x509.Certificate) { c.PermittedIPRanges[0] = prefixNet("lab.example") }},
	}
	for _, c := range cases {
		key := testKey(t, KeyEd25519)
		tmpl, err := caTemplate(testDomain, "", key.Public(), testNow, time.Hour, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(tmpl)
		_, err = NewStore(testDomain, []*x509.Certificate{sign(t, tmpl, tmpl, key.Public(), key)})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	rsa := rsaKey(t)
	tmpl, err := caTemplate(testDomain, "", testKey(t, KeyP256).Public(), testNow, time.Hour, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewStore(testDomain, []*x509.Certificate{sign(t, tmpl, tmpl, rsa.Public(), rsa)}); !errors.Is(err, errCAKey) {
		t.Errorf("RSA root: %v", err)
	}
	other := testKey(t, KeyEd25519)
	if _, err := NewStore(testDomain, []*x509.Certificate{sign(t, tmpl, tmpl, testKey(t, KeyEd25519).Public(), other)}); err == nil {
		t.Error("a root signed by another key passes")
	}
	if _, err := NewStore("Bad", nil); err == nil {
		t.Error("a domain of a bad name passes")
	}
	if _, err := NewStore(testDomain, nil); err == nil {
		t.Error("a domain without roots passes")
	}
}

func TestCollidingPrefixIsLeftOutWithAnAlarm(t *testing.T) {
	if Prefix(collidingA) != Prefix(collidingB) {
		t.Fatal("the test's domains do not collide")
	}
	a, b := testAuthority(t, collidingA, KeyEd25519), testAuthority(t, collidingB, KeyEd25519)
	both := fstest.MapFS{
		collidingA + "/root.crt": rootFile(a), collidingA + "/a.crl": file(EncodeCRL(signList(t, a, 1))),
		collidingB + "/root.crt": rootFile(b), collidingB + "/b.crl": file(EncodeCRL(signList(t, b, 1))),
	}
	s := load(t, both)
	if got := strings.Join(s.Domains(), " "); got != collidingA {
		t.Errorf("domains %s, want the first of the two", got)
	}
	if got := alarmKindsOf(s, testNow); got != collidingB+" prefix-taken" {
		t.Errorf("alarms %s", got)
	}
	// Who was there before the other came keeps it, whatever the order.
	before := load(t, fstest.MapFS{collidingB + "/root.crt": rootFile(b)})
	s, err := LoadStoreAfter(both, before)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Domains(), " "); got != collidingB {
		t.Errorf("domains %s after a reload, want the one that was there", got)
	}
}

func TestRevocationListNeverGoesBack(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	leaf := testIssue(t, root, RoleNode, "one", KeyEd25519)
	entry := x509.RevocationListEntry{SerialNumber: leaf.leaf.SerialNumber, RevocationTime: testNow}
	older, newer := signList(t, root, 255), signList(t, root, 256, entry)
	dir := func(lists ...[]byte) fstest.MapFS {
		m := fstest.MapFS{"prod.example/root.crt": rootFile(root)}
		for i, l := range lists {
			m["prod.example/"+string(rune('a'+i))+".crl"] = file(EncodeCRL(l))
		}
		return m
	}
	reload := func(prev *Store, fsys fs.FS) *Store {
		t.Helper()
		s, err := LoadStoreAfter(fsys, prev)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	revoked := func(s *Store, want bool) {
		t.Helper()
		_, err := s.VerifyDER(leaf.chain, testDomain, testNow)
		if got := err != nil; got != want {
			t.Errorf("revoked: %v (%v), want %v", got, err, want)
		}
	}
	first := load(t, dir(older))
	revoked(first, false)
	second := reload(first, dir(newer))
	revoked(second, true)
	revoked(load(t, dir(newer, older)), true)
	revoked(load(t, dir(older, newer)), true)
	for name, fsys := range map[string]fs.FS{"older": dir(older), "gone": dir()} {
		s := reload(second, fsys)
		revoked(s, true)
		if got := alarmKindsOf(s, testNow); got != "prod.example crl-went-back" {
			t.Errorf("%s: alarms %s", name, got)
		}
	}
	// The same over the network.
	received, err := first.WithCRL(testDomain, newer)
	if err != nil {
		t.Fatal(err)
	}
	revoked(received, true)
	revoked(first, false)
	if again, err := received.WithCRL(testDomain, older); err != nil || again != received {
		t.Errorf("an older list changed the store: %v", err)
	}
	if again, err := received.WithCRL(testDomain, newer); err != nil || again != received {
		t.Errorf("the same list changed the store: %v", err)
	}
	if _, err := received.WithCRL(testDomain, signList(t, testAuthority(t, testDomain, KeyEd25519), 999)); !errors.Is(err, errListIssuer) {
		t.Errorf("a stranger's list: %v", err)
	}
	_, err = received.WithCRL("lab.example", newer)
	wantReason(t, err, ReasonUnknownDomain)
}

func TestListsThatMeanSomethingElseAreRefused(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}
	list := func(spoil func(l *x509.RevocationList)) []byte {
		l := &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: testNow, NextUpdate: testNow.Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: testNow}},
		}
		spoil(l)
		der, err := x509.CreateRevocationList(rand.Reader, l, root.Root, root.key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	check := func(der []byte, want error) {
		t.Helper()
		if _, err := ParseCRL(der); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	check(list(func(*x509.RevocationList) {}), nil)
	// The OID of the number, 2.5.29.20, becomes another.
	check(bytes.Replace(list(func(*x509.RevocationList) {}), []byte{0x55, 0x1d, 20}, []byte{0x55, 0x1d, 99}, 1), errListNumber)
	check(list(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical} }), errListCritical)
	check(list(func(l *x509.RevocationList) {
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{critical}
	}), errListCritical)
}

func TestAlarmsFollowTheClock(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	s := load(t, fstest.MapFS{
		"prod.example/root.crt": rootFile(root),
		"prod.example/a.crl":    file(EncodeCRL(signList(t, root, 1))), // for an hour
	})
	check := func(now time.Time, want string) {
		t.Helper()
		if got := alarmKindsOf(s, now); got != want {
			t.Errorf("at %v: alarms %q, want %q", now, got, want)
		}
	}
	check(testNow, "")
	check(testNow.Add(time.Hour), "")
	check(testNow.Add(time.Hour+time.Second), "prod.example crl-expired")
	check(testNow.Add(-time.Hour), "prod.example root-not-yet-valid")
	check(root.Root.NotAfter.Add(time.Second), "prod.example crl-expired, prod.example root-expired")
	bare := load(t, fstest.MapFS{"prod.example/root.crt": rootFile(root)})
	if got := alarmKindsOf(bare, testNow); got != "prod.example crl-missing" {
		t.Errorf("without a list: alarms %q", got)
	}
}
