package link

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An accept that fails for want of descriptors is tried again after a pause
// that doubles.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// Listener accepts connections for an Engine.
type Listener struct {
	engine *Engine
	tcp    *net.TCPListener
	tls    *tls.Config

	once  sync.Once
	quit  chan struct{} // closed: accept no more
	ended chan struct{} // closed: the goroutine has ended
}

// Listen accepts connections on addr (host:port) and does their handshakes as a
// server with tc. 0.0.0.0 is all of IPv4, [::] all of both. The error wraps the
// system's (EADDRINUSE and so on).
func (e *Engine) Listen(addr string, tc *tls.Config) (*Listener, error) {
	if tc == nil {
		return nil, errors.New("link: Listen without a TLS configuration")
	}
	// TCP's keep-alives would come after those of the frames, and cost four
	// system calls for everybody who knocks.
	lc := net.ListenConfig{KeepAlive: -1}
	network := "tcp"
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().Is4() {
		network = "tcp4" // "tcp" would take 0.0.0.0 for IPv6, too
	}
	ln, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	a := &Listener{
		engine: e, tcp: ln.(*net.TCPListener), tls: tc,
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		ln.Close()
		return nil, ErrEngineClosed
	}
	e.listeners[a] = struct{}{}
	e.mu.Unlock()
	e.live.Store(true)
	go a.run()
	return a, nil
}

// Addr returns the address that is listened on.
func (a *Listener) Addr() net.Addr { return a.tcp.Addr() }

// Close stops accepting and waits until that has stopped. Handshakes under way
// and connections go on.
func (a *Listener) Close() error {
	var err error
	a.once.Do(func() {
		close(a.quit)
		err = a.tcp.Close()
		a.engine.mu.Lock()
		delete(a.engine.listeners, a)
		a.engine.mu.Unlock()
	})
	<-a.ended
	return err
}

// run accepts until Close. It waits for nothing else: connections that stay in
// the kernel keep out those that come after them, whoever they are.
func (a *Listener) run() {
	defer close(a.ended)
	e := a.engine
	var pause time.Duration
	for {
		conn, err := a.tcp.AcceptTCP()
		if err != nil {
			if !a.failed(err, &pause) {
				return
			}
			continue
		}
		if pause > 0 {
			pause = 0
			e.cfg.Logger.Info("accepting connections again", "listen", a.Addr().String())
		}
		e.accepted.Add(1)
		e.welcome(conn, a.tls)
	}
}

// failed handles an error of accept; false when the listener is closed. One
// message per episode, whatever its length.
func (a *Listener) failed(err error, pause *time.Duration) bool {
	select {
	case <-a.quit:
		return false
	default:
	}
	reason := "other"
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		reason = "descriptors"
	}
	a.engine.count(a.engine.acceptErrors, reason)
	if *pause == 0 {
		a.engine.cfg.Logger.Warn("cannot accept connections; trying again", "listen", a.Addr().String(), "error", err)
	}
	*pause = min(max(2**pause, acceptPauseMin), acceptPauseMax)
	timer := time.NewTimer(*pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.quit:
		return false
	}
}

// boundReceive bounds what the kernel keeps for a connection that is not read. Until
// then it keeps what it grants any connection at its start (net.ipv4.tcp_rmem, the
// second number).
func (e *Engine) boundReceive(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, e.cfg.ReceiveBuffer)
	})
	return cmp.Or(ctlErr, err)
}

// Dial connects to addr, does the handshake as a client with tc, and enrolls
// the connection; tag comes back as Conn.Tag. A handshake that fails is counted,
// and not reported to Handler.HandshakeFailed. With TLS 1.3 the server may refuse a
// client's certificate after Dial has returned: that closes the connection.
func (e *Engine) Dial(ctx context.Context, addr string, tc *tls.Config, tag any) error {
	if tc == nil {
		return errors.New("link: Dial without a TLS configuration")
	}
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return ErrEngineClosed
	}
	e.working.Add(1)
	e.mu.Unlock()
	defer e.working.Done()
	e.live.Store(true)

	ctx, cancel := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	tcp := conn.(*net.TCPConn)
	if err := e.establish(ctx, e.newConn(tcp, true, tag), tcp, tc); err != nil {
		return fmt.Errorf("link: dial %s: %w", addr, err)
	}
	return nil
}
