package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"causeway/codec"
)

// loneRequest asks for the times of frames that are alone in the process under
// test, one every Every.
type loneRequest struct {
	Variant string
	Frames  int
	Every   time.Duration
}

// verifyRequest asks for the median time of checking one signature.
type verifyRequest struct{ Times int }

// lone sends one frame at a time, waits for it, and notes how long that took.
func (c *client) lone(r *loneRequest, a *answer) error {
	f, err := c.flow(r.Variant)
	if err != nil {
		return err
	}
	a.Lone = make([]time.Duration, 0, r.Frames)
	next := time.Now()
	for range r.Frames {
		next = next.Add(r.Every)
		pause(time.Until(next))
		sender := f.senders[f.turn]
		f.turn = (f.turn + 1) % len(f.senders)
		start := time.Now()
		if err := f.sendUnit(sender, sender.unit(f.frame, f.frame)); err != nil {
			return err
		}
		for f.received < f.sent {
			if err := f.turnOnce(waitMax); err != nil {
				return err
			}
			if time.Since(start) > answerMax {
				return fmt.Errorf("%s: a frame never arrived", r.Variant)
			}
		}
		a.Lone = append(a.Lone, time.Since(start))
	}
	a.Total = f.frames
	return nil
}

// pause sleeps in the kernel, without the runtime's timers.
func pause(d time.Duration) {
	if d > 0 {
		t := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&t, nil) // a signal may end it early, which does no harm
	}
}

// verify measures what checking one frame's signature costs.
func (c *client) verify(r *verifyRequest, a *answer) error {
	m := c.members[0]
	frame := codec.Raw(m.frames[:frameSize(c.body)])
	var times []time.Duration
	for range r.Times {
		start := time.Now()
		if !m.key.Verify(frame.Signed(), frame.Signature()) {
			return fmt.Errorf("a signature of ours is bad")
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	a.Verify = times[len(times)/2]
	return nil
}
