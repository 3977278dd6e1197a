package session

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"
)

// HeaderSize is how many bytes of a frame come before its body, but for the first,
// time to live, which nobody signs.
const HeaderSize = 54

// Offsets in a Header.
const (
	offsetCategory   = 32
	offsetSendTime   = 33
	offsetFlag       = 49
	offsetBodyLength = 50
)

// Header is the bytes [1, 55) of a frame (PROTOCOL.md section 1): recipient 16 |
// sender 16 | category 1 | send time 8 | certificate ID 8 | flag 1 | body length 4.
type Header [HeaderSize]byte

// categorySession is that of handshakes, resets and sealed contents.
const categorySession = 1

// Address names an end.
type Address [16]byte

// Config is what all sessions of a node have in common.
type Config struct {
	Address Address // of this node

	// Stamp makes the header of the next frame to a peer: each has a send time
	// later than all before.
	Stamp func(to Address, category uint8, encrypted bool, bodySize int) Header
	// Chain returns the certificates under which Stamp has frames signed: DER, leaf
	// first, without the root, 1 to 3. Borrowed until the next call.
	Chain func() [][]byte
	// Rand gives the bytes that private keys and session IDs are made from. It
	// must not fail.
	Rand io.Reader
	// Encapsulate makes a secret of 32 bytes and its ciphertext for an ML-KEM-768
	// encapsulation key; an error says that the key is bad. nil: this node has no
	// ML-KEM.
	Encapsulate func(key []byte) (secret, ciphertext []byte, err error)

	AEADs  AEADs // what this node offers; 0: CPUAEADs()
	Window int   // bytes of credit, at least twice the charge of the largest message; 0: WindowDefault
}

// Local is this node's end of all its sessions. It and its Peers are for one
// goroutine at a time.
type Local struct {
	cfg        Config
	pace       pace
	handshakes bucket // of all peers
	halfOpen   int    // pending sessions of all peers; at most halfOpenMax
}

// pace has what tests want shorter.
type pace struct {
	renewAfter    time.Duration // age of a session that is renewed
	renewLater    time.Duration // the responder of a session renews it so much later
	holdAfter     time.Duration // age from which nothing is sent in it
	eraseAfter    time.Duration // age at which it is erased
	renewMessages uint64        // the counter at which it is renewed
	holdMessages  uint64        // the last counter that is used
}

var normalPace = pace{
	renewAfter:    10 * time.Minute,
	renewLater:    10 * time.Second,
	holdAfter:     20 * time.Minute,
	eraseAfter:    21 * time.Minute,
	renewMessages: 1 << 30,
	holdMessages:  1 << 31,
}

// New returns this node's end. An error is the operator's: a window that is
// negative or above WindowMax.
func New(cfg Config) (*Local, error) {
	if cfg.Window == 0 {
		cfg.Window = WindowDefault
	}
	if cfg.Window < 4*Charge(0) || cfg.Window > WindowMax {
		return nil, fmt.Errorf("session: a window of %d bytes is outside %d to %d", cfg.Window, 4*Charge(0), WindowMax)
	}
	if cfg.AEADs == 0 {
		cfg.AEADs = CPUAEADs()
	}
	cfg.AEADs |= AEADs(ChaCha20Poly1305)
	return &Local{cfg: cfg, pace: normalPace}, nil
}

// state is a session's.
type state uint8

const (
	pending state = iota // M1 is answered, no frame has come: receives
	inUse                // sends and receives; at most one
	old                  // another has taken its place: receives
)

// session is what one handshake has made, from this end's view.
type session struct {
	id, peerID  ID // under which this end and the peer receive
	initiator   bool
	aead        AEAD
	hybrid      bool // keys are of ML-KEM too
	state       state
	order       uint64    // see Peer.sessions
	made        time.Time // its M2 was sent or taken
	expires     time.Time // pending and old; inUse: by its age
	m1          [hashSize]byte
	peerTime    uint64 // send time of the peer's M1 or M2
	seal        cipher.AEAD
	open        cipher.AEAD
	nonce       [NonceSize]byte // of the operation under way
	previous    ID              // what confirm tells: where this end sent before
	previousEnd uint64
	confirmAt   time.Time // confirm is repeated; zero: no more
	confirmWait time.Duration
	renewAt     time.Time
	carried     bool // a message of an application
	heard       bool // a frame of the peer has opened
	unsure      bool // until heard: the peer may have dropped it; the attempt goes on
	passedOver  bool // a later one was in use when it was first heard

	last   uint64 // counter used last
	out    outbound
	replay Replay
	in     inbound
	stream stream
}

// Peer is this node's end of the sessions with one address.
//
// Sessions are in the order in which their handshakes began, as far as both ends
// agree on it: a session never takes the place of a later one, and messages of the
// earlier are delivered first. At most one is inUse.
type Peer struct {
	local    *Local
	address  Address
	sessions []*session
	current  *session // inUse; nil: none
	orders   uint64   // of the newest handshake
	hold     bool     // current is not sent in: the peer has reset it

	offers       []offer // own M1s that are kept, oldest first
	offered      int     // own M1s of this attempt
	waits        int     // M1s since the wait for M2 was short
	attempting   bool
	attemptSince time.Time
	nextM1       time.Time
	lastM1       time.Time

	wanted       bool // somebody waits to send
	wantedCharge int
	probeAt      time.Time // zero: nobody waits for credit
	probeWait    time.Duration

	waiting  int               // charges of messages held or delivered, and not taken
	held     int               // messages held for order
	epoch    uint64            // sessions that were put into use
	arrivals queue[arrival]    // of held messages, by time
	m1s      bucket            // M1s of the peer
	answers  bucket            // to its probes and confirms
	resetAt  time.Time         // no reset before
	scratch  [confirmSize]byte // the longest content
}

// Peer returns a new peer without sessions. There must be one for an address.
func (l *Local) Peer(address Address) *Peer { return &Peer{local: l, address: address} }

// Message is a body that the peer has sealed.
type Message struct {
	Category uint8
	Content  []byte // given; part of what Receive took
	SendTime uint64 // nanoseconds since the Unix epoch, by the sender's clock
	Digest   [16]byte
	Charge   int // for Taken
}

// Actions is what events ask of the caller. Events append to it.
type Actions struct {
	// Frames are signed bytes of frames to the peer: sign and send them in this order,
	// before what a later Send returns. They must not be changed.
	Frames [][]byte
	// Messages are for the application, in this order.
	Messages []Message
	// Ready: a Send that was refused may succeed now.
	Ready bool
}

// Reset empties a for the next event, and keeps its memory.
func (a *Actions) Reset() {
	clear(a.Frames)
	clear(a.Messages)
	*a = Actions{Frames: a.Frames[:0], Messages: a.Messages[:0]}
}

// stamp appends the header of a frame.
func (p *Peer) stamp(dst []byte, category uint8, encrypted bool, bodySize int) []byte {
	h := p.local.cfg.Stamp(p.address, category, encrypted, bodySize)
	if h[offsetCategory] != category || (h[offsetFlag] == 1) != encrypted || binary.BigEndian.Uint32(h[offsetBodyLength:]) != uint32(bodySize) {
		panic("session: Stamp must put category, flag and body length into the header as asked")
	}
	return append(dst, h[:]...)
}

// newID returns an ID that no session or M1 of the peer has.
func (p *Peer) newID() (id ID) {
	for {
		mustRead(p.local.cfg.Rand, id[:])
		taken := slices.ContainsFunc(p.offers, func(o offer) bool { return o.id == id })
		if id != (ID{}) && !taken && p.find(id) == nil {
			return id
		}
	}
}

// find returns the session that this end receives in under id; nil for none.
func (p *Peer) find(id ID) *session {
	for _, s := range p.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

// insert puts a session where its order says.
func (p *Peer) insert(s *session) {
	at := len(p.sessions)
	for at > 0 && p.sessions[at-1].order > s.order {
		at--
	}
	p.sessions = slices.Insert(p.sessions, at, s)
}

// window is what may wait now, in bytes: for a grant or an initial credit.
func (p *Peer) window() uint64 { return uint64(max(p.local.cfg.Window-p.waiting, 0)) }

// Taken says that the application has taken messages with these charges in all.
func (p *Peer) Taken(now time.Time, charges int, out *Actions) {
	p.waiting -= charges
	if p.waiting < 0 {
		panic(fmt.Sprintf("session: Taken: %d bytes more than were delivered", -p.waiting))
	}
	p.offerCredit(now, false, out)
}

// GiveUp says that nobody waits to send any more.
func (p *Peer) GiveUp() {
	p.wanted = false
	p.probeAt = time.Time{}
}

// Unreachable says that a notice has come about an M1 or another frame of this end:
// a handshake that nobody waits for ends, unless it is to renew a session.
func (p *Peer) Unreachable() {
	if !p.wanted && p.current == nil {
		p.endAttempt()
	}
}

// Erase ends all sessions and handshakes: the peer's certificate is revoked, or
// this node ends. Messages that are held for order are dropped.
func (p *Peer) Erase() {
	for len(p.sessions) > 0 {
		p.erase(p.sessions[0])
	}
	p.endAttempt()
	p.GiveUp()
	p.arrivals = queue[arrival]{}
}

// Idle reports whether nothing is lost when p is forgotten: no session, nothing
// under way, nothing waits, and no budget is used.
func (p *Peer) Idle(now time.Time) bool {
	return len(p.sessions) == 0 && !p.attempting && !p.wanted && p.waiting == 0 &&
		!now.Before(p.resetAt) && p.m1s.full(now, peerHandshakesBurst, 1)
}
