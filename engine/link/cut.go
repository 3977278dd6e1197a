package link

import (
	"errors"
	"fmt"
	"time"

	"causeway/engine/buf"
)

// partialMin is the least a partial frame takes, in bytes.
const partialMin = 1 << 10

// cutAndKeep cuts p, borrowed, and keeps what a pause leaves of it.
func (c *Conn) cutAndKeep(p []byte) {
	used := c.cut(p)
	if used < len(p) && c.phase == phaseOpen {
		c.rest, c.restAt = c.loop.account.Get(len(p)-used), 0
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
		b := c.loop.account.Get(need)
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
		c.chargePartial(int64(cap(b.B) - size))
		if c.partial == nil { // c itself was the slowest
			return used
		}
	}
	b.B = b.B[:have+used]
	copy(b.B[have:], p[:used])
	c.partialOn = c.loop.elapsedNow
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

// ErrPartial ends a connection whose half-received frame came more slowly than
// all others of its loop, when there were too many.
var ErrPartial = errors.New("link: half-received frames have reached their limit, and this was the slowest")

// setPartial makes b, taken, the beginning of a frame that is being received;
// nil: none is, and the one before is somebody else's.
func (c *Conn) setPartial(b *buf.Buffer) {
	before := c.partial
	c.partial = b
	switch {
	case before != nil:
		c.loop.addPartial(-buf.SizeOf(before))
	case b != nil:
		c.partialAt = c.loop.elapsedNow
		c.partialOn = c.partialAt
	}
	if b != nil {
		c.chargePartial(buf.SizeOf(b))
	}
}

// addPartial counts n more bytes of half-received frames, and returns all.
func (l *Loop) addPartial(n int64) int64 {
	l.stat.partial.Add(n)
	return l.engine.cfg.Budget.Use(buf.PartPartial, n)
}

// partialMax is what half-received frames may take in all now, in bytes.
func (l *Loop) partialMax() int64 { return min(l.engine.cfg.PartialMax, l.account.PartialMax()) }

// chargePartial counts n more bytes for half-received frames. Beyond the limit
// the loop that has most of them ends its slowest; if that is another loop, it
// does so soon. They are counted at once for all loops: it takes only one large
// frame to be at the limit.
func (c *Conn) chargePartial(n int64) {
	l := c.loop
	e := l.engine
	l.account.Took(n)
	if l.addPartial(n) <= l.partialMax() {
		return
	}
	most := l
	for _, o := range e.loops {
		if o.stat.partial.Load() > most.stat.partial.Load() {
			most = o
		}
	}
	if most == l {
		l.endSlowest()
		return
	}
	most.Post(func() {
		if e.cfg.Budget.Use(buf.PartPartial, 0) > most.partialMax() {
			most.endSlowest()
		}
	})
}

// endSlowest ends the connection whose half-received frame comes most slowly.
func (l *Loop) endSlowest() {
	var slowest *Conn
	l.Range(func(o *Conn) {
		if o.partial != nil && o.phase == phaseOpen && (slowest == nil || o.slowerThan(slowest)) {
			slowest = o
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

// partialYoung is how long a frame may have been under way, in nanoseconds,
// before the rate at which it came tells anything.
const partialYoung = int64(time.Second)

// slowerThan tells which of two half-received frames has to go first: an old one
// before a young one; of two old ones that which came at the lower rate; of two
// young ones that of which nothing has come for longer.
func (c *Conn) slowerThan(o *Conn) bool {
	now := c.loop.elapsedNow
	age, other := now-c.partialAt, now-o.partialAt
	switch old := age >= partialYoung; {
	case old != (other >= partialYoung):
		return old
	case old:
		return float64(len(c.partial.B))/float64(age) < float64(len(o.partial.B))/float64(other)
	}
	return c.partialOn < o.partialOn
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
