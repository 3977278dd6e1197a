package engine

import (
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// Frames that were on their way to a link that has ended come back to its loop,
// and go on by the next route to their recipient. Routing hears of the end at the
// same time as they do, so for a moment, and for longer where there is no other
// route, they are stranded: they wait in their order, behind each other, for as
// long as frames for somebody who has just left (hold.go), with whom they share a
// bound, and are dropped then as no-route.
//
// Bound: strandedMax frames of a loop; at it they are dropped as queue-full.
const strandedMax = 1 << 16

// stranding is a loop's stranded frames. It belongs to the loop.
type stranding struct {
	frames []strandedFrame // in order
	rests  time.Time       // until when comeBack leaves it to the next tick
	left   bool            // and it did

	comes atomic.Bool // comeBack has been posted, and has not begun
}

// A comeBack that has taken long makes the next ones leave it to the tick for
// comeBackRest times as long: routes may change at a rate that others decide.
const (
	comeBackLong = time.Millisecond
	comeBackRest = 4
)

type strandedFrame struct {
	b     *buf.Buffer
	since time.Time
}

func (s *stranding) empty() bool { return len(s.frames) == 0 }

// strand takes b, which came back from a link that has ended.
func (l *loop) strand(b *buf.Buffer) {
	s, w := &l.stranded, l.router.withdrawn
	switch {
	case l.last: // like what is left in the queues of nodes
		l.giveUp(dropRecipientGone, b)
		return
	case l.nobodyReturns():
		l.giveUp(dropNoRoute, b)
		return
	case len(s.frames) >= strandedMax || !w.takeAny(int64(cap(b.B))):
		l.giveUp(dropQueueFull, b)
		return
	}
	l.link.Account().Use(buf.PartHeld, buf.SizeOf(b))
	s.frames = append(s.frames, strandedFrame{b, l.link.Now()})
}

// reroute has stranded frames go on for whom there is a route again, and gives up
// those that have waited for too long. The others stay in order.
func (l *loop) reroute() {
	s := &l.stranded
	if s.empty() {
		return
	}
	most, now := l.router.state().config.HoldTimeout, l.link.Now()
	behind := make(map[codec.Address]struct{}) // for whom an earlier frame stays: routes change meanwhile
	kept := s.frames[:0]
	for _, f := range s.frames {
		a := codec.Raw(f.b.B).Recipient()
		_, stays := behind[a]
		switch to, _ := l.router.lookup(a); {
		case !stays && to != 0 && l.link.Alive(to) && l.leads(to, a):
			l.goOn(to, l.unstrand(f))
		case l.nobodyReturns() || now.Sub(f.since) >= most:
			l.giveUp(dropNoRoute, l.unstrand(f))
		default:
			behind[a] = struct{}{}
			kept = append(kept, f)
		}
	}
	clear(s.frames[len(kept):])
	if s.frames = kept; len(kept) == 0 {
		s.frames = nil
	}
}

// leads tells whether frames for the address may go by the connection `to`. A link of
// this loop may have lost their domain, which the routes show a moment later.
func (l *loop) leads(to link.Ref, a codec.Address) bool {
	c := l.link.Conn(to)
	if c == nil || peerOf(c).far == nil {
		return true
	}
	up := peerOf(c).far.proven[a.Prefix()]
	return up != nil && !up.isDown
}

// comeBack hands over what waits for who is reached again, or by another link.
func (l *loop) comeBack() {
	s := &l.stranded
	s.comes.Store(false) // what changes from here on has another one posted
	began := time.Now()
	if s.left = began.Before(s.rests); s.left {
		return
	}
	l.reroute()
	l.settleReached()
	if took := time.Since(began); took >= comeBackLong {
		s.rests = began.Add((1 + comeBackRest) * took)
	}
}

// unstrand returns f's frame, which waits no more.
func (l *loop) unstrand(f strandedFrame) *buf.Buffer {
	l.router.withdrawn.giveBackAny(int64(cap(f.b.B)))
	l.link.Account().Use(buf.PartHeld, -buf.SizeOf(f.b))
	return f.b
}

// goOn sends b, which was forwarded before, to where it goes now.
func (l *loop) goOn(to link.Ref, b *buf.Buffer) {
	switch {
	case tooLarge(b.B, l.link.FrameMax(to)):
		l.giveUp(dropTooLarge, b)
	case l.link.RoomFor(0, to, b) != link.RoomYes:
		l.giveUp(dropQueueFull, b)
	default:
		l.link.Send(to, b)
	}
}

// sweepStranded drops what is stranded. The loop has stopped.
func (l *loop) sweepStranded() {
	for _, f := range l.stranded.frames {
		l.drop(dropShutdown, l.unstrand(f))
	}
	l.stranded.frames = nil
}
