package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"causeway/crypto/pki"
)

// revoking is one run of revoke.
type revoking struct {
	ca, name, address string
	router            bool
	validity          validityFlag
	at                *timeFlag
	stdout            io.Writer
}

func pkiRevokeCommand(at *timeFlag) *cobra.Command {
	f := &revoking{at: at, validity: validityFlag(pki.DefaultListValidity)}
	cmd := &cobra.Command{
		Use:   "revoke --ca DIR (--name NAME | --address ADDRESS | FILE)",
		Short: "Put all certificates of a node or router on the revocation list",
		Long: `Put all certificates of a node or router on the authority's revocation list,
and write the list anew with the next number. Routers act on it when they have
it: causeway pki trust --store DIR --ca DIR.

  causeway pki revoke --ca ca --name billing-1
  causeway pki revoke --ca ca --name edge-1 --router
  causeway pki revoke --ca ca --address fde1:4b0f:2020:0:a440:97ed:41:d73d
  causeway pki revoke --ca ca lost/node.crt

A revoked identity does not come back. Its name is free for a new one.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := required(cmd, "ca"); err != nil {
				return err
			}
			f.stdout = cmd.OutOrStdout()
			if len(files) == 0 {
				if err := exactlyOne(cmd, "name", "address"); err != nil {
					return err
				}
			} else if f.name != "" || f.address != "" {
				return usageError{errors.New("revoke: give a file, --name or --address, only one of them")}
			}
			return f.run(files)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.ca, "ca", "", "authority's `DIR` (required)")
	fl.StringVar(&f.name, "name", "", "`NAME` of the node")
	fl.BoolVar(&f.router, "router", false, "with --name: the router's of that name, not the node's")
	fl.StringVar(&f.address, "address", "", "`ADDRESS` of the node or router")
	fl.Var(&f.validity, "crl-validity", "when the revocation list is due to be replaced: `DURATION`")
	return cmd
}

func (f *revoking) run(files []string) error {
	ca, err := openCA(f.ca)
	if err != nil {
		return err
	}
	defer ca.close()
	records, err := ca.live()
	if err != nil {
		return err
	}
	var certs []*x509.Certificate
	var address [pki.AddressSize]byte
	if len(files) > 0 {
		certs, address, err = f.fromFile(ca, files[0])
	} else {
		address, err = f.find(ca, records)
	}
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(r record) bool { return r.Address != address })
	for _, r := range records {
		if !slices.ContainsFunc(certs, r.Leaf.Equal) {
			certs = append(certs, r.Leaf)
		}
	}
	if err := ca.signList(certs, f.at.now(), time.Duration(f.validity)); err != nil {
		return err
	}
	if err := ca.moveRevoked(certs); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f.stdout, "revoked %s of %s\nwrote %s, number %s; routers act on it after causeway pki trust --store DIR --ca %s\n",
		counted(len(certs), "certificate"), subjectText(certs[0]), ca.path(caList), ca.list.Number, f.ca)
	return err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func subjectText(c *x509.Certificate) string {
	if peer, err := pki.ReadLeaf(c); err == nil {
		return peer.URI() + ", address " + addressText(peer.Address)
	}
	return c.Subject.String()
}

// fromFile returns the certificate in a file, and its address, so that the
// same holder's others go with it; an intermediate authority has none.
func (f *revoking) fromFile(ca *caDir, file string) (certs []*x509.Certificate, address [pki.AddressSize]byte, err error) {
	chain, err := readChainFile(file)
	if err != nil {
		return nil, address, err
	}
	c := chain[0]
	if ca.isRevoked(c) {
		return nil, address, fmt.Errorf("%s is on the list already (number %s)", file, ca.list.Number)
	}
	if err := c.CheckSignatureFrom(ca.Certificate()); err != nil || c.Equal(ca.Root) {
		return nil, address, fmt.Errorf("%s was not issued by this authority, %s", file, f.ca)
	}
	if peer, err := pki.ReadLeaf(c); err == nil {
		address = peer.Address
	}
	return []*x509.Certificate{c}, address, nil
}

// find returns the address that --name or --address mean.
func (f *revoking) find(ca *caDir, records []record) (address [pki.AddressSize]byte, err error) {
	role := pki.RoleNode
	if f.router {
		role = pki.RoleRouter
	}
	fits := func(r record) bool { return r.Role == role && r.Name == f.name }
	what := fmt.Sprintf("%s named %q", role, f.name)
	if f.address != "" {
		ip, err := netip.ParseAddr(f.address)
		if err != nil || !ip.Is6() {
			return address, usageError{fmt.Errorf("--address %q: not an address such as fde1:4b0f:2020:0:a440:97ed:41:d73d", f.address)}
		}
		fits = func(r record) bool { return r.Address == ip.As16() }
		what = "certificate of address " + ip.String()
	}
	for _, r := range slices.Backward(records) {
		if fits(r) {
			return r.Address, nil
		}
	}
	hint := ""
	if other := 1 - role; slices.ContainsFunc(records, func(r record) bool { return f.name != "" && r.Name == f.name && r.Role == other }) {
		hint = fmt.Sprintf(" (there is a %s of that name)", other)
	}
	return address, fmt.Errorf("%s has issued no %s that is not revoked%s; causeway pki show %s lists what it issued", f.ca, what, hint, ca.path(caIssued))
}

// moveRevoked moves the records of what is on the list now.
func (ca *caDir) moveRevoked(certs []*x509.Certificate) error {
	for _, c := range certs {
		to := ca.path(caRevoked, recordName(c))
		if err := replaceFile(to, pki.EncodeCertificates(c.Raw), modePublic); err != nil {
			return err
		}
		if from := ca.path(caIssued, recordName(c)); fileExists(from) {
			if err := os.Remove(from); err != nil {
				return err
			}
		}
	}
	return nil
}

func pkiCRLCommand(at *timeFlag) *cobra.Command {
	var dir string
	validity := validityFlag(pki.DefaultListValidity)
	cmd := &cobra.Command{
		Use:   "crl --ca DIR",
		Short: "Write the revocation list anew, before it is overdue",
		Long: `Write the revocation list anew: same content, next number, later due date.
Routers keep an overdue list in force and raise an alarm.

  causeway pki crl --ca ca
  causeway pki trust --ca ca --store trust`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "ca"); err != nil {
				return err
			}
			ca, err := openCA(dir)
			if err != nil {
				return err
			}
			defer ca.close()
			if err := ca.signList(nil, at.now(), time.Duration(validity)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "wrote %s, number %s, %s, to be replaced by %s\n", ca.path(caList), ca.list.Number,
				counted(len(ca.list.RevokedCertificateEntries), "certificate"), clock(ca.list.NextUpdate))
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "ca", "", "authority's `DIR` (required)")
	cmd.Flags().Var(&validity, "crl-validity", "when the list is due to be replaced: `DURATION`")
	return cmd
}
