package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"causeway/codec"
)

const (
	stallNetwork  = 3 // these nodes have addresses in 127.3/16
	stallWarm     = 2 // frames of each sender that the recipient reads before it stalls
	stallUnread   = 8 // of these that it has not read, at most
	stallDistinct = 8 // differently signed frames of a sender, in turn
	stallWait     = 20 * time.Second
	stallAsk      = 50 * time.Millisecond // between keep-alives that ask
)

// stallRequest has nodes send to one that, after its first frames, does not keep
// up with reading.
type stallRequest struct {
	Addr           string
	Senders        int
	Body           int     // bytes
	PerSecond      float64 // frames of all senders together, at most
	BytesPerSecond int     // that the recipient reads; 0: none
	SendBuffer     int     // of a sender's socket, bytes
	ReceiveBuffer  int     // of the recipient's
}

// stallStatus is what has happened so far.
type stallStatus struct {
	Senders    int
	Frame      int                           // bytes of one
	Sent       uint64                        // frames the senders' kernels have taken
	Decided    uint64                        // of them, as the router said when asked last
	Delivered  uint64                        // frames the recipient has read
	Noticed    map[codec.NoticeReason]uint64 // frames that notices told of, listed or counted
	Disordered uint64                        // frames that came to the recipient in another place than they were sent
	Blocked    time.Duration                 // the longest time a write of the first sender has taken, now under way or not
	Problem    string                        // what ended a sender's connection
}

// told returns how many frames notices were about, for all reasons together but
// that of frames which are perhaps delivered, and those.
func (s *stallStatus) told() (undelivered, unconfirmed uint64) {
	for reason, n := range s.Noticed {
		if reason == codec.NoticeUnconfirmed {
			unconfirmed += n
		} else {
			undelivered += n
		}
	}
	return undelivered, unconfirmed
}

// stall is a recipient that does not keep up, and its senders.
type stall struct {
	*life
	*stallRequest
	turns    *pace
	tap      *tap
	stalled  bool // of the recipient: it does not keep up from now on
	senders  []*stallSender
	stopping atomic.Bool // senders send no more

	delivered, disordered atomic.Uint64
	problem               atomic.Pointer[string]
}

// stallSender is one of the senders.
type stallSender struct {
	*stall
	*nodeConn
	frames []byte

	sent    atomic.Uint64
	decided atomic.Uint64 // of them, as the router has said
	quiet   atomic.Bool   // it sends no more, and all is decided
	writing atomic.Int64  // when the write that is under way began, Unix nanoseconds; 0: none is
	longest atomic.Int64  // write, nanoseconds
	next    uint32        // of the recipient: number of the frame that is due

	tellMu  sync.Mutex
	noticed map[codec.NoticeReason]uint64
}

// stall connects all, moves the first frames, and has the recipient stall; then
// senders send until told to finish.
func (c *crowd) stall(r *stallRequest) (_ work, err error) {
	s := &stall{life: newLife(), stallRequest: r}
	s.turns = newPace(s.life, r.PerSecond)
	defer func() {
		if err != nil {
			s.life.end()
		}
	}()
	to, err := s.connectRecipient(c)
	if err != nil {
		return nil, fmt.Errorf("the recipient: %w", err)
	}
	for n := range r.Senders {
		if err := s.connectSender(c, n, to.who); err != nil {
			return nil, fmt.Errorf("sender %d: %w", n+1, err)
		}
	}
	confirmed := make(chan error, 1)
	s.all.Go(func() { s.receive(to, confirmed) })
	for _, one := range s.senders {
		s.all.Go(one.listen)
	}
	if err := s.warm(); err != nil {
		return nil, err
	}
	select {
	case err = <-confirmed:
	case <-time.After(stallWait):
		err = fmt.Errorf("%d of the first frames came: %s", s.delivered.Load(), s.trouble())
	}
	if err != nil {
		return nil, err
	}
	s.all.Go(func() {
		for s.sleep(aliveEvery) && to.alive(false) == nil { // it lives, it only does not read
		}
	})
	for _, one := range s.senders {
		s.all.Go(one.run)
	}
	return s, nil
}

// warm sends the first frames, no faster than the recipient reads them.
func (s *stall) warm() error {
	end := time.Now().Add(stallWait)
	for n := range len(s.senders) * stallWarm {
		for uint64(n) >= s.delivered.Load()+stallUnread {
			if time.Now().After(end) {
				return fmt.Errorf("of %d first frames %d came: %s", n, s.delivered.Load(), s.trouble())
			}
			time.Sleep(time.Millisecond)
		}
		if err := s.senders[n%len(s.senders)].send(); err != nil {
			return err
		}
	}
	return nil
}

func (s *stall) connectRecipient(c *crowd) (*nodeConn, error) {
	raw, _, err := s.dial(s.Addr, source(stallNetwork, 0, 1), socketOption{syscall.SO_RCVBUF, s.ReceiveBuffer})
	if err != nil {
		return nil, err
	}
	s.tap = newTap(s.ctx, raw)
	return join(s.ctx, s.tap, c.members[0], c.roots, c.setup.Router)
}

func (s *stall) connectSender(c *crowd, n int, to *member) error {
	raw, _, err := s.dial(s.Addr, source(stallNetwork, 1+n, 1+s.Senders), socketOption{syscall.SO_SNDBUF, s.SendBuffer})
	if err != nil {
		return err
	}
	conn, err := join(s.ctx, raw, c.members[1+n], c.roots, c.setup.Router)
	if err != nil {
		return err
	}
	one := &stallSender{stall: s, nodeConn: conn, noticed: make(map[codec.NoticeReason]uint64)}
	body := make([]byte, s.Body)
	binary.BigEndian.PutUint32(body, uint32(n))
	for i := range stallDistinct {
		binary.BigEndian.PutUint32(body[numberSize:], uint32(i))
		if one.frames, err = conn.who.frame(one.frames, to.address, category, body); err != nil {
			return err
		}
	}
	s.senders = append(s.senders, one)
	return nil
}

// fail notes what went wrong, if nothing did before.
func (s *stall) fail(format string, args ...any) {
	if s.ctx.Err() == nil {
		text := fmt.Sprintf(format, args...)
		s.problem.CompareAndSwap(nil, &text)
	}
}

func (s *stall) trouble() string {
	if p := s.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// receive is the recipient. When the first frames are there it tells the router
// so; when the router knows it stalls, and tells confirmed. It ends with its
// connection.
func (s *stall) receive(to *nodeConn, confirmed chan<- error) {
	first := uint64(s.Senders * stallWarm)
	for {
		err := to.read(func(f codec.Raw) error {
			if f.Category() == category {
				s.arrived(f)
				if s.delivered.Load() == first {
					return to.alive(true)
				}
				return nil
			}
			k, err := to.hear(f)
			if k != nil && !k.Answer && s.delivered.Load() == first && !s.stalled {
				s.stalled = true
				s.tap.turn(s.BytesPerSecond) // here, where no read is under way
				report(confirmed, nil)
			}
			return err
		})
		if err != nil {
			report(confirmed, err)
			return
		}
	}
}

// report sends err to whom it may concern, once.
func report(to chan<- error, err error) {
	select {
	case to <- err:
	default:
	}
}

// arrived takes a frame that has come to the recipient.
func (s *stall) arrived(f codec.Raw) {
	s.delivered.Add(1)
	n, i := binary.BigEndian.Uint32(f.Body()), binary.BigEndian.Uint32(f.Body()[numberSize:])
	if int(n) >= len(s.senders) || s.senders[n].who.address != f.Sender() || s.senders[n].next != i {
		s.disordered.Add(1)
		return
	}
	s.senders[n].next = (i + 1) % stallDistinct
}

// send writes the next frame.
func (o *stallSender) send() error {
	size := len(o.frames) / stallDistinct
	at := int(o.sent.Load()%stallDistinct) * size
	begun := time.Now()
	o.writing.Store(begun.UnixNano())
	_, err := o.Write(o.frames[at : at+size])
	o.writing.Store(0)
	o.longest.Store(max(o.longest.Load(), int64(time.Since(begun))))
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	o.sent.Add(1)
	return nil
}

// run sends until told to stop, and then asks the router what it has decided on
// until that is all.
func (o *stallSender) run() {
	alive := time.Now()
	for !o.stopping.Load() && o.turns.wait() {
		err := o.send()
		if err == nil && time.Since(alive) > aliveEvery {
			alive = time.Now()
			err = o.alive(false)
		}
		if err != nil {
			o.fail("%v", err)
			return
		}
	}
	for o.decided.Load() < o.sent.Load() && o.sleep(stallAsk) {
		if err := o.alive(true); err != nil {
			o.fail("%v", err)
			return
		}
	}
	o.quiet.Store(true)
	for o.sleep(aliveEvery) && o.alive(false) == nil {
	}
}

// listen takes what the router tells a sender.
func (o *stallSender) listen() {
	for {
		err := o.read(func(f codec.Raw) error {
			if f.Category() == codec.CategoryNotice {
				return o.tell(f)
			}
			k, err := o.hear(f)
			if k != nil {
				o.decided.Store(k.Received)
			}
			return err
		})
		if err != nil {
			o.fail("a sender's connection ended: %v", err)
			return
		}
	}
}

func (o *stallSender) tell(f codec.Raw) error {
	n, err := codec.DecodeNotice(f.Body())
	if err != nil {
		return err
	}
	o.tellMu.Lock()
	defer o.tellMu.Unlock()
	o.noticed[n.Reason] += uint64(len(n.Frames)) + n.More
	return nil
}

// resume has the recipient read again, as fast as it can.
func (c *crowd) resume() error {
	s, ok := c.work.(*stall)
	if !ok {
		return errors.New("nobody stalls")
	}
	s.tap.turn(tapOpen)
	return nil
}

// finish has senders send no more, and waits until the router has decided on
// all that they have sent.
func (c *crowd) finish() error {
	s, ok := c.work.(*stall)
	if !ok {
		return errors.New("nobody stalls")
	}
	s.stopping.Store(true)
	undecided := func(o *stallSender) bool { return !o.quiet.Load() }
	for end := time.Now().Add(stallWait); slices.ContainsFunc(s.senders, undecided); {
		if p := s.trouble(); p != "" {
			return errors.New(p)
		}
		if time.Now().After(end) {
			return errors.New("the router has not decided on all that was sent")
		}
		time.Sleep(stallAsk)
	}
	return nil
}

func (s *stall) status(to *crowdStatus) {
	so := &to.Stall
	so.Senders = len(s.senders)
	so.Delivered, so.Disordered, so.Problem = s.delivered.Load(), s.disordered.Load(), s.trouble()
	so.Noticed = make(map[codec.NoticeReason]uint64)
	for i, o := range s.senders {
		so.Frame = len(o.frames) / stallDistinct
		so.Sent += o.sent.Load()
		so.Decided += o.decided.Load()
		o.tellMu.Lock()
		for reason, n := range o.noticed {
			so.Noticed[reason] += n
		}
		o.tellMu.Unlock()
		if i == 0 {
			so.Blocked = time.Duration(o.longest.Load())
			if since := o.writing.Load(); since > 0 {
				so.Blocked = max(so.Blocked, time.Since(time.Unix(0, since)))
			}
		}
	}
}
