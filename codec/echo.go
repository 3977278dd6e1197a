package codec

import "github.com/fxamacker/cbor/v2"

// Bounds of an echo (PROTOCOL.md section 7), in bytes.
const (
	EchoIDSize     = 8
	EchoPayloadMax = 1024
)

// EchoType says what an echo asks or answers.
type EchoType uint8

// Types of echo.
const (
	EchoRequest        EchoType = 1
	EchoReply          EchoType = 2
	EchoTrace          EchoType = 3
	EchoHop            EchoType = 4
	EchoReceiptRequest EchoType = 5
	EchoReceipt        EchoType = 6
)

// String returns the type's metric and CLI label.
func (t EchoType) String() string {
	switch t {
	case EchoRequest:
		return "request"
	case EchoReply:
		return "reply"
	case EchoTrace:
		return "trace"
	case EchoHop:
		return "hop"
	case EchoReceiptRequest:
		return "receipt-request"
	case EchoReceipt:
		return "receipt"
	}
	return labelUnknown
}

// Echo is an echo, a trace or a receipt, asked or answered. Fields that its type does
// not have are ignored when encoding and zero after decoding.
type Echo struct {
	Type     EchoType
	ID       [EchoIDSize]byte // chosen by the asker
	Payload  []byte           // request, reply: at most EchoPayloadMax bytes
	Digest   Digest           // receipt request, receipt: of the frame
	SendTime uint64           // receipt request, receipt: of the frame, nanoseconds
	Seen     bool             // receipt
	Hop      Hop              // hop
}

// Hop is the answer to a trace: what who answers knows.
type Hop struct {
	TTL      uint8   // of the trace when it came
	Time     uint64  // clock of who answers, nanoseconds
	Next     Address // where it would have gone; zero: no way is known, or it has arrived
	Software string  // as in its hello, at most HelloSoftwareMax bytes
}

type echoPayloadWire struct {
	Type    uint64          `cbor:"0,keyasint"`
	ID      cbor.ByteString `cbor:"1,keyasint"`
	Payload cbor.ByteString `cbor:"2,keyasint"`
}

type echoTraceWire struct {
	Type uint64          `cbor:"0,keyasint"`
	ID   cbor.ByteString `cbor:"1,keyasint"`
}

type echoHopWire struct {
	Type     uint64          `cbor:"0,keyasint"`
	ID       cbor.ByteString `cbor:"1,keyasint"`
	TTL      uint8           `cbor:"2,keyasint"`
	Time     uint64          `cbor:"3,keyasint"`
	Next     cbor.ByteString `cbor:"4,keyasint"`
	Software string          `cbor:"5,keyasint"`
}

type echoReceiptRequestWire struct {
	Type     uint64          `cbor:"0,keyasint"`
	ID       cbor.ByteString `cbor:"1,keyasint"`
	Digest   cbor.ByteString `cbor:"2,keyasint"`
	SendTime uint64          `cbor:"3,keyasint"`
}

type echoReceiptWire struct {
	Type     uint64          `cbor:"0,keyasint"`
	ID       cbor.ByteString `cbor:"1,keyasint"`
	Digest   cbor.ByteString `cbor:"2,keyasint"`
	SendTime uint64          `cbor:"3,keyasint"`
	Seen     bool            `cbor:"4,keyasint"`
}

// AppendEcho appends an echo's body. It fails with ErrControlValue and then
// gives back dst as it was.
func AppendEcho(dst []byte, e *Echo) ([]byte, error) {
	id := cbor.ByteString(e.ID[:])
	switch e.Type {
	case EchoRequest, EchoReply:
		if len(e.Payload) > EchoPayloadMax {
			return dst, ErrControlValue
		}
		return appendBody(dst, &echoPayloadWire{uint64(e.Type), id, cbor.ByteString(e.Payload)})
	case EchoTrace:
		return appendBody(dst, &echoTraceWire{uint64(e.Type), id})
	case EchoHop:
		if !isText(e.Hop.Software, HelloSoftwareMax) {
			return dst, ErrControlValue
		}
		var next cbor.ByteString
		if !e.Hop.Next.IsZero() {
			next = cbor.ByteString(e.Hop.Next[:])
		}
		return appendBody(dst, &echoHopWire{uint64(e.Type), id, e.Hop.TTL, e.Hop.Time, next, e.Hop.Software})
	case EchoReceiptRequest:
		return appendBody(dst, &echoReceiptRequestWire{uint64(e.Type), id, cbor.ByteString(e.Digest[:]), e.SendTime})
	case EchoReceipt:
		return appendBody(dst, &echoReceiptWire{uint64(e.Type), id, cbor.ByteString(e.Digest[:]), e.SendTime, e.Seen})
	}
	return dst, ErrControlValue
}

// DecodeEcho decodes a body of category 4. The echo owns its memory. Errors
// are the sentinels ErrControl….
func DecodeEcho(body []byte) (*Echo, error) {
	in, err := walk(body)
	if err != nil {
		return nil, err
	}
	if !in.hasType || in.typ > uint64(EchoReceipt) {
		return nil, ErrControlType
	}
	e := &Echo{Type: EchoType(in.typ)}
	var ok bool
	switch e.Type {
	case EchoRequest, EchoReply:
		var w echoPayloadWire
		err = decodeBody(&in, keysTo(2), &w)
		ok = fill(e.ID[:], w.ID) && len(w.Payload) <= EchoPayloadMax
		e.Payload = []byte(w.Payload)
	case EchoTrace:
		var w echoTraceWire
		err = decodeBody(&in, keysTo(1), &w)
		ok = fill(e.ID[:], w.ID)
	case EchoHop:
		var w echoHopWire
		err = decodeBody(&in, keysTo(5), &w)
		ok = fill(e.ID[:], w.ID) && (w.Next == "" || fill(e.Hop.Next[:], w.Next) && !e.Hop.Next.IsZero()) && isText(w.Software, HelloSoftwareMax)
		e.Hop.TTL, e.Hop.Time, e.Hop.Software = w.TTL, w.Time, w.Software
	case EchoReceiptRequest:
		var w echoReceiptRequestWire
		err = decodeBody(&in, keysTo(3), &w)
		ok = fill(e.ID[:], w.ID) && fill(e.Digest[:], w.Digest)
		e.SendTime = w.SendTime
	case EchoReceipt:
		var w echoReceiptWire
		err = decodeBody(&in, keysTo(4), &w)
		ok = fill(e.ID[:], w.ID) && fill(e.Digest[:], w.Digest)
		e.SendTime, e.Seen = w.SendTime, w.Seen
	default:
		return nil, ErrControlType
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrControlValue
	}
	return e, nil
}
