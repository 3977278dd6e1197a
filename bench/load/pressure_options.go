package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// pressureOptions of the scenarios.
type pressureOptions struct {
	machine
	short     bool
	tries     int // of a scenario, at most, while its rounds are void
	scenarios []*scenario
	limits    limits
	command   string
}

// limits are the bounds that all scenarios share, on rates and times.
type limits struct {
	loose    bool          // they are for machines that have other work too
	rate     float64       // least share of the reference's rate
	slower   float64       // p99 may be so many times the reference's,
	slack    time.Duration // or so much in any case: what a scheduler's turn of others costs
	newcomer time.Duration // longest time to connect
	stalled  time.Duration // how much later than after its timeout a recipient that stalls may be disconnected
}

var (
	strictLimits = limits{rate: 0.9, slower: 2, slack: 10 * time.Millisecond, newcomer: 2 * time.Second, stalled: 2 * time.Second}
	looseLimits  = limits{loose: true, rate: 0.5, slower: 10, slack: time.Second, newcomer: 10 * time.Second, stalled: 10 * time.Second}
)

const pressureTries = 3

func parsePressureOptions(args []string, stderr io.Writer) (*pressureOptions, error) {
	o := &pressureOptions{command: strings.Join(append([]string{"bench/load pressure"}, args...), " ")}
	f := flag.NewFlagSet("load pressure", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "Usage: load pressure [flags] [NAME...]\n\nScenarios:")
		for _, s := range scenarios {
			fmt.Fprintf(stderr, "  %-16s %s\n", s.name, s.title)
		}
		fmt.Fprintln(stderr, "\nFlags:")
		f.PrintDefaults()
	}
	if err := o.add(f); err != nil {
		return nil, err
	}
	f.BoolVar(&o.short, "short", false, "a few seconds of each, with loose bounds on rates and times")
	f.IntVar(&o.tries, "tries", pressureTries, "times a scenario is tried while its rounds are void")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if o.tries < 1 {
		return nil, errors.New("--tries: at least 1")
	}
	o.limits = strictLimits
	if o.short {
		o.limits = looseLimits
	}
	for _, s := range scenarios {
		if f.NArg() == 0 || slices.Contains(f.Args(), s.name) {
			o.scenarios = append(o.scenarios, s)
		}
	}
	for _, name := range f.Args() {
		if !slices.ContainsFunc(scenarios, func(s *scenario) bool { return s.name == name }) {
			return nil, fmt.Errorf("no scenario %q", name)
		}
	}
	return o, nil
}
