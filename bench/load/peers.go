package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	underWayMax = 4096
	// allMax is how many messages may be under way in all: with many receivers the
	// larger bounds would only measure how much memory is touched.
	allMax = 32768
)

// peersVariants are those that are compared with other servers, in this order.
var peersVariants = []string{variantNone, variantAll, variantBursts, variantNATS, variantDERP}

// peersOptions are those of the comparison with other servers.
type peersOptions struct {
	options
	underWay []int // messages under way to one receiver
}

// quickPeers are the defaults that --quick has.
var quickPeers = map[string]string{"rounds": "1", "slice": "150ms", "bodies": "256", "conns": "2", "under-way": "32"}

func parsePeersOptions(args []string, stderr io.Writer) (*peersOptions, error) {
	o := &peersOptions{}
	o.command = strings.Join(append([]string{"bench/load", verbPeers}, args...), " ")
	f := flag.NewFlagSet("load peers", flag.ContinueOnError)
	f.SetOutput(stderr)
	if err := o.add(f); err != nil {
		return nil, err
	}
	bodies, conns, underWay, chosen := "64,256,1024,16384", "8,200", "32,128,512", strings.Join(peersVariants, ",")
	var quick bool
	f.StringVar(&o.peers.nats, "nats-server", "bin/peers/nats-server", "the NATS server's program")
	f.StringVar(&o.peers.derper, "derper", "bin/peers/derper", "the DERP server's program")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of all variants")
	f.DurationVar(&o.slice, "slice", 500*time.Millisecond, "length of a slice, beside its warm-up")
	f.StringVar(&bodies, "bodies", bodies, "sizes of bodies, bytes")
	f.StringVar(&conns, "conns", conns, "numbers of receivers, each with as many senders")
	f.StringVar(&underWay, "under-way", underWay, fmt.Sprintf("numbers of messages under way to one receiver, at most; "+
		"all but the first are left out where that would be more than %d in all, or too many bytes", allMax))
	f.StringVar(&chosen, "variants", chosen, "variants to measure")
	f.BoolVar(&quick, "quick", false, "a short form that shows that everything works, and no figure worth keeping")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if quick {
		if err := applyDefaults(f, quickPeers); err != nil {
			return nil, err
		}
	}
	var errBodies, errConns, errBounds error
	o.bodies, errBodies = numbers("--bodies", bodies, bodyMin, bodyMax)
	o.conns, errConns = numbers("--conns", conns, 1, connsMax)
	o.underWay, errBounds = numbers("--under-way", underWay, 1, underWayMax)
	o.signers, o.variants = []int{0}, strings.Split(chosen, ",")
	if err := errors.Join(errBodies, errConns, errBounds); err != nil {
		return nil, err
	}
	o.peers.queue = slices.Max(o.underWay)
	return o, o.check()
}

func (o *peersOptions) check() error {
	for _, v := range o.variants {
		if !slices.Contains(peersVariants, v) {
			return fmt.Errorf("--variants: %q is not one of %s", v, strings.Join(peersVariants, ", "))
		}
	}
	switch {
	case o.rounds < 1:
		return errors.New("--rounds: at least 1")
	case o.slice < sliceMin:
		return fmt.Errorf("--slice: at least %v", sliceMin)
	}
	return nil
}

// bounds returns what may be under way to one receiver, the numbers that are
// measured with so many receivers and such bodies.
func (o *peersOptions) bounds(receivers, body int) (all []int) {
	for i, n := range o.underWay {
		if i == 0 || n*receivers <= allMax && n*burstFrameSize(body) <= receiverMax {
			all = append(all, n)
		}
	}
	return all
}

// measurePeers compares the router with other servers and prints the result.
func measurePeers(ctx context.Context, o *peersOptions, stdout, log io.Writer) error {
	dir, err := os.MkdirTemp("", "causeway-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return err
	}
	result := &peersResult{About: aboutMachine(ctx, &o.machine, o.command), Rounds: o.rounds, Slice: o.slice, Queue: o.peers.queue}
	if result.Peers, err = o.peers.versions(o.variants); err != nil {
		return err
	}
	for _, s := range o.shapes() {
		err := o.with(ctx, w, s, log, func(b *bench) error {
			for _, body := range o.bodies {
				for _, b.underWay = range o.bounds(s.receivers, body) {
					c, err := b.cell(ctx, body)
					if err != nil {
						return err
					}
					result.Cells = append(result.Cells, c)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if o.json {
		return json.NewEncoder(stdout).Encode(result)
	}
	result.write(stdout)
	return nil
}
