package node

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// How often a node may be renewed. A router remembers codec.RenewalsKept of its
// certificates and takes so many at once, one a second after that; a new
// connection may have to announce all of the past ones again.
const (
	renewEvery = time.Second
	renewBurst = 2
	selvesMax  = codec.RenewalsKept - renewBurst // this node's certificates that are remembered
)

// self is the node under one of its certificates. It is immutable.
type self struct {
	id     *pki.Identity
	certID codec.CertID
	signer *sign.Signer
}

func newSelf(id *pki.Identity) (*self, error) {
	signer, err := sign.NewSigner(id.Key)
	if err != nil {
		return nil, &ConfigError{"Identity", err.Error(), "make a new one: causeway pki request"}
	}
	return &self{id: id, certID: id.Peer.CertID, signer: signer}, nil
}

// Errors of Renew.
var (
	ErrRenewedTooOften = errors.New("renewed too often: at most once a second, and not while messages wait that an older certificate signed; try again later")
	ErrOtherIdentity   = errors.New("the certificate is another node's: a renewal keeps address, domain and name")
)

// Renew makes the node go on under a newer certificate of the same address and
// name, for the same key or another, without closing its connection: the router
// is told before the first message that is signed with it. What was signed
// before is delivered as it is. Errors: ErrOtherIdentity, ErrRenewedTooOften,
// *ConfigError, one of pki about the certificate, and what ended the node. After
// an error the node goes on as it was.
func (n *Node) Renew(id *pki.Identity) error {
	if err := n.Err(); err != nil {
		return err
	}
	now := n.self.Load()
	switch {
	case id == nil || id.Peer == nil:
		return &ConfigError{"Identity", "has no node certificate (node.crt)", "load one by pki.LoadIdentity"}
	case id.Peer.Address != now.id.Peer.Address || id.Peer.URI() != now.id.Peer.URI():
		return ErrOtherIdentity
	case id.Peer.CertID == now.id.Peer.CertID:
		return nil
	}
	next, err := newSelf(id)
	if err != nil {
		return err
	}
	trust, err := n.trustOf(id)
	if err != nil {
		return err
	}
	if _, err := trust.VerifyDER(id.Peer.Chain, id.Peer.Domain, n.cfg.Now()); err != nil {
		return fmt.Errorf("this node's renewed certificate: %w", err)
	}
	if err := n.out.renew(next); err != nil {
		return err
	}
	n.peers.renew(n.out)
	n.in.mu.Lock()
	n.trustLocked(withLists(trust, n.trust.Load(), id.Peer.Domain))
	n.in.mu.Unlock()
	n.cfg.Logger.Info("renewed", "certificate", next.certID.String(), "until", id.Peer.NotAfter)
	return nil
}

// trustOf returns what the node trusts with that identity.
func (n *Node) trustOf(id *pki.Identity) (*pki.Store, error) {
	if !n.ownRoots {
		return n.trust.Load(), nil // Config.Trust's to say
	}
	store, err := id.Store()
	if err != nil {
		return nil, &ConfigError{"Identity", err.Error(), "copy root.crt from the domain's authority"}
	}
	return store, nil
}

// withLists returns store with those revocation lists of the other that its
// authorities have signed.
func withLists(store, other *pki.Store, domain string) *pki.Store {
	for _, der := range other.CRLs(domain) {
		if with, err := store.WithCRL(domain, der); err == nil {
			store = with
		}
	}
	return store
}

// renew makes next what the node is from now on. The queue may hold frames that
// a self before has signed; the writer announces before it writes.
func (o *outgoing) renew(next *self) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.renewals = max(0, o.renewals-now.Sub(o.renewedAt).Seconds()/renewEvery.Seconds())
	o.renewedAt = now
	if o.renewals+1 > renewBurst {
		return ErrRenewedTooOften
	}
	if len(o.selves) == selvesMax {
		if o.usedLocked(o.selves[0].certID) {
			return ErrRenewedTooOften
		}
		o.selves = append(o.selves[:0], o.selves[1:]...)
	}
	o.renewals++
	o.selves = append(o.selves, next)
	o.self.Store(next)
	if o.writer != nil {
		o.writer.wakeWriter()
	}
	return nil
}

// usedLocked tells whether a frame that is not written yet, or to be sent again,
// is, or may be, signed under the certificate.
func (o *outgoing) usedLocked(id codec.CertID) bool {
	used := func(s *slot) bool {
		return s.state == slotReserved || s.state != slotVoid && codec.Raw(s.frame).CertID() == id
	}
	if slices.ContainsFunc(o.slots.rest(), used) || slices.ContainsFunc(o.resends.released.rest(), used) {
		return true
	}
	for _, l := range o.resends.lanes {
		again := func(s *Sent) bool { return codec.Raw(s.frame).CertID() == id }
		if slices.ContainsFunc(l.behind.rest(), used) || slices.ContainsFunc(l.waiting, again) {
			return true
		}
	}
	return false
}

// errForgotten fails a message whose certificate can't be shown to a router any
// more.
var errForgotten = errors.New("it was signed under a certificate that has ended, for a connection that has ended too")

// announcedLocked makes sure that the router is told of the certificate before
// the next frame; false: that can't be. by, if it is known, is the node under that
// certificate: a peer's queue may be told of a renewal later than who sends.
func (o *outgoing) announcedLocked(id codec.CertID, by *self, c *conn) bool {
	has := func(s *self) bool { return s.certID == id }
	if slices.ContainsFunc(c.announced, has) {
		return true
	}
	for _, own := range o.selves {
		if own.certID == id && !o.now().After(own.id.Peer.NotAfter) {
			c.announceLocked(own)
			return true
		}
	}
	if by != nil && by.certID == id && !o.now().After(by.id.Peer.NotAfter) {
		c.announceLocked(by)
		return true
	}
	return false
}

// announceLocked has the writer announce one of the node's certificates next.
func (c *conn) announceLocked(s *self) {
	c.announced = remembered(append(c.announced, s))
	c.toAnnounce = append(c.toAnnounce, s)
}

// remembered returns what a router remembers of so many announced certificates:
// the last ones, and always the newest.
func remembered(all []*self) []*self {
	if len(all) <= codec.RenewalsKept {
		return all
	}
	newest := 0
	for i, s := range all {
		if !s.id.Peer.Leaf.NotBefore.Before(all[newest].id.Peer.Leaf.NotBefore) {
			newest = i
		}
	}
	oldest := 0
	if newest == oldest {
		oldest++
	}
	return slices.Delete(all, oldest, oldest+1)
}

// addRenewal writes the announcement of s, and speaks under it from then on if
// it is the newest. The writer calls it.
func (w *writer) addRenewal(s *self) error {
	c := w.c
	m := &codec.Renewal{Chain: s.id.Peer.Chain}
	if !c.knowsKey(s) {
		state := c.tls.ConnectionState()
		exporter, err := state.ExportKeyingMaterial(codec.RenewalExporter, nil, codec.RenewalExporterSize)
		if err != nil {
			return err
		}
		if m.Proof, err = s.signer.Sign(nil, codec.RenewalSigned(!c.accepted, exporter, s.id.Peer.Leaf.Raw)); err != nil {
			return err
		}
	}
	if err := w.addControl(m); err != nil {
		return err
	}
	c.shown = remembered(append(c.shown, s))
	if !s.id.Peer.Leaf.NotBefore.Before(c.self.id.Peer.Leaf.NotBefore) {
		c.self = s
	}
	return nil
}

// knowsKey tells whether the router has been shown s's key on this connection.
func (c *conn) knowsKey(s *self) bool {
	for _, shown := range c.shown {
		if pki.SameKey(shown.id.Peer.Public, s.id.Peer.Public) {
			return true
		}
	}
	return false
}

// errRenewalProof is a router's renewal that its new key has not signed.
var errRenewalProof = errors.New("its key is new on this connection, and has not signed it")

// renewal takes a newer certificate of the other end (PROTOCOL.md section 5.9).
func (c *conn) renewal(m *codec.Renewal) error {
	n := c.n
	l := c.link
	if l.keyOf(pki.CertID(m.Chain[0])) != nil {
		return nil // before it costs a verification
	}
	peer, err := n.trust.Load().VerifyDER(m.Chain, n.Domain(), n.cfg.Now())
	if err == nil {
		err = peer.RequireRole(c.link.router.Role)
	}
	switch {
	case err != nil:
		return &ProtocolError{What: "a renewal", Err: err}
	case peer.Address != l.router.Address || peer.URI() != l.router.URI():
		return &ProtocolError{What: "a renewal for " + peer.URI() + ", which is not the other end"}
	}
	key, err := c.provenKey(peer, m.Proof)
	if err != nil {
		return &ProtocolError{What: "a renewal", Err: err}
	}
	l.add(peer, key)
	n.learn(peer)
	c.newest.Store(l.newest().peer)
	n.cfg.Logger.Info("router renewed", "name", peer.Name, "until", peer.NotAfter)
	return nil
}

func (c *conn) provenKey(peer *pki.Peer, proof []byte) (*sign.Key, error) {
	for _, known := range c.link.certs {
		if pki.SameKey(known.peer.Public, peer.Public) {
			if len(proof) > 0 {
				return nil, errRenewalProof
			}
			return known.key, nil
		}
	}
	key, err := sign.NewKey(peer.Public)
	if err != nil {
		return nil, err
	}
	state := c.tls.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(codec.RenewalExporter, nil, codec.RenewalExporterSize)
	if err != nil {
		return nil, err
	}
	if !key.Verify(codec.RenewalSigned(c.accepted, exporter, peer.Leaf.Raw), proof) {
		return nil, errRenewalProof
	}
	return key, nil
}

// checkPeers ends connections whose other end's newest certificate has ended.
func (n *Node) checkPeers(now time.Time) {
	if c, _ := n.out.current(); c != nil {
		c.checkPeer(now)
	}
	for _, c := range n.peers.all() {
		c.checkPeer(now)
	}
}

func (c *conn) checkPeer(now time.Time) {
	newest := c.newest.Load()
	if !now.After(newest.NotAfter) {
		return
	}
	domain := c.n.Domain()
	c.kill(&RouterCertificateError{Domain: domain, Node: c.direct, Err: &pki.Error{
		Reason: pki.ReasonExpired, Domain: domain, Who: c.link.router.URI(), What: "the other end has announced no newer one",
		NotBefore: newest.NotBefore, NotAfter: newest.NotAfter, Now: now, Remedy: "its operator has to renew it",
	}})
}
