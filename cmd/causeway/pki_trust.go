package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"causeway/crypto/pki"
)

// trusting is one run of trust.
type trusting struct {
	store, ca, rootFile, listFile, domain string
	stdout                                io.Writer

	authorities []*x509.Certificate // the root, then an intermediate if any
	list        []byte              // DER; nil for none
	written     int                 // files
}

func pkiTrustCommand() *cobra.Command {
	f := &trusting{}
	cmd := &cobra.Command{
		Use:   "trust --store DIR (--ca DIR | --root FILE [--crl FILE] | --crl FILE)",
		Short: "Put a domain's root and revocation list into a router's trust store",
		Long: `Put a domain's root and revocation list into a router's trust store, or bring
the list there up to date. A running router notices what has changed, within
two seconds, and acts on it: whoever is revoked by then is disconnected.

  causeway pki trust --store trust --ca ca
  causeway pki trust --store trust --root root.crt --crl crl.pem
  causeway pki trust --store trust --crl crl.pem

Another root of a domain that is there already comes beside the first: both
are good, so that one can take the other's place. To end the first one's time,
remove its files from the store. To trust a domain no longer, remove its
directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "store"); err != nil {
				return err
			}
			switch {
			case f.ca != "" && (f.rootFile != "" || f.listFile != ""):
				return usageError{errors.New("trust: give --ca, or --root and --crl, not both")}
			case f.ca == "" && f.rootFile == "" && f.listFile == "":
				return usageError{errors.New("trust needs --ca DIR, or --root FILE and --crl FILE")}
			}
			f.stdout = cmd.OutOrStdout()
			return f.run()
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.store, "store", "", "trust store's `DIR`, made if it is not there (required)")
	fl.StringVar(&f.ca, "ca", "", "authority's `DIR` to take root and list from")
	fl.StringVar(&f.rootFile, "root", "", "root certificate's `FILE`")
	fl.StringVar(&f.listFile, "crl", "", "revocation list's `FILE`")
	fl.StringVar(&f.domain, "domain", "", "the root's `DOMAIN`, where the root does not say it")
	return cmd
}

func (f *trusting) run() error {
	if err := f.read(); err != nil {
		return err
	}
	store, err := f.load()
	if err != nil {
		return err
	}
	if len(f.authorities) == 0 {
		if err := f.findDomain(store); err != nil {
			return err
		}
	}
	if err := f.check(store); err != nil {
		return err
	}
	if err := f.write(store); err != nil {
		return err
	}
	if f.written == 0 {
		fmt.Fprintf(f.stdout, "%s: nothing to do, all of it is there\n", filepath.Join(f.store, f.domain))
	}
	if after, err := pki.LoadStore(os.DirFS(f.store)); err != nil {
		return pki.WithDir(err, f.store)
	} else if f.list == nil && len(after.CRLs(f.domain)) == 0 {
		fmt.Fprintf(f.stdout, "note: no revocation list of %s yet; routers raise an alarm until causeway pki trust --store %s --crl FILE\n", f.domain, f.store)
	}
	return nil
}

// read reads what is to be put into the store, and finds the root's domain.
func (f *trusting) read() error {
	if f.ca != "" {
		f.rootFile, f.listFile = filepath.Join(f.ca, caRoot), filepath.Join(f.ca, caList)
		if !fileExists(f.rootFile) {
			return fmt.Errorf("%s: no authority here (no %s); if you have only its root and list, use --root and --crl", f.ca, caRoot)
		}
	}
	if f.listFile != "" {
		list, err := readListFile(f.listFile)
		if err != nil {
			return err
		}
		f.list = list.Raw
	}
	if f.rootFile == "" {
		return nil
	}
	root, err := readCertificateFile(f.rootFile)
	if err != nil {
		return err
	}
	f.authorities = []*x509.Certificate{root}
	if below := filepath.Join(f.ca, caBelow); f.ca != "" && fileExists(below) {
		c, err := readCertificateFile(below)
		if err != nil {
			return err
		}
		f.authorities = append(f.authorities, c)
	}
	if f.domain == "" {
		domain, ok := pki.DomainOfRoot(root)
		if !ok {
			return fmt.Errorf("%s does not say which domain it is of; give --domain", f.rootFile)
		}
		f.domain = domain
	}
	if err := pki.CheckDomain(f.domain); err != nil {
		return usageError{fmt.Errorf("--domain: %w", err)}
	}
	return nil
}

// load reads the store as it is, an empty one where there is none.
func (f *trusting) load() (*pki.Store, error) {
	if err := os.MkdirAll(f.store, 0o755); err != nil {
		return nil, err
	}
	store, err := pki.LoadStore(os.DirFS(f.store))
	return store, pki.WithDir(err, f.store)
}

// findDomain finds whose list it is, when nothing but a list was given.
func (f *trusting) findDomain(store *pki.Store) error {
	for _, domain := range store.Domains() {
		if _, err := store.WithCRL(domain, f.list); err == nil {
			f.domain = domain
			return nil
		}
	}
	return fmt.Errorf("%s is signed by no authority in %s; add its root too: --root FILE", f.listFile, f.store)
}

// check makes sure that the store will load with what is new in it.
func (f *trusting) check(store *pki.Store) error {
	for _, other := range store.Domains() {
		if other != f.domain && pki.Prefix(other) == pki.Prefix(f.domain) {
			return fmt.Errorf("%s can't be trusted beside %s: both have the address prefix of the other; one of them needs another name", f.domain, other)
		}
		for _, root := range f.authorities {
			if other != f.domain && slices.ContainsFunc(store.Roots(other), root.Equal) {
				return fmt.Errorf("%s is already the root of %s", f.rootFile, other)
			}
		}
	}
	if len(f.authorities) > 0 {
		var lists [][]byte
		if f.list != nil {
			lists = [][]byte{f.list}
		}
		known := slices.Concat(f.authorities, store.Roots(f.domain))
		if _, err := pki.NewStore(f.domain, known, lists...); err != nil {
			return fmt.Errorf("root %s for domain %s: %w", f.rootFile, f.domain, err)
		}
	}
	return nil
}

// write puts new files into the domain's directory, certificates first: a
// list without its authority is an error to who reads the store, so no moment
// may have one.
func (f *trusting) write(store *pki.Store) error {
	dir := filepath.Join(f.store, f.domain)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, c := range f.authorities {
		id := pki.CertID(c.Raw)
		name := fmt.Sprintf("root-%x.crt", id)
		switch {
		case i > 0:
			name = fmt.Sprintf("intermediate-%x.crt", id)
		case slices.ContainsFunc(store.Roots(f.domain), c.Equal):
			continue
		case len(store.Roots(f.domain)) == 0:
			name = caRoot
		}
		if err := f.put(filepath.Join(dir, name), pki.EncodeCertificates(c.Raw)); err != nil {
			return err
		}
	}
	if f.list == nil {
		return nil
	}
	return f.writeList(dir)
}

// writeList puts the list in the place of its issuer's previous one.
func (f *trusting) writeList(dir string) error {
	list, err := pki.ParseCRL(f.list)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, listName(list))
	if have, err := readListFile(path); err == nil {
		if have.Number.Cmp(list.Number) > 0 {
			return fmt.Errorf("%s has number %s, and %s the older number %s: lists never go back; make a newer one by causeway pki crl --ca DIR",
				path, have.Number, f.listFile, list.Number)
		}
	}
	return f.put(path, pki.EncodeCRL(f.list))
}

// listName returns the name of a list's file in a trust store: that of its
// issuer's key.
func listName(list *x509.RevocationList) string {
	issuer := list.AuthorityKeyId
	if len(issuer) == 0 { // not one of ours
		id := pki.CertID(list.RawIssuer)
		issuer = id[:]
	}
	return fmt.Sprintf("%x.crl", issuer)
}

// put writes a file unless it is there with that content.
func (f *trusting) put(path string, text []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return nil
	}
	if err := replaceFile(path, text, modePublic); err != nil {
		return err
	}
	f.written++
	_, err := fmt.Fprintf(f.stdout, "wrote %s\n", path)
	return err
}
