package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine"
)

// meshPlan says what a mesh is made of. Routers are numbered from 1.
type meshPlan struct {
	domains []meshDomain
	links   [][2]int // the first of each connects to the second
	flags   []string // of all routers
}

type meshDomain struct {
	name    string
	routers []int // that serve it
	nodes   int   // at each of them in turn
}

// mesh is several routers, each a process at a site of its own, with links that
// are wires between them. Nodes are at the hub.
type mesh struct {
	t       *testing.T
	plan    meshPlan
	sites   *sites
	dir     string
	routers map[int]*meshRouter
	wires   map[[2]int]*wire // by link
}

// meshRouter is one of them.
type meshRouter struct {
	*routerProcess // of now, or the last one
	mesh           *mesh
	name           string
	site           *site
	args           []string
	down           bool // it has been stopped or killed
}

// makeMesh makes identities, files and wires, and starts no router.
func makeMesh(t *testing.T, plan meshPlan) *mesh {
	t.Helper()
	m := &mesh{t: t, plan: plan, sites: newSites(t), dir: t.TempDir(), routers: map[int]*meshRouter{}, wires: map[[2]int]*wire{}}
	for _, d := range plan.domains {
		ca := m.ca(d.name)
		verb(t, "pki", "init", "--domain", d.name, "--out", ca)
		for _, n := range d.routers {
			r := m.addRouter(n)
			verb(t, "pki", "grant", "--ca", ca, "--name", r.name, "--out", filepath.Join(m.dir, r.name))
			verb(t, "pki", "trust", "--ca", ca, "--store", filepath.Join(m.dir, r.name+"-trust"))
		}
		for i := range d.nodes {
			verb(t, "pki", "issue", "--ca", ca, "--name", nodeName(i), "--out", filepath.Join(m.dir, d.name, nodeName(i)))
		}
	}
	for _, l := range plan.links {
		from, to := m.routers[l[0]], m.routers[l[1]]
		listener, err := m.sites.hub.listen(net.JoinHostPort(from.site.hub, "0"))
		if err != nil {
			t.Fatal(err)
		}
		m.wires[l] = newWire(t, listener, func(ctx context.Context) (net.Conn, error) { return m.sites.hub.dial(ctx, to.listens()) })
	}
	for n := range m.routers {
		m.writeFiles(n)
	}
	return m
}

// startMesh starts all of it.
func startMesh(t *testing.T, plan meshPlan) *mesh {
	t.Helper()
	m := makeMesh(t, plan)
	for _, n := range m.numbers() {
		m.routers[n].start()
	}
	return m
}

func (m *mesh) ca(domain string) string { return filepath.Join(m.dir, domain, "ca") }

func nodeName(i int) string { return fmt.Sprintf("node-%02d", i) }

func (m *mesh) addRouter(n int) *meshRouter {
	if m.routers[n] == nil {
		name := fmt.Sprint("edge-", n)
		m.routers[n] = &meshRouter{mesh: m, name: name, site: m.sites.add(name)}
	}
	return m.routers[n]
}

// listens returns where the router listens: host:port, always the same.
func (r *meshRouter) listens() string { return net.JoinHostPort(r.site.address, "7100") }

// writeFiles writes a router's connections file: the links that it makes.
func (m *mesh) writeFiles(n int) {
	m.t.Helper()
	r := m.routers[n]
	file := struct {
		Listen  []string `json:"listenTo"`
		Connect []string `json:"connectTo"`
	}{[]string{"dbw://" + r.listens()}, []string{}}
	for _, l := range m.plan.links {
		if l[0] == n {
			file.Connect = append(file.Connect, "dbw://"+m.wires[l].address())
		}
	}
	text, err := json.Marshal(file)
	if err != nil {
		m.t.Fatal(err)
	}
	name := filepath.Join(m.dir, r.name+".connections")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		m.t.Fatal(err)
	}
	r.args = append([]string{"--identity", filepath.Join(m.dir, r.name), "--trust", filepath.Join(m.dir, r.name+"-trust"),
		"--connections", name, "--drain-timeout", "1m", "--hold-timeout", "30s"}, m.plan.flags...)
	for _, other := range m.numbers() {
		if other != n {
			r.args = append(r.args, "--drain-to", "dbw://"+m.routers[other].listens()) // wires are for links
		}
	}
}

// start starts the router, again if it has ended.
func (r *meshRouter) start() {
	r.mesh.t.Helper()
	r.routerProcess = startServeAt(r.mesh.t, r.site.start, r.args)
	r.http.Transport = r.site.transport()
	r.down = false
}

// terminate has the router end in good order, and waits for that.
func (r *meshRouter) terminate() {
	t := r.mesh.t
	t.Helper()
	r.down = true
	r.signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("%s ended with %v\n%s", r.name, err, r.log)
		}
	case <-time.After(patience):
		t.Fatalf("%s does not end\n%s", r.name, r.log)
	}
}

// kill ends the router with SIGKILL, and waits until it is gone.
func (r *meshRouter) kill() {
	r.mesh.t.Helper()
	r.down = true
	r.signal(syscall.SIGKILL)
	<-r.ended
}

// end stops all routers, which must be in good order.
func (m *mesh) end() {
	m.t.Helper()
	for _, n := range m.numbers() {
		m.routers[n].terminate()
	}
}

// logs returns the last lines of all routers' logs.
func (m *mesh) logs() string {
	var text strings.Builder
	for _, n := range m.numbers() {
		fmt.Fprintf(&text, "%s:\n%s\n", m.routers[n].name, m.routers[n].log)
	}
	return text.String()
}

func (m *mesh) numbers() (all []int) {
	for n := range m.routers {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// linked waits until each router that runs has the links that the plan says with
// all others that do.
func (m *mesh) linked() {
	m.t.Helper()
	for _, n := range m.numbers() {
		var want []string
		for _, l := range m.plan.links {
			for i := range l {
				if other := m.routers[l[1-i]]; l[i] == n && !other.down {
					want = append(want, other.name)
				}
			}
		}
		slices.Sort(want)
		r := m.routers[n]
		for end := time.Now().Add(patience); !r.down; time.Sleep(20 * time.Millisecond) {
			if r.neighbours() == strings.Join(want, " ") {
				break
			}
			if time.Now().After(end) {
				m.t.Fatalf("%s: linked to %q, want %q\n%s", r.name, r.neighbours(), want, m.logs())
			}
		}
	}
}

// neighbours returns the names of the routers at the other ends of its links that
// are open, sorted.
func (r *meshRouter) neighbours() string {
	t := r.mesh.t
	t.Helper()
	res, err := r.http.Get("http://" + r.admin + "/debug/peers")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var all engine.Peers
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all.Peers {
		if name, ok := strings.CutPrefix(p.Name, "router/"); ok && p.State == "open" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// serving returns the URLs of a domain's routers, beginning with the one given.
func (m *mesh) serving(d meshDomain, first int) (urls []string) {
	at := slices.Index(d.routers, first)
	for i := range d.routers {
		urls = append(urls, "dbw://"+m.routers[d.routers[(at+i)%len(d.routers)]].listens())
	}
	return urls
}

// grant returns the address of a router in a domain.
func (m *mesh) grant(n int, domain string) codec.Address {
	m.t.Helper()
	id, err := pki.LoadIdentity(os.DirFS(filepath.Join(m.dir, m.routers[n].name)))
	if err != nil {
		m.t.Fatal(err)
	}
	return id.Grants[domain].Address
}

// sum adds up a metric of all routers.
func (m *mesh) sum(metric string) (sum float64) {
	m.t.Helper()
	for _, r := range m.routers {
		sum += r.metrics()[metric]
	}
	return sum
}

// balanced waits until every router has got rid of all frames, and checks the
// equation of its counters.
func (m *mesh) balanced() {
	m.t.Helper()
	for _, n := range m.numbers() {
		r := m.routers[n]
		var say string
		balanced := func() bool {
			v := r.metrics()
			_, dropped := v.dropped()
			cut, forwarded, consumed := v["causeway_frames_cut_total"], v["causeway_frames_forwarded_total"], v["causeway_frames_consumed_total"]
			say = fmt.Sprintf("%s: cut %v, forwarded %v, consumed %v, dropped %v, buffers %v",
				r.name, cut, forwarded, consumed, dropped, v["causeway_buffers"])
			return cut == forwarded+consumed+dropped && v["causeway_buffers"] == 0
		}
		for end := time.Now().Add(time.Minute); !balanced(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				m.t.Errorf("frames are unaccounted for: %s", say)
				return
			}
		}
	}
}

// verb runs one of the program's verbs in this process.
func verb(t *testing.T, args ...string) {
	t.Helper()
	var text strings.Builder
	if code := run(args, strings.NewReader(""), io.Discard, &text); code != exitOK {
		t.Fatalf("causeway %s: exit code %d: %s", strings.Join(args, " "), code, &text)
	}
}
