package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of variants.
const (
	variantEcho      = "echo"
	variantForwarder = "forwarder"
	variantNone      = "none"
	variantAll       = "all"
	variantBursts    = "bursts"
)

var variants = []string{variantEcho, variantForwarder, variantNone, variantAll, variantBursts}

// variantEdge is of rows of routers alone: one router has no links.
const variantEdge = "edge"

// rowOf is the variant of a row of so many routers that check signatures like the
// variant given, which is that of one router.
func rowOf(variant string, routers int) string {
	if routers == 1 {
		return variant
	}
	return fmt.Sprintf("%s-%d", variant, routers)
}

// splitRow returns what rowOf was given.
func splitRow(variant string) (of string, routers int) {
	of, text, isRow := strings.Cut(variant, "-")
	if !isRow {
		return of, 1
	}
	routers, err := strconv.Atoi(text)
	if err != nil {
		panic("load: " + variant + " is no variant")
	}
	return of, routers
}

// verifyOf returns what the router is told of a variant.
func verifyOf(variant string) string {
	if of, _ := splitRow(variant); of != variantBursts {
		return of
	}
	return variantAll
}

// isRouter reports whether a variant is the router, or a row of them, checks whether
// it checks signatures.
func isRouter(variant string) bool { return verifyOf(variant) == variantNone || checks(variant) }
func checks(variant string) bool {
	verify := verifyOf(variant)
	return verify == variantAll || verify == variantEdge
}

// Bounds and defaults.
const (
	bodyMin        = 1
	bodyMax        = 32 << 10 // a frame must fit into the forwarder's reader
	connsMax       = 2000     // of each kind
	sliceMin       = 20 * time.Millisecond
	warmMax        = 200 * time.Millisecond
	windowMin      = bodyMax
	latencyBody    = 256
	latencyDefault = 2500 // frames of each variant
	idleDefault    = 10_000
)

// machine is where processes run, and the router's program.
type machine struct {
	router     string   // path of the causeway program
	routerArgs []string // further flags of serve
	core       int      // of what is measured
	loadCore   int
	workers    int // --verify-workers
	json       bool
	peers      peerPrograms
}

// options of the forwarding benchmark.
type options struct {
	machine
	rounds   int
	slice    time.Duration
	bodies   []int
	conns    []int // receivers
	signers  []int // senders; 0: as many as receivers
	variants []string
	window   int // bytes under way, at most; 0: as saturates
	latency  int // lone frames of each variant; 0: not measured
	command  string
}

// warm is how long a slice runs before it counts.
func (o *options) warm() time.Duration { return min(o.slice/4, warmMax) }

func (m *machine) add(f *flag.FlagSet) error {
	cores, err := allowedCores()
	if err != nil {
		return err
	}
	f.StringVar(&m.router, "router", "bin/causeway", "the router's program")
	f.Func("router-arg", "a further `FLAG` for the router's serve, such as --queue-high=8MiB; may be repeated", func(s string) error {
		m.routerArgs = append(m.routerArgs, s)
		return nil
	})
	f.IntVar(&m.core, "core", cores[0], "core of the process under test")
	f.IntVar(&m.loadCore, "load-core", cores[len(cores)-1], "core of the load")
	f.IntVar(&m.workers, "verify-workers", 1, "the router's --verify-workers")
	f.BoolVar(&m.json, "json", false, "print JSON instead of a table")
	return nil
}

// allowedCores returns the cores this process may use, in order.
func allowedCores() (cores []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{command: strings.Join(append([]string{"bench/load"}, args...), " ")}
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(stderr)
	if err := o.add(f); err != nil {
		return nil, err
	}
	bodies, conns, signers, chosen := "64,256,1024,16384", "8,200", "0", strings.Join(variants, ",")
	var quick bool
	f.IntVar(&o.rounds, "rounds", 5, "rounds of all variants")
	f.DurationVar(&o.slice, "slice", time.Second, "length of a slice, beside its warm-up")
	f.StringVar(&bodies, "bodies", bodies, "sizes of bodies, bytes")
	f.StringVar(&conns, "conns", conns, "numbers of receivers, each with as many senders unless --signers says otherwise")
	f.StringVar(&signers, "signers", signers, "numbers of senders, each a node with a key and a connection of its own; 0: as many as receivers")
	f.StringVar(&chosen, "variants", chosen, "variants to measure")
	f.IntVar(&o.window, "window", 0, "bytes under way at one time, at most; 0: 64 KiB a sender, or 2 MiB if that is more")
	f.IntVar(&o.latency, "latency", latencyDefault, "lone frames of each variant; 0: none")
	f.BoolVar(&quick, "quick", false, "a short form that shows that everything works, and no figure worth keeping")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if quick {
		if err := applyDefaults(f, quickValues); err != nil {
			return nil, err
		}
	}
	var errBodies, errConns, errSigners error
	o.bodies, errBodies = numbers("--bodies", bodies, bodyMin, bodyMax)
	o.conns, errConns = numbers("--conns", conns, 1, connsMax)
	o.signers, errSigners = numbers("--signers", signers, 0, connsMax)
	o.variants = strings.Split(chosen, ",")
	return o, errors.Join(errBodies, errConns, errSigners, o.check())
}

// quickValues are the defaults that --quick has.
var quickValues = map[string]string{"rounds": "1", "slice": "150ms", "bodies": "64,16384", "conns": "2", "latency": "20"}

// applyDefaults gives flags that the command line did not set other defaults.
func applyDefaults(f *flag.FlagSet, values map[string]string) (err error) {
	set := make(map[string]bool)
	f.Visit(func(one *flag.Flag) { set[one.Name] = true })
	for name, value := range values {
		if !set[name] {
			err = errors.Join(err, f.Set(name, value))
		}
	}
	return err
}

func (o *options) check() error {
	for _, v := range o.variants {
		if !slices.Contains(variants, v) {
			return fmt.Errorf("--variants: %q is not one of %s", v, strings.Join(variants, ", "))
		}
	}
	switch {
	case o.rounds < 1:
		return errors.New("--rounds: at least 1")
	case o.slice < sliceMin:
		return fmt.Errorf("--slice: at least %v", sliceMin)
	case o.window != 0 && o.window < windowMin:
		return fmt.Errorf("--window: 0 or at least %d", windowMin)
	case o.latency < 0:
		return errors.New("--latency: not below 0")
	}
	return nil
}

// numbers reads a list of integers from low to high.
func numbers(flag, text string, low, high int) (list []int, err error) {
	for _, s := range strings.Split(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < low || n > high {
			return nil, fmt.Errorf("%s: %q is not a number from %d to %d", flag, s, low, high)
		}
		list = append(list, n)
	}
	return list, nil
}
