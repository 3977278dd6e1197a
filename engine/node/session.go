package node

import (
	"crypto/mlkem"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/session"
)

// Sessions with members of the domain (PROTOCOL.md section 15). crypto/session
// decides; here its events happen, one at a time, and its actions are done:
//
//	seal.go      Send: a message is sealed, or waits for a session or credit
//	unseal.go    frames of category 1 and sealed messages come; Receive takes
//	duemember.go what only time brings, and when a member is forgotten
//
// A member takes 900 bytes here; with an idle session some 5 KB more, most of it
// replay window and the AEADs' tables; while messages come and go, up to 128 KB of
// charges, and what waits for Receive, of which its window is the bound.

// SessionMembersDefault bounds the members that are known at once. A hub of more
// needs more; one that is idle is forgotten within half an hour.
const SessionMembersDefault = 16384

// sessions is this node's end of all of them.
type sessions struct {
	node *Node
	max  int           // members
	wake chan struct{} // capacity 1: the first of due has changed

	// mu comes after receiving.mu, which is held too when messages may come of an
	// event, and before outgoing.mu.
	mu      sync.Mutex
	local   *session.Local
	members map[codec.Address]*member
	due     dueMembers
	held    int                           // messages, for order
	revoked map[codec.Address]*revocation // at most revokedMax
	ended   bool

	// Of the event under way.
	self    *self
	slot    *slot // of the message that is sealed
	stamped []stamped
	acts    session.Actions
}

// stamped is a frame of category 1 that the core makes.
type stamped struct {
	out    *outgoing
	slot   *slot
	queued bool // else it is dropped: there is no room, or no router
}

// member is this node's end of the sessions with one address.
type member struct {
	address codec.Address
	core    *session.Peer
	turn    chan struct{}              // capacity 1: full while a Send is at work; others wait, first come first served
	ready   chan struct{}              // capacity 1: the Send at work may try again, or was refused
	revoked atomic.Pointer[revocation] // as in sessions.revoked; changed with sessions.mu held

	// Guarded by sessions.mu.
	cert     *certificate // of the last frame that came; nil: none
	users    int          // Sends at work or waiting for their turn
	refusals uint64       // so many notices said that the member can't be reached
	refusal  *NoticeError // the last of them
	giveUpAt time.Time    // then nobody has waited to send for long enough; zero: somebody waits, or nobody did
	dueAt    time.Time    // of the next tick
	place    int          // in sessions.due
	sent     uint64       // messages sealed for it
	received uint64       // messages of it that were delivered
}

// memberNotice is a notice about a frame of category 1.
type memberNotice struct {
	member *member
	notice *NoticeError
}

func newSessions(n *Node) (*sessions, error) {
	s := &sessions{
		node: n, max: n.cfg.SessionMembers, wake: make(chan struct{}, 1),
		members: make(map[codec.Address]*member), revoked: make(map[codec.Address]*revocation),
	}
	var err error
	s.local, err = session.New(session.Config{
		Address: session.Address(n.address), Stamp: s.stamp, Rand: n.rand, Encapsulate: encapsulate,
		Chain:  func() [][]byte { return s.self.id.Peer.Chain },
		Window: n.cfg.Window,
	})
	return s, err
}

// encapsulate is ML-KEM-768's, with randomness of its own.
func encapsulate(key []byte) (secret, ciphertext []byte, err error) {
	k, err := mlkem.NewEncapsulationKey768(key)
	if err != nil {
		return nil, nil, err
	}
	secret, ciphertext = k.Encapsulate()
	return secret, ciphertext, nil
}

// memberLocked returns the member, which it makes when there is none; nil when
// they are too many, or there are no sessions with that address.
func (s *sessions) memberLocked(a codec.Address) *member {
	m := s.members[a]
	if m != nil || len(s.members) >= s.max || s.ended || a == s.node.address || a.Kind() != codec.KindNode {
		return m
	}
	m = &member{
		address: a, core: s.local.Peer(session.Address(a)),
		turn: make(chan struct{}, 1), ready: make(chan struct{}, 1),
	}
	m.revoked.Store(s.revoked[a])
	s.members[a] = m
	s.scheduleLocked(m, time.Now())
	return m
}

// stamp makes the header of a frame, and queues it where its send time says.
func (s *sessions) stamp(to session.Address, category uint8, encrypted bool, bodySize int) (h session.Header) {
	slot := s.slot
	if category == uint8(codec.CategorySession) {
		st := stamped{out: s.node.outTo(codec.Address(to))}
		st.slot, st.queued = st.out.reserveSession(bodySize)
		s.stamped = append(s.stamped, st)
		slot = st.slot
	}
	f := codec.Frame{
		Recipient: codec.Address(to), Sender: s.node.address, Category: codec.Category(category),
		SendTime: slot.sendTime, CertID: s.self.certID, Encrypted: encrypted,
	}
	f.AppendSigned(h[:0])
	binary.BigEndian.PutUint32(h[len(h)-bodyLengthSize:], uint32(bodySize))
	return h
}

// bodyLengthSize is that of a header's last field.
const bodyLengthSize = 4

// Compile-time: a header is what comes before the body, but for the time to live.
var _ [0]struct{} = [codec.HeaderSize - ttlSize - session.HeaderSize]struct{}{}

// eventLocked has something happen to a member, and does what comes of it. message
// says that the event is a message that comes. The caller has receiving.mu too when
// messages may come of it.
func (s *sessions) eventLocked(m *member, now time.Time, message bool, event func(now time.Time, out *session.Actions) session.Drop) session.Drop {
	s.self = s.node.self.Load()
	s.acts.Reset()
	clear(s.stamped)
	s.stamped = s.stamped[:0]
	held := m.core.Held()
	drop := event(now, &s.acts)
	come := held - len(s.acts.Messages)
	if message && drop == session.DropNone {
		come++
	}
	s.countLocked(held, m.core.Held(), come-m.core.Held())
	if refused := s.node.deliverSealedLocked(m, s.acts.Messages); refused > 0 {
		m.core.Taken(now, refused, &s.acts)
	}
	s.publishLocked(m)
	if s.acts.Ready {
		signal(m.ready)
	}
	s.scheduleLocked(m, now)
	return drop
}

// countLocked counts how many messages are held for order, and lost with their
// session.
func (s *sessions) countLocked(before, now, lost int) {
	s.held += now - before
	s.node.counters.dropped[dropEnded].Add(uint64(lost))
}

// publishLocked gives the writer the frames of category 1 that an event has made.
func (s *sessions) publishLocked(m *member) {
	if len(s.acts.Frames) != len(s.stamped) {
		panic("node: crypto/session stamps each frame of category 1 once, in order")
	}
	n := s.node
	for i, signed := range s.acts.Frames {
		st := s.stamped[i]
		if !st.queued {
			n.counters.answersLost.Add(1)
			continue
		}
		frame, state, err := s.self.ofSigned(signed)
		if err != nil {
			n.counters.answersLost.Add(1)
			st.out.void(st.slot)
			continue
		}
		raw := codec.Raw(frame)
		st.out.publish(st.slot, state, s.self, frame, &Sent{
			To: m.address, Category: codec.CategorySession, SendTime: raw.SendTime(), Digest: codec.DigestOf(signed),
			node: n, out: st.out, internal: true, session: m,
		})
	}
}

// ofSigned makes a frame for the queue of its signed bytes.
func (s *self) ofSigned(signed []byte) (frame []byte, state slotState, err error) {
	frame = make([]byte, 0, ttlSize+len(signed)+codec.SignatureLengthSize+signatureMax)
	frame = append(append(frame, codec.TTLDefault), signed...)
	return s.forQueue(frame)
}

// forQueue signs a frame, unless the writer does.
func (s *self) forQueue(frame []byte) ([]byte, slotState, error) {
	if s.signer.Bursts() {
		return frame, slotUnsigned, nil
	}
	frame, err := s.signAlone(frame)
	return frame, slotReady, err
}

// refused takes notices about frames of category 1: who waits for their recipient
// learns that it can't be reached, unless trying again may help.
func (s *sessions) refused(all []memberNotice) {
	if len(all) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range all {
		if r.notice.Reason == codec.NoticeQueueFull || r.notice.Reason == codec.NoticeUnconfirmed {
			continue
		}
		m := r.member
		m.refusals++
		m.refusal = r.notice
		signal(m.ready)
		if m.users == 0 {
			s.giveUpLocked(m)
		}
	}
}

// giveUpLocked ends a handshake that nobody waits for, and is of no use.
func (s *sessions) giveUpLocked(m *member) {
	m.giveUpAt = time.Time{}
	m.core.GiveUp()
	m.core.Unreachable()
	s.scheduleLocked(m, time.Now())
}

func (s *sessions) eraseLocked(m *member) {
	lost := m.core.Held()
	m.core.Erase()
	s.countLocked(lost, 0, lost)
	signal(m.ready)
	s.scheduleLocked(m, time.Now())
}

// end ends all sessions, for good.
func (s *sessions) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, m := range s.members {
		s.eraseLocked(m)
	}
}
