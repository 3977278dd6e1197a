package node

import (
	"time"

	"causeway/codec"
)

const (
	writeBatch = 32 << 10 // bytes of frames collected for one write: two full TLS records
	writePiece = 64 << 10 // bytes of a large frame written under one deadline
)

// work is what the writer does in one turn.
type work struct {
	renewed []*self         // announcements, before all else
	control []codec.Control // before the frames
	frames  []*slot
	last    codec.Control // behind the frames: a keep-alive that asks, or the goodbye
	bye     bool          // last is a goodbye
	again   time.Time     // when there may be more; zero: not before the writer is woken
}

func (w *work) empty() bool { return len(w.renewed)+len(w.control)+len(w.frames) == 0 && w.last == nil }

// write is the connection's writer: it signs and drains the outgoing queue, answers
// keep-alives, asks for confirmation, and says something before the router
// could think that this node is dead.
func (c *conn) write() {
	interval := c.n.cfg.KeepAlive - c.n.cfg.KeepAlive/keepAliveShare
	timer, again := time.NewTimer(interval), time.NewTimer(interval)
	defer timer.Stop()
	defer again.Stop()
	w := writer{c: c, buf: make([]byte, 0, writeBatch+writeBatch/2), stalledSince: time.Now()}
	silent := false
	for {
		w.signWaiting()
		turn := w.collect(silent)
		silent = false
		if w.stalled() {
			c.kill(errNotConfirming)
			return
		}
		if turn.empty() && w.signWaiting() {
			continue // what was ready waits beside the queue now, and these were behind it
		}
		if turn.empty() {
			var due <-chan time.Time
			if !turn.again.IsZero() {
				again.Reset(time.Until(turn.again))
				due = again.C
			}
			select {
			case <-c.wake:
			case <-due:
			case <-timer.C:
				silent = true
				timer.Reset(interval)
			case <-c.dead:
				return
			}
			continue
		}
		if err := w.perform(turn); err != nil {
			c.wait(c.dead, goodbyeTimeout) // the reader may find a goodbye, which says more
			c.kill(c.died(err))
			return
		}
		timer.Reset(interval)
		signal(c.progress)
		if turn.bye {
			close(c.byeWritten)
			if turn.last.(*codec.Goodbye).ReadFor == 0 {
				_ = c.tls.CloseWrite()
				return
			}
		}
	}
}

// writer is the writer's own state.
type writer struct {
	c     *conn
	buf   []byte  // frames for one write
	batch []*slot // reused
	signing

	stalledSince   time.Time // when confirmations last moved, or nothing was outstanding
	stalledAtCount uint64
}

// collect decides what to do now; silent: nothing was written for so long that
// a keep-alive is due.
func (w *writer) collect(silent bool) work {
	c, o := w.c, w.c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	var turn work
	if c.bye != nil && !c.byeOut {
		c.byeOut = true
		c.bye.Received = c.received.Load()
		return work{last: c.bye, bye: true}
	}
	if c.answerDue || silent && !c.byeOut {
		turn.control = append(turn.control, &codec.KeepAlive{Received: c.received.Load()})
		c.answerDue = false
	}
	if c.byeOut {
		return turn
	}
	turn.control, c.control = append(turn.control, c.control...), nil
	clear(w.batch)
	w.batch = w.batch[:0]
	if o.writer == c {
		f := filling{c: c, now: time.Now(), budget: writeBatch, slots: w.batch}
		turn.again = o.takeLocked(&f)
		w.batch = f.slots
		turn.frames = w.batch
		o.announcedLocked(o.self.Load().certID, nil, c)
	}
	turn.renewed, c.toAnnounce = c.toAnnounce, nil
	if c.pend.ask() {
		w.stalledSince = time.Now()
		turn.last = &codec.KeepAlive{Received: c.received.Load(), Answer: true}
	}
	if c.pend.asked <= c.pend.confirmed || c.pend.confirmed != w.stalledAtCount {
		w.stalledSince, w.stalledAtCount = time.Now(), c.pend.confirmed
	}
	return turn
}

func (w *writer) stalled() bool {
	return time.Since(w.stalledSince) > stallFactor*w.c.n.cfg.DeadAfter
}

// perform writes a turn's frames, as few writes as they need.
func (w *writer) perform(turn work) error {
	for _, s := range turn.renewed {
		if err := w.addRenewal(s); err != nil {
			return err
		}
	}
	for _, m := range turn.control {
		if err := w.addControl(m); err != nil {
			return err
		}
	}
	for _, s := range turn.frames {
		if err := w.add(s.frame); err != nil {
			return err
		}
		s.frame = nil
	}
	if turn.last != nil {
		if err := w.addControl(turn.last); err != nil {
			return err
		}
	}
	w.c.n.counters.framesOut.Add(uint64(len(turn.frames)))
	return w.flush()
}

func (w *writer) addControl(m codec.Control) error {
	frame, err := w.c.sealControl(m)
	if err != nil {
		return err
	}
	return w.add(frame)
}

// add collects a frame for the next write; a large one is written at once.
func (w *writer) add(frame []byte) error {
	if len(w.buf)+len(frame) > writeBatch && len(w.buf) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(frame) > writeBatch {
		return w.put(frame)
	}
	w.buf = append(w.buf, frame...)
	return nil
}

func (w *writer) flush() error {
	err := w.put(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *writer) put(b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), writePiece)]
		if err := w.c.tls.SetWriteDeadline(time.Now().Add(w.c.n.cfg.DeadAfter)); err != nil {
			return err
		}
		k, err := w.c.tls.Write(piece)
		w.c.n.counters.bytesOut.Add(uint64(k))
		if err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return nil
}
