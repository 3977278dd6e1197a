package link

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// labelled is a refusal with a label.
type labelled string

func (l labelled) Error() string  { return "refused: " + string(l) }
func (l labelled) Reason() string { return string(l) }

// testPass counts what it is told.
type testPass struct {
	remote           netip.AddrPort
	end              func(error, time.Duration)
	refusal          error // of Handshaken
	handshaken, gone atomic.Int64
}

func (p *testPass) Handshaken(time.Time) error {
	p.handshaken.Add(1)
	return p.refusal
}

func (p *testPass) Gone() { p.gone.Add(1) }

// doorman gives passes, or the refusal.
type doorman struct {
	mu      sync.Mutex
	refusal error // of Admit
	late    error // of Handshaken
	passes  []*testPass
}

func (d *doorman) admit(remote netip.AddrPort, end func(error, time.Duration)) (Pass, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refusal != nil {
		return nil, d.refusal
	}
	p := &testPass{remote: remote, end: end, refusal: d.late}
	d.passes = append(d.passes, p)
	return p, nil
}

func (d *doorman) refuse(at, late error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refusal, d.late = at, late
}

func (d *doorman) all() []*testPass {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*testPass(nil), d.passes...)
}

// check asserts that every pass has had its one end, and how many were told of
// a good handshake.
func (d *doorman) check(t *testing.T, handshaken int) {
	t.Helper()
	n := 0
	for _, p := range d.all() {
		n += int(p.handshaken.Load())
		if gone := p.gone.Load(); gone != 1 {
			t.Errorf("%v: gone %d times", p.remote, gone)
		}
	}
	if n != handshaken {
		t.Errorf("%d handshakes told, want %d", n, handshaken)
	}
}

func TestWhoIsNotAdmittedCostsNoHandshake(t *testing.T) {
	d := &doorman{}
	d.refuse(labelled("no-entry"), nil)
	reasons := make(chan string, 1)
	r := &rig{failed: func(remote netip.AddrPort, reason string, _ error) {
		if !remote.Addr().IsLoopback() {
			t.Errorf("remote %v", remote)
		}
		reasons <- reason
	}}
	r.start(t, Config{Admit: d.admit})
	c, err := net.Dial("tcp", r.addr)
	if err == nil { // the reset may be there before Dial has returned
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	if got := receive(t, reasons); got != "no-entry" {
		t.Errorf("reason %q", got)
	}
	s := r.engine.Stats()
	if s.HandshakesFailed["no-entry"] != 1 || s.Accepted != 1 || s.Handshaking != 0 {
		t.Errorf("%+v", s)
	}
	d.refuse(nil, nil)
	client, _ := r.dial() // the listener goes on
	client.Close()
	receive(t, r.ends)
	eventually(t, "the pass to be given back", func() bool { return d.all()[0].gone.Load() == 1 })
	d.check(t, 1)
}

func TestAHandshakeCanBeEndedFromOutside(t *testing.T) {
	d := &doorman{}
	reasons := make(chan string, 1)
	r := (&rig{failed: func(_ netip.AddrPort, reason string, _ error) { reasons <- reason }}).start(t, Config{Admit: d.admit})
	for what, after := range map[string]time.Duration{"": 0, "\x16\x03\x01": 20 * time.Millisecond} {
		before := len(d.all())
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustWrite(t, c, []byte(what))
		eventually(t, "admission", func() bool { return len(d.all()) > before })
		pass := d.all()[before]
		pass.end(labelled("displaced"), after)
		if got := receive(t, reasons); got != "displaced" {
			t.Errorf("%q: reason %q", what, got)
		}
		if n := pass.gone.Load(); n != 1 {
			t.Errorf("%q: gone %d times", what, n)
		}
	}
	d.check(t, 0)
}

// A refused peer is listened to for a moment; that must not outlast its
// handshake's end.
func TestAFarewellEndsWithItsHandshake(t *testing.T) {
	d := &doorman{}
	reasons := make(chan string, 1)
	r := &rig{failed: func(_ netip.AddrPort, reason string, _ error) { reasons <- reason }}
	r.handshaken = func(*Conn, tls.ConnectionState) error {
		d.all()[0].end(labelled("ended"), 0)
		return labelled("handler")
	}
	r.start(t, Config{Admit: d.admit})
	c, err := tls.Dial("tcp", r.addr, clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() // and until then it sends no FIN
	if got := receive(t, reasons); got != "ended" {
		t.Errorf("reason %q", got)
	}
	d.check(t, 0)
}

func TestAPassCanRefuseAfterTheHandshake(t *testing.T) {
	d := &doorman{}
	d.refuse(nil, labelled("too-late"))
	reasons := make(chan string, 1)
	r := (&rig{failed: func(_ netip.AddrPort, reason string, _ error) { reasons <- reason }}).start(t, Config{Admit: d.admit})
	c, err := tls.Dial("tcp", r.addr, clientTLS())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if err == nil {
		t.Error("the client saw no error")
	}
	if got := receive(t, reasons); got != "too-late" {
		t.Errorf("reason %q", got)
	}
	d.check(t, 1)
}

func TestPassesAreGivenBackAtTheEnd(t *testing.T) {
	d := &doorman{}
	r := (&rig{}).start(t, Config{Admit: d.admit, HandshakesMax: 1})
	_, conn := r.dial()
	if conn.Pass() != Pass(d.all()[0]) {
		t.Error("the connection does not know its pass")
	}
	var waiting []net.Conn
	for range 3 { // one in its handshake, one that waits for room, one in the backlog
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	eventually(t, "one to wait", func() bool { return len(d.all()) == 3 })
	r.stop()
	d.check(t, 1)
	if len(waiting) != 3 || len(d.all()) != 3 {
		t.Errorf("%d admitted", len(d.all()))
	}
}
