package codec

import (
	"time"

	"github.com/fxamacker/cbor/v2"
)

// SenderBlockedMax is the longest time that a SenderBlocked can tell of.
const SenderBlockedMax = time.Hour

// SenderBlocked tells a neighbour that for a while frames of one sender are not
// taken by this link, since too many of them had bad signatures.
type SenderBlocked struct {
	Sender Address
	For    time.Duration // 1 ms to SenderBlockedMax, in whole ms
}

// Domain returns the prefix of the sender's domain.
func (s *SenderBlocked) Domain() [PrefixSize]byte { return s.Sender.Prefix() }

type senderBlockedWire struct {
	Type   uint64          `cbor:"0,keyasint"`
	Sender cbor.ByteString `cbor:"1,keyasint"`
	For    uint64          `cbor:"2,keyasint"`
}

func (*SenderBlocked) controlType() uint64 { return typeSenderBlocked }

func (s *SenderBlocked) wire() (any, error) {
	ms := milliseconds(s.For)
	if ms < 1 || ms > milliseconds(SenderBlockedMax) {
		return nil, ErrControlValue
	}
	return &senderBlockedWire{Type: typeSenderBlocked, Sender: cbor.ByteString(s.Sender[:]), For: ms}, nil
}

func decodeSenderBlocked(in *walker) (*SenderBlocked, error) {
	var w senderBlockedWire
	if err := decodeBody(in, keysTo(2), &w); err != nil {
		return nil, err
	}
	s := &SenderBlocked{For: duration(w.For)}
	if !fill(s.Sender[:], w.Sender) || w.For < 1 || w.For > milliseconds(SenderBlockedMax) {
		return nil, ErrControlValue
	}
	return s, nil
}
