package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	idleBody     = 64 << 10 // of the frame that each connection carries
	idleSources  = 8        // local addresses of the client, from 127.0.0.2 on
	spareFiles   = 256      // descriptors of a process beside its connections
	settleMax    = 2 * time.Minute
	settleStep   = time.Second
	settleStable = 5     // steps without change
	settleChange = 0.002 // share that counts as none
	gcEvery      = 2 * time.Minute
	gcRuns       = 2 // pools are empty after two

	targetFresh   = 12 << 10 // bytes of RSS per connection
	targetCarried = 28 << 10
)

// idleOptions of the measurement of idle connections.
type idleOptions struct {
	machine
	connections int
	settle      bool
	command     string
}

func parseIdleOptions(args []string, stderr io.Writer) (*idleOptions, error) {
	o := &idleOptions{command: strings.Join(append([]string{"bench/load idle"}, args...), " ")}
	f := flag.NewFlagSet("load idle", flag.ContinueOnError)
	f.SetOutput(stderr)
	if err := o.add(f); err != nil {
		return nil, err
	}
	f.IntVar(&o.connections, "connections", idleDefault, "idle connections")
	f.BoolVar(&o.settle, "settle", true, "wait for garbage collections (with a router that has no /debug/pprof up to 4 minutes, twice)")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if o.connections < 1 {
		return nil, errors.New("--connections: at least 1")
	}
	return o, checkFiles(o.connections)
}

// checkFiles tells whether router and client may open so many descriptors each.
func checkFiles(connections int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	need := uint64(connections + spareFiles)
	if limit.Cur < need { // the runtime has raised it to what it may be
		return fmt.Errorf("%d connections need %d open files, this process may have %d: run ulimit -n %d first", connections, need, limit.Cur, need)
	}
	return nil
}

// memory of the router at one moment, bytes.
type memory struct {
	RSS, Live, Fragments, Stacks, Unreturned, Runtime float64
}

func (m memory) minus(b memory) memory {
	return memory{m.RSS - b.RSS, m.Live - b.Live, m.Fragments - b.Fragments, m.Stacks - b.Stacks, m.Unreturned - b.Unreturned, m.Runtime - b.Runtime}
}

// rest is what the runtime does not account for: code, and pages of it that
// are not resident count against it.
func (m memory) rest() float64 {
	return m.RSS - m.Live - m.Fragments - m.Stacks - m.Unreturned - m.Runtime
}

// idleResult of the measurement; per connection is the difference to Empty.
type idleResult struct {
	About                 about
	Connections           int
	Settled               bool
	Empty, Fresh, Carried memory
}

// measureIdle runs the measurement and prints its result.
func measureIdle(ctx context.Context, o *idleOptions, stdout, log io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "causeway-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return err
	}
	nodes, err := w.newNodes(o.connections)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	router, err := o.startVariant(ctx, w, variantAll)
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
	r := &idleResult{About: aboutMachine(ctx, &o.machine, o.command), Connections: o.connections, Settled: o.settle}
	if err := o.stages(ctx, w, nodes, router, load, r, log); err != nil {
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

// stages measures the router empty, with fresh connections, and after each has
// carried a frame.
func (o *idleOptions) stages(ctx context.Context, w *world, nodes []node, router *process, load *controller, r *idleResult, log io.Writer) (err error) {
	var sources []string
	for i := range idleSources {
		sources = append(sources, "127.0.0."+strconv.Itoa(2+i))
	}
	say := func(what string) { fmt.Fprintf(log, "%s %s\n", time.Now().Format(time.TimeOnly), what) }
	if r.Empty, err = o.read(ctx, router); err != nil {
		return err
	}
	if _, err := load.ask(request{Setup: &setupRequest{Root: w.authority.Root.Raw, Router: w.routers[0], Nodes: nodes, LoadCore: o.loadCore}}); err != nil {
		return err
	}
	say("connecting")
	if _, err := load.ask(request{Idle: &idleRequest{Addr: router.addr, Sources: sources}}); err != nil {
		return errors.Join(err, router.failed(errors.New("connections failed")))
	}
	say("connected")
	if r.Fresh, err = o.read(ctx, router); err != nil {
		return err
	}
	say("each carries a frame")
	a, err := load.ask(request{Carry: &carryRequest{idleBody}})
	if err != nil {
		return errors.Join(err, router.failed(errors.New("frames failed")))
	}
	say("carried")
	if r.Carried, err = o.read(ctx, router); err != nil {
		return err
	}
	m, err := router.metrics()
	if err != nil {
		return err
	}
	connected, forwarded, dropped := m["causeway_connections"], m["causeway_frames_forwarded_total"], m.dropped()
	if all := float64(o.connections); connected != all || forwarded != all || dropped != 0 || a.Carried != o.connections {
		return fmt.Errorf("%.0f connections and %.0f frames forwarded, %.0f dropped, of %d each", connected, forwarded, dropped, o.connections)
	}
	return nil
}

// read waits until garbage is collected and its memory returned, if asked to,
// and reads the router's memory.
func (o *idleOptions) read(ctx context.Context, router *process) (memory, error) {
	if o.settle {
		if err := collect(ctx, router); err != nil {
			return memory{}, err
		}
		if err := settle(ctx, router); err != nil {
			return memory{}, err
		}
	}
	m, err := router.metrics()
	if err != nil {
		return memory{}, err
	}
	rss, err := residentBytes(router.pid())
	return memory{
		RSS:        rss,
		Live:       m["go_memstats_heap_alloc_bytes"],
		Fragments:  m["go_memstats_heap_inuse_bytes"] - m["go_memstats_heap_alloc_bytes"],
		Stacks:     m["go_memstats_stack_inuse_bytes"],
		Unreturned: m["go_memstats_heap_idle_bytes"] - m["go_memstats_heap_released_bytes"],
		Runtime: m["go_memstats_gc_sys_bytes"] + m["go_memstats_mspan_inuse_bytes"] + m["go_memstats_mcache_inuse_bytes"] +
			m["go_memstats_buck_hash_sys_bytes"] + m["go_memstats_other_sys_bytes"],
	}, err
}

// collect has the router collect its garbage twice: through /debug/pprof when
// it serves that, else by waiting for what the runtime does every two minutes.
func collect(ctx context.Context, router *process) error {
	client := http.Client{Timeout: startMax, Transport: &http.Transport{DisableKeepAlives: true}}
	for range gcRuns {
		res, err := client.Get("http://" + router.admin + "/debug/pprof/heap?gc=1")
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return awaitCollections(ctx, router)
		}
	}
	return nil
}

func awaitCollections(ctx context.Context, router *process) error {
	const runs = "go_gc_duration_seconds_count"
	m, err := router.metrics()
	if err != nil {
		return err
	}
	from := m[runs]
	for end := time.Now().Add((gcRuns + 1) * gcEvery); m[runs] < from+gcRuns; {
		if time.Now().After(end) {
			return errors.New("the router does not collect its garbage")
		}
		if err := sleep(ctx, settleStep); err != nil {
			return err
		}
		if m, err = router.metrics(); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until RSS no longer changes: the runtime returns memory slowly.
func settle(ctx context.Context, router *process) error {
	last, err := residentBytes(router.pid())
	end := time.Now().Add(settleMax)
	for stable := 0; err == nil && stable < settleStable && time.Now().Before(end); {
		if err = sleep(ctx, settleStep); err != nil {
			return err
		}
		var now float64
		now, err = residentBytes(router.pid())
		stable++
		if now < last*(1-settleChange) || now > last*(1+settleChange) {
			stable, last = 0, now
		}
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// residentBytes returns a process's RSS, of all kinds of pages.
func residentBytes(pid int) (float64, error) { return statusBytes(pid, "VmRSS:") }

// residentPeak returns the most that it was since the process began.
func residentPeak(pid int) (float64, error) { return statusBytes(pid, "VmHWM:") }

// statusBytes returns a value in kB of /proc/PID/status (proc_pid_status(5)).
func statusBytes(pid int, name string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

// write prints the result as markdown.
func (r *idleResult) write(w io.Writer) {
	r.About.write(w)
	fmt.Fprintf(w, "Memory of the router, bytes per connection beyond the router without connections, %d connections, verify all.", r.Connections)
	if !r.Settled {
		fmt.Fprint(w, " Garbage not collected first.")
	}
	fmt.Fprint(w, "\n\n| part | fresh | after one frame of 64 KiB each |\n|---|---|---|\n")
	fresh, carried := r.Fresh.minus(r.Empty), r.Carried.minus(r.Empty)
	row := func(name string, of func(memory) float64) {
		fmt.Fprintf(w, "| %s | %.0f | %.0f |\n", name, of(fresh)/float64(r.Connections), of(carried)/float64(r.Connections))
	}
	row("**RSS**", func(m memory) float64 { return m.RSS })
	row("heap, live (and garbage since the last collection)", func(m memory) float64 { return m.Live })
	row("heap, unused parts of spans", func(m memory) float64 { return m.Fragments })
	row("heap, free and not returned", func(m memory) float64 { return m.Unreturned })
	row("stacks", func(m memory) float64 { return m.Stacks })
	row("runtime", func(m memory) float64 { return m.Runtime })
	row("rest", memory.rest)
	fmt.Fprintf(w, "\nTargets: %d fresh, %d after. Router without connections: RSS %.1f MiB.\n", targetFresh, targetCarried, r.Empty.RSS/(1<<20))
}
