package node

import (
	"errors"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// link is what is known of a connection's ends once TLS is there; it checks
// link control (PROTOCOL.md section 5).
type link struct {
	self   codec.Address
	router *pki.Peer  // the other end as TLS has shown it; on a direct connection a node
	certs  []linkCert // that, and renewals; the reader's
}

// linkCert is a grant that the router has announced on the connection.
type linkCert struct {
	peer *pki.Peer
	key  *sign.Key
}

func newLink(self codec.Address, router *pki.Peer, key *sign.Key) *link {
	return &link{self: self, router: router, certs: []linkCert{{router, key}}}
}

// role returns what the other end's hello has to say.
func (l *link) role() codec.Role {
	if l.router.Role == pki.RoleRouter {
		return codec.RoleRouter
	}
	return codec.RoleNode
}

// keyOf returns the key of an announced certificate, or nil.
func (l *link) keyOf(id codec.CertID) *sign.Key {
	for i := len(l.certs) - 1; i >= 0; i-- {
		if l.certs[i].peer.CertID == id {
			return l.certs[i].key
		}
	}
	return nil
}

// newest returns the announced certificate that was issued last.
func (l *link) newest() (best linkCert) {
	for _, c := range l.certs {
		if best.peer == nil || !c.peer.Leaf.NotBefore.Before(best.peer.Leaf.NotBefore) {
			best = c
		}
	}
	return best
}

// add remembers one more; the oldest goes when they are too many.
func (l *link) add(peer *pki.Peer, key *sign.Key) {
	l.certs = append(l.certs, linkCert{peer, key})
	if extra := len(l.certs) - codec.RenewalsKept; extra > 0 {
		l.certs = append([]linkCert(nil), l.certs[extra:]...)
	}
}

// control checks a frame of category 2 as section 5 says, and decodes it. The
// error is a *ProtocolError. The message owns its memory.
func (l *link) control(raw codec.Raw) (codec.Control, error) {
	key := l.keyOf(raw.CertID())
	switch {
	case raw.Sender() != codec.Address(l.router.Address):
		return nil, &ProtocolError{What: "link control from another sender"}
	case raw.Recipient() != l.self:
		return nil, &ProtocolError{What: "link control for another recipient"}
	case raw.Encrypted():
		return nil, &ProtocolError{What: "link control with flag 1"}
	case key == nil:
		return nil, &ProtocolError{What: "link control under a certificate that was not announced"}
	case !key.Verify(raw.Signed(), raw.Signature()):
		return nil, &ProtocolError{What: "link control with a bad signature"}
	}
	m, err := codec.DecodeControl(raw.Body())
	if err != nil {
		return nil, &ProtocolError{What: "link control", Err: err}
	}
	return m, nil
}

// hello checks the first frame of the router: a hello that fits (section 4),
// or a goodbye that says why not. Errors: *ProtocolError, *ClockError,
// *VersionError, *GoodbyeError.
func (l *link) hello(raw codec.Raw, now time.Time, skewMax time.Duration) (*codec.Hello, error) {
	if raw.Category() != codec.CategoryControl {
		return nil, &ProtocolError{What: "a frame of category " + raw.Category().String() + " came before its hello"}
	}
	m, err := l.control(raw)
	if err != nil {
		return nil, err
	}
	sent := frameTime(raw.SendTime())
	switch m := m.(type) {
	case *codec.Goodbye:
		if m.Reason == codec.GoodbyeClock {
			return nil, &ClockError{Local: now, Router: sent, Text: m.Text}
		}
		return nil, &GoodbyeError{Reason: m.Reason, Text: m.Text, Others: m.Routers}
	case *codec.Hello:
		if m.Version != codec.ProtocolVersion {
			return nil, &VersionError{Here: codec.ProtocolVersion, Router: m.Version}
		}
		if m.Role != l.role() {
			return nil, &ProtocolError{What: "its certificate is a " + l.role().String() + "'s and its hello says " + m.Role.String(), role: true}
		}
		if !inSkew(raw.SendTime(), now, skewMax) {
			return nil, &ClockError{Local: now, Router: sent, SkewMax: skewMax}
		}
		return m, nil
	}
	return nil, &ProtocolError{What: "another message came before its hello"}
}

// goodbyeFor returns what to tell the router when the connection ends for err;
// ok is false when there is nothing to tell.
func goodbyeFor(err error) (reason codec.GoodbyeReason, ok bool) {
	var protocol *ProtocolError
	var clock *ClockError
	var version *VersionError
	switch {
	case errors.As(err, &protocol) && protocol.role:
		return codec.GoodbyeRole, true
	case errors.As(err, &protocol) && protocol.signatures:
		return codec.GoodbyeBadSignatures, true
	case errors.As(err, &protocol):
		return codec.GoodbyeProtocol, true
	case errors.As(err, &clock) && clock.SkewMax > 0:
		return codec.GoodbyeClock, true
	case errors.As(err, &version):
		return codec.GoodbyeVersion, true
	}
	return 0, false
}
