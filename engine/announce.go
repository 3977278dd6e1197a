package engine

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
	"causeway/engine/buf"
)

// What peers are told without asking: this router's renewed grants, and
// revocation lists. After a reload it may be all peers of a loop at once, so it
// is done a few at a tick.
const (
	tellsPerTick  = 64       // peers
	tellAheadMax  = 64 << 10 // bytes that wait for a peer before it is told more
	renewalsBurst = 8        // of a peer, at once
	renewalsEvery = time.Second
	heardMax      = 64 // lists of one domain that a neighbour has sent
)

// outline is what a peer is being told.
type outline struct {
	queued bool       // in loop.telling
	lists  []pki.List // of those, it has been sent or is being sent the first ones
	known  []pki.List // sent whole before
	at     int        // in lists
	part   int        // of lists[at]
	number uint64     // of that on this connection

	sums map[[sha256.Size]byte]struct{} // of lists that the peer itself has sent, bounded
}

// tellLater has the peer told what is new in the state, soon.
func (l *loop) tellLater(p *peer) {
	if !p.tells.queued {
		p.tells.queued = true
		l.telling = append(l.telling, p)
	}
}

// tellSome goes on telling peers.
func (l *loop) tellSome() {
	n := min(len(l.telling), tellsPerTick)
	for _, p := range l.telling[:n] {
		p.tells.queued = false
		if p.phase == phaseOpen && !p.tell() {
			l.tellLater(p)
		}
	}
	rest := copy(l.telling, l.telling[n:])
	clear(l.telling[rest:])
	l.telling = l.telling[:rest]
}

// tell tells the peer what it has not been told, and whether that was all.
func (p *peer) tell() bool {
	if p.far != nil {
		return p.tellLink()
	}
	d := p.router.state().domains[p.domain.name]
	if d == nil || d.address != p.domain.address {
		return true // it is being left
	}
	if d != p.domain {
		p.switchTo(d)
	}
	for p.conn.AheadOnLoop() < tellAheadMax && p.takes(codec.RevocationPartMax) {
		if !p.tellPart(&p.tells, p.domain.lists, &p.tells.number) {
			return true
		}
	}
	return false
}

// switchTo announces this router's newer grant, and speaks under it from then on.
func (p *peer) switchTo(d *domain) {
	if d.certID != p.domain.certID {
		m := &codec.Renewal{Chain: d.grant.Chain}
		if !pki.SameKey(d.grant.Public, p.domain.grant.Public) {
			signed, err := renewalSigned(p.conn.TLS(), p.conn.Dialed(), d.grant)
			if err == nil {
				m.Proof, err = d.signer.Sign(nil, signed)
			}
			if err != nil {
				p.router.log.Error("can't announce the renewed grant", "domain", d.name, "error", err)
				return
			}
		}
		p.say(m)
	}
	p.domain = d
	p.loop.endsAt(d.grant.NotAfter)
}

// renewalSigned returns what the proof of a renewal to id signs.
func renewalSigned(s tls.ConnectionState, client bool, id *pki.Peer) ([]byte, error) {
	exporter, err := s.ExportKeyingMaterial(codec.RenewalExporter, nil, codec.RenewalExporterSize)
	if err != nil {
		return nil, err
	}
	return codec.RenewalSigned(client, exporter, id.Chain[0]), nil
}

// tellPart sends the next part of the revocation lists that the peer has not
// got; false: there is none. number is that of the last list on the connection.
func (p *peer) tellPart(t *outline, lists []pki.List, number *uint64) bool {
	for t.at < len(t.lists) && t.part == 0 && (t.has(t.lists[t.at]) || codec.RevocationParts(len(t.lists[t.at].DER)) == 0) {
		t.at++
	}
	if t.at == len(t.lists) {
		if sameLists(t.lists, lists) {
			return false
		}
		t.known, t.lists, t.at = t.lists, lists, 0
		return p.tellPart(t, lists, number)
	}
	der := t.lists[t.at].DER
	parts := codec.RevocationParts(len(der))
	from := t.part * codec.RevocationPartMax
	if t.part == 0 {
		*number++
	}
	p.say(&codec.RevocationList{
		Number: *number, Part: uint16(t.part), Parts: uint16(parts), Data: der[from:min(len(der), from+codec.RevocationPartMax)],
	})
	if t.part++; t.part == parts {
		t.at, t.part = t.at+1, 0
	}
	return true
}

// has tells whether the peer was sent the list before, or has sent it.
func (t *outline) has(list pki.List) bool {
	for _, l := range t.known {
		if sameList(l, list) {
			return true
		}
	}
	if len(t.sums) == 0 {
		return false
	}
	_, heard := t.sums[listSum(list.DER)]
	return heard
}

// heard notes that the peer has sent a list.
func (t *outline) heard(sum [sha256.Size]byte) {
	if t.sums == nil || len(t.sums) >= heardMax {
		t.sums = make(map[[sha256.Size]byte]struct{})
	}
	t.sums[sum] = struct{}{}
}

// sameLists compares slices of a store, which are not changed.
func sameLists(a, b []pki.List) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// renewalFrame handles b, a renewal, before the frames that come behind it,
// which may be signed under it, are looked at. It overtakes those in the ring;
// for them nothing changes.
func (p *peer) renewalFrame(b *buf.Buffer) {
	f := codec.Raw(b.B)
	if !p.cert(f.CertID()).key.Verify(f.Signed(), f.Signature()) {
		p.badSignature(b, true)
		return
	}
	if m, err := codec.DecodeControl(f.Body()); err != nil {
		p.leave(codec.GoodbyeProtocol, err.Error())
	} else {
		p.renewal(m.(*codec.Renewal))
	}
	p.loop.consume(b)
}

// renewal takes a certificate that the peer announces (PROTOCOL.md section 5.9).
func (p *peer) renewal(m *codec.Renewal) {
	now := p.loop.link.Now()
	if !p.renewals.take(now, 1/renewalsEvery.Seconds(), renewalsBurst) {
		p.leave(codec.GoodbyeLimit, fmt.Sprintf("more than one renewal in %v", renewalsEvery))
		return
	}
	s := p.router.state()
	id, err := s.config.Store.VerifyDER(m.Chain, p.domain.name, now)
	switch {
	case err != nil:
		p.leave(renewalReason(err), "a renewal: "+err.Error())
		return
	case id.Address != p.id.Address || id.URI() != p.id.URI():
		p.leave(codec.GoodbyeProtocol, "a renewal is for "+id.URI()+", another than this connection's "+p.id.URI())
		return
	case p.cert(id.CertID) != nil:
		return
	}
	id = id.Compact()
	key, err := p.provenKey(id, m.Proof)
	if err != nil {
		p.leave(codec.GoodbyeProtocol, "a renewal: "+err.Error())
		return
	}
	p.accept(newAnnounced(id, key), now)
}

func renewalReason(err error) codec.GoodbyeReason {
	switch reason, _ := pki.ReasonOf(err); reason {
	case pki.ReasonExpired, pki.ReasonNotYetValid:
		return codec.GoodbyeExpired
	case pki.ReasonRevoked:
		return codec.GoodbyeRevoked
	}
	return codec.GoodbyeProtocol
}

// errProof is a renewal without a good signature by its key.
var errProof = fmt.Errorf("its key is new on this connection, and it is not signed by it")

// provenKey returns the key of id, which the peer has: it was announced before,
// or has signed this announcement.
func (p *peer) provenKey(id *pki.Peer, proof []byte) (*sign.Key, error) {
	for _, c := range p.certs {
		if pki.SameKey(c.id.Public, id.Public) {
			if len(proof) > 0 {
				return nil, errProof
			}
			return c.key, nil // tables of what was verified are by key
		}
	}
	key, err := sign.NewKey(id.Public)
	if err != nil {
		return nil, err
	}
	signed, err := renewalSigned(p.conn.TLS(), !p.conn.Dialed(), id)
	if err != nil {
		return nil, err
	}
	if !key.Verify(signed, proof) {
		return nil, errProof
	}
	return key, nil
}

// accept takes frames under another certificate from now on.
func (p *peer) accept(c *announced, now time.Time) {
	keep := p.router.state().config.SkewMax
	members := p.domain.members
	if p.member != nil { // else the connection is about to end, and holds nothing any more
		members.hold(c.id)
	}
	p.certs = append(p.certs, c)
	if !c.id.Issued.Before(p.id.Issued) {
		p.id = c.id
		p.loop.endsAt(c.id.NotAfter)
		if p.member != nil {
			next := &member{id: c.id, kind: p.kind, ref: p.conn.Ref()}
			members.replace(p.member, next)
			p.member = next
		}
	}
	if oldest := 0; len(p.certs) > codec.RenewalsKept {
		if p.certs[oldest].id == p.id {
			oldest++
		}
		p.forget(oldest, now, keep)
	}
	p.router.log.Debug("renewed", "peer", describe(c.id), "remote", p.conn.Remote(), "certificate", codec.CertID(c.id.CertID).String(), "until", c.id.NotAfter)
}

// forget drops the i-th announced certificate.
func (p *peer) forget(i int, now time.Time, keep time.Duration) {
	if p.member != nil {
		p.domain.members.release(p.certs[i].id, now, keep)
	}
	p.certs = append(p.certs[:i:i], p.certs[i+1:]...)
}
