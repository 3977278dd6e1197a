package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"causeway/crypto/pki"
)

// shown is what there is to say about one PEM block. Keys are shown by their
// type and the certificates they fit, never by their content.
type shown struct {
	File    string `json:"file"`
	What    string `json:"what"`
	Name    string `json:"name,omitempty"`
	Domain  string `json:"domain,omitempty"`
	Role    string `json:"role,omitempty"`
	Address string `json:"address,omitempty"`

	CertificateID string `json:"certificate_id,omitempty"`
	Serial        string `json:"serial,omitempty"`
	Issuer        string `json:"issuer,omitempty"`
	KeyType       string `json:"key_type,omitempty"`
	KeyID         string `json:"key_id,omitempty"` // same for a key, its requests and its certificates

	Number  string   `json:"number,omitempty"`
	Revoked []string `json:"revoked,omitempty"` // serial numbers

	NotBefore *time.Time `json:"not_before,omitempty"`
	NotAfter  *time.Time `json:"not_after,omitempty"`
	Valid     *bool      `json:"valid,omitempty"` // at the time asked for
	Problem   string     `json:"problem,omitempty"`

	validity string
}

func pkiShowCommand(at *timeFlag) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show FILE...",
		Short: "Say what is in certificates, requests, revocation lists and keys",
		Long: `Say what is in certificates, requests, revocation lists and keys (PEM). A
directory stands for all such files in it. Of a private key it says the type
and an ID that the certificates of that key have too; never the key.

  causeway pki show billing-1
  causeway pki show --json ca/issued`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := expand(args)
			if err != nil {
				return err
			}
			for _, file := range files {
				blocks, err := describe(file, at.now())
				if err != nil {
					return err
				}
				for _, s := range blocks {
					if err := s.print(cmd.OutOrStdout(), asJSON); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

// expand replaces directories by the files of ours in them.
func expand(args []string) (files []string, err error) {
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		before := len(files)
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			switch filepath.Ext(path) {
			case ".crt", ".csr", ".crl", ".key", ".pem":
				if !d.IsDir() && !strings.HasPrefix(d.Name(), ".") {
					files = append(files, path)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(files) == before {
			return nil, fmt.Errorf("%s has no files that end in .crt, .csr, .crl, .key or .pem", arg)
		}
	}
	return files, nil
}

var errNoPEM = errors.New("has no PEM block")

// describe says what the PEM blocks of a file are.
func describe(file string, now time.Time) (all []shown, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		s := shown{File: file}
		one := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		switch block.Type {
		case "CERTIFICATE":
			err = s.certificate(one, now)
		case "CERTIFICATE REQUEST":
			err = s.request(one)
		case "X509 CRL":
			err = s.revocationList(one, now)
		case "PRIVATE KEY":
			err = s.key(one)
		default:
			err = fmt.Errorf("the PEM block %q is not one of ours", block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: %w", file, errNoPEM)
	}
	return all, nil
}

func (s *shown) setValidity(from, to, now time.Time) {
	from, to = from.UTC(), to.UTC()
	valid := !now.Before(from) && !now.After(to)
	s.NotBefore, s.NotAfter, s.Valid = &from, &to, &valid
	s.validity = validityText(from, to, now)
}

func (s *shown) setKey(public any) {
	s.KeyType = string(pki.KeyTypeOf(public))
	if s.KeyType == "" {
		s.KeyType = fmt.Sprintf("%T", public)
	}
	if der, err := x509.MarshalPKIXPublicKey(public); err == nil {
		s.KeyID = fmt.Sprintf("%x", pki.CertID(der))
	}
}

func (s *shown) certificate(text []byte, now time.Time) error {
	certs, err := pki.DecodeCertificates(text)
	if err != nil {
		return err
	}
	c := certs[0]
	s.CertificateID = fmt.Sprintf("%x", pki.CertID(c.Raw))
	s.Serial = fmt.Sprintf("%x", c.SerialNumber)
	s.Issuer = c.Issuer.String()
	s.setKey(c.PublicKey)
	s.setValidity(c.NotBefore, c.NotAfter, now)
	if c.IsCA {
		s.What = "intermediate certificate"
		if string(c.RawSubject) == string(c.RawIssuer) {
			s.What = "root certificate"
		}
		s.Name = c.Subject.String()
		s.Domain, _ = pki.DomainOfRoot(c)
		return nil
	}
	peer, err := pki.ReadLeaf(c)
	if err != nil {
		s.What, s.Problem = "certificate", err.Error()
		return nil
	}
	s.What = map[pki.Role]string{pki.RoleNode: "node certificate", pki.RoleRouter: "grant"}[peer.Role]
	s.Name, s.Domain, s.Role, s.Address = peer.Name, peer.Domain, peer.Role.String(), addressText(peer.Address)
	return nil
}

func (s *shown) request(text []byte) error {
	s.What = "certificate request"
	r, err := pki.DecodeRequest(text)
	if err != nil {
		s.Problem = err.Error()
		return nil
	}
	s.Name, s.Role = r.Name, r.Role.String()
	s.setKey(r.Public)
	return nil
}

func (s *shown) revocationList(text []byte, now time.Time) error {
	der, err := pki.DecodeCRL(text)
	if err != nil {
		return err
	}
	list, err := pki.ParseCRL(der)
	if err != nil {
		return err
	}
	s.What, s.Number, s.Issuer = "revocation list", list.Number.String(), list.Issuer.String()
	for _, e := range list.RevokedCertificateEntries {
		s.Revoked = append(s.Revoked, fmt.Sprintf("%x", e.SerialNumber))
	}
	s.setValidity(list.ThisUpdate, list.NextUpdate, now)
	return nil
}

func (s *shown) key(text []byte) error {
	key, err := pki.DecodeKey(text)
	if err != nil {
		return err
	}
	s.What = "private key"
	s.setKey(key.Public())
	if info, err := os.Stat(s.File); err == nil && info.Mode().Perm()&0o077 != 0 {
		s.Problem = "others can read this key; run chmod 600 " + s.File
	}
	return nil
}

func (s *shown) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-12s %s\n", label, value)
		}
	}
	fmt.Fprintf(&b, "%s: %s\n", s.File, s.What)
	line("name", s.Name)
	line("domain", s.Domain)
	line("role", s.Role)
	line("address", s.Address)
	line("valid", s.validity)
	line("number", s.Number)
	if s.What == "revocation list" {
		line("revoked", counted(len(s.Revoked), "certificate"))
	}
	for _, serial := range s.Revoked {
		fmt.Fprintf(&b, "  %-12s %s\n", "", serial)
	}
	line("id", s.CertificateID)
	line("serial", s.Serial)
	line("issuer", s.Issuer)
	line("key", strings.TrimSpace(s.KeyType+" "+s.KeyID))
	line("PROBLEM", s.Problem)
	_, err := io.WriteString(w, b.String())
	return err
}
