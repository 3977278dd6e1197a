package engine

import (
	"math"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// noPauseTime is how long a destination earns no more pauses after one of its
// senders has waited in vain.
const noPauseTime = time.Minute

// route decides on b, a frame with a good signature before which nothing waits:
// rules 8 to 15 of PROTOCOL.md section 8. It takes b; or, false, b waits for room
// and stays the caller's.
func (p *peer) route(b *buf.Buffer) bool {
	l := p.loop
	f := codec.Raw(b.B)
	to, reason := p.decide(f)
	var awaited *withdrawal
	if reason == dropNoRoute || reason == dropNone && to != 0 {
		awaited = l.awaited(f.Recipient(), to != 0)
	}
	switch {
	case awaited != nil:
		p.wait(awaited, b)
	case reason != dropNone:
		p.refuse(reason, b)
	case to == 0:
		p.echo(f)
		l.consume(b)
	case tooLarge(f, l.link.FrameMax(to)):
		p.refuse(dropTooLarge, b)
	default:
		return p.forward(to, b)
	}
	return true
}

// forward hands b to its destination, or drops it if there is no room. It takes
// b; or, false, b waits for room and stays the caller's.
func (p *peer) forward(to link.Ref, b *buf.Buffer) bool {
	l, from := p.loop, p.conn.Ref()
	room := l.link.RoomFor(from, to, b)
	if room == link.RoomFull && p.far == nil {
		if p.waitFor(to, b) {
			return false
		}
		room = l.link.RoomFor(from, to, b) // the queue may have drained just now
	}
	if room == link.RoomFull && codec.Raw(b.B).Category() == codec.CategoryNotice && p.mayTell(b.B, to) {
		room = link.RoomYes
	}
	switch room {
	case link.RoomNone:
		l.count.pressed[pressedRefused].Add(1)
		p.refuse(dropQueueFull, b)
	case link.RoomFull:
		p.refuse(dropQueueFull, b)
	case link.RoomYes:
		p.spend(b.B)
		l.link.SendFrom(from, to, b)
	}
	return true
}

// mayTell tells whether there is room for f, a notice on its way to `to`, though the
// queue is full: nobody would hear that a notice was dropped, so they have the room
// beyond the mark that this router's own ones have.
func (p *peer) mayTell(f codec.Raw, to link.Ref) bool {
	remote := p.destinationOf(to, f).behind == f.Recipient()
	return p.loop.noticeRoom(to, remote) >= int64(len(f))
}

// spend lowers the TTL of f, which is forwarded.
func (p *peer) spend(f codec.Raw) {
	f.SetTTL(min(f.TTL(), p.router.state().config.TTLMax) - 1)
}

// wait lets b wait for its recipient, or drops it when there is no room; it takes b.
func (p *peer) wait(of *withdrawal, b *buf.Buffer) {
	f := codec.Raw(b.B)
	if !p.loop.hold(f.Recipient(), of, b) {
		p.refuse(dropQueueFull, b)
		return
	}
	p.spend(f)
}

// tooLarge tells whether f is larger than its recipient takes: it would close
// its connection.
func tooLarge(f codec.Raw, most int) bool { return most > 0 && len(f.Body()) > most }

// decide returns where f goes; 0 and dropNone: to this router.
func (p *peer) decide(f codec.Raw) (link.Ref, dropReason) {
	if p.far != nil {
		return p.decideOnLink(f)
	}
	recipient := f.Recipient()
	c := p.cert(f.CertID())
	switch {
	case c == nil: // it has been revoked meanwhile
		return 0, dropUnknownCertificate
	case !c.timely(f, p.loop.link.Now(), p.router.state().config.SkewMax):
		return 0, dropLate
	case f.Category() == codec.CategoryNotice && !p.notices.take(p.loop.link.Now(), noticesFromNode, noticesFromNode):
		return 0, dropNoticeRate
	case f.Category() == codec.CategoryNotice && !ownNotice(f):
		return 0, dropForgedNotice
	case recipient.Prefix() != p.domain.prefix:
		return 0, dropForeignDomain
	}
	return p.decideIn(p.domain, f)
}

// decideIn applies rules 11 to 14 of decide to f, a frame of domain d.
func (p *peer) decideIn(d *domain, f codec.Raw) (link.Ref, dropReason) {
	recipient := f.Recipient()
	switch {
	case recipient == d.address && f.Category() != codec.CategoryEcho:
		return 0, dropCategory
	case recipient == d.address, f.TTL() < 2 && isTrace(f):
		if !p.mayEcho(f) {
			return 0, dropEchoRate
		}
		return 0, dropNone
	case f.TTL() < 2:
		return 0, dropTTL
	}
	to, _ := p.router.lookup(recipient)
	if to == 0 {
		return 0, dropNoRoute
	}
	return to, dropNone
}

// timely tells whether f's send time is within skew of this router's clock, and
// the certificate was valid then; nil, revoked meanwhile, was not.
func (c *announced) timely(f codec.Raw, now time.Time, skew time.Duration) bool {
	if c == nil || !inTime(f, now, skew) {
		return false
	}
	sent := int64(f.SendTime())
	return c.from <= sent && sent <= c.until
}

// inTime tells whether f's send time is within skew of this router's clock.
func inTime(f codec.Raw, now time.Time, skew time.Duration) bool {
	sent := int64(min(f.SendTime(), math.MaxInt64)) // beyond that it is not near any clock
	age := time.Duration(now.UnixNano() - sent)
	return -skew <= age && age <= skew
}

// ownNotice tells whether a node's notice is about frames to itself.
func ownNotice(f codec.Raw) bool {
	n, err := codec.DecodeNotice(f.Body())
	return err == nil && n.Recipient == f.Sender()
}

// noticeReasons says what a sender is told about a dropped frame; the zero
// value: nothing.
var noticeReasons = [dropReasons]codec.NoticeReason{
	dropLate:          codec.NoticeLate,
	dropForeignDomain: codec.NoticeNotPermitted,
	dropCategory:      codec.NoticeNotPermitted,
	dropTTL:           codec.NoticeTTLSpent,
	dropNoRoute:       codec.NoticeNoRoute,
	dropQueueFull:     codec.NoticeQueueFull,
	dropTooLarge:      codec.NoticeTooLarge,
	dropRecipientGone: codec.NoticeRecipientGone,
}

// refuse drops b, of which its sender is owed a notice; it takes b.
func (p *peer) refuse(reason dropReason, b *buf.Buffer) {
	if p.far == nil || p.router.config.verifiesLinks() { // else anybody may have sent it
		p.loop.owe(p.domainOf(b.B), reason, b.B)
	}
	p.loop.drop(reason, b)
}

// destination is who has a queue: a connection, or somebody behind a link.
type destination struct {
	to     link.Ref
	behind codec.Address // zero: to itself
}

// noPauseMax bounds the destinations that earn no pauses. For more each sender
// finds out by itself.
const noPauseMax = 1 << 16

// destinationOf returns whose queue of the connection `to` f is for.
func (p *peer) destinationOf(to link.Ref, f codec.Raw) destination {
	if p.router.table.Lookup(f.Recipient()) == tableValue(to) {
		return destination{to: to}
	}
	return destination{to, f.Recipient()}
}

// waitFor pauses reading until there is room for b at the destination `to`. False:
// it does not wait, since there is room already, it has waited in vain, memory
// is short, or nobody is to wait.
func (p *peer) waitFor(to link.Ref, b *buf.Buffer) bool {
	l, at := p.loop, p.destinationOf(to, b.B)
	if p.phase == phaseClosed || p.router.state().config.PauseMax <= 0 || l.link.Account().Short() || l.link.Now().Before(l.noPause[at]) || !p.conn.WaitForRoomOnLoop(to, b) {
		return false
	}
	p.waitsFor, p.waitsAt = at, l.link.Now()
	l.waiting[p] = struct{}{}
	l.count.paused.Add(1)
	return true
}

// roomed is told that there is room where the ring's head goes.
func (p *peer) roomed() {
	p.waitsFor = destination{}
	delete(p.loop.waiting, p)
	p.heardAt = p.loop.link.Now()
	p.drain()
}

// waitedInVain ends a wait for room that has lasted for --pause-max.
func (p *peer) waitedInVain() {
	l := p.loop
	if p.phase < phaseLeaving && len(l.noPause) < noPauseMax { // else nobody has told it of room
		l.noPause[p.waitsFor] = l.link.Now().Add(noPauseTime)
	}
	p.conn.CancelWaitOnLoop()
	p.roomed()
}
