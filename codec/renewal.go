package codec

import (
	"crypto/sha256"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// Bounds and names of renewals (PROTOCOL.md section 5.9).
const (
	RenewalProofMax     = 80 // bytes; a burst signature is longer
	RenewalExporter     = "EXPORTER-causeway-renew"
	RenewalExporterSize = 32
	RenewalsKept        = 8 // certificates that each end remembers of the other
	renewalLabel        = "causeway renew 1\x00"
)

// Role bytes of ends of a connection, in what a TLS exporter binds to it.
const (
	roleClient = 1
	roleServer = 2
)

// roleByte is that of the TLS client, or the server.
func roleByte(client bool) byte {
	if client {
		return roleClient
	}
	return roleServer
}

// Renewal announces another certificate of its sender.
type Renewal struct {
	Chain [][]byte // DER, leaf first, without the root; 1 to ChainMax
	Proof []byte   // signature over RenewalSigned; empty when the key was announced before
}

// RenewalSigned returns what a renewal's proof signs. client: its sender is the
// TLS client. exporter has RenewalExporterSize bytes.
func RenewalSigned(client bool, exporter, leaf []byte) []byte {
	digest := sha256.Sum256(leaf)
	b := append([]byte(renewalLabel), roleByte(client))
	b = append(b, exporter...)
	return append(b, digest[:]...)
}

// IsRenewal reports whether a body of category 2 is a renewal, or would be one
// if it were not malformed: whoever verifies frames in parallel must look at it
// before the frames behind it.
func IsRenewal(body []byte) bool { return isOfType(body, typeRenewal) }

// SettlesLink reports whether a body of category 2 is hello, domain proofs, grants
// or a renewal, or would be one if it were not malformed: on a link whoever
// verifies frames in parallel must look at these before the frames behind them.
func SettlesLink(body []byte) bool {
	return isOfType(body, typeHello, typeDomainProofs, typeGrants, typeRenewal)
}

// isOfType reports whether a body of category 2 is one of these messages, or
// would be if it were not malformed.
func isOfType(body []byte, types ...uint64) bool {
	w, err := walk(body)
	return err == nil && w.hasType && slices.Contains(types, w.typ)
}

type renewalWire struct {
	Type  uint64            `cbor:"0,keyasint"`
	Chain []cbor.ByteString `cbor:"1,keyasint"`
	Proof cbor.ByteString   `cbor:"2,keyasint"`
}

func (*Renewal) controlType() uint64 { return typeRenewal }

func (r *Renewal) wire() (any, error) {
	w := &renewalWire{Type: typeRenewal, Chain: chainToWire(r.Chain), Proof: cbor.ByteString(r.Proof)}
	return w, w.check()
}

func (w *renewalWire) check() error {
	if !isBetween(len(w.Chain), 1, ChainMax) || len(w.Proof) > RenewalProofMax {
		return ErrControlValue
	}
	return nil
}

func decodeRenewal(in *walker) (*Renewal, error) {
	var w renewalWire
	if err := decodeBody(in, keysTo(2), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return &Renewal{Chain: chainFromWire(w.Chain), Proof: []byte(w.Proof)}, nil
}
