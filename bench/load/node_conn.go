package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
)

// nodeConn is a node's connection with crypto/tls, for clients of a crowd. One
// goroutine reads, one writes frames; any may send link control.
type nodeConn struct {
	*tls.Conn
	who    *member
	router codec.Address

	// of the reader
	rest []byte // begin of a frame
	in   []byte

	received atomic.Uint64 // frames other than link control
	mu       sync.Mutex    // held while link control is made and written
}

// join makes raw a node's connection: TLS, and hello, which the router answers
// within answerMax.
func join(ctx context.Context, raw net.Conn, who *member, roots *x509.CertPool, router codec.Address) (*nodeConn, error) {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &nodeConn{who: who, router: router, in: make([]byte, 4<<10)}
	c.Conn = tls.Client(raw, &tls.Config{
		ServerName: domainName, RootCAs: roots, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{who.cert},
	})
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if err := c.say(hello()); err != nil {
		return nil, err
	}
	for accepted := false; !accepted; {
		err := c.read(func(f codec.Raw) error {
			if f.Category() != codec.CategoryControl {
				return errors.New("before the router's hello came " + describe(f))
			}
			m, err := codec.DecodeControl(f.Body())
			if err != nil {
				return err
			}
			switch m := m.(type) {
			case *codec.Hello:
				accepted = true
			case *codec.Goodbye:
				return goodbyeError{m}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// goodbyeError is the router's goodbye.
type goodbyeError struct{ *codec.Goodbye }

func (e goodbyeError) Error() string {
	return fmt.Sprintf("the router says goodbye: %v, %s", e.Reason, e.Text)
}

// hello of the load's nodes, all of them.
func hello() *codec.Hello {
	return &codec.Hello{
		Version: codec.ProtocolVersion, Role: codec.RoleNode, Kind: "load", Software: "load/0.1.0",
		KeepAlive: codec.KeepAliveMax, DeadAfter: codec.DeadAfterMax, BodyMax: codec.BodyMaxDefault,
	}
}

// say sends a link-control message.
func (c *nodeConn) say(m codec.Control) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sayLocked(m)
}

func (c *nodeConn) sayLocked(m codec.Control) error {
	body, err := codec.AppendControl(nil, m)
	if err != nil {
		return err
	}
	frame, err := c.who.frame(nil, c.router, codec.CategoryControl, body)
	if err != nil {
		return err
	}
	_, err = c.Write(frame)
	return err
}

// alive sends a keep-alive, which may ask for one.
func (c *nodeConn) alive(ask bool) error {
	c.mu.Lock() // what was received never goes back
	defer c.mu.Unlock()
	return c.sayLocked(&codec.KeepAlive{Received: c.received.Load(), Answer: ask})
}

// read reads once, and shows each frame that is complete then, borrowed.
func (c *nodeConn) read(each func(codec.Raw) error) error {
	n, err := c.Conn.Read(c.in)
	if err != nil {
		return err
	}
	c.rest = append(c.rest, c.in[:n]...)
	at := 0
	for {
		need, err := codec.Cut(c.rest[at:], codec.BodyMaxDefault)
		if err != nil {
			return err
		}
		if need > len(c.rest)-at {
			break
		}
		f := codec.Raw(c.rest[at : at+need])
		at += need
		if f.Category() != codec.CategoryControl {
			c.received.Add(1)
		}
		if err := each(f); err != nil {
			return err
		}
	}
	c.rest = c.rest[:copy(c.rest, c.rest[at:])]
	return nil
}

// hear takes a frame: it answers a keep-alive that asks, returns every
// keep-alive, fails with a goodbye, and leaves all others alone.
func (c *nodeConn) hear(f codec.Raw) (*codec.KeepAlive, error) {
	if f.Category() != codec.CategoryControl {
		return nil, nil
	}
	m, err := codec.DecodeControl(f.Body())
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *codec.KeepAlive:
		if m.Answer {
			err = c.alive(false)
		}
		return m, err
	case *codec.Goodbye:
		return nil, goodbyeError{m}
	}
	return nil, nil
}
