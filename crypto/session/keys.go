package session

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/sha256"
	"errors"
	"io"
)

// Labels of the key schedule (PROTOCOL.md section 15.3).
const (
	saltLabel = "causeway session 1"
	labelI2R  = "i2r"
	labelR2I  = "r2i"
)

var errPublicKey = errors.New("session: bad public key or ciphertext")

// keyPair has the private keys of one end for one handshake. What the library
// keeps inside of them cannot be cleared; it is gone when they are let go.
type keyPair struct {
	x   *ecdh.PrivateKey
	kem *mlkem.DecapsulationKey768 // nil: none
}

// newKeyPair makes private keys from the reader's bytes, which must not fail.
func newKeyPair(rand io.Reader, withKEM bool) (k keyPair) {
	var seed [mlkem.SeedSize]byte
	defer clear(seed[:])
	mustRead(rand, seed[:KeySize])
	var err error
	if k.x, err = ecdh.X25519().NewPrivateKey(seed[:KeySize]); err != nil {
		panic("session: X25519 takes any 32 bytes: " + err.Error())
	}
	if withKEM {
		mustRead(rand, seed[:])
		if k.kem, err = mlkem.NewDecapsulationKey768(seed[:]); err != nil {
			panic("session: ML-KEM takes any seed of its size: " + err.Error())
		}
	}
	return k
}

// kemPublic returns the encapsulation key's bytes, nil for none.
func (k *keyPair) kemPublic() []byte {
	if k.kem == nil {
		return nil
	}
	return k.kem.EncapsulationKey().Bytes()
}

// mustRead fills b.
func mustRead(rand io.Reader, b []byte) {
	if _, err := io.ReadFull(rand, b); err != nil {
		panic("session: randomness must never end: " + err.Error())
	}
}

// exchange returns the X25519 shared secret. A bad key is errPublicKey, also one
// whose result is zero.
func exchange(private *ecdh.PrivateKey, public []byte) ([]byte, error) {
	key, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, errPublicKey
	}
	secret, err := private.ECDH(key) // refuses a zero result
	if err != nil {
		return nil, errPublicKey
	}
	return secret, nil
}

// directionKeys are the keys of a session's two directions.
type directionKeys struct {
	i2r, r2i []byte // KeySize each
}

func (k *directionKeys) clear() {
	clear(k.i2r)
	clear(k.r2i)
}

// deriveKeys is the key schedule. It clears both secrets; kemSecret is empty
// without ML-KEM.
func deriveKeys(secret, kemSecret, signedM1, signedM2 []byte) (k directionKeys) {
	h := sha256.New()
	h.Write([]byte(saltLabel))
	h.Write(signedM1)
	h.Write(signedM2)
	ikm := make([]byte, 0, len(secret)+len(kemSecret))
	ikm = append(append(ikm, secret...), kemSecret...)
	prk, err := hkdf.Extract(sha256.New, ikm, h.Sum(nil))
	if err == nil {
		k.i2r, err = hkdf.Expand(sha256.New, prk, labelI2R, KeySize)
	}
	if err == nil {
		k.r2i, err = hkdf.Expand(sha256.New, prk, labelR2I, KeySize)
	}
	if err != nil {
		panic("session: HKDF gives 32 bytes: " + err.Error())
	}
	clear(prk)
	clear(ikm)
	clear(secret)
	clear(kemSecret)
	return k
}
