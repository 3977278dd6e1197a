package engine

import (
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// undeliverable takes b, which no longer reaches the connection `to`. When the
// recipient has connected anew it goes there, by another link when there is one,
// and when the recipient may still come back it waits.
func (l *loop) undeliverable(to link.Ref, b *buf.Buffer) {
	r := l.router
	f := codec.Raw(b.B)
	if _, own := r.state().own[f.Sender()]; own { // made here
		buf.Put(b)
		return
	}
	now, remote := r.lookup(f.Recipient())
	if now == to {
		if c := l.link.Conn(to); c != nil { // it takes no more, and is about to be closed
			peerOf(c).unregister(true)
		}
		if remote && l.turnBack(to, b) {
			return
		}
		if now, _ = r.lookup(f.Recipient()); now == to {
			now = 0
		}
	}
	l.goElsewhere(now, b)
}

// turnBack keeps b until routing has heard that the link `to` has ended, which it
// was told before; then there is another route, or none.
func (l *loop) turnBack(to link.Ref, b *buf.Buffer) bool {
	waits, asked := l.turned[to]
	if !asked && !l.router.routing.post(func(time.Time) { l.link.Post(func() { l.turnAgain(to) }) }) {
		return false
	}
	l.turned[to] = append(waits, b)
	return true
}

// turnAgain sends on what came back from the link `to`.
func (l *loop) turnAgain(to link.Ref) {
	waits := l.turned[to]
	delete(l.turned, to)
	for _, b := range waits {
		now, _ := l.router.lookup(codec.Raw(b.B).Recipient())
		if now == to {
			now = 0
		}
		l.goElsewhere(now, b)
	}
}

// goElsewhere sends on b, which came back, to where its recipient is now; 0:
// nowhere.
func (l *loop) goElsewhere(now link.Ref, b *buf.Buffer) {
	f := codec.Raw(b.B)
	of := l.awaited(f.Recipient(), now != 0)
	switch {
	case of != nil && l.hold(f.Recipient(), of, b):
	case of != nil:
		l.giveUp(dropQueueFull, b)
	case now != 0 && !l.link.Full(now) && !tooLarge(f, l.link.FrameMax(now)):
		l.link.Send(now, b)
	default:
		l.giveUp(dropRecipientGone, b)
	}
}
