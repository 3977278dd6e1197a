package pki

import (
	"strings"
	"testing"
	"testing/fstest"
)

// fixedAuthority is the same in every process of the fuzzer.
func fixedAuthority(t testing.TB) *Authority {
	key, err := NewKey(KeyEd25519, strings.NewReader(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	der, err := CreateRoot(testDomain, key, testNow, DefaultCAValidity, strings.NewReader(strings.Repeat("s", serialSize)))
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthority(testDomain, parse(t, der), nil, key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// FuzzChain feeds two certificates to a store that trusts the vectors' roots.
// Whatever passes keeps the rules that can be told from outside.
func FuzzChain(f *testing.F) {
	fsys := fstest.MapFS{}
	for _, d := range vectors(f) {
		fsys[d.Domain+"/root.crt"] = file([]byte(d.Root))
	}
	store := load(f, fsys)
	for _, d := range vectors(f) {
		root := decodeOne(f, d.Root).Raw
		f.Add(decodeOne(f, d.Node.Certificate).Raw, []byte(nil))
		f.Add(decodeOne(f, d.Grant.Certificate).Raw, root)
		f.Add(root, root)
	}
	f.Fuzz(func(t *testing.T, leaf, second []byte) {
		chain := [][]byte{leaf}
		if len(second) > 0 {
			chain = append(chain, second)
		}
		p, err := store.VerifyDER(chain, "", testNow)
		if err != nil {
			r, ok := ReasonOf(err)
			if !ok || r.String() == "" || err.Error() == "" {
				t.Errorf("refused without a reason: %v", err)
			}
			return
		}
		if prefixOf(p.Address) != Prefix(p.Domain) || kindOf(p.Address) != p.Role.Kind() || CheckName(p.Name) != nil {
			t.Errorf("passes as %+v", p)
		}
	})
}

// FuzzLeafRules runs the leaf's own rules on certificates whose signature
// nobody checked: the fuzzer can't sign, and these must stand alone.
func FuzzLeafRules(f *testing.F) {
	for _, d := range vectors(f) {
		for _, v := range []vectorCert{d.Node, d.Grant} {
			f.Add(decodeOne(f, v.Certificate).Raw)
		}
		f.Add(decodeOne(f, d.Root).Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		certs, err := DecodeCertificates(EncodeCertificates(der))
		if err != nil {
			return
		}
		checkIntermediate(certs[0], testDomain)
		checkRoot(certs[0], testDomain)
		p, err := peerOf(certs[0], "")
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a word")
			}
			return
		}
		if prefixOf(p.Address) != Prefix(p.Domain) || kindOf(p.Address) != p.Role.Kind() || p.Leaf.IsCA {
			t.Errorf("passes as %+v", p)
		}
	})
}

// FuzzStore reads a trust store of one domain with any root and any list.
func FuzzStore(f *testing.F) {
	for _, d := range vectors(f) {
		f.Add(d.Domain, []byte(d.Root), []byte{})
	}
	a := fixedAuthority(f)
	f.Add(testDomain, EncodeCertificates(a.Root.Raw), EncodeCRL(signList(f, a, 1)))
	f.Fuzz(func(t *testing.T, domain string, root, list []byte) {
		if domain == "" || strings.ContainsAny(domain, "/\x00") || domain == "." || domain == ".." {
			return
		}
		fsys := fstest.MapFS{domain + "/root.crt": file(root)}
		if len(list) > 0 {
			fsys[domain+"/a.crl"] = file(list)
		}
		s, err := LoadStore(fsys)
		if err != nil {
			return
		}
		for _, d := range s.Domains() {
			if CheckDomain(d) != nil || len(s.Roots(d)) == 0 {
				t.Errorf("loaded the domain %q with %d roots", d, len(s.Roots(d)))
			}
		}
		for _, alarm := range s.Alarms(testNow) {
			if alarm.String() == "" {
				t.Error("an alarm without a word")
			}
		}
	})
}

func FuzzCRL(f *testing.F) {
	a := fixedAuthority(f)
	f.Add(signList(f, a, 1))
	store := testStore(f, a)
	f.Fuzz(func(t *testing.T, der []byte) {
		list, err := ParseCRL(der)
		if err == nil && list.Number == nil {
			t.Error("a list without a number passes")
		}
		if _, err := store.WithCRL(testDomain, der); err == nil && list == nil {
			t.Error("a list that does not parse is in force")
		}
	})
}

// FuzzIdentity reads the files that people put into an identity directory.
func FuzzIdentity(f *testing.F) {
	for _, d := range vectors(f) {
		f.Add([]byte(d.Node.Key), []byte(d.Node.Certificate), []byte(d.Root), []byte(d.Grant.Certificate))
		f.Add([]byte(d.Grant.Key), []byte{}, []byte{}, []byte(d.Grant.Certificate))
	}
	f.Fuzz(func(t *testing.T, key, cert, root, grant []byte) {
		fsys := fstest.MapFS{FileKey: file(key), FileRoot: file(root)}
		if len(cert) > 0 {
			fsys[FileCert] = file(cert)
		}
		if len(root) == 0 {
			delete(fsys, FileRoot)
		}
		fsys["grants/prod.example.crt"] = file(grant)
		id, err := LoadIdentity(fsys)
		if err != nil {
			return
		}
		for _, p := range id.Grants {
			if !SameKey(p.Public, id.Key.Public()) {
				t.Error("a grant for another key")
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	der, err := CreateRequest("one", RoleRouter, testKey(f, KeyEd25519), testRandom)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		if r, err := DecodeRequest(EncodeRequest(der)); err == nil && (CheckName(r.Name) != nil || !keyAllowed(r.Public)) {
			t.Errorf("passes as %+v", r)
		}
	})
}
