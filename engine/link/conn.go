package link

import (
	"crypto/tls"
	"net/netip"
	"sync/atomic"
	"time"

	"causeway/engine/buf"
)

// Conn is one connection.
type Conn struct {
	// State is the handler's. Handshaken may set it; from Opened on it belongs
	// to the home loop.
	State any

	// fixed before Opened
	loop     *Loop
	slot     *slot
	tls      *tls.Conn
	remote   netip.AddrPort
	local    netip.AddrPort
	dialed   bool
	autotune bool // see AutotuneReceive
	tag      any
	pass     Pass         // nil: none was asked for
	enrolled atomic.Int32 // enrollPending …

	// home loop: life
	phase     int8
	dirty     bool // in Loop.dirty
	goingOn   bool // in Loop.goingOn
	readyOwed bool // Notify came before Opened
	closeSent bool // close_notify is sealed
	noWrite   bool // the peer has reset the connection
	socket    socket
	fd        int // gnet's descriptor; an orphan's duplicate; -1 = none
	why       error
	orphanErr error
	deadline  time.Time // of FinishOnLoop

	// home loop: input
	isLink      bool // see SetLinkOnLoop
	masked      bool // gnet does not read it
	resting     bool // it should not, but what it has read is cut
	pauses      int  // causes to pause
	transport   transport
	partial     *buf.Buffer // the beginning of a frame
	partialNeed int         // bytes of it that Config.Cut wants to see
	partialAt   int64       // when it began, as Loop.elapsedNow
	partialOn   int64       // when something of it came last
	rest        *buf.Buffer // plaintext that a pause left
	restAt      int         // bytes of rest that are used
	held        *buf.Buffer // ciphertext that a pause left, after rest
	heldAt      int
	waitFor     Ref
	waitSeq     uint32

	// home loop: output
	blocked  bool // the kernel takes no more for now
	watched  bool // in W
	queue    fifo[queued]
	ahead    fifo[queued] // goes before queue
	aheadN   int          // bytes of frames in it
	unsealed int          // bytes of frames in both, less those of the first that are sealed
	hot      bool         // in Loop.hot

	lastQueued bool                   // an OwnLast frame is in queue, or was
	refuse     func(*buf.Buffer) bool // see RefuseOnLoop
	sealing    *fifo[queued]          // whose first frame is sealed in part
	sealed     int                    // bytes of it that are
	marks      fifo[mark]
	out        ciphertext

	// any goroutine
	ref          atomic.Uint64
	notified     atomic.Bool
	nextNotified *Conn // owned by who set notified, then by the home loop
	framesIn     atomic.Uint64
	framesOut    atomic.Uint64
	bytesIn      atomic.Uint64
	bytesOut     atomic.Uint64
	oldest       atomic.Int64 // as Loop.elapsedNow; 0 = nothing queued
}

// Ref names c; 0 before Opened. Any goroutine, like all below that are not
// documented otherwise.
func (c *Conn) Ref() Ref { return Ref(c.ref.Load()) }

// Loop returns the home loop, known from Handshaken on.
func (c *Conn) Loop() *Loop { return c.loop }

// Remote returns the peer's address, without an IPv6 zone.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Local returns our address, without an IPv6 zone.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Dialed tells whether we opened the connection.
func (c *Conn) Dialed() bool { return c.dialed }

// AutotuneReceive leaves the size of c's receive buffer to the kernel, which makes it
// as large as bandwidth and delay ask for (net.ipv4.tcp_rmem), and not Config's
// ReceiveBuffer. Handshaken may call it, for a peer that is not paused for long.
func (c *Conn) AutotuneReceive() { c.autotune = true }

// Tag returns what Dial was given.
func (c *Conn) Tag() any { return c.tag }

// Pass returns what Config.Admit gave the connection; nil for a dialed one.
func (c *Conn) Pass() Pass { return c.pass }

// TLS returns the handshake's result, after Handshaken without the certificates
// of who dialed us; its ExportKeyingMaterial works.
func (c *Conn) TLS() tls.ConnectionState { return c.tls.ConnectionState() }

// QueuedBytes returns c's backlog; see Loop.Backlog.
func (c *Conn) QueuedBytes() int { return c.loop.Backlog(c.Ref()) }

// AheadOnLoop returns how many bytes of frames sent as OwnAhead are not sealed
// yet: what a handler has made for a peer that does not read.
func (c *Conn) AheadOnLoop() int { return c.aheadN }

// WaitingOnLoop returns about how many bytes of forwarded frames wait for c and
// are not sealed.
func (c *Conn) WaitingOnLoop() int { return max(0, c.QueuedBytes()-c.aheadN-c.out.waiting) }

// OldestQueued returns when the frame was queued that has waited longest for
// the kernel; the zero time when none waits.
func (c *Conn) OldestQueued() time.Time {
	at := c.oldest.Load()
	if at == 0 {
		return time.Time{}
	}
	return c.loop.engine.start.Add(time.Duration(at))
}

// Counters are a connection's sums since it was opened.
type Counters struct {
	FramesIn  uint64 // cut
	FramesOut uint64 // handed to the kernel to the last byte
	BytesIn   uint64 // ciphertext, without the handshake
	BytesOut  uint64 // ciphertext handed to the kernel, without the handshake
}

// Counters returns c's sums; each is exact, together they are near.
func (c *Conn) Counters() Counters {
	return Counters{c.framesIn.Load(), c.framesOut.Load(), c.bytesIn.Load(), c.bytesOut.Load()}
}

// Notify asks for one Handler.Ready on the home loop. Any goroutine, from
// Handshaken on; it allocates nothing, takes no lock, and many calls before
// Ready count as one. What was written before Notify is visible in Ready.
func (c *Conn) Notify() {
	if c.notified.Swap(true) {
		return
	}
	l := c.loop
	for {
		head := l.notified.Load()
		c.nextNotified = head
		if l.notified.CompareAndSwap(head, c) {
			break
		}
	}
	l.wake()
}

// takeNotified calls Ready for every connection that was notified.
func (l *Loop) takeNotified() {
	for c := l.notified.Swap(nil); c != nil; {
		next := c.nextNotified
		c.nextNotified = nil
		c.notified.Store(false) // before Ready: a Notify from now on counts anew
		switch c.phase {
		case phaseNew:
			c.readyOwed = true
		case phaseOpen, phaseFlushing, phaseShut:
			l.engine.handler.Ready(c)
		}
		c = next
	}
}
