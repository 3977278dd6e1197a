package link

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"causeway/engine/buf"
)

// The phases of a connection. Input is cut only while it is open; frames are
// accepted for it while it is open or flushing.
//
//	new → open → flushing → shut → dying → closed
//
// From any phase before, an error or CloseOnLoop leads to dying.
const (
	phaseNew      = iota // not yet on its loop
	phaseOpen            //
	phaseFlushing        // not read; everything queued is being written
	phaseShut            // FIN sent; read and thrown away until the peer's FIN
	phaseDying           // torn down later in this turn or in the next
	phaseClosed          //
)

// lingerMax is how long the rest of a queue is written for a peer that has
// ended its own stream.
const lingerMax = 5 * time.Second

// accepts tells whether frames can still be queued for c.
func (c *Conn) accepts() bool {
	return (c.phase == phaseOpen || c.phase == phaseFlushing && !c.closeSent) && !c.noWrite && !c.lastQueued
}

// takes tells whether b, a frame of the kind given, can be queued for c.
func (c *Conn) takes(b *buf.Buffer, kind Kind) bool {
	return c.accepts() && (c.refuse == nil || kind != Forwarded || !c.refuse(b))
}

// RefuseOnLoop has forwarded frames of which `which` is true come back through
// Handler.Undeliverable from now on, instead of being queued for c; nil: none does.
func (c *Conn) RefuseOnLoop(which func(*buf.Buffer) bool) { c.refuse = which }

// CloseOnLoop ends the connection at once, without flushing: no frame is cut or
// accepted from now on, and Handler.Closed follows within the turn.
func (c *Conn) CloseOnLoop(why error) {
	if c.phase < phaseDying {
		c.why = nil
		c.die(why)
	}
}

// die is CloseOnLoop, except that the reason of an end under way stays.
func (c *Conn) die(why error) {
	if c.phase >= phaseDying {
		return
	}
	if c.why == nil {
		c.why = why
	}
	c.phase = phaseDying
	c.loop.dying = append(c.loop.dying, c)
	c.loop.arm()
}

// FinishOnLoop ends the connection with care: reading stops, all queued frames
// are written, TLS and TCP are closed for writing, and what comes is thrown away
// until the peer closes too; at the deadline at the latest (to within a tick)
// the connection is closed. Frames sent to it meanwhile are still accepted until
// the queue has been empty once.
func (c *Conn) FinishOnLoop(why error, deadline time.Time) {
	switch c.phase {
	case phaseFlushing, phaseShut:
		if deadline.Before(c.deadline) {
			c.deadline = deadline
		}
		return
	case phaseOpen:
	default:
		return
	}
	c.CancelWaitOnLoop()
	c.phase, c.why, c.deadline = phaseFlushing, why, deadline
	c.dropInput()
	c.mask()
	c.loop.finishing = append(c.loop.finishing, c)
	if c.noWrite {
		c.die(why)
		return
	}
	c.markDirty()
}

// finishStep goes on with FinishOnLoop when all ciphertext is written. It tells
// whether there is more of it.
func (c *Conn) finishStep() (more bool) {
	// The backlog includes frames that other loops are about to splice in.
	if c.phase != phaseFlushing || !c.queuesEmpty() || c.slot.backlog.Load() > 0 {
		return false
	}
	if !c.closeSent {
		c.closeSent = true
		if err := c.tls.CloseWrite(); err != nil {
			c.die(err)
		}
		return c.phase == phaseFlushing
	}
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		c.noWrite = true
		c.die(os.NewSyscallError("shutdown", err))
		return false
	}
	c.phase = phaseShut
	if c.socket == nil { // the peer's stream has ended already
		c.die(c.why)
		return false
	}
	// Unread input would turn the close into a reset, which can overtake what
	// was just written.
	c.unmask()
	return false
}

// checkDeadlines closes what has not finished in time.
func (l *Loop) checkDeadlines() {
	kept := l.finishing[:0]
	for _, c := range l.finishing {
		switch {
		case c.phase >= phaseDying:
			continue
		case !l.now.Before(c.deadline):
			c.giveUp()
			continue
		case c.phase == phaseFlushing:
			c.markDirty() // its backlog may have become empty without a write
		}
		kept = append(kept, c)
	}
	clear(l.finishing[len(kept):])
	l.finishing = kept
}

// giveUp ends a finishing connection whose time is over.
func (c *Conn) giveUp() {
	if c.phase == phaseFlushing && c.loop.engine.ctx.Err() != nil && c.slot.backlog.Load() > 0 {
		c.loop.engine.cutShort.Add(1)
	}
	c.die(c.why)
}

// hungUp comes from gnet when the socket has ended (EOF, error, reset) or when
// teardown closes it; gnet closes the descriptor when it returns. What was
// received before, and what waits to be written to a peer that only ended its
// own stream, is saved by going on with a duplicate of the descriptor: an
// orphan, which gnet does not know.
func (l *Loop) hungUp(c *Conn, cause error) {
	fd := c.fd
	c.fd, c.socket = -1, nil
	if c.watched {
		l.port.unwatch(fd)
		c.watched, c.blocked = false, false
	}
	if c.phase == phaseNew || c.phase >= phaseDying {
		return
	}
	l.refresh()
	reset := false
	if errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
		cause, reset = os.NewSyscallError("read", unix.Errno(errno)), true
	} else if isErrno(cause) {
		reset = true
	} else {
		cause = io.EOF
	}
	c.noWrite = reset
	input := c.phase == phaseOpen && (c.holds() || c.masked)
	output := c.phase <= phaseFlushing && !reset && (c.out.waiting > 0 || !c.queuesEmpty() || c.slot.backlog.Load() > 0)
	if !input && !output {
		c.endOrphan(cause)
		return
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil { // descriptors have run out: the rest is lost, and counted
		c.endOrphan(cause)
		return
	}
	c.fd, c.orphanErr = dup, cause
	if c.phase == phaseOpen {
		c.goOn()
	}
	c.markDirty()
}

// endOrphan closes c for cause, unless it already ends for a reason of its own.
func (c *Conn) endOrphan(cause error) {
	if c.phase == phaseOpen && cause == io.EOF {
		cause = c.endOfStream()
	}
	c.die(cause)
}

// readOrphan reads what was received before the socket ended, a share per turn,
// then ends the connection.
func (c *Conn) readOrphan() {
	l := c.loop
	n, err := unix.Read(c.fd, l.orphanInput())
	if err == unix.EINTR {
		c.goOn()
		return
	}
	if n > 0 {
		c.bytesIn.Add(uint64(n))
		l.stat.bytesIn.Add(uint64(n))
		c.feed(l.orphanInput()[:n])
		if c.phase == phaseOpen && c.pauses == 0 {
			c.goOn()
		}
		return
	}
	if c.noWrite {
		c.endOrphan(c.orphanErr)
		return
	}
	c.FinishOnLoop(c.endOfStream(), l.now.Add(lingerMax))
}

func isErrno(err error) bool {
	var errno unix.Errno
	return errors.As(err, &errno)
}

// teardown ends c: the last thing that happens to it.
func (l *Loop) teardown(c *Conn) {
	c.CancelWaitOnLoop()
	if c.out.waiting > 0 && !c.blocked && !c.noWrite && c.fd >= 0 {
		c.writeOut() // an alert, or what the kernel takes at once
	}
	if c.watched {
		l.port.unwatch(c.fd)
		c.watched = false
	}
	switch {
	case c.socket != nil:
		l.port.hangUp(c.socket)
	case c.fd >= 0:
		unix.Close(c.fd)
		c.fd = -1
	}
	c.phase = phaseClosed
	lost, own := c.endQueues()
	c.dropInput()
	l.stat.lost.Add(uint64(lost))
	l.stat.closed.Add(1)
	l.engine.handler.Closed(c, c.why, lost-own)
	if c.pass != nil {
		c.pass.Gone(l.now)
	}
	l.vacate(c)
}

// endQueues gives unsealed frames back and returns how many sealed ones the
// kernel has not taken, and how many of these were the handler's own.
func (c *Conn) endQueues() (lost, own int) {
	l := c.loop
	bytes := 0
	for !c.marks.empty() {
		m := c.marks.pop(&l.spareMarks)
		lost += int(m.frames)
		own += int(m.own)
		bytes += int(m.bytes)
	}
	c.out.taken(l, c.out.waiting)
	for !c.queuesEmpty() {
		q := c.nextQueue().pop(&l.spareQueued)
		c.leaves(q)
		bytes += len(q.b.B) - c.sealed
		c.sealed = 0
		l.undeliverable(c.Ref(), q.b)
	}
	c.aheadN, c.unsealed = 0, 0
	c.oldest.Store(0)
	if bytes > 0 {
		l.release(c.slot, bytes)
	}
	return lost, own
}

// vacate frees c's slot: its Ref resolves to nothing, and who waits for it goes
// on.
func (l *Loop) vacate(c *Conn) {
	ref := c.Ref()
	next := ref.generation() + 1
	if next == 0 {
		next = 1
	}
	c.slot.frameMax.Store(0)
	l.endShares(c.slot)
	c.slot.generation.Store(next)
	l.endWaits(c.slot)
	l.conns[ref.slot()] = nil
	l.free = append(l.free, ref.slot())
	l.count.Add(-1)
	l.open--
}
