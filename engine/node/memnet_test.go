package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// memNet is a network in memory: pipes with a buffer, so that neither end
// waits for the other as long as little is under way.
type memNet struct {
	mu      sync.Mutex
	routers map[string]*fakeRouter // by host:port
	dialed  []string
}

func newMemNet() *memNet { return &memNet{routers: make(map[string]*fakeRouter)} }

func (m *memNet) listen(address string, r *fakeRouter) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routers[address] = r
	return "dbw://" + address
}

func (m *memNet) unlisten(address string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.routers, address)
}

var errNobody = errors.New("connection refused")

func (m *memNet) dial(_ context.Context, address string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dialed = append(m.dialed, address)
	r := m.routers[address]
	if r == nil {
		return nil, errNobody
	}
	client, server := newPipe()
	r.mu.Lock()
	r.conns = append(r.conns, server)
	r.mu.Unlock()
	r.wg.Go(func() { r.accept(server) })
	return client, nil
}

// pipeEnd is one end of a connection in memory. Unlike net.Pipe it buffers what
// is written, as TCP does.
type pipeEnd struct {
	in, out *pipeHalf
	closed  chan struct{}
	once    sync.Once
}

type pipeHalf struct {
	mu       sync.Mutex
	data     bytes.Buffer
	eof      bool
	changed  chan struct{}
	blocked  bool
	deadline [2]time.Time // for reading, for writing
}

// block makes the half take nothing more, like the window of a TCP connection
// whose other end does not read.
func (h *pipeHalf) block(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blocked = yes
	h.changeLocked()
}

const pipeBuffer = 256 << 10 // bytes; TCP's is of that order

func newPipe() (a, b *pipeEnd) {
	x, y := &pipeHalf{changed: make(chan struct{})}, &pipeHalf{changed: make(chan struct{})}
	return &pipeEnd{in: x, out: y, closed: make(chan struct{})}, &pipeEnd{in: y, out: x, closed: make(chan struct{})}
}

func (h *pipeHalf) changeLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// do waits until try has done something, the deadline, or the end's closing.
func (e *pipeEnd) do(h *pipeHalf, kind int, try func() (int, error, bool)) (int, error) {
	for {
		h.mu.Lock()
		n, err, ok := try()
		if ok {
			h.changeLocked()
		}
		changed, deadline := h.changed, h.deadline[kind]
		h.mu.Unlock()
		if ok {
			return n, err
		}
		var timeout <-chan time.Time
		var t *time.Timer
		if !deadline.IsZero() {
			t = time.NewTimer(time.Until(deadline))
			timeout = t.C
		}
		select {
		case <-changed:
		case <-timeout:
			return 0, errTimeout{}
		case <-e.closed:
			return 0, net.ErrClosed
		}
		if t != nil {
			t.Stop()
		}
	}
}

type errTimeout struct{}

func (errTimeout) Error() string   { return "i/o timeout" }
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Temporary() bool { return true }

func (e *pipeEnd) Read(b []byte) (int, error) {
	return e.do(e.in, reading, func() (int, error, bool) {
		select {
		case <-e.closed:
			return 0, net.ErrClosed, true
		default:
		}
		if e.in.data.Len() > 0 {
			n, err := e.in.data.Read(b)
			return n, err, true
		}
		return 0, io.EOF, e.in.eof
	})
}

func (e *pipeEnd) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		n, err := e.do(e.out, writing, func() (int, error, bool) {
			select {
			case <-e.closed:
				return 0, net.ErrClosed, true
			default:
			}
			if e.out.eof {
				return 0, io.ErrClosedPipe, true
			}
			room := min(pipeBuffer-e.out.data.Len(), len(b)-written)
			if room <= 0 || e.out.blocked {
				return 0, nil, false
			}
			n, err := e.out.data.Write(b[written : written+room])
			return n, err, true
		})
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Close lets the other end read what was written, as TCP does when all goes
// well.
func (e *pipeEnd) Close() error {
	e.once.Do(func() {
		close(e.closed)
		for _, h := range []*pipeHalf{e.in, e.out} {
			h.mu.Lock()
			h.eof = true
			h.changeLocked()
			h.mu.Unlock()
		}
	})
	return nil
}

const (
	reading = 0
	writing = 1
)

func (h *pipeHalf) setDeadline(kind int, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline[kind] = t
	h.changeLocked()
	return nil
}

func (e *pipeEnd) SetReadDeadline(t time.Time) error  { return e.in.setDeadline(reading, t) }
func (e *pipeEnd) SetWriteDeadline(t time.Time) error { return e.out.setDeadline(writing, t) }
func (e *pipeEnd) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}
func (e *pipeEnd) LocalAddr() net.Addr  { return pipeAddr{} }
func (e *pipeEnd) RemoteAddr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "memory" }
func (pipeAddr) String() string  { return fmt.Sprint("memory") }
