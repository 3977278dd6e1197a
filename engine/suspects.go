package engine

import (
	"time"

	"causeway/codec"
	"causeway/engine/buf"
)

// suspects are the senders of whom frames with bad signatures have come over a
// link. Each has a budget, that of a node's connection (--max-bad-signatures); past
// it the link takes none of its frames for blockTime, and the neighbour, who has
// passed them on unchecked or made them up, is told. So one hostile node does not
// cost others their link.
//
// Bound: suspectsMax; of further senders frames with bad signatures are dropped as
// ever, and each costs a check.
type suspects map[codec.Address]*suspect

type suspect struct {
	bad   bucket
	until time.Time // blocked; zero: never was
}

const (
	suspectsMax = 1024 // of one link: 150 KB
	blockTime   = time.Minute
)

// blocks tells whether the sender is blocked.
func (s suspects) blocks(sender codec.Address, now time.Time) bool {
	if len(s) == 0 {
		return false
	}
	who := s[sender]
	return who != nil && now.Before(who.until)
}

// bad notes a bad signature of the sender, and tells whether it is blocked from
// now on. The budget is of most, and whole again after badSignaturesRefill.
func (s suspects) bad(sender codec.Address, now time.Time, most int) (blocked bool) {
	who := s[sender]
	if who == nil {
		if len(s) >= suspectsMax {
			return false
		}
		who = new(suspect)
		s[sender] = who
	}
	if now.Before(who.until) || who.bad.takeOf(now, most, badSignaturesRefill) {
		return false
	}
	who.until = now.Add(blockTime)
	return true
}

// forget drops the senders whose budget is whole again.
func (s suspects) forget(now time.Time, most int) {
	for sender, who := range s {
		if !now.Before(who.until) && who.bad.used <= float64(most)*float64(now.Sub(who.bad.at))/float64(badSignaturesRefill) {
			delete(s, sender)
		}
	}
}

// badOnLink drops b, a frame of the neighbour with a bad signature.
func (p *peer) badOnLink(b *buf.Buffer) {
	l, sender := p.loop, codec.Raw(b.B).Sender()
	l.drop(dropBadSignature, b)
	if !p.isOpen() || !p.far.suspects.bad(sender, l.link.Now(), p.router.state().config.BadSignatures) {
		return
	}
	l.count.blocked.Add(1)
	if p.far.proven[sender.Prefix()] != nil && p.takes(answerSmall) {
		p.say(&codec.SenderBlocked{Sender: sender, For: blockTime})
	}
}

// senderBlocked takes the neighbour's word that it has blocked a sender.
func (p *peer) senderBlocked(m *codec.SenderBlocked) {
	l := p.loop
	l.count.blockedThere.Add(1)
	if p.far.proven[m.Domain()] == nil {
		return // withdrawn meanwhile: nobody here is concerned
	}
	if speak, unlogged := l.router.blocked.now(l.link.Now()); speak {
		l.router.log.Warn("a neighbour has blocked a sender: this router passed on frames of it with bad signatures; does it run with --verify none, or get them from one that does?",
			"neighbour", describe(p.id), "sender", m.Sender.String(), "for", m.For, "more_since_last_line", unlogged)
	}
}
