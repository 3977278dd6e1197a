package pki

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func keyFile(t testing.TB, who issued) *fstest.MapFile {
	t.Helper()
	text, err := EncodeKey(who.key)
	if err != nil {
		t.Fatal(err)
	}
	return file(text)
}

func nodeDir(t testing.TB, a *Authority, who issued) fstest.MapFS {
	t.Helper()
	return fstest.MapFS{
		FileKey: keyFile(t, who), FileRoot: rootFile(a),
		FileCert: file(EncodeCertificates(who.chain...)),
	}
}

// grantFor gives the holder of another identity a grant.
func grantFor(t testing.TB, a *Authority, who issued, name string) issued {
	t.Helper()
	old := testIssue(t, a, RoleRouter, name, KeyEd25519)
	der, err := a.Renew(old.leaf, who.key.Public(), testNow, DefaultLeafValidity, testRandom)
	if err != nil {
		t.Fatal(err)
	}
	return issued{key: who.key, leaf: parse(t, der), chain: a.Chain(der)}
}

func TestNodeIdentityLoads(t *testing.T) {
	root := testAuthority(t, testDomain, KeyEd25519)
	for name, a := range map[string]*Authority{"root": root, "intermediate": testIntermediate(t, root, KeyP256)} {
		for _, kind := range []KeyType{KeyEd25519, KeyP256} {
			who := testIssue(t, a, RoleNode, "one", kind)
			id, err := LoadIdentity(nodeDir(t, root, who))
			if err != nil {
				t.Fatalf("%s, %s: %v", name, kind, err)
			}
			if id.Peer.Name != "one" || id.Peer.Domain != testDomain || len(id.Grants) != 0 || !SameKey(id.Key.Public(), who.key.Public()) {
				t.Errorf("%s, %s: loaded %+v", name, kind, id)
			}
			if err := id.Check(nil, testNow); err != nil {
				t.Error(err)
			}
			wantReason(t, id.Check(nil, testNow.Add(365*24*time.Hour)), ReasonExpired)
			shown := id.TLSCertificate("")
			if len(shown.Certificate) != len(who.chain) || string(shown.Certificate[0]) != string(who.leaf.Raw) || shown.Leaf == nil {
				t.Errorf("%s: shows %d certificates", name, len(shown.Certificate))
			}
			if len(id.TLSCertificate(testDomain).Certificate) == 0 || len(id.TLSCertificate("lab.example").Certificate) != 0 {
				t.Errorf("%s: shows its certificate in another domain, or not in its own", name)
			}
		}
	}
}

func TestRouterIdentityHasOneKeyAndManyGrants(t *testing.T) {
	prod, lab := testAuthority(t, "prod.example", KeyEd25519), testAuthority(t, "lab.example", KeyP256)
	who := testIssue(t, prod, RoleRouter, "edge-1", KeyEd25519)
	inLab := grantFor(t, testIntermediate(t, lab, KeyEd25519), who, "edge-1")
	fsys := fstest.MapFS{
		FileKey:                   keyFile(t, who),
		"grants/prod.example.crt": file(EncodeCertificates(who.chain...)),
		"grants/lab.example.crt":  file(EncodeCertificates(inLab.chain...)),
	}
	id, err := LoadIdentity(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if id.Peer != nil || len(id.Grants) != 2 || id.Grants["lab.example"].Role != RoleRouter || len(id.Grants["lab.example"].Chain) != 2 {
		t.Errorf("loaded %+v", id)
	}
	if string(id.TLSCertificate("lab.example").Certificate[0]) != string(inLab.leaf.Raw) || len(id.TLSCertificate("").Certificate) != 0 {
		t.Error("shows another grant than the domain's")
	}
	if s, err := id.Store(); s != nil || err != nil {
		t.Error("a pure router has a root of its own")
	}
	store := load(t, fstest.MapFS{"prod.example/root.crt": rootFile(prod), "lab.example/root.crt": rootFile(lab)})
	if err := id.Check(store, testNow); err != nil {
		t.Error(err)
	}
	wantReason(t, id.Check(nil, testNow.Add(365*24*time.Hour)), ReasonExpired)
	wantReason(t, id.Check(testStore(t, prod), testNow), ReasonUnknownDomain)
}

func TestBadIdentitiesAreErrorsThatNameTheFileAndTheCommand(t *testing.T) {
	root, other := testAuthority(t, testDomain, KeyEd25519), testAuthority(t, testDomain, KeyEd25519)
	who, stranger := testIssue(t, root, RoleNode, "one", KeyEd25519), testIssue(t, root, RoleNode, "two", KeyEd25519)
	grant := grantFor(t, root, who, "edge-1")
	grantFile := file(EncodeCertificates(grant.chain...))
	cases := []struct {
		name, file, text string
		change           func(d fstest.MapFS)
	}{
		{"no key", FileKey, "causeway pki request --name NAME --out /id", func(d fstest.MapFS) { delete(d, FileKey) }},
		{"key open to the group", FileKey, "(mode 0640); run chmod 600 /id/node.key", func(d fstest.MapFS) { d[FileKey].Mode = 0o640 }},
		{"key open to others", FileKey, "(mode 0604); run chmod 600 /id/node.key", func(d fstest.MapFS) { d[FileKey].Mode = 0o604 }},
		{"key is no PEM", FileKey, "one PEM block PRIVATE KEY", func(d fstest.MapFS) { d[FileKey] = file([]byte("x")) }},
		{"another's key", FileCert, "is for another key than node.key; have this key certified: causeway pki issue --ca DIR --csr /id/node.csr", func(d fstest.MapFS) { d[FileKey] = keyFile(t, stranger) }},
		{"no certificate", FileCert, "causeway pki issue --ca DIR --csr /id/node.csr", func(d fstest.MapFS) { delete(d, FileCert) }},
		{"certificate is no PEM", FileCert, "no PEM block CERTIFICATE", func(d fstest.MapFS) { d[FileCert] = file(nil) }},
		{"no root", FileRoot, "copy the authority's root.crt to /id/root.crt", func(d fstest.MapFS) { delete(d, FileRoot) }},
		{"another root", FileCert, "does not fit root.crt", func(d fstest.MapFS) { d[FileRoot] = rootFile(other) }},
		{"leaf as root", FileRoot, "can't be trusted", func(d fstest.MapFS) { d[FileRoot] = d[FileCert] }},
		{"grant as node's certificate", FileCert, "not a node's certificate", func(d fstest.MapFS) { d[FileCert] = grantFile }},
		{"node's certificate as grant", "grants/prod.example.crt", "not a router's certificate", func(d fstest.MapFS) { d["grants/prod.example.crt"] = d[FileCert] }},
		{"another's grant", "grants/prod.example.crt", "causeway pki grant --ca DIR --csr /id/node.csr", func(d fstest.MapFS) {
			d["grants/prod.example.crt"] = file(EncodeCertificates(testIssue(t, root, RoleRouter, "edge-2", KeyEd25519).chain...))
		}},
		{"grant under another domain's name", "grants/lab.example.crt", "run mv /id/grants/lab.example.crt /id/grants/prod.example.crt", func(d fstest.MapFS) { d["grants/lab.example.crt"] = grantFile }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := nodeDir(t, root, who)
			c.change(d)
			_, err := LoadIdentity(d)
			var fe *FileError
			if !errors.As(err, &fe) {
				t.Fatalf("got %v, want a FileError", err)
			}
			text := WithDir(err, "/id").Error()
			if fe.File != c.file || !strings.Contains(text, c.text) {
				t.Errorf("got  %s\nwant file %s and %q", text, c.file, c.text)
			}
		})
	}
}

func TestErrorsNeverShowAKey(t *testing.T) {
	who := issued{key: testKey(t, KeyP256)}
	text := string(keyFile(t, who).Data)
	middle := strings.Split(text, "\n")[1]
	for _, spoilt := range []string{text + text, strings.Replace(text, "PRIVATE", "EC PRIVATE", 2), text[:len(text)-40], strings.Replace(text, middle[:8], "AAAAAAAA", 1)} {
		_, err := DecodeKey([]byte(spoilt))
		if err == nil || strings.Contains(err.Error(), middle[8:24]) {
			t.Errorf("got %v", err)
		}
	}
}
