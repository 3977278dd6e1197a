package pki

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Request is a certificate request (PKCS #10, RFC 2986): a name, and a key
// whose holder signed it. It asks for nothing else; the authority decides.
type Request struct {
	Name   string
	Role   Role // RoleRouter when the request says that it is a router's
	Public crypto.PublicKey
}

var (
	errRequestPEM = errors.New("is not one PEM block CERTIFICATE REQUEST")
	errRequestSig = errors.New("is not signed by the key in it, so whoever made it does not hold that key, or it was changed")
)

// CreateRequest returns a request, DER. The subject's common name is the name,
// with "router/" before it for a router, as in the URI.
func CreateRequest(name string, role Role, key crypto.Signer, random io.Reader) ([]byte, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if role == RoleRouter {
		name = uriRouterPart + name
	}
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	return x509.CreateCertificateRequest(random, t, key)
}

// EncodeRequest returns a request as PEM.
func EncodeRequest(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der})
}

// DecodeRequest reads a request from PEM and checks its signature, its key's
// type and its name.
func DecodeRequest(text []byte) (*Request, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemRequest {
		return nil, errRequestPEM
	}
	if extra, _ := pem.Decode(rest); extra != nil {
		return nil, errRequestPEM
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if !keyAllowed(csr.PublicKey) {
		return nil, errKeyKind
	}
	if csr.CheckSignature() != nil {
		return nil, errRequestSig
	}
	r := &Request{Name: csr.Subject.CommonName, Public: csr.PublicKey}
	if name, ok := strings.CutPrefix(r.Name, uriRouterPart); ok {
		r.Name, r.Role = name, RoleRouter
	}
	if err := CheckName(r.Name); err != nil {
		return nil, fmt.Errorf("its common name (CN): %w", err)
	}
	return r, nil
}
