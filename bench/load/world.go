package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

const (
	domainName = "bench.example"
	routerName = "edge-1"

	caValidity   = 48 * time.Hour
	leafValidity = 24 * time.Hour

	modeDir    = 0o700
	modeSecret = 0o600
)

// world is a domain of its own: an authority in memory, a router's identity and
// trust store in a directory, and nodes.
type world struct {
	dir       string // holds router/ and trust/
	authority *pki.Authority
	grant     codec.Address // the router's address
}

// node is all that the load needs to be a node; it goes to it as JSON.
type node struct {
	Address codec.Address
	Seed    []byte   // of its Ed25519 key
	Chain   [][]byte // DER, leaf first, without the root
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// newWorld makes a domain below dir, which exists.
func newWorld(dir string) (*world, error) {
	now := time.Now()
	key, err := pki.NewKey(pki.KeyEd25519, rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := pki.CreateRoot(domainName, key, now, caValidity, rand.Reader)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir}
	if w.authority, err = pki.NewAuthority(domainName, root, nil, key); err != nil {
		return nil, err
	}
	return w, w.writeRouter(now)
}

// writeRouter makes the router's identity and the trust store.
func (w *world) writeRouter(now time.Time) error {
	key, err := pki.NewKey(pki.KeyEd25519, rand.Reader)
	if err != nil {
		return err
	}
	if w.grant, err = pki.NewAddress(domainName, pki.KindRouter, rand.Reader); err != nil {
		return err
	}
	grant, err := w.authority.Issue(pki.Subject{Role: pki.RoleRouter, Name: routerName, Address: w.grant, Public: key.Public()}, now, leafValidity, rand.Reader)
	if err != nil {
		return err
	}
	keyText, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	root := pki.EncodeCertificates(w.authority.Root.Raw)
	files := []struct {
		name string
		text []byte
	}{
		{filepath.Join("router", pki.FileKey), keyText},
		{filepath.Join("router", pki.DirGrants, domainName+".crt"), pki.EncodeCertificates(w.authority.Chain(grant)...)},
		{filepath.Join("trust", domainName, "root.crt"), root},
	}
	for _, f := range files {
		name := w.path(f.name)
		if err := os.MkdirAll(filepath.Dir(name), modeDir); err != nil {
			return err
		}
		if err := os.WriteFile(name, f.text, modeSecret); err != nil {
			return err
		}
	}
	return nil
}

// newNodes issues n nodes.
func (w *world) newNodes(n int) ([]node, error) {
	now := time.Now()
	nodes := make([]node, n)
	for i := range nodes {
		seed := make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(seed); err != nil {
			return nil, err
		}
		address, err := pki.NewAddress(domainName, pki.KindNode, rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := w.authority.Issue(pki.Subject{
			Role: pki.RoleNode, Name: fmt.Sprintf("node-%d", i), Address: address,
			Public: ed25519.NewKeyFromSeed(seed).Public(),
		}, now, leafValidity, rand.Reader)
		if err != nil {
			return nil, err
		}
		nodes[i] = node{Address: address, Seed: seed, Chain: w.authority.Chain(der)}
	}
	return nodes, nil
}
