package engine

import (
	"time"

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
	to, remote := p.wayBack(f)
	if to == 0 && len(p.loop.lateEchoes) >= lateEchoesMax || to != 0 && !p.reads(to, remote) {
		return false
	}
	return p.echoes.take(p.loop.link.Now(), echoesPerSecond, echoesPerSecond)
}

// echo answers f, an echo to this router or a trace that ends here.
func (p *peer) echo(f codec.Raw) {
	to, _ := p.wayBack(f)
	if d := p.domainOf(f); p.phase != phaseClosed && d != nil {
		p.loop.echo(d, f, to)
	}
}

// reads tells whether one more answer may be made for who sends it by `to`: the
// peer itself, or where a link's frames are answered.
func (p *peer) reads(to link.Ref, remote bool) bool {
	if to == p.conn.Ref() {
		return p.takes(answerSmall)
	}
	return p.loop.noticeRoom(to, remote) >= answerSmall
}

// lateEcho is an answer to who is not reached at the moment: a node that has just
// connected to another router may ask before that is known here.
type lateEcho struct {
	d     *domain
	to    codec.Address
	echo  *codec.Echo
	until time.Time
}

const (
	lateEchoesMax    = 256         // of a loop
	lateEchoPatience = time.Second // lists of addresses travel faster, or links are cut
)

// sayLate sends answers to who is reached meanwhile.
func (l *loop) sayLate(now time.Time) {
	late := l.lateEchoes
	l.lateEchoes = nil
	for _, e := range late {
		switch by, _ := l.router.lookup(e.to); {
		case by != 0:
			l.sayEcho(e.d, e.to, e.echo, by)
		case now.Before(e.until):
			l.lateEchoes = append(l.lateEchoes, e)
		}
	}
}

// echo answers f, an echo to this router in the domain d, or a trace that ends
// here, to its sender, who is reached by the connection `to`; 0: not yet. Only
// requests have an answer. A receipt request is answered by "not seen": nothing is sent to a router.
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
			l.hop(d, f, &answer, to)
			return
		}
	case codec.EchoReceiptRequest:
		answer.Type, answer.Seen = codec.EchoReceipt, false
	default:
		return
	}
	l.sayEcho(d, f.Sender(), &answer, to)
}

// hop answers f, a trace that ends here on its way, with where it would have gone.
// Who is at the other end of a link its loop knows, which answers then.
func (l *loop) hop(d *domain, f codec.Raw, answer *codec.Echo, to link.Ref) {
	asker := f.Sender()
	next, remote := l.router.lookup(f.Recipient())
	if next != 0 && remote {
		l.router.onPeer(next, func(p *peer) {
			if p.far != nil && p.far.proven[d.prefix] != nil {
				answer.Hop.Next = p.far.proven[d.prefix].address
			}
			p.loop.sayEcho(d, asker, answer, to)
		})
		return
	}
	if next != 0 {
		answer.Hop.Next = f.Recipient()
	}
	l.sayEcho(d, asker, answer, to)
}

// sayEcho sends an echo of this router, or keeps it when by is 0.
func (l *loop) sayEcho(d *domain, to codec.Address, e *codec.Echo, by link.Ref) {
	if by == 0 {
		l.lateEchoes = append(l.lateEchoes, lateEcho{d, to, e, l.link.Now().Add(lateEchoPatience)})
		return
	}
	body, err := codec.AppendEcho(nil, e)
	if err != nil {
		panic("engine: an echo that the codec took and refuses: " + err.Error())
	}
	l.sendOwn(by, d, to, codec.CategoryEcho, body, link.OwnAhead)
}
