package session

import (
	"encoding/binary"
	"errors"
)

// Bodies of category 1 (PROTOCOL.md sections 15.1 to 15.5):
//
//	M1      1 | version 1 | session ID 8 | X25519 key 32 | AEADs 1 | credit 4 | k 2 | ML-KEM key k | chain
//	M2      2 | version 1 | session ID 8 | X25519 key 32 | AEAD 1 | credit 4 | hash of M1 32 | k 2 | ciphertext k | chain
//	reset   3 | session ID 8
//	sealed  4 | session ID 8 | counter 8 | ciphertext | tag 16
//
//	chain   number 1 | (length 2 | DER) …
//
// Contents of sealed ones:
//
//	confirm 1 | session ID 8 | counter 8
//	grant   2 | counter 8 | bytes 4
//	probe   3
const (
	bodyM1     = 1
	bodyM2     = 2
	bodyReset  = 3
	bodySealed = 4

	version = 1

	typeSize    = 1
	idSize      = 8
	counterSize = 8
	publicSize  = 32
	hashSize    = 32
	creditSize  = 4
	lengthSize  = 2

	handshakeBodyMax = 65536 // of every body of category 1

	kemKeySize        = 1184 // ML-KEM-768
	kemCiphertextSize = 1088
	certificatesMax   = 3

	sealedHeadSize = idSize + counterSize

	// SealedOverhead is by how many bytes a sealed body is longer than its content.
	SealedOverhead = sealedHeadSize + TagSize

	contentConfirm = 1
	contentGrant   = 2
	contentProbe   = 3

	confirmSize = typeSize + idSize + counterSize
	grantSize   = typeSize + counterSize + creditSize
	probeSize   = typeSize
)

// WindowMax is the largest window of credit in bytes.
const WindowMax = 64 << 20

// Errors of bodies of category 1.
var (
	ErrMalformed = errors.New("session: malformed body of category 1")
	ErrVersion   = errors.New("session: handshake of another version")
)

// ID names a session to the end that receives under it; never zero on the wire
// but in confirm.
type ID [idSize]byte

// m1 is the body of an M1; its slices are borrowed from the body when decoded.
type m1 struct {
	id     ID
	public [publicSize]byte
	aeads  AEADs
	credit uint32   // bytes
	kemKey []byte   // empty, or kemKeySize bytes
	chain  [][]byte // 1 to certificatesMax
}

// m2 is the body of an M2; as m1.
type m2 struct {
	id         ID
	public     [publicSize]byte
	aead       AEAD
	credit     uint32
	m1         [hashSize]byte
	ciphertext []byte // empty, or kemCiphertextSize bytes
	chain      [][]byte
}

func (m *m1) append(dst []byte) []byte {
	dst = append(dst, bodyM1, version)
	dst = append(dst, m.id[:]...)
	dst = append(dst, m.public[:]...)
	dst = append(dst, byte(m.aeads))
	dst = binary.BigEndian.AppendUint32(dst, m.credit)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.kemKey)))
	dst = append(dst, m.kemKey...)
	return appendChain(dst, m.chain)
}

func (m *m2) append(dst []byte) []byte {
	dst = append(dst, bodyM2, version)
	dst = append(dst, m.id[:]...)
	dst = append(dst, m.public[:]...)
	dst = append(dst, byte(m.aead))
	dst = binary.BigEndian.AppendUint32(dst, m.credit)
	dst = append(dst, m.m1[:]...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.ciphertext)))
	dst = append(dst, m.ciphertext...)
	return appendChain(dst, m.chain)
}

func appendChain(dst []byte, chain [][]byte) []byte {
	dst = append(dst, byte(len(chain)))
	for _, der := range chain {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(der)))
		dst = append(dst, der...)
	}
	return dst
}

// reader takes fields off the front of a body. Once one is missing, ok is false
// and all further ones are zero.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) bytes(n int) []byte {
	if !r.ok || len(r.b) < n {
		r.ok = false
		return nil
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *reader) u8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(lengthSize); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(creditSize); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(counterSize); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// kem takes a length of 0 or size, and that many bytes.
func (r *reader) kem(size int) []byte {
	n := int(r.u16())
	r.ok = r.ok && (n == 0 || n == size)
	return r.bytes(n)
}

func (r *reader) chain() (chain [][]byte) {
	n := int(r.u8())
	r.ok = r.ok && n >= 1 && n <= certificatesMax
	for ; r.ok && n > 0; n-- {
		size := int(r.u16())
		r.ok = r.ok && size > 0
		chain = append(chain, r.bytes(size))
	}
	return chain
}

// whole reports whether all was there and nothing more.
func (r *reader) whole() bool { return r.ok && len(r.b) == 0 }

// handshakeReader begins an M1 or M2: type and version are checked and taken.
func handshakeReader(body []byte, kind byte) (reader, error) {
	if len(body) < 2 || len(body) > handshakeBodyMax || body[0] != kind {
		return reader{}, ErrMalformed
	}
	if body[1] != version {
		return reader{}, ErrVersion
	}
	return reader{body[2:], true}, nil
}

// decode decodes a body whose type is M1.
func (m *m1) decode(body []byte) error {
	r, err := handshakeReader(body, bodyM1)
	if err != nil {
		return err
	}
	copy(m.id[:], r.bytes(idSize))
	copy(m.public[:], r.bytes(publicSize))
	m.aeads = AEADs(r.u8())
	m.credit = r.u32()
	m.kemKey = r.kem(kemKeySize)
	m.chain = r.chain()
	if !r.whole() || m.id == (ID{}) || !m.aeads.Has(ChaCha20Poly1305) || m.credit > WindowMax {
		return ErrMalformed
	}
	return nil
}

// decode decodes a body whose type is M2.
func (m *m2) decode(body []byte) error {
	r, err := handshakeReader(body, bodyM2)
	if err != nil {
		return err
	}
	copy(m.id[:], r.bytes(idSize))
	copy(m.public[:], r.bytes(publicSize))
	m.aead = AEAD(r.u8())
	m.credit = r.u32()
	copy(m.m1[:], r.bytes(hashSize))
	m.ciphertext = r.kem(kemCiphertextSize)
	m.chain = r.chain()
	if !r.whole() || m.id == (ID{}) || m.aead != AES256GCM && m.aead != ChaCha20Poly1305 || m.credit > WindowMax {
		return ErrMalformed
	}
	return nil
}

// Chain returns the certificates in the body of an M1 or M2, DER, leaf first,
// borrowed from it, so that its frame can be verified; nil for all other bodies
// of category 1. Errors are ErrMalformed and ErrVersion.
func Chain(body []byte) ([][]byte, error) {
	if len(body) == 0 {
		return nil, ErrMalformed
	}
	switch body[0] {
	case bodyM1:
		var m m1
		err := m.decode(body)
		return m.chain, err
	case bodyM2:
		var m m2
		err := m.decode(body)
		return m.chain, err
	}
	return nil, nil
}

func appendReset(dst []byte, id ID) []byte { return append(append(dst, bodyReset), id[:]...) }

// decodeReset returns the session that a body of type reset names.
func decodeReset(body []byte) (id ID, err error) {
	if len(body) != typeSize+idSize || copy(id[:], body[typeSize:]) != idSize || id == (ID{}) {
		return ID{}, ErrMalformed
	}
	return id, nil
}

// sealed is a sealed body, its box borrowed from it.
type sealed struct {
	id      ID
	counter uint64
	box     []byte // ciphertext and tag
}

func (s *sealed) decode(b []byte) error {
	r := reader{b, true}
	copy(s.id[:], r.bytes(idSize))
	s.counter = r.u64()
	s.box = r.b
	if !r.ok || s.id == (ID{}) || s.counter == 0 || len(s.box) < TagSize {
		return ErrMalformed
	}
	return nil
}

// content is what a sealed body of category 1 says.
type content struct {
	kind    byte
	id      ID     // confirm: the session before, zero for none
	counter uint64 // confirm: the last in it; grant: after which the bytes may be under way
	bytes   uint32 // grant
}

func (c *content) append(dst []byte) []byte {
	dst = append(dst, c.kind)
	switch c.kind {
	case contentConfirm:
		dst = append(dst, c.id[:]...)
		dst = binary.BigEndian.AppendUint64(dst, c.counter)
	case contentGrant:
		dst = binary.BigEndian.AppendUint64(dst, c.counter)
		dst = binary.BigEndian.AppendUint32(dst, c.bytes)
	}
	return dst
}

func (c *content) decode(b []byte) error {
	r := reader{b, true}
	*c = content{kind: r.u8()}
	switch c.kind {
	case contentConfirm:
		copy(c.id[:], r.bytes(idSize))
		c.counter = r.u64()
		r.ok = r.ok && (c.id != ID{} || c.counter == 0)
	case contentGrant:
		c.counter = r.u64()
		c.bytes = r.u32()
		r.ok = r.ok && c.bytes <= WindowMax
	case contentProbe:
	default:
		return ErrMalformed
	}
	if !r.whole() {
		return ErrMalformed
	}
	return nil
}
