package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

var (
	errNoCertificate = errors.New("has no PEM block CERTIFICATE")
	errOtherBlock    = errors.New("has a PEM block that is no certificate")
	errKeyInside     = errors.New("has a private key in it, which belongs into node.key alone")
	errKeyPEM        = errors.New("is not one PEM block PRIVATE KEY (PKCS#8, not encrypted)")
	errKeyKind       = errors.New("is neither an Ed25519 nor an ECDSA P-256 key")
)

// EncodeCertificates returns DER certificates as PEM, in their order.
func EncodeCertificates(chain ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}))
	}
	return b.Bytes()
}

// DecodeCertificates returns the certificates of a PEM file, at least one.
// Text between blocks is skipped, as openssl writes it; other blocks are an
// error.
func DecodeCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		switch block.Type {
		case pemCertificate:
		case pemPrivateKey, "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
			return nil, errKeyInside
		default:
			return nil, errOtherBlock
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errNoCertificate
	}
	return certs, nil
}

// EncodeKey returns a private key as PKCS#8 PEM.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// DecodeKey returns the private key of a PKCS#8 PEM file. Its errors say
// nothing of the file's content.
func DecodeKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemPrivateKey {
		return nil, errKeyPEM
	}
	if extra, _ := pem.Decode(rest); extra != nil {
		return nil, errKeyPEM
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errKeyPEM
	}
	signer, ok := key.(crypto.Signer)
	if !ok || !keyAllowed(signer.Public()) {
		return nil, errKeyKind
	}
	return signer, nil
}

// readFile reads a file of at most max bytes. Its error is a *FileError.
func readFile(fsys fs.FS, name string, max int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, &FileError{File: name, Problem: "can't be read", Err: err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, &FileError{File: name, Problem: "can't be read", Err: err}
	}
	if int64(len(text)) > max {
		return nil, &FileError{File: name, Problem: fmt.Sprintf("has more than %d bytes", max)}
	}
	return text, nil
}

func readCertificates(fsys fs.FS, name string) ([]*x509.Certificate, error) {
	text, err := readFile(fsys, name, fileMax)
	if err != nil {
		return nil, err
	}
	certs, err := DecodeCertificates(text)
	if err != nil {
		return nil, &FileError{File: name, Problem: "holds no certificates to go by", Err: err}
	}
	return certs, nil
}
