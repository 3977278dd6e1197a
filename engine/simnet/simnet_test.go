package simnet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/engine/simnet"
)

// talker records what happens to it.
type talker struct {
	name string
	log  *[]string
}

func (k *talker) note(format string, args ...any) {
	*k.log = append(*k.log, k.name+" "+fmt.Sprintf(format, args...))
}

func (k *talker) LinkUp(_ time.Time, l simnet.LinkID, peer simnet.NodeID) {
	k.note("up %d to %d", l, peer)
}
func (k *talker) LinkDown(_ time.Time, l simnet.LinkID) { k.note("down %d", l) }
func (k *talker) Receive(_ time.Time, l simnet.LinkID, m []byte) {
	k.note("got %s by %d", m, l)
}
func (k *talker) Tick(now time.Time) { k.note("tick %d", now.Unix()) }

var config = simnet.Config{
	Start:    time.Unix(0, 0),
	DelayMin: time.Millisecond, DelayMax: 100 * time.Millisecond,
	NoticeMax: time.Second,
}

// pair returns a network of two nodes, a and b, and what happens to them.
func pair(config simnet.Config) (*simnet.Network, *[]string) {
	n := simnet.New(config)
	log := new([]string)
	for _, name := range []string{"a", "b"} {
		n.Add(&talker{name, log})
	}
	return n, log
}

func TestLinksAreReliableAndOrdered(t *testing.T) {
	for seed := range uint64(50) {
		c := config
		c.Seed = seed
		n, log := pair(c)
		l := n.Connect(0, 1)
		var want []string
		for i := range 30 {
			n.Send(0, l, fmt.Appendf(nil, "%d", i))
			want = append(want, fmt.Sprintf("b got %d by 1", i))
			n.Run(time.Millisecond)
		}
		n.Run(2 * time.Second)
		var got []string
		for at, line := range *log {
			if strings.HasPrefix(line, "b got") {
				got = append(got, line)
				if !slices.Contains((*log)[:at], "b up 1 to 0") {
					t.Fatalf("seed %d: a message before its link: %q", seed, *log)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %q, want %q", seed, got, want)
		}
	}
}

func TestFailedLinksLoseWhatIsUnderWay(t *testing.T) {
	n, log := pair(config)
	l := n.Connect(0, 1)
	n.Run(time.Second)
	if !slices.Contains(*log, "a up 1 to 1") || !slices.Contains(*log, "b up 1 to 0") {
		t.Fatalf("after a second: %q", *log)
	}
	*log = nil
	n.Send(0, l, []byte("lost"))
	n.Fail(l)
	n.Send(1, l, []byte("late"))
	n.Fail(l)
	n.Run(time.Second)
	slices.Sort(*log)
	if want := []string{"a down 1", "b down 1"}; !slices.Equal(*log, want) {
		t.Errorf("%q, want %q", *log, want)
	}
	if s := n.Stats(); s != (simnet.Stats{Messages: 2, Bytes: 8, Lost: 2}) {
		t.Errorf("%+v", s)
	}
	if _, _, alive := n.Ends(l); alive || len(n.Links()) != 0 {
		t.Error("the link is still there")
	}
}

func TestLossFailsTheLink(t *testing.T) {
	c := config
	c.Loss = 1
	n, log := pair(c)
	l := n.Connect(0, 1)
	n.Run(time.Second)
	n.Send(0, l, []byte("lost"))
	n.Run(time.Second)
	if !slices.Contains(*log, "a down 1") || !slices.Contains(*log, "b down 1") || slices.Contains(*log, "b got lost by 1") {
		t.Errorf("%q", *log)
	}
}

func TestRestartsAreHeardOfByTheOtherEndAlone(t *testing.T) {
	n, log := pair(config)
	n.Connect(0, 1)
	n.WakeAt(0, time.Unix(5, 0))
	n.Run(time.Second)
	*log = nil
	n.Restart(0, &talker{"a2", log})
	l := n.Connect(1, 0)
	n.Run(time.Second)
	n.Send(1, l, []byte("hello"))
	n.Run(10 * time.Second)
	slices.Sort(*log)
	want := []string{"a2 got hello by 2", "a2 up 2 to 1", "b down 1", "b up 2 to 0"}
	if !slices.Equal(*log, want) {
		t.Errorf("%q, want %q", *log, want)
	}
}

func TestPartitionsFailLinksBetweenTheirSides(t *testing.T) {
	n, _ := pair(config)
	for range 2 {
		n.Add(&talker{"c", new([]string)})
	}
	n.Connect(0, 1)
	within := n.Connect(0, 2)
	n.Connect(2, 3)
	n.Partition(func(id simnet.NodeID) bool { return id%2 == 0 })
	if got := n.Links(); !slices.Equal(got, []simnet.LinkID{within}) {
		t.Errorf("links %v, want %v", got, within)
	}
	if peer, alive := n.Peer(within, 2); peer != 0 || !alive {
		t.Errorf("peer %d, %v", peer, alive)
	}
}

func TestWakeAtReplacesTheEarlierOne(t *testing.T) {
	n, log := pair(config)
	n.WakeAt(0, time.Unix(5, 0))
	n.WakeAt(0, time.Unix(3, 0))
	n.WakeAt(0, time.Unix(7, 0))
	n.After(time.Second, func() { n.WakeAt(1, time.Unix(0, 0)) }) // past: at once
	if events := n.Run(10 * time.Second); events != 3 {
		t.Errorf("%d events", events)
	}
	if want := []string{"b tick 1", "a tick 7"}; !slices.Equal(*log, want) {
		t.Errorf("%q, want %q", *log, want)
	}
}

func TestTheSeedDecides(t *testing.T) {
	run := func(seed uint64) []string {
		c := config
		c.Seed, c.Loss = seed, 0.1
		n, log := pair(c)
		for i := range 200 {
			l := n.Connect(0, 1)
			n.Send(0, l, fmt.Appendf(nil, "%d", i))
			n.Run(time.Duration(n.Rand().IntN(500)) * time.Millisecond)
		}
		return *log
	}
	if !slices.Equal(run(1), run(1)) {
		t.Error("the same seed gives two runs")
	}
	if slices.Equal(run(1), run(2)) {
		t.Error("two seeds give the same run")
	}
}
