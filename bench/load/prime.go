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
)

// prime has the router ask all receivers. Nothing may be under way.
func (f *flow) prime() error {
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
		to.checked = true
		end := time.Now().Add(drainMax)
		for sent := 0; sent < primeFrames || to.got.plain < want; {
			if time.Now().After(end) {
				return fmt.Errorf("%s: a receiver was not asked what it has received", f.variant)
			}
			if sent < primeFrames && !sender.blocked {
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
