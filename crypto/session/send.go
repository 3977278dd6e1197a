package session

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// A message on its way out:
//
//  1. There is a session that may be sent in, or a handshake starts.
//  2. The peer's credit covers it, or after a second a probe goes out.
//  3. The header is stamped, since it is part of what the tag covers.
//  4. Sealed behind it, under the next counter.
const (
	probeFirst = time.Second
	probeMost  = 8 * time.Second
)

// Send seals a message of category 0, 5 or 64 to 255 and appends the signed bytes
// of its frame to dst. Content is borrowed and must not overlap dst. It reports
// false, with dst as it was, when there is no session or no credit: then
// Actions.Ready tells when to try again; who waits no longer calls GiveUp.
func (p *Peer) Send(now time.Time, dst []byte, category uint8, content []byte, out *Actions) ([]byte, bool) {
	if !isSealable(category) {
		panic(fmt.Sprintf("session: Send: a message of category %d is never sealed", category))
	}
	bytes := Charge(len(content) + SealedOverhead)
	s := p.current
	if !p.usable(now) {
		p.startFor(now, bytes, out)
		return dst, false
	}
	if !s.out.covers(bytes) {
		p.want(bytes)
		p.awaitCredit(now)
		return dst, false
	}
	p.GiveUp()
	dst = p.sealFrame(dst, s, category, content)
	s.out.sent(s.last, bytes)
	s.carried = true
	if s.last >= p.local.pace.renewMessages {
		p.renewNow(now, s, out)
	}
	return dst, true
}

// usable reports whether there is a session that may be sent in.
func (p *Peer) usable(now time.Time) bool {
	s := p.current
	return s != nil && !p.hold && (s.heard || !s.unsure) && p.maySeal(now, s)
}

// maySeal reports whether the key of s may still be used: by age and counter.
func (p *Peer) maySeal(now time.Time, s *session) bool {
	return s.last < p.local.pace.holdMessages && now.Sub(s.made) < p.local.pace.holdAfter
}

func (p *Peer) want(bytes int) { p.wanted, p.wantedCharge = true, bytes }

// sealFrame appends the signed bytes of a frame with a sealed body; of category 1
// it is one of bodySealed.
func (p *Peer) sealFrame(dst []byte, s *session, category uint8, content []byte) []byte {
	size := len(content) + SealedOverhead
	if category == categorySession {
		size += typeSize
	}
	dst = slices.Grow(dst, HeaderSize+size)
	start := len(dst)
	dst = p.stamp(dst, category, category != categorySession, size)
	if category == categorySession {
		dst = append(dst, bodySealed)
	}
	return s.sealBody(dst, content, dst[start:start+HeaderSize])
}

// sealBody appends a sealed body under the next counter.
func (s *session) sealBody(dst, content, header []byte) []byte {
	s.last++
	dst = append(dst, s.peerID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, s.last)
	binary.BigEndian.PutUint64(s.nonce[NonceSize-counterSize:], s.last)
	return s.seal.Seal(dst, s.nonce[:], content, header)
}

// openBody opens a sealed body in place.
func (s *session) openBody(b *sealed, header []byte) ([]byte, error) {
	binary.BigEndian.PutUint64(s.nonce[NonceSize-counterSize:], b.counter)
	return s.open.Open(b.box[:0], s.nonce[:], b.box, header)
}

// tell sends the peer a sealed content, if anything may be sent in s.
func (p *Peer) tell(now time.Time, s *session, c content, out *Actions) {
	if !p.maySeal(now, s) {
		return
	}
	frame := p.sealFrame(nil, s, categorySession, c.append(p.scratch[:0]))
	out.Frames = append(out.Frames, slices.Clip(frame))
}

// confirm tells that this end sends in s, and where it sent before.
func (p *Peer) confirm(now time.Time, s *session, out *Actions) {
	p.tell(now, s, content{kind: contentConfirm, id: s.previous, counter: s.previousEnd}, out)
}

// offerCredit sends a grant when that is worth a frame, or when it is asked for.
func (p *Peer) offerCredit(now time.Time, asked bool, out *Actions) {
	s := p.current
	if s == nil || !p.maySeal(now, s) {
		return
	}
	w, half := p.window(), int64(p.local.cfg.Window/2)
	raise := s.in.raise(w)
	if !asked && raise < half && (p.waiting > 0 || raise < half/2) {
		return
	}
	c := s.replay.Highest()
	s.in.grant(c, w)
	p.tell(now, s, content{kind: contentGrant, counter: c, bytes: uint32(w)}, out)
}

// ready tells who waits when a message of that size can be sent, or sees to it that
// a probe goes out.
func (p *Peer) ready(now time.Time, out *Actions) {
	switch {
	case !p.wanted || !p.usable(now):
	case p.current.out.covers(p.wantedCharge):
		out.Ready = true
	default:
		p.awaitCredit(now)
	}
}

// awaitCredit has a probe sent after a while.
func (p *Peer) awaitCredit(now time.Time) {
	if p.probeAt.IsZero() {
		p.probeWait = probeFirst
		p.probeAt = now.Add(probeFirst)
	}
}
