package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// What attackers send.
const (
	worstSilent = "silent" // nothing
	worstRecord = "record" // the beginning of a record
	worstHello  = "hello"  // a good ClientHello, and nothing after it
)

var worsts = []string{worstSilent, worstRecord, worstHello}

// attackRequest is what the attackers' process is told.
type attackRequest struct {
	Addr               string
	Attackers, Sources int
	Worst              string
	Hold, Pause        time.Duration
}

// When attackers have something to do is kept by steps of time, in a ring.
const (
	wheelStep  = 10 * time.Millisecond
	wheelSteps = 1024
	wheelSpan  = wheelStep * wheelSteps
)

// assault is all attackers, in one thread. Attacker i has one connection at
// most; the next one begins Pause after the last one began, or when that has
// ended.
type assault struct {
	attackRequest
	to      unix.SockaddrInet4
	payload []byte
	epoll   int
	all     []attacker
	wheel   [wheelSteps][]int32 // attackers by the time of what they do next
	at      int64               // steps since start that are done
	start   time.Time
}

type attacker struct {
	fd    int // -1: not connected
	since int64
	round int32 // of the connection, so that a timer of an earlier one is known
	due   int32 // round for which the timer in the wheel is
}

// serveAttackers is the attackers' process. It reads what to do, and does it
// until there is no more to read, or it is killed.
func serveAttackers(stdin io.Reader) error {
	var a assault
	input := json.NewDecoder(stdin)
	if err := input.Decode(&a.attackRequest); err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		close(ended)
	}()
	if err := a.prepare(); err != nil {
		return err
	}
	for {
		select {
		case <-ended:
			return nil
		default:
		}
		if err := a.turn(); err != nil {
			return err
		}
	}
}

func (a *assault) prepare() (err error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil || !to.Addr().Is4() {
		return fmt.Errorf("%q is no IPv4 address and port: %v", a.Addr, err)
	}
	a.to = unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	if a.payload, err = payload(a.Worst); err != nil {
		return err
	}
	if a.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	a.start = time.Now()
	a.all = make([]attacker, a.Attackers)
	for i := range a.all {
		a.all[i].fd = -1
		a.later(i, int64(a.Pause/wheelStep)*int64(i)/int64(len(a.all))) // they begin evenly
	}
	return nil
}

// payload returns what each attacker sends.
func payload(worst string) ([]byte, error) {
	hello, err := clientHello()
	switch worst {
	case worstSilent:
		return nil, err
	case worstRecord:
		return hello[:len(hello)/2], err
	}
	return hello, err
}

// clientHello returns the first record of a handshake with the router.
func clientHello() ([]byte, error) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer ours.Close()
		_ = tls.Client(ours, &tls.Config{ServerName: domainName, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13}).HandshakeContext(ctx)
	}()
	defer func() { cancel(); <-ended }()
	record := make([]byte, recordWireMax)
	n, err := theirs.Read(record) // a pipe gives what was written at once
	return record[:n], err
}

// later wakes attacker i after so many steps.
func (a *assault) later(i int, steps int64) {
	at := (a.at + max(1, min(steps, wheelSteps-1))) % wheelSteps
	a.wheel[at] = append(a.wheel[at], int32(i))
	a.all[i].due = a.all[i].round
}

// turn does what is due, and takes what has happened.
func (a *assault) turn() error {
	for now := int64(time.Since(a.start) / wheelStep); a.at < now; {
		a.at++
		due := a.wheel[a.at%wheelSteps]
		a.wheel[a.at%wheelSteps] = nil
		for _, i := range due {
			if err := a.act(int(i)); err != nil {
				return err
			}
		}
	}
	var events [256]unix.EpollEvent
	n, err := unix.EpollWait(a.epoll, events[:], int(wheelStep.Milliseconds()))
	if err != nil && err != unix.EINTR {
		return err
	}
	for _, e := range events[:max(n, 0)] {
		a.event(int(e.Fd), e.Events)
	}
	return nil
}

// act connects an attacker that is not connected, and ends one whose time is
// over.
func (a *assault) act(i int) error {
	k := &a.all[i]
	if k.fd >= 0 {
		if k.due == k.round {
			a.close(i)
		}
		return nil
	}
	k.round++
	k.since = a.at
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	k.fd = fd
	source := i % a.Sources
	from := unix.SockaddrInet4{Addr: [4]byte{127, byte(1 + source>>16), byte(source >> 8), byte(source)}}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(fd, &from),
		unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(i)}),
	)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &a.to); err != nil && err != unix.EINPROGRESS {
		a.close(i)
		return nil
	}
	if a.Hold > 0 {
		a.later(i, int64(a.Hold/wheelStep))
	}
	return nil
}

// event takes what epoll says of an attacker's connection.
func (a *assault) event(i int, what uint32) {
	k := &a.all[i]
	if k.fd < 0 {
		return
	}
	if what&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0 {
		a.close(i)
		return
	}
	if what&unix.EPOLLOUT != 0 && what&unix.EPOLLIN == 0 && len(a.payload) > 0 {
		_, _ = unix.Write(k.fd, a.payload) // a new connection takes it whole, or has ended
	}
}

// close ends an attacker's connection; it comes again when its pause is over.
func (a *assault) close(i int) {
	k := &a.all[i]
	_ = unix.Close(k.fd)
	k.fd = -1
	k.round++
	a.later(i, int64(a.Pause/wheelStep)-(a.at-k.since))
}
