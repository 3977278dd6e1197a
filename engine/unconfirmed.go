package engine

import (
	"causeway/codec"
	"causeway/engine/buf"
)

// What is on the way to a peer, and of which nobody knows whether it has arrived when
// the connection ends: the peers' ledgers.

// sealed is told of each frame that is sealed for the peer, in their order.
func (p *peer) sealed(f codec.Raw, own bool) {
	if f.Category() == codec.CategoryControl {
		if p.behindAt != 0 && f.SendTime() == p.behindAt {
			if p.behindAt = 0; p.owesAnswer || p.ledger.due() {
				p.conn.Notify() // and answer, or ask, in the next turn
			}
		}
		return
	}
	if p.far != nil {
		p.loop.count.linkOut.Add(1)
	}
	var on onTheWay
	if !own {
		on.sent = max(f.SendTime(), 1)
		if f.Category() != codec.CategoryNotice && f.Sender().Kind() == codec.KindNode {
			on.sender = f.Sender()
		}
		if debug && p.far != nil {
			p.checkProven(f)
		}
	}
	l := p.loop
	if grown := p.ledger.add(on, f.Recipient(), len(f), l.ledgersMax-l.count.ledger.Load()); grown != 0 {
		p.loop.ledgerGrew(grown)
	}
	if p.behindAt == 0 && p.ledger.due() {
		p.conn.Notify() // and ask in the next turn
	}
}

// ledgerGrew counts n more bytes of memory of the peers' ledgers.
func (l *loop) ledgerGrew(n int) {
	l.count.ledger.Add(int64(n))
	l.link.Account().Use(buf.PartLedgers, int64(n))
}

// ask asks the peer what it has received of what is sealed and queued now. The
// question goes behind that. While an earlier one has not gone out, which something
// else that the peer said may have covered, there is none.
func (p *peer) ask() {
	if p.behindAt != 0 {
		return
	}
	p.ledger.ask()
	received := p.decided()
	p.sayBehind(&codec.KeepAlive{Received: received, Answer: true}, received)
}

// endLedger settles what was on the way to the peer when its connection ended:
// of the forwarded frames the last `lost` have not left this router, of the
// others nobody knows.
func (p *peer) endLedger(lost int) {
	l := p.loop
	l.count.dropped[dropRecipientGone].Add(uint64(lost))
	owe := func(reason codec.NoticeReason, f onTheWay, to codec.Address) {
		d := p.domain
		if p.far != nil {
			d = p.router.state().byPrefix[f.sender.Prefix()]
		} else {
			to = p.address()
		}
		if d == nil || !l.isSure(f.sender) || !l.book.oweCount(d, trouble{reason, to}, f.sender, f.sent, l.link.Now()) {
			l.count.unnoticed.Add(1)
		}
	}
	told := 0
	forgotten := p.ledger.head - p.ledger.covered
	p.ledger.end(lost, func(f onTheWay, to codec.Address, lost bool) {
		reason := codec.NoticeUnconfirmed
		if lost {
			reason = codec.NoticeRecipientGone
			told++
		} else {
			l.count.unconfirmed.Add(1)
		}
		if !f.sender.IsZero() {
			owe(reason, f, to)
		}
	})
	// Of what is lost and not listed nobody is told; the rest of what was forgotten
	// is in doubt.
	untold := uint64(lost - told)
	forgotten -= min(forgotten, untold)
	l.count.unconfirmed.Add(forgotten)
	l.count.unnoticed.Add(forgotten + untold)
	l.ledgerGrew(p.ledger.release())
}
