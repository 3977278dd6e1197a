package node

import (
	"slices"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/session"
)

// A frame of a session on its way in, when it is verified and no duplicate:
//
//	1. hearSessionLocked   the member; a handshake, or a counter of its session
//	2. in order            what is early is held in crypto/session (Stats.Held)
//	3. deliverSealedLocked waits for Receive, on its sender's credit
//	4. taken               Receive has it: the sender may get new credit

// handshakeChainsPerSecond bounds how many chains in M1 and M2 are verified. With
// more, their senders' certificates are asked for as for all frames.
const handshakeChainsPerSecond = 200

// chainOf returns the chain that a handshake brings with it, nil when the frame is
// none. ok is false when it is not signed under that chain's leaf.
func chainOf(raw codec.Raw) (chain [][]byte, ok bool) {
	chain, err := session.Chain(raw.Body())
	if err != nil || len(chain) == 0 {
		return nil, true // crypto/session says what is wrong with it
	}
	return chain, pki.CertID(chain[0]) == raw.CertID()
}

// learnChainLocked takes a sender's certificate from its M1 or M2 (PROTOCOL.md
// section 15.2), if it is not known. It reports false when the frame is to be
// dropped.
func (n *Node) learnChainLocked(raw codec.Raw, now time.Time) bool {
	chain, ok := chainOf(raw)
	if !ok || chain == nil {
		return ok
	}
	key := raw.CertKey()
	if _, state := n.in.certs.lookup(key, now); state == certKnown || !n.in.chains.take(now, handshakeChainsPerSecond, time.Second) {
		return true
	}
	own := make([][]byte, len(chain)) // certificates keep their bytes, and the frame's are borrowed
	for i, der := range chain {
		own[i] = slices.Clone(der)
	}
	if !n.takeChainLocked(codec.CertificateEntry{CertKey: key, Chain: own}, now) {
		n.hearRevokedLocked(raw, own, now)
		return false
	}
	n.unparkLocked(key.Address, now) // what has waited for it goes first
	return true
}

// bucket is a token bucket.
type bucket struct {
	taken float64
	at    time.Time
}

// take takes one token of most, which come back within refill.
func (b *bucket) take(now time.Time, most float64, refill time.Duration) bool {
	b.taken = max(0, b.taken-now.Sub(b.at).Seconds()/refill.Seconds()*most)
	b.at = now
	if b.taken+1 > most {
		return false
	}
	b.taken++
	return true
}

// hearSessionLocked takes a verified frame (borrowed) of category 1, or a sealed
// message; in.mu is held.
func (n *Node) hearSessionLocked(raw codec.Raw, digest codec.Digest, cert *certificate) {
	s := n.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		n.counters.drop(dropMembers)
		return
	}
	m := s.memberLocked(raw.Sender())
	if m == nil {
		n.counters.drop(dropMembers)
		return
	}
	m.cert = cert
	if m.revoked.Load() != nil {
		s.goodLocked(m.address)
	}
	message, sendTime, signed := raw.Encrypted(), raw.SendTime(), raw.Signed()
	if message && m.core.Opens(signed) {
		signed = slices.Clone(signed) // the application's, when it is open
	}
	drop := s.eventLocked(m, time.Now(), message, func(now time.Time, out *session.Actions) session.Drop {
		return m.core.Receive(now, session.Received{Signed: signed, Digest: digest}, out)
	})
	switch {
	case drop != session.DropNone:
		n.counters.drop(dropOfSession(drop))
	case !message:
		n.counters.consumed.Add(1)
	}
	if drop == session.DropUnknown && message {
		n.answers.notice(n, m.address, codec.NoticeRecipientGone, codec.NoticeFrame{Digest: digest, SendTime: sendTime})
	}
}

// deliverSealedLocked gives messages of a member to Receive; in.mu is held. It
// returns the charges of those that there was no room for.
func (n *Node) deliverSealedLocked(m *member, all []session.Message) (refused int) {
	for i := range all {
		msg := &all[i]
		from := m.address
		if !n.inbox.fitsSealed(msg.Charge) {
			n.counters.drop(dropQueueFull)
			n.answers.notice(n, from, codec.NoticeQueueFull, codec.NoticeFrame{Digest: msg.Digest, SendTime: msg.SendTime})
			refused += msg.Charge
			continue
		}
		n.in.dedup.delivered(from, msg.SendTime)
		n.counters.delivered.Add(1)
		m.received++
		n.inbox.put(Message{
			From: from, To: n.address, FromName: m.cert.name, Category: codec.Category(msg.Category), Sealed: true,
			SendTime: msg.SendTime, Digest: msg.Digest, Body: slices.Clip(msg.Content), member: m, charge: msg.Charge,
		})
	}
	return refused
}

// taken says that Receive has given a sealed message to the application.
func (s *sessions) taken(m *member, charge int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eventLocked(m, time.Now(), false, func(now time.Time, out *session.Actions) session.Drop {
		m.core.Taken(now, charge, out)
		return session.DropNone
	})
}
