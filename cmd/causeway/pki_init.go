package main

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"causeway/crypto/pki"
)

func pkiInitCommand(at *timeFlag) *cobra.Command {
	var domain, out, keyType, root string
	validity, listValidity := validityFlag(pki.DefaultCAValidity), validityFlag(pki.DefaultListValidity)
	cmd := &cobra.Command{
		Use:   "init --domain DOMAIN --out DIR",
		Short: "Make a domain's authority",
		Long: `Make a domain's authority: a directory with its root certificate, its private
key and its first, empty revocation list. Who has that directory decides who
is in the domain: keep it where only the operator can read it, and back it up.

  causeway pki init --domain prod.example --out ca

With --root in place of --domain, it makes an intermediate authority, which
issues in the place of the root's, so that root.key can be locked away:

  causeway pki init --root ca --out ca-2026 --validity 1y`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "out"); err != nil {
				return err
			}
			if err := exactlyOne(cmd, "domain", "root"); err != nil {
				return err
			}
			kind, err := checkKeyType(keyType)
			if err != nil {
				return err
			}
			made := newAuthority{kind: kind, now: at.now(), validity: time.Duration(validity), listValidity: time.Duration(listValidity)}
			if root != "" {
				err = made.below(root)
			} else {
				err = made.root(domain)
			}
			if err != nil {
				return err
			}
			if err := made.write(out); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "made the authority of %s in %s, valid until %s\nkeep %s secret: who has it decides who is in the domain\n",
				made.authority.Domain, out, clock(made.authority.Certificate().NotAfter), filepath.Join(out, made.keyFile))
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&domain, "domain", "", "`DOMAIN` to make the root of, such as prod.example")
	fl.StringVar(&root, "root", "", "`DIR` of the root's authority, to make an intermediate below it")
	fl.StringVar(&out, "out", "", "`DIR` to make (required)")
	addKeyType(fl, &keyType)
	addValidity(fl, &validity, "the authority")
	fl.Var(&listValidity, "crl-validity", "when the revocation list is due to be replaced: `DURATION`")
	return cmd
}

// newAuthority is an authority that is being made.
type newAuthority struct {
	kind                   pki.KeyType
	now                    time.Time
	validity, listValidity time.Duration

	authority *pki.Authority
	key       []byte // PEM
	keyFile   string
}

// root makes a domain's root.
func (n *newAuthority) root(domain string) error {
	if err := pki.CheckDomain(domain); err != nil {
		return usageError{fmt.Errorf("--domain: %w", err)}
	}
	key, err := pki.NewKey(n.kind, pkiRandom)
	if err != nil {
		return err
	}
	der, err := pki.CreateRoot(domain, key, n.now, n.validity, pkiRandom)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if n.authority, err = pki.NewAuthority(domain, cert, nil, key); err != nil {
		return err
	}
	n.keyFile = caRootKey
	n.key, err = pki.EncodeKey(key)
	return err
}

// below makes an intermediate below the authority in dir.
func (n *newAuthority) below(dir string) error {
	ca, err := openCA(dir)
	if err != nil {
		return err
	}
	defer ca.close()
	key, err := pki.NewKey(n.kind, pkiRandom)
	if err != nil {
		return err
	}
	der, err := ca.CreateIntermediate(key.Public(), n.now, n.validity, pkiRandom)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if n.authority, err = pki.NewAuthority(ca.Domain, ca.Root, cert, key); err != nil {
		return err
	}
	n.keyFile = caBelowKey
	n.key, err = pki.EncodeKey(key)
	return err
}

func (n *newAuthority) write(out string) error {
	list, err := n.authority.SignCRL(big.NewInt(1), nil, n.now, n.listValidity, pkiRandom)
	if err != nil {
		return err
	}
	files := map[string]newFile{
		caRoot:    {pki.EncodeCertificates(n.authority.Root.Raw), modePublic},
		n.keyFile: {n.key, modeSecret},
		caList:    {pki.EncodeCRL(list), modePublic},
		caIssued:  {}, caRevoked: {},
	}
	if n.authority.Intermediate != nil {
		files[caBelow] = newFile{pki.EncodeCertificates(n.authority.Intermediate.Raw), modePublic}
	}
	return writeNewDir(out, files, "give another --out")
}

// clock shows a time.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
