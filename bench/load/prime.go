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

// prime has the last router ask all receivers. The first frame to each goes alone: in
// a row, where senders are as many as receivers, it has the sender's certificate asked
// for by all routers on the way, and waits for that (PROTOCOL.md section 8.1).
// Nothing may be under way.
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
			arrived := int(to.got.plain) / f.frame
			if sent < primeFrames && sent < arrived+primeWindow && min(sent, 1) <= arrived && !sender.blocked {
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
