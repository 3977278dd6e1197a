package node

import (
	"time"

	"causeway/codec"
)

// filling is what the writer of c takes from the queue for one write: at least
// one frame, if any may go, and not more than budget bytes otherwise.
type filling struct {
	c      *conn
	now    time.Time
	budget int
	size   int
	slots  []*slot
}

func (f *filling) fits(frame []byte) bool {
	return !f.c.pend.full() && (len(f.slots) == 0 || f.size+len(frame) <= f.budget)
}

// drainsLocked reports whether c's writer may take from the queue.
//
// From a router's goodbye on nothing more is written to it: the next one may
// know the way, and this one less and less. Only when the node closes there is
// no next one.
func (o *outgoing) drainsLocked(c *conn) bool {
	return o.writer == c && (!c.heard || o.ended != nil)
}

// takeLocked fills f: what is sent again, what waited for that, then the queue. It
// returns when to look again for what is sent again; zero: not before something
// happens.
func (o *outgoing) takeLocked(f *filling) (next time.Time) {
	if !o.drainsLocked(f.c) {
		return time.Time{}
	}
	next = o.resends.run(f.now, func(s *Sent) progress { return o.sendAgainLocked(f, s) })
	for o.resends.released.len() > 0 && o.takeSlotLocked(f, &o.resends.released, false) {
	}
	if o.resends.released.len() == 0 {
		for o.slots.len() > 0 && o.takeSlotLocked(f, &o.slots, true) {
		}
	}
	o.grantLocked()
	return next
}

// takeSlotLocked takes the first of q, and reports whether the next may be
// taken. fresh: it was never looked at before.
func (o *outgoing) takeSlotLocked(f *filling, q *fifo[*slot], fresh bool) bool {
	s := q.rest()[0]
	var behind *lane
	if s.state == slotReady && !s.answer {
		behind = o.resends.lanes[s.sent.To]
	}
	switch {
	case s.state < slotReady:
		return false
	case s.state == slotReady && behind == nil && !f.fits(s.frame):
		return false
	}
	q.pop()
	if fresh && s.state == slotReady && s.sent != nil {
		o.recent.add(s.sent)
	}
	if behind != nil {
		behind.behind.push(s) // still charged
		return true
	}
	o.releaseLocked(s)
	if s.state == slotReady && o.sendableLocked(f.c, s) {
		o.putLocked(f, s)
	}
	return true
}

// putLocked makes s the next frame to be written.
func (o *outgoing) putLocked(f *filling, s *slot) {
	f.size += len(s.frame)
	f.slots = append(f.slots, s)
	f.c.pend.wrote(s.sent)
	if s.sent == nil {
		return
	}
	s.sent.conn, s.sent.written = f.c, true
	if !s.answer {
		o.kept.add(s.sent, s.frame, f.now)
	}
}

// sendableLocked fails what the connection's router would not take.
func (o *outgoing) sendableLocked(c *conn, s *slot) bool {
	err := o.refusedLocked(c, s.frame, s.self)
	switch {
	case err == nil:
		return true
	case s.answer:
		c.n.counters.answersLost.Add(1)
	default:
		s.sent.resolveLocked(sentFailed, err)
	}
	return false
}

// refusedLocked returns why the router would not take the frame: it may be
// another one than at the time of Send, and the certificate one of before. by has
// signed it; nil: that is not known any more.
func (o *outgoing) refusedLocked(c *conn, frame []byte, by *self) error {
	if !c.leadsTo(codec.Raw(frame).Recipient()) {
		return &UnsentError{&DirectError{Peer: c.link.router.Address, Name: c.link.router.Name}}
	}
	if size := len(codec.Raw(frame).Body()); size > int(c.hello.BodyMax) {
		return &BodySizeError{Size: size, Max: int(c.hello.BodyMax), Router: true}
	}
	if !o.announcedLocked(codec.Raw(frame).CertID(), by, c) {
		return &UnsentError{errForgotten}
	}
	return nil
}

// sendAgainLocked writes a frame once more, byte for byte: recipients tell copies
// by sender and send time (PROTOCOL.md section 9 rule 5).
func (o *outgoing) sendAgainLocked(f *filling, s *Sent) progress {
	if !f.fits(s.frame) {
		return progressNone
	}
	if o.refusedLocked(f.c, s.frame, nil) != nil {
		o.failLocked([]*Sent{s}) // what its last notice said holds
		return progressRefused
	}
	o.putLocked(f, &slot{state: slotReady, frame: s.frame, sent: s})
	f.c.pend.want = f.c.pend.written
	f.c.n.counters.resent.Add(1)
	return progressSent
}

// leavingLocked begins re-homing, if c is the connection in use: from now until
// resendTime after the next one is in use noticed frames are sent again.
func (o *outgoing) leavingLocked(c *conn) {
	if o.writer == c {
		o.rehoming, o.rehomeUntil = true, time.Time{}
	}
}

func (o *outgoing) rehomingLocked(now time.Time) bool {
	return o.rehoming && (o.rehomeUntil.IsZero() || now.Before(o.rehomeUntil))
}

// againLocked makes a noticed frame wait to be sent again, if that is called for.
// Otherwise the notice is its outcome.
func (o *outgoing) againLocked(s *Sent, reason codec.NoticeReason, from codec.Address, now time.Time) bool {
	switch {
	case reason != codec.NoticeNoRoute && reason != codec.NoticeRecipientGone:
		return false // it is no better elsewhere; or the frame was perhaps delivered
	case s.frame == nil || s.state == sentFailed || s.notice != nil || o.discarded:
		return false
	case from == s.To:
		return false // it came, and its session was lost with the recipient's memory
	case s.resend == nil && !o.rehomingLocked(now):
		return false
	}
	s.state, s.conn, s.written = sentOpen, nil, false
	o.kept.hold(s)
	if !o.resends.noticed(s, reason, from, now) {
		o.kept.free(s)
		return false
	}
	o.wakeLocked()
	return true
}

// expire fails what was to be sent again and has waited too long, and lets go of
// the bytes of frames that were written long ago.
func (o *outgoing) expire(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept.trim(now)
	if over := o.resends.expire(now); len(over) > 0 {
		o.failLocked(over)
		o.wakeLocked()
	}
}

// failLocked makes the last notice of each frame its outcome.
func (o *outgoing) failLocked(over []*Sent) {
	type kind struct {
		to, from codec.Address
		reason   codec.NoticeReason
	}
	notices := make(map[kind]*NoticeError)
	for _, s := range over {
		o.kept.free(s)
		k := kind{s.To, s.resend.from, s.resend.reason}
		e := notices[k]
		if e == nil {
			e = &NoticeError{Reason: k.reason, From: k.from, Recipient: k.to}
			notices[k] = e
		}
		s.noticedLocked(e)
		if !s.internal {
			e.Frames = append(e.Frames, codec.NoticeFrame{Digest: s.Digest, SendTime: s.SendTime})
		}
	}
	for _, e := range notices {
		if len(e.Frames) > 0 {
			o.untold = append(o.untold, e)
		}
	}
}

// wakeLocked has the queue looked at again, and what waits for progress.
func (o *outgoing) wakeLocked() {
	if o.writer != nil {
		o.writer.wakeWriter()
		signal(o.writer.progress)
	}
}
