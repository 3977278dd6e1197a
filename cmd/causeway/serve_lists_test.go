package main

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"causeway/crypto/pki"
)

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A list that other routers have sent takes the place of an older one in the trust
// store, and never of a newer one.
func TestListsAreSavedAndDoNotGoBack(t *testing.T) {
	const domain = "prod.example"
	now := time.Now()
	key, err := pki.NewKey(pki.KeyEd25519, rand.Reader)
	must(t, key, err)
	der, err := pki.CreateRoot(domain, key, now, time.Hour, rand.Reader)
	must(t, der, err)
	root, err := x509.ParseCertificate(der)
	must(t, root, err)
	ca, err := pki.NewAuthority(domain, root, nil, key)
	must(t, ca, err)
	f := serveFlags{trust: t.TempDir()}
	list := func(number int64) []byte {
		der, err := ca.SignCRL(big.NewInt(number), nil, now, time.Hour, rand.Reader)
		return must(t, der, err)
	}
	if f.saveList(domain, list(1)) == nil {
		t.Error("saved where there is no domain")
	}
	dir := filepath.Join(f.trust, domain)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, caRoot), pki.EncodeCertificates(der), modePublic); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		number int64
		want   string
	}{{2, "2"}, {3, "3"}, {2, "3"}, {4, "4"}} {
		if err := f.saveList(domain, list(step.number)); err != nil {
			t.Fatal(err)
		}
		store, err := pki.LoadStore(os.DirFS(f.trust))
		must(t, store, err)
		if lists := store.Lists(domain); len(lists) != 1 || lists[0].Number != step.want {
			t.Errorf("after number %d: %v", step.number, lists)
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*.crl")); err != nil || len(files) != 1 {
		t.Errorf("%v: %v", files, err)
	}
	if f.saveList(domain, []byte("no list")) == nil {
		t.Error("saved what is no list")
	}
}
