package main

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"causeway/crypto/pki"
)

// issuing is one run of issue or grant.
type issuing struct {
	role     pki.Role
	ca, name string
	csr, out string
	keyType  string
	validity validityFlag
	at       *timeFlag
	stdout   io.Writer
}

func pkiIssueCommand(at *timeFlag) *cobra.Command {
	f := &issuing{role: pki.RoleNode, at: at}
	return f.command(&cobra.Command{
		Use:   "issue --ca DIR (--csr FILE [--out FILE] | --name NAME --out DIR)",
		Short: "Certify a node",
		Long: `Certify a node: draw its address, sign its certificate.

From the node's request (causeway pki request), so that its key stays where it
is. The certificate goes to --out, which is node.crt beside the request if not
given, and the authority's root.crt goes beside it. The node needs both files
in its identity directory, beside node.key.

  causeway pki issue --ca ca --csr billing-1/node.csr

To try something out, key and all in one step, a whole identity directory:

  causeway pki issue --ca ca --name billing-1 --out billing-1

A name is given once. For a newer certificate of the same address, see
causeway pki renew.`,
	})
}

func pkiGrantCommand(at *timeFlag) *cobra.Command {
	f := &issuing{role: pki.RoleRouter, at: at}
	return f.command(&cobra.Command{
		Use:   "grant --ca DIR (--csr FILE [--out FILE] | --name NAME --out DIR)",
		Short: "Let a router route for the domain",
		Long: `Let a router route for the domain: certify its key as a router's.

From the router's request (causeway pki request --router). The grant goes to
--out, which is grants/DOMAIN.crt beside the request if not given; the router
needs it there, in its identity directory. A router has one key, and a grant
for that key from each domain it serves.

  causeway pki grant --ca ca --csr edge-1/node.csr

To try something out, in one step; if the directory is a router's already, the
grant is added to it:

  causeway pki grant --ca ca --name edge-1 --out edge-1
  causeway pki grant --ca ca-of-lab --name edge-1 --out edge-1

The router also has to trust the domain: causeway pki trust.`,
	})
}

func (f *issuing) command(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "ca"); err != nil {
			return err
		}
		if err := exactlyOne(cmd, "csr", "name"); err != nil {
			return err
		}
		f.stdout = cmd.OutOrStdout()
		if f.csr != "" {
			return f.fromRequest()
		}
		if err := required(cmd, "out"); err != nil {
			return err
		}
		if err := pki.CheckName(f.name); err != nil {
			return usageError{fmt.Errorf("--name: %w", err)}
		}
		return f.inOneStep()
	}
	fl := cmd.Flags()
	f.validity = validityFlag(pki.DefaultLeafValidity)
	fl.StringVar(&f.ca, "ca", "", "authority's `DIR` (required)")
	fl.StringVar(&f.csr, "csr", "", "request `FILE`")
	fl.StringVar(&f.name, "name", "", "`NAME`, to make key and certificate in one step")
	fl.StringVar(&f.out, "out", "", "certificate's `FILE` with --csr, identity DIR with --name")
	addKeyType(fl, &f.keyType)
	addValidity(fl, &f.validity, "the certificate")
	return cmd
}

// fromRequest certifies the key of a request.
func (f *issuing) fromRequest() error {
	request, err := readRequest(f.csr)
	if err != nil {
		return err
	}
	if request.Role == pki.RoleRouter && f.role == pki.RoleNode {
		return fmt.Errorf("%s is a router's request; run causeway pki grant --ca %s --csr %s", f.csr, f.ca, f.csr)
	}
	ca, err := openCA(f.ca)
	if err != nil {
		return err
	}
	defer ca.close()
	if f.out == "" {
		f.out = filepath.Join(filepath.Dir(f.csr), pki.FileCert)
		if f.role == pki.RoleRouter {
			f.out = filepath.Join(filepath.Dir(f.csr), grantFile(ca.Domain))
		}
	}
	const remedy = "give another --out; to replace an identity's certificate, run causeway pki renew"
	if err := absent(f.out, remedy); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.out), modeDir); err != nil {
		return err
	}
	rootPath := filepath.Join(filepath.Dir(f.out), pki.FileRoot)
	if f.role == pki.RoleNode {
		if err := placeRoot(ca, rootPath); err != nil {
			return err
		}
	}
	r, err := f.sign(ca, request.Name, request.Public)
	if err != nil {
		return err
	}
	if err := writeNew(f.out, pki.EncodeCertificates(ca.Chain(r.Leaf.Raw)...), modePublic, remedy); err != nil {
		os.Remove(r.path) // nobody has it
		return err
	}
	f.say(r)
	complete := fileExists(filepath.Join(filepath.Dir(f.out), pki.FileKey))
	switch {
	case f.role == pki.RoleRouter:
		fmt.Fprintf(f.stdout, "wrote %s; its place is %s in the router's identity directory\n", f.out, grantFile(ca.Domain))
	case complete:
		fmt.Fprintf(f.stdout, "wrote %s and %s: the identity is complete\n", f.out, rootPath)
	default:
		fmt.Fprintf(f.stdout, "wrote %s and %s; their place is %s and %s beside the node's %s\n",
			f.out, rootPath, pki.FileCert, pki.FileRoot, pki.FileKey)
	}
	return nil
}

// grantFile is a grant's place in an identity directory.
func grantFile(domain string) string { return filepath.Join(pki.DirGrants, domain+".crt") }

// placeRoot puts the authority's root at path, where it may be already.
func placeRoot(ca *caDir, path string) error {
	text := pki.EncodeCertificates(ca.Root.Raw)
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeNew(path, text, modePublic, "try again")
	case err != nil:
		return err
	case !bytes.Equal(have, text):
		return existsError(path, "it is another root than this authority's: give an --out in another directory")
	}
	return nil
}

func readRequest(path string) (*pki.Request, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	request, err := pki.DecodeRequest(text)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w; have it made anew by causeway pki request", path, err)
	}
	return request, nil
}

// sign draws an address and issues, unless name or key were certified before.
func (f *issuing) sign(ca *caDir, name string, public crypto.PublicKey) (record, error) {
	taken, found, err := ca.latest(func(r record) bool {
		return r.Role == f.role && (r.Name == name || pki.SameKey(r.Public, public))
	})
	if err != nil {
		return record{}, err
	}
	if found {
		flags := ""
		if f.role == pki.RoleRouter {
			flags = " --router"
		}
		what := "is in use"
		if taken.Name != name {
			what = "has this very key"
		}
		return record{}, fmt.Errorf("%s %s, at address %s; for a newer certificate run causeway pki renew --ca %s --name %s%s --out FILE, to free the name causeway pki revoke --ca %s --name %s%s",
			taken.URI(), what, addressText(taken.Address), f.ca, taken.Name, flags, f.ca, taken.Name, flags)
	}
	address, err := pki.NewAddress(ca.Domain, f.role.Kind(), pkiRandom)
	if err != nil {
		return record{}, err
	}
	now := f.at.now()
	der, err := ca.Issue(pki.Subject{Role: f.role, Name: name, Address: address, Public: public}, now, time.Duration(f.validity), pkiRandom)
	if err != nil {
		return record{}, fmt.Errorf("%s: %w", f.ca, err)
	}
	return ca.keep(der, now)
}

func (f *issuing) say(r record) {
	fmt.Fprintf(f.stdout, "%s: address %s, valid until %s\n", r.URI(), addressText(r.Address), clock(r.NotAfter))
}

// inOneStep makes an identity directory, or adds a grant to a router's.
func (f *issuing) inOneStep() error {
	kind, err := checkKeyType(f.keyType)
	if err != nil {
		return err
	}
	ca, err := openCA(f.ca)
	if err != nil {
		return err
	}
	defer ca.close()
	if f.role == pki.RoleRouter && fileExists(filepath.Join(f.out, pki.FileKey)) {
		return f.addGrant(ca)
	}
	const remedy = "give another --out; to replace an identity's certificate, run causeway pki renew"
	if err := vacant(f.out, remedy); err != nil {
		return err
	}
	key, err := pki.NewKey(kind, pkiRandom)
	if err != nil {
		return err
	}
	keyText, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	r, err := f.sign(ca, f.name, key.Public())
	if err != nil {
		return err
	}
	certFile := pki.FileCert
	files := map[string]newFile{pki.FileKey: {keyText, modeSecret}}
	if f.role == pki.RoleRouter {
		certFile = grantFile(ca.Domain)
	} else {
		files[pki.FileRoot] = newFile{pki.EncodeCertificates(ca.Root.Raw), modePublic}
	}
	files[certFile] = newFile{pki.EncodeCertificates(ca.Chain(r.Leaf.Raw)...), modePublic}
	if err := writeNewDir(f.out, files, remedy); err != nil {
		os.Remove(r.path) // nobody has it
		return err
	}
	f.say(r)
	_, err = fmt.Fprintf(f.stdout, "made the identity %s\n", f.out)
	return err
}

// addGrant adds a grant to a router's identity, for the key that it has.
func (f *issuing) addGrant(ca *caDir) error {
	path := filepath.Join(f.out, grantFile(ca.Domain))
	remedy := fmt.Sprintf("for a newer one run causeway pki renew --ca %s --identity %s", f.ca, f.out)
	if err := absent(path, remedy); err != nil {
		return err
	}
	key, err := readKeyFile(filepath.Join(f.out, pki.FileKey))
	if err != nil {
		return err
	}
	r, err := f.sign(ca, f.name, key.Public())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), modeDir); err != nil {
		return err
	}
	if err := writeNew(path, pki.EncodeCertificates(ca.Chain(r.Leaf.Raw)...), modePublic, remedy); err != nil {
		os.Remove(r.path) // nobody has it
		return err
	}
	f.say(r)
	_, err = fmt.Fprintf(f.stdout, "added %s\n", path)
	return err
}
