package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

const (
	drainWindow   = 50   // messages of one flow that may be under way
	drainMessages = 5000 // that each flow delivers before and after in the long form
)

// drainFlow sends numbered messages from one node to the next while their router
// is replaced. They come by two ways for a moment, so in any order.
type drainFlow struct {
	from, to *node.Node
	window   chan struct{}

	mu        sync.Mutex
	sent      uint64
	delivered map[uint64]int // times, by number
	notices   []error
}

// drainNodes are nodes in a ring of flows.
type drainNodes struct {
	t     *testing.T
	nodes []*node.Node
	flows []*drainFlow
	stop  chan struct{}
	done  sync.WaitGroup
}

func startDrainNodes(t *testing.T, ctx context.Context, dir, domain string, names []string, routers ...string) *drainNodes {
	t.Helper()
	all := &drainNodes{t: t, stop: make(chan struct{})}
	for _, name := range names {
		id, err := pki.LoadIdentity(os.DirFS(filepath.Join(dir, domain, name)))
		if err != nil {
			t.Fatal(err)
		}
		f := &drainFlow{window: make(chan struct{}, drainWindow), delivered: map[uint64]int{}}
		n, err := node.Connect(ctx, node.Config{
			Identity: id, Routers: routers, Plain: true, AcceptPlain: true, OnNotice: f.hearNotice,
			ResendTime: flowResend, AnswerTimeout: time.Minute, DialTimeout: time.Minute, HelloTimeout: time.Minute, Logger: testLogger(t, name),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		all.nodes = append(all.nodes, n)
		f.from = n
		all.flows = append(all.flows, f)
	}
	for i, f := range all.flows {
		f.to = all.nodes[(i+1)%len(all.nodes)]
	}
	for _, f := range all.flows {
		all.done.Go(func() { all.send(ctx, f) })
		all.done.Go(func() { all.receive(ctx, f) })
	}
	return all
}

// testLogger logs to the test's output when asked to.
func testLogger(t *testing.T, name string) *slog.Logger {
	if os.Getenv("CAUSEWAY_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", name)
}

func (all *drainNodes) send(ctx context.Context, f *drainFlow) {
	for {
		select {
		case <-all.stop:
			return
		case <-ctx.Done():
			all.t.Errorf("%s: sending does not end", f.from.Name())
			return
		case f.window <- struct{}{}:
		}
		if _, err := f.from.Send(ctx, f.to.Address(), codec.CategoryApplication, binary.BigEndian.AppendUint64(nil, f.sent)); err != nil {
			all.t.Errorf("%s: send: %v", f.from.Name(), err)
			return
		}
		f.mu.Lock()
		f.sent++
		f.mu.Unlock()
	}
}

func (all *drainNodes) receive(ctx context.Context, f *drainFlow) {
	for {
		m, err := f.to.Receive(ctx)
		if err != nil {
			return
		}
		number := binary.BigEndian.Uint64(m.Body)
		f.mu.Lock()
		f.delivered[number]++
		again := f.delivered[number] > 1
		f.mu.Unlock()
		if !again {
			<-f.window
		}
	}
}

// hearNotice is the sender's Config.OnNotice.
func (f *drainFlow) hearNotice(e *node.NoticeError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notices = append(f.notices, e)
}

// sent returns how many messages Send has taken.
func (all *drainNodes) sent() (n uint64) {
	for _, f := range all.flows {
		f.mu.Lock()
		n += f.sent
		f.mu.Unlock()
	}
	return n
}

// settled tells whether all messages are delivered, or one never will be.
func (f *drainFlow) settled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.delivered)) == f.sent || len(f.notices) > 0
}

// moved returns a condition: every flow has delivered so many more.
func (all *drainNodes) moved(by int) func() bool {
	count := func(f *drainFlow) int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.delivered)
	}
	var from []int
	for _, f := range all.flows {
		from = append(from, count(f))
	}
	return func() bool {
		for i, f := range all.flows {
			if count(f) < from[i]+by {
				return false
			}
		}
		return true
	}
}

// check ends the flows and asserts that every message that Send took was
// delivered, once, and nobody was told otherwise. It returns how many.
func (all *drainNodes) check(end context.CancelFunc) (sent uint64) {
	all.t.Helper()
	close(all.stop)
	for _, f := range all.flows {
		waitUntil(all.t, "all messages are delivered", f.settled)
	}
	end()
	all.done.Wait()
	for _, f := range all.flows {
		name := f.from.Name()
		for number, times := range f.delivered {
			if times != 1 {
				all.t.Errorf("%s: message %d was delivered %d times", name, number, times)
			}
		}
		if uint64(len(f.delivered)) != f.sent || len(f.notices) > 0 {
			all.t.Errorf("%s: %d sent, %d delivered, notices %v", name, f.sent, len(f.delivered), f.notices)
		}
		s := f.from.Stats()
		delete(s.Dropped, "duplicate") // of messages that were sent again
		if s.Unconfirmed != 0 || len(s.Dropped) != 0 || s.Connections != 2 {
			all.t.Errorf("%s: %+v", name, s)
		}
		sent += f.sent
	}
	return sent
}

// A router is stopped under load: all nodes move to the other one, and no message
// is lost.
func TestAStoppedRouterHandsItsNodesOverUnderLoad(t *testing.T) {
	const domain, nodes = "prod.example", 8
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("node-%d", i))
	}
	dir := makeDomains(t, []string{domain}, names)
	runs(t, "pki", "grant", "--ca", filepath.Join(dir, domain, "ca"), "--name", "edge-2", "--out", filepath.Join(dir, "router-2"))
	load := startSoakLoad(t)
	second := startCapped(t, dir, "--identity", filepath.Join(dir, "router-2"))
	first := startCapped(t, dir, "--drain-to", second.url(), "--drain-timeout", "1m")
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	all := startDrainNodes(t, ctx, dir, domain, names, first.url())
	messages := 200
	if soaking() {
		messages = drainMessages
	}
	waitUntil(t, "traffic", all.moved(messages))
	first.signal(syscall.SIGTERM)
	waitUntil(t, "all nodes at the other router", func() bool {
		return second.metrics()[`causeway_nodes{domain="prod.example"}`] == nodes
	})
	waitUntil(t, "traffic there", all.moved(messages))
	select {
	case err := <-first.ended:
		if err != nil {
			t.Errorf("the first router ended with %v\n%s", err, first.log)
		}
	case <-time.After(patience):
		t.Fatalf("the first router does not end\n%s", first.log)
	}
	if !first.logged(`"drained"`, fmt.Sprintf(`"answered":%d,"closed":0,"ended":0,"late":0,"frames_not_handed_over":0,"frames_unnoticed":0`, nodes)) {
		t.Errorf("the first router's log:\n%s", first.log)
	}
	load.end(all.sent())
	sent := all.check(end)
	t.Logf("%d messages", sent)
	memory := withinCap(t, nodes, first, second)
	reportSoak(t, "handed over", fmt.Sprintf("a router that was told of another one (--drain-to) gets SIGTERM, without a link between them. %d nodes, %d messages of each under way: %v", nodes, drainWindow, load),
		soakRow{"every message that Send took is delivered, once, and nobody is told otherwise", fmt.Sprintf("%d messages", sent)},
		memory)
	for _, n := range all.nodes {
		n.Close()
	}
	second.stop()
}
