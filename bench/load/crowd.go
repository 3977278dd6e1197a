package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// A crowd is a process of clients that are not the load: attackers, nodes that
// do not keep up, or nodes that are new. It does one work at a time, until told
// to end it, and says at any time how far it is.
type crowd struct {
	client
	work work
}

// work is what a crowd does.
type work interface {
	status(*crowdStatus)
	end() // and wait
}

// crowdStatus is what the clients of a crowd have done so far.
type crowdStatus struct {
	Attack    raidStatus
	Stall     stallStatus
	Newcomers newcomersStatus
}

// serveCrowd is a crowd's process.
func serveCrowd(stdin io.Reader, stdout io.Writer) error {
	c := &crowd{}
	defer c.end()
	return answerAll(stdin, stdout, c.do)
}

func (c *crowd) do(r *request, a *answer) (err error) {
	switch {
	case r.Setup != nil:
		return c.prepare(*r.Setup)
	case r.Attack != nil:
		c.end()
		c.work, err = c.attack(r.Attack)
	case r.Stall != nil:
		c.end()
		c.work, err = c.stall(r.Stall)
	case r.Newcomers != nil:
		c.end()
		c.work = c.newcomers(r.Newcomers)
	case c.work == nil:
		return errors.New("the crowd does nothing")
	case r.Resume != nil:
		return c.resume()
	case r.Finish != nil:
		return c.finish()
	case r.Status != nil:
		c.work.status(&a.Crowd)
	case r.End != nil:
		c.work.status(&a.Crowd)
		c.end()
	default:
		return errors.New("a request that a crowd does not know")
	}
	return err
}

func (c *crowd) end() {
	if c.work != nil {
		c.work.end()
		c.work = nil
	}
}

// life is what the clients of a work have in common: they end together.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
}

func newLife() *life {
	l := &life{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *life) end() {
	l.cancel()
	l.all.Wait()
}

// dial connects a socket from the given address, with the options given. It is
// closed when the life ends, and by close.
func (l *life) dial(addr string, from net.IP, options ...socketOption) (c net.Conn, close func(), err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: dialTimeout}
	d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		ctlErr := raw.Control(func(fd uintptr) {
			for _, o := range options {
				err = errors.Join(err, syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, o.name, o.value))
			}
		})
		return errors.Join(err, ctlErr)
	}
	if c, err = d.DialContext(l.ctx, "tcp", addr); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(l.ctx, func() { c.Close() })
	return c, func() { stop(); c.Close() }, nil
}

// socketOption is one of SOL_SOCKET, set before the socket connects.
type socketOption struct{ name, value int }

// sleep waits; false when the life ends first.
func (l *life) sleep(d time.Duration) bool {
	if d <= 0 {
		return l.ctx.Err() == nil
	}
	return sleep(l.ctx, d) == nil
}

// pace lets those who share it act so many times a second, evenly.
type pace struct {
	life  *life
	every time.Duration

	mu   sync.Mutex
	next time.Time
}

func newPace(l *life, perSecond float64) *pace {
	return &pace{life: l, every: time.Duration(float64(time.Second) / perSecond)}
}

// wait waits for the caller's turn; false when the life ends first. Turns that
// nobody took are lost.
func (p *pace) wait() bool {
	p.mu.Lock()
	now := time.Now()
	at := p.next
	if at.Before(now) {
		at = now
	}
	p.next = at.Add(p.every)
	p.mu.Unlock()
	return p.life.sleep(at.Sub(now))
}

// source is the local address of client n of so many sources, in 127.NETWORK/16.
func source(network byte, n, sources int) net.IP {
	n %= max(sources, 1)
	return net.IPv4(127, network, byte(n>>8), byte(n))
}
