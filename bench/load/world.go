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
	routersMax = 3 // in a row

	caValidity   = 48 * time.Hour
	leafValidity = 24 * time.Hour

	modeDir    = 0o700
	modeSecret = 0o600
)

// world is a domain of its own: an authority in memory, routers' identities and
// their trust store in a directory, and nodes.
type world struct {
	dir       string // holds what router and trust name
	authority *pki.Authority
	routers   []codec.Address // by their place in a row; where there is one router it is the first
}

// node is all that the load needs to be a node; it goes to it as JSON.
type node struct {
	Address codec.Address
	Seed    []byte   // of its Ed25519 key
	Chain   [][]byte // DER, leaf first, without the root
}

// router is the identity of the router at that place in a row.
func (w *world) router(place int) string { return filepath.Join(w.dir, routerName(place)) }

func (w *world) trust() string { return filepath.Join(w.dir, "trust") }

func routerName(place int) string { return fmt.Sprint("router-", place+1) }

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
	for place := range routersMax {
		if err := w.writeRouter(place, now); err != nil {
			return nil, err
		}
	}
	return w, writeSecret(filepath.Join(w.trust(), domainName, "root.crt"), pki.EncodeCertificates(root.Raw))
}

// writeRouter makes a router's identity.
func (w *world) writeRouter(place int, now time.Time) error {
	key, err := pki.NewKey(pki.KeyEd25519, rand.Reader)
	if err != nil {
		return err
	}
	address, err := pki.NewAddress(domainName, pki.KindRouter, rand.Reader)
	if err != nil {
		return err
	}
	w.routers = append(w.routers, address)
	grant, err := w.authority.Issue(pki.Subject{Role: pki.RoleRouter, Name: routerName(place), Address: address, Public: key.Public()}, now, leafValidity, rand.Reader)
	if err != nil {
		return err
	}
	keyText, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	if err := writeSecret(filepath.Join(w.router(place), pki.FileKey), keyText); err != nil {
		return err
	}
	crt := filepath.Join(w.router(place), pki.DirGrants, domainName+".crt")
	return writeSecret(crt, pki.EncodeCertificates(w.authority.Chain(grant)...))
}

// writeSecret writes a file, and makes its directory.
func writeSecret(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), modeDir); err != nil {
		return err
	}
	return os.WriteFile(name, text, modeSecret)
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
