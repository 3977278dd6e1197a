package engine

import (
	"net/netip"
	"time"

	"causeway/codec"
	"causeway/engine/gate"
	"causeway/engine/link"
)

// admit is link's question whether an accepted connection may come in.
func (r *Router) admit(remote netip.AddrPort, end func(error, time.Duration)) (link.Pass, error) {
	p, err := r.gate.Admit(remote.Addr(), time.Now(), end)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// SetFirewall puts l in force at once, nil for none. Connections that it denies
// are told goodbye "limit" and ended; it returns how many. The others count for
// l's lines; where more are open than a line's max, they stay.
func (r *Router) SetFirewall(l *gate.List) (denied int) {
	if denied = r.gate.SetFirewall(l); denied > 0 {
		for _, l := range r.loops {
			l.link.Post(func() { l.link.Range(l.deny) })
		}
	}
	return denied
}

// deny ends c if the firewall denies it. Each connection is asked twice: when
// it opens, and when there is a new firewall; so none slips through between.
func (l *loop) deny(c *link.Conn) {
	if p, ok := c.Pass().(*gate.Pass); ok && p.Denied() {
		peerOf(c).leave(codec.GoodbyeLimit, gate.ErrFirewall.Error())
	}
}

// denyLater is deny for a connection that is just being opened.
func (l *loop) denyLater(ref link.Ref) {
	l.link.Post(func() {
		if c := l.link.Conn(ref); c != nil {
			l.deny(c)
		}
	})
}

// badSignaturesRefill is how long it takes until a budget of bad signatures
// that was used up is whole again.
const badSignaturesRefill = 10 * time.Minute

// takeOf takes one token of a bucket that holds most and is filled in the time
// given.
func (b *bucket) takeOf(now time.Time, most int, filled time.Duration) bool {
	b.used = max(0, b.used-float64(most)*float64(now.Sub(b.at))/float64(filled))
	b.at = now
	if b.used+1 > float64(most) {
		return false
	}
	b.used++
	return true
}

// idle tells whether the peer has sent nothing but link control for longer than
// it may. A connection that this router does not read is not idle.
func (p *peer) idle(now time.Time) bool {
	if p.received != p.sentBefore || p.conn.Paused() {
		p.sentBefore, p.sentAt = p.received, now
	}
	most := p.router.state().config.IdleTimeout
	return most > 0 && p.far == nil && now.Sub(p.sentAt) >= most
}
