package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	voidFrom    = 0.9              // share of time in which the load's core may be busy
	loneEvery   = time.Millisecond // between lone frames
	loneRounds  = 10
	verifyTimes = 501
)

// sample is what one slice has measured.
type sample struct {
	Frames float64 // that arrived
	usage
}

// rate is messages per CPU-second of the process under test.
func (s sample) rate() float64 {
	if s.CPU <= 0 {
		return 0
	}
	return s.Frames / s.CPU.Seconds()
}

func (s sample) void() bool { return s.LoadCore > voidFrom }

// cell is one number of connections and size of bodies: for each variant a
// sample of each round.
type cell struct {
	Conns, Body int
	Samples     map[string][]sample
}

// lone is the times of lone frames of each variant.
type lone struct {
	Times  map[string][]time.Duration
	Verify time.Duration // of one signature, in the same run
}

// bench is the processes of one number of connections.
type bench struct {
	o     *options
	world *world
	under map[string]*process
	load  *controller
	sent  map[string]uint64 // frames that the load has sent, by variant
	log   io.Writer
}

// measure runs the whole benchmark and prints its result.
func measure(ctx context.Context, o *options, stdout, log io.Writer) error {
	dir, err := os.MkdirTemp("", "causeway-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return err
	}
	result := &result{About: aboutMachine(ctx, &o.machine, o.command), Rounds: o.rounds, Slice: o.slice}
	for _, conns := range o.conns {
		err := o.with(ctx, w, conns, log, func(b *bench) error {
			for _, body := range o.bodies {
				c, err := b.cell(ctx, conns, body)
				if err != nil {
					return err
				}
				result.Cells = append(result.Cells, c)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if o.latency > 0 {
		err := o.with(ctx, w, 1, log, func(b *bench) (err error) {
			result.Lone, err = b.lone(ctx)
			return err
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

// with starts all processes, connects, has work done, checks that nothing was
// lost, and stops them.
func (o *options) with(ctx context.Context, w *world, conns int, log io.Writer, work func(*bench) error) (err error) {
	b := &bench{o: o, world: w, under: make(map[string]*process), sent: make(map[string]uint64), log: log}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel() // kills what stop has not ended
		for _, p := range b.under {
			<-p.ended
		}
		if b.load != nil {
			<-b.load.ended
		}
	}()
	if err := b.start(ctx, conns); err != nil {
		return err
	}
	if err := work(b); err != nil {
		return err
	}
	if err := b.balance(); err != nil {
		return err
	}
	return b.stop()
}

func (b *bench) start(ctx context.Context, conns int) error {
	nodes, err := b.world.newNodes(2 * conns)
	if err != nil {
		return err
	}
	load, err := b.o.startClient(ctx)
	if err != nil {
		return err
	}
	b.load = load
	setup := &setupRequest{Root: b.world.authority.Root.Raw, Router: b.world.grant, Nodes: nodes, Senders: conns, LoadCore: b.o.loadCore, Window: b.o.window}
	if _, err := load.ask(request{Setup: setup}); err != nil {
		return err
	}
	for _, v := range b.o.variants {
		p, err := b.o.startVariant(ctx, b.world, v)
		if p != nil {
			b.under[v] = p
		}
		if err != nil {
			return err
		}
		if _, err := load.ask(request{Connect: &connectRequest{Variant: v, Addr: p.addr, PID: p.pid()}}); err != nil {
			return errors.Join(err, p.failed(errors.New("connections failed")))
		}
	}
	return nil
}

func (b *bench) stop() error {
	err := b.load.end() // first, so that the router has nobody to wait for
	for _, p := range b.under {
		err = errors.Join(err, p.stop())
	}
	return err
}

// balance checks that the routers forwarded what was sent and dropped nothing.
// That all of it arrived, the load has seen.
func (b *bench) balance() error {
	for v, p := range b.under {
		if p.admin == "" {
			continue // a reference counts nothing
		}
		m, err := p.metrics()
		if err != nil {
			return p.failed(err)
		}
		forwarded, dropped := m["causeway_frames_forwarded_total"], m.dropped()
		if forwarded != float64(b.sent[v]) || dropped != 0 {
			return fmt.Errorf("router, verify %s: %.0f frames forwarded and %.0f dropped of %d sent", v, forwarded, dropped, b.sent[v])
		}
	}
	return nil
}

// cell measures one size of bodies.
func (b *bench) cell(ctx context.Context, conns, body int) (*cell, error) {
	if _, err := b.load.ask(request{Body: &bodyRequest{body}}); err != nil {
		return nil, err
	}
	c := &cell{Conns: conns, Body: body, Samples: make(map[string][]sample)}
	for round := range b.o.rounds {
		for i := range b.o.variants {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v := b.o.variants[(i+round)%len(b.o.variants)]
			a, err := b.load.ask(request{Slice: &sliceRequest{Variant: v, Warm: b.o.warm(), Length: b.o.slice}})
			if err != nil {
				return nil, errors.Join(err, b.under[v].failed(errors.New("was under test")))
			}
			b.sent[v] = a.Total
			c.Samples[v] = append(c.Samples[v], sample{Frames: a.Frames, usage: a.Usage})
		}
		fmt.Fprintf(b.log, "%d+%d connections, %d bytes: round %d of %d\n", conns, conns, body, round+1, b.o.rounds)
	}
	return c, nil
}

// lone measures the time of lone frames.
func (b *bench) lone(ctx context.Context) (*lone, error) {
	if _, err := b.load.ask(request{Body: &bodyRequest{latencyBody}}); err != nil {
		return nil, err
	}
	l := &lone{Times: make(map[string][]time.Duration)}
	for round := range loneRounds {
		for i := range b.o.variants {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v := b.o.variants[(i+round)%len(b.o.variants)]
			frames := (b.o.latency + loneRounds - 1) / loneRounds
			a, err := b.load.ask(request{Lone: &loneRequest{Variant: v, Frames: frames, Every: loneEvery}})
			if err != nil {
				return nil, err
			}
			b.sent[v] = a.Total
			l.Times[v] = append(l.Times[v], a.Lone...)
		}
	}
	a, err := b.load.ask(request{Verify: &verifyRequest{verifyTimes}})
	l.Verify = a.Verify
	return l, err
}
