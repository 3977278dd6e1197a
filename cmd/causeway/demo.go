package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// The demonstration with one router, step by step (demo_fleet.go has that with
// several):
//
//  1. make a domain: authority, a router with a grant, trust store, two nodes
//  2. start the router as a process of its own
//  3. alice listens, bob sends: each its own process
//  4. and the other way round
//  5. echo, list, metrics
//  6. leave the router and bob up until SIGINT (not with --once)
//
// Whatever ends it, no process and, unless --dir names it, no file remains.
const (
	demoDomain = "demo.example"
	demoRouter = "edge-1"
	demoStep   = 30 * time.Second // longest time for one step

	demoAnyPort = "127.0.0.1:0"
)

// demo is one run.
type demo struct {
	ctx        context.Context
	out        io.Writer
	program    string // as a shell finds it
	dir        string
	url, admin string // of the router, once it runs
	steps      int
	node       *demoProcess   // what listens now; nil: nothing
	routers    []*demoProcess // all, in the order of their start
	nodes      []*demoProcess // all, those too that have been stopped
}

func demoCommand() *cobra.Command {
	var once bool
	var dir string
	var routers int
	cmd := &cobra.Command{
		Use:   "demo [--once] [--dir DIR] [--routers N]",
		Short: "Show it all on this machine: a domain, a router, two nodes, messages",
		Long: `Show it all on this machine: make a domain, start a router and two nodes as
processes of their own, send messages both ways, and print for every step the
command that does the same by hand.

With --routers 3 it is a fleet: three routers linked in a row, two domains, and
messages, with the way they take, from one end to the other.

Routers then stay up until Ctrl-C, for you to try more. At the end everything is
stopped, and its directory removed unless --dir named it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, end := untilSignal(cmd.Context(), syscall.SIGHUP) // a closed terminal
			defer end()
			d := &demo{ctx: ctx, out: cmd.OutOrStdout()}
			switch {
			case routers == 1:
				return d.run(dir, once, d.show, d.stayUp)
			case routers < 1 || routers > demoRoutersMax:
				return usageError{fmt.Errorf("--routers %d: from 1 to %d", routers, demoRoutersMax)}
			}
			f := &demoFleet{demo: d, count: routers}
			return d.run(dir, once, f.show, f.stayUp)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "stop everything at the end instead of waiting for Ctrl-C")
	cmd.Flags().StringVar(&dir, "dir", "", "`DIR` to make and to keep; default: one that is removed at the end")
	cmd.Flags().IntVar(&routers, "routers", 1, "`N` routers, 1 to 9")
	return cmd
}

// run shows everything, stays up if it is to, and cleans up.
func (d *demo) run(dir string, once bool, show, stayUp func() error) (err error) {
	if d.program, err = programName(); err != nil {
		return err
	}
	remove, err := d.makeDir(dir)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range slices.Concat(d.nodes, d.routers) {
			err = errors.Join(err, p.stop())
		}
		end := "everything is stopped"
		if remove {
			err = errors.Join(err, os.RemoveAll(d.dir))
			end += ", " + d.dir + " is removed"
		} else {
			end += "; the files are in " + d.dir
		}
		fmt.Fprintf(d.out, "\nEnd: %s.\n", end)
	}()
	err = show()
	if err == nil && !once {
		err = stayUp()
	}
	if err != nil && d.ctx.Err() != nil {
		return exitWith(exitInterrupted, errors.New("interrupted"))
	}
	return err
}

// makeDir makes the directory, and tells whether it is to be removed.
func (d *demo) makeDir(dir string) (remove bool, err error) {
	if dir == "" {
		d.dir, err = os.MkdirTemp("", "causeway-demo-")
		return true, err
	}
	if err := vacant(dir, "give another --dir"); err != nil {
		return false, err
	}
	if d.dir, err = filepath.Abs(dir); err != nil {
		return false, err
	}
	return false, os.MkdirAll(d.dir, modeDir)
}

// path returns what is in the demonstration's directory.
func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

func (d *demo) show() error {
	return d.shown("One domain, one router, two nodes", d.makeDomain, d.startRouter, d.bobSends, d.aliceSends, d.lookAround)
}

// shown carries out the steps of a demonstration.
func (d *demo) shown(what string, steps ...func() error) error {
	fmt.Fprintf(d.out, "%s, all on this machine; files in %s.\n"+
		"Lines with $ are commands that do the same by hand; lines with | are what they print.\n", what, d.dir)
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("demo: step %d: %w", d.steps, err)
		}
	}
	return nil
}

// step prints the heading of a step.
func (d *demo) step(what string) {
	d.steps++
	fmt.Fprintf(d.out, "\n%d. %s\n", d.steps, what)
}

// command prints a command line as a shell takes it.
func (d *demo) command(args ...string) {
	fmt.Fprintf(d.out, "   $ %s\n", shellLine(append([]string{d.program}, args...)))
}

// printed shows what a command has printed.
func (d *demo) printed(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(d.out, "   | %s\n", strings.TrimRight(line, "\n"))
	}
}

// verb runs a verb of this program in this process and shows it.
func (d *demo) verb(args ...string) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	d.command(args...)
	var printed strings.Builder
	code := run(args, strings.NewReader(""), &printed, &printed)
	d.printed(printed.String())
	if code != exitOK {
		return fmt.Errorf("causeway %s ended with exit code %d: %s", strings.Join(args[:2], " "), code, lastLine(printed.String()))
	}
	return nil
}

// process runs this program to its end, as a process of its own, and shows it.
func (d *demo) process(args ...string) error { return d.processExits(exitOK, args...) }

// processExits is process with the exit code that is right.
func (d *demo) processExits(code int, args ...string) error {
	d.command(args...)
	printed, err := d.output(args...)
	d.printed(printed)
	var exit *exec.ExitError
	if code != exitOK && errors.As(err, &exit) && exit.ExitCode() == code {
		return nil
	}
	if err == nil && code != exitOK {
		err = fmt.Errorf("ended with exit code 0 instead of %d", code)
	}
	if err != nil {
		return fmt.Errorf("causeway %s: %w: %s", strings.Join(args[:2], " "), err, lastLine(printed))
	}
	return nil
}

// output runs this program to its end, as a process of its own.
func (d *demo) output(args ...string) (printed string, err error) {
	ctx, cancel := context.WithTimeout(d.ctx, demoStep)
	defer cancel()
	cmd, err := selfCommand(ctx, args...)
	if err != nil {
		return "", err
	}
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (d *demo) makeDomain() error {
	ca := d.path("ca")
	d.step("Make the domain " + demoDomain + ": its authority")
	if err := d.verb("pki", "init", "--domain", demoDomain, "--out", ca); err != nil {
		return err
	}
	d.step("Let the router " + demoRouter + " route for the domain, and have it trust the domain's nodes")
	if err := d.verb("pki", "grant", "--ca", ca, "--name", demoRouter, "--out", d.path("router")); err != nil {
		return err
	}
	if err := d.verb("pki", "trust", "--ca", ca, "--store", d.path("trust")); err != nil {
		return err
	}
	d.step("Certify two nodes, alice and bob (in one step; in earnest keys are made where they stay: pki request)")
	for _, name := range []string{"alice", "bob"} {
		if err := d.verb("pki", "issue", "--ca", ca, "--name", name, "--out", d.path(name)); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startRouter() error {
	d.step("Start the router, on ports that are free")
	args := func(listen, admin string) []string {
		return []string{"serve", "--identity", d.path("router"), "--trust", d.path("trust"), "--listen", "dbw://" + listen, "--admin", admin}
	}
	p, listen, admin, err := d.serve("router", args(demoAnyPort, demoAnyPort)...)
	if err != nil {
		return err
	}
	d.url, d.admin = "dbw://"+listen, admin
	d.command(args(listen, d.admin)...)
	d.printed(fmt.Sprintf("process %d listens on %s; metrics and health on http://%s; log in %s", p.pid(), d.url, d.admin, p.logFile))
	return nil
}

// serve starts a router and returns where it listens.
func (d *demo) serve(name string, args ...string) (p *demoProcess, listen, admin string, err error) {
	p, err = startDemoProcess(name, d.path(name+".log"), append(args, "--log-format", "json")...)
	if err != nil {
		return nil, "", "", err
	}
	d.routers = append(d.routers, p)
	if admin, err = p.logged(d.ctx, "admin listens", "address"); err == nil {
		listen, err = p.logged(d.ctx, "listening", "address")
	}
	return p, listen, admin, err
}

// listen has a node listen in the place of the one that did.
func (d *demo) listen(name string) error {
	if err := d.node.stop(); err != nil {
		return err
	}
	p, err := d.startListener(name, d.path(name), d.url)
	d.node = p
	return err
}

// startListener starts a node that listens, and shows it. The process is there
// with an error too, if it has been started.
func (d *demo) startListener(name, identity, url string) (p *demoProcess, err error) {
	args := []string{"node", "listen", "--identity", identity, "--connect", url, "--kind", "demo"}
	d.command(args...)
	p, err = startDemoProcess(name, d.path(name+".log"), args...)
	if err != nil {
		return nil, err
	}
	d.nodes = append(d.nodes, p)
	line, err := p.line(d.ctx, "listening as ")
	if err == nil {
		d.printed(line)
	}
	return p, err
}

// send has one node send to the one that listens, and shows what arrived.
func (d *demo) send(from, to, body string) error {
	err := d.process("node", "send", "--identity", d.path(from), "--connect", d.url, "--to", to, "--wait", body)
	if err != nil {
		return err
	}
	line, err := d.node.line(d.ctx, body)
	if err == nil {
		fmt.Fprintf(d.out, "   %s has printed\n", to)
		d.printed(line)
	}
	return err
}

func (d *demo) bobSends() error {
	d.step("alice listens, bob sends and waits until alice has seen the message")
	if err := d.listen("alice"); err != nil {
		return err
	}
	return d.send("bob", "alice", "Hello alice, this is bob.")
}

func (d *demo) aliceSends() error {
	d.step("The other way round; an identity is for one process at a time, so alice stops listening first")
	if err := d.listen("bob"); err != nil {
		return err
	}
	return d.send("alice", "bob", "Hello bob, this is alice.")
}

func (d *demo) lookAround() error {
	alice := []string{"--identity", d.path("alice"), "--connect", d.url}
	d.step("Echo: from alice to bob and back, then to the router and back")
	for _, to := range []string{"bob", "router"} {
		if err := d.process(append(append([]string{"node", "ping"}, alice...), "--to", to, "--count", "3", "--interval", "100ms")...); err != nil {
			return err
		}
	}
	d.step("Who is connected (alice is, because she asks)")
	if err := d.process(append([]string{"node", "list"}, alice...)...); err != nil {
		return err
	}
	d.step("What the router has counted")
	return d.metrics("causeway_frames_cut_total", "causeway_frames_forwarded_total", "causeway_frames_consumed_total", "causeway_connections ")
}

// metrics shows the router's counters whose names begin so.
func (d *demo) metrics(names ...string) error {
	url := "http://" + d.admin + "/metrics"
	fmt.Fprintf(d.out, "   $ curl -s %s | grep '^causeway_'\n", url)
	ctx, cancel := context.WithTimeout(d.ctx, demoStep)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	shown := 0
	for line := range strings.Lines(string(text)) {
		for _, name := range names {
			if strings.HasPrefix(line, name) {
				d.printed(line)
				shown++
			}
		}
	}
	if answer.StatusCode != http.StatusOK || shown < len(names) {
		return fmt.Errorf("%s answers %s, with %d of %d counters", url, answer.Status, shown, len(names))
	}
	fmt.Fprintln(d.out, "   | … and many more")
	return nil
}

func (d *demo) stayUp() error {
	d.step("The router and bob stay up until Ctrl-C. In another terminal:")
	d.command("node", "send", "--identity", d.path("alice"), "--connect", d.url, "--to", "bob", "--wait", "Is it you, bob?")
	return d.stay()
}

// stay keeps all of it up until a signal comes or a process dies, and shows what
// the node that listens prints.
func (d *demo) stay() error {
	fmt.Fprintln(d.out, "   What bob prints:")
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	for _, r := range d.routers {
		context.AfterFunc(r.lifetime, cancel)
	}
	for {
		line, err := d.node.line(ctx, "")
		if d.ctx.Err() != nil {
			return nil // the signal is how it is meant to end
		}
		for _, r := range d.routers {
			if r.hasEnded() {
				return r.died()
			}
		}
		if err != nil {
			return err
		}
		d.printed(line)
	}
}

// lastLine returns the last line of what a command printed.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// programName returns what to type to run this program from anywhere.
func programName() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	name := filepath.Base(self)
	found, err := exec.LookPath(name)
	if err != nil {
		return self, nil
	}
	a, errA := os.Stat(found)
	b, errB := os.Stat(self)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return name, nil
	}
	return self, nil
}

// shellLine quotes words for a POSIX shell where they need it.
func shellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.Trim(w, shellPlain) != "" {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// shellPlain are the bytes that mean themselves to every shell.
const shellPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@%+="
