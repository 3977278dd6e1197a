package main

import (
	"fmt"
	"time"

	"causeway/codec"
)

// A router asks a recipient what it has received after some MiB (PROTOCOL.md
// section 5.2), and asks no more while that is not answered. A question among the
// frames of a slice would spoil their count, which is by length alone, so
// receivers are asked beforehand, and don't answer. Asking costs a router about
// 75 us per 4 MiB or 16,384 frames, below 1%.
const (
	primeBody   = 512 << 10
	primeFrames = 9 // to each receiver: more than 4 MiB
	primeWindow = 2 // frames under way; a router does not pause another, it drops what a queue has no room for
)

// primeRequest has a variant made ready, when routes lead to all receivers.
type primeRequest struct{ Variant string }

// prime has routers know all senders, and the last of them ask all receivers.
// Nothing may be under way.
func (f *flow) prime() error {
	if err := f.introduce(); err != nil {
		return err
	}
	body := make([]byte, primeBody)
	f.frame = frameSize(primeBody)
	question, err := codec.AppendControl(nil, &codec.KeepAlive{Answer: true})
	if err != nil {
		return err
	}
	want := uint64(primeFrames*f.frame + frameSize(len(question)))
	for i, to := range f.receivers {
		sender := f.senders[i%len(f.senders)]
		wire, err := sender.who.frame(nil, to.who.address, category, body)
		if err != nil {
			return err
		}
		to.checked, to.got.plain = true, 0
		end := time.Now().Add(drainMax)
		for sent := 0; sent < primeFrames || to.got.plain < want; {
			if time.Now().After(end) {
				return fmt.Errorf("%s: a receiver was not asked what it has received", f.variant)
			}
			if sent < primeFrames && uint64(sent*f.frame) < to.got.plain+primeWindow*uint64(f.frame) && !sender.blocked {
				sent++
				if err := f.sendUnit(sender, wire); err != nil {
					return err
				}
			}
			if err := f.turnOnce(time.Millisecond); err != nil {
				return err
			}
		}
	}
	f.received = f.sent
	return nil
}

// introduce has each sender's certificate asked for by all routers on the way: its
// first frame waits for that (PROTOCOL.md section 8.1).
func (f *flow) introduce() error {
	f.frame = frameSize(1)
	for i, sender := range f.senders {
		to := f.receivers[i%len(f.receivers)]
		to.checked = true
		wire, err := sender.who.frame(nil, to.who.address, category, []byte{0})
		if err != nil {
			return err
		}
		if err := f.sendUnit(sender, wire); err != nil {
			return err
		}
		if err := f.drain(); err != nil {
			return err
		}
	}
	return nil
}
