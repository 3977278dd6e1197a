package codec

// Cut looks at b, the bytes of a connection from where a frame begins, and
// tells how many of them must be there to go on. When need <= len(b), the
// first need bytes are one whole frame, well-formed, with a body of at most
// bodyMax bytes; otherwise call again when there are at least need bytes (a
// call with fewer is harmless). Nothing beyond the frame is looked at.
//
// Malformed input is refused as soon as the byte that makes it so is in b,
// with ErrEncryptedFlag, ErrBodyLength or ErrSignatureLength; the connection
// cannot go on then. A bodyMax above BodyMaxLimit counts as BodyMaxLimit. Cut
// allocates nothing.
//
// The stages, each with what it needs:
//
//  1. the encrypted flag is 0 or 1                   51 bytes
//  2. the body length is within the limit            52 to 55 bytes
//  3. the signature length is 1 to SignatureMax      56+n to 59+n bytes
//  4. the signature                                  59+n+m bytes
func Cut(b []byte, bodyMax uint32) (need int, err error) {
	if len(b) > encryptedAt && b[encryptedAt] > 1 {
		return 0, ErrEncryptedFlag
	}
	n, whole := atLeast(b, bodyLengthAt)
	if n > min(bodyMax, BodyMaxLimit) {
		return 0, ErrBodyLength
	}
	if !whole {
		return HeaderSize, nil
	}
	end := HeaderSize + int(n) // no overflow: n is at most BodyMaxLimit
	m, whole := atLeast(b, end)
	if m > SignatureMax || whole && m == 0 {
		return 0, ErrSignatureLength
	}
	end += SignatureLengthSize
	if !whole {
		return end, nil
	}
	return end + int(m), nil
}

// BodyMaxOf returns the bodyMax for Cut: that of who receives the frame that b
// begins with, or more where that is link control, whose bodies have a limit of
// their own (PROTOCOL.md section 5.1, key 8).
func BodyMaxOf(b []byte, bodyMax uint32) uint32 {
	if bodyMax < ControlBodyMax && len(b) > categoryAt && Category(b[categoryAt]) == CategoryControl {
		return ControlBodyMax
	}
	return bodyMax
}

// atLeast reads the four-byte integer at offset at of b. When b ends within
// it, it returns the least value that it can still become, and false.
func atLeast(b []byte, at int) (v uint32, whole bool) {
	const size = 4
	for i := at; i < at+size; i++ {
		v <<= 8
		if i < len(b) {
			v |= uint32(b[i])
		}
	}
	return v, len(b) >= at+size
}
