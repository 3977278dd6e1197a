package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The demonstration, and the same work between two sites that only a router
// joins: no other way between them, no route to anywhere else, no name server.
func TestTheDemonstrationPassesBehindAnAirGap(t *testing.T) {
	s := newSites(t)
	left, right := s.add("left"), s.add("right")
	checkGap(t, s, left, right)
	out, err := left.run(t, "demo", "--once", "--dir", filepath.Join(t.TempDir(), "demo"))
	if err != nil || !strings.Contains(out, "Hello bob, this is alice.") {
		t.Fatalf("causeway demo: %v\n%s", err, out)
	}

	const domain = "gap.example"
	dir := makeDomains(t, []string{domain}, []string{"alice", "bob"})
	router := startServeAt(t, s.hub.start, []string{
		"--identity", filepath.Join(dir, "router"), "--trust", filepath.Join(dir, "trust"),
		"--listen", "dbw://" + left.hub + ":7100", "--listen", "dbw://" + right.hub + ":7100"})
	router.http.Transport = s.hub.transport()
	for _, way := range []struct {
		from, to         *site
		sender, receiver string
	}{{left, right, "alice", "bob"}, {right, left, "bob", "alice"}} {
		identity := func(name string) string { return filepath.Join(dir, domain, name) }
		listen, log := &lines{}, &lines{}
		cmd := exec.Command(program(t), "node", "listen", "--identity", identity(way.receiver), "--connect", "dbw://"+way.to.hub+":7100", "--accept-plain", "--count", "1")
		cmd.Stdout, cmd.Stderr = lineWriter{listen}, lineWriter{log}
		if err := way.to.start(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		waitUntil(t, way.receiver+" listens", func() bool { return strings.Contains(log.String(), "listening as") })
		for _, args := range [][]string{
			{"list"}, {"ping", "--to", way.receiver, "--count", "3", "--interval", "10ms"}, {"ping", "--to", "router", "--count", "1"},
			{"send", "--to", way.receiver, "--plain", "--wait", "over the gap from " + way.sender},
		} {
			args = append([]string{"node", args[0], "--identity", identity(way.sender), "--connect", "dbw://" + way.from.hub + ":7100"}, args[1:]...)
			if out, err := way.from.run(t, args...); err != nil {
				t.Errorf("causeway %s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(listen.String(), "over the gap from "+way.sender) {
			t.Errorf("%s: %v, printed %s\n%s", way.receiver, err, listen, log)
		}
	}
	router.stop()
}

// checkGap asserts what makes it an air gap. Loopback addresses have none.
func checkGap(t *testing.T, s *sites, left, right *site) {
	t.Helper()
	if !s.namespaces() {
		return
	}
	for _, to := range []string{right.address, right.hub, "192.0.2.1"} { // the last is an address of nobody's (RFC 5737)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := left.dial(ctx, to+":7100")
		cancel()
		if err == nil || !strings.Contains(err.Error(), "network is unreachable") {
			t.Errorf("from the left site to %s: %v; want: network is unreachable", to, err)
		}
	}
}
