package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

// traffic is numbered messages between the nodes of a mesh, and what became of
// each: what its sender was told, and whether it came.
type traffic struct {
	mesh  *mesh
	nodes []*trafficNode
	flows []*trafficFlow

	ctx                context.Context
	cancel             context.CancelFunc
	stop               chan struct{} // closed: send no more
	sending, receiving sync.WaitGroup

	mu      sync.Mutex
	problem []string
}

// trafficNode is one node.
type trafficNode struct {
	*node.Node
	router int // that it connected to first
	in     map[codec.Address]*trafficFlow
	newest atomic.Pointer[node.Sent]
}

// trafficFlow is the messages of one node to another, at a steady rate. They are
// due by the clock: a sender that was held up sends what it has missed, up to a
// second of it.
type trafficFlow struct {
	from      *trafficNode
	to        *trafficNode // nil: a recipient that tells nobody what comes
	recipient codec.Address
	rate      int         // messages a second
	size      int         // of bodies, at least 8 bytes
	quiet     atomic.Bool // nothing is due now

	mu   sync.Mutex
	sent []postedMessage // by number
	arrivals
}

type postedMessage struct {
	*node.Sent
	at time.Time // before Send was called
}

func (f *trafficFlow) String() string {
	to := f.recipient.String()
	if f.to != nil {
		to = f.to.Name()
	}
	return fmt.Sprintf("%s/%s → %s", f.from.Domain(), f.from.Name(), to)
}

// startTraffic connects all nodes of the plan and waits until each can reach those
// that it will send to: the next one of its domain, and one that is half the list
// away.
func startTraffic(m *mesh, rate, size int) *traffic {
	m.t.Helper()
	tr := newTraffic(m)
	for _, d := range m.plan.domains {
		members := tr.connectAll(d)
		for i, from := range members {
			for _, away := range []int{1, len(members) / 2} {
				tr.addFlow(from, members[(i+away)%len(members)], rate, size)
			}
		}
	}
	tr.reachable()
	return tr
}

// trafficAhead is how many messages may come before Send has returned for them.
const trafficAhead = 1000

// trafficMax bounds how long there is traffic, in long forms too.
const trafficMax = 4 * patience

func newTraffic(m *mesh) *traffic {
	tr := &traffic{mesh: m, stop: make(chan struct{})}
	tr.ctx, tr.cancel = context.WithTimeout(m.t.Context(), trafficMax)
	m.t.Cleanup(tr.cancel)
	return tr
}

// connectAll connects a domain's nodes to its routers in turn.
func (tr *traffic) connectAll(d meshDomain) (members []*trafficNode) {
	tr.mesh.t.Helper()
	for i := range d.nodes {
		members = append(members, tr.connect(d, nodeName(i), d.routers[i%len(d.routers)]))
	}
	return members
}

// connect connects one node to a router, or when that fails to another.
func (tr *traffic) connect(d meshDomain, name string, router int) *trafficNode {
	t := tr.mesh.t
	t.Helper()
	id, err := pki.LoadIdentity(os.DirFS(filepath.Join(tr.mesh.dir, d.name, name)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Connect(tr.ctx, node.Config{
		Identity: id, Routers: tr.mesh.serving(d, router), Plain: true, AcceptPlain: true, Dial: tr.mesh.sites.hub.dial,
		ResendTime: flowResend, AnswerTimeout: time.Minute, DialTimeout: time.Minute, HelloTimeout: time.Minute, Logger: testLogger(t, name),
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, tr.mesh.logs())
	}
	t.Cleanup(func() { n.Close() })
	member := &trafficNode{Node: n, router: router, in: map[codec.Address]*trafficFlow{}}
	tr.nodes = append(tr.nodes, member)
	return member
}

// addFlow adds a flow unless there is one between the two.
func (tr *traffic) addFlow(from, to *trafficNode, rate, size int) *trafficFlow {
	if f := to.in[from.Address()]; f != nil {
		return f
	}
	f := &trafficFlow{from: from, to: to, recipient: to.Address(), rate: rate, size: size}
	to.in[from.Address()] = f
	tr.flows = append(tr.flows, f)
	return f
}

// reachable waits until every sender can reach its recipient.
func (tr *traffic) reachable() {
	tr.mesh.t.Helper()
	for _, f := range tr.flows {
		waitUntil(tr.mesh.t, fmt.Sprintf("%v: an echo comes back\n%s", f, tr.mesh.logs()), func() bool { return tr.echo(f.from, f.recipient) })
	}
}

// echo tells whether an echo comes back from an address.
func (tr *traffic) echo(from *trafficNode, to codec.Address) bool {
	ctx, cancel := context.WithTimeout(tr.ctx, 3*time.Second)
	defer cancel()
	_, err := from.Ping(ctx, to, nil)
	return err == nil
}

// start begins to send and to receive.
func (tr *traffic) start() {
	for _, n := range tr.nodes {
		tr.receiving.Go(func() { tr.receive(n) })
		tr.sending.Go(func() { tr.confirm(n) })
	}
	for _, f := range tr.flows {
		tr.sending.Go(func() { tr.send(f) })
	}
}

func (tr *traffic) fail(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.problem) < 20 {
		tr.problem = append(tr.problem, fmt.Sprintf(format, args...))
	}
}

func (tr *traffic) send(f *trafficFlow) {
	tick := time.NewTicker(max(time.Second/time.Duration(f.rate), time.Millisecond))
	defer tick.Stop()
	body := make([]byte, max(f.size, 8))
	begun, due := time.Now(), 0
	for number := uint64(0); ; {
		select {
		case <-tr.stop:
			return
		case <-tick.C:
		}
		want := int(time.Since(begun).Seconds() * float64(f.rate))
		if due = max(due, want-f.rate); f.quiet.Load() {
			due = want
		}
		for ; due < want; due++ {
			binary.BigEndian.PutUint64(body, number)
			at := time.Now()
			s, err := f.from.Send(tr.ctx, f.recipient, codec.CategoryApplication, body)
			if err != nil {
				tr.fail("%v: send: %v", f, err)
				return
			}
			f.from.newest.Store(s)
			f.mu.Lock()
			f.sent = append(f.sent, postedMessage{s, at})
			f.mu.Unlock()
			number++
		}
	}
}

// confirm has a node's newest message confirmed, again and again, so that little
// is unconfirmed when a router dies.
func (tr *traffic) confirm(n *trafficNode) {
	tick := time.NewTicker(flowConfirmEvery)
	defer tick.Stop()
	for {
		select {
		case <-tr.stop:
			return
		case <-tick.C:
		}
		if s := n.newest.Load(); s != nil {
			_ = s.Confirmed(tr.ctx) // the ledger looks at each
		}
	}
}

func (tr *traffic) receive(n *trafficNode) {
	for {
		m, err := n.Receive(tr.ctx)
		if err != nil {
			return
		}
		f := n.in[m.From]
		switch {
		case m.From.Prefix() != n.Address().Prefix():
			tr.fail("%s/%s got a message of another domain, from %v", n.Domain(), n.Name(), m.From)
		case f == nil:
			tr.fail("%s/%s got a message that nobody sent to it, from %v", n.Domain(), n.Name(), m.From)
		default:
			number := binary.BigEndian.Uint64(m.Body)
			f.mu.Lock()
			if number < uint64(len(f.sent))+trafficAhead {
				f.take(number)
			} else {
				tr.fail("%v: a message came that was never sent: %q", f, m.Body)
			}
			f.mu.Unlock()
		}
	}
}

// flow waits until each flow has delivered so many messages more.
func (tr *traffic) flow(more int) {
	tr.mesh.t.Helper()
	tr.flowOf(tr.flows, more)
}

func (tr *traffic) flowOf(flows []*trafficFlow, more int) {
	t := tr.mesh.t
	t.Helper()
	came := func(f *trafficFlow) int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return int(f.got)
	}
	var least []int
	for _, f := range flows {
		least = append(least, came(f)+more)
	}
	for i, f := range flows {
		waitUntil(t, fmt.Sprintf("%v: %d messages more come\n%s", f, more, tr.mesh.logs()), func() bool { return came(f) >= least[i] })
	}
}

// count returns how many messages of some flows have come.
func count(flows []*trafficFlow) (came uint64) {
	for _, f := range flows {
		f.mu.Lock()
		came += f.got
		f.mu.Unlock()
	}
	return came
}

// crossDomains has each node send to a node of another domain, and checks that the
// only answer is "not permitted".
func (tr *traffic) crossDomains() {
	t := tr.mesh.t
	t.Helper()
	for i, from := range tr.nodes {
		at := slices.IndexFunc(tr.nodes, func(n *trafficNode) bool { return n.Domain() != from.Domain() })
		if at < 0 {
			t.Fatal("there is one domain only")
		}
		to := tr.nodes[at+i%2] // two of them
		s, err := from.Send(tr.ctx, to.Address(), codec.CategoryApplication, []byte("across the border"))
		if err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the notice", func() bool {
			err := s.Confirmed(tr.ctx)
			var noticed *node.NoticeError
			if errors.As(err, &noticed) && noticed.Reason != codec.NoticeNotPermitted {
				t.Errorf("%s/%s: %v", from.Domain(), from.Name(), err)
			}
			return noticed != nil
		})
	}
}

// ledger is what became of all messages.
type ledger struct {
	sent, came, again, copies uint64 // copies: came to nodes twice, and once to applications

	noticed, unconfirmed, unsent uint64 // by what their senders were told last
	ambiguous                    uint64 // notices counted so many of which nobody can tell which they are
	paths                        int    // of the worst flow

	lost   uint64
	silent []lostMessage // of those, their senders were told nothing; not more than what notices counted is taken off
	untold uint64        // silent, less ambiguous ones of the same sender
	wrong  uint64        // noticed as not delivered, and delivered
}

type lostMessage struct {
	flow   *trafficFlow
	number int
	at     time.Time
}

func (l lostMessage) String() string {
	return fmt.Sprintf("%v: message %d, sent at %s", l.flow, l.number, l.at.Format("15:04:05.000"))
}

func (l *ledger) String() string {
	return fmt.Sprintf("%d sent, %d received, %d came to nodes twice; %d lost, %d of these in silence; senders were told of %d noticed, %d unconfirmed, %d unsent, and %d that a notice only counted; %d paths at most",
		l.sent, l.came, l.copies, l.lost, l.untold, l.noticed, l.unconfirmed, l.unsent, l.ambiguous, l.paths)
}

// quietMax is how long nothing may change before the ledger is closed with
// messages of which nobody knows anything: longer than routers hold any.
const quietMax = 45 * time.Second

// finish sends no more and closes the ledger when it is known of every message
// what became of it, or nothing has been heard for some time.
func (tr *traffic) finish() *ledger {
	t := tr.mesh.t
	t.Helper()
	close(tr.stop)
	tr.sending.Wait()
	var l *ledger
	for last, since := "", time.Now(); time.Since(since) < quietMax; time.Sleep(50 * time.Millisecond) {
		l = tr.read(tr.flows)
		if l.untold == 0 {
			break
		}
		if now := l.String(); now != last {
			last, since = now, time.Now()
		}
	}
	for _, p := range tr.problem {
		t.Error(p)
	}
	if l.again != 0 {
		t.Errorf("%d messages were delivered twice", l.again)
	}
	return l
}

// read returns the ledger of some flows as it is now.
func (tr *traffic) read(flows []*trafficFlow) *ledger {
	l := &ledger{}
	silent := map[*trafficNode]uint64{} // by sender
	for _, f := range flows {
		before := len(l.silent)
		tr.readFlow(l, f)
		silent[f.from] += uint64(len(l.silent) - before)
	}
	for n, of := range silent {
		s := n.Stats()
		l.ambiguous += s.NoticesAmbiguous
		l.untold += of - min(of, s.NoticesAmbiguous)
	}
	for _, n := range tr.nodes {
		l.copies += n.Stats().Dropped["duplicate"]
	}
	return l
}

func (tr *traffic) readFlow(l *ledger, f *trafficFlow) {
	f.mu.Lock()
	sent := slices.Clone(f.sent)
	came := slices.Clone(f.came)
	l.came, l.again, l.paths = l.came+f.got, l.again+f.again, max(l.paths, len(f.tails))
	f.mu.Unlock()
	l.sent += uint64(len(sent))
	for i, s := range sent {
		err := s.Confirmed(tr.ctx)
		told := true
		var noticed *node.NoticeError
		var unconfirmed *node.UnconfirmedError
		var unsent *node.UnsentError
		switch {
		case errors.As(err, &noticed) && noticed.Reason != codec.NoticeUnconfirmed:
			l.noticed++
			if i < len(came) && came[i] {
				l.wrong++
			}
		case errors.As(err, &noticed), errors.As(err, &unconfirmed):
			l.unconfirmed++
		case errors.As(err, &unsent):
			l.unsent++
		default:
			told = false
		}
		if i < len(came) && came[i] {
			continue
		}
		l.lost++
		if !told {
			l.silent = append(l.silent, lostMessage{f, i, s.at})
		}
	}
}

// nothingLost asserts that every message came, that nobody was told otherwise, and
// that order was kept as far as one path carries it.
func (l *ledger) nothingLost(t *testing.T) {
	t.Helper()
	if l.lost != 0 || l.noticed+l.unconfirmed+l.unsent+l.ambiguous != 0 || l.paths > 2 {
		t.Errorf("messages were lost or out of order, or their senders were told so: %s", l)
	}
}

// allTold asserts that senders were told of every message that was lost, and of
// none that was not, but for those that are perhaps delivered.
func (l *ledger) allTold(t *testing.T) {
	t.Helper()
	if l.untold != 0 || l.wrong != 0 {
		t.Errorf("messages were lost in silence, or noticed and delivered (%d): %s\n%s", l.wrong, l, firstOf(l.silent))
	}
}

func firstOf(lost []lostMessage) string {
	var text strings.Builder
	for _, m := range lost[:min(len(lost), 10)] {
		fmt.Fprintln(&text, m)
	}
	return text.String()
}

// close has all nodes leave.
func (tr *traffic) close() {
	tr.mesh.t.Helper()
	for _, n := range tr.nodes {
		if err := n.Close(); err != nil {
			tr.mesh.t.Errorf("%s/%s: %v", n.Domain(), n.Name(), err)
		}
	}
	tr.cancel()
	tr.receiving.Wait()
}

// of returns one node of a domain.
func (tr *traffic) of(domain string) *trafficNode {
	return tr.nodes[slices.IndexFunc(tr.nodes, func(n *trafficNode) bool { return n.Domain() == domain })]
}
