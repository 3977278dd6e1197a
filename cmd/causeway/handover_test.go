package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The load of handovers: nodes in a ring, each a process that sends to the next.
const (
	handoverNodes = 6
	soakRate      = 1500
	soakMessages  = 10_000
)

// The same in the short forms. The race detector makes each message ten times
// dearer.
var (
	handoverRate            = map[bool]int{false: 200, true: 20}[raceEnabled]    // messages a second of each node
	handoverMessages uint64 = map[bool]uint64{false: 200, true: 20}[raceEnabled] // that each receives before, and again after
)

// handover is two routers that do not know each other, and nodes at the first
// that know both.
type handover struct {
	t             *testing.T
	first, second *cappedRouter
	nodes         []*flowProcess
	messages      uint64
	load          *soakLoad
}

func startHandover(t *testing.T) *handover {
	t.Helper()
	const domain = "prod.example"
	h := &handover{t: t, messages: handoverMessages}
	rate := handoverRate
	if soaking() {
		rate, h.messages = soakRate, soakMessages
	}
	var names []string
	for i := range handoverNodes {
		names = append(names, fmt.Sprintf("node-%d", i))
	}
	dir := makeDomains(t, []string{domain}, names)
	runs(t, "pki", "grant", "--ca", filepath.Join(dir, domain, "ca"), "--name", "edge-2", "--out", filepath.Join(dir, "router-2"))
	h.load = startSoakLoad(t)
	h.second = startCapped(t, dir, "--identity", filepath.Join(dir, "router-2"))
	h.first = startCapped(t, dir, "--drain-timeout", "1m")
	for _, name := range names {
		h.nodes = append(h.nodes, startFlowNode(t, dir, domain, name, rate, h.first.url(), h.second.url()))
	}
	for i, n := range h.nodes {
		n.order(flowOrder{To: &h.to(i).address})
	}
	h.flow()
	return h
}

func (h *handover) title(signal string) string {
	return fmt.Sprintf("a router gets %s; there is another one, without a link between them. %d nodes, %d messages/s due at each: %v", signal, handoverNodes, soakRate, h.load)
}

// to returns the node that node i sends to.
func (h *handover) to(i int) *flowProcess { return h.nodes[(i+1)%len(h.nodes)] }

// flow waits until each node has received a number of messages more.
func (h *handover) flow() {
	h.t.Helper()
	var least []uint64
	for _, n := range h.nodes {
		least = append(least, n.order(flowOrder{}).Received+h.messages)
	}
	for i, n := range h.nodes {
		waitUntil(h.t, n.name+" receives", func() bool { return n.order(flowOrder{}).Received >= least[i] })
	}
}

// moved waits until all nodes are at the second router, and messages flow there.
func (h *handover) moved() {
	h.t.Helper()
	waitUntil(h.t, "all nodes at the second router", func() bool {
		return h.second.metrics()[`causeway_nodes{domain="prod.example"}`] == handoverNodes
	})
	h.flow()
}

// settle has all nodes send no more, and waits until the last message has come,
// which was sent when all was well. It returns what they report.
func (h *handover) settle() []*flowReport {
	h.t.Helper()
	var sent []uint64
	all := uint64(0)
	for _, n := range h.nodes {
		sent = append(sent, n.order(flowOrder{Stop: true}).Sent)
		all += sent[len(sent)-1]
	}
	h.load.end(all)
	var reports []*flowReport
	for i, n := range h.nodes {
		from := (i + len(h.nodes) - 1) % len(h.nodes)
		waitUntil(h.t, n.name+" has the last message", func() bool { return n.order(flowOrder{}).Highest == sent[from] })
		reports = append(reports, n.order(flowOrder{Outcomes: true}))
	}
	return reports
}

func (h *handover) end() {
	h.t.Helper()
	for _, n := range h.nodes {
		n.end()
	}
	h.second.stop()
}

// sums over all reports.
type handoverSums struct {
	sent, received, again, noticed, unconfirmed, unsent, resent, twice uint64

	lost, lostInSilence []uint64 // numbers; in silence: not among the sender's unconfirmed, noticed or unsent
}

// sum checks what always holds: each message comes once, and in order as far as
// one router carries it.
func (h *handover) sum(reports []*flowReport) (s handoverSums) {
	h.t.Helper()
	for i, r := range reports {
		to := reports[(i+1)%len(reports)]
		s.sent, s.received, s.again = s.sent+r.Sent, s.received+to.Received, s.again+to.Again
		s.noticed += uint64(len(r.Noticed))
		s.unconfirmed += uint64(len(r.Unconfirmed))
		s.unsent += uint64(len(r.Unsent))
		s.resent, s.twice = s.resent+r.Stats.Resent, s.twice+to.Stats.Dropped["duplicate"]
		s.lost = append(s.lost, to.Missing...)
		for _, n := range to.Missing {
			if !slices.Contains(r.Unconfirmed, n) && !slices.Contains(r.Noticed, n) && !slices.Contains(r.Unsent, n) {
				s.lostInSilence = append(s.lostInSilence, n)
			}
		}
		if to.Again != 0 || to.Paths > 2 {
			h.t.Errorf("%s: %d messages came again, on %d paths", h.to(i).name, to.Again, to.Paths)
		}
		if r.Sent+r.Stats.Resent != r.Stats.FramesOut+uint64(len(r.Unsent)) {
			h.t.Errorf("%s: %d messages, %d of them unsent, in %d frames, %d of them again", h.nodes[i].name, r.Sent, len(r.Unsent), r.Stats.FramesOut, r.Stats.Resent)
		}
		if r.Stats.Connections != 2 {
			h.t.Errorf("%s: %d connections", h.nodes[i].name, r.Stats.Connections)
		}
	}
	return s
}

func (s *handoverSums) String() string {
	return fmt.Sprintf("%d sent, %d received, %d sent again, %d came to nodes twice; %d noticed, %d unconfirmed, %d unsent; lost %s, of which in silence %s",
		s.sent, s.received, s.resent, s.twice, s.noticed, s.unconfirmed, s.unsent, numbers(s.lost), numbers(s.lostInSilence))
}

// A router that is stopped hands everything over: each message arrives once, and
// in order as far as one router carries it.
func TestAStoppedRouterUnderLoadLosesNothing(t *testing.T) {
	h := startHandover(t)
	h.first.signal(syscall.SIGTERM)
	begun := time.Now()
	h.moved()
	select {
	case err := <-h.first.ended:
		if err != nil {
			t.Errorf("the first router ended with %v\n%s", err, h.first.log)
		}
	case <-time.After(patience):
		t.Fatalf("the first router does not end\n%s", h.first.log)
	}
	took := time.Since(begun)
	s := h.sum(h.settle())
	t.Log(s.String())
	if len(s.lost) != 0 || s.sent != s.received || s.noticed+s.unconfirmed+s.unsent != 0 {
		t.Errorf("messages were lost, or their senders do not know: %s\n%s", &s, h.first.log)
	}
	if !h.first.logged(`"drained"`, fmt.Sprintf(`"answered":%d,"closed":0,"ended":0,"late":0,"frames_not_handed_over":0`, handoverNodes)) {
		t.Errorf("the first router's log:\n%s", h.first.log)
	}
	memory := withinCap(t, handoverNodes, h.first, h.second)
	reportSoak(t, "stopped", h.title("SIGTERM"),
		soakRow{"nothing is lost, nothing delivered twice, in order as far as one router carries it", s.String()},
		soakRow{"all nodes leave in good order", fmt.Sprint("messages flow at the other router, and the first has ended, after ", took.Round(time.Millisecond))},
		memory)
	h.end()
}

// A router that is killed takes with it what was inside, and senders know of as
// many messages that nobody can tell the fate of.
func TestAKilledRouterUnderLoadLosesOnlyWhatWasInside(t *testing.T) {
	h := startHandover(t)
	h.first.signal(syscall.SIGKILL)
	<-h.first.ended
	h.moved()
	s := h.sum(h.settle())
	t.Log(s.String())
	if lost := s.sent - s.received; lost != uint64(len(s.lost)) || lost > s.unconfirmed+s.noticed+s.unsent {
		t.Errorf("more are lost than senders know of: %s", &s)
	}
	memory := withinCap(t, handoverNodes, h.first, h.second)
	reportSoak(t, "killed", h.title("SIGKILL"),
		soakRow{"at most as many are lost as senders know of as unconfirmed, noticed or unsent",
			fmt.Sprintf("%d lost with the router, %d known of", len(s.lost), s.unconfirmed+s.noticed+s.unsent)},
		soakRow{"nothing is delivered twice; in order as far as one router carries it", s.String()},
		memory)
	h.end()
}
