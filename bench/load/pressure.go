package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	trafficNodes   = 16 // half of them senders
	newcomerNodes  = 4
	newcomersEvery = 100 * time.Millisecond
	saturateFull   = 2 * time.Second
	saturateShort  = 500 * time.Millisecond
	trafficShare   = 0.5         // of what the pairs can do: the rate of legitimate traffic
	trafficLess    = 0.7         // of that, when the load had no room for it
	warmSlice      = time.Second // of the round before the reference, until the router has tables
	warmingMax     = 10 * time.Second
	othersMost     = 0.1 // share of the router's core that others may use
	sampleEvery    = 50 * time.Millisecond
	attackersNice  = "5" // legitimate clients go first where both share a core
	quietMax       = 20 * time.Second
	watchEvery     = 100 * time.Millisecond
)

// pressure runs scenarios, one after another.
type pressure struct {
	o         *pressureOptions
	world     *world
	log       io.Writer
	saturated float64 // what the pairs sustain, frames a second
}

// pressureResult of all scenarios.
type pressureResult struct {
	About     about
	Saturated float64 // frames a second
	Outcomes  []*outcome
}

// withstand runs the scenarios and prints what happened. It fails when a bound
// was broken.
func withstand(ctx context.Context, o *pressureOptions, stdout, log io.Writer) error {
	dir, err := os.MkdirTemp("", "causeway-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := newPressure(ctx, o, dir, log)
	if err != nil {
		return err
	}
	r := &pressureResult{About: aboutMachine(ctx, &o.machine, o.command), Saturated: p.saturated}
	if !o.json {
		r.write(stdout)
	}
	var broken []string
	for _, s := range o.scenarios {
		out, err := p.try(ctx, s)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil: // the others can still be had
			out = &outcome{Name: s.name, Title: s.title, Failed: err.Error()}
			fmt.Fprintf(log, "%s: %v\n", s.name, err)
		}
		r.Outcomes = append(r.Outcomes, out)
		if !o.json {
			out.write(stdout)
		}
		if !out.kept() {
			broken = append(broken, s.name)
		}
	}
	if o.json {
		if err := json.NewEncoder(stdout).Encode(r); err != nil {
			return err
		}
	}
	if len(broken) > 0 {
		return fmt.Errorf("bounds were broken, or nothing could be measured: %s", strings.Join(broken, ", "))
	}
	return nil
}

// newPressure makes a domain below dir, and measures what the pairs sustain.
func newPressure(ctx context.Context, o *pressureOptions, dir string, log io.Writer) (p *pressure, err error) {
	p = &pressure{o: o, log: log}
	if p.world, err = newWorld(dir); err == nil {
		p.saturated, err = p.saturate(ctx)
	}
	return p, err
}

// saturate measures what the pairs can do with this router, frames a second.
func (p *pressure) saturate(ctx context.Context) (perSecond float64, err error) {
	length := saturateFull
	if p.o.short {
		length = saturateShort
	}
	err = p.with(ctx, nil, 0, func(st *stage) error {
		for range 2 { // the first warms up
			a, err := st.load.ask(request{Round: &roundRequest{Length: length}})
			if err != nil {
				return err
			}
			perSecond = float64(a.Round.Arrived) / a.Round.Usage.Wall.Seconds()
		}
		return nil
	})
	return perSecond, err
}

// openTry is one after which another might show more.
type openTry struct {
	Rate float64 // of legitimate traffic, frames a second
	Why  string
}

// try runs a scenario, and again while that may show more.
func (p *pressure) try(ctx context.Context, s *scenario) (*outcome, error) {
	return p.tryWith(func(rate float64, last bool) (*outcome, error) {
		fmt.Fprintf(p.log, "%s %s at %.0f frames/s\n", time.Now().Format(time.TimeOnly), s.name, rate)
		return p.scenario(ctx, s, rate, last)
	})
}

// tryWith has one run while another may show more: at a lower rate where the load
// had no room for this one or bounds are loose, and the last time in any case.
func (p *pressure) tryWith(once func(rate float64, last bool) (*outcome, error)) (*outcome, error) {
	rate := p.saturated * trafficShare
	var before []openTry
	for n := 1; ; n++ {
		out, err := once(rate, n == p.o.tries)
		if err != nil {
			return nil, err
		}
		out.Before = before
		if n == p.o.tries || !out.open() {
			return out, nil
		}
		why := out.Void
		if why == "" {
			why = "a loose bound was broken"
		}
		fmt.Fprintf(p.log, "%s is open: %s\n", out.Name, why)
		before = append(before, openTry{rate, why})
		if out.LoadBusy || out.limits.loose || n+1 == p.o.tries {
			rate *= trafficLess
		}
	}
}

// scenario runs one once. A void reference ends it, but for the last try.
func (p *pressure) scenario(ctx context.Context, s *scenario, rate float64, last bool) (*outcome, error) {
	f := s.full
	if p.o.short {
		f = s.short
	}
	if err := checkFiles(f.nodes()); err != nil {
		return nil, err
	}
	out := &outcome{Name: s.name, Title: s.title, Serve: f.serve, Rate: rate, Share: rate / p.saturated, limits: p.o.limits}
	err := p.with(ctx, f.serve, f.nodes(), func(st *stage) error {
		st.form, st.rate, st.out, st.last = &f, rate, out, last
		if err := s.course(ctx, st); !errors.Is(err, errVoid) {
			return err
		}
		return nil
	})
	return out, err
}

// stage is the processes of one scenario.
type stage struct {
	*pressure
	router, sink               *process
	load, attackers, newcomers *controller

	form      *form
	rate      float64
	last      bool // there will be no other try
	out       *outcome
	stalledAt time.Time // when the recipient began to stall
}

// with starts all processes, the router with the flags given, connects the
// load, has work done, and stops them. The router must end in order.
func (p *pressure) with(ctx context.Context, serve []string, attackers int, work func(*stage) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	st := &stage{pressure: p}
	defer func() {
		cancel() // kills what has not ended
		for _, child := range []*process{st.router, st.sink} {
			if child != nil {
				<-child.ended
			}
		}
		for _, child := range []*controller{st.load, st.attackers, st.newcomers} {
			if child != nil {
				<-child.ended
			}
		}
	}()
	if err := st.start(ctx, serve, attackers); err != nil {
		return err
	}
	if err := work(st); err != nil {
		if metrics, scrapeErr := st.router.metrics(); scrapeErr == nil {
			err = fmt.Errorf("%w\nthe router has counted %s", err, changes(nil, metrics))
		}
		return st.router.failed(err)
	}
	return errors.Join(st.attackers.end(), st.newcomers.end(), st.load.end(), st.router.stop(), st.sink.stop())
}

func (st *stage) start(ctx context.Context, serve []string, attackers int) (err error) {
	o := st.o
	if st.router, err = o.startRouter(ctx, st.world, serve); err != nil {
		return err
	}
	if st.sink, err = o.startSink(ctx); err != nil {
		return err
	}
	for _, c := range []struct {
		child **controller
		nodes int
		verb  string
		nice  []string
	}{
		{&st.load, trafficNodes, verbClient, nil},
		{&st.newcomers, newcomerNodes, verbCrowd, nil},
		{&st.attackers, attackers, verbCrowd, []string{"nice", "-n", attackersNice}},
	} {
		nodes, err := st.world.newNodes(c.nodes)
		if err != nil {
			return err
		}
		if *c.child, err = o.startController(ctx, c.verb, c.nice...); err != nil {
			return err
		}
		setup := &setupRequest{Root: st.world.authority.Root.Raw, Router: st.world.routers[0], Nodes: nodes, LoadCore: o.loadCore}
		if _, err := (*c.child).ask(request{Setup: setup}); err != nil {
			return err
		}
	}
	_, err = st.load.ask(request{Traffic: &trafficRequest{Addr: st.router.addr, PID: st.router.pid()}})
	return err
}
