package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// The layout of a trust store: a directory for each domain, named after it,
// with
//
//	root*.crt  roots, PEM, two while one takes the other's place
//	*.crt      authorities below a root, needed where lists of theirs are
//	*.crl      revocation lists, PEM, one per issuer
//
// Names that begin with a dot are left alone, and so are other endings.
const (
	certSuffix = ".crt"
	listSuffix = ".crl"

	fileMax     = 1 << 20  // of a file of certificates or a key, in bytes
	listFileMax = 64 << 20 // of a revocation list, about a million entries
)

// LoadStore reads a trust store. What can't be trusted as it stands is an
// error that names the file (*FileError), not left out in silence; what needs
// somebody's attention is in Alarms.
func LoadStore(fsys fs.FS) (*Store, error) { return LoadStoreAfter(fsys, nil) }

// LoadStoreAfter reads a trust store that takes the place of prev, which may
// be nil: no revocation list goes back to a lower number, and of two domains
// with one prefix the one in prev stays. prev is unchanged.
func LoadStoreAfter(fsys fs.FS, prev *Store) (*Store, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, &FileError{Problem: "can't read the trust store", Err: err,
			Remedy: "make one by causeway pki trust --store <dir> --ca DIR"}
	}
	b := newStoreBuilder()
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	for _, domain := range inOrder(names, prev) {
		if err := b.loadDomain(fsys, domain); err != nil {
			return nil, err
		}
	}
	return b.finish(prev)
}

// inOrder sorts names, those that prev has first: who comes first keeps a
// prefix.
func inOrder(names []string, prev *Store) []string {
	slices.SortFunc(names, func(a, b string) int {
		if prev != nil {
			if inA, inB := prev.domains[a] != nil, prev.domains[b] != nil; inA != inB {
				if inA {
					return -1
				}
				return 1
			}
		}
		return strings.Compare(a, b)
	})
	return names
}

// storeBuilder makes a Store step by step.
type storeBuilder struct {
	store    *Store
	prefixes map[[PrefixSize]byte]string
	rootsOf  map[issuerID]string // which domain has the root
}

func newStoreBuilder() *storeBuilder {
	return &storeBuilder{
		store:    &Store{domains: make(map[string]*domainTrust)},
		prefixes: make(map[[PrefixSize]byte]string),
		rootsOf:  make(map[issuerID]string),
	}
}

var errPrefixTaken = errors.New("its prefix is taken")

// addDomain makes room for a domain. errPrefixTaken: another domain has its
// prefix, and an alarm was raised.
func (b *storeBuilder) addDomain(domain string) error {
	if err := CheckDomain(domain); err != nil {
		return err
	}
	prefix := Prefix(domain)
	if have, taken := b.prefixes[prefix]; taken {
		b.store.alarms = append(b.store.alarms, Alarm{Kind: AlarmPrefixTaken, Domain: domain, Other: have})
		return errPrefixTaken
	}
	b.prefixes[prefix] = domain
	b.store.domains[domain] = &domainTrust{lists: make(map[issuerID]*revocationList)}
	return nil
}

var (
	errNotCA         = errors.New("is no authority's certificate (CA:TRUE, keyCertSign)")
	errNotSelfSigned = errors.New("is not self-signed")
	errCAKey         = errors.New("has a key that is neither Ed25519 nor ECDSA P-256")
	errCACritical    = errors.New("has an unknown critical extension")
	errNotOfDomain   = errors.New("is signed by no root in this directory")
	errRootElsewhere = errors.New("is already the root of another domain")
	errOtherPrefix   = errors.New("is constrained to addresses of another domain")
)

// addCA adds an authority: a root when it is self-signed, else one below a
// root, which must have been added before.
func (b *storeBuilder) addCA(domain, file string, c *x509.Certificate) error {
	d := b.store.domains[domain]
	if string(c.RawSubject) != string(c.RawIssuer) {
		if findIssuer(c, d.roots) == nil {
			return errNotOfDomain
		}
		if err := checkIntermediate(c, domain); err != nil {
			return err
		}
		d.intermediates = append(d.intermediates, c)
		return nil
	}
	if err := checkRoot(c, domain); err != nil {
		return err
	}
	id := issuerIDOf(c)
	if other, taken := b.rootsOf[id]; taken && other != domain {
		return fmt.Errorf("%w, %s", errRootElsewhere, other)
	}
	b.rootsOf[id] = domain
	d.roots = append(d.roots, c)
	d.rootFiles = append(d.rootFiles, file)
	return nil
}

// checkRoot checks what a root must be. Name constraints are not asked for,
// since the prefix is checked anyway; but where a root has them, they must
// leave room for its domain's addresses, which tells a file put into another
// domain's directory.
func checkRoot(c *x509.Certificate, domain string) error {
	switch {
	case c.Version != x509v3 || !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errNotCA
	case !keyAllowed(c.PublicKey):
		return errCAKey
	case len(c.UnhandledCriticalExtensions) > 0:
		return errCACritical
	case c.CheckSignatureFrom(c) != nil:
		return errNotSelfSigned
	}
	if len(c.PermittedIPRanges) == 0 {
		return nil
	}
	prefix := prefixNet(domain)
	for _, r := range c.PermittedIPRanges {
		if r.Contains(prefix.IP) || prefix.Contains(r.IP) {
			return nil
		}
	}
	return errOtherPrefix
}

// addList adds a revocation list; of two of one issuer the higher number
// stays.
func (b *storeBuilder) addList(domain, file string, der []byte) error {
	d := b.store.domains[domain]
	id, list, err := d.parseList(file, der)
	if err != nil {
		return err
	}
	if have := d.lists[id]; have == nil || have.number.Cmp(list.number) < 0 {
		d.lists[id] = list
	}
	return nil
}

// finish returns the store, in which the lists of prev stay where they are
// the newer ones.
func (b *storeBuilder) finish(prev *Store) (*Store, error) {
	s := b.store
	for name, d := range s.domains {
		if len(d.roots) == 0 {
			return nil, &FileError{File: name, Problem: "has no root certificate",
				Remedy: "put one there by causeway pki trust --store <dir> --root FILE"}
		}
		if prev == nil || prev.domains[name] == nil {
			continue
		}
		for _, ca := range slices.Concat(d.roots, d.intermediates) {
			id := issuerIDOf(ca)
			old, list := prev.domains[name].lists[id], d.lists[id]
			if old == nil || list != nil && list.number.Cmp(old.number) >= 0 {
				continue
			}
			d.lists[id] = old
			s.alarms = append(s.alarms, Alarm{Kind: AlarmListWentBack, Domain: name, File: old.file, Number: old.number.String()})
		}
	}
	return s, nil
}

// loadDomain reads one domain's directory.
func (b *storeBuilder) loadDomain(fsys fs.FS, domain string) error {
	info, err := fs.Stat(fsys, domain)
	if err != nil {
		return &FileError{File: domain, Problem: "can't be read", Err: err}
	}
	if !info.IsDir() {
		return &FileError{File: domain, Problem: "is a file, and a trust store has only a directory for each domain",
			Remedy: "move it away; causeway pki trust --store <dir> --root FILE puts a root where it belongs"}
	}
	switch err := b.addDomain(domain); {
	case errors.Is(err, errPrefixTaken):
		return nil
	case err != nil:
		return &FileError{File: domain, Problem: "is not named after a domain", Err: err, Remedy: "rename or move it"}
	}
	entries, err := fs.ReadDir(fsys, domain)
	if err != nil {
		return &FileError{File: domain, Problem: "can't be read", Err: err}
	}
	// Roots, then what they signed, then the lists of both.
	if err := b.loadCertificates(fsys, domain, entries, true); err != nil {
		return err
	}
	if err := b.loadCertificates(fsys, domain, entries, false); err != nil {
		return err
	}
	return b.loadLists(fsys, domain, entries)
}

func (b *storeBuilder) loadCertificates(fsys fs.FS, domain string, entries []fs.DirEntry, roots bool) error {
	for _, e := range entries {
		if !wanted(e.Name(), certSuffix) {
			continue
		}
		file := path.Join(domain, e.Name())
		certs, err := readCertificates(fsys, file)
		if err != nil {
			return err
		}
		for _, c := range certs {
			if selfIssued := string(c.RawSubject) == string(c.RawIssuer); selfIssued != roots {
				continue
			}
			if err := b.addCA(domain, file, c); err != nil {
				return &FileError{File: file, Problem: "the certificate of " + quoted(c.Subject.String()) + " can't be trusted here", Err: err,
					Remedy: "replace it: causeway pki trust --store <dir> --ca DIR"}
			}
		}
	}
	return nil
}

func (b *storeBuilder) loadLists(fsys fs.FS, domain string, entries []fs.DirEntry) error {
	for _, e := range entries {
		if !wanted(e.Name(), listSuffix) {
			continue
		}
		file := path.Join(domain, e.Name())
		text, err := readFile(fsys, file, listFileMax)
		if err != nil {
			return err
		}
		der, err := DecodeCRL(text)
		if err == nil {
			err = b.addList(domain, file, der)
		}
		if err != nil {
			return &FileError{File: file, Problem: "is not a revocation list to go by", Err: err,
				Remedy: "replace it by causeway pki trust --store <dir> --ca DIR, or remove it if its authority is no longer trusted"}
		}
	}
	return nil
}

func wanted(name, suffix string) bool {
	return strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, ".")
}
