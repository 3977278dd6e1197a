package node

import (
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// listMax is the largest revocation list that a node takes, in bytes.
const listMax = 16 << 20

// listParts collects the parts of a list (PROTOCOL.md section 5.8).
type listParts struct {
	number uint64
	parts  uint16
	next   uint16
	data   []byte
	skip   bool // too large to be kept
}

// add takes a part. whole is the list when it is complete; ok is false when the
// part is out of order.
func (l *listParts) add(m *codec.RevocationList) (whole []byte, ok bool) {
	if l.next == 0 {
		if m.Part != 0 {
			return nil, false
		}
		*l = listParts{number: m.Number, parts: m.Parts}
	}
	if m.Number != l.number || m.Parts != l.parts || m.Part != l.next {
		return nil, false
	}
	l.skip = l.skip || len(l.data)+len(m.Data) > listMax
	if l.skip {
		l.data = nil
	} else {
		l.data = append(l.data, m.Data...)
	}
	if l.next++; l.next < l.parts {
		return nil, true
	}
	whole = l.data
	*l = listParts{}
	return whole, true
}

// revocationList takes a part of a list from the router. An error ends the
// connection.
func (c *conn) revocationList(m *codec.RevocationList) error {
	whole, ok := c.list.add(m)
	if !ok {
		return &ProtocolError{What: "parts of a revocation list out of order"}
	}
	if whole == nil {
		return nil
	}
	if !c.n.applyList(whole) {
		return nil
	}
	return c.checkRevoked(c.n.trust.Load(), c.n.cfg.Now())
}

// checkRevoked checks that trust bears out the other end's newest certificate. The
// error is a *RouterCertificateError.
func (c *conn) checkRevoked(trust *pki.Store, now time.Time) error {
	if err := revokedBy(trust, c.newest.Load(), now); err != nil {
		return &RouterCertificateError{Domain: c.n.Domain(), Node: c.direct, Err: err}
	}
	return nil
}

// applyList puts a list into the node's trust store, if it is newer than what is
// there, and reports whether it was.
func (n *Node) applyList(der []byte) bool {
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	store := n.trust.Load()
	next, err := store.WithCRL(n.Domain(), der)
	if err != nil {
		n.counters.listsRefused.Add(1)
		n.cfg.Logger.Warn("left a revocation list alone that the router has sent", "error", err)
		return false
	}
	if next == store {
		return false
	}
	n.counters.listsTaken.Add(1)
	n.trustLocked(next)
	return true
}

// trustLocked trusts what next says from now on, and forgets certificates that
// it does not bear out, and sessions with who has them.
func (n *Node) trustLocked(next *pki.Store) {
	n.trust.Store(next)
	now := n.cfg.Now()
	revoked := make(map[codec.Address]error)
	good := make(map[codec.Address]bool) // under another certificate, perhaps
	for key, cert := range n.in.certs.known {
		if err := revokedBy(next, cert.peer, now); err != nil {
			delete(n.in.certs.known, key)
			n.in.certs.refuse(key, now)
			revoked[key.Address] = err
		} else {
			good[key.Address] = true
		}
	}
	for address := range good {
		delete(revoked, address)
	}
	n.sessions.revoke(revoked, func(cert *certificate) bool { return revokedBy(next, cert.peer, now) != nil })
	n.endRevoked(next, now)
}

// revokedBy returns why trust does not bear out a certificate at any time:
// revocation, or the end of what it came from. What has ended, or not begun, is
// judged as of its time, which is looked at for each frame.
func revokedBy(trust *pki.Store, p *pki.Peer, now time.Time) error {
	if now.After(p.NotAfter) {
		now = p.NotAfter
	}
	if now.Before(p.NotBefore) {
		now = p.NotBefore
	}
	return trust.Recheck(p, now)
}
