package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	attackersDefault = 5000
	attackersMax     = 65_536
	triesDefault     = 50
	floodWarm        = 3 * time.Second // of the attack before the first try
	floodEvery       = 200 * time.Millisecond
	floodTarget      = 2 * time.Second // for a newcomer to be served
)

// floodOptions of the measurement of connecting while others hold handshakes
// open.
type floodOptions struct {
	machine
	attackers, sources int
	worst              string
	hold, pause        time.Duration
	tries              int
	command            string
}

func parseFloodOptions(args []string, stderr io.Writer) (*floodOptions, error) {
	o := &floodOptions{command: strings.Join(append([]string{"bench/load flood"}, args...), " ")}
	f := flag.NewFlagSet("load flood", flag.ContinueOnError)
	f.SetOutput(stderr)
	if err := o.add(f); err != nil {
		return nil, err
	}
	f.IntVar(&o.attackers, "attackers", attackersDefault, "clients that hold handshakes open; 0: none")
	f.IntVar(&o.sources, "sources", 0, "addresses that they come from; 0: one each")
	f.StringVar(&o.worst, "worst", worstSilent, "what they send: "+strings.Join(worsts, ", "))
	f.DurationVar(&o.hold, "hold", 0, "they close after so long; 0: only when the router has closed")
	f.DurationVar(&o.pause, "pause", time.Second, "between two connections of one, from start to start")
	f.IntVar(&o.tries, "tries", triesDefault, "nodes that connect during the attack, one after another")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if o.sources == 0 {
		o.sources = max(1, o.attackers)
	}
	return o, o.check()
}

func (o *floodOptions) check() error {
	switch {
	case !slices.Contains(worsts, o.worst):
		return fmt.Errorf("--worst: %q is not one of %s", o.worst, strings.Join(worsts, ", "))
	case o.attackers < 0 || o.attackers > attackersMax:
		return fmt.Errorf("--attackers: 0 to %d", attackersMax)
	case o.sources < 1 || o.sources > max(1, o.attackers):
		return errors.New("--sources: 0 or 1 to --attackers")
	case o.tries < 1 || o.tries > attackersMax:
		return fmt.Errorf("--tries: 1 to %d", attackersMax)
	case o.pause < wheelStep || o.pause > wheelSpan-wheelStep || o.hold < 0:
		return fmt.Errorf("--pause: %v to %v; --hold: not below 0", wheelStep, wheelSpan-wheelStep)
	}
	return checkFiles(o.attackers)
}

// floodResult of the measurement.
type floodResult struct {
	About     about
	Attackers int
	Sources   int
	Worst     string
	Times     []time.Duration // of the newcomers, from the first SYN to the router's hello
	Failed    int             // connections of newcomers that came to nothing, and were tried again
	Wall      time.Duration   // of the tries, as all below
	CPU       time.Duration   // of the router
	Refusals  float64         // connections that the router refused, for all reasons
	Grown     float64         // bytes of the router's RSS since before the attack
	Overflows float64         // SYNs and connections that the kernel dropped because they were not accepted
	Refused   map[string]float64
}

// measureFlood runs the measurement and prints its result.
func measureFlood(ctx context.Context, o *floodOptions, stdout, log io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "causeway-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return err
	}
	nodes, err := w.newNodes(o.tries)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	router, err := o.startRouter(ctx, w)
	if router != nil {
		defer func() { <-router.ended }()
	}
	defer cancel()
	if err != nil {
		return err
	}
	load, err := o.startClient(ctx)
	if err != nil {
		return err
	}
	defer func() { cancel(); <-load.ended }()
	if _, err := load.ask(request{Setup: &setupRequest{Root: w.authority.Root.Raw, Router: w.routers[0], Nodes: nodes, LoadCore: o.loadCore}}); err != nil {
		return err
	}
	r := &floodResult{About: aboutMachine(ctx, &o.machine, o.command), Attackers: o.attackers, Sources: o.sources, Worst: o.worst}
	if err := o.attack(ctx, router, load, r, log); err != nil {
		return err
	}
	if err := errors.Join(load.end(), router.stop()); err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(stdout).Encode(r)
	}
	r.write(stdout)
	return nil
}

// startRouter starts the router with the limits that it has by default.
func (o *floodOptions) startRouter(ctx context.Context, w *world) (*process, error) {
	m := o.machine
	m.routerArgs = append([]string{
		"--max-connections-per-source", "1024", "--max-handshakes-per-source", "64", "--max-handshake-rate", "100",
	}, m.routerArgs...)
	return m.startVariant(ctx, w, variantAll)
}

// attack has attackers do their worst while nodes connect.
func (o *floodOptions) attack(ctx context.Context, router *process, load *controller, r *floodResult, log io.Writer) error {
	rss, err := residentBytes(router.pid())
	if err != nil {
		return err
	}
	attackers, err := o.startAttackers(ctx, router.addr)
	if err != nil {
		return err
	}
	defer attackers.kill()
	fmt.Fprintf(log, "%s the attack begins\n", time.Now().Format(time.TimeOnly))
	if err := sleep(ctx, floodWarm); err != nil {
		return err
	}
	before, err := o.state(router)
	if err != nil {
		return err
	}
	for i := range o.tries {
		select {
		case <-attackers.ended:
			return attackers.failed(errors.New("the attack has ended"))
		default:
		}
		a, err := load.ask(request{Newcomer: &newcomerRequest{Addr: router.addr, Member: i, Patience: answerMax}})
		if err != nil {
			return errors.Join(err, router.failed(errors.New("a node did not get in")))
		}
		r.Times = append(r.Times, a.Lone...)
		r.Failed += a.Failed
		if err := sleep(ctx, floodEvery); err != nil {
			return err
		}
	}
	after, err := o.state(router)
	if err != nil {
		return err
	}
	after.minus(before, r)
	now, err := residentBytes(router.pid())
	r.Grown = now - rss
	return err
}

// floodState is what is counted at one moment.
type floodState struct {
	at        time.Time
	cpu       time.Duration
	metrics   metrics
	overflows float64
}

func (o *floodOptions) state(router *process) (s floodState, err error) {
	s.at = time.Now()
	if s.cpu, err = cpuTime(router.pid()); err != nil {
		return s, err
	}
	if s.overflows, err = listenDrops(); err != nil {
		return s, err
	}
	s.metrics, err = router.metrics()
	return s, err
}

// refusedPrefix begins the router's counters of connections that it refused.
const refusedPrefix = "causeway_handshakes_refused_total{reason="

func (s floodState) minus(before floodState, r *floodResult) {
	r.Wall, r.CPU, r.Overflows = s.at.Sub(before.at), s.cpu-before.cpu, s.overflows-before.overflows
	r.Refused = make(map[string]float64)
	for name, n := range s.metrics {
		if reason, ok := strings.CutPrefix(name, refusedPrefix); ok && n > before.metrics[name] {
			r.Refused[strings.Trim(reason, `"}`)] = n - before.metrics[name]
			r.Refusals += n - before.metrics[name]
		}
	}
}

// listenDrops returns how many connections the kernel has dropped because a
// listener did not accept them, of all of this network namespace.
func listenDrops() (float64, error) {
	text, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return 0, err
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 { // names, then numbers
		names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for at, name := range names {
			if name == "ListenDrops" && at < len(numbers) {
				return strconv.ParseFloat(numbers[at], 64)
			}
		}
	}
	return 0, errors.New("/proc/net/netstat has no ListenDrops")
}

// attackers is the process that does it.
type attackers struct {
	*process
	in io.Closer
}

// startAttackers starts them on the load's core.
func (o *floodOptions) startAttackers(ctx context.Context, addr string) (*attackers, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	a := &attackers{process: start(ctx, "attackers", o.loadCore, self, verbAttackers)}
	in, err := a.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	a.in = in
	if err := a.run(); err != nil {
		return nil, err
	}
	err = json.NewEncoder(in).Encode(attackRequest{
		Addr: addr, Attackers: o.attackers, Sources: o.sources, Worst: o.worst, Hold: o.hold, Pause: o.pause,
	})
	if err != nil {
		a.kill()
		return nil, a.failed(err)
	}
	return a, nil
}

// kill ends the attack and waits for that.
func (a *attackers) kill() {
	_ = a.in.Close()
	_ = a.cmd.Process.Kill() // without a look at its connections
	<-a.ended
}

// write prints the result as markdown.
func (r *floodResult) write(w io.Writer) {
	r.About.write(w)
	what := map[string]string{worstSilent: "say nothing", worstRecord: "send half a record", worstHello: "send a ClientHello, then nothing"}
	fmt.Fprintf(w, "%d clients of %d addresses connect again and again and %s. New nodes, each from an address of its own, from the first SYN to the router's hello:\n\n", r.Attackers, r.Sources, what[r.Worst])
	var ms []float64
	for _, d := range r.Times {
		ms = append(ms, float64(d)/1e6)
	}
	slices.Sort(ms)
	fmt.Fprintln(w, "| tries | median | 95% | longest | tried again | refused a second | router busy | kernel dropped | memory |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	fmt.Fprintf(w, "| %d | %.0f ms | %.0f ms | %.0f ms | %d | %.0f | %.0f%% | %.0f | %+.1f MiB |\n", len(ms), quantile(ms, 0.5), quantile(ms, 0.95), quantile(ms, 1), r.Failed,
		r.Refusals/r.Wall.Seconds(), 100*r.CPU.Seconds()/math.Max(r.Wall.Seconds(), 1e-9), r.Overflows, r.Grown/(1<<20))
	var reasons []string
	for reason, n := range r.Refused {
		reasons = append(reasons, fmt.Sprintf("%s %.0f", reason, n))
	}
	slices.Sort(reasons)
	fmt.Fprintf(w, "\nRefused: %s. Target: every node within %v.\n", strings.Join(reasons, ", "), floodTarget)
}
