package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// chainWindow is how many bytes are under way in a row of routers, at most: a
// quarter of the queue of a link, of which one connection may fill half. A router
// pauses nodes when that is full, and drops what comes from another router.
const chainWindow = 4 << 20

// chainOptions of the measurement of routers in a row.
type chainOptions struct {
	options
	cells []chainCell
}

// chainCell is so many senders and receivers, and a size of bodies.
type chainCell struct{ conns, body int }

func parseChainOptions(args []string, stderr io.Writer) (*chainOptions, error) {
	o := &chainOptions{}
	o.command = strings.Join(append([]string{"bench/load chain"}, args...), " ")
	f := flag.NewFlagSet("load chain", flag.ContinueOnError)
	f.SetOutput(stderr)
	if err := o.add(f); err != nil {
		return nil, err
	}
	cells, chosen := "8:64,8:256,8:1024,8:16384,200:256", strings.Join(chainVariants, ",")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of one, two and three routers")
	f.DurationVar(&o.slice, "slice", 400*time.Millisecond, "length of a slice, beside its warm-up")
	f.StringVar(&cells, "cells", cells, "what is sent: `CONNECTIONS:BODY`, as many senders as receivers, and bytes of a body")
	f.StringVar(&chosen, "verify", chosen, "--verify of the routers")
	f.IntVar(&o.latency, "latency", 1000, "lone frames through each row; 0: none")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	o.variants = strings.Split(chosen, ",")
	for _, v := range o.variants {
		if !slices.Contains(chainVariants, v) {
			return nil, fmt.Errorf("--verify: %q is not one of %s", v, strings.Join(chainVariants, ", "))
		}
	}
	var err error
	if o.cells, err = parseCells(cells); err != nil {
		return nil, err
	}
	return o, o.check()
}

// chainVariants is what is measured in rows of routers.
var chainVariants = []string{variantNone, variantEdge, variantAll}

func parseCells(text string) (cells []chainCell, err error) {
	for _, one := range strings.Split(text, ",") {
		conns, body, ok := strings.Cut(one, ":")
		if !ok {
			return nil, fmt.Errorf("--cells: %q is not CONNECTIONS:BODY, such as 8:256", one)
		}
		n, errConns := numbers("--cells", conns, 1, connsMax)
		size, errBody := numbers("--cells", body, bodyMin, bodyMax)
		if err := errors.Join(errConns, errBody); err != nil {
			return nil, err
		}
		cells = append(cells, chainCell{n[0], size[0]})
	}
	return cells, nil
}

// check has the variants of rows checked as well.
func (o *chainOptions) check() error {
	rest := o.options
	rest.variants = nil
	return rest.check()
}

// rowsOf returns the variants of one to three routers that verify in that way. One
// router has no links, so edge is all.
func rowsOf(verify string) (rows []string) {
	one := verify
	if verify == variantEdge {
		one = variantAll
	}
	rows = append(rows, one)
	for routers := 2; routers <= routersMax; routers++ {
		rows = append(rows, rowOf(verify, routers))
	}
	return rows
}

// shapes of the measurement: cells of as many connections share their processes.
func (o *chainOptions) shapes() (all []shape) {
	for _, verify := range o.variants {
		first := len(all)
		for _, c := range o.cells {
			at := slices.IndexFunc(all[first:], func(s shape) bool { return s.senders == c.conns })
			if at < 0 {
				at = len(all) - first
				window := min(max(windowLeast, unitMax*c.conns), chainWindow)
				all = append(all, shape{senders: c.conns, receivers: c.conns, variants: rowsOf(verify), window: window})
			}
			all[first+at].bodies = append(all[first+at].bodies, c.body)
		}
	}
	return all
}

// loneShape has all rows, each once.
func (o *chainOptions) loneShape() shape {
	s := shape{senders: 1, receivers: 1}
	for _, verify := range o.variants {
		for _, v := range rowsOf(verify) {
			if !slices.Contains(s.variants, v) {
				s.variants = append(s.variants, v)
			}
		}
	}
	return s
}

// measureChain runs the measurement and prints its result.
func measureChain(ctx context.Context, o *chainOptions, stdout, log io.Writer) error {
	r, err := o.measureShapes(ctx, o.shapes(), o.loneShape(), log)
	if err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(stdout).Encode(r)
	}
	r.writeChain(stdout)
	return nil
}
