package node

import (
	"context"
	"errors"
	"time"

	"causeway/codec"
	"causeway/crypto/session"
)

// A sealed message on its way out:
//
//  1. enter   its member is found, and it is the message's turn: one at a time
//  2. acquire room in the queue
//  3. seal    under the session's next counter, and with a send time, both in the
//     order of the queue; or there is no session or credit: the room is given back,
//     and the message waits for either
//  4. publish as every message (outgoing.go)

// giveUpAfter is for how long a session or credit is still striven for when who
// waited for it has gone: who tries again soon finds it, and a sender whose
// patience is short comes to a probe all the same.
const giveUpAfter = 10 * time.Second

// sendSealed is Send but for the checks.
func (n *Node) sendSealed(ctx context.Context, to codec.Address, category codec.Category, body []byte) (*Sent, error) {
	switch {
	case to == n.address:
		return nil, errToSelf
	case to.Kind() != codec.KindNode:
		return nil, errToRouter
	}
	if err := n.check(to, len(body), session.SealedOverhead); err != nil {
		return nil, err
	}
	m, refusals, err := n.sessions.enter(ctx, to)
	if err != nil {
		return nil, err
	}
	s, err := n.seal(ctx, m, refusals, category, body)
	n.sessions.leave(m, err)
	return s, err
}

// check checks that there may be a way to the recipient, and a body's size, of
// which so many bytes more are sent.
func (n *Node) check(to codec.Address, size, overhead int) error {
	limit, router := codec.BodyMaxLimit, false
	if c, _ := n.outTo(to).current(); c != nil {
		if !c.leadsTo(to) {
			return &DirectError{Peer: c.link.router.Address, Name: c.link.router.Name}
		}
		limit, router = int(c.hello.BodyMax), true
	}
	if size+overhead > limit {
		return &BodySizeError{Size: size, Max: limit - overhead, Router: router}
	}
	return nil
}

// seal seals and queues a message, and waits until it may.
func (n *Node) seal(ctx context.Context, m *member, refusals uint64, category codec.Category, body []byte) (*Sent, error) {
	frame := make([]byte, ttlSize, codec.HeaderSize+len(body)+session.SealedOverhead+codec.SignatureLengthSize+signatureMax)
	frame[0] = codec.TTLDefault
	for {
		attempt, end := n.sessions.patience(ctx, m)
		s, err := n.sealOnce(attempt, m, frame, category, body)
		if s == nil && err == nil {
			err = n.awaitReady(attempt, m, refusals)
		}
		var revoked *RevokedError
		if err != nil && err != errPeerLeft && errors.As(context.Cause(attempt), &revoked) {
			err = revoked
		}
		end()
		if s != nil || err != nil && err != errPeerLeft {
			return s, err
		}
	}
}

// sealOnce seals and queues a message. Neither a Sent nor an error is returned when
// it has to wait for a session or credit, errPeerLeft when it is to try again.
func (n *Node) sealOnce(ctx context.Context, m *member, frame []byte, category codec.Category, body []byte) (*Sent, error) {
	o := n.outTo(m.address)
	if err := o.acquire(ctx, way{n, m.address}, len(body)+session.SealedOverhead); err != nil {
		return nil, err
	}
	sealed, slot, by := n.sessions.seal(o, m, frame, category, body)
	if slot == nil {
		return nil, nil
	}
	s := &Sent{To: m.address, Category: category, SendTime: slot.sendTime, Digest: codec.Raw(sealed).Digest(), node: n, out: o, queuedAt: time.Now()}
	sealed, state, err := by.forQueue(sealed)
	if err != nil {
		o.void(slot)
		return nil, err
	}
	o.publish(slot, state, by, sealed, s)
	return s, nil
}

// awaitReady waits until a message to the member may be sealed, perhaps.
func (n *Node) awaitReady(ctx context.Context, m *member, refusals uint64) error {
	if err := n.sessions.refusedSince(m, refusals); err != nil {
		return err
	}
	select {
	case <-m.ready:
		return nil
	case <-ctx.Done():
		return n.waitError(ctx, n.sessions.missing(m), nil)
	case <-n.ctx.Done():
		return n.endedBy()
	}
}

// endedBy is what ended the node, or will.
func (n *Node) endedBy() error {
	if err := n.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// enter waits for the turn of a message to that address. refusals is how often the
// member could not be reached until now.
func (s *sessions) enter(ctx context.Context, to codec.Address) (m *member, refusals uint64, err error) {
	s.mu.Lock()
	m = s.memberLocked(to)
	if m == nil {
		defer s.mu.Unlock()
		if s.ended {
			return nil, 0, s.node.endedBy()
		}
		return nil, 0, errSessionMembers
	}
	m.users++
	m.giveUpAt = time.Time{}
	refusals = m.refusals
	s.mu.Unlock()
	select {
	case m.turn <- struct{}{}:
		return m, refusals, nil
	default:
	}
	select {
	case m.turn <- struct{}{}:
		return m, refusals, nil
	case <-ctx.Done():
		err = s.node.waitError(ctx, s.missing(m), nil)
	case <-s.node.ctx.Done():
		err = s.node.endedBy()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goneLocked(m, err)
	return nil, 0, err
}

// leave ends a message's turn; err is why it was not sent, or nil.
func (s *sessions) leave(m *member, err error) {
	<-m.turn
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goneLocked(m, err)
}

// goneLocked takes note that a message waits no longer. What it waited for is striven
// for a while longer, unless the member can't be reached.
func (s *sessions) goneLocked(m *member, err error) {
	m.users--
	if err == nil || m.users > 0 {
		return
	}
	if err == error(m.refusal) {
		s.giveUpLocked(m)
		return
	}
	m.giveUpAt = time.Now().Add(giveUpAfter)
	s.scheduleLocked(m, time.Now())
}

// seal seals a message whose room is acquired, and appends it to frame. Slot is nil
// when it has to wait: the room is given back.
func (s *sessions) seal(o *outgoing, m *member, frame []byte, category codec.Category, body []byte) (sealed []byte, slot *slot, by *self) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot = o.push(len(body) + session.SealedOverhead)
	ok := false
	s.eventLocked(m, time.Now(), false, func(now time.Time, out *session.Actions) session.Drop {
		sealed, ok = m.core.Send(now, frame, uint8(category), body, out)
		return session.DropNone
	})
	slot, s.slot = s.slot, nil
	if !ok {
		o.void(slot)
		return nil, nil, nil
	}
	m.sent++
	return sealed, slot, s.self
}

// hurry has handshakes that messages wait for go on at once: there is a connection
// again, to that address, or with the zero address to all.
func (s *sessions) hurry(to codec.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		if m.users > 0 && (to.IsZero() || to == m.address) {
			s.eventLocked(m, time.Now(), false, func(now time.Time, out *session.Actions) session.Drop {
				m.core.Hurry(now, out)
				return session.DropNone
			})
		}
	}
}

// refusedSince returns the notice that the member can't be reached, if there was
// one more.
func (s *sessions) refusedSince(m *member, refusals uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.refusals == refusals {
		return nil
	}
	if r := m.revoked.Load(); r != nil {
		return r.err // that is why
	}
	return m.refusal
}

// missing says what a message to the member waits for.
func (s *sessions) missing(m *member) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.core.Info().Made.IsZero() {
		return "session with " + m.address.String()
	}
	return "credit from " + m.address.String() + ", whose application is slow to take what it has, or whose window is too small for the message"
}
