package codec

// malformed is the type of all sentinels for input that breaks the wire
// format. They are made once, so returning one allocates nothing.
type malformed struct {
	text  string
	label string
}

func (e *malformed) Error() string { return e.text }

// Is makes errors.Is(e, ErrMalformed) true.
func (e *malformed) Is(target error) bool { return target == ErrMalformed }

// ErrMalformed is what all errors about malformed input have in common:
// errors.Is(err, ErrMalformed) holds for each of them.
var ErrMalformed error = &malformed{"codec: malformed input", "malformed"}

// Malformed frames (PROTOCOL.md section 1).
var (
	// ErrEncryptedFlag: the byte "body is encrypted" is neither 0 nor 1.
	ErrEncryptedFlag error = &malformed{"codec: encrypted flag is neither 0 nor 1", "encrypted-flag"}
	// ErrBodyLength: the body is longer than the receiver's limit.
	ErrBodyLength error = &malformed{"codec: body length above the limit", "body-length"}
	// ErrSignatureLength: the signature's length is 0 or above SignatureMax.
	ErrSignatureLength error = &malformed{"codec: signature length outside 1..512", "signature-length"}
	// ErrLength: the bytes are not exactly one frame.
	ErrLength error = &malformed{"codec: not exactly one frame", "length"}
)

// Malformed control bodies (PROTOCOL.md sections 5 to 7).
var (
	// ErrControlLength: the body is longer than ControlBodyMax.
	ErrControlLength error = &malformed{"codec: control body above 65536 bytes", "control-length"}
	// ErrControlEncoding: the body is not one CBOR map of the restricted kind
	// that section 5 asks for.
	ErrControlEncoding error = &malformed{"codec: control body is not the CBOR asked for", "control-encoding"}
	// ErrControlType: key 0 names no known type of message.
	ErrControlType error = &malformed{"codec: control body of unknown type", "control-type"}
	// ErrControlKeys: a key is missing or unknown.
	ErrControlKeys error = &malformed{"codec: control body lacks a key or has an unknown one", "control-keys"}
	// ErrControlValue: a value is of the wrong type, size or range.
	ErrControlValue error = &malformed{"codec: control body has a value of wrong type, size or range", "control-value"}
)

// MalformedLabel returns the metric label of one of this package's sentinels
// for malformed input, such as "body-length", and "malformed" for any other
// error.
func MalformedLabel(err error) string {
	if e, ok := err.(*malformed); ok {
		return e.label
	}
	return "malformed"
}
