package link

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	checkPatience = 5 * time.Second // for each step
	checkTurns    = 3               // turns in which a masked probe must stay silent
)

// probe is a connection to ourselves on which the self-check tries the tricks
// of gnet_linux.go.
type probe struct {
	socket   socket
	fd       int
	peer     int // descriptor of the other end
	traffic  atomic.Int64
	writable atomic.Bool
	closed   atomic.Bool
}

func (p *probe) opened(s socket, fd int) { p.socket, p.fd = s, fd }

// check tries, on loop l, what this package relies on.
func (e *Engine) check(l *Loop) (err error) {
	ours, peer, err := socketPair()
	if err != nil {
		return err
	}
	defer unix.Close(peer)
	p := &probe{peer: peer}
	e.probe = p
	step := ""
	defer func() {
		if err != nil {
			err = fmt.Errorf("link: gnet does not do what this build relies on (made for gnet v2.10.0): loop %d: %s: %w", l.index, step, err)
		}
	}()

	step = "waking a loop"
	if err = l.call(func() error { return nil }); err != nil {
		return err
	}
	step = "reading an enrolled socket"
	if err = l.port.enrollProbe(p, ours); err != nil {
		return err
	}
	if err = p.send(1); err != nil {
		return err
	}
	step = "pausing a socket"
	if err = l.call(func() error { return l.port.pauseReading(p.fd) }); err != nil {
		return err
	}
	if _, err = unix.Write(peer, oneByte); err != nil {
		return os.NewSyscallError("write", err)
	}
	for range checkTurns {
		if err = l.call(func() error { return nil }); err != nil {
			return err
		}
	}
	if n := p.traffic.Load(); n != 1 {
		return fmt.Errorf("%d reads of it while it was masked", n-1)
	}
	step = "resuming a socket"
	if err = l.call(func() error { return l.port.resumeReading(p.fd) }); err != nil {
		return err
	}
	if err = until(func() bool { return p.traffic.Load() == 2 }); err != nil {
		return err
	}
	step = "noticing that a socket is writable again"
	if err = e.checkWritable(l, p); err != nil {
		return err
	}
	step = "closing a socket"
	if err = l.call(func() error { l.port.hangUp(p.socket); return nil }); err != nil {
		return err
	}
	return until(p.closed.Load)
}

// send writes a byte to the probe and waits until it has been read want times.
func (p *probe) send(want int64) error {
	if _, err := unix.Write(p.peer, oneByte); err != nil {
		return os.NewSyscallError("write", err)
	}
	return until(func() bool { return p.traffic.Load() == want })
}

// checkWritable fills the probe's socket, then empties it from the other end.
func (e *Engine) checkWritable(l *Loop, p *probe) error {
	block := make([]byte, readBytesMax)
	err := l.call(func() error {
		for {
			if _, err := unix.Write(p.fd, block); err == unix.EAGAIN {
				break
			} else if err != nil {
				return os.NewSyscallError("write", err)
			}
		}
		return l.port.watch(p.fd, keyProbe, 0)
	})
	if err != nil {
		return err
	}
	if err := l.call(func() error { return nil }); err != nil {
		return err
	}
	if p.writable.Load() {
		return fmt.Errorf("a full socket was called writable")
	}
	for {
		if _, err := unix.Read(p.peer, block); err == unix.EAGAIN {
			break
		} else if err != nil {
			return os.NewSyscallError("read", err)
		}
	}
	if err := until(p.writable.Load); err != nil {
		return err
	}
	return l.call(func() error { l.port.unwatch(p.fd); return nil })
}

// call runs fn on the loop and waits for its result.
func (l *Loop) call(fn func() error) error {
	result := make(chan error, 1)
	l.Post(func() { result <- fn() })
	timer := time.NewTimer(checkPatience)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return fmt.Errorf("no turn within %v", checkPatience)
	}
}

// until waits for a condition that the loop makes true.
func until(cond func() bool) error {
	for deadline := time.Now().Add(checkPatience); !cond(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing within %v", checkPatience)
		}
		time.Sleep(50 * time.Microsecond)
	}
	return nil
}
