package codec

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
)

// Sizes of identifiers, in bytes (PROTOCOL.md sections 1 and 3.2).
const (
	AddressSize = 16
	PrefixSize  = 6
	CertIDSize  = 8
	DigestSize  = 16

	kindAt   = PrefixSize
	kindSize = 2
)

// Address names a node, or a router in one domain (PROTOCOL.md section 3.2):
//
//	0         6    8              16
//	+---------+----+---------------+
//	| prefix  |kind| random        |
//	+---------+----+---------------+
type Address [AddressSize]byte

// Kind says what an address belongs to.
type Kind uint16

// Kinds of addresses.
const (
	KindNode   Kind = 0
	KindRouter Kind = 1
)

// String returns "node", "router" or the number in hexadecimal.
func (k Kind) String() string {
	switch k {
	case KindNode:
		return "node"
	case KindRouter:
		return "router"
	}
	return fmt.Sprintf("0x%04x", uint16(k))
}

// ErrAddress is what every error of ParseAddress satisfies.
var ErrAddress = errors.New("not an address in the form of IPv6, such as fde1:4b0f:2020:0:1234:5678:9abc:def0")

// ParseAddress reads an address in any textual form of RFC 4291 section 2.2.
// Zones and IPv4 addresses are refused.
func ParseAddress(s string) (Address, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return Address{}, fmt.Errorf("%q: %w", s, ErrAddress)
	}
	return a.As16(), nil
}

// String returns the address in the form of RFC 5952.
func (a Address) String() string { return netip.AddrFrom16(a).String() }

// MarshalText is String for encoders of text and JSON.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParseAddress for decoders of text and JSON.
func (a *Address) UnmarshalText(text []byte) error {
	b, err := ParseAddress(string(text))
	if err != nil {
		return err
	}
	*a = b
	return nil
}

// Prefix returns the part that all addresses of a domain have in common.
func (a Address) Prefix() [PrefixSize]byte { return [PrefixSize]byte(a[:PrefixSize]) }

// Kind returns what the address says it belongs to.
func (a Address) Kind() Kind { return Kind(binary.BigEndian.Uint16(a[kindAt : kindAt+kindSize])) }

// IsZero reports whether a is the zero value, which is nobody's address.
func (a Address) IsZero() bool { return a == Address{} }

// CertID is the first 8 bytes of SHA-256 of a certificate's DER: a hint which
// of a sender's certificates to use, never used without the sender's address.
type CertID [CertIDSize]byte

// String returns the ID in hexadecimal.
func (id CertID) String() string { return hex.EncodeToString(id[:]) }

// CertKey names one certificate of one address: the key of every cache of
// certificates.
type CertKey struct {
	Address Address
	CertID  CertID
}

// Digest is the first 16 bytes of SHA-256 of a frame's signed bytes.
type Digest [DigestSize]byte

// DigestOf returns the digest of a frame with these signed bytes.
func DigestOf(signed []byte) Digest {
	sum := sha256.Sum256(signed)
	return Digest(sum[:DigestSize])
}

// String returns the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads what String has written. Its error is an operator's.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != DigestSize {
		return Digest{}, fmt.Errorf("%q is not a digest: 32 hexadecimal digits, as `causeway send` prints it", s)
	}
	copy(d[:], b)
	return d, nil
}
