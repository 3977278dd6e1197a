package link

import "causeway/engine/buf"

// Kind says how a frame is queued and counted.
type Kind uint8

const (
	Forwarded Kind = iota // came from another connection
	Own                   // made by the handler; counted apart
	OwnAhead              // the same, and goes before the frames that wait
	OwnLast               // the same, and no frame goes after it: later ones are undeliverable
)

// Send takes b, a forwarded frame, and queues it for the connection `to`, on
// whatever loop that is. Frames of one kind from one loop to one destination
// keep their order. A frame for a connection that is gone comes back through
// Handler.Undeliverable.
func (l *Loop) Send(to Ref, b *buf.Buffer) { l.SendKind(to, b, Forwarded) }

// SendKind is Send for a frame of the kind given.
func (l *Loop) SendKind(to Ref, b *buf.Buffer, kind Kind) {
	if to.Loop() == l.index {
		if c := l.Conn(to); c != nil && c.accepts() {
			c.slot.backlog.Add(int64(len(b.B)))
			c.enqueue(b, kind)
			return
		}
		l.dead = append(l.dead, parcel{to: to, b: b})
		l.arm()
		return
	}
	s := l.engine.slotOf(to)
	if s == nil {
		l.engine.sendNowhere(to, b)
		return
	}
	s.backlog.Add(int64(len(b.B)))
	l.outbox[to.Loop()] = append(l.outbox[to.Loop()], parcel{to: to, b: b, kind: kind})
	l.arm()
}

// Send is Loop.Send for goroutines that are no loops; it takes a lock. After
// Close it ends b, which is counted as undeliverable but not reported.
func (e *Engine) Send(to Ref, b *buf.Buffer) {
	s := e.slotOf(to)
	if s == nil {
		e.sendNowhere(to, b)
		return
	}
	l := e.loops[to.Loop()]
	s.backlog.Add(int64(len(b.B)))
	if l.inbox.put(parcel{to: to, b: b}) {
		l.wake()
		return
	}
	s.backlog.Add(-int64(len(b.B)))
	l.stat.undeliverable.Add(1)
	buf.Put(b)
}

// sendNowhere gives back a frame for a Ref that never was; it takes b.
func (e *Engine) sendNowhere(to Ref, b *buf.Buffer) {
	l := e.loops[min(to.Loop(), len(e.loops)-1)]
	if !l.Post(func() { l.dead = append(l.dead, parcel{to: to, b: b}) }) {
		l.stat.undeliverable.Add(1)
		buf.Put(b)
	}
}

// Backlog returns how many bytes of frames wait for the connection `to`: given
// to Send on any loop, and not yet handed to the kernel; 0 when it is gone. Any
// goroutine, without a lock.
func (l *Loop) Backlog(to Ref) int {
	if s := l.engine.liveSlot(to); s != nil {
		return int(s.backlog.Load())
	}
	return 0
}

// Full tells whether to's backlog has reached Config.QueueHigh. Any goroutine.
func (l *Loop) Full(to Ref) bool { return l.Backlog(to) >= l.engine.cfg.QueueHigh }

// uncharge takes n bytes out of the backlog of a slot on another loop that has
// ended, where nobody waits any more.
func (l *Loop) uncharge(to Ref, n int) {
	if s := l.engine.slotOf(to); s != nil {
		s.backlog.Add(-int64(n))
	}
}

// FrameMax returns what SetFrameMaxOnLoop has set for the connection `to`; 0 when
// nothing, or when it is gone. Any goroutine, without a lock.
func (l *Loop) FrameMax(to Ref) int {
	if s := l.engine.liveSlot(to); s != nil {
		return int(s.frameMax.Load())
	}
	return 0
}

// SetFrameMaxOnLoop notes the largest frame that may be sent to c, in bytes, for
// others to ask by Loop.FrameMax.
func (c *Conn) SetFrameMaxOnLoop(bytes int) { c.slot.frameMax.Store(uint32(bytes)) }

// GiveBackOnLoop ends, through Handler.Undeliverable, the journey of forwarded
// frames that wait for c and are not sealed, not even in part.
func (c *Conn) GiveBackOnLoop() {
	var kept fifo[queued]
	bytes := 0
	for l := c.loop; !c.queue.empty(); {
		inPart := c.sealed > 0 && c.sealing == &c.queue && kept.empty()
		q := c.queue.pop(&l.spareQueued)
		if q.own || inPart {
			kept.push(&l.spareQueued, q)
			continue
		}
		bytes += len(q.b.B)
		c.unsealed -= len(q.b.B)
		l.dead = append(l.dead, parcel{to: c.Ref(), b: q.b})
		l.arm()
	}
	c.queue = kept
	c.noteOldest()
	if bytes > 0 {
		c.loop.release(c.slot, bytes)
	}
}

// release takes n bytes out of the backlog of a slot of this loop, and ends the
// waits for it when it is low. A waiter registers, then looks at the backlog;
// here the backlog changes, then waiters are looked for: one of both sees the
// other.
func (l *Loop) release(s *slot, n int) {
	left := s.backlog.Add(-int64(n))
	if left < 0 {
		panic("link: a slot's backlog is negative")
	}
	if left <= int64(l.engine.cfg.QueueLow) && s.waiting.Load() {
		l.endWaits(s)
	}
}

// endWaits tells all who wait for s that they may go on.
func (l *Loop) endWaits(s *slot) {
	for _, w := range s.take() {
		if home := w.ref.Loop(); home == l.index {
			l.resumes = append(l.resumes, w)
		} else {
			l.outbox[home] = append(l.outbox[home], parcel{to: w.ref, seq: w.seq})
		}
	}
	l.arm()
}

// undeliverable gives b back to the handler; it takes b.
func (l *Loop) undeliverable(to Ref, b *buf.Buffer) {
	l.stat.undeliverable.Add(1)
	if l.ended {
		buf.Put(b)
		return
	}
	l.engine.handler.Undeliverable(l, to, b)
}
