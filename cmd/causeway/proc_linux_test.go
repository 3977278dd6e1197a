package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
)

// pinned returns how many threads of a process may run on one core alone, by
// core.
func pinned(t *testing.T, pid int) map[string]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	cores := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
				if list = strings.TrimSpace(list); !strings.ContainsAny(list, ",-") {
					cores[list]++
				}
			}
		}
	}
	return cores
}

func TestLoopsAndWorkersArePinned(t *testing.T) {
	cores, err := allowedCores()
	if err != nil {
		t.Fatal(err)
	}
	if len(cores) < 2 {
		t.Fatal("this test needs two cores: on one every thread is pinned")
	}
	dir := makeDomains(t, []string{"prod.example"}, nil)
	last := fmt.Sprint(cores[len(cores)-1])
	others := map[string]int{last: 1, fmt.Sprint(cores[0]): 1} // a loop, and a worker elsewhere
	for _, c := range []struct {
		args []string
		want map[string]int
	}{
		{nil, map[string]int{}},
		{[]string{"--loops", "1", "--pin", last}, map[string]int{last: 1}},
		{[]string{"--pin", "off"}, map[string]int{}},
		{[]string{"--pin", "off", "--verify-workers", "2", "--verify-pin", last}, map[string]int{last: 2}},
		{[]string{"--loops", "1", "--pin", last, "--verify-workers", "1", "--verify-pin", "auto"}, others},
	} {
		if c.args == nil {
			for _, core := range cores {
				c.want[fmt.Sprint(core)] = 1
			}
		}
		r := startServe(t, dir, c.args...)
		if got := pinned(t, r.cmd.Process.Pid); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v: threads pinned by core: %v, want %v", c.args, got, c.want)
		}
		r.stop()
	}
}

// The load of TestForwardingAllocatesNothing.
const (
	allocFrames     = 1_000_000
	allocFramesRace = 50_000 // the race detector makes signatures ten times dearer
	allocConns      = 4
	allocBatch      = 250 // frames that are signed once and sent again and again
	allocBody       = 256
	allocPerFrame   = 0.01
)

// A router in steady state makes no garbage per frame, with every signature
// verified. The frames go to their own senders; routers do not look for
// duplicates, so a few signed ones serve for all. What a router allocates as time
// goes by is measured by itself: it then has nothing to do for as long again.
func TestForwardingAllocatesNothing(t *testing.T) {
	frames := allocFrames
	exact := !raceEnabled && !buf.Debug // both allocate themselves
	if !exact {
		frames = allocFramesRace
	}
	s := startStranger(t, "ed25519")
	dir := filepath.Dir(s.dir)
	var clients []*echoClient
	for i := range allocConns {
		name := fmt.Sprintf("node-%d", i)
		runs(t, "pki", "issue", "--ca", filepath.Join(dir, s.domain, "ca"), "--name", name, "--out", filepath.Join(dir, name))
		clients = append(clients, newEchoClient(t, s, filepath.Join(dir, name)))
	}
	exchange := func(n int) {
		var all sync.WaitGroup
		for _, c := range clients {
			all.Go(func() { c.exchange(t, n/allocConns) })
		}
		all.Wait()
	}
	exchange(frames / 10) // pools fill
	before := quietMetrics(t, s.router)
	begin := time.Now()
	exchange(frames)
	busy := quietMetrics(t, s.router)
	time.Sleep(time.Since(begin)) // to measure, not to wait for something
	idle := s.router.metrics()
	const mallocs, cpuTime, frameCount = "go_memstats_mallocs_total", "process_cpu_seconds_total", "causeway_frames_forwarded_total"
	ofTime := idle[mallocs] - busy[mallocs]
	perFrame := (busy[mallocs] - before[mallocs] - ofTime) / float64(frames)
	forwarded := busy[frameCount] - before[frameCount]
	t.Logf("%.0f frames, %.5f allocations a frame and %.0f as time went by; %.2f us of CPU a frame",
		forwarded, perFrame, ofTime, (busy[cpuTime]-before[cpuTime])/forwarded*1e6)
	if perFrame >= allocPerFrame && exact {
		t.Errorf("%v allocations per frame, at most %v", perFrame, allocPerFrame)
	}
	if forwarded != float64(frames) {
		t.Errorf("%v frames forwarded, sent %d", forwarded, frames)
	}
	for _, c := range clients {
		c.conn.Close()
	}
	s.router.stop()
}

// quietMetrics returns the router's metrics when it has no frame under way. A
// frame counts as forwarded only after the kernel has it, so its recipient may
// have it earlier.
func quietMetrics(t *testing.T, r *routerProcess) (m metrics) {
	t.Helper()
	waitUntil(t, "no frame is under way", func() bool {
		m = r.metrics()
		return m["causeway_frames_in_flight"] == 0
	})
	return m
}

// echoClient sends frames to itself.
type echoClient struct {
	conn  *tls.Conn
	batch []byte
	rest  []byte
}

func newEchoClient(t *testing.T, s *stranger, dir string) *echoClient {
	t.Helper()
	own := *s
	own.dir = dir
	own.load(t)
	roots := x509.NewCertPool()
	roots.AddCert(own.id.Roots[0])
	raw, err := net.Dial("tcp", s.router.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(patience))
	c := &echoClient{conn: tls.Client(raw, &tls.Config{
		ServerName: s.domain, RootCAs: roots, NextProtos: []string{"dbw/1"}, Certificates: []tls.Certificate{own.id.TLSCertificate("")},
	})}
	if _, err := c.conn.Write(own.hello); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4<<10)
	for countFrames(t, c.rest) == 0 {
		n, err := c.conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		c.rest = append(c.rest, b[:n]...)
	}
	c.rest = nil
	for range allocBatch {
		c.batch = append(c.batch, own.frame(t, own.id.Peer.Address, codec.CategoryApplication, make([]byte, allocBody))...)
	}
	return c
}

// exchange sends n frames and reads them all back, and link control between
// them; n must be a multiple of allocBatch.
func (c *echoClient) exchange(t *testing.T, n int) {
	if n%allocBatch != 0 {
		t.Errorf("%d frames are no whole batches", n)
		return
	}
	c.conn.SetDeadline(time.Now().Add(patience))
	var failed atomic.Bool
	go func() {
		for range n / allocBatch {
			if _, err := c.conn.Write(c.batch); err != nil {
				failed.Store(true)
				c.conn.Close()
				return
			}
		}
	}()
	buffer := make([]byte, 256<<10)
	for left := n; left > 0; {
		got, err := c.conn.Read(buffer)
		c.rest = append(c.rest, buffer[:got]...)
		at := 0
		for {
			need, cutErr := codec.Cut(c.rest[at:], codec.BodyMaxDefault)
			if cutErr != nil || need > len(c.rest)-at {
				break
			}
			if codec.Raw(c.rest[at:at+need]).Category() == codec.CategoryApplication {
				left--
			}
			at += need
		}
		c.rest = c.rest[:copy(c.rest, c.rest[at:])]
		if err != nil {
			t.Errorf("read: %v (write failed: %v)", err, failed.Load())
			return
		}
	}
}
