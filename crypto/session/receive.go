package session

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// A frame on its way in:
//
//  1. Its session is found by ID; an unknown one is answered by a reset.
//  2. Its counter is fresh; it opens; the counter is marked.
//  3. The first frame of a pending session puts that into use (change.go).
//  4. A content of category 1 acts at once; a message is charged (credit.go).
//  5. Both take their place in the order (order.go), and what is next is delivered.
const (
	resetEvery    = time.Second
	waitingFactor = 3 // windows that may wait in all
)

// Received is a frame of category 1, or with flag 1, from the peer: verified, and
// no duplicate.
type Received struct {
	Signed []byte   // bytes [1, 55+n) of the frame
	Digest [16]byte // of them; handed on with a message
}

// Opens reports whether Receive may open a frame (its signed bytes) with flag 1, and
// keep parts of it; other such frames it only looks at.
func (p *Peer) Opens(signed []byte) bool {
	var b sealed
	return len(signed) >= HeaderSize && b.decode(signed[HeaderSize:]) == nil && p.find(b.id) != nil
}

// Receive takes a frame, which is opened in place; the messages that come of it
// are parts of it. It returns why the frame was dropped, or DropNone.
func (p *Peer) Receive(now time.Time, f Received, out *Actions) Drop {
	if len(f.Signed) < HeaderSize {
		return DropMalformed
	}
	body := f.Signed[HeaderSize:]
	if category := f.Signed[offsetCategory]; category != categorySession {
		if f.Signed[offsetFlag] != 1 || !isSealable(category) {
			return DropMalformed
		}
		return p.receiveSealed(now, f, body, out)
	}
	if f.Signed[offsetFlag] != 0 || len(body) == 0 || len(body) > handshakeBodyMax {
		return DropMalformed
	}
	switch body[0] {
	case bodyM1:
		return p.takeM1(now, f.Signed, out)
	case bodyM2:
		return p.takeM2(now, f.Signed, out)
	case bodyReset:
		return p.takeReset(now, body, out)
	case bodySealed:
		return p.receiveSealed(now, f, body[typeSize:], out)
	}
	return DropMalformed
}

// isSealable reports whether frames of a category have sealed bodies: data, device
// traffic, and applications'.
func isSealable(category uint8) bool { return category == 0 || category == 5 || category >= 64 }

func (p *Peer) receiveSealed(now time.Time, f Received, body []byte, out *Actions) Drop {
	var b sealed
	if b.decode(body) != nil {
		return DropMalformed
	}
	s := p.find(b.id)
	if s == nil {
		p.reset(now, b.id, out)
		return DropUnknown
	}
	if !s.replay.Fresh(b.counter) {
		return DropReplayed
	}
	plain, err := s.openBody(&b, f.Signed[:HeaderSize])
	if err != nil {
		return DropSeal
	}
	s.replay.Mark(b.counter)
	changed := p.heard(now, s, out)
	p.doubt(now, s, out)
	drop := DropNone
	if f.Signed[offsetCategory] == categorySession {
		drop = p.takeContent(now, s, b.counter, plain, changed, out)
		p.place(now, s, b.counter, nil, out)
	} else {
		drop = p.takeMessage(now, s, b.counter, &Message{
			Category: f.Signed[offsetCategory], Content: plain, Digest: f.Digest,
			SendTime: sendTime(f.Signed), Charge: Charge(len(body)),
		}, out)
	}
	if b.counter >= p.local.pace.renewMessages && s == p.current {
		p.renewNow(now, s, out)
	}
	return drop
}

// sendTime is that of a frame's signed bytes.
func sendTime(signed []byte) uint64 { return binary.BigEndian.Uint64(signed[offsetSendTime:]) }

// takeMessage charges a message and gives it its place.
func (p *Peer) takeMessage(now time.Time, s *session, counter uint64, m *Message, out *Actions) Drop {
	if !s.in.arrived(counter, m.Charge) || p.waiting+m.Charge > waitingFactor*p.local.cfg.Window {
		p.erase(s)
		p.advance(out)
		if p.wanted && p.current == nil {
			p.start(now, out)
		}
		return DropCredit
	}
	s.carried = true
	p.waiting += m.Charge
	if !p.place(now, s, counter, m, out) {
		p.waiting -= m.Charge
		p.offerCredit(now, false, out)
		return DropLate
	}
	return DropNone
}

// takeContent does what a sealed content of category 1 says. When its frame has
// put the session into use (changed), confirm has gone out already.
func (p *Peer) takeContent(now time.Time, s *session, counter uint64, plain []byte, changed bool, out *Actions) Drop {
	var c content
	if c.decode(plain) != nil {
		return DropMalformed
	}
	switch c.kind {
	case contentConfirm:
		p.follow(now, s, c.id, c.counter, out)
		if s == p.current && !s.initiator && !changed {
			if !p.mayAnswer(now) {
				return DropRate
			}
			p.confirm(now, s, out)
		}
	case contentGrant:
		if c.counter > s.last {
			return DropMalformed
		}
		if s == p.current {
			s.out.grant(counter, c.counter, c.bytes)
			p.ready(now, out)
		}
	case contentProbe:
		if s == p.current {
			if !p.mayAnswer(now) {
				return DropRate
			}
			p.offerCredit(now, true, out)
		}
	}
	return DropNone
}

// mayAnswer reports whether the peer may have another answer now.
func (p *Peer) mayAnswer(now time.Time) bool {
	return p.answers.take(now, answersBurst, answersPerSecond)
}

// doubt starts a handshake when the peer goes on in a session that counts as the
// earlier: it may have started again, by a clock that was ahead before, and does
// not know the session in use.
func (p *Peer) doubt(now time.Time, s *session, out *Actions) {
	if s.passedOver && now.Sub(s.made) >= pendingWait {
		s.passedOver = false
		p.start(now, out)
	}
}

// reset tells the peer that its session is not known, at most once a second.
func (p *Peer) reset(now time.Time, id ID, out *Actions) {
	if now.Before(p.resetAt) || !p.local.handshakes.take(now, handshakesPerSecond, handshakesPerSecond) {
		return
	}
	p.resetAt = now.Add(resetEvery)
	frame := p.stamp(nil, categorySession, false, typeSize+idSize)
	out.Frames = append(out.Frames, appendReset(frame, id))
}

// takeReset starts a handshake when the peer does not know the session in use.
func (p *Peer) takeReset(now time.Time, body []byte, out *Actions) Drop {
	id, err := decodeReset(body)
	if err != nil {
		return DropMalformed
	}
	if p.current == nil || id != p.current.peerID {
		return DropUnknownReset
	}
	p.hold = true
	p.startSoon(now, out)
	return DropNone
}

// hashOf names an M1.
func hashOf(signed []byte) [hashSize]byte { return sha256.Sum256(signed) }
