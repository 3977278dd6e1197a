package main

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// gated is a writer that waits for its gate.
type gated struct {
	gate chan struct{} // closed: writes go through

	mu   sync.Mutex
	text bytes.Buffer
}

func (g *gated) Write(p []byte) (int, error) {
	<-g.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.Write(p)
}

func (g *gated) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

func TestLogLinesAreWrittenInOrderUpToTheEnd(t *testing.T) {
	open := &gated{gate: make(chan struct{})}
	close(open.gate)
	q := newLogQueue(open)
	var want strings.Builder
	for n := range 10_000 {
		line := fmt.Sprintf("line %d\n", n)
		want.WriteString(line)
		if _, err := q.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	q.close()
	if open.String() != want.String() {
		t.Errorf("%d bytes written, want %d", len(open.String()), want.Len())
	}
	q.close() // again does no harm
}

// Who does not read the log holds nobody up, costs bounded memory, and is told
// later of what it has missed.
func TestLogThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	stuck := &gated{gate: make(chan struct{})}
	q := newLogQueue(stuck)
	q.tellBy(slog.New(slog.NewTextHandler(q, nil)))
	line := bytes.Repeat([]byte("x"), 1000)
	const lines = 5 * logQueueMax / 1000
	for range lines {
		_, _ = q.Write(line)
	}
	lost := q.lost.Load()
	if kept := lines - int(lost); kept < logQueueMax/1000 || kept > 2*logQueueMax/1000+1 {
		t.Errorf("%d lines kept of %d", kept, lines)
	}
	q.close() // does not wait for ever
	close(stuck.gate)
	<-q.ended
	text := stuck.String()
	if got := strings.Count(text, "x"); got != (lines-int(lost))*1000 {
		t.Errorf("%d bytes written, %d lines lost", got, lost)
	}
	if want := fmt.Sprintf("lines=%d\n", lost); !strings.HasSuffix(text, want) {
		t.Errorf("the log ends with %q, want %q", text[max(0, len(text)-100):], want)
	}
}

// A router goes on when nobody reads its log any more, and when its reader is
// gone.
func TestRouterOutlivesTheReaderOfItsLog(t *testing.T) {
	dir := makeDomains(t, []string{"prod.example"}, []string{"one"})
	stderr, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	r := &routerProcess{t: t, ended: make(chan error, 1), log: &lines{}}
	r.cmd = exec.Command(program(t), "serve", "--identity", filepath.Join(dir, "router"), "--trust", filepath.Join(dir, "trust"),
		"--admin", "127.0.0.1:0", "--listen", "dbw://127.0.0.1:0", "--dump-dir", dumpToLog)
	r.cmd.Stderr = end
	err = r.cmd.Start()
	end.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill() })
	go func() { r.ended <- r.cmd.Wait() }()
	said := bufio.NewReader(stderr)
	for r.addr == "" {
		line, err := said.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(`msg="admin listens" address=(\S+)`).FindStringSubmatch(line); m != nil {
			r.admin = m[1]
		}
		if m := regexp.MustCompile(`msg=listening address=(\S+)`).FindStringSubmatch(line); m != nil {
			r.addr = m[1]
		}
	}
	ping := func() {
		t.Helper()
		n := r.member(dir, "prod.example", "one")
		defer n.Close()
		router, _ := n.Router()
		if _, err := n.Ping(t.Context(), router.Address, nil); err != nil {
			t.Error(err)
		}
	}
	waitUntil(t, "lines lost", func() bool {
		r.signal(syscall.SIGUSR1) // each dump is some ten thousand bytes
		return r.metrics()["causeway_log_lines_lost_total"] > 0
	})
	ping()
	stderr.Close()
	ping()
	r.signal(syscall.SIGUSR1)
	ping()
	r.stop()
}
