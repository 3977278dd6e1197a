package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// onLoopback has tests that would make network namespaces use loopback addresses,
// as they do where namespaces are not permitted.
var onLoopback = flag.Bool("loopback", false, "use loopback addresses instead of network namespaces")

// sites are places for processes and sockets of one test: a hub, and others that
// are joined to it and to nothing else.
//
// Each is a network namespace without a name, so that it is gone with the last
// process in it, however the test ends; a pair of veth interfaces joins it to the
// hub's, and no kernel of them forwards. Where namespaces are not permitted all
// sites are in the one that the test is in, and have addresses of their own in
// 127.0.0.0/8: what separates them is then the processes' good will.
type sites struct {
	t    *testing.T
	hub  *site
	made int
	net  string // the first two bytes of all addresses
}

// site is one place.
type site struct {
	name    string
	ns      *os.File // its namespace; nil: that of the test
	address string   // its own, as the hub reaches it; empty for the hub itself
	hub     string   // the hub's, as it reaches that
}

// sitesMax bounds how many sites a hub has: their number is the third byte of
// addresses.
const sitesMax = 250

// newSites makes the hub.
func newSites(t *testing.T) *sites {
	t.Helper()
	s := &sites{t: t, net: "10.71", hub: &site{name: "hub"}}
	if !*onLoopback {
		ns, err := newNamespace(t)
		if err == nil {
			s.hub.ns = ns
			return s
		}
		t.Logf("this machine: no network namespaces (%v), loopback addresses instead", err)
	}
	s.net = loopbackNet(t)
	return s
}

// namespaces tells whether sites are network namespaces.
func (s *sites) namespaces() bool { return s.hub.ns != nil }

// add makes a site that is joined to the hub.
func (s *sites) add(name string) *site {
	s.t.Helper()
	if s.made++; s.made > sitesMax {
		s.t.Fatal("too many sites")
	}
	to := &site{name: name, address: fmt.Sprintf("%s.%d.2", s.net, s.made), hub: fmt.Sprintf("%s.%d.1", s.net, s.made)}
	if s.namespaces() {
		var err error
		if to.ns, err = newNamespace(s.t); err == nil {
			err = join(s.hub, to, s.made)
		}
		if err != nil {
			s.t.Fatalf("site %s: %v", name, err)
		}
	}
	return to
}

// loopbackNet returns the first two bytes of addresses that no other test of this
// machine uses: a listener on one of them, open until the test ends, says so.
func loopbackNet(t *testing.T) string {
	t.Helper()
	for n := range 100 {
		net16 := fmt.Sprintf("127.%d", 71+(n+os.Getpid())%100)
		l, err := net.Listen("tcp", net16+".255.1:7100")
		if err == nil {
			t.Cleanup(func() { l.Close() })
			return net16
		}
	}
	t.Fatal("no loopback addresses are free")
	return ""
}

// dial connects from the site.
func (s *site) dial(ctx context.Context, address string) (c net.Conn, err error) {
	s.do(func() {
		var d net.Dialer
		c, err = d.DialContext(ctx, "tcp", address)
	})
	return c, err
}

// transport is for HTTP to where only the site's processes come.
func (s *site) transport() *http.Transport {
	return &http.Transport{
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return s.dial(ctx, address) },
		DisableKeepAlives: true,
	}
}

// listen listens at the site.
func (s *site) listen(address string) (l net.Listener, err error) {
	s.do(func() { l, err = net.Listen("tcp", address) })
	return l, err
}

// start starts a process at the site.
func (s *site) start(cmd *exec.Cmd) (err error) {
	s.do(func() { err = cmd.Start() })
	return err
}

// run runs the program at the site, and returns what it printed.
func (s *site) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var text strings.Builder
	cmd := exec.Command(program(t), args...)
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := s.start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return text.String(), err
}
