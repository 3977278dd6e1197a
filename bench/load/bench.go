package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

const (
	voidFrom    = 0.9              // share of time in which the load's core may be busy
	loneEvery   = time.Millisecond // between lone frames
	loneRounds  = 10
	verifyTimes = 501
	heatSlice   = 300 * time.Millisecond
	heatMax     = time.Minute // for all signers to get their tables
)

// sample is what one slice has measured.
type sample struct {
	Frames float64 // that arrived
	usage
}

// rate is messages per CPU-second of all processes under test.
func (s sample) rate() float64 { return s.per(s.CPU) }

// rateOf is messages per CPU-second of one of them.
func (s sample) rateOf(place int) float64 { return s.per(s.Each[place]) }

func (s sample) per(cpu time.Duration) float64 {
	if cpu <= 0 {
		return 0
	}
	return s.Frames / cpu.Seconds()
}

func (s sample) void() bool { return s.LoadCore > voidFrom }

// shape is who takes part: nodes that send, each with a key and a connection of its
// own since a router takes from a connection only what its node has signed
// (PROTOCOL.md section 8, rule 4), nodes that receive, and the variants; and what
// they send.
type shape struct {
	senders, receivers int
	variants           []string
	bodies             []int // none: lone frames
	window             int   // bytes under way, at most; 0: as saturates
}

// shapes of the forwarding benchmark.
func (o *options) shapes() (all []shape) {
	for _, receivers := range o.conns {
		for _, senders := range o.signers {
			if senders == 0 {
				senders = receivers
			}
			all = append(all, shape{senders, receivers, o.variants, o.bodies, o.window})
		}
	}
	return all
}

// loneShape is one sender and one receiver. A lone frame is in no burst.
func (o *options) loneShape() shape {
	lone := slices.DeleteFunc(slices.Clone(o.variants), func(v string) bool { return v == variantBursts })
	return shape{senders: 1, receivers: 1, variants: lone, window: o.window}
}

// cell is one shape and size of bodies: for each variant a sample of each round.
type cell struct {
	Senders, Receivers, Body int
	UnderWay                 int `json:",omitempty"` // messages under way to one receiver, at most
	Samples                  map[string][]sample
	Tables                   map[string]int // signers who had a table when it began, by variant
}

// lone is the times of lone frames of each variant.
type lone struct {
	Times          map[string][]time.Duration
	Verify, Stdlib time.Duration  // of one signature, in the same run, by the signer's table and without
	Tables         map[string]int // signers who had a table when it began, by variant
}

// bench is the processes of one shape.
type bench struct {
	o        *options
	shape    shape
	world    *world
	under    map[string]row
	load     *controller
	sent     map[string]uint64 // frames that the load has sent, by variant
	underWay int               // messages under way to one receiver, at most; 0: any
	log      io.Writer
}

// measure runs the whole benchmark and prints its result.
func measure(ctx context.Context, o *options, stdout, log io.Writer) error {
	r, err := o.measureShapes(ctx, o.shapes(), o.loneShape(), log)
	if err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(stdout).Encode(r)
	}
	r.write(stdout)
	return nil
}

// measureShapes measures the rates of shapes, and the times of lone frames of one
// more.
func (o *options) measureShapes(ctx context.Context, shapes []shape, lone shape, log io.Writer) (*result, error) {
	dir, err := os.MkdirTemp("", "causeway-load-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return nil, err
	}
	r := &result{About: aboutMachine(ctx, &o.machine, o.command), Rounds: o.rounds, Slice: o.slice}
	for _, s := range shapes {
		err := o.with(ctx, w, s, log, func(b *bench) error {
			for _, body := range s.bodies {
				c, err := b.cell(ctx, body)
				if err != nil {
					return err
				}
				r.Cells = append(r.Cells, c)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if o.latency > 0 && len(lone.variants) > 0 {
		err := o.with(ctx, w, lone, log, func(b *bench) (err error) {
			r.Lone, err = b.lone(ctx)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// with starts all processes, connects, has work done, checks that nothing was
// lost, and stops them.
func (o *options) with(ctx context.Context, w *world, s shape, log io.Writer, work func(*bench) error) (err error) {
	b := &bench{o: o, shape: s, world: w, under: make(map[string]row), sent: make(map[string]uint64), log: log}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel() // kills what stop has not ended
		for _, r := range b.under {
			r.await()
		}
		if b.load != nil {
			<-b.load.ended
		}
	}()
	if err := b.start(ctx); err != nil {
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

func (b *bench) start(ctx context.Context) error {
	count := b.shape.senders + b.shape.receivers
	if err := checkFiles(count * len(b.shape.variants)); err != nil {
		return err
	}
	nodes, err := b.world.newNodes(count)
	if err != nil {
		return err
	}
	load, err := b.o.startClient(ctx)
	if err != nil {
		return err
	}
	b.load = load
	setup := &setupRequest{Root: b.world.authority.Root.Raw, Router: b.world.routers[0], Nodes: nodes, Senders: b.shape.senders, LoadCore: b.o.loadCore, Window: b.shape.window}
	if _, err := load.ask(request{Setup: setup}); err != nil {
		return err
	}
	for _, v := range b.shape.variants {
		if err := b.startVariant(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// startVariant starts what is under test of a variant, and connects the load.
func (b *bench) startVariant(ctx context.Context, v string) (err error) {
	r, err := b.o.startRow(ctx, b.world, v)
	b.under[v] = r // also what runs of it when the rest failed
	if err != nil {
		return err
	}
	connect := &connectRequest{Variant: v}
	for place, p := range r {
		connect.Under = append(connect.Under, underTest{Addr: p.addr, PID: p.pid(), Router: b.world.routers[place]})
	}
	if _, err := b.load.ask(request{Connect: connect}); err != nil {
		return r.failed(err)
	}
	if !isRouter(v) {
		return nil
	}
	if err := r.awaitRoutes(ctx, b.world, b.shape); err != nil {
		return err
	}
	if _, err := b.load.ask(request{Prime: &primeRequest{v}}); err != nil {
		return r.failed(err)
	}
	return nil
}

func (b *bench) stop() error {
	err := b.load.end() // first, so that the router has nobody to wait for
	var all row
	for _, r := range b.under {
		all = append(all, r...)
	}
	return errors.Join(err, all.stop())
}

// balance checks that the routers forwarded what was sent and dropped nothing.
// That all of it arrived, the load has seen.
func (b *bench) balance() error {
	for v, r := range b.under {
		for _, p := range r {
			if p.admin == "" {
				continue // a reference counts nothing
			}
			m, err := p.metrics()
			if err != nil {
				return p.failed(err)
			}
			forwarded, dropped := m["causeway_frames_forwarded_total"], m.dropped()
			if forwarded != float64(b.sent[v]) || dropped != 0 {
				return fmt.Errorf("%s, verify %s: %.0f frames forwarded and %.0f dropped of %d sent", p.name, v, forwarded, dropped, b.sent[v])
			}
		}
	}
	return nil
}

// cell measures one size of bodies.
func (b *bench) cell(ctx context.Context, body int) (*cell, error) {
	if _, err := b.load.ask(request{Body: &bodyRequest{Size: body, UnderWay: b.underWay}}); err != nil {
		return nil, err
	}
	c := &cell{Senders: b.shape.senders, Receivers: b.shape.receivers, Body: body, UnderWay: b.underWay, Samples: make(map[string][]sample)}
	var err error
	if c.Tables, err = b.heat(ctx); err != nil {
		return nil, err
	}
	for round := range b.o.rounds {
		for i := range b.shape.variants {
			v := b.shape.variants[(i+round)%len(b.shape.variants)]
			a, err := b.slice(ctx, v, b.o.warm(), b.o.slice)
			if err != nil {
				return nil, err
			}
			c.Samples[v] = append(c.Samples[v], sample{Frames: a.Frames, usage: a.Usage})
		}
		fmt.Fprintf(b.log, "%d+%d connections, %d bytes: round %d of %d\n", c.Senders, c.Receivers, body, round+1, b.o.rounds)
	}
	return c, nil
}

// slice has the load carry out one.
func (b *bench) slice(ctx context.Context, v string, warm, length time.Duration) (*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a, err := b.load.ask(request{Slice: &sliceRequest{Variant: v, Warm: warm, Length: length}})
	if err != nil {
		return nil, b.under[v].failed(err)
	}
	b.sent[v] = a.Total
	return &a, nil
}

// heat has routers make tables of all signers before anything counts, and returns
// how many there are. Where they do not fit (--verify-table-memory) or there are
// none (--verify-path stdlib) it says so and goes on.
func (b *bench) heat(ctx context.Context) (tables map[string]int, err error) {
	tables = make(map[string]int)
	for _, v := range b.shape.variants {
		if !checks(v) {
			continue
		}
		if len(b.under[v]) > 1 { // a table of another router may be counted for one of a signer
			if _, err := b.slice(ctx, v, 0, heatSlice); err != nil {
				return nil, err
			}
		}
		for end := time.Now().Add(heatMax); ; {
			n, full, err := b.under[v].tables(v, b.shape.senders)
			if err != nil {
				return nil, err
			}
			tables[v] = n
			if tables[v] < b.shape.senders && (full || time.Now().After(end)) {
				fmt.Fprintf(b.log, "%s: %d of %d signers have a table\n", variantNames[v], tables[v], b.shape.senders)
				break
			}
			if tables[v] >= b.shape.senders {
				break
			}
			if _, err := b.slice(ctx, v, 0, heatSlice); err != nil {
				return nil, err
			}
		}
	}
	return tables, nil
}

// lone measures the time of lone frames.
func (b *bench) lone(ctx context.Context) (*lone, error) {
	if _, err := b.load.ask(request{Body: &bodyRequest{Size: latencyBody}}); err != nil {
		return nil, err
	}
	l := &lone{Times: make(map[string][]time.Duration)}
	var err error
	if l.Tables, err = b.heat(ctx); err != nil {
		return nil, err
	}
	for round := range loneRounds {
		for i := range b.shape.variants {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v := b.shape.variants[(i+round)%len(b.shape.variants)]
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
	l.Verify, l.Stdlib = a.Verify, a.Stdlib
	return l, err
}
