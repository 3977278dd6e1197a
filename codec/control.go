package codec

import (
	"time"
	"unicode/utf8"
)

// Types of link-control messages: the value of key 0 (PROTOCOL.md section 5).
const (
	typeHello              = 1
	typeKeepAlive          = 2
	typeGoodbye            = 3
	typeCertificateRequest = 4
	typeCertificates       = 5
	typeNameRequest        = 6
	typeNames              = 7
	typeDomainProofs       = 8
	typeGrants             = 9
	typeRouteUpdate        = 10
	typeRevocationList     = 11
	typeRenewal            = 12
	typeSeqnoRequest       = 13
	typeAddressList        = 14
	typeListRequest        = 15
	typeListNumbers        = 16
	typeNameQuestion       = 17
	typeNameAnswer         = 18
	typeSenderBlocked      = 19
)

// Control is a link-control message: *Hello, *KeepAlive, *Goodbye,
// *CertificateRequest, *Certificates, *NameRequest, *Names, *DomainProofs,
// *Grants, *RouteUpdate, *RevocationList, *Renewal, *SeqnoRequest,
// *AddressList, *ListRequest, *ListNumbers, *NameQuestion, *NameAnswer or
// *SenderBlocked.
type Control interface {
	controlType() uint64
	// wire returns the struct to encode; ErrControlValue when a value is out
	// of its bounds.
	wire() (any, error)
}

// AppendControl appends a message's body. It fails with ErrControlValue or
// ErrControlLength and then gives back dst as it was.
func AppendControl(dst []byte, m Control) ([]byte, error) {
	wire, err := m.wire()
	if err != nil {
		return dst, err
	}
	return appendBody(dst, wire)
}

// DecodeControl decodes a body of category 2. The message owns its memory.
// Errors are the sentinels ErrControl….
func DecodeControl(body []byte) (Control, error) {
	w, err := walk(body)
	if err != nil {
		return nil, err
	}
	if !w.hasType {
		return nil, ErrControlType
	}
	switch w.typ {
	case typeHello:
		return done(decodeHello(&w))
	case typeKeepAlive:
		return done(decodeKeepAlive(&w))
	case typeGoodbye:
		return done(decodeGoodbye(&w))
	case typeCertificateRequest:
		return done(decodeCertificateRequest(&w))
	case typeCertificates:
		return done(decodeCertificates(&w))
	case typeNameRequest:
		return done(decodeNameRequest(&w))
	case typeNames:
		return done(decodeNames(&w))
	case typeDomainProofs:
		return done(decodeDomainProofs(&w))
	case typeGrants:
		return done(decodeGrants(&w))
	case typeRouteUpdate:
		return done(decodeRouteUpdate(&w))
	case typeRevocationList:
		return done(decodeRevocationList(&w))
	case typeRenewal:
		return done(decodeRenewal(&w))
	case typeSeqnoRequest:
		return done(decodeSeqnoRequest(&w))
	case typeAddressList:
		return done(decodeAddressList(&w))
	case typeListRequest:
		return done(decodeListRequest(&w))
	case typeListNumbers:
		return done(decodeListNumbers(&w))
	case typeNameQuestion:
		return done(decodeNameQuestion(&w))
	case typeNameAnswer:
		return done(decodeNameAnswer(&w))
	case typeSenderBlocked:
		return done(decodeSenderBlocked(&w))
	}
	return nil, ErrControlType
}

// done makes sure that an error comes with a nil Control, and not with an
// interface that holds a nil pointer.
func done[M Control](m M, err error) (Control, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// isText reports whether s is UTF-8 of at most limit bytes.
func isText(s string, limit int) bool { return len(s) <= limit && utf8.ValidString(s) }

// durationMax is the longest time.Duration of whole milliseconds.
const durationMax = (1<<63 - 1) / time.Millisecond * time.Millisecond

// milliseconds returns d in whole milliseconds, the rest cut off. Of a negative
// d it makes 0 or a number above all bounds.
func milliseconds(d time.Duration) uint64 { return uint64(d / time.Millisecond) }

// duration returns ms milliseconds, and durationMax when they are more.
func duration(ms uint64) time.Duration {
	if ms > uint64(durationMax/time.Millisecond) {
		return durationMax
	}
	return time.Duration(ms) * time.Millisecond
}
