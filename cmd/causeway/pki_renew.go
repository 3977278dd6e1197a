package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"causeway/crypto/pki"
)

// renewing is one run of renew.
type renewing struct {
	ca, from       string
	identity       string
	name, csr, out string
	router         bool
	validity       validityFlag
	at             *timeFlag
	stdout         io.Writer
}

func pkiRenewCommand(at *timeFlag) *cobra.Command {
	f := &renewing{at: at, validity: validityFlag(pki.DefaultLeafValidity)}
	cmd := &cobra.Command{
		Use:   "renew --ca DIR (--identity DIR | --name NAME --out FILE | --csr FILE --out FILE | FILE...)",
		Short: "Issue a newer certificate for the same address and name",
		Long: `Issue a newer certificate for the same address and name.

In place, where authority and identity are on one machine: what the directory,
or each file, has of this authority is replaced in one step. A running router
and node listen notice that and use the new one at once, on the connections
they have; other programs read it when they start.

  causeway pki renew --ca ca --identity billing-1
  causeway pki renew --ca ca billing-1/node.crt

From the authority's records, for a node elsewhere, or from a request with a
new key of the same name; the result goes to --out and from there to the
node, in place of its node.crt (a router's, of grants/DOMAIN.crt):

  causeway pki renew --ca ca --name billing-1 --out node.crt
  causeway pki renew --ca ca --csr node.csr --out node.crt

What was revoked is not renewed. When a domain's authority is replaced, the new
one renews what the old one issued; addresses stay:

  causeway pki renew --ca ca-new --from ca-old --identity billing-1`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := required(cmd, "ca"); err != nil {
				return err
			}
			f.stdout = cmd.OutOrStdout()
			if len(files) > 0 {
				if f.identity != "" || f.name != "" || f.csr != "" || f.out != "" {
					return usageError{errors.New("renew: give files, or --identity, --name or --csr, not both")}
				}
				return f.inPlace(files)
			}
			if err := exactlyOne(cmd, "identity", "name", "csr"); err != nil {
				return err
			}
			if f.identity != "" {
				return f.ofIdentity()
			}
			if err := required(cmd, "out"); err != nil {
				return err
			}
			return f.fromRecords()
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.ca, "ca", "", "authority's `DIR` (required)")
	fl.StringVar(&f.from, "from", "", "`DIR` of the authority that issued it, if not --ca")
	fl.StringVar(&f.identity, "identity", "", "identity `DIR` to renew in place")
	fl.StringVar(&f.name, "name", "", "`NAME` to renew from the authority's records")
	fl.BoolVar(&f.router, "router", false, "with --name: the router's of that name, not the node's")
	fl.StringVar(&f.csr, "csr", "", "request `FILE` with a new key of a name in the records")
	fl.StringVar(&f.out, "out", "", "`FILE` to write, with --name or --csr")
	addValidity(fl, &f.validity, "the certificate")
	return cmd
}

// ofIdentity renews what an identity directory has of this authority.
func (f *renewing) ofIdentity() error {
	ca, err := openCA(f.ca)
	if err != nil {
		return err
	}
	domain := ca.Domain
	ca.close()
	var files []string
	for _, name := range []string{pki.FileCert, grantFile(domain)} {
		if path := filepath.Join(f.identity, name); fileExists(path) {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return fmt.Errorf("%s has neither %s nor %s; is it an identity directory of %s?", f.identity, pki.FileCert, grantFile(domain), domain)
	}
	return f.inPlace(files)
}

// inPlace renews certificates in files, each of which is replaced. All are
// checked before the first is.
func (f *renewing) inPlace(files []string) error {
	ca, from, err := f.open()
	if err != nil {
		return err
	}
	defer ca.close()
	defer from.close()
	old := make([]*x509.Certificate, len(files))
	for i, file := range files {
		chain, err := readChainFile(file)
		if err != nil {
			return err
		}
		if err := from.mine(chain); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		old[i] = chain[0]
	}
	for i, file := range files {
		r, err := f.renew(ca, old[i], nil)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := replaceFile(file, pki.EncodeCertificates(ca.Chain(r.Leaf.Raw)...), modePublic); err != nil {
			return err
		}
		fmt.Fprintf(f.stdout, "renewed %s: %s, address %s, valid until %s\n", file, r.URI(), addressText(r.Address), clock(r.NotAfter))
	}
	return nil
}

// open opens the authority that renews and the one that issued, which may be
// the same. The locks of two are taken in the order of their paths.
func (f *renewing) open() (ca, from *caDir, err error) {
	if f.from == "" || sameFile(f.from, f.ca) {
		ca, err = openCA(f.ca)
		return ca, ca, err
	}
	first, second := f.ca, f.from
	if second < first {
		first, second = second, first
	}
	if ca, err = openCA(first); err != nil {
		return nil, nil, err
	}
	if from, err = openCA(second); err != nil {
		ca.close()
		return nil, nil, err
	}
	if first != f.ca {
		ca, from = from, ca
	}
	if from.Domain != ca.Domain {
		ca.close()
		from.close()
		return nil, nil, fmt.Errorf("%s is the authority of %s, and %s of %s", f.from, from.Domain, f.ca, ca.Domain)
	}
	return ca, from, nil
}

// mine returns nil when this authority issued the chain's leaf and has not
// revoked it. Its time is not looked at: an expired one can be renewed. Leaves
// of another authority of the domain are refused, because its list is not at
// hand.
func (ca *caDir) mine(chain []*x509.Certificate) error {
	if chain[0].CheckSignatureFrom(ca.Certificate()) != nil {
		return fmt.Errorf("was not issued by the authority in %s; name the one that did by --from DIR", ca.dir)
	}
	store, err := pki.NewStore(ca.Domain, []*x509.Certificate{ca.Root})
	if err != nil {
		return err
	}
	if _, err := store.Verify(chain, ca.Domain, chain[0].NotBefore); err != nil {
		return err
	}
	if ca.isRevoked(chain[0]) {
		return errors.New("was revoked, and what was revoked is not renewed; make a new identity by causeway pki request")
	}
	return nil
}

// fromRecords renews the latest certificate of a name.
func (f *renewing) fromRecords() error {
	role := pki.RoleNode
	if f.router {
		role = pki.RoleRouter
	}
	var public crypto.PublicKey
	if f.csr != "" {
		request, err := readRequest(f.csr)
		if err != nil {
			return err
		}
		f.name, public = request.Name, request.Public
		if request.Role == pki.RoleRouter {
			role = pki.RoleRouter
		}
	}
	const remedy = "give another --out"
	if err := absent(f.out, remedy); err != nil {
		return err
	}
	ca, from, err := f.open()
	if err != nil {
		return err
	}
	defer ca.close()
	defer from.close()
	old, found, err := from.latest(func(r record) bool { return r.Role == role && r.Name == f.name })
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%s has no %s named %q that is not revoked; causeway pki show %s lists what it issued", from.dir, role, f.name, from.path(caIssued))
	}
	r, err := f.renew(ca, old.Leaf, public)
	if err != nil {
		return err
	}
	if err := writeNew(f.out, pki.EncodeCertificates(ca.Chain(r.Leaf.Raw)...), modePublic, remedy); err != nil {
		os.Remove(r.path)
		return err
	}
	place := pki.FileCert
	if role == pki.RoleRouter {
		place = grantFile(ca.Domain)
	}
	_, err = fmt.Fprintf(f.stdout, "%s: address %s, valid until %s\nwrote %s; its place is %s in the identity directory\n",
		r.URI(), addressText(r.Address), clock(r.NotAfter), f.out, place)
	return err
}

func (f *renewing) renew(ca *caDir, old *x509.Certificate, public crypto.PublicKey) (record, error) {
	now := f.at.now()
	der, err := ca.Renew(old, public, now, time.Duration(f.validity), pkiRandom)
	if err != nil {
		return record{}, err
	}
	return ca.keep(der, now)
}
