package engine

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/link"
)

// hostile is a router written from PROTOCOL.md alone, that can misbehave.
type hostile struct {
	*client
	domain string
}

// connectRouter connects as a router that proves the domains given, of which the
// first is that of the link.
func connectRouter(t *testing.T, addr string, id *pki.Identity, domains ...*authority) *hostile {
	t.Helper()
	first := domains[0]
	me := &pki.Identity{Key: id.Key, Peer: id.Grants[first.Domain], Grants: id.Grants, Roots: []*x509.Certificate{first.Root}}
	config := clientTLS(me)
	config.Certificates = []tls.Certificate{id.TLSCertificate(first.Domain)}
	c, err := dial(t, addr, me, config)
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{c, first.Domain}
	hello := testHello()
	hello.Role = codec.RoleRouter
	c.say(hello)
	if _, ok := c.control().(*codec.Hello); !ok {
		t.Fatal("no hello came back")
	}
	state := c.conn.ConnectionState()
	exporter := must(state.ExportKeyingMaterial(codec.DomainsExporter, nil, codec.DomainsExporterSize))
	var values []codec.DomainProof
	var grants [][][]byte
	for _, d := range domains {
		values = append(values, codec.NewDomainProof(exporter, true, d.Domain, sha256.Sum256(d.Root.Raw)))
		grants = append(grants, id.Grants[d.Domain].Chain)
	}
	for _, m := range must(codec.SplitDomainProofs(values)) {
		c.say(m)
	}
	for _, m := range must(codec.SplitGrants(grants)) {
		c.say(m)
	}
	return h
}

// messageOf returns the next control message of that type, and answers what is asked.
func messageOf[M codec.Control](c *client) M {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if f.Category() == codec.CategoryControl {
			if m, ok := must(codec.DecodeControl(f.Body())).(M); ok {
				return m
			}
		}
	}
}

// numberAt returns the number of the list that a router has of a domain's first
// authority; "" when it has none.
func numberAt(r *Router, domain string) string {
	for _, l := range r.state().config.Store.Lists(domain) {
		return l.Number
	}
	return ""
}

func (r *Router) listCounts() map[string]uint64 {
	all := make(map[string]uint64)
	for result, name := range listNames {
		if n := r.lists.counts[result].Load(); n > 0 {
			all[name] = n
		}
	}
	return all
}

// line starts n routers in a row, each linked to the one before it.
func line(t *testing.T, n int, change func(i int, c *Config), d *authority) (routers []*Router, addrs []string) {
	t.Helper()
	for i := range n {
		name := "edge-" + string(rune('1'+i))
		r, addr := startRouter(t, func(c *Config) {
			var to []string
			if i > 0 {
				to = addrs[i-1 : i]
			}
			linkedTo(name, []*authority{d}, to...)(c)
			if change != nil {
				change(i, c)
			}
		}, d)
		routers, addrs = append(routers, r), append(addrs, addr)
	}
	for i, r := range routers {
		links := 2
		if i == 0 || i == n-1 {
			links = 1
		}
		waitProven(t, r, links, d.Domain)
	}
	return routers, addrs
}

// A list that one router is given acts at all others, reaches their nodes and
// files, and crosses each link once.
func TestRevocationTravelsToAllRouters(t *testing.T) {
	d := newAuthority("prod.example")
	var mu sync.Mutex
	saved := make(map[int][]string)
	routers, addrs := line(t, 3, func(i int, c *Config) {
		c.SaveList = func(domain string, der []byte) error {
			mu.Lock()
			defer mu.Unlock()
			saved[i] = append(saved[i], domain+" "+must(pki.ParseCRL(der)).Number.String())
			return nil
		}
	}, d)
	bad, other := connect(t, addrs[2], d.node("bad")), connect(t, addrs[1], d.node("other"))
	for number := range int64(2) {
		list := d.revoking(number+1, bad.id)
		reload(t, routers[0], func(c *Config) { c.Store = must(c.Store.WithCRL(d.Domain, list)) })
		for _, r := range routers {
			waitFor(t, "the list everywhere", func() bool { return numberAt(r, d.Domain) == must(pki.ParseCRL(list)).Number.String() })
		}
		if m := messageOf[*codec.RevocationList](other); !slices.Equal(m.Data, list) {
			t.Error("a node was sent another list")
		}
	}
	if g := bad.ended(); g == nil || g.Reason != codec.GoodbyeRevoked {
		t.Errorf("goodbye %+v, want revoked", g)
	}
	waitProven(t, routers[1], 2, d.Domain)
	for i, want := range []map[string]uint64{{}, {"taken": 2}, {"taken": 2}} {
		if got := routers[i].listCounts(); !maps.Equal(got, want) {
			t.Errorf("router %d: %v, want %v", i, got, want)
		}
	}
	waitFor(t, "the lists saved", func() bool { mu.Lock(); defer mu.Unlock(); return len(saved[1]) == 2 && len(saved[2]) == 2 })
	if want := []string{"prod.example 1", "prod.example 2"}; saved[0] != nil || !slices.Equal(saved[1], want) || !slices.Equal(saved[2], want) {
		t.Errorf("saved: %v", saved)
	}
	for _, r := range routers {
		if n := r.lists.bytes.Load(); n != 0 {
			t.Errorf("%d bytes of lists still count", n)
		}
	}
}

// Of two routers that link up the one with the older list takes the other's, and
// none goes back, whatever its files and neighbours say.
func TestListNumbersNeverGoBack(t *testing.T) {
	d := newAuthority("prod.example")
	old, young := d.revoking(3), d.revoking(5)
	withList := func(list []byte) func(int, *Config) {
		return func(_ int, c *Config) { c.Store = must(c.Store.WithCRL(d.Domain, list)) }
	}
	failed := errors.New("read-only")
	a, addr := startRouter(t, func(c *Config) {
		withList(old)(0, c)
		c.SaveList = func(string, []byte) error { return failed }
	}, d)
	b, _ := startRouter(t, func(c *Config) {
		linkedTo("edge-2", []*authority{d}, addr)(c)
		withList(young)(0, c)
	}, d)
	waitFor(t, "the newer list taken", func() bool { return numberAt(a, d.Domain) == "5" })
	h := connectRouter(t, addr, routerOf("edge-3", d), d)
	stranger := newAuthority("prod.example") // of the same name
	for i, list := range [][]byte{old, young, stranger.revoking(9), []byte("no list")} {
		h.say(&codec.RevocationList{Number: uint64(i + 1), Parts: 1, Data: list})
	}
	waitFor(t, "all looked at", func() bool { c := a.listCounts(); return c["old"] == 2 && c["refused"] == 2 })
	if numberAt(a, d.Domain) != "5" || numberAt(b, d.Domain) != "5" {
		t.Errorf("numbers %s and %s", numberAt(a, d.Domain), numberAt(b, d.Domain))
	}
	h.say(&codec.RevocationList{Number: 7, Part: 1, Parts: 2, Data: old})
	if g := h.ended(); g == nil || g.Reason != codec.GoodbyeProtocol {
		t.Errorf("a second part first: %+v", g)
	}
}

// A neighbour that sends list after list is not looked at for each, and what it
// begins does not stay in memory.
func TestListsOfOneNeighbourAreBounded(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.Memory = 64 << 20 }, d)
	h := connectRouter(t, addr, routerOf("edge-2", d), d)
	waitProven(t, r, 1, d.Domain)
	const sent = 100
	for i := range sent {
		h.say(&codec.RevocationList{Number: uint64(i + 1), Parts: 1, Data: []byte("no list")})
	}
	sum := func() (n uint64) {
		for _, of := range r.listCounts() {
			n += of
		}
		return n
	}
	waitFor(t, "all counted", func() bool { return sum() == sent })
	if n := r.listCounts()["skipped"]; n == 0 {
		t.Errorf("%v", r.listCounts())
	}
	part := make([]byte, codec.RevocationPartMax)
	for i := range 60 {
		h.say(&codec.RevocationList{Number: sent + 1, Part: uint16(i), Parts: codec.RevocationPartsMax, Data: part})
		if n := r.lists.bytes.Load(); n > r.listsMax() {
			t.Fatalf("%d bytes of one list", n)
		}
	}
	slow, honest := connectRouter(t, addr, routerOf("edge-3", d), d), connectRouter(t, addr, routerOf("edge-4", d), d)
	waitProven(t, r, 3, d.Domain)
	for i := range 15 { // and does not go on
		slow.say(&codec.RevocationList{Number: 1, Part: uint16(i), Parts: 16, Data: part})
	}
	waitFor(t, "half a list", func() bool { return r.lists.bytes.Load() == 15*codec.RevocationPartMax })
	honest.say(&codec.RevocationList{Number: 1, Parts: 1, Data: d.revoking(1)})
	waitFor(t, "the honest neighbour's list taken", func() bool { return numberAt(r, d.Domain) == "1" })
	for _, c := range []*hostile{h, slow, honest} {
		c.conn.Close()
	}
	waitFor(t, "nothing left in memory", func() bool { return len(linksOf(r)) == 0 && r.lists.bytes.Load() == 0 })
}

// A list crosses a link once; so a link by which one has come that there was no room
// for is renewed when there is, and not before.
func TestAListThatWasSkippedComesAgain(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	h := connectRouter(t, addr, routerOf("edge-2", d), d)
	waitProven(t, r, 1, d.Domain)
	full := r.listsMax()
	r.takesList(full)
	h.say(&codec.RevocationList{Number: 1, Parts: 1, Data: d.revoking(1)})
	waitFor(t, "the list skipped", func() bool { return r.listCounts()["skipped"] == 1 })
	onPeer := func(do func(p *peer)) {
		r.onLoops(func(l *loop) { l.link.Range(func(c *link.Conn) { do(peerOf(c)) }) })
	}
	onPeer(func(p *peer) {
		now := p.loop.link.Now()
		p.far.lists.missed.at = now.Add(-listRetry)
		if p.lookList(now); p.phase != phaseOpen {
			t.Error("the link is left while there is no room")
		}
	})
	r.takesList(-full)
	onPeer(func(p *peer) {
		now := p.loop.link.Now()
		p.far.lists.missed.at = now.Add(time.Second - listRetry)
		if p.lookList(now); p.phase != phaseOpen {
			t.Error("the link is left too soon")
		}
		p.far.lists.missed.at = now.Add(-listRetry)
		p.lookList(now)
	})
	if g := h.ended(); g == nil || g.Reason != codec.GoodbyeDone {
		t.Errorf("goodbye %+v, want done", g)
	}
}

// The largest list that there can be room for is taken, or comes again when there is
// none at the time; of a larger one the operator is told.
func TestAListThatThereCanBeNoRoomForIsTold(t *testing.T) {
	d := newAuthority("prod.example")
	var log logText
	r, addr := startRouter(t, func(c *Config) { c.Memory, c.Logger = 64<<20, slog.New(slog.NewTextHandler(&log, nil)) }, d)
	h := connectRouter(t, addr, routerOf("edge-2", d), d)
	waitProven(t, r, 1, d.Domain)
	list := make([]byte, r.listMax())
	number := uint64(0)
	send := func(size int) {
		number++
		parts := codec.RevocationParts(size)
		for i := range parts {
			from := i * codec.RevocationPartMax
			h.say(&codec.RevocationList{Number: number, Part: uint16(i), Parts: uint16(parts), Data: append(list, 0)[from:min(size, from+codec.RevocationPartMax)]})
		}
	}
	counted := func(result string, n uint64) {
		t.Helper()
		waitFor(t, result, func() bool { return r.listCounts()[result] == n })
	}
	send(len(list))
	counted("refused", 1) // it is none, and has come whole
	waitFor(t, "room again", func() bool { return r.listRoom() == r.listsMax() })
	for n := range 2 {
		send(len(list) + 1)
		counted("large", uint64(n+1))
	}
	if n := strings.Count(log.String(), "--memory"); n != 1 {
		t.Errorf("%d lines say what to do: %s", n, log.String())
	}
	onPeer := func(do func(p *peer)) {
		r.onLoops(func(l *loop) { l.link.Range(func(c *link.Conn) { do(peerOf(c)) }) })
	}
	later := func(p *peer) { p.lookList(p.loop.link.Now().Add(2 * listRetry)) }
	if onPeer(later); len(linksOf(r)) != 1 || linksOf(r)[0].phase != phaseOpen {
		t.Error("the link is left for a list that can't be taken")
	}
	full := r.listsMax()
	r.takesList(full)
	send(len(list))
	counted("skipped", 1)
	r.takesList(-full)
	onPeer(later)
	if g := h.ended(); g == nil || g.Reason != codec.GoodbyeDone {
		t.Errorf("goodbye %+v, want done", g)
	}
}

// logText is what was logged.
type logText struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
