package codec

import "github.com/fxamacker/cbor/v2"

// Bounds of address lists (PROTOCOL.md sections 5.12, 5.14).
const (
	AddressListEntriesMax = 1024 // in a part; as many may be removed
	AddressListPartsMax   = 1024
	ListNumbersMax        = 1024 // in a message

	// Upper bounds, in bytes, of encodings: an entry's array, address and time;
	// everything beside entries and removed addresses.
	attachedSizeMax     = 1 + (1 + AddressSize) + 9
	listNumberSizeMax   = 1 + (1 + AddressSize) + 9 + (1 + RouterIDSize) + 9
	listNumbersOverhead = 1 + 2 + (1 + 3)
	addressListOverhead = 1 + 2 + (1 + 1 + AddressSize) + (1 + 1 + RouterIDSize) + 5*(1+9) + 2*(1+3)
)

// Compile-time: full messages fit into a body.
var (
	_ [ControlBodyMax - addressListOverhead - AddressListEntriesMax*(attachedSizeMax+1+AddressSize)]struct{}
	_ [ControlBodyMax - listNumbersOverhead - ListNumbersMax*listNumberSizeMax]struct{}
)

// AddressList is a part of the list of addresses attached to a router, or a
// change of that list. From and To are the list's sequence numbers before and
// after. When From is 0 it is the whole list, in one or more parts, and none is
// removed; else a change, in one part.
type AddressList struct {
	Router Address // whose list it is; of kind router
	Source
	From    uint64
	To      uint64     // above From
	Part    uint16     // from 0, below Parts
	Parts   uint16     // 1 to AddressListPartsMax
	Added   []Attached // at most AddressListEntriesMax
	Removed []Address  // at most AddressListEntriesMax
}

// Attached is a node's address in a list.
type Attached struct {
	Node Address // of kind node, in the router's domain
	Sent uint64  // send time of the node's hello on the connection it is attached by
}

// ListRequest asks for a router's whole list.
type ListRequest struct {
	Router Address // of kind router
}

// ListNumbers tells the numbers of lists that the sender has.
type ListNumbers struct {
	Lists []ListNumber // 1 to ListNumbersMax, of routers of one domain
}

// ListNumber is the number of a router's list.
type ListNumber struct {
	Router Address // of kind router
	Source
	Number uint64 // at least 1
}

// Domain returns the prefix of the domain that the lists are of.
func (n *ListNumbers) Domain() [PrefixSize]byte { return n.Lists[0].Router.Prefix() }

// Domain returns the prefix of the domain that the list is of.
func (l *AddressList) Domain() [PrefixSize]byte { return l.Router.Prefix() }

// Domain returns the prefix of the domain that the request is about.
func (r *ListRequest) Domain() [PrefixSize]byte { return r.Router.Prefix() }

type attachedWire struct {
	_    struct{} `cbor:",toarray"`
	Node cbor.ByteString
	Sent uint64
}

type addressListWire struct {
	Type    uint64            `cbor:"0,keyasint"`
	Router  cbor.ByteString   `cbor:"1,keyasint"`
	Epoch   uint64            `cbor:"2,keyasint"`
	ID      cbor.ByteString   `cbor:"3,keyasint"`
	From    uint64            `cbor:"4,keyasint"`
	To      uint64            `cbor:"5,keyasint"`
	Part    uint16            `cbor:"6,keyasint"`
	Parts   uint16            `cbor:"7,keyasint"`
	Added   []attachedWire    `cbor:"8,keyasint"`
	Removed []cbor.ByteString `cbor:"9,keyasint"`
}

func (*AddressList) controlType() uint64 { return typeAddressList }

func (l *AddressList) wire() (any, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	w := &addressListWire{
		Type:    typeAddressList,
		Router:  cbor.ByteString(l.Router[:]),
		Epoch:   l.Epoch,
		ID:      cbor.ByteString(l.ID[:]),
		From:    l.From,
		To:      l.To,
		Part:    l.Part,
		Parts:   l.Parts,
		Added:   make([]attachedWire, len(l.Added)),
		Removed: make([]cbor.ByteString, len(l.Removed)),
	}
	for i := range l.Added {
		w.Added[i].Node, w.Added[i].Sent = cbor.ByteString(l.Added[i].Node[:]), l.Added[i].Sent
	}
	for i := range l.Removed {
		w.Removed[i] = cbor.ByteString(l.Removed[i][:])
	}
	return w, nil
}

func (l *AddressList) check() error {
	ok := l.Router.Kind() == KindRouter &&
		l.From < l.To &&
		l.Parts >= 1 && l.Parts <= AddressListPartsMax && l.Part < l.Parts &&
		(l.From == 0 || l.Parts == 1) &&
		(l.From > 0 || len(l.Removed) == 0) &&
		len(l.Added) <= AddressListEntriesMax && len(l.Removed) <= AddressListEntriesMax
	if !ok {
		return ErrControlValue
	}
	for i := range l.Added {
		if !isKin(l.Added[i].Node, l.Router, KindNode) {
			return ErrControlValue
		}
	}
	for _, a := range l.Removed {
		if !isKin(a, l.Router, KindNode) {
			return ErrControlValue
		}
	}
	return nil
}

func decodeAddressList(in *walker) (*AddressList, error) {
	var w addressListWire
	if err := decodeBody(in, keysTo(9), &w); err != nil {
		return nil, err
	}
	l := &AddressList{
		Source:  Source{Epoch: w.Epoch},
		From:    w.From,
		To:      w.To,
		Part:    w.Part,
		Parts:   w.Parts,
		Added:   make([]Attached, len(w.Added)),
		Removed: make([]Address, len(w.Removed)),
	}
	ok := fill(l.Router[:], w.Router) && fill(l.ID[:], w.ID)
	for i, from := range w.Added {
		ok = ok && fill(l.Added[i].Node[:], from.Node)
		l.Added[i].Sent = from.Sent
	}
	for i, from := range w.Removed {
		ok = ok && fill(l.Removed[i][:], from)
	}
	if !ok {
		return nil, ErrControlValue
	}
	return l, l.check()
}

type listRequestWire struct {
	Type   uint64          `cbor:"0,keyasint"`
	Router cbor.ByteString `cbor:"1,keyasint"`
}

func (*ListRequest) controlType() uint64 { return typeListRequest }

func (r *ListRequest) wire() (any, error) {
	if r.Router.Kind() != KindRouter {
		return nil, ErrControlValue
	}
	return &listRequestWire{Type: typeListRequest, Router: cbor.ByteString(r.Router[:])}, nil
}

func decodeListRequest(in *walker) (*ListRequest, error) {
	var w listRequestWire
	if err := decodeBody(in, keysTo(1), &w); err != nil {
		return nil, err
	}
	r := new(ListRequest)
	if !fill(r.Router[:], w.Router) || r.Router.Kind() != KindRouter {
		return nil, ErrControlValue
	}
	return r, nil
}

type listNumberWire struct {
	_      struct{} `cbor:",toarray"`
	Router cbor.ByteString
	Epoch  uint64
	ID     cbor.ByteString
	Number uint64
}

type listNumbersWire struct {
	Type  uint64           `cbor:"0,keyasint"`
	Lists []listNumberWire `cbor:"1,keyasint"`
}

func (*ListNumbers) controlType() uint64 { return typeListNumbers }

func (n *ListNumbers) wire() (any, error) {
	if err := n.check(); err != nil {
		return nil, err
	}
	w := &listNumbersWire{Type: typeListNumbers, Lists: make([]listNumberWire, len(n.Lists))}
	for i := range n.Lists {
		l := &n.Lists[i]
		w.Lists[i] = listNumberWire{
			Router: cbor.ByteString(l.Router[:]),
			Epoch:  l.Epoch,
			ID:     cbor.ByteString(l.ID[:]),
			Number: l.Number,
		}
	}
	return w, nil
}

func (n *ListNumbers) check() error {
	if !isBetween(len(n.Lists), 1, ListNumbersMax) {
		return ErrControlValue
	}
	for i := range n.Lists {
		if l := &n.Lists[i]; l.Number == 0 || !isKin(l.Router, n.Lists[0].Router, KindRouter) {
			return ErrControlValue
		}
	}
	return nil
}

func decodeListNumbers(in *walker) (*ListNumbers, error) {
	var w listNumbersWire
	if err := decodeBody(in, keysTo(1), &w); err != nil {
		return nil, err
	}
	n := &ListNumbers{Lists: make([]ListNumber, len(w.Lists))}
	for i, from := range w.Lists {
		to := &n.Lists[i]
		if !fill(to.Router[:], from.Router) || !fill(to.ID[:], from.ID) {
			return nil, ErrControlValue
		}
		to.Epoch, to.Number = from.Epoch, from.Number
	}
	return n, n.check()
}

// SplitAddressList makes the parts of a router's whole list, in order; at least
// one. The parts borrow added. It fails with ErrControlLength when they would be
// more than AddressListPartsMax.
func SplitAddressList(router Address, source Source, to uint64, added []Attached) ([]*AddressList, error) {
	count := max(1, (len(added)+AddressListEntriesMax-1)/AddressListEntriesMax)
	if count > AddressListPartsMax {
		return nil, ErrControlLength
	}
	parts := make([]*AddressList, count)
	for i := range parts {
		n := min(len(added), AddressListEntriesMax)
		parts[i] = &AddressList{Router: router, Source: source, To: to, Part: uint16(i), Parts: uint16(count), Added: added[:n:n]}
		added = added[n:]
	}
	return parts, nil
}
