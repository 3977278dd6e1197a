package link

// What this package does instead of, or behind the back of, gnet v2.10.0. All
// of it is in this file; check_linux.go tries each piece at every start.
//
//   - gnet runs as a client engine without listeners: its loops, nothing else.
//   - A control connection per loop (one end of a socket pair) gives the loop's
//     handle and a place on its thread: there the thread is pinned and gnet's
//     epoll descriptor found (the one on which EPOLL_CTL_MOD of that connection
//     succeeds).
//   - A second epoll, W, is put into gnet's epoll under the control connection's
//     descriptor, whose own readiness is masked. It holds an eventfd (wakes), a
//     timerfd (ticks) and every socket that could not be written. When one of
//     them is ready gnet believes that the control connection is readable. It
//     reads before it calls OnTraffic, so that connection always holds a byte.
//   - Reading pauses by masking a socket's events in gnet's epoll. Never
//     EPOLL_CTL_DEL: gnet's own Delete at closing would then fail.
//
// gnet's Write, Wake, Execute, Close(callback) and Stop are not used while
// connections live: they queue without bound, starve sockets or lose bytes.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// readBytesMax is what gnet reads from one socket in one turn, in bytes: the
// share of a connection that sends without end; of a link linkReadsMax of these.
const readBytesMax = 64 << 10

// linkReadsMax is how often a link is read in one turn, at most, while each read
// finds as much as it can take.
const linkReadsMax = 4

// socket is gnet's end of an enrolled connection.
type socket = gnet.Conn

// Keys in W that are not slots of connections.
const (
	keyEvent = -1 // wake
	keyTimer = -2 // tick
	keyProbe = -3 // self-check
)

// maskedEvents leaves only EPOLLERR and EPOLLHUP, which cannot be masked.
const (
	maskedEvents  = 0
	readingEvents = unix.EPOLLIN | unix.EPOLLPRI
	writingEvents = unix.EPOLLOUT | unix.EPOLLET&0xffffffff
	edgeEvents    = unix.EPOLLIN | unix.EPOLLET&0xffffffff
)

// port is one loop's access to its gnet loop.
type port struct {
	// fixed after start
	gnet    gnet.EventLoop
	control socket
	peer    int // descriptor of the control connection's other end
	epoll   int // gnet's own; not ours to close
	wait    int // W
	event   int // eventfd in W
	timer   int // timerfd in W
	cpu     int // core, -1 = not pinned
	tick    time.Duration
	turn    func()
	openErr error
	unpin   unix.CPUSet // the thread's set before it was pinned

	// home loop
	ev     unix.EpollEvent
	events [64]unix.EpollEvent
	word   [8]byte

	// any goroutine
	armed  atomic.Bool  // a wake is on its way, or a turn under way will see what was sent
	wakers atomic.Int32 // goroutines inside wake
	closed atomic.Bool
}

var (
	oneByte  = []byte{1}
	wakeWord = []byte{1, 0, 0, 0, 0, 0, 0, 0} // what an eventfd is written, in either byte order not 0
)

// newPort returns a port that startGnet opens. turn is called on the loop
// whenever the port was woken and every tick; it must call collect.
func newPort(cpu int, tick time.Duration, turn func()) *port {
	return &port{peer: -1, epoll: -1, wait: -1, event: -1, timer: -1, cpu: cpu, tick: tick, turn: turn}
}

// startGnet starts gnet with one loop per port and opens them.
func startGnet(ports []*port, log *slog.Logger) (*gnet.Client, error) {
	client, err := gnet.NewClient(&events{},
		gnet.WithNumEventLoop(len(ports)), gnet.WithLockOSThread(true),
		gnet.WithReadBufferCap(readBytesMax), gnet.WithLogger(gnetLog{log}))
	if err != nil {
		return nil, fmt.Errorf("link: gnet: %w", err)
	}
	if err := client.Start(); err != nil {
		return nil, fmt.Errorf("link: start of gnet's loops: %w", err)
	}
	loops := make(map[gnet.EventLoop]bool)
	for _, p := range ports {
		// gnet gives a new connection to the loop that has the fewest, so each
		// control connection gets a loop of its own.
		if err := p.open(client); err != nil {
			stopGnet(client, ports)
			return nil, err
		}
		loops[p.gnet] = true
	}
	if len(loops) != len(ports) {
		stopGnet(client, ports)
		return nil, fmt.Errorf("link: gnet put %d control connections on %d loops", len(ports), len(loops))
	}
	return client, nil
}

// stopGnet ends the loops; their connections must be closed before.
func stopGnet(client *gnet.Client, ports []*port) {
	_ = client.Stop()
	for _, p := range ports {
		p.close()
	}
}

// open enrolls the control connection, whose OnOpen sets the port up.
func (p *port) open(client *gnet.Client) error {
	ours, peer, err := socketPair()
	if err != nil {
		return err
	}
	p.peer = peer
	if p.control, err = client.EnrollContext(ours, p); err != nil {
		return fmt.Errorf("link: enrolling a control connection: %w", err)
	}
	if p.openErr == nil && p.gnet == nil {
		return errors.New("link: gnet did not open the control connection")
	}
	return p.openErr
}

// socketPair returns a connected pair: a net.Conn to enroll, a descriptor.
func socketPair() (*net.UnixConn, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("link: %w", os.NewSyscallError("socketpair", err))
	}
	f := os.NewFile(uintptr(fds[0]), "control")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		unix.Close(fds[1])
		return nil, -1, fmt.Errorf("link: control connection: %w", err)
	}
	return c.(*net.UnixConn), fds[1], nil
}

// adopt runs in the control connection's OnOpen, on the loop's thread.
func (p *port) adopt(c socket) error {
	if p.cpu >= 0 {
		if err := p.pin(); err != nil {
			return err
		}
	}
	var err error
	if p.epoll, err = findEpoll(c.Fd()); err != nil {
		return err
	}
	if _, err = unix.Write(p.peer, oneByte); err != nil {
		return fmt.Errorf("link: control connection: %w", os.NewSyscallError("write", err))
	}
	if p.wait, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("link: %w", os.NewSyscallError("epoll_create1", err))
	}
	if p.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("link: %w", os.NewSyscallError("eventfd", err))
	}
	if err = p.ctl(p.wait, unix.EPOLL_CTL_ADD, p.event, edgeEvents, keyEvent, 0); err != nil {
		return fmt.Errorf("link: eventfd: %w", err)
	}
	if err = p.ctl(p.epoll, unix.EPOLL_CTL_ADD, p.wait, unix.EPOLLIN, int32(c.Fd()), 0); err != nil {
		return fmt.Errorf("link: an epoll in gnet's epoll: %w", err)
	}
	if err = p.startTimer(); err != nil {
		return err
	}
	p.gnet = c.EventLoop()
	return nil
}

// pin binds the calling thread to p.cpu and remembers what it was bound to.
func (p *port) pin() error {
	if err := unix.SchedGetaffinity(0, &p.unpin); err != nil {
		return fmt.Errorf("link: %w", os.NewSyscallError("sched_getaffinity", err))
	}
	var set unix.CPUSet
	set.Set(p.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		p.unpin = unix.CPUSet{}
		return fmt.Errorf("link: pinning a loop to core %d: %w (is it among the cores of `taskset -p %d`?)",
			p.cpu, os.NewSyscallError("sched_setaffinity", err), os.Getpid())
	}
	return nil
}

// findEpoll returns the epoll descriptor of this process that has fd, whose
// events it masks.
func findEpoll(fd int) (int, error) {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1, fmt.Errorf("link: looking for gnet's epoll descriptor: %w (is /proc mounted?)", err)
	}
	for _, name := range names {
		n, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + name.Name()); err != nil || to != "anon_inode:[eventpoll]" {
			continue
		}
		ev := unix.EpollEvent{Events: maskedEvents, Fd: int32(fd)}
		if unix.EpollCtl(n, unix.EPOLL_CTL_MOD, fd, &ev) == nil {
			return n, nil
		}
	}
	return -1, errors.New("link: no epoll descriptor of this process has gnet's control connection")
}

// startTimer makes the loop turn once per tick.
func (p *port) startTimer() (err error) {
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("link: %w", os.NewSyscallError("timerfd_create", err))
	}
	every := unix.NsecToTimespec(int64(p.tick))
	if err = unix.TimerfdSettime(p.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return fmt.Errorf("link: %w", os.NewSyscallError("timerfd_settime", err))
	}
	if err = p.ctl(p.wait, unix.EPOLL_CTL_ADD, p.timer, edgeEvents, keyTimer, 0); err != nil {
		return fmt.Errorf("link: timerfd: %w", err)
	}
	return nil
}

// close gives back what the port holds. Its gnet loop must have ended.
func (p *port) close() {
	p.closed.Store(true)
	for p.wakers.Load() != 0 {
		runtime.Gosched() // a waker is between its check and its write: one system call
	}
	for _, fd := range []int{p.peer, p.wait, p.event, p.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// wake makes the loop turn soon. Any goroutine; at most one system call, none
// when a wake is already on its way.
func (p *port) wake() (wrote bool) {
	if p.armed.Load() {
		return false
	}
	p.wakers.Add(1)
	if !p.closed.Load() && !p.armed.Swap(true) {
		// Edge-triggered: nobody reads the counter, and 2^64 wakes do not happen.
		_, _ = unix.Write(p.event, wakeWord)
		wrote = true
	}
	p.wakers.Add(-1)
	return wrote
}

// collect begins a turn: it puts the control connection's byte back, returns
// what is ready in W (borrowed until the next call), and disarms. Everything
// that was sent to the loop before a wake that found the port armed is visible
// to the caller afterwards: W is read first, then the flag cleared, then the
// caller takes its inbox. In another order a wake is lost.
func (p *port) collect() []unix.EpollEvent {
	if _, err := unix.Write(p.peer, oneByte); err != nil {
		panic("link: the control connection does not take its byte back: " + err.Error())
	}
	n, err := unix.EpollWait(p.wait, p.events[:], 0)
	if err != nil && err != unix.EINTR {
		panic("link: epoll_wait on W: " + err.Error())
	}
	p.armed.Store(false)
	return p.events[:max(n, 0)]
}

// readTimer re-arms the timer after its event.
func (p *port) readTimer() { _, _ = unix.Read(p.timer, p.word[:]) }

// pauseReading stops gnet from reading fd; resumeReading lets it go on.
func (p *port) pauseReading(fd int) error {
	return p.ctl(p.epoll, unix.EPOLL_CTL_MOD, fd, maskedEvents, int32(fd), 0)
}

func (p *port) resumeReading(fd int) error {
	return p.ctl(p.epoll, unix.EPOLL_CTL_MOD, fd, readingEvents, int32(fd), 0)
}

// watch reports, from now on, every time that fd becomes writable again, under
// the given key, including now when it is writable.
func (p *port) watch(fd int, key int32, generation uint32) error {
	return p.ctl(p.wait, unix.EPOLL_CTL_ADD, fd, writingEvents, key, int32(generation))
}

// unwatch ends watch. Closing fd would not do: a duplicate may live on.
func (p *port) unwatch(fd int) {
	_ = unix.EpollCtl(p.wait, unix.EPOLL_CTL_DEL, fd, nil)
}

// ctl is epoll_ctl, on the home loop.
func (p *port) ctl(epoll, op, fd int, what uint32, key, more int32) error {
	p.ev = unix.EpollEvent{Events: what, Fd: key, Pad: more}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, op, fd, &p.ev))
}

// hangUp closes s at once, on its loop; OnClose is called before it returns.
func (p *port) hangUp(s socket) { _ = p.gnet.Close(s) }

// States of an enrolment.
const (
	enrollPending = iota
	enrollOpened
	enrollAbandoned
)

// enroll puts c, whose socket is tcp, on the port's loop. It takes tcp. It may
// not be called on a loop.
func (p *port) enroll(c *Conn, tcp *net.TCPConn, patience time.Duration) error {
	// gnet gives the memory of an address' zone to its byte pool.
	for _, a := range []net.Addr{tcp.LocalAddr(), tcp.RemoteAddr()} {
		if a, ok := a.(*net.TCPAddr); ok {
			a.Zone = ""
		}
	}
	result, err := p.gnet.Enroll(gnet.NewContext(context.Background(), c), tcp)
	if err != nil {
		tcp.Close()
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-result:
		err = r.Err
		<-result // closed when gnet has closed tcp, of which it has a duplicate
	case <-timer.C:
		err = context.DeadlineExceeded
	}
	if !c.enrolled.CompareAndSwap(enrollPending, enrollAbandoned) && c.enrolled.Load() == enrollOpened {
		return nil
	}
	if err == nil {
		err = errors.New("epoll took no more connections") // gnet reports success all the same
	}
	return err
}

// enrollProbe puts the self-check's probe on the port's loop; it takes conn.
func (p *port) enrollProbe(c *probe, conn net.Conn) error {
	result, err := p.gnet.Enroll(gnet.NewContext(context.Background(), c), conn)
	if err != nil {
		conn.Close()
		return err
	}
	timer := time.NewTimer(checkPatience)
	defer timer.Stop()
	select {
	case r := <-result:
		return r.Err
	case <-timer.C:
		return context.DeadlineExceeded
	}
}

// events is gnet's view of this package.
type events struct{ gnet.BuiltinEventEngine }

// OnOpen runs on the loop that s was enrolled on.
func (h *events) OnOpen(s gnet.Conn) ([]byte, gnet.Action) {
	switch c := s.Context().(type) {
	case *Conn:
		if !c.loop.opened(c, s, s.Fd()) {
			return nil, gnet.Close
		}
	case *port:
		c.openErr = c.adopt(s)
	case *probe:
		c.opened(s, s.Fd())
	}
	return nil, gnet.None
}

// OnTraffic runs when gnet has read from s. What it read is borrowed.
func (h *events) OnTraffic(s gnet.Conn) gnet.Action {
	data, _ := s.Next(-1)
	switch c := s.Context().(type) {
	case *Conn:
		c.received(data)
		if c.isLink && len(data) == readBytesMax {
			c.readMore(data)
		}
	case *port:
		c.turn()
	case *probe:
		c.traffic.Add(1)
	}
	return gnet.None
}

// readMore reads on from a link, into p. What a link brings in a turn goes to many
// recipients, and each costs a write, whether it gets one frame or many: from a
// link that is read once a turn each of 200 gets one or two.
func (c *Conn) readMore(p []byte) {
	for reads := 1; reads < linkReadsMax && c.phase == phaseOpen && !c.Paused() && !c.holds(); {
		n, err := unix.Read(c.fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN || n == 0: // gnet will see the end, too
			return
		case err != nil:
			c.die(os.NewSyscallError("read", err))
			return
		}
		c.received(p[:n])
		if n < len(p) {
			return
		}
		reads++
	}
}

// OnClose runs before gnet closes the descriptor of s.
func (h *events) OnClose(s gnet.Conn, err error) gnet.Action {
	switch c := s.Context().(type) {
	case *Conn:
		c.loop.hungUp(c, err)
	case *port:
		if c.cpu >= 0 && c.unpin.Count() > 0 {
			_ = unix.SchedSetaffinity(0, &c.unpin) // the thread goes back to Go's pool
		}
	case *probe:
		c.closed.Store(true)
	}
	return gnet.None
}

// gnetLog carries gnet's messages to a slog.Logger.
type gnetLog struct{ log *slog.Logger }

func (g gnetLog) Debugf(format string, args ...any) { g.logf(slog.LevelDebug, format, args) }
func (g gnetLog) Infof(format string, args ...any)  { g.logf(slog.LevelDebug, format, args) }
func (g gnetLog) Errorf(format string, args ...any) { g.logf(slog.LevelError, format, args) }
func (g gnetLog) Fatalf(format string, args ...any) { g.logf(slog.LevelError, format, args) }

func (g gnetLog) Warnf(format string, args ...any) {
	level := slog.LevelWarn
	if strings.Contains(format, "stale connection") {
		level = slog.LevelDebug // closed by a turn between epoll_wait and its event: no fault
	}
	g.logf(level, format, args)
}

func (g gnetLog) logf(level slog.Level, format string, args []any) {
	if g.log.Enabled(context.Background(), level) {
		g.log.Log(context.Background(), level, "gnet: "+fmt.Sprintf(format, args...))
	}
}
