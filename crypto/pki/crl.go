package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

var (
	errListNumber   = errors.New("has no CRL number")
	errListCritical = errors.New("has a critical extension that is not understood")
	errListIssuer   = errors.New("is signed by none of the authorities in this domain's directory")
	errListPEM      = errors.New("is not one PEM block X509 CRL")
)

const (
	pemCRL         = "X509 CRL"
	pemCertificate = "CERTIFICATE"
	pemRequest     = "CERTIFICATE REQUEST"
	pemPrivateKey  = "PRIVATE KEY"
)

// EncodeCRL returns the list as PEM.
func EncodeCRL(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: der})
}

// DecodeCRL returns the DER of the one list in a PEM file.
func DecodeCRL(text []byte) ([]byte, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemCRL {
		return nil, errListPEM
	}
	if extra, _ := pem.Decode(rest); extra != nil {
		return nil, errListPEM
	}
	return block.Bytes, nil
}

// ParseCRL parses a DER-encoded list and refuses what would change its
// meaning: a missing number, and critical extensions (indirect, partial and
// delta lists have them). It does not check the signature.
func ParseCRL(der []byte) (*x509.RevocationList, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if list.Number == nil {
		return nil, errListNumber
	}
	for _, e := range list.Extensions {
		if e.Critical {
			return nil, errListCritical
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return nil, errListCritical
			}
		}
	}
	return list, nil
}

// parseList parses a list and finds which of the domain's authorities signed
// it.
func (d *domainTrust) parseList(file string, der []byte) (issuerID, *revocationList, error) {
	list, err := ParseCRL(der)
	if err != nil {
		return "", nil, fmt.Errorf("revocation list %s: %w", file, err)
	}
	issuer, err := issuerOfList(list, slices.Concat(d.roots, d.intermediates))
	if err != nil {
		return "", nil, fmt.Errorf("revocation list %s: %w", file, err)
	}
	return issuerIDOf(issuer), newList(file, list), nil
}

func newList(file string, list *x509.RevocationList) *revocationList {
	out := &revocationList{
		file: file, der: list.Raw, number: list.Number, nextUpdate: list.NextUpdate,
		serials: make(map[string]struct{}, len(list.RevokedCertificateEntries)),
	}
	for _, entry := range list.RevokedCertificateEntries {
		out.serials[string(entry.SerialNumber.Bytes())] = struct{}{}
	}
	return out
}

func issuerOfList(list *x509.RevocationList, authorities []*x509.Certificate) (*x509.Certificate, error) {
	for _, ca := range authorities {
		if string(ca.RawSubject) == string(list.RawIssuer) && list.CheckSignatureFrom(ca) == nil {
			return ca, nil
		}
	}
	return nil, errListIssuer
}
