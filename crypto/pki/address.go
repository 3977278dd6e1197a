package pki

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// An address is 0xfd | 5 bytes of SHA-256(domain) | kind 2 | random 8.
const (
	AddressSize = 16 // of an address, in bytes
	PrefixSize  = 6  // of a domain's prefix, in bytes
	CertIDSize  = 8  // of a certificate ID, in bytes

	prefixByte   = 0xfd // unique local addresses (RFC 4193)
	kindOffset   = PrefixSize
	randomOffset = kindOffset + 2
)

// Kinds of address; they tell the roles apart in every frame.
const (
	KindNode   uint16 = 0
	KindRouter uint16 = 1
)

// Role is what a certificate lets its holder be.
type Role uint8

// Roles. Each has a kind of address and a form of URI of its own, so that a
// node's certificate can't pass as a router's.
const (
	RoleNode Role = iota
	RoleRouter
)

// String returns "node" or "router".
func (r Role) String() string {
	switch r {
	case RoleNode:
		return "node"
	case RoleRouter:
		return "router"
	}
	panic(fmt.Sprintf("pki: Role %d is neither node nor router", uint8(r)))
}

// Kind returns the kind of the role's addresses.
func (r Role) Kind() uint16 {
	if r == RoleRouter {
		return KindRouter
	}
	return KindNode
}

// Prefix returns the first six bytes of all addresses in the domain.
func Prefix(domain string) (p [PrefixSize]byte) {
	sum := sha256.Sum256([]byte(domain))
	p[0] = prefixByte
	copy(p[1:], sum[:])
	return p
}

// prefixNet returns the domain's prefix as an address range, for name
// constraints.
func prefixNet(domain string) *net.IPNet {
	p := Prefix(domain)
	ip := make(net.IP, AddressSize)
	copy(ip, p[:])
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*PrefixSize, 8*AddressSize)}
}

// NewAddress draws an address of the kind in the domain from random, 8 bytes
// of it. It fails when random does, or when the domain's name is bad.
func NewAddress(domain string, kind uint16, random io.Reader) (a [AddressSize]byte, err error) {
	if err := CheckDomain(domain); err != nil {
		return a, err
	}
	p := Prefix(domain)
	copy(a[:], p[:])
	a[kindOffset], a[kindOffset+1] = byte(kind>>8), byte(kind)
	if _, err := io.ReadFull(random, a[randomOffset:]); err != nil {
		return [AddressSize]byte{}, fmt.Errorf("draw an address: %w", err)
	}
	return a, nil
}

// CertID returns the ID of a certificate: the first 8 bytes of SHA-256 over
// its DER.
func CertID(der []byte) [CertIDSize]byte {
	sum := sha256.Sum256(der)
	return [CertIDSize]byte(sum[:])
}

func kindOf(a [AddressSize]byte) uint16 {
	return uint16(a[kindOffset])<<8 | uint16(a[kindOffset+1])
}

func prefixOf(a [AddressSize]byte) [PrefixSize]byte { return [PrefixSize]byte(a[:]) }

func addressText(a [AddressSize]byte) string { return netip.AddrFrom16(a).String() }

func hexText(b []byte) string { return hex.EncodeToString(b) }
