package session

import (
	"slices"
	"time"
)

// The handshake (PROTOCOL.md section 15.6).
//
//	initiator                            responder
//	start: M1, kept in offers   ─────▶  takeM1: keys; a pending session
//	takeM2: keys; in use        ◀─────  M2
//	confirm, messages           ─────▶  heard: the pending session is in use
//	heard: no more confirm      ◀─────  confirm
const (
	m1First      = time.Second // until the second M1; doubled
	m1Most       = 30 * time.Second
	m1Least      = time.Second     // between two M1s
	m1Hurried    = 4 * time.Second // between two M1s, when the peer shows that it is there
	pendingWait  = 2 * time.Second // for the peer, before an own M1
	pendingFor   = 30 * time.Second
	attemptAlone = 120 * time.Second // an attempt that nobody waits for
)

// offer is an own M1 that may still be answered.
type offer struct {
	id     ID
	keys   keyPair
	hash   [hashSize]byte
	signed []byte
	credit uint64
	order  uint64
	number int // within the attempt
}

// start starts a handshake, if none is under way.
func (p *Peer) start(now time.Time, out *Actions) {
	if p.attempting {
		return
	}
	p.attempting, p.attemptSince, p.offered, p.waits = true, now, 0, 0
	p.nextM1 = p.earliestM1(now)
	p.tryM1(now, out)
}

// startFor starts a handshake for who wants to send a message with that charge. One
// that is under way, and nobody has waited for, goes on as if it had just begun.
func (p *Peer) startFor(now time.Time, charge int, out *Actions) {
	alone := p.attempting && !p.wanted
	p.want(charge)
	if alone {
		p.Hurry(now, out)
		return
	}
	p.start(now, out)
}

// Hurry says that there is a way to the peer again, and what was sent lately may
// never have left: a handshake that somebody waits for goes on as if it had just begun.
func (p *Peer) Hurry(now time.Time, out *Actions) {
	if !p.attempting || !p.wanted {
		return
	}
	p.waits = 0
	if next := p.earliestM1(now); next.Before(p.nextM1) {
		p.nextM1 = next
	}
	p.tryM1(now, out)
}

// startSoon starts a handshake, or hurries that under way: the peer is there.
func (p *Peer) startSoon(now time.Time, out *Actions) {
	p.start(now, out)
	if next := p.lastM1.Add(m1Hurried); next.Before(p.nextM1) {
		p.nextM1 = next
		if least := p.earliestM1(now); least.After(next) {
			p.nextM1 = least
		}
	}
	p.tryM1(now, out)
}

// earliestM1 is when an M1 may be sent.
func (p *Peer) earliestM1(now time.Time) time.Time {
	at := now
	if next := p.lastM1.Add(m1Least); !p.lastM1.IsZero() && next.After(at) {
		at = next
	}
	for _, s := range p.sessions {
		if next := s.made.Add(pendingWait); s.state == pending && next.After(at) {
			at = next
		}
	}
	return at
}

// endAttempt ends the handshake under way and erases its keys.
func (p *Peer) endAttempt() {
	p.attempting, p.offers = false, nil
}

// tryM1 sends an M1 when it is time.
func (p *Peer) tryM1(now time.Time, out *Actions) {
	if !p.attempting || now.Before(p.nextM1) {
		return
	}
	if !p.wanted && now.Sub(p.attemptSince) >= attemptAlone {
		p.endAttempt()
		if p.current != nil {
			p.current.renewAt = now.Add(p.local.pace.renewAfter)
		}
		return
	}
	cfg := &p.local.cfg
	p.orders += orderStep
	o := offer{id: p.newID(), keys: newKeyPair(cfg.Rand, cfg.Encapsulate != nil), credit: p.window(), order: p.orders, number: p.offered}
	m := m1{id: o.id, aeads: cfg.AEADs, credit: uint32(o.credit), kemKey: o.keys.kemPublic(), chain: cfg.Chain()}
	copy(m.public[:], o.keys.x.PublicKey().Bytes())
	o.signed = p.frame(m.append(nil))
	o.hash = hashOf(o.signed)
	if len(p.offers) == offersMax {
		p.offers = slices.Delete(p.offers, 0, 1)
	}
	p.offers = append(p.offers, o)
	p.lastM1, p.nextM1 = now, now.Add(min(m1First<<min(p.waits, 10), m1Most))
	p.offered++
	p.waits++
	out.Frames = append(out.Frames, o.signed)
}

// frame returns the signed bytes of a frame of category 1.
func (p *Peer) frame(body []byte) []byte {
	return slices.Clip(append(p.stamp(nil, categorySession, false, len(body)), body...))
}

// takeM1 answers an M1.
func (p *Peer) takeM1(now time.Time, signed []byte, out *Actions) Drop {
	var m m1
	if err := m.decode(signed[HeaderSize:]); err != nil {
		return dropOf(err)
	}
	if len(p.offers) > 0 && p.firstAddress() {
		p.startSoon(now, out)
		return DropCrossed
	}
	hash, at := hashOf(signed), sendTime(signed)
	var waiting int
	var stalest *session
	for _, s := range p.sessions {
		if s.m1 == hash {
			return DropRepeatedM1
		}
		if s.state == pending {
			waiting++
			if stalest == nil || s.peerTime < stalest.peerTime {
				stalest = s
			}
		}
	}
	if waiting < pendingMax {
		stalest = nil
	} else if at <= stalest.peerTime {
		return DropStaleM1
	}
	if !p.m1s.take(now, peerHandshakesBurst, 1) || !p.local.handshakes.take(now, handshakesPerSecond, handshakesPerSecond) {
		return DropRate
	}
	if stalest == nil && p.local.halfOpen >= halfOpenMax {
		return DropHalfOpen
	}
	s := p.respond(now, &m, signed, out)
	if s == nil {
		return DropRefused
	}
	if stalest != nil {
		p.erase(stalest)
	}
	s.m1 = hash
	s.peerTime = at
	s.order = p.orderOf(at)
	p.local.halfOpen++
	p.insert(s)
	if p.attempting {
		p.nextM1 = p.earliestM1(now)
		p.waits = 0
	}
	return DropNone
}

// orderStep leaves room for a session just before another.
const orderStep = 2

// orderOf is the order of a session whose M1 the peer sent then. An M1 that was
// sent before the peer's message which made the session in use has crossed that
// session's handshake: for the peer it is the earlier of the two.
func (p *Peer) orderOf(at uint64) uint64 {
	if p.current != nil && at <= p.current.peerTime {
		return p.current.order - 1
	}
	p.orders += orderStep
	return p.orders
}

// firstAddress reports whether this end's M1s go before the peer's.
func (p *Peer) firstAddress() bool {
	return slices.Compare(p.local.cfg.Address[:], p.address[:]) < 0
}

// respond makes the session of an M1 and sends M2; nil when a key is bad.
func (p *Peer) respond(now time.Time, m *m1, signed []byte, out *Actions) *session {
	cfg := &p.local.cfg
	keys := newKeyPair(cfg.Rand, false)
	secret, err := exchange(keys.x, m.public[:])
	if err != nil {
		return nil
	}
	answer := m2{
		id: p.newID(), aead: cfg.AEADs.Choose(m.aeads), credit: uint32(p.window()),
		m1: hashOf(signed), chain: cfg.Chain(),
	}
	var kemSecret []byte
	if len(m.kemKey) > 0 && cfg.Encapsulate != nil {
		if kemSecret, answer.ciphertext, err = cfg.Encapsulate(m.kemKey); err != nil {
			clear(secret)
			return nil
		}
	}
	copy(answer.public[:], keys.x.PublicKey().Bytes())
	own := p.frame(answer.append(nil))
	k := deriveKeys(secret, kemSecret, signed, own)
	defer k.clear()
	out.Frames = append(out.Frames, own)
	s := &session{
		id: answer.id, peerID: m.id, state: pending, made: now, expires: now.Add(pendingFor),
		aead: answer.aead, hybrid: len(answer.ciphertext) > 0,
		seal: answer.aead.New(k.r2i), open: answer.aead.New(k.i2r),
	}
	s.start(m.credit, answer.credit)
	return s
}

// start gives a new session its credit and replay window.
func (s *session) start(theirs, ours uint32) {
	s.replay = NewReplay(replayWindow)
	s.out.granted = uint64(theirs)
	s.in.limit = uint64(ours)
}

const replayWindow = 16384 // counters

// takeM2 makes the session of an own M1, and puts it into use.
func (p *Peer) takeM2(now time.Time, signed []byte, out *Actions) Drop {
	var m m2
	if err := m.decode(signed[HeaderSize:]); err != nil {
		return dropOf(err)
	}
	i := slices.IndexFunc(p.offers, func(o offer) bool { return o.hash == m.m1 })
	if i < 0 {
		return DropUnknownM1
	}
	o := p.offers[i]
	p.offers = slices.Delete(p.offers, 0, i+1) // it is good for one M2, older ones for none
	if !p.local.cfg.AEADs.Has(m.aead) || len(m.ciphertext) > 0 && o.keys.kem == nil {
		return DropRefused
	}
	secret, err := exchange(o.keys.x, m.public[:])
	if err != nil {
		return DropRefused
	}
	var kemSecret []byte
	if len(m.ciphertext) > 0 {
		if kemSecret, err = o.keys.kem.Decapsulate(m.ciphertext); err != nil {
			clear(secret)
			return DropRefused
		}
	}
	k := deriveKeys(secret, kemSecret, o.signed, signed)
	defer k.clear()
	s := &session{
		id: o.id, peerID: m.id, initiator: true, order: o.order, made: now,
		m1: o.hash, peerTime: sendTime(signed), unsure: p.offered-1-o.number >= pendingMax,
		aead: m.aead, hybrid: len(m.ciphertext) > 0,
		seal: m.aead.New(k.i2r), open: m.aead.New(k.r2i),
	}
	s.start(m.credit, uint32(o.credit))
	p.insert(s)
	p.use(now, s, out)
	return DropNone
}

// dropOf is the reason for an error of a decoder.
func dropOf(err error) Drop {
	if err == ErrVersion {
		return DropVersion
	}
	return DropMalformed
}
