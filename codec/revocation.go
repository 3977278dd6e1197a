package codec

import "github.com/fxamacker/cbor/v2"

// Bounds of revocation lists (PROTOCOL.md section 5.8).
const (
	RevocationPartMax  = 60 << 10 // bytes
	RevocationPartsMax = 1024
)

// RevocationList is one part of a revocation list.
type RevocationList struct {
	Number uint64 // of the list on this connection
	Part   uint16 // from 0, below Parts
	Parts  uint16 // 1 to RevocationPartsMax
	Data   []byte // 1 to RevocationPartMax bytes
}

type revocationListWire struct {
	Type   uint64          `cbor:"0,keyasint"`
	Number uint64          `cbor:"1,keyasint"`
	Part   uint64          `cbor:"2,keyasint"`
	Parts  uint64          `cbor:"3,keyasint"`
	Data   cbor.ByteString `cbor:"4,keyasint"`
}

func (*RevocationList) controlType() uint64 { return typeRevocationList }

func (l *RevocationList) wire() (any, error) {
	w := &revocationListWire{Type: typeRevocationList, Number: l.Number, Part: uint64(l.Part), Parts: uint64(l.Parts), Data: cbor.ByteString(l.Data)}
	return w, w.check()
}

func (w *revocationListWire) check() error {
	if w.Parts < 1 || w.Parts > RevocationPartsMax || w.Part >= w.Parts || !isBetween(len(w.Data), 1, RevocationPartMax) {
		return ErrControlValue
	}
	return nil
}

func decodeRevocationList(in *walker) (*RevocationList, error) {
	var w revocationListWire
	if err := decodeBody(in, keysTo(4), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return &RevocationList{Number: w.Number, Part: uint16(w.Part), Parts: uint16(w.Parts), Data: []byte(w.Data)}, nil
}

// RevocationParts returns how many parts a list of that size has; 0 when it
// has none, or too many to be sent.
func RevocationParts(size int) int {
	n := (size + RevocationPartMax - 1) / RevocationPartMax
	if n > RevocationPartsMax {
		return 0
	}
	return n
}
