package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startMax = 30 * time.Second // for a child to listen
	stopMax  = 20 * time.Second // for a child to end when asked to
	logTail  = 20               // lines kept of what a child says
	anyPort  = "127.0.0.1:0"
)

// process is a child on a core of its own. It ends with this process.
type process struct {
	name        string
	cmd         *exec.Cmd
	addr, admin string        // of a server, once it listens
	ended       chan struct{} // closed; exit is set then
	exit        error
	listening   chan struct{} // closed; addr and admin are set then

	mu   sync.Mutex
	tail []string
}

// start starts a program pinned to a core, with one P.
func start(ctx context.Context, name string, core int, program string, args ...string) *process {
	args = append([]string{"-c", strconv.Itoa(core), program}, args...)
	p := &process{name: name, ended: make(chan struct{}), listening: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, "taskset", args...) // it becomes the program, with its PID
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	return p
}

// run starts it and reads what it says on stderr.
func (p *process) run() error {
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.follow(stderr)
		p.exit = p.cmd.Wait()
		close(p.ended)
	}()
	return nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// follow reads the child's log, JSON lines, and finds where it listens.
func (p *process) follow(log io.Reader) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		p.mu.Lock()
		p.tail = append(p.tail, lines.Text())
		p.tail = p.tail[max(0, len(p.tail)-logTail):]
		p.mu.Unlock()
		var line struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch line.Msg {
		case "admin listens":
			p.admin = line.Address
		case "listening":
			p.addr = line.Address
			close(p.listening)
		}
	}
}

// awaitListening waits until the child has said where it listens.
func (p *process) awaitListening(ctx context.Context) error {
	select {
	case <-p.listening:
		return nil
	case <-p.ended:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startMax):
	}
	return p.failed(errors.New("it does not listen"))
}

// failed tells what is wrong with the child, and what it said last.
func (p *process) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("%s: %w; it said last:\n%s", p.name, err, strings.Join(p.tail, "\n"))
}

// stop asks the child to end, and waits.
func (p *process) stop() error {
	if p.cmd.Process == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(stopMax):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return p.failed(errors.New("it did not end when asked to"))
	}
	if p.exit != nil {
		return p.failed(p.exit)
	}
	return nil
}

// serveArgs is how the router at that place in a row is started. Nothing but frames
// of nodes moves while it is measured: keep-alives are far apart.
func (m *machine) serveArgs(w *world, place int, verify string) []string {
	args := []string{
		"serve", "--identity", w.router(place), "--trust", w.trust(), "--listen", "dbw://" + anyPort, "--admin", anyPort,
		"--loops", "1", "--verify", verify, "--verify-workers", strconv.Itoa(m.workers),
		"--max-connections-per-source", "0", "--max-handshakes-per-source", "0", "--max-handshake-rate", "0", // clients have few addresses
		"--keep-alive", "10m", "--dead-after", "1h", "--drain-timeout", "1s", "--log-format", "json",
	}
	return append(args, m.routerArgs...)
}

// startVariant starts the process under test of a variant.
func (m *machine) startVariant(ctx context.Context, w *world, variant string) (*process, error) {
	if isPeer(variant) {
		return m.startPeer(ctx, w, variant)
	}
	program, args := m.router, m.serveArgs(w, 0, verifyOf(variant))
	if variant == variantEcho || variant == variantForwarder {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		program, args = self, []string{verbReference, variant, w.router(0), w.trust()}
	}
	return m.startServer(ctx, variant, program, args...)
}

// startServer starts a program on the core of what is measured, and waits until
// it listens.
func (m *machine) startServer(ctx context.Context, name, program string, args ...string) (*process, error) {
	p := start(ctx, name, m.core, program, args...)
	if err := p.run(); err != nil {
		return nil, err
	}
	return p, p.awaitListening(ctx)
}

// startRouter starts the router as an operator would, with further flags.
func (m *machine) startRouter(ctx context.Context, w *world, serve []string) (*process, error) {
	args := append([]string{"serve", "--identity", w.router(0), "--trust", w.trust(),
		"--listen", "dbw://" + anyPort, "--admin", anyPort, "--log-format", "json"}, m.routerArgs...)
	return m.startServer(ctx, "router", m.router, append(args, serve...)...)
}

// startSink starts what attackers are aimed at for comparison.
func (m *machine) startSink(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return m.startServer(ctx, verbSink, self, verbSink)
}

// metrics are the samples of one scrape, name and labels as written.
type metrics map[string]float64

func (p *process) metrics() (metrics, error) {
	client := http.Client{Timeout: startMax, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + p.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	m := make(metrics)
	for line := range strings.Lines(string(text)) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if m[line[:at]], err = strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64); err != nil {
			return nil, fmt.Errorf("metric %q: %w", line, err)
		}
	}
	return m, nil
}

// dropped returns the sum over all reasons.
func (m metrics) dropped() (sum float64) {
	for name, v := range m {
		if strings.HasPrefix(name, "causeway_frames_dropped_total{") {
			sum += v
		}
	}
	return sum
}

// controller talks to the load's process.
type controller struct {
	*process
	requests *json.Encoder
	answers  *json.Decoder
	in       io.Closer
}

// startClient starts the load.
func (m *machine) startClient(ctx context.Context) (*controller, error) {
	return m.startController(ctx, verbClient)
}

// startController starts this program with the verb given on the load's core,
// through the command `through` if there is one.
func (m *machine) startController(ctx context.Context, verb string, through ...string) (*controller, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := append(through, self, verb)
	c := &controller{process: start(ctx, verb, m.loadCore, command[0], command[1:]...)}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.requests, c.answers = in, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	return c, c.run()
}

// ask has the load carry out one request.
func (c *controller) ask(r request) (a answer, err error) {
	if err = c.requests.Encode(r); err == nil {
		err = c.answers.Decode(&a)
	}
	switch {
	case err != nil:
		return a, c.failed(err)
	case a.Error != "":
		return a, fmt.Errorf("%s: %s", c.name, a.Error)
	}
	return a, nil
}

// end has the load end, and its connections with it.
func (c *controller) end() error {
	_ = c.in.Close() // it ends when it has read all
	select {
	case <-c.ended:
		return c.exit
	case <-time.After(stopMax):
		return c.stop()
	}
}
