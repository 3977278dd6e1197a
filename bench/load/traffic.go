package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"causeway/codec"
)

// Legitimate traffic of the pressure scenarios: pairs of nodes, of which one
// sends to the other. Frames are due at a steady rate whatever becomes of
// earlier ones, and their times count from when they were due, so nothing that
// holds up the sender is left out.
const (
	trafficTick     = time.Millisecond // frames are due in steps of it
	trafficDistinct = 256              // differently signed frames of a pair, in turn
	trafficWindow   = 256              // frames of a pair under way when as many as can be are sent
	trafficBody     = 256              // bytes
	trafficBuffer   = 128 << 10        // of a sender's socket: what is sent and not read by the router is little
	aliveEvery      = 5 * time.Second  // between keep-alives of each end
	numberSize      = 4                // of a frame's number among the distinct ones, which begins its body
)

// trafficRequest has the pairs made of the nodes of the setup, each even one
// sending to the next, and connected.
type trafficRequest struct {
	Addr string
	PID  int // of the router
}

// roundRequest has frames sent for a while: so many a second by all pairs
// together, or as many as the router takes when PerSecond is 0.
type roundRequest struct {
	PerSecond float64
	Length    time.Duration
}

// roundAnswer is what became of a round. All that was sent has arrived, in order.
type roundAnswer struct {
	Due      uint64        // frames, within the length
	Arrived  uint64        // of them, within the length
	Late     time.Duration // after the end until the last arrived
	P50, P99 time.Duration
	Most     time.Duration
	Usage    usage
}

// end is one node's connection.
type end struct {
	*conn
	come     stream
	received uint64 // frames other than link control that came
	said     time.Time
}

// pair is a sender, its recipient, and the frames between them.
type pair struct {
	from, to *end
	frames   []byte // signed ahead, trafficDistinct of them
	rate     float64
	begun    uint64 // sent when the round began
	sent     uint64 // since the start
	arrived  uint64 // since the start
}

// traffic is all pairs. One goroutine drives it.
type traffic struct {
	pid, loadCore int
	router        codec.Address
	epoll, timer  int
	ends          []*end
	pairs         []*pair
	in            []byte
	events        []unix.EpollEvent
	signedAt      time.Time

	// of the round
	begin, now time.Time
	times      times
}

// connectTraffic makes the connections.
func (c *client) connectTraffic(r *trafficRequest) (err error) {
	t := &traffic{pid: r.PID, loadCore: c.setup.LoadCore, router: c.setup.Router, epoll: -1, timer: -1,
		in: make([]byte, inSize), events: make([]unix.EpollEvent, eventsMax)}
	c.traffic = t
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if t.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return err
	}
	for _, m := range c.members {
		conn, err := dial(r.Addr, "", m, c.roots)
		if err != nil {
			return err
		}
		t.ends = append(t.ends, &end{conn: conn})
		if err := unix.SetsockoptInt(conn.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, trafficBuffer); err != nil {
			return err
		}
		if err := conn.hello(c.setup.Router); err != nil {
			return err
		}
	}
	for i := 0; i+1 < len(t.ends); i += 2 {
		t.pairs = append(t.pairs, &pair{from: t.ends[i], to: t.ends[i+1]})
	}
	for i, e := range t.ends {
		e.come, e.buffer, e.said = stream{half: e.conn.in}, make([]byte, 0, outSize), time.Now()
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET | unix.EPOLLRDHUP, Fd: int32(i)}
		if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, e.fd, &event); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, t.timer, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: timerEvent})
}

// timerEvent is the timer's place among the ends.
const timerEvent = -1

func (t *traffic) close() {
	for _, e := range t.ends {
		e.conn.close()
	}
	for _, fd := range []int{t.epoll, t.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// sign makes the frames that pairs send, when those there are grow too old.
func (t *traffic) sign() (err error) {
	if time.Since(t.signedAt) < resignAfter {
		return nil
	}
	for _, p := range t.pairs {
		p.frames = p.frames[:0]
		body := make([]byte, trafficBody)
		for n := range trafficDistinct {
			binary.BigEndian.PutUint32(body, uint32(n))
			if p.frames, err = p.from.who.frame(p.frames, p.to.who.address, category, body); err != nil {
				return err
			}
		}
	}
	t.signedAt = time.Now()
	return nil
}

// round carries out a request.
func (t *traffic) round(r *roundRequest, a *roundAnswer) error {
	if err := t.sign(); err != nil {
		return err
	}
	t.times = times{}
	for _, p := range t.pairs {
		p.rate, p.begun = r.PerSecond/float64(len(t.pairs)), p.sent
	}
	tick := unix.NsecToTimespec(int64(trafficTick))
	before, err := readClocks([]int{t.pid}, t.loadCore)
	if err != nil {
		return err
	}
	if err := unix.TimerfdSettime(t.timer, 0, &unix.ItimerSpec{Interval: tick, Value: tick}, nil); err != nil {
		return fmt.Errorf("timerfd_settime: %w", err)
	}
	t.begin = time.Now()
	if err := t.run(t.begin.Add(r.Length)); err != nil {
		return err
	}
	after, err := readClocks([]int{t.pid}, t.loadCore)
	if err != nil {
		return err
	}
	sent, arrived := t.counts()
	a.Usage, a.Due, a.Arrived = after.since(before), sent, arrived
	if r.PerSecond > 0 {
		a.Due = 0
		for _, p := range t.pairs {
			a.Due += p.due(r.Length)
		}
	}
	if err := t.drain(); err != nil {
		return err
	}
	a.Late = max(0, t.now.Sub(after.at))
	a.P50, a.P99, a.Most = t.times.quantile(0.50), t.times.quantile(0.99), t.times.most
	return nil
}

// counts returns what was sent and what arrived in the round.
func (t *traffic) counts() (sent, arrived uint64) {
	for _, p := range t.pairs {
		sent += p.sent - p.begun
		arrived += p.arrived - p.begun
	}
	return sent, arrived
}

// run moves frames until then.
func (t *traffic) run(then time.Time) error {
	for t.now = time.Now(); t.now.Before(then); {
		for _, p := range t.pairs {
			if err := p.send(t.now.Sub(t.begin)); err != nil {
				return err
			}
		}
		if err := t.turnOnce(); err != nil {
			return err
		}
	}
	return nil
}

// drain waits until all that was sent has arrived; it fails when nothing more
// comes.
func (t *traffic) drain() error {
	last, since := uint64(0), t.now
	for {
		sent, arrived := t.counts()
		switch {
		case sent == arrived:
			return nil
		case arrived > last:
			last, since = arrived, t.now
		case t.now.Sub(since) > drainMax:
			return fmt.Errorf("%d of %d frames never arrived", sent-arrived, sent)
		}
		if err := t.turnOnce(); err != nil {
			return err
		}
	}
}

// due returns how many frames of the round are due after so long.
func (p *pair) due(passed time.Duration) uint64 {
	return uint64(passed.Truncate(trafficTick).Seconds() * p.rate)
}

// dueAt returns when, since the round's begin, its frame n (from 0) is due.
func (p *pair) dueAt(n uint64) time.Duration {
	ticks := math.Ceil(float64(n+1) / p.rate / trafficTick.Seconds())
	return time.Duration(ticks) * trafficTick
}

// send sends what is due, as far as the kernel takes it.
func (p *pair) send(passed time.Duration) error {
	until := p.arrived + trafficWindow
	if p.rate > 0 {
		until = p.begun + p.due(passed)
	}
	size := len(p.frames) / trafficDistinct
	for p.sent < until && !p.from.blocked {
		at := int(p.sent % trafficDistinct)
		n := min(int(until-p.sent), trafficDistinct-at, unitMax/size)
		c := p.from.conn
		c.pending = c.out.seal(c.buffer[:0], p.frames[at*size:(at+n)*size])
		p.sent += uint64(n)
		if err := c.flush(); err != nil {
			return fmt.Errorf("sender %v: %w", c.who.address, err)
		}
	}
	return nil
}

// turnOnce waits for something to happen and takes what has come.
func (t *traffic) turnOnce() error {
	if err := t.keepAlive(); err != nil {
		return err
	}
	n, err := unix.EpollWait(t.epoll, t.events, int(waitMax/time.Millisecond))
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	t.now = time.Now()
	for _, event := range t.events[:max(n, 0)] {
		if event.Fd == timerEvent {
			var ticks [8]byte
			_, _ = unix.Read(t.timer, ticks[:]) // so that it is quiet until the next
			continue
		}
		e := t.ends[event.Fd]
		err := error(nil)
		if e.blocked && event.Events&unix.EPOLLOUT != 0 {
			err = e.flush()
		}
		if err == nil && event.Events&^unix.EPOLLOUT != 0 {
			err = t.read(int(event.Fd))
		}
		if err != nil {
			return fmt.Errorf("node %v: %w", e.who.address, err)
		}
	}
	return nil
}

// read takes all that has come for an end.
func (t *traffic) read(i int) error {
	e := t.ends[i]
	for {
		n, err := unix.Read(e.fd, t.in)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		case err == unix.ECONNRESET: // with frames on the way to it
			return fmt.Errorf("the router closed its connection: %w", err)
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return fmt.Errorf("the router closed its connection: %w", io.ErrUnexpectedEOF)
		}
		if err := e.come.take(t.in[:n], func(f []byte) error { return t.frame(i, f) }); err != nil {
			return err
		}
		if n < len(t.in) {
			return nil
		}
	}
}

// frame takes one frame that has come for an end: link control, or the next of
// its pair.
func (t *traffic) frame(i int, f codec.Raw) error {
	e, p := t.ends[i], t.pairs[i/2]
	if f.Category() == codec.CategoryControl {
		return e.control(f, t.router)
	}
	e.received++
	if e != p.to || f.Category() != category || f.Sender() != p.from.who.address || f.Recipient() != e.who.address || len(f.Body()) < numberSize {
		return errors.New("a node of the load was told something: " + describe(f))
	}
	if got, want := binary.BigEndian.Uint32(f.Body()), uint32(p.arrived%trafficDistinct); got != want {
		return fmt.Errorf("frame %d came in the place of frame %d", got, want)
	}
	if p.rate > 0 {
		t.times.add(t.now.Sub(t.begin) - p.dueAt(p.arrived-p.begun))
	}
	p.arrived++
	return nil
}

// control takes a link-control frame.
func (e *end) control(f codec.Raw, router codec.Address) error {
	m, err := codec.DecodeControl(f.Body())
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *codec.KeepAlive:
		if m.Answer {
			return e.alive(router)
		}
	case *codec.Goodbye:
		return fmt.Errorf("the router says goodbye: %v, %s", m.Reason, m.Text)
	}
	return nil
}

// alive says how many frames have come.
func (e *end) alive(router codec.Address) error {
	body, err := codec.AppendControl(nil, &codec.KeepAlive{Received: e.received})
	if err != nil {
		return err
	}
	frame, err := e.who.frame(nil, router, codec.CategoryControl, body)
	if err != nil {
		return err
	}
	e.said = time.Now()
	if len(e.pending) == 0 {
		e.pending = e.buffer[:0]
	}
	e.pending = e.out.seal(e.pending, frame)
	return e.flush()
}

// keepAlive has every end say that it is there, from time to time.
func (t *traffic) keepAlive() error {
	for _, e := range t.ends {
		if t.now.Sub(e.said) > aliveEvery {
			if err := e.alive(t.router); err != nil {
				return err
			}
		}
	}
	return nil
}
