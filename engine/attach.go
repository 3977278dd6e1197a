package engine

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"causeway/codec"
	"causeway/engine/link"
	"causeway/engine/route"
)

// What routing has loops do, and what it is told of the state.

// served returns the domains of the state, for routing.
func (s *state) served() ([]served, routingLimits) {
	var all []served
	for _, name := range slices.Sorted(maps.Keys(s.domains)) {
		all = append(all, served{name, s.domains[name].address})
	}
	c := &s.config
	return all, routingLimits{
		nodeCost: c.NodeCost, maxAddresses: c.AddressesMax, skewMax: c.SkewMax, hold: max(c.HoldTimeout, 0),
		maxTotal: int(c.Memory/listsPart/(entryMemory+placedMemory)) / max(len(all), 1),
	}
}

// listsPart is the part of the cap on memory that lists of other routers may take,
// the same for each domain: one that has too many addresses costs no other.
const listsPart = 4

// servedBeside returns the domains of the state, and those of the one before
// that have no other address now.
func (s *state) servedBeside(old *state) ([]served, routingLimits) {
	all, limits := s.served()
	for name, d := range old.domains {
		if s.domains[name] == nil {
			all = append(all, served{name, d.address})
		}
	}
	return all, limits
}

// onPeer runs do on the loop of a connection, if that is not gone.
func (r *Router) onPeer(ref link.Ref, do func(p *peer)) {
	l := r.loops[ref.Loop()]
	l.link.Post(func() {
		if c := l.link.Conn(ref); c != nil {
			do(peerOf(c))
		}
	})
}

// routingHands is a Router as routing sees it.
type routingHands struct{ r *Router }

func (h routingHands) say(by link.Ref, messages []codec.Control) {
	h.r.onPeer(by, func(p *peer) { p.sayRoutes(messages) })
}

func (h routingHands) leave(by link.Ref, reason codec.GoodbyeReason, text string) {
	h.r.onPeer(by, func(p *peer) { p.leave(reason, text) })
}

func (h routingHands) probe(node link.Ref) {
	h.r.onPeer(node, func(p *peer) {
		if p.isOpen() {
			p.probed = true
			p.say(&codec.KeepAlive{Received: p.decidedAhead(), Answer: true})
		}
	})
}

// elsewhere is where a node has gone, for the log.
type elsewhere codec.Address

func (e elsewhere) String() string { return "at router " + codec.Address(e).String() }

func (h routingHands) replaced(node link.Ref, by codec.Address) {
	h.r.onPeer(node, func(p *peer) {
		if p.phase >= phaseLeaving {
			return
		}
		h.r.replaced.add(h.r.log, p.loop.link.Now(), p, elsewhere(by))
		p.conn.GiveBackOnLoop(nil) // what waits goes to the other router
		p.leave(codec.GoodbyeReplaced, fmt.Sprintf("you have connected to router %v, and have not answered here for %v", by, route.ProbeTimeout))
	})
}

func (h routingHands) linksOf(self codec.Address) {
	for _, l := range h.r.loops {
		l.link.Post(func() {
			l.link.Range(func(c *link.Conn) {
				if p := peerOf(c); p.far != nil {
					if up := p.far.proven[self.Prefix()]; up != nil && !up.isDown && up.domain.address == self {
						h.r.routing.stillUp(self, p.far.id, c.Ref())
					}
				}
			})
		})
	}
}

func (h routingHands) alarm(domain, what string) {
	if speak, unlogged := h.r.astray.now(time.Now()); speak {
		h.r.log.Error(what, "domain", domain, "more_since_last_line", unlogged)
	}
}

func (h routingHands) appeared(a codec.Address) { h.r.fetcher.appeared(a) }

func (h routingHands) comeBack() {
	for _, l := range h.r.loops {
		if l.stranded.comes.CompareAndSwap(false, true) {
			l.link.Post(l.comeBack)
		}
	}
}
