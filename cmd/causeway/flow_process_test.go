package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

// flowNodeProgram is a process with one node that sends numbered messages to
// another at a steady rate, and counts what comes to it from one other:
//
//	flow-node IDENTITY RATE ROUTER...
//
// It reads orders and writes a report after each, as JSON lines; it ends when
// there are no more orders.
const flowNodeProgram = "flow-node"

const (
	flowTick         = 2 * time.Millisecond  // messages are due in steps of it, or one by one
	flowConfirmEvery = 20 * time.Millisecond // it has messages confirmed so often
	flowResend       = 25 * time.Second      // machines may be slow
)

// flowOrder has at most one part; without one it only asks for a report.
type flowOrder struct {
	To       *codec.Address `json:",omitempty"` // begin to send
	Stop     bool           `json:",omitempty"` // send no more, and wait for what becomes of everything sent
	Outcomes bool           `json:",omitempty"` // report the numbers of messages, too
}

// flowReport is what a node knows.
type flowReport struct {
	Address codec.Address
	Error   string `json:",omitempty"`

	Sent     uint64
	Received uint64 // different messages
	Highest  uint64 // number of the last of them, from 1
	Again    uint64 // messages that came again
	Paths    int    // into how few ascending sequences what came can be parted
	Stats    node.Stats

	// Numbers of messages, from 0, when asked for.
	Noticed, Unconfirmed, Unsent []uint64 // with that outcome
	Missing                      []uint64 // that did not come, below the highest
}

// flowNode is the process's state.
type flowNode struct {
	node *node.Node
	rate int

	mu   sync.Mutex
	sent []*node.Sent // by number
	arrivals
	failed string
	stop   chan struct{}
	done   sync.WaitGroup
}

func flowNodeMain() {
	if err := runFlowNode(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runFlowNode(args []string, stdin io.Reader, stdout io.Writer) error {
	id, err := pki.LoadIdentity(os.DirFS(args[0]))
	if err != nil {
		return err
	}
	f := &flowNode{stop: make(chan struct{})}
	if f.rate, err = strconv.Atoi(args[1]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f.node, err = node.Connect(ctx, node.Config{
		Identity: id, Routers: args[2:], Plain: true, AcceptPlain: true, ResendTime: flowResend,
		AnswerTimeout: time.Minute, DialTimeout: time.Minute, HelloTimeout: time.Minute,
	})
	if err != nil {
		return err
	}
	var receiving sync.WaitGroup
	receiving.Go(func() { f.receive(ctx) })
	orders, reports := json.NewDecoder(stdin), json.NewEncoder(stdout)
	for o := (flowOrder{}); ; {
		r := f.report()
		if o.Outcomes {
			f.outcomes(r)
		}
		if err := reports.Encode(r); err != nil {
			return err
		}
		o = flowOrder{}
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		switch {
		case o.To != nil:
			f.done.Go(func() { f.send(ctx, *o.To) })
			f.done.Go(func() { f.confirm(ctx) })
		case o.Stop:
			close(f.stop)
			f.done.Wait()
			f.resolve(ctx)
		}
	}
	err = f.node.Close()
	receiving.Wait()
	return err
}

func (f *flowNode) fail(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == "" {
		f.failed = fmt.Sprintf(format, args...)
	}
}

func (f *flowNode) send(ctx context.Context, to codec.Address) {
	tick := max(time.Second/time.Duration(f.rate), flowTick)
	next := time.NewTicker(tick)
	defer next.Stop()
	for due := 0.0; ; {
		select {
		case <-f.stop:
			return
		case <-next.C:
		}
		for due += float64(f.rate) * tick.Seconds(); due >= 1; due-- {
			s, err := f.node.Send(ctx, to, codec.CategoryApplication, binary.BigEndian.AppendUint64(nil, uint64(len(f.sent))))
			if err != nil {
				f.fail("send: %v", err)
				return
			}
			f.mu.Lock()
			f.sent = append(f.sent, s)
			f.mu.Unlock()
		}
	}
}

// confirm has the newest message confirmed, again and again, so that what is
// unconfirmed when a router dies is little.
func (f *flowNode) confirm(ctx context.Context) {
	next := time.NewTicker(flowConfirmEvery)
	defer next.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-next.C:
		}
		f.mu.Lock()
		var newest *node.Sent
		if len(f.sent) > 0 {
			newest = f.sent[len(f.sent)-1]
		}
		f.mu.Unlock()
		if newest != nil {
			_ = newest.Confirmed(ctx) // resolve looks at each
		}
	}
}

// resolve waits for the outcome of everything sent.
func (f *flowNode) resolve(ctx context.Context) {
	for i, s := range f.sent {
		var wait *node.WaitError
		if err := s.Confirmed(ctx); errors.As(err, &wait) {
			f.fail("message %d: %v", i, err)
			return
		}
	}
}

func (f *flowNode) receive(ctx context.Context) {
	for {
		m, err := f.node.Receive(ctx)
		if err != nil {
			return
		}
		f.take(binary.BigEndian.Uint64(m.Body))
	}
}

func (f *flowNode) take(number uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrivals.take(number)
}

// arrivals are the numbers of messages that have come from one sender.
type arrivals struct {
	came  []bool // by number
	got   uint64 // how many of them
	again uint64
	tails []uint64 // last numbers of ascending sequences, as few as there can be
}

func (a *arrivals) take(number uint64) {
	for uint64(len(a.came)) <= number {
		a.came = append(a.came, false)
	}
	if a.came[number] {
		a.again++
		return
	}
	a.came[number] = true
	a.got++
	// The tails descend: a number goes behind the highest that is below it.
	i, _ := slices.BinarySearchFunc(a.tails, number, func(tail, number uint64) int {
		if tail > number {
			return -1
		}
		return 1
	})
	if i == len(a.tails) {
		a.tails = append(a.tails, 0)
	}
	a.tails[i] = number
}

// report says what is known now.
func (f *flowNode) report() *flowReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &flowReport{
		Address: f.node.Address(), Error: f.failed, Sent: uint64(len(f.sent)), Received: f.got, Highest: uint64(len(f.came)),
		Again: f.again, Paths: len(f.tails), Stats: f.node.Stats(),
	}
}

// outcomes adds the numbers of messages; all that was sent is resolved.
func (f *flowNode) outcomes(r *flowReport) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.sent {
		var noticed *node.NoticeError
		var unconfirmed *node.UnconfirmedError
		var unsent *node.UnsentError
		switch err := s.Confirmed(context.Background()); {
		case errors.As(err, &noticed):
			r.Noticed = append(r.Noticed, uint64(i))
		case errors.As(err, &unconfirmed):
			r.Unconfirmed = append(r.Unconfirmed, uint64(i))
		case errors.As(err, &unsent):
			r.Unsent = append(r.Unsent, uint64(i))
		}
	}
	for i, came := range f.came {
		if !came {
			r.Missing = append(r.Missing, uint64(i))
		}
	}
}

// flowProcess is a running flow-node.
type flowProcess struct {
	t       *testing.T
	name    string
	cmd     *exec.Cmd
	orders  io.WriteCloser
	reports *json.Decoder
	address codec.Address
	log     *lines
}

// startFlowNode starts one, and waits until it is connected.
func startFlowNode(t *testing.T, dir, domain, name string, rate int, routers ...string) *flowProcess {
	t.Helper()
	path := filepath.Join(t.TempDir(), flowNodeProgram)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	p := &flowProcess{t: t, name: name, log: &lines{}}
	p.cmd = exec.Command(path, append([]string{filepath.Join(dir, domain, name), strconv.Itoa(rate)}, routers...)...)
	p.cmd.Stderr = lineWriter{p.log}
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.reports = json.NewDecoder(bufio.NewReader(out))
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	p.address = p.next().Address
	return p
}

// order has the node do something, and returns its report.
func (p *flowProcess) order(o flowOrder) *flowReport {
	p.t.Helper()
	if err := json.NewEncoder(p.orders).Encode(o); err != nil {
		p.t.Fatalf("%s: %v\n%s", p.name, err, p.log)
	}
	return p.next()
}

func (p *flowProcess) next() *flowReport {
	p.t.Helper()
	r := &flowReport{}
	if err := p.reports.Decode(r); err != nil {
		p.t.Fatalf("%s: %v\n%s", p.name, err, p.log)
	}
	if r.Error != "" {
		p.t.Fatalf("%s: %s\n%s", p.name, r.Error, p.log)
	}
	return r
}

// end has the node close, and waits for its process.
func (p *flowProcess) end() {
	p.t.Helper()
	p.orders.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s: %v\n%s", p.name, err, p.log)
	}
}

func numbers(list []uint64) string {
	text := strings.Trim(fmt.Sprint(list[:min(len(list), 10)]), "[]")
	if len(list) > 10 {
		text += " …"
	}
	return fmt.Sprintf("%d (%s)", len(list), text)
}

func TestPathsAreParted(t *testing.T) {
	check := func(want int, came ...uint64) {
		t.Helper()
		var a arrivals
		for _, n := range came {
			a.take(n)
		}
		if len(a.tails) != want {
			t.Errorf("%v: %d paths, want %d", came, len(a.tails), want)
		}
	}
	check(0)
	check(1, 0, 1, 2, 5)
	check(2, 0, 3, 1, 4, 2, 5)
	check(3, 2, 1, 0)
	check(2, 5, 6, 0, 7, 1, 8, 2)
	check(1, 0, 0, 1)
}
