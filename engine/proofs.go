package engine

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"slices"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
)

// What is proven on a link (PROTOCOL.md section 4.1):
//
//  1. offer    this end's domains, as values that only who has them can make
//  2. proofs   the neighbour's values: which of these domains it has too
//  3. grants   its grants for them
//  4. settle   own grants are sent for what both offer; what has all of that is
//     up, everything else is not

// prefix is that of a domain.
type prefix = [pki.PrefixSize]byte

// settlement is what the two ends of a link have told each other of domains. It
// belongs to the home loop.
type settlement struct {
	offers map[prefix]*domain             // that this end proves
	sent   []codec.DomainProof            // their values, as sent last
	under  map[prefix]codec.CertID        // of offers, when they were sent
	hidden map[prefix]struct{}            // not offered: the neighbour's grant was refused
	values map[codec.DomainProof]struct{} // the neighbour's last proofs
	coming []*codec.DomainProofs          // the first parts of the next ones
	theirs map[prefix]struct{}            // domains of this router that are among values

	told    map[prefix]codec.CertID  // own grants that were sent
	own     map[prefix]codec.Address // and of which address; these are not forgotten
	granted map[prefix]*announced    // the neighbour's newest grants
	proven  map[prefix]*proven       // what is up
	refused error                    // why the last domain was withdrawn, if a grant was no longer good
}

// newSettlement begins with what the handshake has shown.
func newSettlement(d *domain, theirs *announced) settlement {
	return settlement{
		hidden:  make(map[prefix]struct{}),
		theirs:  make(map[prefix]struct{}),
		told:    map[prefix]codec.CertID{d.prefix: d.certID},
		own:     map[prefix]codec.Address{d.prefix: d.address},
		granted: map[prefix]*announced{d.prefix: theirs},
		proven:  make(map[prefix]*proven),
	}
}

// offered returns the domains that this end proves on the link.
func (p *peer) offered(s *state, now time.Time) map[prefix]*domain {
	offers := make(map[prefix]*domain)
	for name, d := range s.domains {
		_, hidden := p.far.hidden[d.prefix]
		if !hidden && !now.After(d.grant.NotAfter) && (!s.config.NoDiscovery || name == p.far.sni) {
			offers[d.prefix] = d
			p.loop.endsAt(d.grant.NotAfter)
		}
	}
	return offers
}

// proofOf returns the values of one end for a domain, one for each root.
func (p *peer) proofOf(s *state, d *domain, client bool) (values []codec.DomainProof) {
	for _, root := range s.config.Store.Roots(d.name) {
		values = append(values, codec.NewDomainProof(p.far.exporter, client, d.name, sha256.Sum256(root.Raw)))
	}
	return values
}

// offer sends this end's proofs if they are not what was sent last, or again is
// set, and settles what follows.
func (p *peer) offer(again bool) {
	far, s := p.far, p.router.state()
	far.offers = p.offered(s, p.loop.link.Now())
	var values []codec.DomainProof
	under := make(map[prefix]codec.CertID, len(far.offers))
	for at, d := range far.offers {
		values = append(values, p.proofOf(s, d, p.conn.Dialed())...)
		under[at] = d.certID
	}
	slices.SortFunc(values, func(a, b codec.DomainProof) int { return bytes.Compare(a[:], b[:]) })
	if again || !slices.Equal(values, far.sent) || !maps.Equal(under, far.under) {
		parts, err := codec.SplitDomainProofs(values)
		if err != nil {
			p.router.log.Error("more domains than can be proven to another router", "values", len(values))
			p.leave(codec.GoodbyeLimit, "this router has more domains than it can prove")
			return
		}
		far.sent, far.under = values, under
		for _, part := range parts {
			p.say(part)
		}
	}
	p.match(s)
	p.settle()
}

// match finds out which domains of this router the neighbour has proven.
func (p *peer) match(s *state) {
	clear(p.far.theirs)
	for _, d := range s.domains {
		for _, v := range p.proofOf(s, d, !p.conn.Dialed()) {
			if _, there := p.far.values[v]; there {
				p.far.theirs[d.prefix] = struct{}{}
			}
		}
	}
}

// proofs takes a part of the neighbour's domain proofs.
func (p *peer) proofs(m *codec.DomainProofs) {
	far := p.far
	if int(m.Part) != len(far.coming) || len(far.coming) > 0 && m.Parts != far.coming[0].Parts {
		p.leave(codec.GoodbyeProtocol, "parts of domain proofs came out of order")
		return
	}
	if far.coming = append(far.coming, m); len(far.coming) < int(m.Parts) {
		return
	}
	far.values = make(map[codec.DomainProof]struct{})
	for _, part := range far.coming {
		for _, v := range part.Values {
			if _, reflected := slices.BinarySearchFunc(far.sent, v, func(a, b codec.DomainProof) int { return bytes.Compare(a[:], b[:]) }); reflected {
				p.router.links.ignore(ignoredReflected)
				continue
			}
			far.values[v] = struct{}{}
		}
	}
	far.coming = nil
	p.match(p.router.state())
	for at := range far.hidden {
		if _, again := far.theirs[at]; again {
			delete(far.hidden, at)
		}
	}
	p.offer(false)
}

// Reasons for which proofs and grants are ignored, besides those of pki.
const (
	ignoredReflected = "reflected"  // a proof is one of this end's own
	ignoredUnproven  = "not-proven" // a grant for a domain that one of the ends has not proven
	ignoredKey       = "key"        // a grant for a key that was not proven on the link
)

// grants takes grants of the neighbour. One that is refused though its domain is
// proven is answered by proofs without the domain: else the neighbour would think
// that it can be used.
func (p *peer) grants(m *codec.Grants) {
	for _, chain := range m.Chains {
		if reason, at := p.grant(chain); reason != "" {
			p.router.links.ignore(reason)
			if _, shared := p.shared(at); shared {
				p.far.hidden[at] = struct{}{}
			}
		}
	}
	p.offer(false)
}

// grant takes one grant, or returns why not, and the domain if it is known. What
// can't be of use costs no check of signatures.
func (p *peer) grant(chain [][]byte) (reason string, at prefix) {
	claim, err := leafOf(chain)
	if err != nil {
		return reasonOf(err), prefix{}
	}
	at = pki.Prefix(claim.Domain)
	before := p.far.granted[at]
	switch {
	case !p.isShared(at):
		return ignoredUnproven, prefix{}
	case before != nil && before.id.CertID == claim.CertID:
		return "", at
	}
	if c := p.cert(claim.CertID); c != nil && !c.isClaim && c.id.Domain == claim.Domain { // announced before
		if err := p.router.state().config.Store.Recheck(c.id, p.loop.link.Now()); err != nil {
			return reasonOf(err), at
		}
		p.take(c)
		return "", at
	}
	id, err := p.router.state().config.Store.VerifyDER(chain, claim.Domain, p.loop.link.Now())
	if err == nil {
		err = id.RequireRole(pki.RoleRouter)
	}
	if err != nil {
		return reasonOf(err), at
	}
	key := p.keyBefore(id)
	if key == nil {
		return ignoredKey, at
	}
	p.take(newAnnounced(id.Compact(), key))
	return "", at
}

// leafOf returns what the first certificate of a chain claims.
func leafOf(chain [][]byte) (*pki.Peer, error) {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, &pki.Error{Reason: pki.ReasonMalformed, Err: err}
	}
	return pki.ReadLeaf(leaf)
}

func reasonOf(err error) string {
	why, _ := pki.ReasonOf(err)
	return why.String()
}

// shared returns this router's part in a domain that both ends have proven.
func (p *peer) shared(at prefix) (*domain, bool) {
	d := p.far.offers[at]
	_, theirs := p.far.theirs[at]
	return d, d != nil && theirs
}

func (p *peer) isShared(at prefix) bool {
	_, shared := p.shared(at)
	return shared
}

// take makes a grant that was verified the neighbour's in its domain, and
// accepts what is signed under it.
func (p *peer) take(c *announced) {
	at := pki.Prefix(c.id.Domain)
	switch before := p.cert(c.id.CertID); {
	case before == nil:
		p.certs = append(p.certs, c)
		p.forgetOld(c.id.Domain)
	case before.isClaim: // it is good now
		p.certs[slices.Index(p.certs, before)] = c
	}
	p.far.granted[at] = c
	p.loop.endsAt(c.id.NotAfter)
	if at == p.domain.prefix {
		p.id = c.id
	}
}

// forgetOld drops the oldest certificate of a domain that has too many.
func (p *peer) forgetOld(domain string) {
	oldest, n := -1, 0
	for i, c := range p.certs {
		if c.id.Domain == domain {
			if n++; oldest < 0 {
				oldest = i
			}
		}
	}
	if n > codec.RenewalsKept {
		p.certs = slices.Delete(slices.Clone(p.certs), oldest, oldest+1)
	}
}

// settle brings up what has been proven at both ends, withdraws what is no longer,
// and ends the link when nothing is left.
func (p *peer) settle() {
	far := p.far
	if !p.isOpen() || far.values == nil { // no proofs have come yet
		return
	}
	had := len(far.proven) > 0
	for at, up := range far.proven {
		d, shared := p.shared(at)
		if !shared || far.granted[at] == nil || far.granted[at].id.Address != up.address || d.address != up.domain.address {
			delete(far.proven, at)
			far.current.proven = nil
			if up.isDown {
				continue
			}
			p.domainDown(up)
			p.conn.GiveBackOnLoop(func(b *buf.Buffer) bool { return codec.Raw(b.B).Sender().Prefix() == at })
			p.conn.RefuseOnLoop(p.isUnproven) // what is sent here until the routes have changed
			p.provenDown(up)
		}
	}
	if p.phase != phaseOpen { // nothing comes up on it any more
		if had && len(far.proven) == 0 {
			p.leaveUnproven()
		}
		return
	}
	maps.DeleteFunc(far.told, func(at prefix, _ codec.CertID) bool { return !p.isShared(at) })
	maps.DeleteFunc(far.granted, func(at prefix, _ *announced) bool { return !p.isShared(at) })
	p.tellGrants()
	for at := range far.told {
		d, _ := p.shared(at)
		switch grant, up := far.granted[at], far.proven[at]; {
		case grant == nil:
		case up == nil:
			up = &proven{domain: d, grant: grant, address: grant.id.Address}
			far.proven[at], far.refused = up, nil
			p.domainUp(up)
			p.provenUp(up, true)
		default:
			another := up.grant != grant
			if up.domain, up.grant = d, grant; another {
				p.provenUp(up, false)
			}
		}
	}
	if far.attempt != nil {
		far.attempt.proven.Store(int32(len(far.proven)))
	}
	if len(far.proven) == 0 {
		if had {
			p.leaveUnproven()
		}
		return
	}
	p.chooseControl()
	if far.attempt != nil {
		far.attempt.control.Store(&p.domain.name)
	}
}

// isUnproven tells whether b is of a domain that is not proven on the link.
func (p *peer) isUnproven(b *buf.Buffer) bool {
	return p.far.provenIn(codec.Raw(b.B).Sender().Prefix()) == nil
}

// tellGrants sends this router's grants of the domains that both ends offer, where
// the neighbour does not have them. The one that link control is signed under
// goes as a renewal, which also proves a new key.
func (p *peer) tellGrants() {
	far := p.far
	var chains [][][]byte
	_, told := far.told[p.domain.prefix]
	if d, shared := p.shared(p.domain.prefix); told && shared && d.address == p.domain.address {
		p.switchTo(d)
		far.told[d.prefix] = p.domain.certID
	}
	for at := range far.theirs {
		d, shared := p.shared(at)
		if !shared || far.told[at] == d.certID {
			continue
		}
		far.told[at], far.own[at] = d.certID, d.address
		chains = append(chains, d.grant.Chain)
	}
	messages, err := codec.SplitGrants(chains)
	if err != nil {
		panic("engine: a verified grant is larger than a message: " + err.Error())
	}
	for _, m := range messages {
		p.say(m)
	}
}

// chooseControl makes the domain with the lowest prefix the one that link control
// goes in, when that before has been withdrawn.
func (p *peer) chooseControl() {
	if p.far.proven[p.domain.prefix] != nil {
		return
	}
	lowest := slices.MinFunc(slices.Collect(maps.Keys(p.far.proven)), func(a, b prefix) int { return bytes.Compare(a[:], b[:]) })
	up := p.far.proven[lowest]
	p.domain, p.id = up.domain, up.grant.id
}

// leaveUnproven ends a link on which nothing is proven any more.
func (p *peer) leaveUnproven() {
	if err := p.far.refused; err != nil {
		p.expel(refusalReason(err), err.Error())
		return
	}
	p.leave(codec.GoodbyeDone, "no domain is left that both of us route for")
}

// withdrawAll tells of all domains of the link that they are not to be used any
// more, once.
func (p *peer) withdrawAll() {
	for _, up := range p.far.proven {
		if !up.isDown {
			up.isDown = true
			p.domainDown(up)
			p.provenDown(up)
		}
	}
}
