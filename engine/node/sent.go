package node

import (
	"context"
	"time"

	"causeway/codec"
)

type sentState uint8

const (
	sentOpen      sentState = iota
	sentConfirmed           // the router has counted it
	sentFailed              // err says why
)

// Sent is a message that Send has accepted.
type Sent struct {
	To       codec.Address
	Category codec.Category
	SendTime uint64 // nanoseconds since the Unix epoch
	Digest   codec.Digest

	node     *Node
	out      *outgoing // whose queue it was put into
	internal bool      // an echo, or of category 1: not the application's message
	session  *member   // of category 1: whose session it is about
	queuedAt time.Time // for round trips

	// Guarded by out.mu.
	state   sentState
	wanted  bool // somebody waits for the confirmation
	written bool // and no notice came since that would have it sent again
	seen    bool // the recipient says so
	err     error
	notice  *NoticeError  // the last word
	conn    *conn         // that it was written to; nil: it is to be written, perhaps again
	index   uint64        // in conn's count
	changed chan struct{} // closed at the next change; nil when nobody waits
	frame   []byte        // see kept
	place   uint64        // see kept
	resend  *resend       // nil: no notice came that had it sent again
}

// ofLocked reports whether s is, as it was written last, the frame of that index
// in c's count. It may have been sent again since.
func (s *Sent) ofLocked(c *conn, index uint64) bool {
	return s != nil && s.conn == c && s.index == index
}

func (s *Sent) resolveLocked(state sentState, err error) {
	if s.state != sentOpen {
		return
	}
	s.state, s.err = state, err
	s.broadcastLocked()
}

func (s *Sent) noticedLocked(e *NoticeError) {
	if s.notice == nil {
		s.notice = e
		s.broadcastLocked()
		if s.session != nil {
			s.out.refusals = append(s.out.refusals, memberNotice{s.session, e})
		}
	}
}

func (s *Sent) broadcastLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *Sent) changedLocked() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Confirmed waits until the router has counted the message: from then on it is
// the network's to deliver it, or to say why not. It returns nil, a
// *NoticeError when a notice came (a later call may return one after an earlier
// returned nil), *UnconfirmedError when the connection ended first,
// *UnsentError when the node did, or *WaitError when ctx ended. While the message
// is being sent again (Config.ResendTime) it waits for the outcome of that. A sealed
// message that comes more than 200 ms after later ones, as one that was sent again may,
// is dropped by its recipient without a word: that it has come Seen alone tells.
func (s *Sent) Confirmed(ctx context.Context) error {
	for {
		done, changed, err := s.outcome()
		if done {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s.node.waitError(ctx, "confirmation by the router", nil)
		}
	}
}

func (s *Sent) outcome() (done bool, changed <-chan struct{}, err error) {
	o := s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case s.notice != nil:
		return true, nil, s.notice
	case s.state != sentOpen:
		return true, nil, s.err
	}
	if !s.wanted {
		s.wanted = true
		if s.conn != nil {
			s.conn.pend.want = max(s.conn.pend.want, s.index)
			s.conn.wakeWriter()
		}
	}
	return false, s.changedLocked(), nil
}

// seenAskEvery is how often Seen asks.
const seenAskEvery = time.Second

// Seen waits until the recipient says that it has the message: verified, and
// given to its application or waiting for it. It asks each second until ctx
// ends, then returns *WaitError or *NotConnectedError. A notice that the
// message was not delivered ends it too, with that *NoticeError.
func (s *Sent) Seen(ctx context.Context) error {
	if _, err := s.lost(); err != nil {
		return err
	}
	n := s.node
	id, receipts, err := n.echoes.open(n, s.To)
	if err != nil {
		return err
	}
	defer n.echoes.close(id)
	body, err := codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoReceiptRequest, ID: id, Digest: s.Digest, SendTime: s.SendTime})
	if err != nil {
		return err
	}
	tick := time.NewTicker(seenAskEvery)
	defer tick.Stop()
	var last error
	for {
		request, err := n.send(ctx, s.To, codec.CategoryEcho, body, true)
		if err != nil {
			return err
		}
		seen, err := s.awaitReceipt(ctx, receipts, tick.C)
		if seen || err != nil {
			return err
		}
		if e := request.noticed(); e != nil {
			last = e
		} else if e := s.noticed(); e != nil {
			last = e
		}
		if ctx.Err() != nil {
			return n.waitError(ctx, "receipt from the recipient", last)
		}
	}
}

// awaitReceipt waits for a receipt that says seen, until the next tick or the
// end of ctx.
func (s *Sent) awaitReceipt(ctx context.Context, receipts <-chan heardEcho, tick <-chan time.Time) (seen bool, err error) {
	for {
		changed, err := s.lost()
		if err != nil {
			return false, err
		}
		select {
		case e := <-receipts:
			if e.Type == codec.EchoReceipt && e.Digest == s.Digest && e.Seen {
				s.out.mu.Lock()
				s.seen = true
				s.out.mu.Unlock()
				return true, nil
			}
		case <-changed:
		case <-tick:
			return false, nil
		case <-ctx.Done():
			return false, nil
		case <-s.node.done:
			return false, s.node.Err()
		}
	}
}

// lost returns an error when it is certain that the recipient won't get the
// message: no UnconfirmedError, and no notice that says perhaps.
func (s *Sent) lost() (<-chan struct{}, error) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.notice != nil && s.notice.Reason != codec.NoticeUnconfirmed {
		return nil, s.notice
	}
	if s.state == sentFailed {
		switch s.err.(type) {
		case *UnsentError, *BodySizeError:
			return nil, s.err
		}
	}
	return s.changedLocked(), nil
}

func (s *Sent) noticed() error {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.notice == nil {
		return nil
	}
	return s.notice
}
