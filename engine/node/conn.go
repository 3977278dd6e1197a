package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

const (
	controlQueueMax = 64              // messages waiting to be written; only requests of this node wait there
	goodbyeTimeout  = time.Second     // for a goodbye to be written, and for the router to close after it
	stallFactor     = 4               // a router that confirms nothing for so many times DeadAfter is given up
	deadlineGrain   = 8               // deadlines are moved when an eighth of them has gone by
	keepAliveShare  = 4               // a keep-alive goes out after 3/4 of the interval announced
	drainGoodbyeMax = 5 * time.Second // a draining router is answered by then, whatever it grants
	drainReadMax    = time.Minute     // and is read no longer than this
)

// conn is one connection, from its hello on: to a router, or to a node (direct).
// Its reader and its writer are started by start and end on their own when it dies.
type conn struct {
	n        *Node
	url      string
	raw      net.Conn
	tls      *tls.Conn
	link     *link
	hello    *codec.Hello // the other end's
	out      *outgoing    // whose mu guards what is below, and whose frames the writer takes
	direct   bool         // the other end is a node (PROTOCOL.md section 4.2)
	accepted bool         // it has dialled this node
	reader   *frameReader
	since    time.Time
	self     *self     // link control goes under it; the writer's, after start
	shown    []*self   // whose keys the router has been shown; the writer's
	list     listParts // the reader's

	badSignatures bucket // of a node; the reader's

	newest atomic.Pointer[pki.Peer] // the other end's newest certificate

	received   atomic.Uint64       // frames other than link control that were cut
	wake       chan struct{}       // capacity 1: the writer has something to do
	progress   chan struct{}       // capacity 1: something was written or confirmed
	draining   chan *codec.Goodbye // capacity 1: the router asked to leave, in time
	byeWritten chan struct{}       // closed when this node's goodbye is out
	dead       chan struct{}       // closed by kill
	ended      chan struct{}       // closed when both goroutines have ended
	goroutines atomic.Int32        // of reader and writer, those that have not ended

	// Guarded by out.mu.
	pend       pending
	control    []codec.Control // requests to write
	announced  []*self         // the node's certificates that the router remembers, or is told of next
	toAnnounce []*self
	answerDue  bool           // a keep-alive was asked for
	bye        *codec.Goodbye // to write next; after it only answers to keep-alives, or nothing
	byeOut     bool           // it is written, or being written
	heard      bool           // a goodbye of the router came
	err        error          // why it died
}

func newConn(n *Node, url string, raw net.Conn, t *tls.Conn, l *link, s *self) *conn {
	c := &conn{
		n: n, out: n.out, direct: l.router.Role == pki.RoleNode, url: url, raw: raw, tls: t, link: l, self: s, shown: []*self{s}, since: time.Now(),
		announced:  []*self{s},
		reader:     newFrameReader(t, uint32(n.cfg.BodyMax), &n.counters.bytesIn),
		wake:       make(chan struct{}, 1),
		progress:   make(chan struct{}, 1),
		draining:   make(chan *codec.Goodbye, 1),
		byeWritten: make(chan struct{}),
		dead:       make(chan struct{}),
		ended:      make(chan struct{}),
	}
	c.newest.Store(l.router)
	return c
}

// start begins reading and writing.
func (c *conn) start() {
	c.reader.from = &patientReader{c: c.tls, patience: c.n.cfg.DeadAfter}
	c.goroutines.Store(2)
	c.n.goroutines.Go(func() { c.read(); c.goroutineEnded() })
	c.n.goroutines.Go(func() { c.write(); c.goroutineEnded() })
}

// goroutineEnded is called by reader and writer; the last one settles what the
// connection leaves behind.
func (c *conn) goroutineEnded() {
	if c.goroutines.Add(-1) > 0 {
		return
	}
	err := c.cause()
	c.out.detach(c, err)
	c.n.in.connGone(c)
	c.n.names.connGone(c)
	close(c.ended)
}

// kill ends the connection at once; of several errors the first counts.
func (c *conn) kill(err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.dead)
		c.raw.Close()
	}
}

// cause returns why the connection died; nil while it has not.
func (c *conn) cause() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.err
}

func (c *conn) wakeWriter() { signal(c.wake) }

// signal makes sure that the receiver of ch, which has capacity 1, looks again.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// request queues a request of this node, and reports whether there was room.
func (c *conn) request(m codec.Control) bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if len(c.control) >= controlQueueMax || c.err != nil || c.bye != nil {
		return false
	}
	c.control = append(c.control, m)
	c.wakeWriter()
	return true
}

// left reports whether nothing more can be asked: this node's goodbye is due, or
// the connection has died.
func (c *conn) left() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.bye != nil || c.err != nil
}

// sealControl makes a whole frame of a message.
func (c *conn) sealControl(m codec.Control) ([]byte, error) {
	body, err := codec.AppendControl(nil, m)
	if err != nil {
		return nil, err
	}
	return c.self.seal(c.n.address, codec.Address(c.link.router.Address), codec.CategoryControl, c.out.stamp(), body)
}

// goodbye returns a word of parting; the text is cut to what is allowed.
func (c *conn) goodbye(reason codec.GoodbyeReason, text string) *codec.Goodbye {
	if len(text) > codec.GoodbyeTextMax {
		text = text[:codec.GoodbyeTextMax]
	}
	return &codec.Goodbye{Reason: reason, Text: strings.ToValidUTF8(text, ""), Received: c.received.Load()}
}

// sayGoodbye has the writer write it, and waits for that, but not long. The
// connection is read for readFor after that; if that is 0 it is the last frame.
func (c *conn) sayGoodbye(reason codec.GoodbyeReason, text string, readFor time.Duration) {
	c.out.mu.Lock()
	if c.bye == nil {
		c.bye = c.goodbye(reason, text)
		c.bye.ReadFor = readFor.Truncate(time.Millisecond)
	}
	c.wakeWriter()
	c.out.mu.Unlock()
	c.wait(c.byeWritten, goodbyeTimeout)
}

// wait waits for done, the connection's death or the time.
func (c *conn) wait(done <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-c.dead:
	case <-t.C:
	}
}

// finish writes what waits and has it confirmed, for so long, says goodbye, and
// reads what the router still has until that says goodbye and closes; or, with
// all that, the time to read is over, or the node is to close.
func (c *conn) finish(confirmFor, readFor time.Duration) {
	by := time.Now().Add(readFor)
	t := time.NewTimer(confirmFor)
	defer t.Stop()
	for idle := false; !idle; {
		c.out.mu.Lock()
		c.pend.wantAll()
		idle = c.pend.idle() && (c.out.writer != c || c.out.emptyLocked())
		c.wakeWriter()
		c.out.mu.Unlock()
		if idle {
			break
		}
		select {
		case <-c.progress:
			continue
		case <-c.dead:
		case <-t.C:
		}
		break
	}
	c.sayGoodbye(codec.GoodbyeDone, "", max(time.Until(by), goodbyeTimeout))
	select { // the router closes; then nothing is lost on the way
	case <-c.ended:
	case <-time.After(time.Until(by)):
	case <-c.n.ctx.Done():
	}
	c.wait(c.ended, goodbyeTimeout)
	c.kill(errSaidGoodbye)
	<-c.ended
}

var (
	errSaidGoodbye   = errors.New("this node said goodbye")
	errRouterGone    = errors.New("the router closed the connection without a goodbye")
	errNotConfirming = errors.New("the router is there, but has confirmed nothing for too long")
)

// died gives the error of a read or write its meaning.
func (c *conn) died(err error) error {
	var protocol *ProtocolError
	var goodbye *GoodbyeError
	switch alert, isAlert := remoteAlert(err); {
	case errors.As(err, &protocol), errors.As(err, &goodbye):
		return err
	case isAlert:
		x := explainer{self: c.n.self.Load().id.Peer, now: c.n.cfg.Now(), node: c.direct}
		what, remedy := x.alert(alert)
		return &RefusedError{Alert: alert, What: what, Remedy: remedy, Err: err}
	case isTimeout(err):
		return fmt.Errorf("not a byte to or from the router in %v: %w", c.n.cfg.DeadAfter, err)
	case isClosed(err):
		return fmt.Errorf("%w: %w", errRouterGone, err)
	}
	return err
}

// patientReader reads from a connection and fails when nothing came for so
// long. Moving the deadline costs more than looking at the clock, so it is
// moved when some of it has gone by.
type patientReader struct {
	c        net.Conn
	patience time.Duration
	moved    time.Time
}

func (r *patientReader) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(r.moved) >= r.patience/deadlineGrain {
		if err := r.c.SetReadDeadline(now.Add(r.patience + r.patience/deadlineGrain)); err != nil {
			return 0, err
		}
		r.moved = now
	}
	return r.c.Read(b)
}
