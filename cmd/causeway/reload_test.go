package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

// member is a node of this process, of a domain that makeDomains made.
func (r *routerProcess) member(dir, domain, name string) *node.Node {
	r.t.Helper()
	id, err := pki.LoadIdentity(os.DirFS(filepath.Join(dir, domain, name)))
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	n, err := node.Connect(ctx, node.Config{Identity: id, Routers: []string{r.url()}, Plain: true, AcceptPlain: true})
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.log)
	}
	r.t.Cleanup(func() { n.Close() })
	return n
}

// logged tells whether the router's log has a line with all of the words.
func (r *routerProcess) logged(words ...string) bool {
	for line := range strings.Lines(r.log.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

func (r *routerProcess) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

const (
	flowWindow = 50  // frames of one flow that may be under way
	flowTurns  = 250 // of sending a second, where a flow has a rate
)

// flow sends numbered frames from one node to another until stopped, and checks
// that all arrive, once and in order.
type flow struct {
	from, to *node.Node
	sent     atomic.Uint64
	received atomic.Uint64
	problem  atomic.Pointer[string]
	stop     chan struct{}
	sending  sync.WaitGroup // ends after stop
	done     sync.WaitGroup // ends with the context or the nodes
}

func startFlow(ctx context.Context, from, to *node.Node) *flow {
	return startFlowAt(ctx, from, to, 0)
}

// startFlowAt is startFlow with so many frames a second, at most; 0: as many as
// there can be.
func startFlowAt(ctx context.Context, from, to *node.Node, perSecond int) *flow {
	f := &flow{from: from, to: to, stop: make(chan struct{})}
	window := make(chan struct{}, flowWindow)
	f.sending.Go(func() {
		for {
			select {
			case <-f.stop:
				return
			case <-ctx.Done():
				f.fail("sending ends: %v", ctx.Err())
				return
			case window <- struct{}{}:
			}
			if perSecond > 0 && f.sent.Load()%uint64(perSecond/flowTurns) == 0 {
				time.Sleep(time.Second / flowTurns)
			}
			body := binary.BigEndian.AppendUint64(nil, f.sent.Add(1))
			if _, err := from.Send(ctx, to.Address(), codec.CategoryApplication, body); err != nil {
				f.fail("send: %v", err)
				return
			}
		}
	})
	f.done.Go(func() {
		for {
			m, err := to.Receive(ctx)
			if err != nil {
				return
			}
			if got, want := binary.BigEndian.Uint64(m.Body), f.received.Add(1); got != want {
				f.fail("frame %d came as number %d", got, want)
				return
			}
			<-window
		}
	})
	return f
}

func (f *flow) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.problem.CompareAndSwap(nil, &text)
}

// check stops all flows and asserts that nothing was lost and no connection
// closed.
func checkFlows(t *testing.T, end context.CancelFunc, flows []*flow) {
	t.Helper()
	for _, f := range flows {
		close(f.stop)
	}
	for _, f := range flows {
		f.sending.Wait()
		deadline := time.Now().Add(patience)
		for f.received.Load() < f.sent.Load() && f.problem.Load() == nil && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if p := f.problem.Load(); p != nil {
			t.Errorf("%s to %s: %s", f.from.Name(), f.to.Name(), *p)
		}
		if sent, received := f.sent.Load(), f.received.Load(); sent != received || sent == 0 {
			t.Errorf("%s to %s: %d sent, %d received; %+v", f.from.Name(), f.to.Name(), sent, received, f.to.Stats())
		}
		if s := f.from.Stats(); s.Connections != 1 || s.Unconfirmed != 0 {
			t.Errorf("%s: %+v", f.from.Name(), s)
		}
	}
	end()
	for _, f := range flows {
		f.done.Wait()
	}
}

// expelMax is how long after a reload a connection may last that it ends. A second
// is for machines with nothing else to do, where the load is all there is.
func expelMax() time.Duration {
	if soaking() {
		return time.Second
	}
	return 15 * time.Second
}

// Rates of the long forms, of each flow.
const (
	revokedRate = 1000
	renewedRate = 4000
)

func TestRevokedUnderLoadIsGoneWithinASecondAndOthersLoseNothing(t *testing.T) {
	const domain, nodes = "prod.example", 10
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("node-%d", i))
	}
	dir := makeDomains(t, []string{domain}, names)
	load := startSoakLoad(t)
	r := startCapped(t, dir)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	rate, messages := 0, uint64(100)
	if soaking() {
		rate, messages = revokedRate, 5*revokedRate
	}
	victim := r.member(dir, domain, names[0])
	var others []*node.Node
	for _, name := range names[1:] {
		others = append(others, r.member(dir, domain, name))
	}
	var flows []*flow
	for i, n := range others {
		flows = append(flows, startFlowAt(ctx, n, others[(i+1)%len(others)], rate))
	}
	mine := startFlowAt(ctx, victim, victim, rate)
	moved := func(by uint64) func() bool {
		var from []uint64
		for _, f := range flows {
			from = append(from, f.received.Load())
		}
		return func() bool {
			for i, f := range flows {
				if f.received.Load() < from[i]+by {
					return false
				}
			}
			return true
		}
	}
	waitUntil(t, "traffic", moved(messages))
	ca := filepath.Join(dir, domain, "ca")
	runs(t, "pki", "revoke", "--ca", ca, "--name", names[0])
	runs(t, "pki", "trust", "--store", filepath.Join(dir, "trust"), "--ca", ca)
	asked := time.Now()
	r.signal(syscall.SIGHUP)
	waitUntil(t, "the revoked node gone", func() bool { _, there := victim.Router(); return !there })
	took := time.Since(asked)
	if took > expelMax() {
		t.Errorf("gone %v after the reload was asked for", took)
	}
	waitUntil(t, "traffic after that", moved(messages))
	waitUntil(t, "its new connections refused", func() bool { return r.metrics()[`causeway_handshakes_refused_total{reason="revoked"}`] > 0 })
	if m := r.metrics(); m[`causeway_nodes{domain="prod.example"}`] != nodes-1 || m[`causeway_reloads_total{result="ok"}`] != 1 ||
		m[`causeway_config_changes_total{domain="prod.example",key="crl"}`] != 1 {
		t.Errorf("metrics: %v", m)
	}
	if !r.logged(`"changed"`, `"key":"crl"`, `"domain":"prod.example"`, `"from":"1"`, `"to":"2"`) {
		t.Errorf("the log does not say which list has come:\n%s", r.log)
	}
	sent, _ := movedBy(flows)
	load.end(sent)
	checkFlows(t, end, flows)
	sent, received := movedBy(flows)
	memory := withinCap(t, nodes, r)
	reportSoak(t, "revoked", "a node's certificate is revoked and the list reloaded. "+fmt.Sprintf("%d flows: %v", len(flows), load),
		soakRow{fmt.Sprintf("it is gone within %v", expelMax()), fmt.Sprint("after ", took.Round(time.Millisecond))},
		soakRow{"the others lose nothing, in order, on the connections they have", fmt.Sprintf("%d frames sent, %d received", sent, received)},
		memory)
	close(mine.stop)
	mine.sending.Wait()
	mine.done.Wait()
	victim.Close()
	for _, n := range others {
		n.Close()
	}
	r.stop()
}

// Files are noticed without a signal, however they come to be there; broken
// ones are told of and change nothing.
func TestChangedFilesAreNoticedAndBrokenOnesChangeNothing(t *testing.T) {
	dir := makeDomains(t, []string{"prod.example"}, []string{"one"})
	r := startServe(t, dir)
	n := r.member(dir, "prod.example", "one")
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	flows := []*flow{startFlow(ctx, n, n)}

	// A list half written, then whole.
	lists, err := filepath.Glob(filepath.Join(dir, "trust", "prod.example", "*.crl"))
	if err != nil || len(lists) != 1 {
		t.Fatalf("lists: %v, %v", lists, err)
	}
	good, err := os.ReadFile(lists[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lists[0], good[:len(good)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the broken file told of", func() bool { return r.logged("reload failed", filepath.Base(lists[0])) })
	if m := r.metrics(); m[`causeway_reloads_total{result="failed"}`] < 1 || m["causeway_nodes{domain=\"prod.example\"}"] != 1 {
		t.Errorf("metrics: %v", m)
	}
	if err := os.WriteFile(lists[0], good, 0o644); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the whole file read", func() bool { return r.metrics()[`causeway_reloads_total{result="unchanged"}`] >= 1 })

	// Another domain, and another node in it.
	ca := filepath.Join(dir, "lab.example", "ca")
	runs(t, "pki", "init", "--domain", "lab.example", "--out", ca)
	runs(t, "pki", "issue", "--ca", ca, "--name", "two", "--out", filepath.Join(dir, "lab.example", "two"))
	runs(t, "pki", "trust", "--store", filepath.Join(dir, "trust"), "--ca", ca)
	runs(t, "pki", "grant", "--ca", ca, "--name", "edge-1", "--out", filepath.Join(dir, "router"))
	waitUntil(t, "the new domain served", func() bool { return r.logged(`"key":"domain"`, "lab.example", `"to":"served"`) })
	two := r.member(dir, "lab.example", "two")

	// A renewed grant.
	runs(t, "pki", "renew", "--ca", filepath.Join(dir, "prod.example", "ca"), "--identity", filepath.Join(dir, "router"), "--validity", "60d")
	waitUntil(t, "the grant renewed", func() bool { return r.logged(`"key":"grant"`, "prod.example") })

	// A domain that is no longer trusted, its directory moved away.
	if err := os.Rename(filepath.Join(dir, "trust", "lab.example"), filepath.Join(dir, "was-lab")); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the removed domain's node gone", func() bool { _, there := two.Router(); return !there })
	waitUntil(t, "its metrics gone", func() bool { _, there := r.metrics()[`causeway_nodes{domain="lab.example"}`]; return !there })
	checkFlows(t, end, flows)
	two.Close()
	n.Close()
	r.stop()
}

// A file that can't be read to its end, here one that nobody writes, keeps a
// router neither from serving nor from being stopped.
func TestReloadThatHangsHoldsNobodyUp(t *testing.T) {
	dir := makeDomains(t, []string{"prod.example"}, []string{"one"})
	r := startServe(t, dir)
	n := r.member(dir, "prod.example", "one")
	if err := syscall.Mkfifo(filepath.Join(dir, "trust", "prod.example", "more.crt"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP)
	waitUntil(t, "the reload begun", func() bool { return r.logged("reloading", "SIGHUP") })
	router, _ := n.Router()
	if _, err := n.Ping(t.Context(), router.Address, nil); err != nil {
		t.Error(err)
	}
	n.Close()
	r.stop()
}

func TestListenToNeedsARestartAndCutoffDoesNot(t *testing.T) {
	dir := makeDomains(t, []string{"prod.example"}, []string{"one"})
	file := filepath.Join(dir, "node.connections")
	write := func(cutoff, listen string) {
		t.Helper()
		text := fmt.Sprintf(`{"versionCutoff": %q, "nodeCost": "0", "listenTo": [%q], "connectTo": []}`, cutoff, listen)
		if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("", "dbw://127.0.0.1:0")
	r := startServeOn(t, dir, []string{"--connections", file})
	write("9.0.0", "dbw://127.0.0.2:0")
	waitUntil(t, "both told of", func() bool {
		return r.logged("versionCutoff", `"to":"9.0.0"`) && r.logged("listenTo", "127.0.0.2", `"needs_restart":true`)
	})
	out, _ := exitOf(t, "node", "ping", "--identity", filepath.Join(dir, "prod.example", "one"), "--connect", r.url(), "--to", "router", "--count", "1")
	if !strings.Contains(out, "9.0.0 and newer") {
		t.Errorf("an old node's ping says %s", out)
	}
	r.stop()
}

// Certificates that are renewed while they are in use, and end while the
// connections go on, cost no connection and no frame: of nodes whose program
// renews them, of one that notices its files, and of the router.
func TestRenewedUnderLoadKeepsConnectionsAndLosesNothing(t *testing.T) {
	const domain = "prod.example"
	every, validity, length := time.Second, 15*time.Second, 16*time.Second
	switch {
	case soaking():
		every, validity, length = 10*time.Second, 25*time.Second, time.Minute
	case raceEnabled: // programs that notice a renewal take their time
		validity, length = 25*time.Second, 26*time.Second
	}
	dir := makeDomains(t, []string{domain}, []string{"a", "b", "listener"})
	ca := filepath.Join(dir, domain, "ca")
	names := []string{filepath.Join(domain, "a"), filepath.Join(domain, "b"), filepath.Join(domain, "listener"), "router"}
	renewAll := func() {
		for _, name := range names {
			causeway(t, strings.Join([]string{"pki renew --ca", ca, "--identity", filepath.Join(dir, name), "--validity", validity.String()}, " "))
		}
	}
	renewAll()
	load := startSoakLoad(t)
	r := startCapped(t, dir)
	listener := r.listen(dir, domain, "listener")
	a, b := r.member(dir, domain, "a"), r.member(dir, domain, "b")
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	rate := 0
	if soaking() {
		rate = renewedRate
	}
	flows := []*flow{startFlowAt(ctx, a, b, rate), startFlowAt(ctx, b, a, rate)}
	toListener := 0
	next := time.NewTicker(every)
	defer next.Stop()
	rounds := 0
	for begun := time.Now(); time.Since(begun) < length; rounds++ { // the first certificates end meanwhile
		<-next.C
		renewAll()
		for name, n := range map[string]*node.Node{"a": a, "b": b} {
			id, err := pki.LoadIdentity(os.DirFS(filepath.Join(dir, domain, name)))
			if err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "the renewal", func() bool {
				err := n.Renew(id)
				if err != nil && !errors.Is(err, node.ErrRenewedTooOften) {
					t.Fatal(err)
				}
				return err == nil
			})
		}
		sent, err := a.Send(ctx, listener.address, codec.CategoryApplication, fmt.Appendf(nil, "number %d", toListener))
		if err != nil {
			t.Fatal(err)
		}
		if err := sent.Seen(ctx); err != nil {
			t.Errorf("message %d to the listener: %v", toListener, err)
		}
		toListener++
	}
	sent, _ := movedBy(flows)
	load.end(sent)
	checkFlows(t, end, flows)
	if got := listener.messages(); got != toListener || listener.told("connection lost") {
		t.Errorf("the listener has %d of %d messages\n%s", got, toListener, listener.log)
	}
	if by, sum := r.metrics().dropped(); sum != 0 {
		t.Errorf("the router dropped %v", by)
	}
	grants := r.metrics()[`causeway_config_changes_total{domain="prod.example",key="grant"}`]
	if grants == 0 {
		t.Error("the router has not taken its renewed grant")
	}
	sent, received := movedBy(flows)
	memory := withinCap(t, len(names)-1, r)
	reportSoak(t, "renewed", fmt.Sprintf("all certificates are renewed every %v, %d times, and are valid for %v. %d flows: %v", every, rounds, validity, len(flows), load),
		soakRow{"nothing is lost, in order", fmt.Sprintf("%d frames sent, %d received; %d of %d messages to a listener", sent, received, listener.messages(), toListener)},
		soakRow{"no connection is closed", fmt.Sprintf("%.0f connections made in all, %.0f grants taken", r.metrics()["causeway_handshakes_total"], grants)},
		memory)
	a.Close()
	b.Close()
	r.stop()
}

// listenerProcess is a running `causeway node listen`.
type listenerProcess struct {
	address codec.Address
	log     *lines // stderr
	out     *lines
}

func (l *listenerProcess) messages() int { return strings.Count(l.out.String(), ": number ") }

func (l *listenerProcess) told(what string) bool { return strings.Contains(l.log.String(), what) }

// listen starts a listener, and ends it with the test.
func (r *routerProcess) listen(dir, domain, name string) *listenerProcess {
	r.t.Helper()
	id, err := pki.LoadIdentity(os.DirFS(filepath.Join(dir, domain, name)))
	if err != nil {
		r.t.Fatal(err)
	}
	l := &listenerProcess{address: id.Peer.Address, log: &lines{}, out: &lines{}}
	cmd := exec.Command(program(r.t), "node", "listen", "--identity", filepath.Join(dir, domain, name), "--connect", r.url(), "--accept-plain")
	cmd.Stdout, cmd.Stderr = lineWriter{l.out}, lineWriter{l.log}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	waitUntil(r.t, "the listener listens", func() bool { return l.told("listening as") })
	return l
}

// lineWriter keeps what is written to it.
type lineWriter struct{ to *lines }

func (w lineWriter) Write(p []byte) (int, error) {
	w.to.add(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
