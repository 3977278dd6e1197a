package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/admin"
	"causeway/engine/link"
)

// peerNamed returns what Peers tells of a node.
func peerNamed(t *testing.T, r *Router, name string) Peer {
	t.Helper()
	all := r.Peers(t.Context())
	if len(all.Silent) > 0 {
		t.Fatalf("loops %v are silent", all.Silent)
	}
	for _, p := range all.Peers {
		if p.Name == name {
			return p
		}
	}
	return Peer{}
}

func TestPeersTellWhoIsThereAndWhatTheyDo(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("lab.example")
	r, addr := startRouter(t, nil, d, other)
	a := connect(t, addr, d.node("a"))
	connect(t, addr, d.node("b"))
	connect(t, addr, other.node("c"))
	for range 10 {
		a.send(a.frame(a.id.Peer.Address, codec.CategoryApplication, make([]byte, 1000)))
	}
	for range 10 {
		a.next()
	}
	a.sync()
	all := r.Peers(t.Context())
	if len(all.Peers) != 3 || all.Peers[0].Name != "c" || all.Peers[1].Name != "a" || all.Peers[2].Name != "b" {
		t.Fatalf("%+v", all)
	}
	var got Peer
	waitFor(t, "what was written to be counted", func() bool {
		got = peerNamed(t, r, "a")
		return got.QueueBytes == 0 && got.FramesOut >= 12 // hello, 10, keep-alive; later a question what has come
	})
	if got.Domain != "prod.example" || got.Address != codec.Address(a.id.Peer.Address).String() || got.Remote != a.conn.LocalAddr().String() ||
		got.State != "open" || got.Kind != "test" || got.Software != "test/1.0.0" || !got.CertificateEnd.Equal(a.id.Peer.NotAfter) ||
		got.PausedBy != "" || got.OldestSeconds != 0 || got.FramesIn < 12 || got.FramesIn > got.FramesOut || got.FramesOut > 20 || got.BytesIn < 10_000 || got.BytesOut < 10_000 ||
		got.AgeSeconds < 0 || got.AgeSeconds > patience.Seconds() || got.FramesInRate <= 0 {
		t.Errorf("%+v", got)
	}
	if _, err := json.Marshal(all); err != nil {
		t.Error(err)
	}
}

func TestPeersTellOfFullQueuesAndWhoIsPaused(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.QueueHigh, c.PauseMax = 64<<10, patience }, d)
	from, deaf := connect(t, addr, d.node("from")), connect(t, addr, d.node("deaf"))
	stop := make(chan struct{})
	go func() {
		for {
			f := from.frame(deaf.id.Peer.Address, codec.CategoryApplication, make([]byte, 60_000))
			if _, err := from.conn.Write(from.wire(f)); err != nil {
				close(stop)
				return
			}
		}
	}()
	// Until the kernel takes no more for the deaf one, the queue comes and goes.
	waitFor(t, "a queue that stays", func() bool {
		from, to := peerNamed(t, r, "from"), peerNamed(t, r, "deaf")
		return from.PausedBy == to.Address && to.PausedBy == "" && to.QueueBytes > 16<<10 && to.OldestSeconds >= 0.2
	})
	from.conn.NetConn().Close()
	deaf.conn.NetConn().Close()
	<-stop
}

func TestASilentLoopIsToldAndDelaysNobodyForLong(t *testing.T) {
	t.Parallel() // it waits for the end of the deadline
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	for i := range 4 {
		connect(t, addr, d.node(fmt.Sprint("n", i)))
	}
	held, release := make(chan struct{}), make(chan struct{})
	r.loops[0].link.Post(func() { close(held); <-release })
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // in which the other loop answers
	defer cancel()
	all := r.Peers(ctx)
	close(release)
	if len(all.Silent) != 1 || all.Silent[0] != 0 || len(all.Peers) != 2 {
		t.Errorf("%+v", all)
	}
}

func TestMorePeersThanATurnDescribesAreAllTold(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Loops, c.HelloTimeout = 1, patience }, d)
	const many = peersPerTurn + 10
	id := clientTLS(d.node("same"))
	for range many {
		if _, err := dial(t, addr, d.node("x"), id); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "all to be open", func() bool { return r.link.Stats().Connections == many })
	if all := r.Peers(t.Context()); len(all.Peers) != many || all.Peers[0].State != "hello" {
		t.Errorf("%d peers", len(all.Peers))
	}
}

func TestRatesAreOfTheLastSeconds(t *testing.T) {
	var r rates
	now := time.Unix(1_700_000_000, 0)
	r.begin(now)
	var n link.Counters
	for range 60 { // a minute of 100 frames a second
		now = now.Add(time.Second)
		n.FramesIn += 100
		r.note(now, n)
		if in, _, _, _ := r.per(now, n); in < 99 || in > 101 {
			t.Fatalf("%v frames a second, want 100", in)
		}
	}
	for range 2 * int(ratesOver/time.Second) { // silence
		now = now.Add(time.Second)
		r.note(now, n)
	}
	if in, out, _, _ := r.per(now, n); in != 0 || out != 0 {
		t.Errorf("%v frames a second in silence", in)
	}
}

func TestPeersTellOfLinks(t *testing.T) {
	one, two := newAuthority("one.example"), newAuthority("two.example")
	a, addr := startRouter(t, nil, one, two)
	b, _ := startRouter(t, func(c *Config) {
		linkedTo("edge-2", []*authority{one, two}, addr)(c)
		c.LinkCosts, c.NodeCost = map[string]uint16{addr: 5}, 9
	}, one, two)
	waitProven(t, a, 1, "one.example", "two.example")
	waitProven(t, b, 1, "one.example", "two.example")
	connect(t, addr, one.node("n"))
	theirs, ours, node := peerNamed(t, a, "router/edge-2"), peerNamed(t, b, "router/edge-1"), peerNamed(t, a, "n")
	domains := []string{"one.example", "two.example"}
	if theirs.Role != "router" || !slices.Equal(theirs.Domains, domains) || theirs.LinkCost != LinkCostDefault || theirs.NodeCost != 9 || theirs.Dialed {
		t.Errorf("accepted: %+v", theirs)
	}
	if ours.Role != "router" || !slices.Equal(ours.Domains, domains) || ours.LinkCost != 5 || ours.NodeCost != 0 || !ours.Dialed {
		t.Errorf("dialed: %+v", ours)
	}
	if node.Role != "node" || node.Domains != nil || node.LinkCost != 0 {
		t.Errorf("node: %+v", node)
	}
	m := admin.NewMetrics()
	a.AddMetrics(m)
	for _, want := range []string{"\ncauseway_links 1\n", "\ncauseway_route_links{domain=\"one.example\"} 1\n", "\ncauseway_link_frames_total{direction=\"in\"} "} {
		waitFor(t, fmt.Sprintf("%q in the metrics", want), func() bool { // routing hears of links after loops
			var text strings.Builder
			if err := m.Write(&text); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(text.String(), want)
		})
	}
}
