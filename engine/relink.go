package engine

import (
	"fmt"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// keyBefore returns the key of id if it was proven on this link, or nil.
func (p *peer) keyBefore(id *pki.Peer) *sign.Key {
	for _, c := range p.certs {
		if pki.SameKey(c.id.Public, id.Public) {
			return c.key
		}
	}
	return nil
}

// linkRenewal takes a newer grant in the domain of the one that its frame was
// signed under (PROTOCOL.md section 5.9).
func (p *peer) linkRenewal(m *codec.Renewal, under *announced) {
	now := p.loop.link.Now()
	id, err := p.router.state().config.Store.VerifyDER(m.Chain, under.id.Domain, now)
	switch {
	case err != nil:
		p.leave(renewalReason(err), "a renewal: "+err.Error())
		return
	case id.Address != under.id.Address || id.URI() != under.id.URI():
		p.leave(codec.GoodbyeProtocol, "a renewal is for "+id.URI()+", another than its sender's "+under.id.URI())
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
	p.take(newAnnounced(id, key))
	p.settle()
}

// adoptLink makes the new state that of a link.
func (p *peer) adoptLink(s *state) {
	if p.phase == phaseHello {
		switch d := s.domains[p.domain.name]; {
		case d == nil || d.address != p.domain.address:
			p.leave(codec.GoodbyeDraining, "this router is no longer what it was in "+p.domain.name+"; connect again")
		default:
			if err := s.config.Store.Recheck(p.id, p.loop.link.Now()); err != nil {
				p.expel(refusalReason(err), err.Error())
			}
		}
		return
	}
	clear(p.far.hidden)
	p.recheck(s, p.loop.link.Now())
	p.offer(false)
	p.loop.tellLater(p)
}

// recheck takes the neighbour's grants that are no longer good.
func (p *peer) recheck(s *state, now time.Time) {
	far := p.far
	for at, c := range far.granted {
		if err := s.config.Store.Recheck(c.id, now); err != nil {
			delete(far.granted, at)
			far.refused = err
			if isRevoked(err) {
				far.hidden[at] = struct{}{}
			}
			continue
		}
		p.loop.endsAt(c.id.NotAfter)
	}
}

// expireLink withdraws the domains whose grants, the neighbour's or this
// router's, have ended.
func (p *peer) expireLink(now time.Time) {
	s := p.router.state()
	if p.phase == phaseHello {
		if now.After(p.id.NotAfter) || now.After(p.domain.grant.NotAfter) {
			p.expel(codec.GoodbyeExpired, fmt.Sprintf("a grant of %s was valid until %s", p.domain.name, clock(p.id.NotAfter)))
		}
		return
	}
	for _, d := range p.far.offers {
		if now.After(d.grant.NotAfter) {
			p.far.refused = &pki.Error{Reason: pki.ReasonExpired, Domain: d.name, What: "this router's grant was valid until " + clock(d.grant.NotAfter)}
		}
	}
	p.recheck(s, now)
	p.offer(false)
}
