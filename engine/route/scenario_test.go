package route_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/simnet"
)

// TestScenarios plays small networks and compares everything that is sent and
// decided with testdata/<name>.txt (go test -run Scenarios -update writes it).
func TestScenarios(t *testing.T) {
	for name, play := range map[string]func(w *world){
		"line":       playLine,
		"starvation": playStarvation,
		"restart":    playRestart,
		"move":       playMove,
	} {
		w := newWorld(simnet.Config{DelayMin: 10 * time.Millisecond, DelayMax: 10 * time.Millisecond})
		var text bytes.Buffer
		w.log = func(format string, args ...any) {
			at := w.net.Now().Sub(time.Unix(1_700_000_000, 0))
			fmt.Fprintf(&text, "%8.3f  %s\n", at.Seconds(), fmt.Sprintf(format, args...))
		}
		play(w)
		w.net.Run(10 * time.Second)
		if err := w.converged(); w.broken != nil || err != nil {
			t.Errorf("%s: %v, %v", name, w.broken, err)
		}
		file := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text.Bytes(), want) {
			t.Errorf("%s differs from %s:\n%s", name, file, text.Bytes())
		}
	}
}

// playLine has three routers in a line, with a node at one end.
func playLine(w *world) {
	for range 3 {
		w.add(5, 0)
	}
	w.attach(0, 0, 1)
	w.log("# r0 - r1 - r2, each link of cost 10, each router of cost 5")
	w.connect(0, 1, 10)
	w.connect(1, 2, 10)
}

// playStarvation has r1 lose its route while the only other one is not feasible
// (RFC 8966 section 2.5).
func playStarvation(w *world) {
	for range 3 {
		w.add(0, 0)
	}
	w.log("# a triangle: r0 - r1 costs 10, r0 - r2 costs 20, r1 - r2 costs 30")
	direct := w.connect(0, 1, 10)
	w.connect(0, 2, 20)
	w.connect(1, 2, 30)
	w.net.Run(10 * time.Second)
	w.log("# r0 - r1 fails: what r2 announces, 20, is not less than r1's distance, 10")
	w.net.Fail(direct)
}

// playRestart has a router start again by a clock that is behind.
func playRestart(w *world) {
	for range 3 {
		w.add(0, 0)
	}
	w.attach(0, 0, 1)
	w.connect(0, 1, 10)
	w.connect(1, 2, 10)
	w.net.Run(10 * time.Second)
	w.log("# r0 starts again; its clock is a minute behind; nobody is attached any more")
	w.restart(0, -time.Minute)
	w.connect(0, 1, 10)
}

// playMove has a node turn up at another router, and the first one not notice.
func playMove(w *world) {
	for range 3 {
		w.add(0, 0)
	}
	w.attach(0, 0, 1)
	w.connect(0, 1, 10)
	w.connect(1, 2, 10)
	w.net.Run(10 * time.Second)
	w.log("# n1 attaches to r2")
	w.attach(2, 0, 1)
}

// show names a router r0, a node n1.
func show(a codec.Address) string {
	if a.IsZero() {
		return "nobody"
	}
	n := binary.BigEndian.Uint64(a[8:]) - 1
	if a.Kind() == codec.KindRouter {
		return fmt.Sprintf("r%d", n)
	}
	return fmt.Sprintf("n%d", n)
}

// showSource shows when a life began, in seconds of the scenario.
func showSource(s codec.Source) string {
	return fmt.Sprintf("life %.3f", time.Unix(0, int64(s.Epoch)).Sub(time.Unix(1_700_000_000, 0)).Seconds())
}

func showMessage(m codec.Control) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch m := m.(type) {
	case *codec.RouteUpdate:
		for _, r := range m.Routes {
			if r.Metric == codec.MetricInfinity {
				add("%s retracted", show(r.Router))
				continue
			}
			add("%s metric %d seqno %d %s", show(r.Router), r.Metric, r.Seqno, showSource(r.Source))
		}
		return "routes: " + strings.Join(parts, ", ")
	case *codec.SeqnoRequest:
		for _, q := range m.Wanted {
			add("%s seqno %d %s, %d hops", show(q.Router), q.Seqno, showSource(q.Source), q.Hops)
		}
		return "seqno request: " + strings.Join(parts, ", ")
	case *codec.AddressList:
		for _, a := range m.Added {
			add("+%s", show(a.Node))
		}
		for _, a := range m.Removed {
			add("-%s", show(a))
		}
		return fmt.Sprintf("list of %s %s, %d to %d: %s", show(m.Router), showSource(m.Source), m.From, m.To, strings.Join(parts, " "))
	case *codec.ListNumbers:
		for _, l := range m.Lists {
			add("%s number %d %s", show(l.Router), l.Number, showSource(l.Source))
		}
		return "lists: " + strings.Join(parts, ", ")
	case *codec.ListRequest:
		return "list request: " + show(m.Router)
	}
	panic(fmt.Sprintf("%T", m))
}
