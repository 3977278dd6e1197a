package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"causeway/codec"
	"causeway/engine/buf"
)

// What TestMemoryStaysWithinItsCap allows, and its load.
const (
	capMemory = 64 << 20

	capVictims   = 80 // nodes that do not read
	capSenders   = 40
	capMany      = 300 // nodes with a connection each, where their number counts
	capStuffing  = 5   // frames of 1 MiB: kernels take up to 4 MiB
	capExchanges = 30  // of the polite pair, once the attack is felt
	capBatch     = 20  // frames of an exchange
)

// Whatever nodes do, the router stays within --memory, 28 KiB a connection and
// 64 MiB, and a pair of nodes that send little lose nothing.
func TestMemoryStaysWithinItsCap(t *testing.T) {
	const refused = `causeway_memory_pressure_total{effect="refused"}`
	for _, c := range []struct {
		name   string
		verify string
		felt   string  // a metric that grows
		by     float64 // at least
		begin  func(a *attack)
	}{
		{"small frames for nodes that do not read", verifyNone, refused, 1000, func(a *attack) { a.flood(1) }},
		{"frames of 1 KB for nodes that do not read", verifyNone, refused, 1000, func(a *attack) { a.flood(1000) }},
		{"frames of 200 KB for nodes that do not read", verifyNone, refused, 1000, func(a *attack) { a.flood(200_000) }},
		{"frames to nobody from nodes that do not read", verifyNone, "causeway_frames_unnoticed_total", 1000, (*attack).nobody},
		{"lists for nodes that do not read", verifyNone, "causeway_requests_unanswered_total", 100, (*attack).lists},
		{"half-sent frames of 1 MiB", verifyNone, "causeway_partial_ended_total", 100, (*attack).halves},
		{"frames faster than they are checked", verifyAll, `causeway_memory_pressure_total{effect="paused"}`, 100, (*attack).unchecked},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFleet(t, "--memory", sizeText(capMemory), "--verify", c.verify, "--verify-path", "stdlib", "--verify-workers", "1", "--max-connections-per-source", "0",
				"--max-handshakes-per-source", "0", "--max-handshake-rate", "0", "--stall-timeout", "10m", "--keep-alive", "1m", "--dead-after", "5m")
			pair := polite{a: f.enlist(t), b: f.enlist(t)}
			ctx, stop := context.WithCancel(t.Context())
			a := &attack{t: t, fleet: f, ctx: ctx}
			defer a.going.Wait()
			defer stop()
			c.begin(a)
			waitUntil(t, "the attack is felt", func() bool { return f.router.metrics()[c.felt] >= c.by })
			exchanges := capExchanges
			if raceEnabled || buf.Debug { // the bound does not hold there, and each takes seconds
				exchanges = 2
			}
			for range exchanges {
				pair.exchange(t)
			}
			m := f.router.metrics()
			most := int64(capMemory + capProcess + f.made*capConnection)
			peak, err := residentPeak(f.router.cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			counted := 0.0
			for name, n := range m {
				if strings.HasPrefix(name, "causeway_memory_bytes{") {
					counted += n
				}
			}
			t.Logf("peak %.1f MiB, bound %.1f MiB, now counted %.1f MiB", float64(peak)/(1<<20), float64(most)/(1<<20), counted/(1<<20))
			if peak > most && !raceEnabled && !buf.Debug {
				t.Errorf("the router has had %d bytes, %d too many; %v", peak, peak-most, m)
			}
		})
	}
}

// attack is what some nodes of a fleet do to its router until ctx ends.
type attack struct {
	t     *testing.T
	fleet *fleet
	ctx   context.Context
	going sync.WaitGroup
}

// many returns so many nodes.
func (a *attack) many(n int) (all []*recruit) {
	for range n {
		all = append(all, a.fleet.enlist(a.t))
	}
	return all
}

// repeat has r write a stream of frames again and again.
func (a *attack) repeat(r *recruit, wire []byte) {
	a.going.Go(func() {
		defer context.AfterFunc(a.ctx, func() { r.conn.NetConn().Close() })()
		for a.ctx.Err() == nil {
			if _, err := r.conn.Write(wire); err != nil {
				return
			}
		}
	})
}

// flood sends frames of so many bytes to nodes that do not read, for which the
// kernel takes nothing any more.
func (a *attack) flood(size int) {
	victims, senders := a.many(capVictims), a.many(capSenders)
	for i, v := range victims {
		s := senders[i%len(senders)]
		large := s.frame(a.t, v.address, codec.CategoryApplication, make([]byte, 1<<20))
		for range capStuffing {
			if _, err := s.conn.Write(large); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	for _, s := range senders {
		var wire []byte
		for _, v := range victims {
			wire = append(wire, s.frame(a.t, v.address, codec.CategoryApplication, make([]byte, size))...)
		}
		a.repeat(s, wire)
	}
}

// halves sends the greater part of a large frame on each of many connections.
func (a *attack) halves() {
	for _, s := range a.many(capMany) {
		wire := s.frame(a.t, s.address, codec.CategoryApplication, make([]byte, 1<<20))
		a.going.Go(func() {
			defer context.AfterFunc(a.ctx, func() { s.conn.NetConn().Close() })()
			if _, err := s.conn.Write(wire[:900<<10]); err == nil { // else it was ended as one of the slowest
				<-a.ctx.Done()
			}
		})
	}
}

// nobody sends frames to many addresses that nobody has, and reads no notice.
func (a *attack) nobody() {
	for _, s := range a.many(capMany) {
		var wire []byte
		for n := range 100 {
			to := s.address
			to[14], to[15] = to[14]^byte(n), to[15]^0xff
			wire = append(wire, s.frame(a.t, to, codec.CategoryApplication, nil)...)
		}
		a.repeat(s, wire)
	}
}

// lists asks for lists of all nodes, and reads none.
func (a *attack) lists() {
	for _, s := range a.many(capMany) {
		a.repeat(s, s.frame(a.t, a.fleet.grant.Address, codec.CategoryControl, controlBody(a.t, &codec.NameRequest{Max: codec.NamesMax})))
	}
}

// unchecked sends a node's own frames to itself, faster than they are checked.
func (a *attack) unchecked() {
	for _, s := range a.many(capMany) {
		var wire []byte
		for range 100 {
			wire = append(wire, s.frame(a.t, s.address, codec.CategoryApplication, make([]byte, 4000))...)
		}
		a.repeat(s, wire)
		a.going.Go(func() { // it reads: this is about frames that come in
			for b := make([]byte, 64<<10); ; {
				if _, err := s.conn.NetConn().Read(b); err != nil {
					return
				}
			}
		})
	}
}

// polite is a pair of nodes that send little.
type polite struct {
	a, b *recruit
	rest []byte
}

// exchange sends some frames from one to the other, all of which must arrive.
func (p *polite) exchange(t *testing.T) {
	t.Helper()
	var wire []byte
	for n := range capBatch {
		wire = append(wire, p.a.frame(t, p.b.address, codec.CategoryApplication, []byte{byte(n)})...)
	}
	if _, err := p.a.conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 32<<10)
	for left := capBatch; left > 0; {
		n, err := p.b.conn.Read(buffer)
		if err != nil {
			t.Fatalf("%d frames of a polite node are missing: %v", left, err)
		}
		p.rest = append(p.rest, buffer[:n]...)
		for {
			need, err := codec.Cut(p.rest, codec.BodyMaxDefault)
			if err != nil {
				t.Fatal(err)
			}
			if need > len(p.rest) {
				break
			}
			if codec.Raw(p.rest[:need]).Category() == codec.CategoryApplication {
				left--
			}
			p.rest = p.rest[need:]
		}
	}
}

// The memory of the control group counts where it is less than the machine's.
func TestTheMachinesMemoryIsWhatTheProcessMayHave(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const meminfo = "MemFree: 1 kB\nMemTotal:       16000 kB\n"
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  int64
	}{
		"nothing to see": {fstest.MapFS{}, 0},
		"no group":       {fstest.MapFS{"proc/meminfo": file(meminfo)}, 16000 << 10},
		"version 2, the parent's limit": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/system.slice/causeway.service\n"),
			"sys/fs/cgroup/system.slice/causeway.service/memory.max": file("max\n"),
			"sys/fs/cgroup/system.slice/memory.max":                  file("5000000\n"),
		}, 5000000},
		"version 1": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("5:cpu:/a\n4:memory:/docker/1\n"),
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": file("4000000\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          file("9223372036854771712\n"),
		}, 4000000},
		"a container that sees its own group as the root": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("4:memory:/docker/1\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("3000000\n"),
		}, 3000000},
		"a group with more than there is": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("99000000000\n"),
		}, 16000 << 10},
	} {
		if got := machineMemory(c.files); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
	if n := machineMemory(os.DirFS("/")); n < 64<<20 {
		t.Errorf("this machine has %d bytes", n)
	}
	if n, err := residentBytes(os.DirFS("/")); err != nil || n < 1<<20 || n > machineMemory(os.DirFS("/")) {
		t.Errorf("this process has %d bytes, %v", n, err)
	}
}
