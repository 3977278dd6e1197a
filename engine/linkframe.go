package engine

import (
	"causeway/codec"
	"causeway/crypto/sign"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// Frames that come from other routers (PROTOCOL.md section 8.1):
//
//  1. linkFrame      rules that need no signature; then, under the sender's
//     certificate, the ring, or the waiting room of those whose certificate is
//     asked for (await), out of the link's order
//  2. badOnLink      a bad signature: past a budget its sender is blocked
//  3. decideOnLink   the other rules; route then goes on as for a node's frames
//
// A link carries the frames of many: it is never paused for a recipient, and never
// closed for one sender. It is not read only while all that it has sent waits for
// verdicts, or memory does, which both end by themselves.

// linkFrame takes b, a frame of a neighbour that is no link control.
func (p *peer) linkFrame(b *buf.Buffer) {
	f := codec.Raw(b.B)
	d, reason := p.earlyOnLink(f)
	if reason != dropNone {
		p.loop.drop(reason, b)
		return
	}
	if a := p.loop.link.Account(); a.Exhausted() || a.Met() && p.ring.Bytes() >= restingFrom {
		p.loop.count.pressed[pressedUnchecked].Add(1)
		p.loop.drop(dropQueueFull, b) // nobody is told: who has sent it is not known
		p.rest()
		return
	}
	if !p.router.config.verifiesLinks() {
		p.check(b, nil)
		return
	}
	if c := p.loop.keyOf(d, f); c != nil && !p.far.rooms.waits(f.Sender()) {
		p.check(b, c.key)
	} else {
		p.await(b, p.received-1)
	}
}

// earlyOnLink applies the rules that need no signature, and returns the domain
// that f is of.
func (p *peer) earlyOnLink(f codec.Raw) (*domain, dropReason) {
	sender, category := f.Sender(), f.Category()
	up := p.far.provenIn(sender.Prefix())
	switch {
	case up == nil || f.Recipient().Prefix() != sender.Prefix():
		return nil, dropForeignDomain
	case !category.AllowsFlag(f.Encrypted()):
		return nil, dropCategory
	case sender.Kind() != codec.KindNode && category != codec.CategoryNotice && category != codec.CategoryEcho:
		return nil, dropCategory
	case p.far.suspects.blocks(sender, p.loop.link.Now()):
		return nil, dropBlockedSender
	}
	return up.domain, dropNone
}

// check takes b, one of the neighbour's frames, and has its signature checked
// under key; nil: it needs none.
func (p *peer) check(b *buf.Buffer, key *sign.Key) {
	if key == nil && p.ring.Len() == 0 {
		p.route(b)
		return
	}
	p.push(b, key, p.received-1)
	p.pushed()
}

// decideOnLink is decide for a frame of a neighbour. It goes wherever the routes
// say, be that where it came from: while a node moves, routers know at different
// times where it is, and a router that sends a frame back knows better. If both
// are wrong its time to live ends it.
func (p *peer) decideOnLink(f codec.Raw) (link.Ref, dropReason) {
	d := p.domainOf(f)
	if d == nil || p.isOpen() && p.far.provenIn(d.prefix) == nil { // withdrawn meanwhile
		return 0, dropForeignDomain
	}
	if reason := p.timelyOnLink(d, f); reason != dropNone {
		return 0, reason
	}
	return p.decideIn(d, f)
}

// timelyOnLink applies rule 8. What is not verified here has no certificate here.
func (p *peer) timelyOnLink(d *domain, f codec.Raw) dropReason {
	now, skew := p.loop.link.Now(), p.router.state().config.SkewMax
	if !p.router.config.verifiesLinks() {
		if !inTime(f, now, skew) {
			return dropLate
		}
		return dropNone
	}
	switch c := p.loop.keyOf(d, f); {
	case c == nil: // it has been revoked meanwhile
		return dropUnknownCertificate
	case !c.timely(f, now, skew):
		return dropLate
	}
	return dropNone
}

// domainOf returns the domain that f, one of the peer's frames, is of; nil: it is
// no longer served.
func (p *peer) domainOf(f codec.Raw) *domain {
	if p.far == nil {
		return p.domain
	}
	return p.far.domainIn(p.router.state(), f.Sender().Prefix())
}

// current is what is known of one domain: most frames are of the same as the one
// before, and need no look at a map.
type current struct {
	proven       *proven // nil: to be looked up, as it is once it is withdrawn
	provenPrefix prefix

	domain       *domain // in state
	domainPrefix prefix
	state        *state // nil: to be looked up; as any but the one in force
}

// provenIn returns what the neighbour has proven of a domain, nil: nothing.
func (n *neighbour) provenIn(at prefix) *proven {
	if now := &n.current; now.proven == nil || now.provenPrefix != at {
		now.proven, now.provenPrefix = n.proven[at], at
	}
	if debug && n.current.proven != n.proven[at] {
		panic("engine: a link takes frames of a domain under what was proven earlier")
	}
	return n.current.proven
}

// domainIn returns a domain of the state that is in force, nil: it is not served.
func (n *neighbour) domainIn(s *state, at prefix) *domain {
	if now := &n.current; now.state != s || now.domainPrefix != at {
		now.domain, now.domainPrefix, now.state = s.byPrefix[at], at, s
	}
	return n.current.domain
}

// wayBack returns the connection by which f's sender is reached, 0: none, and
// whether that is a link.
func (p *peer) wayBack(f codec.Raw) (to link.Ref, remote bool) {
	if p.far == nil {
		return p.conn.Ref(), false
	}
	return p.router.lookup(f.Sender())
}

// recipientOf is link.Config.Recipient.
func recipientOf(frame []byte) []byte { return codec.Raw(frame).RecipientBytes() }

// checkProven asserts that a domain was proven on the link before any of its frames
// goes there: routes lead over such links alone. It may have been withdrawn since.
func (p *peer) checkProven(f codec.Raw) {
	if _, was := p.far.own[f.Sender().Prefix()]; !was {
		panic("engine: a frame from " + f.Sender().String() + " to " + f.Recipient().String() + " goes over a link that has never proven their domain")
	}
}
