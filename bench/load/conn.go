package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

const (
	alpn        = "dbw/1"
	dialTimeout = 30 * time.Second
	answerMax   = 30 * time.Second // longest wait for a hello or a frame
	outSize     = 68 << 10         // of a connection's buffer: a unit and its records
)

// member is a node as the load plays it.
type member struct {
	address codec.Address
	certID  codec.CertID
	signer  *sign.Signer
	key     *sign.Key
	cert    tls.Certificate
	last    uint64 // send time used last
	frames  []byte // signed ahead: whole frames of one size
	bursts  []byte // the same, signed in bursts: whole ones
}

func newMember(n node) (*member, error) {
	private := ed25519.NewKeyFromSeed(n.Seed)
	m := &member{address: n.Address, certID: pki.CertID(n.Chain[0])}
	m.cert = tls.Certificate{Certificate: n.Chain, PrivateKey: private}
	var err error
	if m.signer, err = sign.NewSigner(private); err != nil {
		return nil, err
	}
	m.key, err = sign.NewKey(private.Public())
	return m, err
}

// frame appends a signed frame of the member to dst.
func (m *member) frame(dst []byte, to codec.Address, category codec.Category, body []byte) ([]byte, error) {
	f := codec.Frame{TTL: codec.TTLDefault, Recipient: to, Sender: m.address, Category: category, SendTime: m.sendTime(), CertID: m.certID, Body: body}
	dst = append(dst, f.TTL)
	from := len(dst)
	dst = f.AppendSigned(dst)
	signature, err := m.signer.Sign(nil, dst[from:])
	if err != nil {
		return nil, err
	}
	return codec.AppendSignature(dst, signature)
}

// sendTime returns one that was not used yet.
func (m *member) sendTime() uint64 {
	m.last = max(m.last+1, uint64(time.Now().UnixNano()))
	return m.last
}

// conn is one TLS connection, its records in our own hands.
type conn struct {
	fd      int // not blocking
	who     *member
	out, in *half

	// of the flow
	buffer  []byte // memory for units
	pending []byte // sealed and not yet written, in buffer
	blocked bool   // the kernel took only a part
	source  []byte // what is sent again and again: frames or bursts of who
	next    int    // offset in source of what is sent next
	got     tally  // what has come since the hello
	expects bool   // frames come on it
	peer    *peer  // of another server; nil: it speaks our protocol
	to      []int  // recipients of what is in source, frame by frame; with a bound of messages
	toward  uint64 // bytes sent to it since the size was set; with a bound of messages
	checked bool   // a frame of this slice was looked at
	before  uint64 // got.plain at the slice's start
}

// dial connects from the local address `from` ("": any) and does the handshake.
func dial(addr, from string, who *member, roots *x509.CertPool) (*conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	raw, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close() // a duplicate lives on
	return secure(raw, who, roots, alpn)
}

// secure does the handshake on raw, which the caller closes. Nothing may come
// after it before something was sent.
func secure(raw net.Conn, who *member, roots *x509.CertPool, protocols ...string) (*conn, error) {
	var secrets keyLog
	tc := tls.Client(raw, &tls.Config{
		ServerName: domainName, RootCAs: roots, NextProtos: protocols, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{who.cert}, KeyLogWriter: &secrets,
	})
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS with %s: %w", raw.RemoteAddr(), err)
	}
	var err error
	c := &conn{fd: -1, who: who}
	if c.out, c.in, err = secrets.halves(tc.ConnectionState()); err != nil {
		return nil, err
	}
	control, err := raw.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var dupErr error
	err = control.Control(func(fd uintptr) { c.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return c, errors.Join(err, dupErr)
}

func (c *conn) close() { unix.Close(c.fd) }

// hello introduces the node to a router and waits until it is accepted.
func (c *conn) hello(router codec.Address) error {
	body, err := codec.AppendControl(nil, hello())
	if err != nil {
		return err
	}
	if err := c.sendFrame(router, codec.CategoryControl, body); err != nil {
		return err
	}
	f, err := c.readFrame()
	if err != nil {
		return err
	}
	if f.Category() != codec.CategoryControl {
		return fmt.Errorf("a frame of category %d before the router's hello", f.Category())
	}
	answer, err := codec.DecodeControl(f.Body())
	if err != nil {
		return err
	}
	if _, ok := answer.(*codec.Hello); !ok {
		return fmt.Errorf("the router answers hello with %T %+v", answer, answer)
	}
	return nil
}

// sendFrame signs and writes one frame, and waits until the kernel has it.
func (c *conn) sendFrame(to codec.Address, category codec.Category, body []byte) error {
	wire, err := c.who.frame(nil, to, category, body)
	if err != nil {
		return err
	}
	return c.write(wire)
}

// write writes plain and waits until the kernel has it.
func (c *conn) write(plain []byte) error {
	b := c.out.seal(nil, plain)
	deadline := time.Now().Add(answerMax)
	for len(b) > 0 {
		n, err := unix.Write(c.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := c.await(unix.POLLOUT, deadline); err != nil {
				return err
			}
		case err != nil:
			return writeError(err)
		default:
			b = b[n:]
		}
	}
	return nil
}

// readFrame reads one frame, of at least one whole record; nothing may follow
// it in its last record.
func (c *conn) readFrame() (codec.Raw, error) {
	deadline := time.Now().Add(answerMax)
	var plain []byte
	for {
		record := make([]byte, recordHeader, recordWireMax)
		if err := c.readFull(record, deadline); err != nil {
			return nil, err
		}
		n, err := recordLength(record)
		if err != nil {
			return nil, err
		}
		record = record[:recordHeader+n]
		if err := c.readFull(record[recordHeader:], deadline); err != nil {
			return nil, err
		}
		part, err := c.in.open(record, c.in.seq)
		if err != nil {
			return nil, err
		}
		c.in.seq++
		plain = append(plain, part...)
		need, err := codec.Cut(plain, codec.BodyMaxDefault)
		switch {
		case err != nil:
			return nil, err
		case need == len(plain):
			return plain, nil
		case need < len(plain):
			return nil, errors.New("more than one frame came")
		}
	}
}

func (c *conn) readFull(b []byte, deadline time.Time) error {
	for len(b) > 0 {
		n, err := unix.Read(c.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := c.await(unix.POLLIN, deadline); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			b = b[n:]
		}
	}
	return nil
}

// await waits until the socket is ready for what is asked.
func (c *conn) await(events int16, deadline time.Time) error {
	left := time.Until(deadline)
	if left <= 0 {
		return errors.New("nothing happened on a connection for too long")
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: events}}, int(left.Milliseconds())+1)
	if err == unix.EINTR {
		return nil
	}
	return err
}
