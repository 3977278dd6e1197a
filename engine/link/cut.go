package link

import (
	"errors"
	"fmt"

	"causeway/engine/buf"
)

// partialMin is the least a partial frame takes, in bytes.
const partialMin = 1 << 10

// cutAndKeep cuts p, borrowed, and keeps what a pause leaves of it.
func (c *Conn) cutAndKeep(p []byte) {
	used := c.cut(p)
	if used < len(p) && c.phase == phaseOpen {
		c.rest, c.restAt = buf.Get(len(p)-used), 0
		copy(c.rest.B, p[used:])
	}
}

// cut hands the frames in p, borrowed, to the handler, and returns how many
// bytes it used: all, unless the connection was paused or is at its end.
func (c *Conn) cut(p []byte) (used int) {
	for used < len(p) && c.phase == phaseOpen && c.pauses == 0 {
		if c.partial != nil {
			used += c.fill(p[used:])
			continue
		}
		need, ok := c.need(p[used:])
		if !ok {
			break
		}
		have := len(p) - used
		if need > have {
			b := buf.Get(min(need, max(have, partialMin)))
			b.B = b.B[:have]
			copy(b.B, p[used:])
			c.partialNeed = need
			c.setPartial(b)
			return len(p)
		}
		b := buf.Get(need)
		copy(b.B, p[used:])
		used += need
		c.frame(b)
	}
	return used
}

// fill adds to the partial frame from p and returns how many bytes it used. The
// buffer grows with what has arrived, at most doubling, never at once to what
// the frame announces.
func (c *Conn) fill(p []byte) (used int) {
	b := c.partial
	have := len(b.B)
	used = min(len(p), c.partialNeed-have)
	if have+used > cap(b.B) {
		size := cap(b.B)
		b = buf.Grow(b, min(c.partialNeed, max(have+used, 2*size)))
		c.partial = b
		c.chargePartial(cap(b.B) - size)
		if c.partial == nil { // c itself was the slowest
			return used
		}
	}
	b.B = b.B[:have+used]
	copy(b.B[have:], p[:used])
	if len(b.B) < c.partialNeed {
		return used
	}
	need, ok := c.need(b.B)
	switch {
	case !ok:
	case need > len(b.B):
		c.partialNeed = need
	default:
		c.setPartial(nil)
		c.frame(b)
	}
	return used
}

// ErrPartial ends a connection whose half-received frame grew more slowly than
// all others on its loop when there were too many.
var ErrPartial = errors.New("link: half-received frames have reached their limit, and this was the slowest")

// setPartial makes b, taken, the beginning of a frame that is being received;
// nil: none is, and the one before is somebody else's.
func (c *Conn) setPartial(b *buf.Buffer) {
	before := c.partial
	c.partial = b
	switch {
	case before != nil:
		c.loop.engine.partial.Add(-int64(cap(before.B)))
	case b != nil:
		c.partialAt = c.loop.elapsed()
	}
	if b != nil {
		c.chargePartial(cap(b.B))
	}
}

// chargePartial counts n more bytes for half-received frames. Beyond the limit
// the slowest of this loop's connections that have one is ended; it need not be
// the slowest of all.
func (c *Conn) chargePartial(n int) {
	l := c.loop
	if l.engine.partial.Add(int64(n)) <= l.engine.cfg.PartialMax {
		return
	}
	var slowest *Conn
	var least float64
	l.Range(func(o *Conn) {
		if o.partial == nil || o.phase != phaseOpen {
			return
		}
		rate := float64(len(o.partial.B)) / float64(l.elapsed()-o.partialAt+1)
		if slowest == nil || rate < least {
			slowest, least = o, rate
		}
	})
	if slowest == nil {
		return
	}
	l.stat.partialEnded.Add(1)
	b := slowest.partial
	slowest.setPartial(nil)
	buf.Put(b)
	slowest.die(ErrPartial)
}

// need asks Config.Cut; when b is malformed it ends the connection.
func (c *Conn) need(b []byte) (need int, ok bool) {
	need, err := c.loop.engine.cfg.Cut(c, b)
	if err == nil && need > buf.SizeMax {
		err = fmt.Errorf("link: a frame of %d bytes", need)
	}
	if err != nil {
		c.loop.stat.malformed.Add(1)
		c.die(err)
		return 0, false
	}
	if need <= 0 {
		panic(fmt.Sprintf("link: Config.Cut needs %d bytes", need))
	}
	return need, true
}

// frame hands one whole frame on; it takes b.
func (c *Conn) frame(b *buf.Buffer) {
	c.loop.cut++
	c.loop.engine.handler.Frame(c, b)
}

// dropInput throws away what was received and not yet cut.
func (c *Conn) dropInput() {
	if b := c.partial; b != nil {
		c.setPartial(nil)
		buf.Put(b)
	}
	c.transport.dropPart()
	for _, b := range []**buf.Buffer{&c.rest, &c.held} {
		if *b != nil {
			buf.Put(*b)
			*b = nil
		}
	}
}
