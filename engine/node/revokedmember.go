package node

import (
	"context"
	"crypto/x509"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// What Send knows of members that are revoked. Their authority may have given them
// another certificate since, so each Send begins a handshake all the same:
//
//  1. a list, or an M1 or M2 that it has signed under its old certificate, makes a
//     revocation
//  2. a Send that waits does so for another certificate, for revokedPatience, and
//     fails with a *RevokedError; those after it at once, for giveUpAfter
//  3. a good certificate of the member ends it
const (
	revokedMax      = 4096 // members known to be revoked, about 500 bytes each; then any is forgotten
	revokedPatience = 2 * time.Second
)

// revocation is that of a member.
type revocation struct {
	err   *RevokedError
	until time.Time // sessions.mu's; until then Send waits; counts for giveUpAfter, then there is another
}

// revoke takes revocations, by address, and ends the sessions with members whose
// certificates are revoked. The caller has receiving.mu.
func (s *sessions) revoke(all map[codec.Address]error, revoked func(*certificate) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for address, err := range all {
		s.revokedLocked(address, err)
	}
	for _, m := range s.members {
		if m.cert != nil && revoked(m.cert) {
			s.eraseLocked(m)
		}
	}
}

// revokedLocked takes note that a member is revoked, when that is what err says.
func (s *sessions) revokedLocked(address codec.Address, err error) {
	if reason, _ := pki.ReasonOf(err); reason != pki.ReasonRevoked || address.Kind() != codec.KindNode {
		return
	}
	r := &revocation{err: &RevokedError{Recipient: address, Err: err}}
	if was := s.revoked[address]; was != nil {
		r.until = was.until // each M2 that answers this node says it again
	} else {
		makeRoom(s.revoked, revokedMax)
	}
	s.revoked[address] = r
	if m := s.members[address]; m != nil {
		m.revoked.Store(r)
		signal(m.ready)
	}
}

// good takes note that a member has a good certificate.
func (s *sessions) good(address codec.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goodLocked(address)
}

func (s *sessions) goodLocked(address codec.Address) {
	delete(s.revoked, address)
	if m := s.members[address]; m != nil {
		m.revoked.Store(nil)
	}
}

// patience returns ctx; for a member that is revoked one that ends in time, because
// of a *RevokedError.
func (s *sessions) patience(ctx context.Context, m *member) (context.Context, context.CancelFunc) {
	r := m.revoked.Load()
	if r == nil {
		return ctx, func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(r.until) > giveUpAfter {
		r.until = now.Add(revokedPatience)
	}
	return context.WithDeadlineCause(ctx, r.until, r.err)
}

// hearRevokedLocked takes note of an M1 or M2 (borrowed) whose chain was refused, if
// that is for revocation, and somebody waits for a session with its sender. in.mu is
// held.
func (n *Node) hearRevokedLocked(raw codec.Raw, chain [][]byte, now time.Time) {
	if !n.sessions.isMissing(raw.Sender()) {
		return
	}
	_, err := n.verifyChain(chain, now)
	if reason, _ := pki.ReasonOf(err); reason != pki.ReasonRevoked {
		return
	}
	leaf, parseErr := x509.ParseCertificate(chain[0])
	if parseErr != nil {
		return
	}
	peer, readErr := pki.ReadLeaf(leaf)
	if readErr != nil || codec.Address(peer.Address) != raw.Sender() {
		return
	}
	key, keyErr := sign.NewKey(peer.Public)
	if keyErr != nil || !key.Verify(raw.Signed(), raw.Signature()) {
		return // anybody has its certificate
	}
	n.sessions.mu.Lock()
	defer n.sessions.mu.Unlock()
	n.sessions.revokedLocked(peer.Address, err)
}

// isMissing reports whether a message waits for a session with that address.
func (s *sessions) isMissing(address codec.Address) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[address]
	return m != nil && m.users > 0 && m.core.Info().Made.IsZero()
}
