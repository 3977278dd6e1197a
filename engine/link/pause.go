package link

import "causeway/engine/buf"

// Reading is paused while any cause holds: each PauseOnLoop that no
// ResumeOnLoop has undone, and a wait for a destination. A pause is hard: after
// it no frame is cut, and at most one more read of the socket (already
// announced to gnet) is kept in memory.

//
// A rest is softer: the socket is not read, but what has been read is cut, so
// that nothing of it is kept.

// Paused tells whether any cause holds, or c rests. Home loop.
func (c *Conn) Paused() bool { return c.pauses > 0 || c.resting }

// RestOnLoop stops reading c's socket. Frames of what gnet has read, or is about
// to hand over, still come.
func (c *Conn) RestOnLoop() {
	if !c.resting && c.phase == phaseOpen {
		c.resting = true
		c.mask()
	}
}

// EndRestOnLoop ends a rest: if no cause to pause holds, reading goes on in this
// turn or the next.
func (c *Conn) EndRestOnLoop() {
	if !c.resting {
		return
	}
	c.resting = false
	if c.pauses == 0 && c.phase == phaseOpen {
		c.goOn()
	}
}

// PauseOnLoop adds a cause to pause reading.
func (c *Conn) PauseOnLoop() {
	c.pauses++
	if c.pauses > 1 || c.phase != phaseOpen {
		return
	}
	c.loop.stat.pauses.Add(1)
	c.mask()
}

// ResumeOnLoop takes one cause away. With the last one reading goes on in this
// turn or the next, first with what is held in memory.
func (c *Conn) ResumeOnLoop() {
	if c.pauses == 0 {
		panic("link: ResumeOnLoop without PauseOnLoop")
	}
	c.pauses--
	if c.pauses == 0 && c.phase == phaseOpen {
		c.goOn()
	}
}

// mask stops gnet from reading the socket.
func (c *Conn) mask() {
	if c.masked || c.socket == nil {
		return
	}
	if err := c.loop.port.pauseReading(c.fd); err != nil {
		c.die(err)
		return
	}
	c.masked = true
}

func (c *Conn) unmask() {
	if !c.masked || c.socket == nil {
		return
	}
	if err := c.loop.port.resumeReading(c.fd); err != nil {
		c.die(err)
		return
	}
	c.masked = false
}

// goOn lets the loop continue reading c.
func (c *Conn) goOn() {
	if !c.goingOn {
		c.goingOn = true
		c.loop.goingOn = append(c.loop.goingOn, c)
		c.loop.arm()
	}
}

// continueReading cuts what is held and then lets the socket be read again,
// unless the handler pauses c in the middle.
func (c *Conn) continueReading() {
	if c.phase != phaseOpen || c.pauses > 0 {
		return
	}
	if !c.cutRest() || !c.feedHeld() || c.phase != phaseOpen || c.Paused() {
		return
	}
	if c.socket == nil {
		c.readOrphan()
		return
	}
	c.unmask()
}

// cutRest cuts the plaintext that a pause left; false when some is still left.
func (c *Conn) cutRest() bool {
	if c.rest == nil {
		return true
	}
	before := c.loop.cut
	c.restAt += c.cut(c.rest.B[c.restAt:])
	if n := c.loop.cut - before; n > 0 {
		c.noteCut(n)
	}
	return c.putUsed(&c.rest, c.restAt)
}

// feedHeld feeds the ciphertext that a pause left; false when some is still
// left.
func (c *Conn) feedHeld() bool {
	if c.held == nil {
		return true
	}
	if c.phase != phaseOpen || c.pauses > 0 {
		return false
	}
	c.transport.in = c.held.B[c.heldAt:]
	c.readPlaintext()
	left := len(c.transport.in)
	c.transport.in = nil
	if c.held == nil { // the connection came to its end, which drops input
		return false
	}
	c.heldAt = len(c.held.B) - left
	return c.putUsed(&c.held, c.heldAt)
}

// putUsed ends a buffer of which used bytes have been used, if that is all.
func (c *Conn) putUsed(b **buf.Buffer, used int) bool {
	if *b == nil || used < len((*b).B) {
		return false
	}
	buf.Put(*b)
	*b = nil
	return true
}

// WaitForOnLoop pauses c until the destination `to` is at or below its low mark
// (Config.QueueLow) or gone; then Handler.Resumed comes. It returns false and
// does nothing when that is so already. c waits for one destination at a time:
// an earlier wait is cancelled.
func (c *Conn) WaitForOnLoop(to Ref) bool { return c.WaitForRoomOnLoop(to, nil) }

// WaitForRoomOnLoop is WaitForOnLoop for room for b, which is borrowed: if `to` is a
// link, the queue of b's recipient has to be at or below its low mark, and the
// link's below its own.
func (c *Conn) WaitForRoomOnLoop(to Ref, b *buf.Buffer) bool {
	c.CancelWaitOnLoop()
	e := c.loop.engine
	s := e.liveSlot(to)
	if s == nil || c.phase != phaseOpen {
		return false
	}
	c.waitSeq++
	w := waiter{ref: c.Ref(), seq: c.waitSeq}
	var behind *recipients
	if now := s.shares.Load(); now != nil && now.behind != nil {
		if behind = now.behind; b != nil {
			w.to = behind.recipient(b.B)
		}
	}
	if !s.add(to.generation(), w) {
		return false
	}
	all := s.backlog.Load()
	if (all <= int64(e.cfg.QueueLow) || behind != nil && behind.roomy(w.to, all)) && s.remove(w.ref, w.seq) {
		return false
	}
	// Low, but no longer registered: to's loop has taken the waiter and its
	// message is on the way.
	c.waitFor = to
	c.PauseOnLoop()
	return true
}

// CancelWaitOnLoop ends a wait, if there is one, without Handler.Resumed.
func (c *Conn) CancelWaitOnLoop() {
	if c.waitFor == 0 {
		return
	}
	if s := c.loop.engine.slotOf(c.waitFor); s != nil {
		s.remove(c.Ref(), c.waitSeq)
	}
	c.waitFor = 0
	c.ResumeOnLoop()
}

// endWait is the message that the destination which ref waits for is low. The
// wait may have been cancelled, and another begun, while it was on its way.
func (l *Loop) endWait(ref Ref, seq uint32) {
	c := l.Conn(ref)
	if c == nil || c.waitFor == 0 || c.waitSeq != seq {
		return
	}
	c.waitFor = 0
	c.ResumeOnLoop()
	if c.phase == phaseOpen {
		l.engine.handler.Resumed(c)
	}
}
