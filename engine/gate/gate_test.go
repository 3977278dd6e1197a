package gate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

func ip(text string) netip.Addr { return netip.MustParseAddr(text) }

func list(t *testing.T, text string) *List {
	t.Helper()
	f, err := ParseFile(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f.List
}

// admit fails the test unless the answer is want.
func admit(t *testing.T, g *Gate, from string, want error) *Pass {
	t.Helper()
	return admitAt(t, g, from, start, want)
}

func admitAt(t *testing.T, g *Gate, from string, now time.Time, want error) *Pass {
	t.Helper()
	p, err := g.Admit(ip(from), now, func(error, time.Duration) { t.Errorf("the handshake of %s is ended", from) })
	if !errors.Is(err, want) || (err == nil) != (p != nil) {
		t.Fatalf("%s: %v, want %v", from, err, want)
	}
	return p
}

// begin makes p ready at the time given, which begins its handshake at once.
func begin(t *testing.T, p *Pass, now time.Time) {
	t.Helper()
	begun := false
	p.Ready(now, func() { begun = true })
	if !begun {
		t.Fatal("no handshake begins though there is room")
	}
}

func handshaken(t *testing.T, passes ...*Pass) {
	t.Helper()
	for _, p := range passes {
		begin(t, p, start)
		if err := p.Handshaken(start.Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
}

func check(t *testing.T, g *Gate) {
	t.Helper()
	if bad := g.Check(); bad != "" {
		t.Error(bad)
	}
}

func TestTheFirstLineThatMatchesDecides(t *testing.T) {
	l := list(t, `
# the office, but not the printers
deny  10.1.2.0/24
allow 10.0.0.0/8 max 3   # all the rest
allow 192.0.2.7/32

deny 2001:db8:1::/48
allow 2001:db8::/32
allow ::ffff:172.16.0.0/108
`)
	for from, line := range map[string]int{
		"10.1.2.3": 3, "10.1.3.3": 4, "192.0.2.7": 5, "192.0.2.8": 0, "2001:db8:1::1": 7, "2001:db8:2::1": 8,
		"2001:db9::": 0, "::ffff:10.1.2.3": 3, "::ffff:10.9.9.9": 4, "172.31.0.1": 9, "::ffff:172.16.0.1": 9, "172.32.0.1": 0,
	} {
		got := 0
		if i := l.Match(ip(from)); i >= 0 {
			got = l.Rules()[i].Line
		}
		if got != line {
			t.Errorf("%s: line %d decides, want %d", from, got, line)
		}
	}
	if l.Match(netip.Addr{}) >= 0 {
		t.Error("an address that is none is matched")
	}
	if got := l.Match(ip("2001:db8:2::1").WithZone("eth0")); got < 0 || l.Rules()[got].Line != 8 {
		t.Error("a zone matters")
	}
}

func TestWrongListsAreRefusedWithTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "has no line",
		"# nothing\n\n":                      "has no line",
		"allow 10.0.0.0/8\npermit ::/0":      `line 2: "permit": must be "allow CIDR"`,
		"Allow 10.0.0.0/8":                   "line 1: ",
		"limit":                              `line 1: must be "allow CIDR", "allow CIDR max N", "deny CIDR" or "limit NAME VALUE"`,
		"limit max-connections":              "line 1: must be",
		"limit max-connections 5 6":          "line 1: must be",
		"limit a 1\nallow ::/0\nlimit a 1":   "line 3: a is set in line 1 already; take one of them out",
		"allow":                              "line 1: must be",
		"allow 10.0.0.0/8 max":               "line 1: must be",
		"allow 10.0.0.0/8 5":                 "line 1: must be",
		"allow 10.0.0.0/8 most 5":            "line 1: must be",
		"allow 10.0.0.0/8 max 5 6":           "line 1: must be",
		"deny 10.0.0.0/8 max 5":              "line 1: must be",
		"allow 10.0.0.0/8 max 0":             `max "0": must be a number from 1`,
		"allow 10.0.0.0/8 max -1":            `max "-1"`,
		"allow 10.0.0.0/8 max 05":            `max "05"`,
		"allow 10.0.0.0/8 max 3000000000":    `max "3000000000"`,
		"allow 10.0.0.1":                     "write 10.0.0.1/32",
		"allow ::1":                          "write ::1/128",
		"\n\nallow 10.0.0.1/8":               "line 3: \"10.0.0.1/8\" has bits set behind its length: write 10.0.0.0/8",
		"allow 10.0.0.0/33":                  "is no CIDR",
		"allow 10.0.0/8":                     "is no CIDR",
		"allow fe80::%eth0/64":               "is no CIDR",
		"allow ::ffff:0.0.0.0/90":            "mixes IPv4 and IPv6",
		"allow 10.0.0.0/8\ndeny 10.1.0.0/16": "line 2: 10.1.0.0/16 never decides: allow 10.0.0.0/8 in line 1 comes first",
		"deny ::1/128\nallow ::1/128":        "line 2: ::1/128 never decides: deny ::1/128 in line 1",
		strings.Repeat("a", fileLineMax+1):   "line 1: longer than 1024 bytes",
		"deny ::/0\n" + strings.Repeat("#\n", fileSizeMax/2): "larger than",
	} {
		_, err := ParseFile(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
}

// slowMatch is Match as the manual tells it.
func slowMatch(l *List, a netip.Addr) int {
	return slices.IndexFunc(l.rules, func(r Rule) bool { return r.Prefix.Contains(a.Unmap()) })
}

func TestMatchAgreesWithTheSlowWay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	address := func() netip.Addr {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.IntN(3))
		}
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16(b)
	}
	for range 50 {
		l := &List{index: map[netip.Prefix]int{}}
		for range 200 {
			a := address()
			p, err := a.Prefix(r.IntN(a.BitLen() + 1))
			if err != nil {
				t.Fatal(err)
			}
			_ = l.add(Rule{Prefix: p, Allow: r.IntN(2) == 0}) // refused when it never decides
		}
		for range 500 {
			if a := address(); l.Match(a) != slowMatch(l, a) {
				t.Fatalf("%v: %d, the slow way %d, in %v", a, l.Match(a), slowMatch(l, a), l.rules)
			}
		}
	}
}

func TestAFileWithLimitsAloneLetsEverybodyIn(t *testing.T) {
	f, err := ParseFile(strings.NewReader("\n# as many as there are seats\nlimit max-connections 5 # not more\nlimit x 1h\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []LimitLine{{3, "max-connections", "5"}, {4, "x", "1h"}}; !slices.Equal(f.Limits, want) {
		t.Errorf("limits %v, want %v", f.Limits, want)
	}
	g := New(Limits{}, start)
	g.SetFirewall(list(t, "deny ::/0"))
	admit(t, g, "192.0.2.1", ErrFirewall)
	g.SetFirewall(f.List)
	admit(t, g, "192.0.2.1", nil)
	admit(t, g, "2001:db8::1", nil)
	check(t, g)
}

func FuzzParseFile(f *testing.F) {
	f.Add("allow 10.0.0.0/8 max 3 # x\n\ndeny ::/0\n")
	f.Add("allow ::ffff:10.0.0.0/104\r\n")
	f.Add("limit max-connections 7\n limit\tidle-timeout 1h#\n")
	f.Fuzz(func(t *testing.T, text string) {
		f, err := ParseFile(strings.NewReader(text))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, l := range f.Limits {
			fmt.Fprintln(&again, l)
		}
		for _, r := range f.rules() {
			fmt.Fprintln(&again, r)
			if i := f.List.Match(r.Prefix.Addr()); i < 0 {
				t.Errorf("%v does not match its own line", r)
			}
		}
		f2, err := ParseFile(strings.NewReader(again.String()))
		if err != nil {
			t.Fatalf("%q: %v", again.String(), err)
		}
		if len(f2.rules()) != len(f.rules()) || len(f2.Limits) != len(f.Limits) {
			t.Fatalf("%q became %q", text, again.String())
		}
		for i, r := range f2.rules() {
			if r.Line = f.rules()[i].Line; r != f.rules()[i] {
				t.Errorf("%v became %v", f.rules()[i], r)
			}
		}
		for i, l := range f2.Limits {
			if l.Line = f.Limits[i].Line; l != f.Limits[i] {
				t.Errorf("%v became %v", f.Limits[i], l)
			}
		}
	})
}

func (f File) rules() []Rule {
	if f.List == nil {
		return nil
	}
	return f.List.Rules()
}

func TestTheFirewallDecides(t *testing.T) {
	g := New(Limits{}, start)
	admit(t, g, "192.0.2.1", nil).Gone(start)
	g.SetFirewall(list(t, "deny 10.0.0.1/32\nallow 10.0.0.0/8 max 2\nallow 2001:db8::/32"))
	admit(t, g, "192.0.2.1", ErrFirewall)
	admit(t, g, "10.0.0.1", ErrFirewall)
	a := admit(t, g, "10.0.0.2", nil)
	b := admit(t, g, "::ffff:10.0.0.3", nil)
	admit(t, g, "10.0.0.4", ErrFirewallMax)
	admit(t, g, "2001:db8::1", nil)
	handshaken(t, a, b)
	admit(t, g, "10.0.0.4", ErrFirewallMax)
	a.Gone(start)
	a.Gone(start) // counts once
	c := admit(t, g, "10.0.0.4", nil)
	admit(t, g, "10.0.0.5", ErrFirewallMax)
	c.Gone(start) // in its handshake
	admit(t, g, "10.0.0.5", nil)
	check(t, g)
}

func TestANewFirewallTakesOverTheConnections(t *testing.T) {
	g := New(Limits{}, start)
	kept, gone := admit(t, g, "10.0.0.1", nil), admit(t, g, "10.1.0.1", nil)
	kept2 := admit(t, g, "10.0.0.2", nil)
	handshaken(t, kept, gone, kept2)
	var ended []error
	shaking, err := g.Admit(ip("10.1.0.2"), start, func(why error, _ time.Duration) { ended = append(ended, why) })
	if err != nil {
		t.Fatal(err)
	}
	if n := g.SetFirewall(list(t, "deny 10.1.0.0/16\nallow 10.0.0.0/8 max 1")); n != 2 {
		t.Errorf("%d connections denied, want 2", n)
	}
	for p, want := range map[*Pass]bool{kept: false, kept2: false, gone: true, shaking: true} {
		if p.Denied() != want {
			t.Errorf("%v: denied %v", p.addr, !want)
		}
	}
	if len(ended) != 1 || ended[0] != ErrFirewall {
		t.Errorf("the handshake under way was ended with %v", ended)
	}
	begin(t, shaking, start)
	if err := shaking.Handshaken(start); err != ErrFirewall {
		t.Errorf("it may stay: %v", err)
	}
	shaking.Gone(start)
	gone.Gone(start)
	kept.Gone(start)
	admit(t, g, "10.0.0.3", ErrFirewallMax) // kept2 fills the line
	check(t, g)
	kept2.Gone(start)
	admit(t, g, "10.0.0.3", nil)
	g.SetFirewall(nil)
	admit(t, g, "192.0.2.1", nil)
	check(t, g)
}

func TestLimitsPerSource(t *testing.T) {
	g := New(Limits{Connections: 4, ConnectionsPerSource: 3, HandshakesPerSource: 2}, start)
	a, b := admit(t, g, "192.0.2.1", nil), admit(t, g, "192.0.2.1", nil)
	admit(t, g, "192.0.2.1", ErrHandshakesPerSource)
	handshaken(t, a, b)
	c := admit(t, g, "192.0.2.1", nil)
	admit(t, g, "192.0.2.1", ErrConnectionsPerSource)
	// Another IPv4 address is another source, another address of a /64 is not.
	d := admit(t, g, "192.0.2.2", nil)
	admit(t, g, "2001:db8::1", nil)
	e := admit(t, g, "2001:db8::2:1", nil)
	admit(t, g, "2001:db8::3", ErrHandshakesPerSource)
	f := admit(t, g, "2001:db8:0:1::3", nil)
	handshaken(t, c, d)
	admit(t, g, "192.0.2.3", ErrConnections)
	begin(t, e, start)
	if err := e.Handshaken(start); err != ErrConnections {
		t.Errorf("a fifth connection: %v", err)
	}
	e.Gone(start)
	a.Gone(start)
	handshaken(t, f)
	b.Gone(start)
	admit(t, g, "192.0.2.1", nil)
	check(t, g)
}

func TestTheHandshakeRateFillsAgain(t *testing.T) {
	g := New(Limits{HandshakeRate: 2}, start)
	now := start
	for range 2 * burstSeconds {
		admitAt(t, g, "192.0.2.1", now, nil).Gone(start)
	}
	admitAt(t, g, "192.0.2.1", now, ErrHandshakeRate)
	admitAt(t, g, "192.0.2.2", now, nil)
	now = now.Add(499 * time.Millisecond)
	admitAt(t, g, "192.0.2.1", now, ErrHandshakeRate)
	now = now.Add(time.Millisecond)
	admitAt(t, g, "192.0.2.1", now, nil)
	admitAt(t, g, "192.0.2.1", now, ErrHandshakeRate)
	now = now.Add(time.Hour)
	for range 2 * burstSeconds {
		admitAt(t, g, "192.0.2.1", now, nil).Gone(start)
	}
	admitAt(t, g, "192.0.2.1", now, ErrHandshakeRate)
}

func TestNoCrowdOfSourcesMakesTheGateForgetOne(t *testing.T) {
	r := newRate()
	const interval, burst = time.Second, 5
	busy := ip("192.0.2.1")
	for range burst {
		r.take(busy, 0, interval, burst)
	}
	for i := range 1_000_000 {
		r.take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 0, interval, burst)
	}
	if r.take(busy, 0, interval, burst) {
		t.Error("the bucket of a busy source was reset")
	}
}

func TestFailuresAreForgottenOneByOne(t *testing.T) {
	f := newFailures()
	a, b := ip("192.0.2.1"), ip("192.0.2.2")
	for n := range failuresMax + 2 {
		if got := f.count(a, 0); got != min(n, failuresMax) {
			t.Errorf("%d after %d failures", got, n)
		}
		f.add(a, 0, true)
	}
	const second = int64(time.Second)
	for at, want := range map[int64]int{
		1:                                       failuresMax,
		int64(failureTime):                      failuresMax - 1,
		int64(failureTime) + second:             failuresMax - 1,
		failuresMax*int64(failureTime) - second: 1,
		failuresMax * int64(failureTime):        0,
	} {
		if got := f.count(a, at); got != want {
			t.Errorf("%d after %v, want %d", got, time.Duration(at), want)
		}
	}
	if f.count(b, 0) != 0 {
		t.Error("one source's failures count for another")
	}
	f.add(b, 0, false)
	f.add(b, 0, false)
	if n := f.count(b, 0); n != 1 {
		t.Errorf("%d after two that were no fault, want 1", n)
	}
}

func TestManySourcesThatFailHardlyTouchOthers(t *testing.T) {
	f := newFailures()
	for i := range 5000 {
		f.add(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 0, true)
	}
	wrong := 0
	for i := range 10_000 {
		if f.count(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 0) > 0 {
			wrong++
		}
	}
	if wrong > 40 { // (1 - e^(-5,000 / 32,768))^4 of 10,000: 4 expected
		t.Errorf("%d of 10,000 sources are taken for one that failed", wrong)
	}
}

func TestBusySourcesHardlyTouchOthers(t *testing.T) {
	r := newRate()
	const interval, burst = time.Second, 5
	for i := range 1000 {
		for r.take(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 0, interval, burst) {
		}
	}
	refused := 0
	for i := range 10_000 {
		if !r.take(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 0, interval, burst) {
			refused++
		}
	}
	if refused > 200 { // (1,000 / 16,384)² of 10,000: 37 expected
		t.Errorf("%d of 10,000 sources refused", refused)
	}
}

// life is a pass as link takes it through its states.
type life struct {
	pass                  *Pass
	ready, answered, over bool
	begun                 atomic.Bool
}

func (l *life) goOn(now time.Time) {
	switch {
	case !l.ready:
		l.ready = true
		l.pass.Ready(now, func() {
			if l.begun.Swap(true) {
				panic("a handshake begins twice")
			}
		})
	case l.begun.Load() && !l.answered:
		l.answered = true
		l.pass.Answered(now)
	case l.begun.Load() && !l.over:
		l.over = l.pass.Handshaken(now) == nil
	}
}

func TestCountsAgreeWhateverHappensAtOnce(t *testing.T) {
	g := New(Limits{Handshakes: 2, Waiting: 20, ConnectionsPerSource: 10, HandshakesPerSource: 8}, start)
	lists := []*List{nil, list(t, "deny 10.0.0.3/32\nallow 10.0.0.0/8 max 30"), list(t, "allow 10.0.0.0/30\nallow ::/0 max 5")}
	var all sync.WaitGroup
	for seed := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			var mine []*life
			for n := range 3000 {
				now := start.Add(time.Duration(n) * time.Millisecond)
				switch what := r.IntN(10); {
				case what < 5:
					from := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(8))})
					if p, err := g.Admit(from, now, func(error, time.Duration) {}); err == nil {
						mine = append(mine, &life{pass: p})
					}
				case what < 8 && len(mine) > 0:
					mine[r.IntN(len(mine))].goOn(now)
				case len(mine) > 0:
					i := r.IntN(len(mine))
					mine[i].pass.Gone(now)
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				}
				if r.IntN(500) == 0 {
					g.SetFirewall(lists[r.IntN(len(lists))])
				}
				if r.IntN(500) == 0 {
					g.SetLimits(Limits{Handshakes: r.IntN(3), Starting: r.IntN(3), Waiting: 20, ConnectionsPerSource: 10, HandshakesPerSource: 8}, now)
				}
			}
			for _, l := range mine {
				l.pass.Gone(start)
			}
		})
	}
	all.Wait()
	check(t, g)
	if s := g.State(); s.Sources+s.Silent+s.Ready+s.Handshaking+s.Connected != 0 {
		t.Errorf("left: %+v", s)
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	l := list(t, "deny 10.1.0.0/16\nallow 10.0.0.0/8\nallow 2001:db8::/32")
	a, b := ip("10.2.0.1"), ip("2001:db8::1")
	if n := testing.AllocsPerRun(100, func() { l.Match(a); l.Match(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMatchOf1000Lines(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "allow 10.%d.%d.0/%d\n", i>>6, i<<2&255, 22+i%3)
	}
	f, err := ParseFile(strings.NewReader(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	l := f.List
	a := ip("10.15.160.9")
	for b.Loop() {
		l.Match(a)
	}
}

func BenchmarkAdmit(b *testing.B) {
	g := New(Limits{Connections: 1000, ConnectionsPerSource: 1000, HandshakesPerSource: 1000, HandshakeRate: int(time.Second)}, start)
	a, now := ip("192.0.2.1"), start
	for b.Loop() {
		if p, err := g.Admit(a, now, nil); err == nil {
			p.Gone(now)
		}
	}
}
