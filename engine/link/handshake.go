package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"causeway/engine/buf"
)

const (
	// farewellMax is how long, and for how many bytes, a refused peer is
	// listened to, so that a reset does not overtake the alert that says why.
	farewellMax      = 500 * time.Millisecond
	farewellBytesMax = 64 << 10

	// handshakeBytes is what a handshake under way takes: measured, up to 60 KB when
	// it has seen the client's certificate, and less before.
	handshakeBytes = 48 << 10

	// handshakeMax is what a peer may send in its handshake, in bytes: a first
	// message, and a chain of certificates as large as any that is accepted.
	// crypto/tls would collect 256 KiB before it looks at certificates.
	handshakeMax = 64 << 10

	// reasonsMax bounds the labels that a handler's errors can make.
	reasonsMax = 64
)

// Reasons of a failed handshake that do not come from the handler or from the
// TLS configuration's callbacks (whose errors may have a method Reason() string).
const (
	reasonTimeout       = "timeout"        // HandshakeTimeout
	reasonClosing       = "closing"        // Close, or Dial's context was cancelled
	reasonNotTLS        = "not-tls"        // plain text on the port
	reasonGone          = "gone"           // the peer closed the connection
	reasonVersion       = "version"        // no common TLS version
	reasonALPN          = "no-alpn"        // no common application protocol
	reasonUnknownName   = "unknown-name"   // a server name that we have no certificate for
	reasonNoCertificate = "no-certificate" // none from the client
	reasonCertificate   = "certificate"    // the peer's does not verify
	reasonPeerAlert     = "peer-alert"     // the peer refused us
	reasonEnroll        = "enroll"         // no descriptor or epoll watch for it
	reasonOther         = "other"
)

// reasonTexts are crypto/tls's errors that have no type. A test has one of each.
var reasonTexts = []struct{ part, reason string }{
	{"unsupported versions", reasonVersion},
	{"unsupported application protocols", reasonALPN},
	{"no certificates configured", reasonUnknownName},
	{"didn't provide a certificate", reasonNoCertificate},
	{"failed to verify certificate", reasonCertificate},
}

// longHandshake is a handshake beyond handshakeMax. What else is wrong with
// certificates is the handler's to say; this counts as one of its reasons.
type longHandshake struct{}

func (longHandshake) Reason() string { return "malformed" }
func (longHandshake) Error() string {
	return fmt.Sprintf("link: the peer's handshake has more than %d bytes; its certificates are too large", handshakeMax)
}

var errLongHandshake error = longHandshake{}

// enrollError is a failure after the handshake.
type enrollError struct{ error }

func (enrollError) Reason() string  { return reasonEnroll }
func (e enrollError) Unwrap() error { return e.error }

// hasReason tells whether err brings its own label.
func hasReason(err error) bool {
	var labelled interface{ Reason() string }
	return errors.As(err, &labelled)
}

// reasonOf classifies the error of a handshake.
func reasonOf(err error) string {
	var labelled interface{ Reason() string }
	var header tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var op *net.OpError
	switch {
	case errors.As(err, &labelled):
		return labelled.Reason()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	case errors.Is(err, context.Canceled):
		return reasonClosing
	case errors.As(err, &header):
		return reasonNotTLS
	case errors.As(err, &verify), errors.As(err, &unknown):
		return reasonCertificate
	case errors.As(err, &op) && op.Op == "remote error":
		return reasonPeerAlert
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reasonGone
	}
	text := err.Error()
	for _, t := range reasonTexts {
		if strings.Contains(text, t.part) {
			return t.reason
		}
	}
	return reasonOther
}

// newConn returns a connection for tcp and chooses its loop: the one with the
// fewest.
func (e *Engine) newConn(tcp *net.TCPConn, dialed bool, tag any) *Conn {
	home := e.loops[0]
	for _, l := range e.loops[1:] {
		if l.count.Load() < home.count.Load() {
			home = l
		}
	}
	home.count.Add(1)
	c := &Conn{loop: home, dialed: dialed, tag: tag, fd: -1}
	c.remote, c.local = plainAddr(tcp.RemoteAddr()), plainAddr(tcp.LocalAddr())
	return c
}

// plainAddr is a without zone, and IPv4 as such.
func plainAddr(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// establish does c's handshake on tcp, asks the handler, and enrolls c; it
// takes tcp.
func (e *Engine) establish(ctx context.Context, c *Conn, tcp *net.TCPConn, tc *tls.Config) error {
	e.handshaking.Add(1)
	e.cfg.Budget.Use(buf.PartHandshakes, handshakeBytes)
	defer func() {
		e.cfg.Budget.Use(buf.PartHandshakes, -handshakeBytes)
		e.handshaking.Add(-1)
	}()
	err := c.handshake(ctx, tcp, tc)
	if err == nil {
		err = e.handler.Handshaken(c, c.tls.ConnectionState())
		if err == nil && c.pass != nil {
			err = c.pass.Handshaken(time.Now())
		}
		if err != nil {
			_ = tcp.SetDeadline(time.Now().Add(farewellMax))
			_ = c.tls.CloseWrite()
		}
	}
	if err == nil && !c.autotune {
		err = e.boundReceive(tcp)
	}
	if err != nil {
		c.transport.answer() // the farewell takes the peer's time, not the processor's
		farewell(ctx, tcp)
		if cause := context.Cause(ctx); hasReason(cause) { // ended by whom Admit told how
			err = cause
		}
		e.refused(c, err)
		return err
	}
	_ = tcp.SetDeadline(time.Time{})
	c.transport.socket = nil
	c.shed()
	if err := c.loop.port.enroll(c, tcp, e.cfg.HandshakeTimeout); err != nil {
		err = enrollError{err}
		e.refused(c, err)
		return err
	}
	e.handshakes.Add(1)
	return nil
}

// refused ends c, whose handshake came to nothing.
func (e *Engine) refused(c *Conn, err error) {
	c.loop.count.Add(-1)
	if c.dialed {
		e.count(e.failed, reasonOf(err))
		return
	}
	if c.pass != nil {
		c.pass.Gone(time.Now())
	}
	e.report(c.remote, err)
}

// report counts and reports a connection that came to nothing.
func (e *Engine) report(remote netip.AddrPort, err error) {
	reason := reasonOf(err)
	e.count(e.failed, reason)
	e.handler.HandshakeFailed(remote, reason, err)
}

// farewell closes tcp so that what was written to it arrives, if ctx leaves the
// time.
func farewell(ctx context.Context, tcp *net.TCPConn) {
	if ctx.Err() == nil {
		defer context.AfterFunc(ctx, func() { tcp.Close() })()
		_ = tcp.CloseWrite()
		_ = tcp.SetReadDeadline(time.Now().Add(farewellMax))
		_, _ = io.CopyN(io.Discard, tcp, farewellBytesMax)
	}
	tcp.Close()
}

// count adds one to a reason; a label beyond reasonsMax counts as "other".
func (e *Engine) count(m map[string]uint64, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := m[reason]; !known && len(m) >= reasonsMax {
		reason = reasonOther
	}
	m[reason]++
}
