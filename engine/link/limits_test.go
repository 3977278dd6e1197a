package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/engine/buf"
)

// childRole names, in the environment, what this test binary does instead of
// testing.
const childRole = "LINK_TEST_CHILD"

var children = map[string]func() int{"descriptors": descriptorsChild}

func TestDescriptorsExhaustedIsSurvived(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"=descriptors")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// descriptorsChild uses up all its descriptors while a router runs in it.
func descriptorsChild() int {
	if err := exhaustDescriptors(); err != nil {
		fmt.Println("FAIL:", err)
		return 1
	}
	return 0
}

func exhaustDescriptors() error {
	const limit = 100
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	var log countingHandler
	r := &rig{frame: echo, conns: make(chan *Conn, 100), ends: make(chan error, 100)}
	e, err := Start(Config{Loops: 1, Cut: testCut, Admit: openDoor, Logger: slog.New(&log)}, r)
	if err != nil {
		return err
	}
	r.engine = e
	ln, err := e.Listen("127.0.0.1:0", testTLS())
	if err != nil {
		return err
	}
	first, err := tls.Dial("tcp", ln.Addr().String(), clientTLS())
	if err != nil {
		return err
	}
	if !poll(func() bool { return e.Stats().Handshakes == 1 }) {
		return errors.New("the first connection is not open")
	}
	// A connection that waits in the backlog, then no descriptor is left.
	var files []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		files = append(files, f)
	}
	files[len(files)-1].Close() // one for the client's end, none for ours
	waiting, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return err
	}
	if !poll(func() bool { return e.Stats().AcceptErrors["descriptors"] >= 4 }) {
		return fmt.Errorf("accept errors: %v", e.Stats().AcceptErrors)
	}
	if n := log.warnings.Load(); n != 1 {
		return fmt.Errorf("%d messages in one episode", n)
	}
	if err := roundTrip(first); err != nil {
		return fmt.Errorf("the connection of before: %w", err)
	}
	for _, f := range files {
		f.Close()
	}
	client := tls.Client(waiting, clientTLS())
	if err := roundTrip(client); err != nil {
		return fmt.Errorf("the connection that waited: %w", err)
	}
	fmt.Printf("served again after %d errors\n", e.Stats().AcceptErrors["descriptors"])
	first.Close()
	client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return e.Close(ctx)
}

func roundTrip(c *tls.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(appendFrame(nil, 1, 100)); err != nil {
		return err
	}
	_, err := readFrame(c)
	return err
}

func poll(cond func() bool) bool {
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// countingHandler counts log records.
type countingHandler struct{ warnings atomic.Int64 }

func (h *countingHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (h *countingHandler) Handle(context.Context, slog.Record) error {
	h.warnings.Add(1)
	return nil
}
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *countingHandler) WithGroup(string) slog.Handler      { return h }

// reasoned is a handler's refusal with a label of its own.
type reasoned struct{}

func (reasoned) Error() string  { return "not today" }
func (reasoned) Reason() string { return "own-label" }

func TestFailedHandshakesAreCountedByReason(t *testing.T) {
	reasons := make(chan string, 10)
	r := &rig{}
	r.failed = func(_ netip.AddrPort, reason string, err error) {
		t.Logf("%s: %v", reason, err)
		reasons <- reason
	}
	hasty := (&rig{failed: r.failed}).start(t, Config{HandshakeTimeout: 500 * time.Millisecond})
	var refusal atomic.Value
	r.handshaken = func(*Conn, tls.ConnectionState) error {
		if err, ok := refusal.Load().(error); ok {
			return err
		}
		return nil
	}
	r.start(t, Config{HandshakeTimeout: patience})
	strict := testTLS().Clone()
	strict.ClientAuth = tls.RequireAnyClientCert
	strict.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName == "unknown.test" {
			return &tls.Config{NextProtos: []string{testALPN}, MinVersion: tls.VersionTLS13}, nil
		}
		return nil, nil
	}
	ln, err := r.engine.Listen("127.0.0.1:0", strict)
	if err != nil {
		t.Fatal(err)
	}
	strictAddr := ln.Addr().String()
	plain := func(r *rig, text string) func() {
		return func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	half := func(text string) func() { // says so much, and ends in order
		return func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, text)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	}
	hello := func(addr string, change func(*tls.Config)) func() {
		return func() {
			tc := clientTLS()
			change(tc)
			c, err := tls.Dial("tcp", addr, tc)
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			if err == nil {
				t.Error("the client saw no error")
			}
			t.Logf("client: %v", err)
		}
	}
	for _, c := range []struct {
		want string
		do   func()
	}{
		{reasonNotTLS, plain(r, "GET / HTTP/1.1\r\nHost: here\r\n\r\n")},
		{reasonTimeout, plain(hasty, "")},
		{reasonTimeout, plain(hasty, "\x16\x03\x01")},
		{reasonTimeout, plain(hasty, "\x16\x03\x01\x00\x02\x01")},
		{reasonNotTLS, plain(r, "\x16GET /")},
		{reasonNotTLS, plain(r, "\x16\x03\x01\xff\xff\x01")},
		{reasonGone, half("\x16\x03\x01\x00")},
		{reasonGone, half("\x16\x03\x01\x00\x02\x01")},
		{reasonVersion, hello(r.addr, func(tc *tls.Config) { tc.MaxVersion = tls.VersionTLS12 })},
		{reasonALPN, hello(r.addr, func(tc *tls.Config) { tc.NextProtos = []string{"h2"} })},
		{reasonNoCertificate, hello(strictAddr, func(tc *tls.Config) {})},
		{reasonUnknownName, hello(strictAddr, func(tc *tls.Config) { tc.ServerName = "unknown.test" })},
		{reasonPeerAlert, hello(r.addr, func(tc *tls.Config) { tc.InsecureSkipVerify = false; tc.ServerName = "link.test" })},
		{reasonGone, func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}},
		{"own-label", func() { refusal.Store(error(reasoned{})); hello(r.addr, func(*tls.Config) {})() }},
	} {
		counted := func() uint64 {
			return r.engine.Stats().HandshakesFailed[c.want] + hasty.engine.Stats().HandshakesFailed[c.want]
		}
		before := counted()
		c.do()
		if got := receive(t, reasons); got != c.want {
			t.Errorf("reason %q, want %q", got, c.want)
		}
		if n := counted(); n != before+1 {
			t.Errorf("%s counted %d times", c.want, n-before)
		}
	}
	eventually(t, "handshakes to end", func() bool { return r.engine.Stats().Handshaking == 0 })
}

func TestADialersFailedHandshakeIsReturned(t *testing.T) {
	r := (&rig{}).start(t, Config{HandshakeTimeout: patience})
	hasty := (&rig{}).start(t, Config{HandshakeTimeout: 500 * time.Millisecond})
	tc := clientTLS()
	tc.InsecureSkipVerify, tc.ServerName = false, "link.test"
	err := r.engine.Dial(t.Context(), r.addr, tc, nil)
	if err == nil || reasonOf(err) != reasonCertificate {
		t.Errorf("error %v", err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := hasty.engine.Dial(t.Context(), silent.Addr().String(), tc, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: %v", err)
	}
	silent.Close()
	if err := r.engine.Dial(t.Context(), silent.Addr().String(), tc, nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no server: %v", err)
	}
}

func TestListenTellsThatAPortIsTaken(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	if _, err := r.engine.Listen(r.addr, testTLS()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v", err)
	}
}

func TestClosingAListenerLeavesConnections(t *testing.T) {
	r := (&rig{frame: echo}).start(t, Config{})
	client, _ := r.dial()
	ln, err := r.engine.Listen("127.0.0.1:0", testTLS())
	if err != nil {
		t.Fatal(err)
	}
	other, err := tls.Dial("tcp", ln.Addr().String(), clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ln.Close()
	ln.Close()
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("a closed listener accepts")
	}
	for _, c := range []*tls.Conn{client, other} {
		if err := roundTrip(c); err != nil {
			t.Error(err)
		}
	}
}

func TestLoopsArePinnedAndThreadsGivenBack(t *testing.T) {
	pinned := func(cpu string) (n int) {
		files, err := filepath.Glob("/proc/self/task/*/status")
		if err != nil || len(files) == 0 {
			t.Fatal("no threads in /proc", err)
		}
		for _, f := range files {
			b, _ := os.ReadFile(f)
			if strings.Contains(string(b), "Cpus_allowed_list:\t"+cpu+"\n") {
				n++
			}
		}
		return n
	}
	if pinned("0") != 0 || pinned("1") != 0 {
		t.Fatal("threads are pinned before the engine starts")
	}
	r := (&rig{}).start(t, Config{Loops: 2, CPUs: []int{1, 0}})
	if a, b := pinned("0"), pinned("1"); a != 1 || b != 1 {
		t.Errorf("%d threads on core 0, %d on core 1", a, b)
	}
	for i, l := range r.engine.Loops() {
		on(t, l, func() {
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() != 1 || !set.IsSet(1-i) {
				t.Errorf("loop %d: affinity %v, error %v", i, set, err)
			}
		})
	}
	r.stop()
	if a, b := pinned("0"), pinned("1"); a+b != 0 {
		t.Errorf("%d threads still pinned after Close", a+b)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	before := buf.Out()
	for _, c := range []struct {
		want string
		cfg  Config
	}{
		{"Config.Cut", Config{}},
		{"Config.Admit", Config{Cut: testCut}},
		{"300 loops", Config{Cut: testCut, Admit: openDoor, Loops: 300}},
		{"1 cores named for 2 loops", Config{Cut: testCut, Admit: openDoor, Loops: 2, CPUs: []int{0}}},
		{"core 999", Config{Cut: testCut, Admit: openDoor, Loops: 2, CPUs: []int{0, 999}}},
	} {
		_, err := Start(c.cfg, &rig{t: t})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one about %s", err, c.want)
		}
	}
	if buf.Out() != before {
		t.Error("buffers are out")
	}
}

// All of IPv4 is not IPv6, too: nobody has asked for that.
func TestListeningOnIPv4IsNotListeningOnIPv6(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	ln, err := r.engine.Listen("0.0.0.0:0", testTLS())
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr)
	if at.IP.To4() == nil {
		t.Errorf("listens on %v", at)
	}
	for host, want := range map[string]bool{"127.0.0.1": true, "::1": false} {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(at.Port)), patience)
		if err == nil {
			c.Close()
		}
		if (err == nil) != want {
			t.Errorf("a connection to %s: %v", host, err)
		}
	}
}

func TestAddressesHaveNoZone(t *testing.T) {
	for in, want := range map[*net.TCPAddr]string{
		{IP: net.ParseIP("fe80::1"), Port: 7, Zone: "eth0"}: "[fe80::1]:7",
		{IP: net.ParseIP("::ffff:10.0.0.1"), Port: 8}:       "10.0.0.1:8",
	} {
		if got := plainAddr(in).String(); got != want {
			t.Errorf("%v became %s, want %s", in, got, want)
		}
	}
}

// A connection has the receive buffer that was asked for, in the end that listens and
// in that which dials, unless the kernel is to see to it.
func TestReceiveBufferIsBounded(t *testing.T) {
	const size = 48 << 10 // smaller than any kernel's first
	for _, autotune := range []bool{false, true} {
		r := &rig{handshaken: func(c *Conn, _ tls.ConnectionState) error {
			if autotune {
				c.AutotuneReceive()
			}
			return nil
		}}
		r.start(t, Config{ReceiveBuffer: size})
		if err := r.engine.Dial(t.Context(), r.addr, clientTLS(), nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			conn := receive(t, r.conns)
			on(t, conn.Loop(), func() {
				got, err := unix.GetsockoptInt(conn.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
				if err != nil || (got == 2*size) == autotune {
					t.Errorf("autotune %v, dialed %v: %d bytes, %v", autotune, conn.Dialed(), got, err)
				}
			})
		}
		r.stop()
	}
}
