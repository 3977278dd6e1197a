package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"causeway/codec"
)

const (
	inSize      = 256 << 10 // bytes asked of one read
	eventsMax   = 512
	waitMax     = 10 * time.Millisecond // longest sleep in a slice
	drainMax    = 30 * time.Second      // longest wait for what is under way
	windowLeast = 2 << 20               // bytes under way; room for a unit of each sender if that is more
	verifyMax   = 4096                  // frames under way when each costs a verification
	receiverMax = 1 << 20               // bytes under way to a receiver, on average; a quarter of its queue in the router
)

// flow is the connections of one variant and what moves on them. One goroutine
// drives it.
type flow struct {
	// fixed after start
	variant   string
	under     []int // PIDs of the processes under test
	epoll     int
	conns     []*conn // senders, then receivers
	senders   []*conn
	receivers []*conn // those of the senders themselves with echo
	members   map[codec.Address]*member
	loadCore  int
	asked     int // window asked for; 0: as saturates

	// fixed while anything is under way
	frame    int // size of a frame, or of another server's message as it is sent, bytes
	burst    int // size of a burst, bytes, which a sender sends before it is another's turn; 0: of one unit
	unit     int // bytes of a write, at most, but for one larger frame
	window   int // bytes under way, at most
	underWay int // messages under way to one receiver, at most; 0: window is all

	sent, received uint64 // bytes of frames, since the start
	frames         uint64 // sent, since the start
	again          uint64 // received, when senders are asked again; with a bound of messages
	turn           int    // sender whose turn it is
	in             []byte
	events         []unix.EpollEvent
}

func newFlow(variant string, under []int, loadCore, window int) (*flow, error) {
	f := &flow{variant: variant, under: under, loadCore: loadCore, asked: window, members: make(map[codec.Address]*member),
		in: make([]byte, inSize), events: make([]unix.EpollEvent, eventsMax)}
	var err error
	f.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return f, err
}

// add takes c, and watches it.
func (f *flow) add(c *conn, sends, receives bool) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET | unix.EPOLLRDHUP, Fd: int32(len(f.conns))}
	if err := unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, c.fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	c.got = tally{seq: c.in.seq}
	f.conns = append(f.conns, c)
	if sends {
		c.buffer = make([]byte, 0, outSize)
		f.senders = append(f.senders, c)
		f.members[c.who.address] = c.who
	}
	c.expects = receives
	if receives {
		f.receivers = append(f.receivers, c)
	}
	return nil
}

func (f *flow) close() {
	for _, c := range f.conns {
		c.close()
	}
	unix.Close(f.epoll)
}

// size sets what moves from now on. Nothing may be under way.
func (f *flow) size(body int) error {
	if f.sent != f.received {
		return errUnderWay
	}
	f.frame, f.burst = frameSize(body), 0
	switch {
	case isPeer(f.variant):
		f.frame = f.prepare(body)
	case f.variant == variantBursts:
		f.frame = burstFrameSize(body)
		f.burst = burstFrames * f.frame
	}
	f.window = f.asked
	if f.window == 0 {
		f.window = min(max(windowLeast, unitMax*len(f.senders)), receiverMax*len(f.receivers))
	}
	share := f.window / len(f.senders)
	if checks(f.variant) {
		f.window = min(f.window, verifyMax*f.frame)
		share = max(f.window/len(f.senders), burstFrames*f.frame) // so little is under way that not all senders have their part
	}
	f.unit = min(unitMax, share)
	if f.burst > 0 {
		f.unit = max(unitMax/f.burst*f.burst, min(unitMax, f.burst)) // whole bursts, or a part of one
	}
	for _, c := range f.conns {
		c.got.plain, c.next = 0, 0
		switch {
		case c.peer != nil:
			c.source = c.peer.messages
		case f.burst > 0:
			c.source = c.who.bursts
		default:
			c.source = c.who.frames
		}
	}
	return f.pace(body)
}

var errUnderWay = errors.New("there are frames under way")

// run moves frames until the time given.
func (f *flow) run(until time.Time) error {
	for {
		now := time.Now()
		if !now.Before(until) {
			return nil
		}
		if err := f.send(); err != nil {
			return err
		}
		if err := f.turnOnce(min(until.Sub(now), waitMax)); err != nil {
			return err
		}
	}
}

// drain waits until everything sent has arrived.
func (f *flow) drain() error {
	for end := time.Now().Add(drainMax); f.received != f.sent; {
		if time.Now().After(end) {
			return fmt.Errorf("%s: %d of %d bytes of frames never arrived", f.variant, f.sent-f.received, f.sent)
		}
		if err := f.turnOnce(waitMax); err != nil {
			return err
		}
		if f.received > f.sent {
			return fmt.Errorf("%s: %d bytes more arrived than were sent", f.variant, f.received-f.sent)
		}
	}
	return nil
}

// send writes units, sender by sender, until the window is full or nobody can
// write.
func (f *flow) send() error {
	for idle := 0; idle < len(f.senders); {
		if f.sent-f.received+uint64(max(f.unit, f.frame)) > uint64(f.window) && f.sent != f.received || f.waits() {
			return nil
		}
		c := f.senders[f.turn]
		if c.blocked || !f.fits(c) {
			f.turn = (f.turn + 1) % len(f.senders)
			if idle++; idle == len(f.senders) {
				f.again = f.received + uint64(f.unit)
			}
			continue
		}
		idle = 0
		unit := c.unit(f.unit, f.frame, f.burst)
		if f.burst == 0 || c.next%f.burst == 0 {
			f.turn = (f.turn + 1) % len(f.senders)
		}
		if err := f.sendUnit(c, unit); err != nil {
			return err
		}
	}
	return nil
}

// sendUnit seals and writes whole frames.
func (f *flow) sendUnit(c *conn, frames []byte) error {
	c.pending = c.out.seal(c.buffer[:0], frames)
	f.sent += uint64(len(frames))
	f.frames += uint64(len(frames) / f.frame)
	return c.flush()
}

// flush writes what is pending.
func (c *conn) flush() error {
	for len(c.pending) > 0 {
		n, err := unix.Write(c.fd, c.pending)
		if err == unix.EAGAIN {
			c.blocked = true
			return nil
		}
		if err != nil && err != unix.EINTR {
			return writeError(err)
		}
		c.pending = c.pending[max(n, 0):]
	}
	c.blocked = false
	return nil
}

// writeError says what a failed write means.
func writeError(err error) error {
	if err == unix.EPIPE || err == unix.ECONNRESET {
		return fmt.Errorf("the router closed its connection: %w", err)
	}
	return fmt.Errorf("write: %w", err)
}

// turnOnce waits for sockets, for as long as given at most, and does what they
// are ready for.
func (f *flow) turnOnce(wait time.Duration) error {
	n, err := unix.EpollWait(f.epoll, f.events, int((wait+time.Millisecond-1)/time.Millisecond))
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	for _, e := range f.events[:max(n, 0)] {
		c := f.conns[e.Fd]
		if c.blocked && e.Events&unix.EPOLLOUT != 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if e.Events&^unix.EPOLLOUT != 0 {
			if err := f.read(c); err != nil {
				return fmt.Errorf("%s: %w", f.variant, err)
			}
		}
	}
	return nil
}

// read takes all that has come on c. A short read says that there was no more,
// and an event comes with what follows (epoll(7) on edge-triggered streams).
func (f *flow) read(c *conn) error {
	for {
		n, err := unix.Read(c.fd, f.in)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return fmt.Errorf("the process under test closed a connection: %w", io.ErrUnexpectedEOF)
		}
		before := c.got.plain
		if err := f.count(c, f.in[:n]); err != nil {
			return err
		}
		f.received += c.got.plain - before
		if n < len(f.in) {
			return nil
		}
	}
}

// count adds to c.got what of b is frames.
func (f *flow) count(c *conn, b []byte) error {
	switch {
	case c.peer != nil:
		return f.hear(c, b)
	case c.checked:
		return c.got.take(b, nil)
	}
	return c.got.take(b, func(record []byte) error { return f.check(c, record) })
}
