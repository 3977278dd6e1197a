package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
)

// Kinds of attacks. The first are of strangers, who have no certificate; the
// others of nodes of the domain, after their hello.
const (
	attackConnects      = "connects"       // connect and close
	attackHalfOpen      = "half-open"      // begin a handshake: half of them say nothing, half a good ClientHello and no more
	attackGarbage       = "garbage"        // connect and send what is no TLS
	attackIdle          = "idle"           // a hello and nothing more
	attackByteSenders   = "byte-senders"   // a byte of a frame a second, each in a record of its own
	attackHalfFrames    = "half-frames"    // the first half of a frame of 1 MiB, and nothing more
	attackBadSignatures = "bad-signatures" // frames with bad signatures
	attackBadFrames     = "bad-frames"     // bytes that are no frame
)

const (
	attackNetwork  = 1 // attackers have addresses in 127.1/16
	garbageSize    = 4 << 10
	halfFrameChunk = 16 << 10 // bytes of one action
	byteEvery      = time.Second
)

// raidRequest has attackers connect and do their worst, and connect again
// when they are closed.
type raidRequest struct {
	Kind      string
	Addr      string
	Attackers int
	Sources   int     // local addresses
	PerSecond float64 // connections of all attackers together, at most
	Actions   float64 // what they do on them, of all together a second, at most
}

// raidStatus is what attackers have done so far.
type raidStatus struct {
	Connected uint64 // sockets
	Joined    uint64 // of them nodes whose hello was answered
	Failed    uint64 // connections or hellos that failed
	Acted     uint64 // frames, chunks or bytes sent
	Open      int64  // now
	Last      string // why the last one failed
}

// raid is attackers at work.
type raid struct {
	*life
	*raidRequest
	crowd            *crowd
	connects, action *pace

	connected, joined, failed, acted atomic.Uint64
	open                             atomic.Int64
	last                             atomic.Pointer[string]
}

// raider is one of them.
type raider struct {
	*raid
	n int
}

// raids is what they do on a connection. It is closed when they return.
var raids = map[string]func(*raider, net.Conn) error{
	attackConnects:      func(*raider, net.Conn) error { return nil },
	attackHalfOpen:      (*raider).halfOpen,
	attackGarbage:       (*raider).garbage,
	attackIdle:          (*raider).idle,
	attackByteSenders:   (*raider).sendBytes,
	attackHalfFrames:    (*raider).sendHalf,
	attackBadSignatures: (*raider).sendBadSignatures,
	attackBadFrames:     (*raider).sendBadFrames,
}

func (c *crowd) attack(r *raidRequest) (work, error) {
	worst := raids[r.Kind]
	if worst == nil {
		return nil, fmt.Errorf("no attack %q", r.Kind)
	}
	a := &raid{life: newLife(), raidRequest: r, crowd: c}
	a.connects, a.action = newPace(a.life, r.PerSecond), newPace(a.life, max(r.Actions, 1))
	for n := range r.Attackers {
		one := &raider{raid: a, n: n}
		a.all.Go(func() {
			for a.connects.wait() {
				one.strike(worst)
			}
		})
	}
	return a, nil
}

// strike is one connection.
func (a *raider) strike(worst func(*raider, net.Conn) error) {
	c, release, err := a.dial(a.Addr, source(attackNetwork, a.n, a.Sources))
	if err == nil {
		a.connected.Add(1)
		a.open.Add(1)
		err = worst(a, c)
		a.open.Add(-1)
		release()
	}
	if err != nil && a.ctx.Err() == nil {
		a.failed.Add(1)
		text := err.Error()
		a.last.Store(&text)
	}
}

func (a *raid) status(s *crowdStatus) {
	s.Attack = raidStatus{Connected: a.connected.Load(), Joined: a.joined.Load(), Failed: a.failed.Load(), Acted: a.acted.Load(), Open: a.open.Load()}
	if last := a.last.Load(); last != nil {
		s.Attack.Last = *last
	}
}

// hold waits until the other end closes.
func hold(c net.Conn) error {
	b := make([]byte, 512)
	for {
		if _, err := c.Read(b); err != nil {
			return err
		}
	}
}

// join makes the attacker a node.
func (a *raider) join(c net.Conn) (*nodeConn, error) {
	n, err := join(a.ctx, c, a.crowd.members[a.n], a.crowd.roots, a.crowd.setup.Router)
	if err == nil {
		a.joined.Add(1)
	}
	return n, err
}

// halfOpen begins a handshake, or less.
func (a *raider) halfOpen(c net.Conn) error {
	if a.n%2 == 0 {
		return hold(c)
	}
	first, err := clientHelloOnce()
	if err != nil {
		return err
	}
	if _, err := c.Write(first); err != nil {
		return err
	}
	a.acted.Add(1)
	return hold(c)
}

// clientHelloOnce returns the first record of a handshake with a router.
var clientHelloOnce = sync.OnceValues(func() ([]byte, error) {
	far, near := net.Pipe()
	defer far.Close()
	failed := make(chan error, 1)
	go func() {
		defer near.Close()
		failed <- tls.Client(near, &tls.Config{ServerName: domainName, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}).Handshake()
	}()
	record := make([]byte, recordHeader)
	if _, err := io.ReadFull(far, record); err != nil {
		return nil, err
	}
	record = append(record, make([]byte, binary.BigEndian.Uint16(record[3:]))...)
	_, err := io.ReadFull(far, record[recordHeader:])
	far.Close()
	<-failed // for want of an answer
	return record, err
})

func (a *raider) garbage(c net.Conn) error {
	b := make([]byte, garbageSize)
	_, _ = rand.Read(b)
	if _, err := c.Write(b); err != nil {
		return err
	}
	a.acted.Add(1)
	return hold(c)
}

func (a *raider) idle(c net.Conn) error {
	n, err := a.join(c)
	if err != nil {
		return err
	}
	return hold(n)
}

func (a *raider) sendBytes(c net.Conn) error {
	n, err := a.join(c)
	if err != nil {
		return err
	}
	frame, err := n.who.frame(nil, n.who.address, category, make([]byte, trafficBody))
	if err != nil {
		return err
	}
	for i := 0; a.sleep(byteEvery); i++ {
		if _, err := n.Write(frame[i%len(frame) : i%len(frame)+1]); err != nil {
			return err
		}
		a.acted.Add(1)
	}
	return nil
}

func (a *raider) sendHalf(c net.Conn) error {
	n, err := a.join(c)
	if err != nil {
		return err
	}
	frame, err := n.who.frame(nil, n.who.address, category, make([]byte, codec.BodyMaxDefault))
	if err != nil {
		return err
	}
	for half := frame[:len(frame)/2]; len(half) > 0 && a.action.wait(); {
		chunk := half[:min(len(half), halfFrameChunk)]
		if _, err := n.Write(chunk); err != nil {
			return err
		}
		half = half[len(chunk):]
		a.acted.Add(1)
	}
	return hold(n)
}

func (a *raider) sendBadSignatures(c net.Conn) error {
	n, err := a.join(c)
	if err != nil {
		return err
	}
	frame, err := n.who.frame(nil, n.who.address, category, make([]byte, trafficBody))
	if err != nil {
		return err
	}
	frame[len(frame)-1] ^= 1
	for a.action.wait() {
		if _, err := n.Write(frame); err != nil {
			return err
		}
		a.acted.Add(1)
	}
	return nil
}

func (a *raider) sendBadFrames(c net.Conn) error {
	n, err := a.join(c)
	if err != nil {
		return err
	}
	b := make([]byte, garbageSize)
	for i := range b {
		b[i] = 0xff
	}
	if _, err := n.Write(b); err != nil {
		return err
	}
	a.acted.Add(1)
	return hold(n)
}
