package engine

import (
	"causeway/codec"
	"causeway/engine/buf"
)

// What routing says by a link goes out some at a time, so that frames of the
// same loop wait no longer than for a few signatures, and so that a neighbour
// that does not read makes little of it be encoded.
const (
	routesAheadMax  = 256 << 10 // bytes of messages that are encoded and not sealed
	routesPerTurn   = 4         // messages; each is signed, and has up to 64 KiB
	routesKeptPart  = 16        // of the cap on memory, for what is not encoded yet
	routesKeptLeast = 8 << 20   // but so many bytes at least: more than a list of the default size
)

// unsaid is what is to be said by a link.
type unsaid struct {
	messages []codec.Control
	bytes    int64 // of memory, in the loop's account
	waits    bool  // in loop.saying
}

// domainUp is told that d may be used on the link from now on: this router's own
// grant was sent, and the neighbour's is good.
func (p *peer) domainUp(d *proven) {
	p.router.log.Debug("domain proven", "domain", d.domain.name, "peer", describe(d.grant.id), "remote", p.conn.Remote(), "link", p.far.id)
	p.router.routing.linkUp(d.domain.address, p.far.id, p.conn.Ref(), d.address, p.far.cost)
}

// domainDown is told that d is no longer to be used on the link.
func (p *peer) domainDown(d *proven) {
	p.router.log.Debug("domain withdrawn", "domain", d.domain.name, "peer", describe(d.grant.id), "remote", p.conn.Remote(), "link", p.far.id)
	p.router.routing.linkDown(d.domain.address, p.far.id)
}

// routeMessage takes what the neighbour says of routes and attached addresses.
func (p *peer) routeMessage(m codec.Control) {
	if !p.router.routing.message(p.far.id, p.conn.Ref(), m) {
		p.leave(codec.GoodbyeLimit, "you tell more of routes and addresses than this router can take in at a time")
	}
}

// sayRoutes says messages of routing, soon. A neighbour that does not read is
// left when too many wait.
func (p *peer) sayRoutes(messages []codec.Control) {
	if !p.isOpen() {
		return
	}
	u, more := &p.far.unsaid, int64(0)
	for _, m := range messages {
		more += memoryOf(m)
	}
	if u.bytes+more > max(p.loop.router.budget.Limit()/routesKeptPart, routesKeptLeast) {
		p.leave(codec.GoodbyeLimit, "too many routes and addresses wait for you to read them")
		return
	}
	u.messages = append(u.messages, messages...)
	p.unsaidGrew(more)
	if !u.waits {
		u.waits = true
		p.loop.saying = append(p.loop.saying, p)
	}
}

// sayRoutes says what waits, as far as it is read.
func (l *loop) sayRoutes() {
	if len(l.saying) == 0 {
		return
	}
	goesOn := false
	still := l.saying[:0]
	for _, p := range l.saying {
		went, more := p.saySome()
		goesOn = goesOn || went && more
		if p.far.unsaid.waits = more; more {
			still = append(still, p)
		}
	}
	clear(l.saying[len(still):])
	l.saying = still
	if goesOn {
		l.link.Post(func() {}) // another turn; who does not read brings one about by reading
	}
}

// saySome says some messages, and tells whether it did and whether there are
// more.
func (p *peer) saySome() (went, more bool) {
	u := &p.far.unsaid
	if !p.isOpen() {
		p.dropUnsaid()
		return false, false
	}
	n := 0
	for ; n < min(len(u.messages), routesPerTurn) && p.conn.AheadOnLoop() < routesAheadMax; n++ {
		p.unsaidGrew(-memoryOf(u.messages[n]))
		p.say(u.messages[n])
	}
	clear(u.messages[:n])
	if u.messages = u.messages[n:]; len(u.messages) == 0 {
		u.messages = nil
	}
	return n > 0, len(u.messages) > 0
}

// unsaidGrew counts n more bytes that are to be said.
func (p *peer) unsaidGrew(n int64) {
	p.far.unsaid.bytes += n
	p.loop.link.Account().Use(buf.PartRoutes, n)
}

// dropUnsaid forgets what was to be said.
func (p *peer) dropUnsaid() {
	p.unsaidGrew(-p.far.unsaid.bytes)
	p.far.unsaid.messages = nil
}
