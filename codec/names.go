package codec

import "github.com/fxamacker/cbor/v2"

// Bounds of name requests and answers (PROTOCOL.md sections 5.6, 5.7).
const (
	// NameMax is the longest name in a request, in bytes: a name of 63 after
	// "router/".
	NameMax = 70
	// NamesMax is the largest number of entries in an answer.
	NamesMax = 256
)

// NameRequest looks up one name, or lists nodes.
type NameRequest struct {
	Number uint64 // chosen by the asker
	Name   string // a node's name, or "router/" and a router's; empty: list nodes
	After  string // list: only names after this one in byte order; otherwise empty
	Max    uint16 // at most so many entries, 1 to NamesMax
}

// Names is the answer to a NameRequest.
type Names struct {
	Number  uint64 // of the request
	Entries []NameEntry
	Next    string // ask again with After = Next; empty: this was all
}

// NameEntry is one node or router. Only the verified URI SAN of its chain says
// what its name is.
type NameEntry struct {
	Chain [][]byte // DER, leaf first, without the root; 1 to ChainMax
	Kind  string   // the kind of its hello
}

type nameRequestWire struct {
	Type   uint64 `cbor:"0,keyasint"`
	Number uint64 `cbor:"1,keyasint"`
	Name   string `cbor:"2,keyasint"`
	After  string `cbor:"3,keyasint"`
	Max    uint64 `cbor:"4,keyasint"`
}

func (*NameRequest) controlType() uint64 { return typeNameRequest }

func (r *NameRequest) wire() (any, error) {
	w := &nameRequestWire{
		Type:   typeNameRequest,
		Number: r.Number,
		Name:   r.Name,
		After:  r.After,
		Max:    uint64(r.Max),
	}
	return w, w.check()
}

func (w *nameRequestWire) check() error {
	ok := isText(w.Name, NameMax) && isText(w.After, NameMax) &&
		(w.Name == "" || w.After == "") &&
		w.Max >= 1 && w.Max <= NamesMax
	if !ok {
		return ErrControlValue
	}
	return nil
}

func decodeNameRequest(in *walker) (*NameRequest, error) {
	var w nameRequestWire
	if err := decodeBody(in, keysTo(4), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return &NameRequest{Number: w.Number, Name: w.Name, After: w.After, Max: uint16(w.Max)}, nil
}

type nameEntryWire struct {
	_     struct{} `cbor:",toarray"`
	Chain []cbor.ByteString
	Kind  string
}

type namesWire struct {
	Type    uint64          `cbor:"0,keyasint"`
	Number  uint64          `cbor:"1,keyasint"`
	Entries []nameEntryWire `cbor:"2,keyasint"`
	Next    string          `cbor:"3,keyasint"`
}

func (*Names) controlType() uint64 { return typeNames }

func (n *Names) wire() (any, error) {
	w := &namesWire{
		Type:    typeNames,
		Number:  n.Number,
		Entries: make([]nameEntryWire, len(n.Entries)),
		Next:    n.Next,
	}
	for i, e := range n.Entries {
		w.Entries[i].Chain = chainToWire(e.Chain)
		w.Entries[i].Kind = e.Kind
	}
	return w, w.check()
}

func (w *namesWire) check() error {
	if len(w.Entries) > NamesMax || !isText(w.Next, NameMax) {
		return ErrControlValue
	}
	for i := range w.Entries {
		e := &w.Entries[i]
		if !isBetween(len(e.Chain), 1, ChainMax) || !isText(e.Kind, HelloKindMax) {
			return ErrControlValue
		}
	}
	return nil
}

func decodeNames(in *walker) (*Names, error) {
	var w namesWire
	if err := decodeBody(in, keysTo(3), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	n := &Names{Number: w.Number, Entries: make([]NameEntry, len(w.Entries)), Next: w.Next}
	for i, e := range w.Entries {
		n.Entries[i] = NameEntry{Chain: chainFromWire(e.Chain), Kind: e.Kind}
	}
	return n, nil
}
