package link

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"causeway/engine/buf"
)

// Errors that end a connection, as Handler.Closed reports them. A peer that
// ends the stream in order is io.EOF; in the middle of a frame
// io.ErrUnexpectedEOF; a reset is the system's error.
var (
	ErrMalformed    = errors.New("link: malformed frame")
	ErrEngineClosed = errors.New("link: engine closed")
	ErrControlFlood = errors.New("link: peer makes TLS answer without reading the answers")
	ErrLongMessage  = errors.New("link: peer sends a TLS handshake message after the handshake that is longer than any it may send")
)

// Config is what Start needs. A zero field takes the default named with it.
type Config struct {
	// Loops is the number of loops; 0 = GOMAXPROCS.
	Loops int
	// CPUs[i] is the core that loop i's thread is pinned to; nil = not pinned.
	CPUs []int
	// Cut tells how many bytes from b's start must be there to go on. When
	// need <= len(b) the first need bytes are one whole frame. An error means
	// malformed; it closes the connection. b is borrowed; it runs on c's loop.
	// Required.
	Cut func(c *Conn, b []byte) (need int, err error)
	// HandshakeTimeout bounds connect, TLS handshake and Handshaken together,
	// and before that the wait of an accepted connection; 0 = 10 s.
	HandshakeTimeout time.Duration
	// Admit decides about a connection that was accepted, before anything else
	// is done for it. Required. It runs in the listener's goroutine and must not
	// block. An error refuses the connection, which is reset; it is reported to
	// Handler.HandshakeFailed under its Reason(). end ends the connection after
	// the time given, as failed for that reason, unless its handshake has
	// succeeded by then; any goroutine may call it.
	Admit func(remote netip.AddrPort, end func(why error, after time.Duration)) (Pass, error)
	// ReceiveBuffer is SO_RCVBUF in bytes (the kernel doubles it) of connections
	// without Conn.AutotuneReceive; it bounds what one paused sender holds. 0 = 256 KiB.
	ReceiveBuffer int
	// QueueHigh and QueueLow are the marks of a destination's queue, in bytes
	// of frames not yet handed to the kernel. 0 = 4 MiB and a quarter of High.
	// Destinations are connections, and the recipients behind links; a link as a
	// whole has four times that.
	QueueHigh, QueueLow int
	// Recipient returns what names the recipient in a whole frame, which is borrowed.
	// It runs on any loop and must not allocate. Required for Conn.SetLinkOnLoop.
	Recipient func(frame []byte) []byte
	// PartialMax bounds half-received frames in all, in bytes; beyond it, or what
	// Budget leaves for them, the slowest connection is ended (ErrPartial).
	// 0 = 256 MiB.
	PartialMax int64
	// Budget is the cap on memory, with an Account for each loop; nil = no cap.
	Budget *buf.Budget
	// Tick is the period of Handler.Tick; 0 = 100 ms, which is also the least,
	// so that an idle loop wakes at most ten times a second.
	Tick time.Duration
	// Logger takes gnet's messages and accept's trouble; nil = slog.Default().
	Logger *slog.Logger
}

const (
	handshakeTimeoutDefault = 10 * time.Second
	receiveBufferDefault    = 256 << 10 // bytes
	queueHighDefault        = 4 << 20   // bytes
	partialMaxDefault       = 256 << 20 // bytes
	tickMin                 = 100 * time.Millisecond
)

// withDefaults returns c with defaults filled in, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.Cut == nil {
		return c, errors.New("link: Config.Cut is nil")
	}
	if c.Admit == nil {
		return c, errors.New("link: Config.Admit is nil")
	}
	if c.Loops == 0 {
		c.Loops = runtime.GOMAXPROCS(0)
	}
	if c.Loops < 0 || c.Loops > loopsMax {
		return c, fmt.Errorf("link: %d loops asked for, 1 to %d are possible", c.Loops, loopsMax)
	}
	if c.CPUs != nil && len(c.CPUs) != c.Loops {
		return c, fmt.Errorf("link: %d cores named for %d loops", len(c.CPUs), c.Loops)
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = handshakeTimeoutDefault
	}
	if c.ReceiveBuffer <= 0 {
		c.ReceiveBuffer = receiveBufferDefault
	}
	if c.QueueHigh <= 0 {
		c.QueueHigh = queueHighDefault
	}
	if c.QueueLow <= 0 || c.QueueLow >= c.QueueHigh {
		c.QueueLow = c.QueueHigh / 4
	}
	if c.PartialMax <= 0 {
		c.PartialMax = partialMaxDefault
	}
	if c.Budget == nil {
		c.Budget = buf.NewBudget(0, c.Loops)
	}
	c.Tick = max(c.Tick, tickMin)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Pass is Config.Admit's leave for one connection. Its methods must not block.
type Pass interface {
	// Ready comes once, when the connection's first TLS record is there: who has
	// sent none is not worth a handshake. begin begins the handshake. It may be
	// called at once or later, once, by any goroutine; how many handshakes run
	// at a time is for the Pass to decide.
	Ready(now time.Time, begin func())
	// Answered comes once, after begin: the handshake has done what it can with
	// the first record, which is work for the processor, and waits for its client,
	// be it that it has failed and the client is to hear why.
	Answered(now time.Time)
	// Handshaken comes once, after Handler.Handshaken, and not for a handshake
	// that has failed. An error refuses the connection after all.
	Handshaken(now time.Time) error
	// Gone comes once, last: the connection has ended, or has come to nothing.
	Gone(now time.Time)
}

// Handler is told what happens. All methods but the first two run on the
// connection's home loop and must not block. No callback is ever made from
// inside a call that the handler itself makes: closing, failing to deliver and
// resuming are reported later in the same turn or in the next one.
type Handler interface {
	// Handshaken runs in the handshake's goroutine, after TLS is complete and
	// before the connection is on its loop; c.Ref() is still 0. It may set
	// c.State. An error refuses the connection; it is counted under the
	// error's Reason() when it (or what it wraps) has such a method.
	Handshaken(c *Conn, state tls.ConnectionState) error
	// HandshakeFailed runs in the handshake's goroutine, of an accepted connection.
	// reason is from a
	// bounded set, fit for a label. It also reports a connection that
	// Handshaken accepted and that could not be put on its loop ("enroll"), and,
	// from the listener's goroutine, one that Config.Admit refused.
	HandshakeFailed(remote netip.AddrPort, reason string, err error)

	// Opened is the first callback on the loop.
	Opened(c *Conn)
	// Frame takes b: exactly one whole frame. When it has paused c, no further
	// Frame comes until c is resumed, whatever has been received.
	Frame(c *Conn, b *buf.Buffer)
	// Ready comes some time after c.Notify(), once for many of them.
	Ready(c *Conn)
	// Resumed tells that the destination which c waited for (WaitForRoomOnLoop) is
	// below its low mark, or gone; c is no longer paused for it.
	Resumed(c *Conn)
	// Undeliverable takes b, which was sent to `to`: a connection that is gone,
	// or that ended with b still whole in its queue. It runs on to's loop.
	Undeliverable(l *Loop, to Ref, b *buf.Buffer)
	// Sealed tells that b, borrowed, is whole in c's TLS records, in the order in
	// which the peer gets them; own: its Kind is not Forwarded. It comes in the
	// middle of a flush: nothing of c may be called but Notify.
	Sealed(c *Conn, b *buf.Buffer, own bool)
	// Closed is the last callback about c. lost counts forwarded frames that were
	// sealed but not handed to the kernel whole: the last ones of those that
	// Sealed told of. c.Ref() resolves until it returns.
	Closed(c *Conn, why error, lost int)
	// TurnEnd comes once per turn, before the flush.
	TurnEnd(l *Loop)
	// Tick comes about every Config.Tick.
	Tick(l *Loop, now time.Time)
}

// Ref names a connection on any loop. It is pointer-free; 0 names none. A Ref
// is never used twice (its generation has 32 bits per slot).
//
//	63      52 51          32 31             0
//	| loop     | slot         | generation ≥ 1 |
type Ref uint64

const (
	generationBits = 32
	slotBits       = 20
	loopsMax       = 255 // gnet's limit; the field could hold 4,096
)

func newRef(loop, slot int, generation uint32) Ref {
	return Ref(loop)<<(slotBits+generationBits) | Ref(slot)<<generationBits | Ref(generation)
}

// Loop returns the index of the loop that owns the connection.
func (r Ref) Loop() int { return int(r >> (slotBits + generationBits)) }

func (r Ref) slot() int          { return int(r>>generationBits) & (1<<slotBits - 1) }
func (r Ref) generation() uint32 { return uint32(r) }
