package engine

import (
	"slices"

	"causeway/codec"
)

// Requests of one connection that wait until what they ask for has been fetched.
const (
	lateAnswersNode      = 4
	lateAnswersNeighbour = 64
)

// lateAnswer is the answer to a request, with holes that are being fetched.
type lateAnswer struct {
	number  uint64
	entries []codec.CertificateEntry
	missing []codec.CertKey
}

// certificates answers a certificate request (PROTOCOL.md section 5.4): at once
// when all of it is known here or not to be had, else when the rest has been
// fetched.
func (p *peer) certificates(q *codec.CertificateRequest) {
	a := &lateAnswer{number: q.Number, entries: make([]codec.CertificateEntry, len(q.Wanted))}
	for i, key := range q.Wanted {
		e := &a.entries[i]
		e.CertKey = key
		d := p.mayKnow(key.Address)
		if d == nil {
			continue
		}
		if e.Chain = d.chain(key); e.Chain == nil && p.router.fetcher.links.Load() > 0 {
			a.missing = append(a.missing, key)
		}
	}
	most := lateAnswersNode
	if p.far != nil {
		most = lateAnswersNeighbour
	}
	if len(a.missing) == 0 || len(p.late) >= most || !p.router.fetcher.want(p.asker(), a.missing...) {
		p.sendCertificates(a.number, a.entries)
		return
	}
	p.late = append(p.late, a)
}

// asker is the peer, as who asks for certificates itself.
func (p *peer) asker() asker {
	if p.far != nil {
		return asker{p.conn.Ref(), askerNeighbour}
	}
	return asker{p.conn.Ref(), askerNode}
}

// mayKnow returns the domain of an address if the peer may ask about it, else nil.
func (p *peer) mayKnow(a codec.Address) *domain {
	if kind := a.Kind(); kind != codec.KindNode && kind != codec.KindRouter {
		return nil
	}
	if p.far == nil {
		if a.Prefix() == p.domain.prefix {
			return p.domain
		}
		return nil
	}
	if up := p.far.proven[a.Prefix()]; up != nil {
		return up.domain
	}
	return nil
}

// fetched is told how fetches have ended that the peer, or frames that came over
// its link, wanted.
func (p *peer) fetched(kind askerKind, ends []fetchEnd) {
	for _, e := range ends {
		if e.verdict == fetchAbsent { // refused was this asker alone
			p.loop.keys.setAbsent(e.key, e.until)
		}
		if kind == askerFrames {
			p.roomFetched(e.key, e.verdict)
		} else {
			p.fillIn(e.key)
		}
	}
	if kind == askerFrames {
		p.askForRooms()
	}
}

// fillIn fills in what has been fetched, or was not to be had, and sends the
// answers that are whole.
func (p *peer) fillIn(key codec.CertKey) {
	d := p.mayKnow(key.Address)
	p.late = slices.DeleteFunc(p.late, func(a *lateAnswer) bool {
		i := slices.Index(a.missing, key)
		if i < 0 {
			return false
		}
		a.missing = slices.DeleteFunc(a.missing, func(k codec.CertKey) bool { return k == key })
		for i := range a.entries {
			if a.entries[i].CertKey == key && d != nil {
				a.entries[i].Chain = d.chain(key)
			}
		}
		if len(a.missing) > 0 {
			return false
		}
		if p.isOpen() {
			p.sendCertificates(a.number, a.entries)
		}
		return true
	})
}
