package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// The layout of an identity directory.
const (
	FileKey    = "node.key"        // PKCS#8 PEM, for the owner's eyes only
	FileCert   = "node.crt"        // the node's certificate, then the intermediate if any
	FileRoot   = "root.crt"        // the root that a node trusts
	FileCSR    = "node.csr"        // the request, kept for renewals
	DirGrants  = "grants"          // of a router: DOMAIN.crt each, with intermediate if any
	openToMask = fs.FileMode(0077) // permissions that a key's file must not have
)

// Identity is what a node or a router is: one key, and the certificates that
// domains gave it. It is not changed after it was loaded.
type Identity struct {
	Peer   *Peer // the node's certificate; nil for a pure router
	Key    crypto.Signer
	Grants map[string]*Peer    // of a router: domain → grant
	Roots  []*x509.Certificate // from root.crt; a router may have none
}

// LoadIdentity reads an identity directory and checks all that can be checked
// without a clock and a trust store: that the key is well kept and fits the
// certificates, and that these keep the rules; a node's must also come from
// its root. Whether they are valid now, Check tells. Errors are *FileError;
// WithDir gives them the directory's name.
func LoadIdentity(fsys fs.FS) (*Identity, error) {
	key, err := loadKey(fsys)
	if err != nil {
		return nil, err
	}
	id := &Identity{Key: key, Grants: make(map[string]*Peer)}
	if err := id.loadRoots(fsys); err != nil {
		return nil, err
	}
	if err := id.loadNode(fsys); err != nil {
		return nil, err
	}
	if err := id.loadGrants(fsys); err != nil {
		return nil, err
	}
	if id.Peer == nil && len(id.Grants) == 0 {
		return nil, &FileError{File: FileCert, Problem: "is missing, and there are no grants: this identity has a key and no certificate",
			Remedy: "have the domain's authority run causeway pki issue --ca DIR --csr <dir>/" + FileCSR + " (for a router: causeway pki grant)"}
	}
	return id, nil
}

func loadKey(fsys fs.FS) (crypto.Signer, error) {
	info, err := fs.Stat(fsys, FileKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &FileError{File: FileKey, Problem: "does not exist: this is no identity directory",
			Remedy: "make one by causeway pki request --name NAME --out <dir>"}
	}
	if err != nil {
		return nil, &FileError{File: FileKey, Problem: "can't be read", Err: err}
	}
	if mode := info.Mode().Perm(); mode&openToMask != 0 {
		return nil, &FileError{File: FileKey, Problem: fmt.Sprintf("is a private key that others can read (mode %04o)", mode),
			Remedy: "run chmod 600 <dir>/" + FileKey}
	}
	text, err := readFile(fsys, FileKey, fileMax)
	if err != nil {
		return nil, err
	}
	key, err := DecodeKey(text)
	if err != nil {
		return nil, &FileError{File: FileKey, Problem: "holds no key to go by", Err: err,
			Remedy: "make a new identity by causeway pki request"}
	}
	return key, nil
}

func (id *Identity) loadRoots(fsys fs.FS) error {
	roots, err := readCertificates(fsys, FileRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	id.Roots = roots
	return err
}

// loadNode reads node.crt, if there is one, and verifies it against root.crt,
// at a time at which it is valid: an expired one can be looked at.
func (id *Identity) loadNode(fsys fs.FS) error {
	chain, err := readCertificates(fsys, FileCert)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(id.Roots) == 0 {
		return &FileError{File: FileRoot, Problem: "does not exist, so there is no root to trust",
			Remedy: "copy the authority's root.crt to <dir>/" + FileRoot}
	}
	peer, err := id.check(FileCert, chain, RoleNode)
	if err != nil {
		return err
	}
	store, err := NewStore(peer.Domain, id.Roots)
	if err != nil {
		return &FileError{File: FileRoot, Problem: "can't be trusted", Err: err, Remedy: "copy the authority's root.crt to <dir>/" + FileRoot}
	}
	if id.Peer, err = store.Verify(chain, peer.Domain, validTime(chain)); err != nil {
		return &FileError{File: FileCert, Problem: "does not fit " + FileRoot, Err: err,
			Remedy: "copy both " + FileCert + " and " + FileRoot + " from the authority that issued them"}
	}
	return nil
}

// validTime returns a time at which the chain is most likely valid as a
// whole: the latest beginning in it.
func validTime(chain []*x509.Certificate) time.Time {
	t := chain[0].NotBefore
	for _, c := range chain[1:] {
		if c.NotBefore.After(t) {
			t = c.NotBefore
		}
	}
	return t
}

func (id *Identity) loadGrants(fsys fs.FS) error {
	entries, err := fs.ReadDir(fsys, DirGrants)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &FileError{File: DirGrants, Problem: "can't be read", Err: err}
	}
	for _, e := range entries {
		if !wanted(e.Name(), certSuffix) {
			continue
		}
		file := path.Join(DirGrants, e.Name())
		chain, err := readCertificates(fsys, file)
		if err != nil {
			return err
		}
		grant, err := id.check(file, chain, RoleRouter)
		if err != nil {
			return err
		}
		if domain := strings.TrimSuffix(e.Name(), certSuffix); domain != grant.Domain {
			return &FileError{File: file, Problem: "is a grant of " + grant.Domain,
				Remedy: fmt.Sprintf("run mv %s/%s %s/%s/%s%s", dirMark, file, dirMark, DirGrants, grant.Domain, certSuffix)}
		}
		id.Grants[grant.Domain] = grant
	}
	return nil
}

// check reads the chain's leaf by the leaf's rules, and compares its key.
func (id *Identity) check(file string, chain []*x509.Certificate, role Role) (*Peer, error) {
	peer, err := peerOf(chain[0], "")
	if err == nil {
		err = peer.RequireRole(role)
	}
	if err != nil {
		where := "it belongs into <dir>/" + FileCert
		if role == RoleNode {
			where = "a router's belongs into <dir>/" + DirGrants
		}
		return nil, &FileError{File: file, Problem: "is not a " + role.String() + "'s certificate", Err: err, Remedy: where}
	}
	if !SameKey(peer.Public, id.Key.Public()) {
		return nil, &FileError{File: file, Problem: "is for another key than " + FileKey,
			Remedy: "have this key certified: causeway pki " + map[Role]string{RoleNode: "issue", RoleRouter: "grant"}[role] + " --ca DIR --csr <dir>/" + FileCSR}
	}
	for _, c := range chain {
		if string(c.RawSubject) != string(c.RawIssuer) { // a root is not sent
			peer.Chain = append(peer.Chain, c.Raw)
		}
	}
	return peer, nil
}

// Store returns a trust store of the node's own root alone; nil for a pure
// router.
func (id *Identity) Store() (*Store, error) {
	if id.Peer == nil {
		return nil, nil
	}
	return NewStore(id.Peer.Domain, id.Roots)
}

// Check reports whether the certificates are valid at the time now; the first
// that is not is an *Error that shows both times. Grants are also verified
// against store, unless it is nil.
func (id *Identity) Check(store *Store, now time.Time) error {
	if id.Peer != nil {
		own, err := id.Store()
		if err != nil {
			return err
		}
		if _, err := own.VerifyDER(id.Peer.Chain, id.Peer.Domain, now); err != nil {
			return err
		}
	}
	for _, domain := range sortedKeys(id.Grants) {
		if err := checkTimes([]*x509.Certificate{id.Grants[domain].Leaf}, now); err != nil {
			return err
		}
		if store == nil {
			continue
		}
		if _, err := store.VerifyDER(id.Grants[domain].Chain, domain, now); err != nil {
			return err
		}
	}
	return nil
}

// TLSCertificate returns what to show in TLS: with "" the node's certificate,
// with a domain the grant of that domain, else the node's certificate if it is
// of that domain. Without one the result's Certificate is nil. Its slices are
// borrowed.
func (id *Identity) TLSCertificate(domain string) tls.Certificate {
	peer := id.Peer
	if grant := id.Grants[domain]; grant != nil {
		peer = grant
	}
	if peer == nil || domain != "" && peer.Domain != domain {
		return tls.Certificate{}
	}
	return tls.Certificate{Certificate: peer.Chain, PrivateKey: id.Key, Leaf: peer.Leaf}
}
