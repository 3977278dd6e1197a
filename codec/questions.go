package codec

import "github.com/fxamacker/cbor/v2"

// Bounds of name questions and answers (PROTOCOL.md sections 5.15, 5.16).
const (
	QuestionHopsMax = 255

	// Upper bounds, in bytes, of what encodings of NameAnswer have beside their
	// entries, and of an entry beside its texts and certificates.
	nameAnswerOverhead = 1 + 7 + 1 + 2*(1+AddressSize) + 9 + 2 + 3 + 2 + NameMax
	namedEntryOverhead = nameEntryOverhead + 2
)

// NameQuestion asks one router for those of its nodes that a NameRequest is
// about, or for itself.
type NameQuestion struct {
	Asked  Address // of kind router
	Asker  Address // of kind router, in the same domain, another
	Number uint64  // chosen by the asker
	Hops   uint8   // at least 1: how far it may still go
	Name   string  // as in a NameRequest, like After and Max
	After  string
	Max    uint16
}

// NameAnswer is the answer of one router to a NameQuestion.
type NameAnswer struct {
	Asker   Address // of kind router: where it goes
	Asked   Address // of kind router: who answers
	Number  uint64  // of the question
	Hops    uint8   // at least 1: how far it may still go
	Entries []NamedEntry
	Next    string // the last entry's name when there are more after it; else empty
}

// NamedEntry is a NameEntry and the name that it is in the list for. Only its
// chain, verified, says what it is really called.
type NamedEntry struct {
	Name string // above that of the entry before, in byte order
	NameEntry
}

// Domain returns the prefix of the domain that the question is about.
func (q *NameQuestion) Domain() [PrefixSize]byte { return q.Asked.Prefix() }

// Domain returns the prefix of the domain that the answer is about.
func (a *NameAnswer) Domain() [PrefixSize]byte { return a.Asker.Prefix() }

// areOtherRouters reports whether a and b are two routers of one domain.
func areOtherRouters(a, b Address) bool {
	return isKin(a, a, KindRouter) && isKin(b, a, KindRouter) && a != b
}

type nameQuestionWire struct {
	Type   uint64          `cbor:"0,keyasint"`
	Asked  cbor.ByteString `cbor:"1,keyasint"`
	Asker  cbor.ByteString `cbor:"2,keyasint"`
	Number uint64          `cbor:"3,keyasint"`
	Hops   uint8           `cbor:"4,keyasint"`
	Name   string          `cbor:"5,keyasint"`
	After  string          `cbor:"6,keyasint"`
	Max    uint16          `cbor:"7,keyasint"`
}

func (*NameQuestion) controlType() uint64 { return typeNameQuestion }

func (q *NameQuestion) wire() (any, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	return &nameQuestionWire{
		Type:   typeNameQuestion,
		Asked:  cbor.ByteString(q.Asked[:]),
		Asker:  cbor.ByteString(q.Asker[:]),
		Number: q.Number,
		Hops:   q.Hops,
		Name:   q.Name,
		After:  q.After,
		Max:    q.Max,
	}, nil
}

func (q *NameQuestion) check() error {
	ok := areOtherRouters(q.Asked, q.Asker) && q.Hops >= 1 &&
		isText(q.Name, NameMax) && isText(q.After, NameMax) &&
		(q.Name == "" || q.After == "") &&
		isBetween(int(q.Max), 1, NamesMax)
	if !ok {
		return ErrControlValue
	}
	return nil
}

func decodeNameQuestion(in *walker) (*NameQuestion, error) {
	var w nameQuestionWire
	if err := decodeBody(in, keysTo(7), &w); err != nil {
		return nil, err
	}
	q := &NameQuestion{Number: w.Number, Hops: w.Hops, Name: w.Name, After: w.After, Max: w.Max}
	if !fill(q.Asked[:], w.Asked) || !fill(q.Asker[:], w.Asker) {
		return nil, ErrControlValue
	}
	return q, q.check()
}

type namedEntryWire struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	Chain []cbor.ByteString
	Kind  string
}

type nameAnswerWire struct {
	Type    uint64           `cbor:"0,keyasint"`
	Asker   cbor.ByteString  `cbor:"1,keyasint"`
	Asked   cbor.ByteString  `cbor:"2,keyasint"`
	Number  uint64           `cbor:"3,keyasint"`
	Hops    uint8            `cbor:"4,keyasint"`
	Entries []namedEntryWire `cbor:"5,keyasint"`
	Next    string           `cbor:"6,keyasint"`
}

func (*NameAnswer) controlType() uint64 { return typeNameAnswer }

func (a *NameAnswer) wire() (any, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	w := &nameAnswerWire{
		Type:    typeNameAnswer,
		Asker:   cbor.ByteString(a.Asker[:]),
		Asked:   cbor.ByteString(a.Asked[:]),
		Number:  a.Number,
		Hops:    a.Hops,
		Entries: make([]namedEntryWire, len(a.Entries)),
		Next:    a.Next,
	}
	for i, e := range a.Entries {
		w.Entries[i] = namedEntryWire{Name: e.Name, Chain: chainToWire(e.Chain), Kind: e.Kind}
	}
	return w, nil
}

func (a *NameAnswer) check() error {
	if !areOtherRouters(a.Asker, a.Asked) || a.Hops < 1 || len(a.Entries) > NamesMax {
		return ErrControlValue
	}
	last := ""
	for i := range a.Entries {
		e := &a.Entries[i]
		if e.Name <= last || !isText(e.Name, NameMax) || !isBetween(len(e.Chain), 1, ChainMax) || !isText(e.Kind, HelloKindMax) {
			return ErrControlValue
		}
		last = e.Name
	}
	if a.Next != "" && a.Next != last {
		return ErrControlValue
	}
	return nil
}

func decodeNameAnswer(in *walker) (*NameAnswer, error) {
	var w nameAnswerWire
	if err := decodeBody(in, keysTo(6), &w); err != nil {
		return nil, err
	}
	a := &NameAnswer{Number: w.Number, Hops: w.Hops, Entries: make([]NamedEntry, len(w.Entries)), Next: w.Next}
	if !fill(a.Asker[:], w.Asker) || !fill(a.Asked[:], w.Asked) {
		return nil, ErrControlValue
	}
	for i, e := range w.Entries {
		a.Entries[i] = NamedEntry{e.Name, NameEntry{Chain: chainFromWire(e.Chain), Kind: e.Kind}}
	}
	return a, a.check()
}

// FitNamed returns how many of the entries, from the first, fit into one
// NameAnswer: at most NamesMax, and the body within its limit. As many fit into
// Names.
func FitNamed(entries []NamedEntry) int {
	size := nameAnswerOverhead
	for i, e := range entries {
		size += namedEntryOverhead + len(e.Name) + len(e.Kind) + chainSize(e.Chain)
		if size > ControlBodyMax || i == NamesMax {
			return i
		}
	}
	return len(entries)
}

// Compile-time: what fits into a NameAnswer fits into Names.
var _ [nameAnswerOverhead - namesOverhead]struct{}
