package link

import (
	"crypto/tls"
	"errors"
	"io"
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
	held             bool  // begin is not called by Ready
	begin            atomic.Pointer[func()]
	handshaken, gone atomic.Int64
	answered         atomic.Int64
}

func (p *testPass) Ready(_ time.Time, begin func()) {
	if !p.held {
		begin()
	}
	if p.begin.Swap(&begin) != nil {
		panic("ready twice")
	}
}

func (p *testPass) Answered(time.Time) { p.answered.Add(1) }

func (p *testPass) Handshaken(time.Time) error {
	p.handshaken.Add(1)
	return p.refusal
}

func (p *testPass) Gone(time.Time) { p.gone.Add(1) }

// doorman gives passes, or the refusal.
type doorman struct {
	mu      sync.Mutex
	refusal error // of Admit
	late    error // of Handshaken
	hold    bool  // passes do not begin handshakes
	passes  []*testPass
}

func (d *doorman) admit(remote netip.AddrPort, end func(error, time.Duration)) (Pass, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refusal != nil {
		return nil, d.refusal
	}
	p := &testPass{remote: remote, end: end, refusal: d.late, held: d.hold}
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
		if answered := p.answered.Load(); answered > 1 || answered < p.handshaken.Load() {
			t.Errorf("%v: answered %d times", p.remote, answered)
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

// Until a record is there no handshake is due, and then it begins when the
// pass says so.
func TestAHandshakeWaitsForItsFirstRecordAndItsTurn(t *testing.T) {
	d := &doorman{hold: true}
	r := (&rig{frame: echo}).start(t, Config{Admit: d.admit, Loops: 1})
	raw, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	hello := firstRecord(t)
	for i, part := range [][]byte{hello[:3], hello[3:100], hello[100 : len(hello)-1]} {
		mustWrite(t, raw, part)
		on(t, r.engine.Loops()[0], func() {}) // a moment
		if all := d.all(); len(all) > 0 && all[0].begin.Load() != nil {
			t.Fatalf("ready after part %d of a record", i)
		}
	}
	mustWrite(t, raw, hello[len(hello)-1:])
	eventually(t, "the pass to be ready", func() bool { return len(d.all()) == 1 && d.all()[0].begin.Load() != nil })
	if n := r.engine.Stats().Handshaking; n != 0 {
		t.Errorf("%d handshakes before their turn", n)
	}
	(*d.all()[0].begin.Load())()
	eventually(t, "the handshake", func() bool { return r.engine.Stats().Handshaking == 1 })
	answer := make([]byte, recordHeaderLen)
	if _, err := io.ReadFull(raw, answer); err != nil || answer[0] != recordHandshake {
		t.Errorf("answer % x, %v", answer, err)
	}
	eventually(t, "the pass to know", func() bool { return d.all()[0].answered.Load() == 1 })
}

// firstRecord returns the record in which a client says hello.
func firstRecord(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	var ended sync.WaitGroup
	ended.Go(func() { _ = tls.Client(theirs, clientTLS()).Handshake() })
	defer ended.Wait()
	defer theirs.Close()
	record := make([]byte, recordMax)
	n, err := ours.Read(record)
	if err != nil {
		t.Fatal(err)
	}
	return record[:n]
}

// Who has gone while it waited for its turn costs no handshake.
func TestAClientThatDidNotWaitGetsNoHandshake(t *testing.T) {
	d := &doorman{hold: true}
	reasons := make(chan string, 1)
	r := (&rig{failed: func(_ netip.AddrPort, reason string, _ error) { reasons <- reason }}).start(t, Config{Admit: d.admit})
	raw, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, raw, firstRecord(t))
	eventually(t, "the pass to be ready", func() bool { return len(d.all()) == 1 && d.all()[0].begin.Load() != nil })
	raw.Close()
	(*d.all()[0].begin.Load())()
	if got := receive(t, reasons); got != reasonGone {
		t.Errorf("reason %q", got)
	}
	d.check(t, 0)
}

func TestWhoWaitsForItsTurnCanBeEnded(t *testing.T) {
	d := &doorman{hold: true}
	reasons := make(chan string, 1)
	r := (&rig{failed: func(_ netip.AddrPort, reason string, _ error) { reasons <- reason }}).start(t, Config{Admit: d.admit})
	raw, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	mustWrite(t, raw, firstRecord(t))
	eventually(t, "the pass to be ready", func() bool { return len(d.all()) == 1 && d.all()[0].begin.Load() != nil })
	d.all()[0].end(labelled("displaced"), 0)
	if got := receive(t, reasons); got != "displaced" {
		t.Errorf("reason %q", got)
	}
	_ = raw.SetReadDeadline(time.Now().Add(patience))
	if _, err := raw.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	d.check(t, 0)
}

// Neither who speaks no TLS nor who is told why it was refused, and may take its
// time to hear it, keeps others from their turn.
func TestWhoIsRefusedTakesNoTurn(t *testing.T) {
	d := &doorman{}
	reasons := make(chan string, 1)
	r := (&rig{failed: func(_ netip.AddrPort, reason string, _ error) { reasons <- reason }}).start(t, Config{Admit: d.admit})
	for i, c := range []struct {
		sent, reason string
		begun        bool
	}{
		{"GET / HTTP/1.1\r\n\r\n", reasonNotTLS, false},
		{"\x16\x03\x01\x00\x04\x05\x00\x00\x00", reasonOther, true},
	} {
		raw, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close() // not before the end
		mustWrite(t, raw, []byte(c.sent))
		if got := receive(t, reasons); got != c.reason {
			t.Errorf("%q: refused as %q, want %q", c.sent, got, c.reason)
		}
		p := d.all()[i]
		if begun := p.begin.Load() != nil; begun != c.begun || p.answered.Load() == 1 != begun {
			t.Errorf("%q: begun %v, answered %d times", c.sent, begun, p.answered.Load())
		}
	}
	r.stop()
	d.check(t, 0)
}

func TestPassesAreGivenBackAtTheEnd(t *testing.T) {
	d := &doorman{}
	r := (&rig{}).start(t, Config{Admit: d.admit})
	_, conn := r.dial()
	if conn.Pass() != Pass(d.all()[0]) {
		t.Error("the connection does not know its pass")
	}
	for _, what := range []string{"", "\x16", "\x16\x03\x01\x00\x01\x00"} { // it says nothing, half a record, one
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustWrite(t, c, []byte(what))
	}
	eventually(t, "all to be there", func() bool { return len(d.all()) == 4 })
	r.stop()
	d.check(t, 1)
}

// However many wait, the next one is asked for at once: none stays in the
// kernel, where it would keep others out.
func TestWhoWaitsKeepsNobodyInTheKernel(t *testing.T) {
	const many = 500
	d := &doorman{hold: true}
	r := (&rig{}).start(t, Config{Admit: d.admit})
	for range many {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "all to be asked for", func() bool { return len(d.all()) == many })
	if s := r.engine.Stats(); s.Accepted != many || s.Handshaking != 0 {
		t.Errorf("%+v", s)
	}
}
