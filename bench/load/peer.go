package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Names of variants that are other servers.
const (
	variantNATS = "nats"
	variantDERP = "derp"
)

// isPeer reports whether a variant is another server, with a protocol of its own.
func isPeer(variant string) bool { return variant == variantNATS || variant == variantDERP }

// protocol is a connection's end of another server's protocol. Units are what it
// cuts the stream into: lines, messages, frames. It does no I/O but in plain, and
// survives no error.
type protocol interface {
	// plain does what goes before TLS.
	plain(raw net.Conn) error
	// opening returns what the client says first.
	opening() []byte
	// need returns how many bytes of a unit that begins with b must be there to go on.
	need(b []byte) (int, error)
	// take is told one unit, borrowed, and returns what to answer, if anything.
	take(unit []byte) (event, []byte, error)
	// message appends to dst a message to the end with the address given.
	message(dst, to, body []byte) []byte
	// address is where messages to this end go.
	address() []byte
	// expect sets the body that messages to this end have.
	expect(body []byte)
}

// event is what a unit means to the load.
type event int

const (
	eventNone    event = iota
	eventReady         // the server has taken all of the opening
	eventMessage       // a message was delivered, and is the one expected
)

var errUnexpected = errors.New("a message that nobody sent")

// peer is another server's end of a connection.
type peer struct {
	protocol
	come     stream
	messages []byte // made ahead, for all receivers in turn, all of one size
}

// connectPeer makes the connections to another server.
func (c *client) connectPeer(f *flow, addr string) error {
	senders := make(map[string]bool)
	for i, m := range c.members {
		sends := i < c.setup.Senders
		var p protocol
		if f.variant == variantNATS {
			p = newNATS(i, !sends)
		} else {
			d, err := newDERP(senders)
			if err != nil {
				return err
			}
			if sends {
				senders[string(d.address())] = true
			}
			p = d
		}
		conn, err := dialPeer(addr, m, c.roots, p)
		if err != nil {
			return fmt.Errorf("%s: connection %d: %w", f.variant, i+1, err)
		}
		if err := f.add(conn, sends, !sends); err != nil {
			return err
		}
	}
	return nil
}

// dialPeer connects and waits until the server has taken the opening.
func dialPeer(addr string, who *member, roots *x509.CertPool, p protocol) (*conn, error) {
	raw, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return nil, err
	}
	defer raw.Close() // a duplicate lives on
	if err := raw.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	if err := p.plain(raw); err != nil {
		return nil, err
	}
	c, err := secure(raw, who, roots)
	if err != nil {
		return nil, err
	}
	c.peer = &peer{protocol: p, come: stream{half: c.in, need: p.need}}
	if err := c.greet(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// greet says the opening and waits until it is taken.
func (c *conn) greet() error {
	if err := c.write(c.peer.opening()); err != nil {
		return err
	}
	b := make([]byte, recordWireMax)
	deadline := time.Now().Add(answerMax)
	for ready := false; !ready; {
		n, err := unix.Read(c.fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			if err := c.await(unix.POLLIN, deadline); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return errors.New("the server closed the connection instead of an answer")
		}
		err = c.peer.come.take(b[:n], func(unit []byte) error {
			event, answer, err := c.peer.take(unit)
			switch {
			case err != nil:
				return err
			case event == eventMessage:
				return errUnexpected
			}
			ready = ready || event == eventReady
			return c.write(answer)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hear opens what comes from another server, answers what needs an answer, and
// counts messages by the size that they were sent with. Each is looked at whole.
func (f *flow) hear(c *conn, b []byte) error {
	return c.peer.come.take(b, func(unit []byte) error {
		event, answer, err := c.peer.take(unit)
		if err != nil {
			return err
		}
		if event == eventMessage {
			if !c.expects {
				return errUnexpected
			}
			c.got.plain += uint64(f.frame)
			c.checked = true
		}
		if len(answer) == 0 {
			return nil
		}
		c.pending = c.out.seal(c.pending, answer)
		return c.flush()
	})
}

// prepare makes the messages of another server's senders ahead, to receivers in
// the order that our frames have (sign), and returns the size of one.
func (f *flow) prepare(body int) (size int) {
	content := contentOf(body)
	distinct := distinctFrames(frameSize(body), len(f.receivers), len(f.senders))
	for i, c := range f.senders {
		c.peer.messages, c.to = c.peer.messages[:0], c.to[:0]
		for len(c.peer.messages) < unitMax {
			for k := range distinct {
				to := (i*distinct + i + k) % len(f.receivers)
				before := len(c.peer.messages)
				c.peer.messages = c.peer.message(c.peer.messages, f.receivers[to].peer.address(), content)
				c.to = append(c.to, to)
				size = len(c.peer.messages) - before
			}
		}
	}
	for _, c := range f.receivers {
		c.peer.expect(bytes.Clone(content))
	}
	return size
}
