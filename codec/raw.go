package codec

import "encoding/binary"

// Raw is one whole frame as Cut has found it. Its methods read in place and
// allocate nothing; the slices they return are borrowed from it. On bytes that
// are not exactly one frame they may panic. All but Signature also read a frame
// that ends with its signed bytes, having no signature yet.
type Raw []byte

// TTL returns the time to live.
func (r Raw) TTL() uint8 { return r[ttlAt] }

// SetTTL changes the time to live, in place; nothing else of a frame may be
// changed, since all else is signed.
func (r Raw) SetTTL(ttl uint8) { r[ttlAt] = ttl }

// Recipient returns the address the frame is for.
func (r Raw) Recipient() Address { return Address(r[recipientAt:senderAt]) }

// RecipientBytes returns the recipient, borrowed.
func (r Raw) RecipientBytes() []byte { return r[recipientAt:senderAt:senderAt] }

// Sender returns the address the frame says it comes from.
func (r Raw) Sender() Address { return Address(r[senderAt:categoryAt]) }

// Category returns what the body is for.
func (r Raw) Category() Category { return Category(r[categoryAt]) }

// SendTime returns the send time in nanoseconds since the Unix epoch.
func (r Raw) SendTime() uint64 { return binary.BigEndian.Uint64(r[sendTimeAt:certIDAt]) }

// CertID returns the ID of the certificate the frame is signed under.
func (r Raw) CertID() CertID { return CertID(r[certIDAt:encryptedAt]) }

// CertKey returns sender and certificate ID together.
func (r Raw) CertKey() CertKey { return CertKey{Address: r.Sender(), CertID: r.CertID()} }

// Encrypted reports whether only the recipient can read the body.
func (r Raw) Encrypted() bool { return r[encryptedAt] != 0 }

// Body returns the body, borrowed.
func (r Raw) Body() []byte {
	end := r.bodyEnd()
	return r[HeaderSize:end:end]
}

// Signature returns the signature, borrowed.
func (r Raw) Signature() []byte { return r[r.bodyEnd()+SignatureLengthSize:] }

// Signed returns the signed bytes, borrowed.
func (r Raw) Signed() []byte {
	end := r.bodyEnd()
	return r[recipientAt:end:end]
}

// Digest returns the frame's digest.
func (r Raw) Digest() Digest { return DigestOf(r.Signed()) }

func (r Raw) bodyEnd() int {
	return HeaderSize + int(binary.BigEndian.Uint32(r[bodyLengthAt:HeaderSize]))
}
