package engine

import "causeway/codec"

// domainUp is told that d may be used on the link from now on: this router's own
// grant was sent, and the neighbour's is good.
func (p *peer) domainUp(d *proven) {
	p.router.log.Debug("domain proven", "domain", d.domain.name, "peer", describe(d.grant.id), "remote", p.conn.Remote(), "link", p.far.id)
}

// domainDown is told that d is no longer to be used on the link.
func (p *peer) domainDown(d *proven) {
	p.router.log.Debug("domain withdrawn", "domain", d.domain.name, "peer", describe(d.grant.id), "remote", p.conn.Remote(), "link", p.far.id)
}

// routeMessage takes a message about routes or lists of addresses. This router
// tells none, so it has no use for them.
func (p *peer) routeMessage(codec.Control) {}
