package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"causeway/engine/buf"
)

// transport is the net.Conn under a connection's tls.Conn: the socket itself
// during the handshake, memory afterwards.
//
// It never gives bytes beyond the TLS record that crypto/tls is reading (5
// header bytes, then exactly the body). So crypto/tls never buffers more than
// one record, nothing is left in it when the handshake ends, and a pause needs
// to keep no more than what was read from the socket. After the handshake
// rawinput.go feeds it where it can.
type transport struct {
	socket *net.TCPConn // during the handshake, then nil
	conn   *Conn        // takes ciphertext after the handshake
	in     []byte       // ciphertext not yet read by crypto/tls; borrowed while it reads
	part   []byte       // the beginning of a record, see rawinput.go

	header [recordHeaderLen]byte
	got    int // bytes of header read
	body   int // bytes of the body not yet read

	answered  bool // the pass has been told
	handshook int  // bytes read during the handshake
}

// A TLS record: type 1 | version 2 | length 2 (RFC 8446 section 5.1).
const (
	recordHeaderLen = 5
	recordLengthAt  = 3
)

// drained is what Read returns when there is no ciphertext for now. crypto/tls
// does not remember an error that says it is temporary, not even in the middle
// of a record.
type drained struct{}

func (drained) Error() string   { return "link: no ciphertext for now" }
func (drained) Timeout() bool   { return false }
func (drained) Temporary() bool { return true }

var errDrained net.Error = drained{}

func (t *transport) Read(p []byte) (int, error) {
	if t.got == recordHeaderLen && t.body == 0 {
		t.got = 0
		t.answer()
	}
	limit := t.body
	if t.got < recordHeaderLen {
		limit = recordHeaderLen - t.got
	}
	n, err := t.read(p[:min(len(p), limit)])
	if t.got == recordHeaderLen {
		t.body -= n
		return n, err
	}
	copy(t.header[t.got:], p[:n])
	t.got += n
	if t.got == recordHeaderLen {
		t.body = int(t.header[recordLengthAt])<<8 | int(t.header[recordLengthAt+1])
	}
	return n, err
}

// answer tells the pass, once, that a handshake has done what it can with the
// first record: it wants another one, or has failed.
func (t *transport) answer() {
	if t.socket != nil && !t.answered && t.conn.pass != nil {
		t.answered = true
		t.conn.pass.Answered(time.Now())
	}
}

func (t *transport) read(p []byte) (int, error) {
	if t.socket != nil {
		n, err := t.socket.Read(p)
		if t.handshook += n; t.handshook > handshakeMax {
			return 0, errLongHandshake
		}
		return n, err
	}
	if len(t.in) == 0 || usesRawInput {
		return 0, errDrained
	}
	n := copy(p, t.in)
	t.in = t.in[n:]
	return n, nil
}

// Write takes ciphertext: records that flush seals, and crypto/tls's own alerts
// and answers to key updates. Those are bounded, because a peer can cause them
// without end.
func (t *transport) Write(p []byte) (int, error) {
	if t.socket != nil {
		return t.socket.Write(p)
	}
	if t.conn.out.waiting > sealedMax+recordMax+answersMax {
		return 0, ErrControlFlood
	}
	t.conn.out.write(t.conn.loop, p)
	return len(p), nil
}

// Close ends the socket during the handshake (a context that ends does so).
func (t *transport) Close() error {
	if t.socket != nil {
		return t.socket.Close()
	}
	return nil
}

func (t *transport) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(t.conn.local) }
func (t *transport) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(t.conn.remote) }

func (t *transport) SetDeadline(at time.Time) error {
	if t.socket != nil {
		return t.socket.SetDeadline(at)
	}
	return nil
}

func (t *transport) SetReadDeadline(at time.Time) error {
	if t.socket != nil {
		return t.socket.SetReadDeadline(at)
	}
	return nil
}

func (t *transport) SetWriteDeadline(at time.Time) error {
	if t.socket != nil {
		return t.socket.SetWriteDeadline(at)
	}
	return nil
}

// handshake runs TLS on the socket until ctx ends, then switches to memory. The
// socket is still the caller's.
func (c *Conn) handshake(ctx context.Context, socket *net.TCPConn, tc *tls.Config) error {
	t := &c.transport
	t.socket, t.conn = socket, c
	if c.dialed {
		c.tls = tls.Client(t, tc)
	} else {
		c.tls = tls.Server(t, tc)
	}
	return c.tls.HandshakeContext(ctx)
}

// received takes what gnet read from the socket; data is borrowed.
func (c *Conn) received(data []byte) {
	l := c.loop
	l.refresh()
	c.bytesIn.Add(uint64(len(data)))
	l.stat.bytesIn.Add(uint64(len(data)))
	switch {
	case c.phase != phaseOpen:
		// It is at its end: what still comes is thrown away.
	case c.pauses > 0 || c.holds():
		c.hold(data)
	default:
		c.feed(data)
	}
	if len(l.hot) > 0 {
		l.sealHot()
	}
}

// holds tells whether input waits in memory for the connection to be resumed.
func (c *Conn) holds() bool { return c.rest != nil || c.held != nil }

// hold keeps a copy of ciphertext. One pause can meet two reads: the one in
// whose middle it came, and one that gnet had already been told of.
func (c *Conn) hold(data []byte) {
	if c.held == nil {
		c.held, c.heldAt = buf.Get(0), 0
	}
	at := len(c.held.B)
	c.held = buf.Grow(c.held, at+len(data))
	c.loop.account.Took(int64(len(data)))
	copy(c.held.B[at:], data)
}

// feed gives data, borrowed, to crypto/tls and cuts what comes out. What a
// pause leaves is held.
func (c *Conn) feed(data []byte) {
	c.transport.in = data
	c.readPlaintext()
	left := c.transport.in
	c.transport.in = nil
	if len(left) > 0 && c.phase == phaseOpen {
		c.hold(left)
	}
}

// readPlaintext reads from crypto/tls until it has no more, or the connection
// is paused or at its end.
func (c *Conn) readPlaintext() {
	l := c.loop
	before := l.cut
	var raw *bytes.Buffer
	if usesRawInput {
		raw = c.lendRawInput()
	}
	for c.phase == phaseOpen && c.pauses == 0 {
		if usesRawInput && !c.transport.stage(raw) {
			break
		}
		n, err := c.tls.Read(l.plain[:])
		if n > 0 {
			c.cutAndKeep(l.plain[:n])
		}
		if err == errDrained {
			if c.holdsMessage() {
				c.die(ErrLongMessage)
			}
			if usesRawInput {
				continue // a record without frames: a key update, a ticket
			}
			break
		}
		if err != nil && c.pauses == 0 && c.phase == phaseOpen {
			c.readFailed(err)
		}
	}
	if usesRawInput {
		c.takeRawInput(raw)
	}
	if n := l.cut - before; n > 0 {
		c.noteCut(n)
	}
	if c.out.waiting > 0 {
		c.markDirty()
	}
}

// noteCut counts n frames that were cut.
func (c *Conn) noteCut(n uint64) {
	c.framesIn.Add(n)
	c.loop.stat.framesCut.Add(n)
	c.loop.arm()
}

// readFailed ends the connection for what crypto/tls reports; it reports it
// again at every later Read.
func (c *Conn) readFailed(err error) {
	if !errors.Is(err, io.EOF) {
		c.die(err) // its alert, if any, goes out with the last write
		return
	}
	c.FinishOnLoop(c.endOfStream(), c.loop.now.Add(lingerMax))
}

// endOfStream is why a stream ended whose peer closed it in order.
func (c *Conn) endOfStream() error {
	if c.partial != nil {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}
