package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of the end-to-end tests.
const patience = 5 * time.Minute

// program returns the path of a file that is the program when executed: this
// test binary under the name that TestMain looks for. It is no symbolic link, so
// that processes which start the program again find it under that name, too.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "causeway")
	if os.Link(self, path) == nil {
		return path
	}
	binary, err := os.ReadFile(self) // the temporary directory is on another file system
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, binary, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// runs runs the program to its end and returns what it printed.
func runs(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(program(t), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("causeway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// exitOf runs the program to its end and returns what it printed, and its exit
// code.
func exitOf(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// routerProcess is a running `causeway serve`.
type routerProcess struct {
	t           *testing.T
	cmd         *exec.Cmd
	addr, admin string
	ended       chan error
	log         *lines
	http        http.Client // reaches it where it runs
}

// lines keeps the end of what a process printed.
type lines struct {
	mu   sync.Mutex
	last []string
}

func (l *lines) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last = append(l.last, s); len(l.last) > 200 {
		l.last = l.last[1:]
	}
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}

// startServe starts a router on free ports and waits until it listens.
func startServe(t *testing.T, dir string, args ...string) *routerProcess {
	t.Helper()
	return startServeOn(t, dir, append([]string{"--listen", "dbw://127.0.0.1:0"}, args...))
}

// startServeOn is startServe with the arguments saying where to listen.
func startServeOn(t *testing.T, dir string, args []string) *routerProcess {
	t.Helper()
	return startServeAt(t, (*exec.Cmd).Start, append([]string{
		"--identity", filepath.Join(dir, "router"), "--trust", filepath.Join(dir, "trust")}, args...))
}

// startServeAt is startServeOn with the arguments saying who the router is, too,
// and a function that starts the process where it belongs.
func startServeAt(t *testing.T, start func(*exec.Cmd) error, args []string) *routerProcess {
	t.Helper()
	r := &routerProcess{t: t, ended: make(chan error, 1), log: &lines{}}
	r.cmd = exec.Command(program(t), append([]string{"serve", "--admin", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(r.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill() })
	listening := make(chan struct{})
	go func() {
		s := bufio.NewScanner(stderr)
		for s.Scan() {
			r.log.add(s.Text())
			var line struct{ Msg, Address string }
			if json.Unmarshal(s.Bytes(), &line) != nil {
				continue
			}
			switch line.Msg {
			case "admin listens":
				r.admin = line.Address
			case "listening":
				if r.addr == "" { // the first of several
					r.addr = line.Address
					close(listening)
				}
			}
		}
		r.ended <- r.cmd.Wait()
	}()
	select {
	case <-listening:
	case err := <-r.ended:
		t.Fatalf("the router ended: %v\n%s", err, r.log)
	case <-time.After(time.Minute):
		t.Fatalf("the router does not listen\n%s", r.log)
	}
	return r
}

func (r *routerProcess) url() string { return "dbw://" + r.addr }

// stop sends SIGTERM and waits for the exit, which must be orderly.
func (r *routerProcess) stop() {
	r.t.Helper()
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("the router ended with %v\n%s", err, r.log)
		}
	case <-time.After(time.Minute):
		r.t.Errorf("the router does not end\n%s", r.log)
	}
}

// metrics are the samples of one scrape: name and labels as written → value.
type metrics map[string]float64

func (r *routerProcess) metrics() metrics {
	r.t.Helper()
	res, err := r.http.Get("http://" + r.admin + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	m := metrics{}
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if m[name], err = strconv.ParseFloat(value, 64); err != nil {
			r.t.Fatalf("metric %q: %v", line, err)
		}
	}
	return m
}

// dropped returns the drops by reason, and their sum.
func (m metrics) dropped() (by map[string]float64, sum float64) {
	by = map[string]float64{}
	for name, v := range m {
		if label, ok := strings.CutPrefix(name, "causeway_frames_dropped_total{reason=\""); ok && v > 0 {
			by[strings.TrimSuffix(label, "\"}")] = v
			sum += v
		}
	}
	return by, sum
}

// waitUntil waits for ok.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// makeDomains makes, with the program's own verbs, domains with nodes, a router
// with their grants, and its trust store, below a new directory:
// DOMAIN/ca, DOMAIN/NAME, router, trust.
func makeDomains(t *testing.T, domains, nodes []string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range domains {
		ca := filepath.Join(dir, d, "ca")
		runs(t, "pki", "init", "--domain", d, "--out", ca)
		runs(t, "pki", "grant", "--ca", ca, "--name", "edge-1", "--out", filepath.Join(dir, "router"))
		runs(t, "pki", "trust", "--store", filepath.Join(dir, "trust"), "--ca", ca)
		for _, n := range nodes {
			runs(t, "pki", "issue", "--ca", ca, "--name", n, "--out", filepath.Join(dir, d, n))
		}
	}
	return dir
}
