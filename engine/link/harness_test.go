package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/pool/goroutine"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"causeway/engine/buf"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(children[role]())
	}
	code := m.Run()
	if code == 0 {
		// gnet enrolls with workers of a pool that lives as long as the process.
		_ = goroutine.DefaultWorkerPool.ReleaseTimeout(patience)
		if err := goleak.Find(
			// The pools that the ants package makes when it is imported.
			goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
			goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// A test frame: its whole length u32 | number u32 | filling.
const (
	testHeaderLen = 8
	testFrameMax  = 4 << 20
)

var errTestMalformed = errors.New("test frame malformed")

func testCut(_ *Conn, b []byte) (int, error) {
	if len(b) < 4 {
		return 4, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n < testHeaderLen || n > testFrameMax {
		return 0, errTestMalformed
	}
	return int(n), nil
}

func appendFrame(dst []byte, number, size int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	dst = binary.BigEndian.AppendUint32(dst, uint32(number))
	for i := testHeaderLen; i < size; i++ {
		dst = append(dst, byte(number+i))
	}
	return dst
}

func frameBuf(number, size int) *buf.Buffer {
	b := buf.Get(size)
	appendFrame(b.B[:0], number, size)
	return b
}

func frameNumber(b []byte) int { return int(binary.BigEndian.Uint32(b[4:])) }

// checkFrame tells what is wrong with a frame's bytes.
func checkFrame(b []byte) error {
	if len(b) < testHeaderLen || int(binary.BigEndian.Uint32(b)) != len(b) {
		return fmt.Errorf("frame of %d bytes, header % x", len(b), b[:min(len(b), 8)])
	}
	number := frameNumber(b)
	for i := testHeaderLen; i < len(b); i++ {
		if b[i] != byte(number+i) {
			return fmt.Errorf("frame %d of %d bytes: wrong byte at %d", number, len(b), i)
		}
	}
	return nil
}

// readFrame reads one frame from a client's stream.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	copy(b, head[:])
	if _, err := io.ReadFull(r, b[4:]); err != nil {
		return nil, err
	}
	return b, checkFrame(b)
}

const testALPN = "link-test/1"

var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "link test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"link.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{testALPN},
		SessionTicketsDisabled: true,
	}
})

func clientTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{testALPN}}
}

// openDoor is a Config.Admit that lets everybody in, and begins all handshakes
// at once.
func openDoor(netip.AddrPort, func(error, time.Duration)) (Pass, error) { return openPass{}, nil }

type openPass struct{}

func (openPass) Ready(_ time.Time, begin func()) { begin() }
func (openPass) Answered(time.Time)              {}
func (openPass) Handshaken(time.Time) error      { return nil }
func (openPass) Gone(time.Time)                  {}

// rig is an engine with a handler of functions; nil ones do the least.
type rig struct {
	t      testing.TB
	engine *Engine
	addr   string

	handshaken    func(c *Conn, s tls.ConnectionState) error
	failed        func(remote netip.AddrPort, reason string, err error)
	opened        func(c *Conn)
	frame         func(c *Conn, b *buf.Buffer)
	ready         func(c *Conn)
	resumed       func(c *Conn)
	undeliverable func(l *Loop, to Ref, b *buf.Buffer)
	sealed        func(c *Conn, b *buf.Buffer, own bool)
	closed        func(c *Conn, why error, lost int)
	turnEnd       func(l *Loop)
	tick          func(l *Loop, now time.Time)

	conns chan *Conn // opened
	ends  chan error // why of Closed
	lost  atomic.Int64
}

func (r *rig) Handshaken(c *Conn, s tls.ConnectionState) error {
	if r.handshaken != nil {
		return r.handshaken(c, s)
	}
	return nil
}

func (r *rig) HandshakeFailed(remote netip.AddrPort, reason string, err error) {
	if r.failed != nil {
		r.failed(remote, reason, err)
	}
}

func (r *rig) Opened(c *Conn) {
	if r.opened != nil {
		r.opened(c)
	}
	r.conns <- c
}

func (r *rig) Frame(c *Conn, b *buf.Buffer) {
	if r.t != nil {
		if err := checkFrame(b.B); err != nil {
			r.t.Error(err)
		}
	}
	if r.frame != nil {
		r.frame(c, b)
		return
	}
	buf.Put(b)
}

func (r *rig) Ready(c *Conn) {
	if r.ready != nil {
		r.ready(c)
	}
}

func (r *rig) Resumed(c *Conn) {
	if r.resumed != nil {
		r.resumed(c)
	}
}

func (r *rig) Undeliverable(l *Loop, to Ref, b *buf.Buffer) {
	if to.Loop() != l.Index() {
		r.t.Errorf("frame for loop %d given back on loop %d", to.Loop(), l.Index())
	}
	if err := checkFrame(b.B); err != nil {
		r.t.Error(err)
	}
	if r.undeliverable != nil {
		r.undeliverable(l, to, b)
		return
	}
	buf.Put(b)
}

func (r *rig) Sealed(c *Conn, b *buf.Buffer, own bool) {
	if r.sealed != nil {
		r.sealed(c, b, own)
	}
}

func (r *rig) Closed(c *Conn, why error, lost int) {
	r.lost.Add(int64(lost))
	if r.closed != nil {
		r.closed(c, why, lost)
	}
	r.ends <- why
}

func (r *rig) TurnEnd(l *Loop) {
	if r.turnEnd != nil {
		r.turnEnd(l)
	}
}

func (r *rig) Tick(l *Loop, now time.Time) {
	if r.tick != nil {
		r.tick(l, now)
	}
}

// start starts the rig's engine with a listener, and checks at the test's end
// that nothing is left.
func (r *rig) start(t testing.TB, cfg Config) *rig {
	t.Helper()
	before := buf.Out()
	r.t, r.conns, r.ends = t, make(chan *Conn, 4096), make(chan error, 4096)
	cfg.Cut = testCut
	if cfg.Admit == nil {
		cfg.Admit = openDoor
	}
	if cfg.Loops == 0 {
		cfg.Loops = 2
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	var err error
	if r.engine, err = Start(cfg, r); err != nil {
		t.Fatal(err)
	}
	ln, err := r.engine.Listen("127.0.0.1:0", testTLS())
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	t.Cleanup(func() {
		r.stop()
		s := r.engine.Stats()
		if s.QueuedBytes != 0 || s.Connections != 0 {
			t.Errorf("after Close: %d bytes queued, %d connections", s.QueuedBytes, s.Connections)
		}
		if s.Lost != uint64(r.lost.Load()) {
			t.Errorf("%d frames counted lost, Closed told of %d", s.Lost, r.lost.Load())
		}
		if out := buf.Out(); out != before {
			t.Errorf("buffers out: %+v, before the test %+v", out, before)
		}
	})
	return r
}

// stop closes the engine, by force when peers do not close.
func (r *rig) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_ = r.engine.Close(ctx)
}

// testWriter sends log lines to a test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("log: %s", p)
	return len(p), nil
}

// dial connects a client and returns it with the router's end.
func (r *rig) dial() (*tls.Conn, *Conn) {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.addr, clientTLS())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.NetConn().Close() })
	return c, receive(r.t, r.conns)
}

// dialOn connects clients until one is on the given loop.
func (r *rig) dialOn(loop int) (*tls.Conn, *Conn) {
	r.t.Helper()
	for range 100 {
		client, conn := r.dial()
		if conn.Loop().Index() == loop {
			return client, conn
		}
	}
	r.t.Fatal("no connection on the loop asked for")
	return nil, nil
}

// on runs fn on the loop and waits for it.
func on(t testing.TB, l *Loop, fn func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { fn(); close(done) }) {
		t.Fatal("Post on a closed engine")
	}
	receive(t, done)
}

// receive takes from ch, or fails.
func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func mustWrite(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

// tcpOf returns the TCP connection under a client's TLS.
func tcpOf(c *tls.Conn) *net.TCPConn { return c.NetConn().(*net.TCPConn) }

// unsent returns how many bytes the peer's kernel has not yet acknowledged.
func unsent(t testing.TB, c *net.TCPConn) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if ctlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); ctlErr != nil || err != nil {
		t.Fatal(ctlErr, err)
	}
	return n
}
