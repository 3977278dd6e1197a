package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"causeway/crypto/pki"
)

// The load of the stalled recipient: flows that must not notice, and one flood.
const (
	stallFloodSize = 8 << 10
	stallLook      = 4 * time.Second // how long flows are counted, with and without the stall
	stallLookSoak  = time.Minute
	stallLooks     = 10 // at most, with the stall: a machine that is busy for some time is no stall
)

// Their rates. The race detector makes each message ten times dearer.
var (
	stallRate  = map[bool]int{false: 50, true: 10}[raceEnabled] // messages a second of each of 8 flows
	stallFlood = map[bool]int{false: 400, true: 100}[raceEnabled]
)

// Two routers away a recipient reads nothing. Its queue fills, its sender is told
// of every message, and those who share both links with it go on as they do beside
// a recipient that reads.
func TestAStalledRecipientBehindTwoLinksCostsItsSenderOnlyUnderLoad(t *testing.T) {
	d := meshDomain{"prod.example", []int{1, 2, 3}, 15}
	m := startMesh(t, meshPlan{
		domains: []meshDomain{d}, links: [][2]int{{1, 2}, {2, 3}},
		flags: []string{"--queue-high", "256KiB", "--stall-timeout", "5m", "--hold-timeout", "5s"}, // it does not come back
	})
	m.linked()
	tr := newTraffic(m)
	nodes := tr.connectAll(d) // the routers of nodes 0, 1, 2, 3 … are 1, 2, 3, 1 …
	for i := range 4 {
		near, far := nodes[3*i], nodes[3*i+2]
		tr.addFlow(near, far, stallRate, 200)
		tr.addFlow(far, near, stallRate, 200)
	}
	others := tr.flows
	reads := tr.addFlow(nodes[12], nodes[14], stallFlood, stallFloodSize)
	tr.reachable()
	stalled := enlistAt(t, m, 3, d.name)
	stalls := &trafficFlow{from: reads.from, recipient: stalled.address, rate: stallFlood, size: stallFloodSize}
	tr.flows = append(tr.flows, stalls)
	stalls.quiet.Store(true)
	tr.start()
	tr.flowOf(append(others[:len(others):len(others)], reads), 20)

	look, looks := stallLook, stallLooks
	if soaking() {
		look, looks = stallLookSoak, 1
	}
	beside := func() uint64 {
		before := count(others)
		time.Sleep(look) // what is counted is what comes in this time
		return count(others) - before
	}
	reading := beside()
	reads.quiet.Store(true)
	stalls.quiet.Store(false)
	waitUntil(t, "the stalled recipient's queue is full", func() bool { return m.routers[3].dropped("queue-full") > 0 })
	stalling := beside()
	least := reading / 2 // machines have other work
	if soaking() {
		least = reading / 10 * 9
	}
	for n := 1; stalling < least && n < looks; n++ {
		stalling = beside()
	}
	if stalling < least {
		t.Errorf("%d messages come to others beside a stalled recipient, %d beside one that reads", stalling, reading)
	}
	stalled.conn.NetConn().Close()
	all := tr.finish()
	all.allTold(t)
	besides := tr.read(others)
	besides.nothingLost(t)
	t.Logf("beside a recipient that reads %d messages in %v, beside one that stalls %d; %v", reading, look, stalling, all)
	reportSoak(t, "stalled behind links", fmt.Sprintf("a recipient two links away reads nothing; %d flows of %d messages a second share the links", len(others), stallRate),
		soakRow{"the others keep 90% of their rate beside a recipient that reads, and lose nothing", fmt.Sprintf("%d messages in %v, %d beside one that reads; %v", stalling, look, reading, besides)},
		soakRow{"of every message to it the sender is told", all.String()})
	m.balanced()
	tr.close()
	m.end()
}

// enlistAt makes a node at a router that reads nothing after the hellos.
func enlistAt(t *testing.T, m *mesh, router int, domain string) *recruit {
	t.Helper()
	ca, err := openCA(m.ca(domain))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.close)
	id, err := pki.LoadIdentity(os.DirFS(filepath.Join(m.dir, m.routers[router].name)))
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{ca: ca, router: m.routers[router].routerProcess, grant: id.Grants[domain], site: m.sites.hub}
	return f.enlist(t)
}

// dropped returns how many frames the router has dropped for a reason.
func (r *meshRouter) dropped(reason string) float64 {
	by, _ := r.metrics().dropped()
	return by[reason]
}

// The load of the overloaded ring: as much as its nodes can send.
const (
	overloadRate = 2500 // messages a second of each of 12 flows: more than there can be
	overloadLook = 2 * time.Second
)

// Large messages fill queues; of small ones there are so many that notices count them.
var overloadSizes = []int{16 << 10, 512}

// Two nodes at each router of a ring of three send to nodes at both others, more than
// anything there can carry, and get as much. No link waits for another, so all flows go
// on; senders are told of every message that finds no room, though what they are told
// comes behind a flood to themselves; and when it is over all is as before.
func TestARingOfThreeUnderOverloadDoesNotLockUp(t *testing.T) {
	d := meshDomain{"prod.example", []int{1, 2, 3}, 6}
	m := startMesh(t, meshPlan{
		domains: []meshDomain{d}, links: [][2]int{{1, 2}, {2, 3}, {3, 1}},
		flags: []string{"--queue-high", "256KiB", "--stall-timeout", "10m"}, // nodes may read for long only what others leave them
	})
	m.linked()
	tr := newTraffic(m)
	nodes := tr.connectAll(d)
	for i, from := range nodes { // of router i % 3 + 1
		for away, size := range overloadSizes {
			tr.addFlow(from, nodes[(i+away+1)%len(nodes)], overloadRate, size)
		}
	}
	tr.reachable()
	tr.start()
	rounds := 2
	if soaking() {
		rounds = 30
	}
	for range rounds {
		time.Sleep(overloadLook)
		tr.flow(1) // each of them goes on
	}
	came := count(tr.flows)
	for _, f := range tr.flows {
		f.quiet.Store(true)
	}
	waitUntil(t, "all queues are empty", func() bool { return m.sum("causeway_queued_bytes") == 0 })
	for _, f := range tr.flows {
		waitUntil(t, fmt.Sprintf("%v: an echo comes back", f), func() bool { return tr.echo(f.from, f.recipient) })
	}
	full := 0.0
	for _, r := range m.routers {
		full += r.dropped("queue-full")
	}
	l := tr.finish()
	l.allTold(t)
	if l.lost != l.noticed+l.ambiguous || l.unconfirmed+l.unsent > 0 {
		t.Errorf("senders were told of more or fewer messages than were lost, though no connection has ended: %s\n%s", l, m.logs())
	}
	t.Logf("%d messages of %v bytes in %v, %v frames dropped as queue-full; %v", came, overloadSizes, time.Duration(rounds)*overloadLook, full, l)
	reportSoak(t, "overloaded ring", fmt.Sprintf("a ring of three routers, %d flows of up to %d messages/s, of %d and %d bytes", len(tr.flows), overloadRate, overloadSizes[0], overloadSizes[1]),
		soakRow{fmt.Sprintf("each flow goes on, looked at every %v", overloadLook), fmt.Sprintf("%d times; %d messages came, %.0f frames were dropped as queue-full", rounds, came, full)},
		soakRow{"senders are told of every message that is lost, and of none that is not", l.String()})
	m.balanced()
	tr.close()
	m.end()
}
