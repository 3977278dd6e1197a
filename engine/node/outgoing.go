package node

import (
	"container/list"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
)

// The way of a message out:
//
//	1. reserve   under the lock: room in bytes, a slot in the queue, a send time
//	2. compose   in the caller's goroutine, without the lock: body and digest
//	3. publish   the slot is in the writer's hands
//	4. sign      the writer signs what waits, without the lock (sign.go)
//	5. take      the writer takes ready slots from the front, never past one
//	             that is not ready (take.go); frames to a recipient to whom
//	             others are being sent again wait beside the queue (resend.go)
//	6. keep      what was written can be sent again for a while (kept.go)
//
// A slot and its send time are given out together, so the order in the queue is
// that of send times, which recipients rely on (PROTOCOL.md section 9 rule 5),
// while many goroutines compose at once, and sign if their keys make no bursts.
// The price of slots is that a goroutine that takes long holds up those behind it.

// What the node says by itself is counted apart from what Send queued, so that
// neither crowds the other out. In bytes:
const (
	answerBytesMax  = 256 << 10 // replies to echoes, and notices
	sessionBytesMax = 4 << 20   // frames of category 1: as many M2 as may be pending
)

// frameOverhead is charged for each queued frame besides its body, in bytes: room
// for the longest signature is made before it is known which it is to be.
const frameOverhead = codec.HeaderSize + codec.SignatureLengthSize + signatureMax

type slotState uint8

const (
	slotReserved slotState = iota // being composed
	slotUnsigned                  // the writer is to sign it
	slotSigning                   // a writer signs it
	slotReady
	slotVoid // it could not be signed
)

type slot struct {
	state    slotState
	answer   bool // charged to answerBytes
	session  bool // charged to sessionBytes
	charge   int
	sendTime uint64
	self     *self  // who is to sign it; from slotUnsigned on, as the rest
	frame    []byte // the whole frame when ready, before that without its signature
	sent     *Sent  // nil for notices, which nobody is told about
}

type waiter struct {
	charge  int
	slot    *slot         // to be queued; nil: its maker pushes one
	granted chan struct{} // closed when the room is taken, or err is set
	err     error
}

// outgoing is the queue between all that send and the connection's writer. A node
// has one for its routers, and one for each node that is connected to it (peers.go).
//
// Bound: max bytes for Send, answerBytesMax for answers, sessionBytesMax for
// category 1. When full: Send waits, first come first served; answers and
// category 1 are dropped by their maker.
type outgoing struct {
	max        int
	resendTime time.Duration
	now        func() time.Time

	mu           sync.Mutex
	slots        fifo[*slot]
	bytes        int // charged by Send
	answerBytes  int
	sessionBytes int
	waiters      list.List // of *waiter
	clock        *stamps   // the node's
	recent       recent
	kept         kept
	resends      resends
	rehoming     bool                 // the connection in use was told to end, or one has ended
	rehomeUntil  time.Time            // that counts until then; zero: no other is in use yet
	untold       []*NoticeError       // for Config.OnNotice
	refusals     []memberNotice       // for sessions
	self         atomic.Pointer[self] // what the node is now
	selves       []*self              // what it was lately, and is; at most selvesMax
	renewals     float64              // of late, as a bucket that empties
	renewedAt    time.Time

	writer    *conn         // whose writer drains the queue; nil: not connected
	connected chan struct{} // closed while writer is set
	last      error         // why the last connection or attempt ended
	ended     error         // reserve fails with it
	discarded bool          // nobody takes what becomes ready from now on
}

// newOutgoing takes a prepared configuration, and randomness for pauses.
func newOutgoing(cfg *Config, rand io.Reader) *outgoing {
	return &outgoing{
		max: cfg.SendQueue, resendTime: cfg.ResendTime, now: cfg.Now, clock: new(stamps),
		connected: make(chan struct{}),
		recent:    newRecent(recentMax), kept: kept{max: cfg.ResendQueue}, resends: newResends(cfg.ResendTime, rand),
	}
}

// stamps gives out the send times of a node: none twice, whatever queue it is for.
type stamps struct{ last atomic.Uint64 }

func (t *stamps) next(now uint64) uint64 {
	for {
		last := t.last.Load()
		if next := max(last+1, now); t.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

// stampLocked returns a send time that was never used before; the lock makes the
// queue's order theirs.
func (o *outgoing) stampLocked() uint64 { return o.clock.next(uint64(o.now().UnixNano())) }

func (o *outgoing) stamp() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stampLocked()
}

// roomLocked reports whether Send may queue so much now. One message may always
// be queued, however large.
func (o *outgoing) roomLocked(charge int) bool {
	return o.writer != nil && (o.bytes == 0 || o.bytes+charge <= o.max)
}

func (o *outgoing) pushLocked(s *slot) {
	s.sendTime = o.stampLocked()
	o.slots.push(s)
}

// bytesOf is what slots of the kind of s are charged to.
func (o *outgoing) bytesOf(s *slot) *int {
	switch {
	case s.answer:
		return &o.answerBytes
	case s.session:
		return &o.sessionBytes
	}
	return &o.bytes
}

// releaseLocked gives back what the slot was charged.
func (o *outgoing) releaseLocked(s *slot) { *o.bytesOf(s) -= s.charge }

// reserve waits for room and for a connection, and queues a slot. It fails with
// *NotConnectedError or *WaitError when ctx ends, with what ended the node, and with
// errPeerLeft when another queue leads to the recipient.
func (o *outgoing) reserve(ctx context.Context, to way, bodySize int) (*slot, error) {
	s := &slot{charge: bodySize + frameOverhead}
	if err := o.await(ctx, to, s.charge, s); err != nil {
		return nil, err
	}
	return s, nil
}

// acquire is reserve for who pushes the slot later, or gives the room back.
func (o *outgoing) acquire(ctx context.Context, to way, bodySize int) error {
	return o.await(ctx, to, bodySize+frameOverhead, nil)
}

func (o *outgoing) await(ctx context.Context, to way, charge int, s *slot) error {
	o.mu.Lock()
	if o.ended != nil {
		defer o.mu.Unlock()
		return o.ended
	}
	if o.waiters.Len() == 0 && o.roomLocked(charge) {
		o.takeRoomLocked(charge, s)
		o.mu.Unlock()
		return nil
	}
	w := &waiter{charge: charge, slot: s, granted: make(chan struct{})}
	place := o.waiters.PushBack(w)
	o.mu.Unlock()

	left := to.left(o, w.granted, ctx.Done())
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-w.granted: // at the same moment: take it, the order is kept
		return w.err
	default:
	}
	o.waiters.Remove(place)
	o.grantLocked() // a smaller one behind it may fit
	if left {
		return errPeerLeft
	}
	if o.writer == nil {
		return &NotConnectedError{Last: o.last, Err: ctx.Err()}
	}
	return waitError(ctx, "room in the queue of unsent messages", nil)
}

func (o *outgoing) takeRoomLocked(charge int, s *slot) {
	o.bytes += charge
	if s != nil {
		o.pushLocked(s)
	}
}

// push queues a slot for a message whose room is acquired.
func (o *outgoing) push(bodySize int) *slot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &slot{charge: bodySize + frameOverhead}
	o.pushLocked(s)
	return s
}

// giveBack gives back the acquired room of a message.
func (o *outgoing) giveBack(bodySize int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes -= bodySize + frameOverhead
	o.grantLocked()
}

// reserveAnswer returns nil when there is no room or no connection.
func (o *outgoing) reserveAnswer(bodySize int) *slot {
	return o.reserveOwn(&slot{charge: bodySize + frameOverhead, answer: true}, answerBytesMax)
}

// reserveSession queues a slot for a frame of category 1; queued is false when
// there is no room or no connection. Its send time is good in any case.
func (o *outgoing) reserveSession(bodySize int) (s *slot, queued bool) {
	s = &slot{charge: bodySize + frameOverhead, session: true}
	if o.reserveOwn(s, sessionBytesMax) != nil {
		return s, true
	}
	s.sendTime = o.stamp()
	return s, false
}

func (o *outgoing) reserveOwn(s *slot, max int) *slot {
	o.mu.Lock()
	defer o.mu.Unlock()
	bytes := o.bytesOf(s)
	if o.ended != nil || o.writer == nil || *bytes+s.charge > max {
		return nil
	}
	*bytes += s.charge
	o.pushLocked(s)
	return s
}

func (o *outgoing) grantLocked() {
	for e := o.waiters.Front(); e != nil; e = o.waiters.Front() {
		w := e.Value.(*waiter)
		if !o.roomLocked(w.charge) {
			return
		}
		o.waiters.Remove(e)
		o.takeRoomLocked(w.charge, w.slot)
		close(w.granted)
	}
}

// publish gives the writer the frame (taken) for a reserved slot, as compose has
// made it under by; sent is nil for notices.
func (o *outgoing) publish(s *slot, state slotState, by *self, frame []byte, sent *Sent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.self, s.frame, s.sent = by, frame, sent
	if sent != nil && o.discarded {
		sent.resolveLocked(sentFailed, &UnsentError{o.ended})
	}
	o.doneLocked(s, state)
}

// void gives a reserved slot back.
func (o *outgoing) void(s *slot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doneLocked(s, slotVoid)
}

func (o *outgoing) doneLocked(s *slot, state slotState) {
	s.state = state
	if o.writer != nil {
		o.writer.wakeWriter()
	}
}

// attach makes c's writer the one that drains the queue.
func (o *outgoing) attach(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writer == nil {
		close(o.connected)
	}
	o.writer = c
	if o.rehoming {
		o.rehomeUntil = time.Now().Add(o.resendTime)
	}
	o.resends.moved()
	o.grantLocked()
	c.wakeWriter()
}

// detach stops c's writer from draining the queue; because of err.
func (o *outgoing) detach(c *conn, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writer == c {
		o.leavingLocked(c)
		o.writer = nil
		o.connected = make(chan struct{})
		o.last = err
	}
}

func (o *outgoing) failedAttempt(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = err
}

func (o *outgoing) lastError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// abandon fails all that was written to c and neither confirmed nor noticed,
// because of err. It returns how many of them are the application's.
func (o *outgoing) abandon(c *conn, err error) (unconfirmed int) {
	o.detach(c, err)
	o.mu.Lock()
	defer o.mu.Unlock()
	first := c.pend.confirmed + 1
	rest := c.pend.rest()
	for i, s := range rest {
		if !s.ofLocked(c, first+uint64(i)) {
			continue
		}
		if s.state == sentOpen && s.notice == nil && !s.internal {
			unconfirmed++
		}
		s.resolveLocked(sentFailed, &UnconfirmedError{err})
		o.resends.settled(s, false)
	}
	c.n.counters.unconfirmed.Add(uint64(len(rest)))
	o.wakeLocked()
	return unconfirmed
}

// refuse makes reserve fail with err from now on; what is queued stays.
func (o *outgoing) refuse(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended == nil {
		o.ended = err
	}
	for e := o.waiters.Front(); e != nil; e = o.waiters.Front() {
		w := o.waiters.Remove(e).(*waiter)
		w.err = o.ended
		close(w.granted)
	}
}

// discard fails all that is still queued, after refuse. It returns how much of
// that is the application's and was never written.
func (o *outgoing) discard() (unsent int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.discarded = true
	waiting, behind := o.resends.clear()
	o.failLocked(waiting)
	for _, s := range append(behind, o.slots.rest()...) {
		o.releaseLocked(s)
		if s.sent == nil {
			continue
		}
		s.sent.resolveLocked(sentFailed, &UnsentError{o.ended})
		if !s.sent.internal {
			unsent++
		}
	}
	o.slots = fifo[*slot]{}
	o.kept.clear()
	return unsent
}

// emptyLocked reports whether nothing is queued, and nothing is to be sent again.
func (o *outgoing) emptyLocked() bool {
	return o.slots.len() == 0 && o.resends.released.len() == 0 && len(o.resends.lanes) == 0
}

// current returns the connection in use, or nil and a channel that is closed
// when there is one.
func (o *outgoing) current() (*conn, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writer, o.connected
}
