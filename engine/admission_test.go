package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/gate"
)

// dialFrom connects from a source address of 127/8 and says nothing.
func dialFrom(t *testing.T, source, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// refusedFrom tells whether the router refuses a connection from source.
func refusedFrom(t *testing.T, source, addr string, c *tls.Config) bool {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	raw, err := d.Dial("tcp", addr)
	if err != nil {
		return true
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patience))
	err = tls.Client(raw, c).Handshake()
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("neither refused nor served")
	}
	return err != nil
}

func firewall(t *testing.T, text string) *gate.List {
	t.Helper()
	f, err := gate.ParseFile(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f.List
}

func (r *Router) refusedFor(reason *gate.Refusal) uint64 { return r.refused.counts()[reason.Reason()] }

func checkGate(t *testing.T, r *Router) {
	t.Helper()
	if bad := r.gate.Check(); bad != "" {
		t.Error(bad)
	}
}

func TestTheFirewallDecidesWhoConnects(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) {
		c.Firewall = firewall(t, "deny 127.0.0.2/32\nallow 127.0.0.0/24 max 1")
	}, d)
	asks := clientTLS(d.node("a"))
	if !refusedFrom(t, "127.0.0.2", addr, asks) || !refusedFrom(t, "127.0.1.1", addr, asks) {
		t.Error("the firewall lets in whom it denies")
	}
	if n := r.refusedFor(gate.ErrFirewall); n != 2 {
		t.Errorf("%d counted as firewall", n)
	}
	a := connect(t, addr, d.node("a"))
	if !refusedFrom(t, "127.0.0.9", addr, asks) || r.refusedFor(gate.ErrFirewallMax) != 1 {
		t.Error("more connections than the line's max")
	}
	a.conn.Close()
	waitFor(t, "room", func() bool { return r.gate.State().Connected == 0 })
	if refusedFrom(t, "127.0.0.9", addr, asks) {
		t.Error("refused though there is room")
	}
	checkGate(t, r)
}

func TestANewFirewallEndsTheConnectionsThatItDenies(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	kept := connect(t, addr, d.node("kept"))
	other := d.node("other")
	raw := dialFrom(t, "127.0.0.3", addr)
	gone := &client{t: t, id: other, conn: tls.Client(raw, clientTLS(other)), signer: kept.signer}
	if err := gone.conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	half := dialFrom(t, "127.0.0.3", addr)
	waitFor(t, "both", func() bool {
		s := r.gate.State()
		return s.Connected == 2 && s.Silent == 1 && r.link.Stats().Connections == 2
	})
	if n := r.SetFirewall(firewall(t, "allow 127.0.0.1/32")); n != 2 {
		t.Errorf("%d denied, want 2", n)
	}
	if g := gone.ended(); g == nil || g.Reason != codec.GoodbyeLimit || g.Text == "" {
		t.Errorf("goodbye %+v", g)
	}
	if _, err := half.Read(make([]byte, 1)); err == nil {
		t.Error("a handshake goes on that the firewall denies")
	}
	waitFor(t, "the handshake to be counted", func() bool { return r.refusedFor(gate.ErrFirewall) == 1 })
	kept.sync()
	if !refusedFrom(t, "127.0.0.3", addr, clientTLS(other)) {
		t.Error("the new firewall does not decide")
	}
	r.SetFirewall(nil)
	if refusedFrom(t, "127.0.0.3", addr, clientTLS(other)) {
		t.Error("refused without a firewall")
	}
	checkGate(t, r)
}

func TestLimitsPerSourceAreKept(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) {
		c.Limits = &gate.Limits{ConnectionsPerSource: 3, HandshakesPerSource: 2}
	}, d)
	asks := clientTLS(d.node("x"))
	h1, h2 := dialFrom(t, "127.0.0.1", addr), dialFrom(t, "127.0.0.1", addr)
	waitFor(t, "two handshakes", func() bool { return r.gate.State().Silent == 2 })
	if !refusedFrom(t, "127.0.0.1", addr, asks) || r.refusedFor(gate.ErrHandshakesPerSource) != 1 {
		t.Error("more handshakes than a source may have")
	}
	if refusedFrom(t, "127.0.0.2", addr, asks) {
		t.Error("one source's handshakes are counted to another")
	}
	h1.Close()
	h2.Close()
	waitFor(t, "no handshakes", func() bool { return r.gate.State().Silent == 0 })
	for i := range 3 {
		connect(t, addr, d.node(fmt.Sprint("n", i)))
	}
	if !refusedFrom(t, "127.0.0.1", addr, asks) || r.refusedFor(gate.ErrConnectionsPerSource) != 1 {
		t.Error("more connections than a source may have")
	}
	limit := func(l gate.Limits) error {
		_, err := r.Reload(func(c Config) (Config, error) {
			c.Limits = &l
			return c, nil
		})
		return err
	}
	if err := limit(gate.Limits{ConnectionsPerSource: -1}); err == nil {
		t.Error("a negative limit is taken")
	}
	if err := limit(gate.Limits{Connections: 3}); err != nil {
		t.Fatal(err)
	}
	if !refusedFrom(t, "127.0.0.7", addr, asks) || r.refusedFor(gate.ErrConnections) != 1 {
		t.Error("more connections than there may be")
	}
	checkGate(t, r)
}

// Half-open handshakes, many more than may wait or be under way, keep nobody
// else out, whether their clients say nothing or as much as they can.
func TestHalfOpenHandshakesStarveNobody(t *testing.T) {
	const sources, each = 20, 20
	for name, payload := range map[string][]byte{"silent": nil, "hello": clientHello(t)} {
		t.Run(name, func(t *testing.T) {
			d := newAuthority("prod.example")
			r, addr := startRouter(t, func(c *Config) {
				c.HandshakesMax, c.HandshakeTimeout = 32, patience // they do not go by themselves
				c.Limits = &gate.Limits{HandshakesPerSource: 16, Waiting: 64}
			}, d)
			for n := range sources * each {
				c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n%sources))}}).Dial("tcp", addr)
				if err == nil { // else refused before Dial returned
					_, _ = c.Write(payload)
					t.Cleanup(func() { c.Close() })
				}
			}
			for i := range 5 {
				begun := time.Now()
				c := connect(t, addr, d.node(fmt.Sprint("n", i)))
				if took := time.Since(begun); took > patience/2 { // the half-open ones stay for all of it
					t.Errorf("connected after %v", took)
				}
				c.sync()
			}
			if n := r.refusedFor(gate.ErrDisplaced); n == 0 {
				t.Error("none was displaced: was there a flood?")
			}
			if s := r.gate.State(); s.Handshaking > 32 || s.Silent+s.Ready > 64 {
				t.Errorf("%+v", s)
			}
			checkGate(t, r)
		})
	}
}

// clientHello returns the record with which a client of prod.example begins.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	var ended sync.WaitGroup
	defer ended.Wait()
	defer theirs.Close()
	ended.Go(func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "prod.example", NextProtos: []string{ALPN}}).Handshake()
	})
	record := make([]byte, 16<<10)
	n, err := ours.Read(record)
	if err != nil {
		t.Fatal(err)
	}
	return record[:n]
}

func TestTheBudgetOfBadSignaturesFillsAgain(t *testing.T) {
	var b bucket
	now := time.Unix(1_700_000_000, 0)
	for i := range 100 {
		if !b.takeOf(now, 100, badSignaturesRefill) {
			t.Fatalf("number %d is over the budget", i+1)
		}
	}
	if b.takeOf(now, 100, badSignaturesRefill) {
		t.Error("number 101 is within it")
	}
	for range 50 {
		if now = now.Add(badSignaturesRefill / 100); !b.takeOf(now, 100, badSignaturesRefill) {
			t.Fatal("it does not fill again")
		}
		if b.takeOf(now, 100, badSignaturesRefill) {
			t.Fatal("it fills too fast")
		}
	}
}

func TestLimitsAreReloaded(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	quiet := connect(t, addr, d.node("quiet"))
	changes, err := r.Reload(func(c Config) (Config, error) {
		c.IdleTimeout, c.HandshakesMax, c.BadSignatures = 200*time.Millisecond, 7, 5
		c.Limits = &gate.Limits{Connections: 10, ConnectionsPerSource: 9, Waiting: 8, HandshakesPerSource: 6, HandshakeRate: 4}
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.String())
	}
	want := []string{
		"max-bad-signatures: 100 → 5", "idle-timeout: 0s → 200ms", "max-connections: 100000 → 10", "max-connections-per-source: 1024 → 9",
		"max-waiting: 1024 → 8", "max-handshakes: 256 → 7", "max-handshakes-per-source: 64 → 6", "max-handshake-rate: 100 → 4",
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if g := quiet.ended(); g == nil || g.Reason != codec.GoodbyeIdle {
		t.Errorf("goodbye %+v", g)
	}
	checkGate(t, r)
}

func TestAnIdleNodeIsLeft(t *testing.T) {
	t.Parallel() // it waits for the end of IdleTimeout
	d := newAuthority("prod.example")
	const idle = 5 * time.Second
	_, addr := startRouter(t, func(c *Config) { c.IdleTimeout = idle }, d)
	busy := connect(t, addr, d.node("busy"))
	begun := time.Now()
	quiet := connect(t, addr, d.node("quiet"))
	ended := make(chan *codec.Goodbye)
	go func() { ended <- quiet.ended() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case g := <-ended:
			if g == nil || g.Reason != codec.GoodbyeIdle || !strings.Contains(g.Text, idle.String()) {
				t.Errorf("goodbye %+v", g)
			}
			if took := time.Since(begun); took < idle {
				t.Errorf("left after %v", took)
			}
			busy.sync() // still there, and for longer than the timeout
			return
		case <-tick.C:
			quiet.conn.Write(quiet.wire(quiet.controlFrame(&codec.KeepAlive{}))) // does not count; it may have ended
			busy.send(busy.frame(busy.id.Peer.Address, codec.CategoryApplication, nil))
		}
	}
}

func TestReplacedConnectionsAreCountedAndRarelyLogged(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	id := d.node("flaps")
	const times = 20
	connect(t, addr, id)
	for range times {
		connect(t, addr, id)
	}
	waitFor(t, "all to be counted", func() bool { return r.replaced.count.Load() == times })
	var s seldom
	now := time.Unix(1_700_000_000, 0)
	lines := 0
	for range 1000 {
		if speak, unlogged := s.now(now); speak {
			if lines++; lines > 1 && unlogged != 9 {
				t.Errorf("%d more told, want 9", unlogged)
			}
		}
		now = now.Add(refusalLogEvery / 10)
	}
	if lines != 100 {
		t.Errorf("%d lines for 1,000 events in 100 s", lines)
	}
}

// All nodes come back at once, each from an address of its own, many more than
// may be in their handshake: they are served in turn.
func TestAFleetThatComesBackIsServedInTurn(t *testing.T) {
	const fleet, atOnce = 200, 8
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.HandshakesMax, c.HandshakeTimeout = atOnce, patience }, d)
	asks := clientTLS(d.node("x"))
	var all sync.WaitGroup
	var served atomic.Int64
	for n := range fleet {
		all.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(n))}, Timeout: patience}
			raw, err := d.Dial("tcp", addr)
			if err != nil {
				return
			}
			defer raw.Close()
			raw.SetDeadline(time.Now().Add(patience))
			conn := tls.Client(raw, asks)
			if conn.Handshake() == nil {
				served.Add(1)
			}
		})
	}
	all.Wait()
	t.Logf("%d of %d served, refused %v", served.Load(), fleet, r.refused.counts())
	// A client may take a handshake for good that the router has ended.
	if n := served.Load() - int64(r.refusedFor(gate.ErrDisplaced)); n < fleet*9/10 {
		t.Errorf("%d of %d are served at their first try", n, fleet)
	}
}
