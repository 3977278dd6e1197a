package link

import (
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
			c.partial, c.partialNeed = buf.Get(min(need, max(have, partialMin))), need
			c.partial.B = c.partial.B[:have]
			copy(c.partial.B, p[used:])
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
		b = buf.Grow(b, min(c.partialNeed, max(have+used, 2*cap(b.B))))
	}
	b.B = b.B[:have+used]
	copy(b.B[have:], p[:used])
	c.partial = b
	if len(b.B) < c.partialNeed {
		return used
	}
	need, ok := c.need(b.B)
	switch {
	case !ok:
	case need > len(b.B):
		c.partialNeed = need
	default:
		c.partial = nil
		c.frame(b)
	}
	return used
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
	for _, b := range []**buf.Buffer{&c.partial, &c.rest, &c.held} {
		if *b != nil {
			buf.Put(*b)
			*b = nil
		}
	}
}
