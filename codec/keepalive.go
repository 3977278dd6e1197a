package codec

// KeepAlive says that an end is alive and how much it has received
// (PROTOCOL.md section 5.2).
type KeepAlive struct {
	Received uint64 // frames of categories other than 2 cut from this connection so far
	Answer   bool   // asks for a keep-alive at once
}

type keepAliveWire struct {
	Type     uint64 `cbor:"0,keyasint"`
	Received uint64 `cbor:"1,keyasint"`
	Answer   bool   `cbor:"2,keyasint"`
}

func (*KeepAlive) controlType() uint64 { return typeKeepAlive }

func (k *KeepAlive) wire() (any, error) {
	return &keepAliveWire{Type: typeKeepAlive, Received: k.Received, Answer: k.Answer}, nil
}

func decodeKeepAlive(in *walker) (*KeepAlive, error) {
	var w keepAliveWire
	if err := decodeBody(in, keysTo(2), &w); err != nil {
		return nil, err
	}
	return &KeepAlive{Received: w.Received, Answer: w.Answer}, nil
}
