package session

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// Sizes in bytes that both AEADs have in common.
const (
	KeySize   = 32
	NonceSize = 12
	TagSize   = 16
)

// AEAD is an authenticated cipher (PROTOCOL.md section 15.2).
type AEAD uint8

// The AEADs; the values are those on the wire.
const (
	AES256GCM        AEAD = 1
	ChaCha20Poly1305 AEAD = 2
)

// String returns the AEAD's name.
func (a AEAD) String() string {
	switch a {
	case AES256GCM:
		return "AES-256-GCM"
	case ChaCha20Poly1305:
		return "ChaCha20-Poly1305"
	}
	return "unknown"
}

// New returns the AEAD under a key of KeySize bytes. The key is copied. An
// unknown AEAD and a key of another size panic.
func (a AEAD) New(key []byte) cipher.AEAD {
	var aead cipher.AEAD
	var err error
	switch a {
	case AES256GCM:
		var block cipher.Block
		if len(key) != KeySize {
			panic(fmt.Sprintf("session: AEAD.New: key of %d bytes, must be %d", len(key), KeySize))
		}
		if block, err = aes.NewCipher(key); err == nil {
			aead, err = cipher.NewGCM(block)
		}
	case ChaCha20Poly1305:
		aead, err = chacha20poly1305.New(key)
	default:
		panic(fmt.Sprintf("session: AEAD.New: AEAD %d is none", a))
	}
	if err != nil {
		panic("session: AEAD.New: " + err.Error())
	}
	return aead
}

// AEADs is a set of AEADs.
type AEADs uint8

// AllAEADs is what this package has.
const AllAEADs = AEADs(AES256GCM | ChaCha20Poly1305)

// CPUAEADs returns the AEADs that are fast on this CPU: ChaCha20-Poly1305 always,
// AES-256-GCM where there are instructions for AES and for GCM's product.
func CPUAEADs() AEADs {
	s := AEADs(ChaCha20Poly1305)
	if cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAES && cpu.S390X.HasGHASH {
		s |= AEADs(AES256GCM)
	}
	return s
}

// Has reports whether a is in s.
func (s AEADs) Has(a AEAD) bool { return s&AEADs(a) != 0 }

// Choose returns which AEAD two ends use of which one has s and the other t:
// AES-256-GCM when both have it.
func (s AEADs) Choose(t AEADs) AEAD {
	if (s & t).Has(AES256GCM) {
		return AES256GCM
	}
	return ChaCha20Poly1305
}
