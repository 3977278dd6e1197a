package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The load of the ring in the long forms: 40 flows.
const (
	ringRateSoak = 50  // messages a second of each flow
	ringSoak     = 600 // messages that each flow carries after each change
)

// The same in the short forms. The race detector makes each message ten times
// dearer.
var (
	ringRate     = map[bool]int{false: 20, true: 5}[raceEnabled]
	ringMessages = map[bool]int{false: 20, true: 5}[raceEnabled]
)

// ring is the ring with its load.
type ring struct {
	*mesh
	tr       *traffic
	messages int // that flow after each change
	begun    time.Time
}

func startRing(t *testing.T) *ring {
	t.Helper()
	r := &ring{mesh: startMesh(t, ringPlan()), messages: ringMessages}
	rate := ringRate
	if soaking() {
		rate, r.messages = ringRateSoak, ringSoak
	}
	r.linked()
	r.tr = startTraffic(r.mesh, rate, 200)
	r.tr.start()
	r.begun = time.Now()
	r.tr.flow(r.messages)
	r.tr.crossDomains()
	return r
}

// end closes the ledger, checks what always holds, and stops everything.
func (r *ring) end() *ledger {
	r.t.Helper()
	l := r.tr.finish()
	r.tr.crossDomains()
	r.balanced()
	r.tr.close()
	r.mesh.end()
	return l
}

func (r *ring) title(what string) string {
	return fmt.Sprintf("%s, in a ring of five routers with a chord, %d nodes in two domains, %d flows of %d messages a second",
		what, len(r.tr.nodes), len(r.tr.flows), r.tr.flows[0].rate)
}

func TestLinksAreCutAndRestoredUnderLoad(t *testing.T) {
	r := startRing(t)
	for _, l := range r.plan.links {
		r.wires[l].cut()
		r.tr.flow(r.messages)
		r.wires[l].restore()
		r.linked()
		r.tr.flow(r.messages / 2)
	}
	l := r.end()
	t.Log(l)
	l.allTold(t)
	reportSoak(t, "links cut", r.title("each link is cut, and restored"),
		soakRow{"no message is lost of which its sender is not told, none delivered twice, none in another domain", l.String()})
}

// A link that carries nothing, and is not closed, is found out by keep-alives.
func TestASilentLinkIsLeftUnderLoad(t *testing.T) {
	plan := ringPlan()
	plan.flags = []string{"--keep-alive", "1s", "--dead-after", "3s"}
	r := &ring{mesh: startMesh(t, plan), messages: ringMessages}
	rate := ringRate
	if soaking() {
		rate, r.messages = ringRateSoak, ringSoak
	}
	r.linked()
	r.wires[[2]int{2, 4}].slow(20 * time.Millisecond)
	r.tr = startTraffic(r.mesh, rate, 200)
	r.tr.start()
	r.tr.flow(r.messages)
	for _, l := range [][2]int{{2, 4}, {1, 2}} {
		w := r.wires[l]
		_, made := w.connections()
		w.hold()
		r.tr.flow(r.messages)
		waitUntil(t, "the link is made anew", func() bool { _, now := w.connections(); return now > made })
		w.cut() // what the two hold for each other is gone
		w.release()
		w.restore()
		r.linked()
	}
	l := r.end()
	t.Log(l)
	l.allTold(t)
	reportSoak(t, "silent link", r.title("two links, one after the other, carry nothing and stay open (--keep-alive 1s --dead-after 3s)"),
		soakRow{"no message is lost of which its sender is not told, none delivered twice, none in another domain", l.String()})
}

func TestAllRoutersAreRestartedInTurnUnderLoad(t *testing.T) {
	r := startRing(t)
	for _, n := range r.numbers() {
		r.restart(n, r.routers[n].terminate)
	}
	l := r.end()
	t.Log(l)
	l.nothingLost(t)
	reportSoak(t, "rolling restart", r.title("all routers are stopped with SIGTERM and started again, one after another"),
		soakRow{"no message is lost or delivered twice; in order as far as one path carries it", l.String()})
}

// restart ends a router, and starts it again when messages flow without it.
func (r *ring) restart(n int, end func()) {
	r.t.Helper()
	end()
	r.tr.flow(r.messages)
	r.routers[n].start()
	r.linked()
	for _, d := range r.plan.domains {
		if !slices.Contains(d.routers, n) {
			continue
		}
		from := r.tr.of(d.name)
		waitUntil(r.t, r.routers[n].name+" answers", func() bool { return r.tr.echo(from, r.grant(n, d.name)) })
	}
	r.tr.flow(r.messages)
}

func TestARouterIsKilledUnderLoad(t *testing.T) {
	r := startRing(t)
	var gone time.Time
	r.restart(2, func() { r.routers[2].kill(); gone = time.Now() })
	l := r.end()
	t.Log(l)
	var after []lostMessage
	for _, m := range l.silent {
		if m.at.After(gone) {
			after = append(after, m)
		}
	}
	if len(after) > 0 && l.untold > 0 || l.wrong > 0 {
		t.Errorf("messages that were sent when the router was gone are lost in silence: %s", firstOf(after))
	}
	// A router holds what it reads for milliseconds; on a loaded machine for a second.
	if most := uint64(len(r.tr.flows) * r.tr.flows[0].rate); l.untold > most {
		t.Errorf("%d messages are lost in silence, more than %d a second and router: %s", l.untold, most, firstOf(l.silent))
	}
	reportSoak(t, "router killed", r.title("a router gets SIGKILL, and is started again"),
		soakRow{"lost in silence is only what was inside the killed router, sent before it was gone", fmt.Sprintf("%d of %d messages", l.untold, l.sent)},
		soakRow{"of all others that are lost the senders are told, and of none that came", l.String()})
}
