package codec

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Control bodies are one CBOR map each (RFC 8949), restricted as PROTOCOL.md
// section 5 says. Decoding has these stages:
//
//  1. The length is at most ControlBodyMax.
//  2. The body is one well-formed item, without tags and indefinite lengths,
//     nested and filled within limits (the library).
//  3. walk: the item is a map whose keys are uints; all text is UTF-8; no
//     float, null or other simple value than false and true is anywhere. It
//     notes which keys there are. The library would take null for any zero
//     value, and the text "1" for the key 1.
//  4. The keys are all and only those of the message; a hello may have more.
//  5. The library decodes into the message's wire struct, refusing values of
//     other types and duplicate keys. Byte strings are cbor.ByteString there,
//     since the library would take an array of small integers for a []byte.
//  6. The message checks sizes and ranges, with the same function that checks
//     before encoding.
const (
	// ControlBodyMax is the largest control body in bytes.
	ControlBodyMax = 65536

	// More than any message has; so a body cannot make the decoder allocate
	// much more than its own length before its bounds are checked.
	cborElementsMax = NoticeFramesMax
	cborPairsMax    = 64
	cborNestingMax  = 8

	keyType = 0
)

var (
	cborDecode = mustDecMode(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		MaxArrayElements:  cborElementsMax,
		MaxMapPairs:       cborPairsMax,
		MaxNestedLevels:   cborNestingMax,
	})
	cborEncode = mustEncMode(cbor.CoreDetEncOptions())
)

func mustDecMode(o cbor.DecOptions) cbor.DecMode {
	m, err := o.DecMode()
	if err != nil {
		panic("codec: CBOR decoding options: " + err.Error())
	}
	return m
}

func mustEncMode(o cbor.EncOptions) cbor.EncMode {
	o.NilContainers = cbor.NilContainerAsEmpty
	m, err := o.EncMode()
	if err != nil {
		panic("codec: CBOR encoding options: " + err.Error())
	}
	return m
}

// keySet is a set of map keys below keySetSize, as bits.
type keySet uint64

const keySetSize = 64

// keysTo returns the keys 0 to last.
func keysTo(last uint) keySet { return 1<<(last+1) - 1 }

func (s keySet) contains(t keySet) bool { return s&t == t }

// walker goes through one well-formed CBOR item.
type walker struct {
	b    []byte
	at   int
	keys keySet // the top map's keys below keySetSize
	more bool   // the top map has other keys
	typ  uint64 // the value of key 0, when hasType
	// hasType: key 0 is there and its value a uint.
	hasType bool
}

// CBOR major types (RFC 8949 section 3.1), and what this package names of
// type 7.
const (
	majorUint   = 0
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorSimple = 7

	majorShift = 5
	infoMask   = 1<<majorShift - 1

	simpleFalse = 20
	simpleTrue  = 21

	// Additional information: the argument itself below, then in 1, 2, 4 or 8
	// bytes.
	infoOneByte = 24
)

// walk checks stages 1 to 3 and returns what it has found. Errors are
// ErrControlLength and ErrControlEncoding.
func walk(body []byte) (walker, error) {
	if len(body) > ControlBodyMax {
		return walker{}, ErrControlLength
	}
	if cborDecode.Wellformed(body) != nil {
		return walker{}, ErrControlEncoding
	}
	w := walker{b: body}
	major, _, pairs := w.head()
	if major != majorMap {
		return walker{}, ErrControlEncoding
	}
	for ; pairs > 0; pairs-- {
		major, _, key := w.head()
		if major != majorUint {
			return walker{}, ErrControlEncoding
		}
		if key < keySetSize {
			if w.keys.contains(1 << key) {
				return walker{}, ErrControlEncoding
			}
			w.keys |= 1 << key
		} else {
			w.more = true
		}
		if key == keyType {
			probe := w
			major, _, v := probe.head()
			w.hasType, w.typ = major == majorUint, v
		}
		if !w.item() {
			return walker{}, ErrControlEncoding
		}
	}
	return w, nil
}

// item goes past one item and reports whether it is of the allowed kind.
func (w *walker) item() bool {
	major, info, arg := w.head()
	items := uint64(0)
	switch major {
	case majorBytes:
		w.at += int(arg)
	case majorText:
		text := w.b[w.at : w.at+int(arg)]
		w.at += len(text)
		return utf8.Valid(text)
	case majorArray:
		items = arg
	case majorMap:
		items = 2 * arg
	case majorSimple:
		return info == simpleFalse || info == simpleTrue
	}
	for ; items > 0; items-- {
		if !w.item() {
			return false
		}
	}
	return true
}

// head reads the head of an item: major type, additional information and
// argument.
func (w *walker) head() (major, info byte, arg uint64) {
	first := w.b[w.at]
	w.at++
	major, info = first>>majorShift, first&infoMask
	if info < infoOneByte {
		return major, info, uint64(info)
	}
	size := 1 << (info - infoOneByte)
	var wide [8]byte
	copy(wide[len(wide)-size:], w.b[w.at:w.at+size])
	w.at += size
	return major, info, binary.BigEndian.Uint64(wide[:])
}

// decodeBody decodes a walked body into wire, a pointer to a wire struct that
// has all and only the keys of want (stages 4 and 5).
func decodeBody(w *walker, want keySet, wire any) error {
	if w.more || w.keys != want {
		return ErrControlKeys
	}
	return decodeLoose(w, want, wire)
}

// decodeLoose is decodeBody, but ignores further keys.
func decodeLoose(w *walker, want keySet, wire any) error {
	if !w.keys.contains(want) {
		return ErrControlKeys
	}
	if cborDecode.Unmarshal(w.b, wire) != nil {
		return ErrControlValue
	}
	return nil
}

// appendBody appends the deterministic encoding of a wire struct whose values
// have been checked.
func appendBody(dst []byte, wire any) ([]byte, error) {
	b, err := cborEncode.Marshal(wire)
	if err != nil {
		return dst, ErrControlValue
	}
	if len(b) > ControlBodyMax {
		return dst, ErrControlLength
	}
	return append(dst, b...), nil
}
