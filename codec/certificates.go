package codec

import "github.com/fxamacker/cbor/v2"

// Bounds of certificate requests and answers (PROTOCOL.md sections 5.4, 5.5).
const (
	CertificatesWantedMax  = 64 // in a request
	CertificatesPartsMax   = 64
	CertificatesEntriesMax = 64 // in a part
	ChainMax               = 3  // certificates of a chain, without its root
)

// CertificateRequest asks for the chains of certificates.
type CertificateRequest struct {
	Number uint64    // chosen by the asker
	Wanted []CertKey // 1 to CertificatesWantedMax
}

// Certificates is one part of the answer to a CertificateRequest.
type Certificates struct {
	Number  uint64 // of the request
	Part    uint8  // from 0, below Parts
	Parts   uint8  // 1 to CertificatesPartsMax
	Entries []CertificateEntry
}

// CertificateEntry is the answer about one certificate.
type CertificateEntry struct {
	CertKey
	Chain [][]byte // DER, leaf first, without the root; empty: not known here
}

type certKeyWire struct {
	_       struct{} `cbor:",toarray"`
	Address cbor.ByteString
	CertID  cbor.ByteString
}

type certificateRequestWire struct {
	Type   uint64        `cbor:"0,keyasint"`
	Number uint64        `cbor:"1,keyasint"`
	Wanted []certKeyWire `cbor:"2,keyasint"`
}

func (*CertificateRequest) controlType() uint64 { return typeCertificateRequest }

func (r *CertificateRequest) wire() (any, error) {
	if !isBetween(len(r.Wanted), 1, CertificatesWantedMax) {
		return nil, ErrControlValue
	}
	w := &certificateRequestWire{
		Type:   typeCertificateRequest,
		Number: r.Number,
		Wanted: make([]certKeyWire, len(r.Wanted)),
	}
	for i, k := range r.Wanted {
		w.Wanted[i].Address = cbor.ByteString(k.Address[:])
		w.Wanted[i].CertID = cbor.ByteString(k.CertID[:])
	}
	return w, nil
}

func decodeCertificateRequest(in *walker) (*CertificateRequest, error) {
	var w certificateRequestWire
	if err := decodeBody(in, keysTo(2), &w); err != nil {
		return nil, err
	}
	if !isBetween(len(w.Wanted), 1, CertificatesWantedMax) {
		return nil, ErrControlValue
	}
	r := &CertificateRequest{Number: w.Number, Wanted: make([]CertKey, len(w.Wanted))}
	for i, k := range w.Wanted {
		if !fill(r.Wanted[i].Address[:], k.Address) || !fill(r.Wanted[i].CertID[:], k.CertID) {
			return nil, ErrControlValue
		}
	}
	return r, nil
}

type certificateEntryWire struct {
	_       struct{} `cbor:",toarray"`
	Address cbor.ByteString
	CertID  cbor.ByteString
	Chain   []cbor.ByteString
}

type certificatesWire struct {
	Type    uint64                 `cbor:"0,keyasint"`
	Number  uint64                 `cbor:"1,keyasint"`
	Part    uint64                 `cbor:"2,keyasint"`
	Parts   uint64                 `cbor:"3,keyasint"`
	Entries []certificateEntryWire `cbor:"4,keyasint"`
}

func (*Certificates) controlType() uint64 { return typeCertificates }

func (c *Certificates) wire() (any, error) {
	w := &certificatesWire{
		Type:    typeCertificates,
		Number:  c.Number,
		Part:    uint64(c.Part),
		Parts:   uint64(c.Parts),
		Entries: make([]certificateEntryWire, len(c.Entries)),
	}
	for i, e := range c.Entries {
		w.Entries[i].Address = cbor.ByteString(e.Address[:])
		w.Entries[i].CertID = cbor.ByteString(e.CertID[:])
		w.Entries[i].Chain = chainToWire(e.Chain)
	}
	return w, w.check()
}

func (w *certificatesWire) check() error {
	ok := w.Parts >= 1 && w.Parts <= CertificatesPartsMax &&
		w.Part < w.Parts &&
		len(w.Entries) <= CertificatesEntriesMax
	if !ok {
		return ErrControlValue
	}
	for i := range w.Entries {
		if len(w.Entries[i].Chain) > ChainMax {
			return ErrControlValue
		}
	}
	return nil
}

func decodeCertificates(in *walker) (*Certificates, error) {
	var w certificatesWire
	if err := decodeBody(in, keysTo(4), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	c := &Certificates{
		Number:  w.Number,
		Part:    uint8(w.Part),
		Parts:   uint8(w.Parts),
		Entries: make([]CertificateEntry, len(w.Entries)),
	}
	for i, from := range w.Entries {
		to := &c.Entries[i]
		if !fill(to.Address[:], from.Address) || !fill(to.CertID[:], from.CertID) {
			return nil, ErrControlValue
		}
		to.Chain = chainFromWire(from.Chain)
	}
	return c, nil
}

// fill copies s to dst and reports whether it has exactly dst's length.
func fill(dst []byte, s cbor.ByteString) bool {
	copy(dst, s)
	return len(s) == len(dst)
}

func isBetween(n, low, high int) bool { return n >= low && n <= high }

func chainToWire(chain [][]byte) []cbor.ByteString {
	w := make([]cbor.ByteString, len(chain))
	for i, der := range chain {
		w[i] = cbor.ByteString(der)
	}
	return w
}

func chainFromWire(w []cbor.ByteString) [][]byte {
	chain := make([][]byte, len(w))
	for i, der := range w {
		chain[i] = []byte(der)
	}
	return chain
}
