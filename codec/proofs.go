package codec

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/fxamacker/cbor/v2"
)

// Bounds and names of what routers prove to each other (PROTOCOL.md sections
// 4.1, 5.17, 5.18).
const (
	DomainProofSize     = 32   // bytes
	DomainProofsMax     = 1024 // in a part
	DomainProofPartsMax = 16
	DomainsExporter     = "EXPORTER-causeway-domains"
	DomainsExporterSize = 32 // bytes
	GrantsMax           = 64 // chains in a message
	LinksMax            = 4  // between two routers

	// Upper bounds, in bytes, of the encodings around the values of one part, and
	// around the chains of one message.
	domainProofsOverhead = 1 + 2 + (1 + 2) + (1 + 2) + (1 + 3)
	domainProofBytes     = 2 + DomainProofSize
	grantsOverhead       = 1 + 2 + 1 + 2
)

// Compile-time: a full part fits into a body.
var _ [ControlBodyMax - domainProofsOverhead - DomainProofsMax*domainProofBytes]struct{}

// DomainProof shows, to who could make it as well, that its sender has a grant
// in a domain.
type DomainProof [DomainProofSize]byte

// NewDomainProof makes the value for one root of a domain. client: its sender is
// the TLS client. exporter has DomainsExporterSize bytes; root is SHA-256 of the
// root's DER.
func NewDomainProof(exporter []byte, client bool, domain string, root [sha256.Size]byte) (p DomainProof) {
	h := hmac.New(sha256.New, exporter)
	h.Write([]byte{roleByte(client)})
	h.Write([]byte(domain))
	h.Write([]byte{0})
	h.Write(root[:])
	h.Sum(p[:0])
	return p
}

// DomainProofs is one part of the domains that its sender proves.
type DomainProofs struct {
	Part   uint8         // from 0, below Parts
	Parts  uint8         // 1 to DomainProofPartsMax
	Values []DomainProof // 0 to DomainProofsMax, ascending as a sender makes them
}

// SplitDomainProofs distributes values over as few parts as hold them, in order;
// at least one. The parts borrow values. It fails with ErrControlLength when they
// are more than DomainProofPartsMax.
func SplitDomainProofs(values []DomainProof) ([]*DomainProofs, error) {
	n := max(1, (len(values)+DomainProofsMax-1)/DomainProofsMax)
	if n > DomainProofPartsMax {
		return nil, ErrControlLength
	}
	parts := make([]*DomainProofs, n)
	for i := range parts {
		from := i * DomainProofsMax
		to := min(len(values), from+DomainProofsMax)
		parts[i] = &DomainProofs{Part: uint8(i), Parts: uint8(n), Values: values[from:to:to]}
	}
	return parts, nil
}

// Grants announces grants of its sender.
type Grants struct {
	Chains [][][]byte // 1 to GrantsMax; DER, leaf first, without the root; 1 to ChainMax each
}

// SplitGrants distributes chains over as few messages as keep within a body's
// limit, in order; none when there are no chains. They borrow chains. It fails
// with ErrControlLength when one chain is larger than a body.
func SplitGrants(chains [][][]byte) ([]*Grants, error) {
	var all []*Grants
	from, size := 0, grantsOverhead
	for i, chain := range chains {
		n := 1 + chainSize(chain)
		if grantsOverhead+n > ControlBodyMax {
			return nil, ErrControlLength
		}
		if size+n > ControlBodyMax || i-from == GrantsMax {
			all = append(all, &Grants{chains[from:i:i]})
			from, size = i, grantsOverhead
		}
		size += n
	}
	if from < len(chains) {
		all = append(all, &Grants{chains[from:]})
	}
	return all, nil
}

type domainProofsWire struct {
	Type   uint64            `cbor:"0,keyasint"`
	Part   uint64            `cbor:"1,keyasint"`
	Parts  uint64            `cbor:"2,keyasint"`
	Values []cbor.ByteString `cbor:"3,keyasint"`
}

func (*DomainProofs) controlType() uint64 { return typeDomainProofs }

func (p *DomainProofs) wire() (any, error) {
	w := &domainProofsWire{
		Type: typeDomainProofs, Part: uint64(p.Part), Parts: uint64(p.Parts), Values: make([]cbor.ByteString, len(p.Values)),
	}
	for i := range p.Values {
		w.Values[i] = cbor.ByteString(p.Values[i][:])
	}
	return w, w.check()
}

func (w *domainProofsWire) check() error {
	if w.Parts < 1 || w.Parts > DomainProofPartsMax || w.Part >= w.Parts || len(w.Values) > DomainProofsMax {
		return ErrControlValue
	}
	return nil
}

func decodeDomainProofs(in *walker) (*DomainProofs, error) {
	var w domainProofsWire
	if err := decodeBody(in, keysTo(3), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	p := &DomainProofs{Part: uint8(w.Part), Parts: uint8(w.Parts), Values: make([]DomainProof, len(w.Values))}
	for i, v := range w.Values {
		if !fill(p.Values[i][:], v) {
			return nil, ErrControlValue
		}
	}
	return p, nil
}

type grantsWire struct {
	Type   uint64              `cbor:"0,keyasint"`
	Chains [][]cbor.ByteString `cbor:"1,keyasint"`
}

func (*Grants) controlType() uint64 { return typeGrants }

func (g *Grants) wire() (any, error) {
	w := &grantsWire{Type: typeGrants, Chains: make([][]cbor.ByteString, len(g.Chains))}
	for i, chain := range g.Chains {
		w.Chains[i] = chainToWire(chain)
	}
	return w, w.check()
}

func (w *grantsWire) check() error {
	if !isBetween(len(w.Chains), 1, GrantsMax) {
		return ErrControlValue
	}
	for _, chain := range w.Chains {
		if !isBetween(len(chain), 1, ChainMax) {
			return ErrControlValue
		}
	}
	return nil
}

func decodeGrants(in *walker) (*Grants, error) {
	var w grantsWire
	if err := decodeBody(in, keysTo(1), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	g := &Grants{Chains: make([][][]byte, len(w.Chains))}
	for i, chain := range w.Chains {
		g.Chains[i] = chainFromWire(chain)
	}
	return g, nil
}
