package main

import (
	"fmt"

	"causeway/codec"
)

// Servers that drop what a receiver's queue does not take, or cut off who lets it
// grow, deliver all of what is sent only while that stays within the queue. So
// where they are compared what is under way is bounded by messages to each
// receiver, the same for all variants, and a write has the same number of messages.

// pace sets that bound, if there is one. Nothing may be under way.
func (f *flow) pace(body int) error {
	if f.underWay == 0 {
		return nil
	}
	all := f.underWay * len(f.receivers)
	f.window = all * f.frame
	f.unit = max(1, min(unitMessages(body), all/2)) * f.frame
	index := make(map[codec.Address]int, len(f.receivers))
	for i, c := range f.receivers {
		c.toward = 0
		index[c.who.address] = i
	}
	for _, c := range f.senders {
		if c.peer != nil {
			continue // prepare has set it
		}
		c.to = c.to[:0]
		for at := 0; at < len(c.source); at += f.frame {
			to, known := index[codec.Raw(c.source[at:]).Recipient()]
			if !known {
				return fmt.Errorf("%s: a frame is for nobody who is there", f.variant)
			}
			c.to = append(c.to, to)
		}
	}
	return nil
}

// waits tells whether it is too early to ask senders again, since nobody could send
// and less than a unit has arrived since: asking hundreds whenever something arrives
// would keep the load busy.
func (f *flow) waits() bool {
	return f.underWay > 0 && f.sent != f.received && f.received < f.again
}

// unitMessages is how many messages one write sends, at most.
func unitMessages(body int) int { return max(1, min(burstFrames, unitMax/burstFrameSize(body))) }

// fits tells whether what c sends next is within the bound of each receiver, and
// if so notes it as sent to them.
func (f *flow) fits(c *conn) bool {
	if f.underWay == 0 {
		return true
	}
	from, end := c.span(f.unit, f.frame, f.burst)
	most := uint64(f.underWay * f.frame)
	for at := from; at < end; at += f.frame {
		to := f.receivers[c.to[at/f.frame]]
		to.toward += uint64(f.frame)
		if to.toward-to.got.plain <= most {
			continue
		}
		for ; at >= from; at -= f.frame {
			f.receivers[c.to[at/f.frame]].toward -= uint64(f.frame)
		}
		return false
	}
	return true
}
