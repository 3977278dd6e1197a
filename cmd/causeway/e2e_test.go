package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

// The load of TestFiftyNodesInTwoDomains.
const (
	loadNodes       = 25   // per domain
	loadLargeEvery  = 1000 // one of so many is of 1 MiB: 200 in all
	loadEmptyEvery  = 97   // one of so many is empty
	loadBodyMax     = 4 << 10
	loadForeignEach = 5 // frames of each node to an address of the other domain

	// loadFlying is how many frames of a domain may be under way: the load does
	// what applications do that must lose nothing with plain messages, which have no credit.
	loadFlying = 2000
)

// loadFrames returns how many frames each node sends. The race detector makes
// each ten times dearer; it looks at the order of things, not at their number, as
// does -short.
func loadFrames() int {
	if raceEnabled || testing.Short() {
		return 1000
	}
	return 4000
}

// loadEnv makes TestLoadProcess run one domain's nodes.
const loadEnv = "CAUSEWAY_LOAD"

// loadOrder is what a load process is told; loadReport what it answers.
type loadOrder struct {
	Dir, Domain, Router string
	Nodes               []string
	Foreign             codec.Address
	Frames              int // that each node sends
}

type loadReport struct {
	Sent, Received uint64
	Foreign        uint64 // frames to the other domain that were noticed "not permitted"
	Problems       []string
}

// TestFiftyNodesInTwoDomains is the main job under load: real processes, real
// certificates, every frame verified.
func TestFiftyNodesInTwoDomains(t *testing.T) {
	domains := []string{"prod.example", "lab.example"}
	var names []string
	for i := range loadNodes {
		names = append(names, fmt.Sprintf("node-%02d", i))
	}
	dir := makeDomains(t, domains, names)
	r := startServe(t, dir, "--verify", "all", "--pause-max", "4m")
	goroutines := r.metrics()["go_goroutines"]
	var loads []*loadProcess
	for i, d := range domains {
		other, err := pki.LoadIdentity(os.DirFS(filepath.Join(dir, domains[1-i], names[0])))
		if err != nil {
			t.Fatal(err)
		}
		loads = append(loads, startLoad(t, loadOrder{Dir: dir, Domain: d, Router: r.url(), Nodes: names, Foreign: other.Peer.Address, Frames: loadFrames()}))
	}
	for _, l := range loads {
		l.expect("connected")
	}
	if m := r.metrics(); m["causeway_connections"] != 2*loadNodes {
		t.Errorf("%v connections", m["causeway_connections"])
	}
	for _, l := range loads {
		l.tell("go")
	}
	var sum loadReport
	for i, l := range loads {
		var report loadReport
		if err := json.Unmarshal([]byte(l.expect("{")), &report); err != nil {
			t.Fatal(err)
		}
		for _, p := range report.Problems {
			t.Errorf("%s: %s", domains[i], p)
		}
		sum.Sent += report.Sent
		sum.Received += report.Received
		sum.Foreign += report.Foreign
	}
	checkLoad(t, r, sum)
	for _, l := range loads {
		l.tell("leave")
		l.wait()
	}
	waitUntil(t, "all connections are gone", func() bool { return r.metrics()["causeway_connections"] == 0 })
	waitUntil(t, "no goroutine is left of the load", func() bool { return r.metrics()["go_goroutines"] <= goroutines+2 })
	r.stop()
}

// checkLoad asserts the equation of the router's counters, and that the
// receivers counted the same.
func checkLoad(t *testing.T, r *routerProcess, sum loadReport) {
	t.Helper()
	all := uint64(2 * loadNodes * loadFrames())
	if sum.Sent != all || sum.Received != all {
		t.Errorf("sent %d, received %d, want %d", sum.Sent, sum.Received, all)
	}
	if want := uint64(2 * loadNodes * loadForeignEach); sum.Foreign != want {
		t.Errorf("%d frames to the other domain were noticed, want %d", sum.Foreign, want)
	}
	waitUntil(t, "all buffers came back", func() bool { return r.metrics()["causeway_buffers"] == 0 })
	var m metrics
	waitUntil(t, "cut = forwarded + consumed + dropped", func() bool { // a keep-alive may be under way
		m = r.metrics()
		_, dropped := m.dropped()
		return m["causeway_frames_cut_total"] == m["causeway_frames_forwarded_total"]+m["causeway_frames_consumed_total"]+dropped
	})
	by, dropped := m.dropped()
	if by["foreign-domain"] != float64(sum.Foreign) || dropped != float64(sum.Foreign) {
		t.Errorf("dropped: %v", by)
	}
	forwarded := m["causeway_frames_forwarded_total"]
	if forwarded != float64(all) {
		t.Errorf("forwarded %v, receivers counted %d", forwarded, sum.Received)
	}
	if m["causeway_verify_seconds_count"] == 0 || m["causeway_nodes{domain=\"prod.example\"}"] != loadNodes {
		t.Error("verification or nodes are not on /metrics")
	}
	t.Logf("%v frames forwarded in %.1f CPU seconds of the router", forwarded, m["process_cpu_seconds_total"])
}

// loadProcess is a child that runs one domain's nodes.
type loadProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	after *time.Timer
}

func startLoad(t *testing.T, order loadOrder) *loadProcess {
	t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	l := &loadProcess{t: t, cmd: exec.Command(os.Args[0], "-test.run=^TestLoadProcess$", "-test.timeout=10m")}
	l.cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	l.cmd.Stderr = os.Stderr
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.out = bufio.NewReader(out)
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.after = time.AfterFunc(patience, func() { l.cmd.Process.Kill() })
	t.Cleanup(func() { l.after.Stop(); l.cmd.Process.Kill() })
	return l
}

func (l *loadProcess) tell(word string) {
	if _, err := io.WriteString(l.in, word+"\n"); err != nil {
		l.t.Fatal(err)
	}
}

// expect returns the child's next line, which must begin with the word.
func (l *loadProcess) expect(word string) string {
	l.t.Helper()
	line, err := l.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, word) {
		l.t.Fatalf("load process: %q, %v; want %q", line, err, word)
	}
	return line
}

func (l *loadProcess) wait() {
	l.t.Helper()
	io.Copy(io.Discard, l.out)
	if err := l.cmd.Wait(); err != nil {
		l.t.Errorf("load process: %v", err)
	}
}

// TestLoadProcess does nothing unless TestFiftyNodesInTwoDomains has started
// this process for it.
func TestLoadProcess(t *testing.T) {
	text := os.Getenv(loadEnv)
	if text == "" {
		return
	}
	var order loadOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	in := bufio.NewReader(os.Stdin)
	l := newLoad(t, ctx, order)
	fmt.Println("connected")
	readWord(t, in, "go")
	report, err := json.Marshal(l.run(ctx))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(report))
	readWord(t, in, "leave")
	for _, n := range l.nodes {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

func readWord(t *testing.T, in *bufio.Reader, want string) {
	t.Helper()
	if line, err := in.ReadString('\n'); err != nil || line != want+"\n" {
		t.Fatalf("told %q, %v; want %q", line, err, want)
	}
}

// load is one domain's nodes and what they have seen.
type load struct {
	order    loadOrder
	nodes    []*node.Node
	sent     atomic.Uint64
	received atomic.Uint64
	foreign  atomic.Uint64
	flying   chan struct{} // one item per frame under way

	mu       sync.Mutex
	problems []string
}

func newLoad(t *testing.T, ctx context.Context, order loadOrder) *load {
	l := &load{order: order, flying: make(chan struct{}, loadFlying)}
	for _, name := range order.Nodes {
		id, err := pki.LoadIdentity(os.DirFS(filepath.Join(order.Dir, order.Domain, name)))
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.Connect(ctx, node.Config{Identity: id, Routers: []string{order.Router}, Plain: true, AcceptPlain: true,
			AnswerTimeout: time.Minute}) // on a machine that is busy with all of this
		if err != nil {
			t.Fatal(err)
		}
		l.nodes = append(l.nodes, n)
	}
	return l
}

func (l *load) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) < 20 {
		l.problems = append(l.problems, fmt.Sprintf(format, args...))
	}
}

// run sends and receives everything.
func (l *load) run(ctx context.Context) loadReport {
	receiving, stop := context.WithCancel(ctx)
	var senders, receivers sync.WaitGroup
	for i, n := range l.nodes {
		receivers.Go(func() { l.receive(receiving, n) })
		senders.Go(func() { l.send(ctx, n, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	senders.Wait()
	l.settle(ctx)
	stop()
	receivers.Wait()
	for _, n := range l.nodes {
		if s := n.Stats(); l.received.Load() != l.sent.Load() {
			l.problem("%s: %+v", n.Name(), s)
		}
	}
	return loadReport{Sent: l.sent.Load(), Received: l.received.Load(), Foreign: l.foreign.Load(), Problems: l.problems}
}

// settleMax is how long nothing may come before what is missing counts as lost.
const settleMax = 30 * time.Second

// settle waits until all that was sent has been received, or nothing more comes.
func (l *load) settle(ctx context.Context) {
	before, since := l.received.Load(), time.Now()
	for ctx.Err() == nil && before < l.sent.Load() && time.Since(since) < settleMax {
		time.Sleep(10 * time.Millisecond)
		if now := l.received.Load(); now != before {
			before, since = now, time.Now()
		}
	}
}

// send sends a node's frames. A body that is not empty begins with its number
// among the sender's frames to that recipient.
func (l *load) send(ctx context.Context, n *node.Node, r *rand.Rand) {
	numbers := make([]uint64, len(l.nodes))
	body := make([]byte, codec.BodyMaxDefault)
	for i := range l.order.Frames {
		to := r.IntN(len(l.nodes))
		numbers[to]++
		size := 8 + r.IntN(loadBodyMax-8)
		switch {
		case i%loadLargeEvery == loadLargeEvery-1:
			size = len(body)
		case i%loadEmptyEvery == 0:
			size = 0
		}
		binary.BigEndian.PutUint64(body, numbers[to])
		select {
		case l.flying <- struct{}{}:
		case <-time.After(settleMax):
			l.problem("%s: nothing arrives any more, before frame %d", n.Name(), i)
			return
		}
		sent, err := n.Send(ctx, l.nodes[to].Address(), codec.CategoryApplication, body[:size])
		if err != nil {
			l.problem("%s: send %d: %v", n.Name(), i, err)
			return
		}
		l.sent.Add(1)
		if i == l.order.Frames-1 {
			if err := sent.Confirmed(ctx); err != nil {
				l.problem("%s: the last frame: %v", n.Name(), err)
			}
		}
	}
	for range loadForeignEach {
		l.sendForeign(ctx, n)
	}
}

func (l *load) sendForeign(ctx context.Context, n *node.Node) {
	sent, err := n.Send(ctx, l.order.Foreign, codec.CategoryApplication, []byte("across"))
	if err != nil {
		l.problem("%s: %v", n.Name(), err)
		return
	}
	var notice *node.NoticeError
	if err := sent.Confirmed(ctx); !errors.As(err, &notice) || notice.Reason != codec.NoticeNotPermitted {
		l.problem("%s: a frame to the other domain: %v", n.Name(), err)
		return
	}
	l.foreign.Add(1)
}

// receive checks that what comes from each sender comes once and in order.
func (l *load) receive(ctx context.Context, n *node.Node) {
	type last struct{ number, sendTime uint64 }
	seen := map[codec.Address]last{}
	for {
		m, err := n.Receive(ctx)
		if err != nil {
			if !errors.Is(err, context.Canceled) && ctx.Err() == nil {
				l.problem("%s: receive: %v", n.Name(), err)
			}
			return
		}
		before := seen[m.From]
		now := last{before.number + 1, m.SendTime}
		if m.SendTime <= before.sendTime {
			l.problem("%s: a frame from %s out of order or twice", n.Name(), m.FromName)
		}
		if len(m.Body) > 0 {
			if number := binary.BigEndian.Uint64(m.Body); number != now.number {
				l.problem("%s: frame %d from %s came as number %d", n.Name(), number, m.FromName, now.number)
			}
		}
		if codec.Address(m.From).Prefix() != n.Address().Prefix() {
			l.problem("%s: a frame from another domain", n.Name())
		}
		seen[m.From] = now
		l.received.Add(1)
		<-l.flying
	}
}
