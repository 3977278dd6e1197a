package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"causeway/engine"
)

// anotherRouter makes the identity and trust store of one more router of the
// domains below dir, and returns the directory they are in.
func anotherRouter(t *testing.T, dir, name string, domains ...string) string {
	t.Helper()
	own := t.TempDir()
	for _, d := range domains {
		ca := filepath.Join(dir, d, "ca")
		runs(t, "pki", "grant", "--ca", ca, "--name", name, "--out", filepath.Join(own, "router"))
		runs(t, "pki", "trust", "--store", filepath.Join(own, "trust"), "--ca", ca)
	}
	return own
}

// routers returns the names of the routers that `causeway peers` shows as open.
func (r *routerProcess) routers() (names []string) {
	for line := range strings.Lines(runs(r.t, "peers", "--json", "--admin", r.admin)) {
		var p engine.Peer
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		if p.Role == "router" && p.State == "open" {
			names = append(names, p.Name)
		}
	}
	return names
}

func TestRoutersLinkByTheirConnectionsFile(t *testing.T) {
	const domain = "prod.example"
	dir := makeDomains(t, []string{domain}, nil)
	a := startServe(t, dir)
	defer a.stop()
	other := anotherRouter(t, dir, "edge-2", domain)
	file := filepath.Join(other, "node.connections")
	connect := func(urls string) {
		t.Helper()
		text := fmt.Sprintf(`{"versionCutoff": "", "nodeCost": "0", "listenTo": ["dbw://127.0.0.1:0"], "connectTo": [%s]}`, urls)
		if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	connect(fmt.Sprintf("%q", a.url()))
	b := startServeOn(t, other, []string{"--connections", file, "--link-cost", a.url() + "=5"})
	defer b.stop()
	linked := func(r *routerProcess, name string) func() bool {
		return func() bool { names := r.routers(); return len(names) == 1 && names[0] == name }
	}
	waitUntil(t, "the link shows at the router that dialed", linked(b, "router/edge-1"))
	waitUntil(t, "the link shows at the other", linked(a, "router/edge-2"))
	if m := b.metrics(); m["causeway_links"] != 1 || m["causeway_link_targets_down"] != 0 {
		t.Errorf("links %v, targets down %v", m["causeway_links"], m["causeway_link_targets_down"])
	}
	connect("")
	waitUntil(t, "the link is left", func() bool { return len(a.routers()) == 0 && len(b.routers()) == 0 })
	connect(fmt.Sprintf("%q", a.url()))
	waitUntil(t, "the link is back", linked(a, "router/edge-2"))
}

func TestFlagsAboutLinksThatAreRefused(t *testing.T) {
	dir := makeDomains(t, []string{"prod.example"}, nil)
	serve := []string{"serve", "--identity", filepath.Join(dir, "router"), "--trust", filepath.Join(dir, "trust"), "--listen", "dbw://127.0.0.1:0", "--admin", "off"}
	for _, c := range []struct {
		flags []string
		says  string
	}{
		{[]string{"--connect", "router-2:7100"}, "--connect"},
		{[]string{"--connect", "dbw://router-2:0"}, "port not 0"},
		{[]string{"--link-cost", "0"}, "--link-cost"},
		{[]string{"--link-cost", "dbw://router-2=65535"}, "--link-cost"},
		{[]string{"--link-cost", "router-2=1"}, "--link-cost"},
		{[]string{"--link-renewal", "0"}, "--link-renewal"},
		{[]string{"--link-domain", "lab.example"}, "lab.example"},
		{[]string{"--forward-domain", "lab.example"}, "lab.example"},
	} {
		out, code := exitOf(t, append(serve, c.flags...)...)
		if code == 0 || !strings.Contains(out, c.says) {
			t.Errorf("%v: exit %d, %q", c.flags, code, out)
		}
	}
}
