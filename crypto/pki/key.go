package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"io"
)

// KeyType is a kind of key; its text is what --key-type takes.
type KeyType string

// Kinds of key. Ed25519 is the default: it is faster to sign and verify, and
// only it can sign bursts.
const (
	KeyEd25519 KeyType = "ed25519"
	KeyP256    KeyType = "p256"
)

// p256Tries bounds how often 32 random bytes may miss the range of P-256's
// private keys; one miss has a chance of 2^-32.
const p256Tries = 8

// NewKey makes a private key of the type from random's bytes, 32 of them, and
// as good as they are.
func NewKey(t KeyType, random io.Reader) (crypto.Signer, error) {
	var seed [ed25519.SeedSize]byte
	switch t {
	case KeyEd25519:
		if _, err := io.ReadFull(random, seed[:]); err != nil {
			return nil, fmt.Errorf("draw a key: %w", err)
		}
		return ed25519.NewKeyFromSeed(seed[:]), nil
	case KeyP256:
		for range p256Tries {
			if _, err := io.ReadFull(random, seed[:]); err != nil {
				return nil, fmt.Errorf("draw a key: %w", err)
			}
			if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:]); err == nil {
				return key, nil
			}
		}
		return nil, fmt.Errorf("draw a key: %d times 32 bytes out of range, which is not random", p256Tries)
	}
	return nil, fmt.Errorf("key type %s: give ed25519 or p256", quoted(string(t)))
}

// KeyTypeOf returns the type of a public key, "" when it is of neither.
func KeyTypeOf(pub crypto.PublicKey) KeyType {
	if !keyAllowed(pub) {
		return ""
	}
	if _, ok := pub.(ed25519.PublicKey); ok {
		return KeyEd25519
	}
	return KeyP256
}
