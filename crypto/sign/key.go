package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"sync/atomic"
)

// Algorithm is the signature algorithm that follows from a certificate's key.
type Algorithm uint8

const (
	Ed25519   Algorithm = iota + 1 // RFC 8032, pure
	ECDSAP256                      // with SHA-256, ASN.1 DER
)

// String returns the name used on the command line and in listings.
func (a Algorithm) String() string {
	switch a {
	case Ed25519:
		return "ed25519"
	case ECDSAP256:
		return "p256"
	}
	return "unknown"
}

// ErrKeyType says that a key is neither Ed25519 nor ECDSA P-256.
var ErrKeyType = errors.New("sign: key is neither Ed25519 nor ECDSA P-256")

// Key is a public key ready for verification, safe for concurrent use.
type Key struct {
	algorithm Algorithm
	ed        ed25519.PublicKey
	ec        *ecdsa.PublicKey

	// of an Ed25519 key
	table    atomic.Pointer[table] // behind which it has multiples, if any
	verified atomic.Uint32         // good signatures while it had none
}

// NewKey prepares pub, an ed25519.PublicKey or *ecdsa.PublicKey on P-256. It
// keeps a reference to pub, which must not change. Otherwise ErrKeyType.
func NewKey(pub crypto.PublicKey) (*Key, error) {
	switch p := pub.(type) {
	case ed25519.PublicKey:
		if len(p) == ed25519.PublicKeySize {
			return &Key{algorithm: Ed25519, ed: p}, nil
		}
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() {
			return &Key{algorithm: ECDSAP256, ec: p}, nil
		}
	}
	return nil, ErrKeyType
}

// Algorithm returns which algorithm the key's signatures use.
func (k *Key) Algorithm() Algorithm { return k.algorithm }

// Verify reports whether signature, a frame's signature field, is k's over
// signed, the frame's signed bytes: plain, or for an Ed25519 key a burst,
// which its length tells. The verdict on the Ed25519 part is that of
// crypto/ed25519. Both slices are borrowed; a plain Ed25519 check allocates nothing.
func (k *Key) Verify(signed, signature []byte) bool {
	switch {
	case k.algorithm == ECDSAP256:
		digest := sha256.Sum256(signed)
		return ecdsa.VerifyASN1(k.ec, digest[:], signature)
	case len(signature) == ed25519.SignatureSize:
		return ed25519.Verify(k.ed, signed, signature)
	default:
		return k.verifyBurst(signed, signature)
	}
}

// Signer makes signatures with one private key. It is safe for concurrent use
// when its crypto.Signer is.
type Signer struct {
	algorithm Algorithm
	key       crypto.Signer
}

// NewSigner takes key's public half as NewKey does; ErrKeyType otherwise.
func NewSigner(key crypto.Signer) (*Signer, error) {
	k, err := NewKey(key.Public())
	if err != nil {
		return nil, err
	}
	return &Signer{algorithm: k.algorithm, key: key}, nil
}

// Sign appends the plain signature over signed to dst. Ed25519 is
// deterministic and needs no randomness; ECDSA uses RFC 6979's deterministic
// nonces, so that the package needs none either.
func (s *Signer) Sign(dst, signed []byte) ([]byte, error) {
	digest, opts := signed, crypto.SignerOpts(crypto.Hash(0))
	if s.algorithm == ECDSAP256 {
		sum := sha256.Sum256(signed)
		digest, opts = sum[:], crypto.SHA256
	}
	sig, err := s.key.Sign(nil, digest, opts)
	if err != nil {
		return dst, err
	}
	return append(dst, sig...), nil
}
