package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// The client protocol of NATS, as far as publishers and subscribers need it: lines
// that end with CR LF, and after some of them a payload and CR LF.
//
//	server: INFO {…}            before TLS, and later whenever it likes
//	client: CONNECT {…}, SUB subject sid, PING
//	server: PONG
//	client: PUB subject bytes, payload
//	server: MSG subject sid bytes, payload
//	either: PING, answered by PONG
const (
	natsLineMax = 4096 // bytes, CR LF included; the server's own bound on lines
	natsSID     = "1"  // of the one subscription of a connection

	// natsConnect asks for no acknowledgement of each message.
	natsConnect = `CONNECT {"verbose":false,"pedantic":false,"tls_required":true,"headers":false,"no_responders":false,` +
		`"echo":true,"protocol":1,"lang":"load","version":"1","name":"load"}`
)

var (
	natsEnd     = []byte("\r\n")
	natsMsg     = []byte("MSG ")
	natsInfo    = []byte("INFO ")
	natsError   = []byte("-ERR")
	natsPing    = []byte("PING\r\n")
	natsPong    = []byte("PONG\r\n")
	natsOK      = []byte("+OK\r\n")
	errNATSLine = errors.New("NATS: a line has no end")
	errNATSSize = errors.New("NATS: a message has no size that it may have")
)

// nats is a connection's end of it. Subjects are short, which is to its
// advantage, and all of one length.
type nats struct {
	subject  []byte
	receives bool
	expected []byte // what the server says of one message
}

func newNATS(number int, receives bool) *nats {
	return &nats{subject: fmt.Appendf(nil, "n.%04d", number), receives: receives}
}

// plain reads INFO, and nothing of what follows it.
func (n *nats) plain(raw net.Conn) error {
	var line []byte
	for one := make([]byte, 1); !bytes.HasSuffix(line, natsEnd); line = append(line, one[0]) {
		if len(line) >= natsLineMax {
			return errNATSLine
		}
		if _, err := raw.Read(one); err != nil {
			return fmt.Errorf("NATS: no INFO: %w", err)
		}
	}
	if !bytes.HasPrefix(line, natsInfo) {
		return fmt.Errorf("NATS: %.60q instead of INFO", line)
	}
	return nil
}

func (n *nats) opening() []byte {
	b := append([]byte(natsConnect), natsEnd...)
	if n.receives {
		b = fmt.Appendf(b, "SUB %s %s\r\n", n.subject, natsSID)
	}
	return append(b, natsPing...)
}

func (n *nats) need(b []byte) (int, error) {
	at := bytes.Index(b[:min(len(b), natsLineMax)], natsEnd)
	switch {
	case at < 0 && len(b) >= natsLineMax:
		return 0, errNATSLine
	case at < 0:
		return len(b) + 1, nil
	}
	line, size := b[:at], at+len(natsEnd)
	if !bytes.HasPrefix(line, natsMsg) {
		return size, nil
	}
	payload := 0
	digits := line[bytes.LastIndexByte(line, ' ')+1:]
	for _, d := range digits {
		if payload = 10*payload + int(d-'0'); d < '0' || d > '9' || payload > bodyMax {
			return 0, errNATSSize
		}
	}
	if len(digits) == 0 {
		return 0, errNATSSize
	}
	return size + payload + len(natsEnd), nil
}

func (n *nats) take(unit []byte) (event, []byte, error) {
	switch {
	case len(n.expected) > 0 && bytes.Equal(unit, n.expected):
		return eventMessage, nil, nil
	case bytes.Equal(unit, natsPing):
		return eventNone, natsPong, nil
	case bytes.Equal(unit, natsPong):
		return eventReady, nil, nil
	case bytes.Equal(unit, natsOK), bytes.HasPrefix(unit, natsInfo):
		return eventNone, nil, nil
	case bytes.HasPrefix(unit, natsError):
		return eventNone, nil, fmt.Errorf("NATS: the server says %q", bytes.TrimSpace(unit))
	case bytes.HasPrefix(unit, natsMsg):
		return eventNone, nil, fmt.Errorf("NATS: %w: %.60q", errUnexpected, unit)
	}
	return eventNone, nil, fmt.Errorf("NATS: what comes is %.60q", unit)
}

func (n *nats) message(dst, to, body []byte) []byte {
	dst = append(append(dst, "PUB "...), to...)
	dst = strconv.AppendInt(append(dst, ' '), int64(len(body)), 10)
	dst = append(append(dst, natsEnd...), body...)
	return append(dst, natsEnd...)
}

func (n *nats) address() []byte { return n.subject }

func (n *nats) expect(body []byte) {
	n.expected = fmt.Appendf(nil, "MSG %s %s %d\r\n%s\r\n", n.subject, natsSID, len(body), body)
}
