package engine

import (
	"causeway/codec"
	"causeway/engine/link"
)

// Echoes that a router answers (PROTOCOL.md section 7): those that are for it,
// and traces that end here.

// isTrace tells whether f is a trace.
func isTrace(f codec.Raw) bool {
	if f.Category() != codec.CategoryEcho {
		return false
	}
	e, err := codec.DecodeEcho(f.Body())
	return err == nil && e.Type == codec.EchoTrace
}

// mayEcho tells whether f, one more echo of the peer, is answered.
func (p *peer) mayEcho(f codec.Raw) bool {
	return p.reads(p.wayBack(f)) && p.echoes.take(p.loop.link.Now(), echoesPerSecond, echoesPerSecond)
}

// echo answers f, an echo to this router or a trace that ends here.
func (p *peer) echo(f codec.Raw) {
	to, _ := p.wayBack(f)
	d := p.domainOf(f)
	if p.phase != phaseClosed && to != 0 && d != nil {
		p.loop.echo(d, f, to)
	}
}

// reads tells whether one more answer may be made for who sends it by `to`: the
// peer itself, or where a link's frames are answered.
func (p *peer) reads(to link.Ref, remote bool) bool {
	if to == p.conn.Ref() {
		return p.takes(answerSmall)
	}
	return to != 0 && p.loop.noticeRoom(to, remote) >= answerSmall
}

// echo answers f, an echo to this router in the domain d, or a trace that ends
// here, to its sender, who is reached by the connection `to`. Only requests have an
// answer. A receipt request is answered by "not seen": nothing is sent to a router.
func (l *loop) echo(d *domain, f codec.Raw, to link.Ref) {
	e, err := codec.DecodeEcho(f.Body())
	if err != nil {
		return
	}
	answer := *e
	switch e.Type {
	case codec.EchoRequest:
		answer.Type = codec.EchoReply
	case codec.EchoTrace:
		answer.Type = codec.EchoHop
		answer.Hop = codec.Hop{TTL: f.TTL(), Time: uint64(l.link.Now().UnixNano()), Software: l.router.config.Software}
		if f.Recipient() != d.address {
			answer.Hop.Next = l.router.next(f.Recipient())
		}
	case codec.EchoReceiptRequest:
		answer.Type, answer.Seen = codec.EchoReceipt, false
	default:
		return
	}
	body, err := codec.AppendEcho(nil, &answer)
	if err != nil {
		panic("engine: an echo that the codec took and refuses: " + err.Error())
	}
	l.sendOwn(to, d, f.Sender(), codec.CategoryEcho, body, link.OwnAhead)
}

// next returns where frames for the recipient go from here: to itself when it is
// connected here; zero: no way is known.
func (r *Router) next(recipient codec.Address) codec.Address {
	if r.table.Lookup(recipient) == 0 {
		return codec.Address{}
	}
	return recipient
}
