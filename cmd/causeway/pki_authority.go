package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"causeway/crypto/pki"
)

// The layout of an authority's directory, all of it plain files:
//
//	root.crt             the domain's root
//	root.key             its key, unless an intermediate signs:
//	intermediate.crt     the authority that signs in the root's place
//	intermediate.key     its key
//	crl.pem              the revocation list
//	issued/SERIAL.crt    what was issued and is not revoked
//	revoked/SERIAL.crt   what was revoked
//	.lock                held while any of this changes
const (
	caRoot, caRootKey   = "root.crt", "root.key"
	caBelow, caBelowKey = "intermediate.crt", "intermediate.key"
	caList              = "crl.pem"
	caIssued, caRevoked = "issued", "revoked"
	caLock              = ".lock"

	// recordsKept is how long a certificate is remembered, on the list and
	// among the records, after its end: longer than any clock is wrong.
	recordsKept = 30 * 24 * time.Hour
)

// caDir is an opened authority; the caller holds its lock until close.
type caDir struct {
	*pki.Authority
	dir  string
	lock *os.File
	list *x509.RevocationList
}

func (ca *caDir) path(elem ...string) string {
	return filepath.Join(append([]string{ca.dir}, elem...)...)
}

// openCA reads an authority's directory and locks it against other processes.
func openCA(dir string) (_ *caDir, err error) {
	if !fileExists(filepath.Join(dir, caRoot)) {
		return nil, fmt.Errorf("%s: no authority here (no %s); make one by causeway pki init --domain DOMAIN --out %s", dir, caRoot, dir)
	}
	lock, err := os.OpenFile(filepath.Join(dir, caLock), os.O_RDWR|os.O_CREATE, modeSecret)
	if err != nil {
		return nil, err
	}
	ca := &caDir{dir: dir, lock: lock}
	defer func() {
		if err != nil {
			ca.close()
		}
	}()
	if err := lockFile(lock); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return ca, ca.read()
}

// close gives the lock back; the kernel does the same when the process ends.
func (ca *caDir) close() { ca.lock.Close() }

func (ca *caDir) read() error {
	root, err := readCertificateFile(ca.path(caRoot))
	if err != nil {
		return err
	}
	domain, ok := pki.DomainOfRoot(root)
	if !ok {
		return fmt.Errorf("%s names no domain", ca.path(caRoot))
	}
	var below *x509.Certificate
	keyFile := caRootKey
	if fileExists(ca.path(caBelow)) {
		keyFile = caBelowKey
		if below, err = readCertificateFile(ca.path(caBelow)); err != nil {
			return err
		}
	}
	key, err := readKeyFile(ca.path(keyFile))
	if err != nil {
		return err
	}
	if ca.Authority, err = pki.NewAuthority(domain, root, below, key); err != nil {
		return fmt.Errorf("%s: %w", ca.dir, err)
	}
	ca.list, err = readListFile(ca.path(caList))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing, and its number must not start again: copy the newest from a trust store, DIR/%s/*.crl", ca.path(caList), domain)
	}
	if err != nil {
		return err
	}
	if ca.list.CheckSignatureFrom(ca.Certificate()) != nil {
		return fmt.Errorf("%s is not signed by this authority; copy the newest from a trust store, DIR/%s/*.crl", ca.path(caList), domain)
	}
	return nil
}

// readCertificateFile reads a file with one certificate.
func readCertificateFile(path string) (*x509.Certificate, error) {
	chain, err := readChainFile(path)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

func readChainFile(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	chain, err := pki.DecodeCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return chain, nil
}

// readKeyFile reads a private key that nobody else can read.
func readKeyFile(path string) (crypto.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s is a private key that others can read (mode %04o); run chmod 600 %s", path, mode, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := pki.DecodeKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func readListFile(path string) (*x509.RevocationList, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	der, err := pki.DecodeCRL(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	list, err := pki.ParseCRL(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// record is one certificate that this authority issued.
type record struct {
	*pki.Peer
	path string
}

// certificates reads what is in issued/ or revoked/.
func (ca *caDir) certificates(kind string) ([]*x509.Certificate, error) {
	entries, err := os.ReadDir(ca.path(kind))
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".crt") {
			continue
		}
		c, err := readCertificateFile(ca.path(kind, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// issued returns the records of issued/, in the order of their beginnings.
func (ca *caDir) issued() ([]record, error) {
	certs, err := ca.certificates(caIssued)
	if err != nil {
		return nil, err
	}
	all := make([]record, len(certs))
	for i, c := range certs {
		path := ca.path(caIssued, recordName(c))
		peer, err := pki.ReadLeaf(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all[i] = record{peer, path}
	}
	slices.SortStableFunc(all, func(a, b record) int { return a.NotBefore.Compare(b.NotBefore) })
	return all, nil
}

// live returns the records of issued/ that are not on the list: a process
// that died between writing the list and moving the record leaves such.
func (ca *caDir) live() ([]record, error) {
	all, err := ca.issued()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(r record) bool { return ca.isRevoked(r.Leaf) }), nil
}

func (ca *caDir) isRevoked(c *x509.Certificate) bool {
	return slices.ContainsFunc(ca.list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(c.SerialNumber) == 0
	}) || fileExists(ca.path(caRevoked, recordName(c)))
}

// recordName is a record's file: its serial number and ".crt".
func recordName(c *x509.Certificate) string { return fmt.Sprintf("%x.crt", c.SerialNumber) }

// latest returns the newest live record that fits.
func (ca *caDir) latest(fits func(record) bool) (record, bool, error) {
	all, err := ca.live()
	if err != nil {
		return record{}, false, err
	}
	for _, r := range slices.Backward(all) {
		if fits(r) {
			return r, true, nil
		}
	}
	return record{}, false, nil
}

// keep records what was issued, and forgets the same holder's certificates
// that ended long ago.
func (ca *caDir) keep(der []byte, now time.Time) (record, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return record{}, err
	}
	peer, err := pki.ReadLeaf(c)
	if err != nil {
		return record{}, err
	}
	r := record{peer, ca.path(caIssued, recordName(c))}
	if err := writeNew(r.path, pki.EncodeCertificates(der), modePublic, "try again"); err != nil {
		return record{}, err
	}
	old, err := ca.issued()
	if err != nil {
		return record{}, err
	}
	for _, o := range old {
		if o.Address == r.Address && o.path != r.path && o.NotAfter.Add(recordsKept).Before(now) {
			if err := os.Remove(o.path); err != nil {
				return record{}, err
			}
		}
	}
	return r, nil
}

// signList writes a new list: the old one's entries and more, with the next
// number. Entries of certificates that ended long ago are left out.
func (ca *caDir) signList(more []*x509.Certificate, now time.Time, validity time.Duration) error {
	revoked, err := ca.certificates(caRevoked)
	if err != nil {
		return err
	}
	ended := make(map[string]bool)
	for _, c := range revoked {
		ended[c.SerialNumber.String()] = c.NotAfter.Add(recordsKept).Before(now)
	}
	var entries []x509.RevocationListEntry
	for _, e := range ca.list.RevokedCertificateEntries {
		if !ended[e.SerialNumber.String()] {
			entries = append(entries, x509.RevocationListEntry{SerialNumber: e.SerialNumber, RevocationTime: e.RevocationTime})
		}
	}
	for _, c := range more {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
	}
	number := new(big.Int).Add(ca.list.Number, big.NewInt(1))
	der, err := ca.SignCRL(number, entries, now, validity, pkiRandom)
	if err != nil {
		return err
	}
	if err := replaceFile(ca.path(caList), pki.EncodeCRL(der), modePublic); err != nil {
		return err
	}
	ca.list, err = pki.ParseCRL(der)
	return err
}
