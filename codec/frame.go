package codec

import "encoding/binary"

// A frame (PROTOCOL.md section 1). All integers are big-endian.
//
//	 0   1                17               33  34        42        50  51      55
//	+---+----------------+----------------+---+---------+---------+---+-------+--------+----+-------+
//	|TTL| recipient   16 | sender      16 |cat| time  8 | cert  8 |enc| n   4 | body n | m 4| sig m |
//	+---+----------------+----------------+---+---------+---------+---+-------+--------+----+-------+
//	    |<------------------------- signed bytes ------------------------------------->|
const (
	ttlAt        = 0
	recipientAt  = ttlAt + 1
	senderAt     = recipientAt + AddressSize
	categoryAt   = senderAt + AddressSize
	sendTimeAt   = categoryAt + 1
	certIDAt     = sendTimeAt + sendTimeSize
	encryptedAt  = certIDAt + CertIDSize
	bodyLengthAt = encryptedAt + 1

	sendTimeSize   = 8
	bodyLengthSize = 4

	// HeaderSize is the number of bytes before the body.
	HeaderSize = 55
	// SignatureLengthSize is the number of bytes between body and signature.
	SignatureLengthSize = 4
	// SignatureMax is the largest signature field, in bytes.
	SignatureMax = 512
	// BodyMaxDefault is the largest body unless configured, in bytes.
	BodyMaxDefault = 1 << 20
	// BodyMaxLimit is the largest body that can be configured, in bytes.
	BodyMaxLimit = 16 << 20
	// FrameSizeMin is the size of the smallest frame: no body, one byte of
	// signature.
	FrameSizeMin = HeaderSize + SignatureLengthSize + 1
	// TTLDefault is the time to live a sender gives a frame, and the maximal
	// TTL a router forwards with unless configured.
	TTLDefault = 32
)

// Compile-time: the fields add up to the header.
var _ [0]struct{} = [HeaderSize - (bodyLengthAt + bodyLengthSize)]struct{}{}

// Frame is a frame taken apart. After Decode its Body and Signature alias the
// bytes it was decoded from.
type Frame struct {
	TTL       uint8
	Recipient Address
	Sender    Address
	Category  Category
	SendTime  uint64 // nanoseconds since the Unix epoch
	CertID    CertID
	Encrypted bool
	Body      []byte
	Signature []byte
}

// Decode sets all of f from b, which must be exactly one frame with a body of
// at most bodyMax bytes. Body and Signature alias b. On error, a sentinel
// (ErrLength, or one of Cut's), f is unchanged. It allocates nothing.
func (f *Frame) Decode(b []byte, bodyMax uint32) error {
	need, err := Cut(b, bodyMax)
	if err != nil {
		return err
	}
	if need != len(b) {
		return ErrLength
	}
	r := Raw(b)
	*f = Frame{
		TTL:       r.TTL(),
		Recipient: r.Recipient(),
		Sender:    r.Sender(),
		Category:  r.Category(),
		SendTime:  r.SendTime(),
		CertID:    r.CertID(),
		Encrypted: r.Encrypted(),
		Body:      r.Body(),
		Signature: r.Signature(),
	}
	return nil
}

// Size returns the length of the encoded frame in bytes.
func (f *Frame) Size() int {
	return HeaderSize + len(f.Body) + SignatureLengthSize + len(f.Signature)
}

// AppendSigned appends the frame's signed bytes, which are what its signature
// is over. The body must be of at most BodyMaxLimit bytes; Append checks that.
func (f *Frame) AppendSigned(dst []byte) []byte {
	dst = append(dst, f.Recipient[:]...)
	dst = append(dst, f.Sender[:]...)
	dst = append(dst, byte(f.Category))
	dst = binary.BigEndian.AppendUint64(dst, f.SendTime)
	dst = append(dst, f.CertID[:]...)
	if f.Encrypted {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Body)))
	return append(dst, f.Body...)
}

// Append appends the whole frame. It fails with ErrBodyLength or
// ErrSignatureLength and then gives back dst as it was. It allocates nothing
// when dst has room for Size more bytes.
func (f *Frame) Append(dst []byte) ([]byte, error) {
	if len(f.Body) > BodyMaxLimit {
		return dst, ErrBodyLength
	}
	if err := checkSignatureLength(len(f.Signature)); err != nil {
		return dst, err
	}
	dst = append(dst, f.TTL)
	dst = f.AppendSigned(dst)
	return AppendSignature(dst, f.Signature)
}

// AppendSignature appends a signature's length and the signature, which is
// how a frame ends. A sender that wants to copy its body only once appends
// the TTL, then AppendSigned, signs what that has appended, and ends with
// this. It fails with ErrSignatureLength.
func AppendSignature(dst, signature []byte) ([]byte, error) {
	if err := checkSignatureLength(len(signature)); err != nil {
		return dst, err
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(signature)))
	return append(dst, signature...), nil
}

func checkSignatureLength(m int) error {
	if m < 1 || m > SignatureMax {
		return ErrSignatureLength
	}
	return nil
}
