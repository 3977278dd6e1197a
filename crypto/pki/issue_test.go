package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openssl runs the openssl program at testNow. A machine without it fails the
// test: that its users can read our files is a promise.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if args[0] == "verify" {
		args = append([]string{"verify", "-attime", fmt.Sprint(testNow.Unix())}, args[1:]...)
	}
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("this test needs the openssl program: install it")
	}
	return string(out), err
}

func opensslTakes(t *testing.T, args ...string) string {
	t.Helper()
	out, err := openssl(t, args...)
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func writeTemp(t *testing.T, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenSSLTakesWhatIsIssued(t *testing.T) {
	for _, kind := range []KeyType{KeyEd25519, KeyP256} {
		for _, domain := range []string{testDomain, "single", strings.Repeat("a-long-label.", 18) + "example"} {
			root := testAuthority(t, domain, kind)
			for unit, a := range map[string]*Authority{"root": root, "intermediate": testIntermediate(t, root, kind)} {
				for _, role := range []Role{RoleNode, RoleRouter} {
					for _, name := range []string{"one", "db.rack-2.example", strings.Repeat("n", nameMax)} {
						t.Run(fmt.Sprintf("%s/%.12s/%s/%s/%.12s", kind, domain, unit, role, name), func(t *testing.T) {
							opensslVerifies(t, a, testIssue(t, a, role, name, kind), role)
						})
					}
				}
			}
		}
	}
}

func opensslVerifies(t *testing.T, a *Authority, who issued, role Role) {
	dir := t.TempDir()
	leaf := writeTemp(t, dir, "leaf.crt", EncodeCertificates(who.chain[0]))
	common := []string{"verify", "-x509_strict", "-check_ss_sig",
		"-CAfile", writeTemp(t, dir, "root.crt", EncodeCertificates(a.Root.Raw)),
		"-CRLfile", writeTemp(t, dir, "crl.pem", EncodeCRL(signList(t, a, 1))), "-crl_check"}
	if len(who.chain) > 1 {
		common = append(common, "-untrusted", writeTemp(t, dir, "intermediate.crt", EncodeCertificates(who.chain[1])))
	}
	for _, purpose := range []string{"sslclient", "sslserver"} {
		opensslTakes(t, append(common, "-purpose", purpose, leaf)...)
	}
	address := addressText([AddressSize]byte(who.leaf.IPAddresses[0]))
	opensslTakes(t, append(common, "-verify_ip", address, leaf)...)
	_, err := openssl(t, append(common, "-verify_hostname", a.Domain, leaf)...)
	if asHost := err == nil; asHost != (role == RoleRouter) {
		t.Errorf("a %s passes as the host %s: %v", role, a.Domain, asHost)
	}
}

func TestOpenSSLSeesRevocation(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	who := testIssue(t, root, RoleNode, "one", KeyEd25519)
	dir := t.TempDir()
	list := signList(t, root, 2, x509.RevocationListEntry{SerialNumber: who.leaf.SerialNumber, RevocationTime: testNow})
	crl := writeTemp(t, dir, "crl.pem", EncodeCRL(list))
	rootPath := writeTemp(t, dir, "root.crt", EncodeCertificates(root.Root.Raw))
	out, err := openssl(t, "verify", "-x509_strict", "-crl_check", "-CAfile", rootPath, "-CRLfile", crl,
		writeTemp(t, dir, "leaf.crt", EncodeCertificates(who.chain...)))
	if err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl says: %s (%v)", out, err)
	}
	text := opensslTakes(t, "crl", "-in", crl, "-noout", "-text", "-CAfile", rootPath)
	if !strings.Contains(text, "verify OK") || !strings.Contains(text, "CRL Number") {
		t.Errorf("openssl crl says: %s", text)
	}
}

// What a root's constraints are good for: whoever trusts it with a stock
// program trusts it for nothing but its domain.
func TestConstraintsBindBothGoAndOpenSSL(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	dir := t.TempDir()
	rootPath := writeTemp(t, dir, "root.crt", EncodeCertificates(root.Root.Raw))
	foreign, err := NewAddress("lab.example", KindRouter, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]altName{
		"host": dnsName("www.example"), "uri": uriName("dbw://lab.example/one"), "address": ipName(foreign),
	} {
		w := newWorkbench(t, RoleRouter)
		w.names = []altName{n}
		leaf := w.sign(root)
		if _, err := openssl(t, "verify", "-CAfile", rootPath, writeTemp(t, dir, "leaf.crt", EncodeCertificates(leaf.Raw))); err == nil {
			t.Errorf("openssl takes a foreign %s", name)
		}
		if err := checkPath([]*x509.Certificate{leaf, root.Root}, testNow); err == nil {
			t.Errorf("crypto/x509 takes a foreign %s", name)
		}
	}
}

func TestOpenSSLReadsKeysAndRequests(t *testing.T) {
	dir := t.TempDir()
	for _, kind := range []KeyType{KeyEd25519, KeyP256} {
		key := testKey(t, kind)
		text, err := EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		opensslTakes(t, "pkey", "-noout", "-check", "-in", writeTemp(t, dir, "node.key", text))
		again, err := DecodeKey(text)
		if err != nil || !SameKey(again.Public(), key.Public()) || KeyTypeOf(again.Public()) != kind {
			t.Errorf("a key of type %s came back as another: %v", kind, err)
		}
		for _, role := range []Role{RoleNode, RoleRouter} {
			name := strings.Repeat("n", nameMax)
			der, err := CreateRequest(name, role, key, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			out := opensslTakes(t, "req", "-verify", "-noout", "-subject", "-in", writeTemp(t, dir, "node.csr", EncodeRequest(der)))
			if !strings.Contains(out, "verify OK") {
				t.Errorf("openssl req says: %s", out)
			}
			r, err := DecodeRequest(EncodeRequest(der))
			if err != nil || r.Name != name || r.Role != role || !SameKey(r.Public, key.Public()) {
				t.Errorf("the request came back as %+v, %v", r, err)
			}
			if parsed, err := x509.ParseCertificateRequest(der); err != nil || len(parsed.Extensions) != 0 {
				t.Errorf("the request asks for more than a name: %v", err)
			}
		}
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	key := testKey(t, KeyEd25519)
	der, err := CreateRequest("one", RoleNode, key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	renamed := bytes.Replace(der, []byte("one"), []byte("two"), 1)
	rsaDER, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey(t))
	if err != nil {
		t.Fatal(err)
	}
	nameless, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	check := func(text []byte, want error) {
		t.Helper()
		if _, err := DecodeRequest(text); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	check(EncodeRequest(renamed), errRequestSig)
	check(EncodeRequest(rsaDER), errKeyKind)
	check(EncodeRequest(nameless), errEmpty)
	check([]byte("hello"), errRequestPEM)
	check(pemText(pemRequest, "AAAA"), nil)
	check(append(EncodeRequest(der), EncodeRequest(der)...), errRequestPEM)
	if _, err := CreateRequest("Not a name", RoleNode, key, rand.Reader); err == nil {
		t.Error("a request with a bad name")
	}
}

func TestRenewalKeepsAddressAndName(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	store := testStore(t, root)
	for _, role := range []Role{RoleNode, RoleRouter} {
		old := testIssue(t, root, role, "one", KeyEd25519)
		before, err := store.VerifyDER(old.chain, "", testNow)
		if err != nil {
			t.Fatal(err)
		}
		fresh := testKey(t, KeyP256)
		later := testNow.Add(29 * 24 * time.Hour)
		der, err := root.Renew(old.leaf, fresh.Public(), later, DefaultLeafValidity, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		after, err := store.VerifyDER(root.Chain(der), "", later.Add(29*24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if after.Address != before.Address || after.Name != before.Name || after.Role != before.Role || after.CertID == before.CertID {
			t.Errorf("renewed %+v as %+v", before, after)
		}
		if !SameKey(after.Public, fresh.Public()) {
			t.Error("the new key is not in it")
		}
	}
	lab := testAuthority(t, "lab.example", KeyEd25519)
	if _, err := root.Renew(testIssue(t, lab, RoleNode, "one", KeyEd25519).leaf, nil, testNow, time.Hour, rand.Reader); err == nil {
		t.Error("renewed what is another domain's")
	}
}

func TestNothingOutlivesItsAuthority(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	late := root.Root.NotAfter.Add(-time.Hour)
	address, err := NewAddress(testDomain, KindNode, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	subject := Subject{Role: RoleNode, Name: "one", Address: address, Public: testKey(t, KeyEd25519).Public()}
	der, err := root.Issue(subject, late, DefaultLeafValidity, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(t, der).NotAfter; !got.Equal(root.Root.NotAfter) {
		t.Errorf("ends %v, the root %v", got, root.Root.NotAfter)
	}
	if der, err = root.Issue(subject, testNow.Add(-time.Minute), time.Hour, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if got := parse(t, der).NotBefore; !got.Equal(root.Root.NotBefore) {
		t.Errorf("begins %v, the root %v", got, root.Root.NotBefore)
	}
	_, err = root.Issue(subject, root.Root.NotAfter.Add(time.Second), time.Hour, rand.Reader)
	wantReason(t, err, ReasonExpired)
	_, err = root.Issue(subject, root.Root.NotBefore.Add(-time.Second), time.Hour, rand.Reader)
	wantReason(t, err, ReasonNotYetValid)
	if _, err = root.Issue(subject, testNow, -time.Hour, rand.Reader); err == nil {
		t.Error("a negative validity passes")
	}
}

func TestIssueRefusesBadSubjects(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	good, err := NewAddress(testDomain, KindNode, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := NewAddress("lab.example", KindNode, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := testKey(t, KeyEd25519).Public()
	for name, s := range map[string]Subject{
		"bad name":        {RoleNode, "a/b", good, public},
		"foreign address": {RoleNode, "one", foreign, public},
		"node's kind":     {RoleRouter, "one", good, public},
		"RSA key":         {RoleNode, "one", good, rsaKey(t).Public()},
	} {
		if _, err := root.Issue(s, testNow, time.Hour, rand.Reader); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestAuthorityNeedsWhatFits(t *testing.T) {
	root, other := testAuthority(t, testDomain, KeyEd25519), testAuthority(t, testDomain, KeyEd25519)
	below := testIntermediate(t, root, KeyEd25519)
	check := func(name string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	_, err := NewAuthority(testDomain, root.Root, nil, other.key)
	check("another's key", err)
	_, err = NewAuthority(testDomain, root.Root, below.Intermediate, root.key)
	check("root's key for the intermediate", err)
	_, err = NewAuthority(testDomain, other.Root, below.Intermediate, below.key)
	check("another root's intermediate", err)
	_, err = NewAuthority("lab.example", root.Root, nil, root.key)
	check("another domain", err)
	_, err = NewAuthority("Bad", root.Root, nil, root.key)
	check("bad domain", err)
	_, err = below.CreateIntermediate(other.key.Public(), testNow, time.Hour, rand.Reader)
	check("an intermediate below an intermediate", err)
	_, err = CreateRoot("Bad", root.key, testNow, time.Hour, rand.Reader)
	check("a root of a bad domain", err)
	_, err = CreateRoot(testDomain, rsaKey(t), testNow, time.Hour, rand.Reader)
	check("an RSA root", err)
}

func TestDomainOfRootIsItsConstraintOrName(t *testing.T) {
	long := strings.Repeat("a-long-label.", 18) + "example"
	for _, domain := range []string{testDomain, long} {
		if got, ok := DomainOfRoot(testAuthority(t, domain, KeyEd25519).Root); !ok || got != domain {
			t.Errorf("got %s, want %s", got, domain)
		}
	}
	if got, ok := DomainOfRoot(plainRoot(t).Root); !ok || got != testDomain {
		t.Errorf("got %s of a root without constraints", got)
	}
}

func TestSerialsArePositiveLongAndDifferent(t *testing.T) {
	seen := make(map[string]bool)
	for range 100 {
		n, err := newSerial(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if n.Sign() <= 0 || n.BitLen() < 64 || n.BitLen() > 127 || seen[n.String()] {
			t.Fatalf("serial %x", n)
		}
		seen[n.String()] = true
	}
	if _, err := newSerial(bytes.NewReader(nil)); err == nil {
		t.Error("a serial number without randomness")
	}
}

func TestKeysComeFromTheRandomnessGiven(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, 32)
	for _, kind := range []KeyType{KeyEd25519, KeyP256} {
		a, err := NewKey(kind, bytes.NewReader(seed))
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewKey(kind, bytes.NewReader(seed))
		if err != nil || !SameKey(a.Public(), b.Public()) {
			t.Errorf("%s: same bytes, other key: %v", kind, err)
		}
		if _, err := NewKey(kind, bytes.NewReader(seed[1:])); err == nil {
			t.Errorf("%s: a key from 31 bytes", kind)
		}
	}
	if _, err := NewKey(KeyP256, bytes.NewReader(make([]byte, 32*p256Tries))); err == nil {
		t.Error("a P-256 key from zeros")
	}
	if _, err := NewKey("rsa", rand.Reader); err == nil {
		t.Error("an RSA key")
	}
}

func TestListNumberIsWhatWasAsked(t *testing.T) {
	root := testAuthority(t, testDomain, KeyP256)
	list, err := ParseCRL(signList(t, root, 41))
	if err != nil || list.Number.Cmp(big.NewInt(41)) != 0 {
		t.Errorf("number %v, %v", list, err)
	}
}
