package engine

import "causeway/codec"

// Name questions and answers on links (PROTOCOL.md sections 5.15, 5.16).

// fate counts what became of a name question or answer.
func (p *peer) fate(f int) { p.router.asking.fates[f].Add(1) }

// nameQuestion takes a neighbour's question, which may be another router's.
func (p *peer) nameQuestion(q *codec.NameQuestion) {
	d := p.provenDomain(q.Domain())
	switch {
	case d == nil:
		p.fate(nameUnproven)
	case !p.far.questions.take(p.loop.link.Now(), questionsPerSecond, questionsPerSecond):
		p.fate(nameRate)
	case q.Asked != d.address:
		if q.Hops--; q.Hops == 0 {
			p.fate(nameSpent)
			return
		}
		p.router.passOn(q.Asked, q, answerSmall)
	default:
		p.fate(nameAnswered)
		here := d.namesHere(q.Name, q.After, int(q.Max))
		size := answerSmall
		for _, e := range here.entries {
			size += chainSize(e.Chain)
		}
		p.router.passOn(q.Asker, &codec.NameAnswer{
			Asker: q.Asker, Asked: d.address, Number: q.Number, Hops: askingHops, Entries: here.entries, Next: here.next,
		}, size)
	}
}

// nameAnswer takes an answer that a neighbour has or passes on.
func (p *peer) nameAnswer(m *codec.NameAnswer) {
	d := p.provenDomain(m.Domain())
	switch {
	case d == nil:
		p.fate(nameUnproven)
	case m.Asker == d.address:
		p.router.asking.take(p.router, m)
	case !p.far.answers.take(p.loop.link.Now(), questionsPerSecond, questionsPerSecond):
		p.fate(nameRate)
	default:
		if m.Hops--; m.Hops == 0 {
			p.fate(nameSpent)
			return
		}
		size := answerSmall
		for _, e := range m.Entries {
			size += chainSize(e.Chain)
		}
		p.router.passOn(m.Asker, m, size)
	}
}

// provenDomain returns this router's part in a domain that the link has proven, or
// nil.
func (p *peer) provenDomain(at prefix) *domain {
	if up := p.far.proven[at]; up != nil {
		return up.domain
	}
	return nil
}

// passOn sends a name question or answer of so many bytes towards a router. When
// there is no way, or it is too busy, whoever has asked waits in vain, for a short
// time.
func (r *Router) passOn(to codec.Address, m codec.Control, size int) {
	ref, remote := r.lookup(to)
	if ref == 0 || !remote {
		r.asking.fates[nameNoRoute].Add(1)
		return
	}
	r.onPeer(ref, func(p *peer) {
		switch {
		case !p.isOpen() || p.far == nil || p.provenDomain(to.Prefix()) == nil:
			p.fate(nameNoRoute)
		case !p.takes(size):
			p.fate(nameBusy)
		default:
			p.fate(namePassed)
			p.say(m)
		}
	})
}

// otherRouters returns the routers of the domain that are reached, by address.
func (r *Router) otherRouters(d *domain) []codec.Address {
	return (*r.routing.reached.Load())[d.address]
}
