package engine

import (
	"causeway/codec"
	"causeway/engine/buf"
)

// keyOf returns the certificate that f, a frame of domain d from another router,
// is signed under; nil: it is not known.
func (l *loop) keyOf(_ *domain, f codec.Raw) *announced { return l.keys[f.CertKey()] }

// await takes b, a frame of domain d that came over p's link after so many others,
// and whose certificate is not known.
func (p *peer) await(_ *domain, b *buf.Buffer, _ uint64) { p.loop.drop(dropUnknownCertificate, b) }
