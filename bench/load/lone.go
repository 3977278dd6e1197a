package main

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"causeway/codec"
	"causeway/crypto/sign"
)

// loneRequest asks for the times of frames that are alone in the process under
// test, one every Every.
type loneRequest struct {
	Variant string
	Frames  int
	Every   time.Duration
}

// verifyRequest asks for the median time of checking one signature, by the
// signer's table and without.
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
		if err := f.sendUnit(sender, sender.unit(f.frame, f.frame, 0)); err != nil {
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
	tables, err := sign.NewTables(sign.TablesConfig{Memory: make([]byte, sign.TablesMemoryMin)})
	if err != nil {
		return err
	}
	key, err := sign.NewKey(m.cert.PrivateKey.(crypto.Signer).Public()) // another than m.key, which stays without a table
	if err != nil {
		return err
	}
	for again := tables.Build(key, time.Now()); again > 0; again = tables.Build(key, time.Now()) {
		pause(again)
	}
	verifier := tables.NewVerifier()
	check := []sign.Check{{Key: key, Signed: frame.Signed(), Signature: frame.Signature()}}
	median := func(verify func() bool) (time.Duration, error) {
		var times []time.Duration
		for range r.Times {
			start := time.Now()
			if !verify() {
				return 0, errors.New("a signature of ours is bad")
			}
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		return times[len(times)/2], nil
	}
	if a.Verify, err = median(func() bool { verifier.Verify(check); return check[0].Good }); err != nil {
		return err
	}
	a.Stdlib, err = median(func() bool { return m.key.Verify(frame.Signed(), frame.Signature()) })
	return err
}
