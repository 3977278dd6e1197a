package node

import (
	"cmp"
	"slices"
	"time"

	"causeway/codec"
)

// Session is what an operator may know of the sessions with a member. No key can be
// had from a Node.
type Session struct {
	Name        string        `json:"name,omitempty"` // as in its certificate; empty: nothing of it has come
	Address     codec.Address `json:"address"`
	Epoch       uint64        `json:"epoch"`                 // number of the session in use, from 1; or of the last one
	Made        time.Time     `json:"made,omitzero"`         // of the session in use; zero: there is none
	AgeSeconds  float64       `json:"ageSeconds"`            // since then
	Initiator   bool          `json:"initiator"`             // this node has begun it
	AEAD        string        `json:"aead,omitempty"`        // AES-256-GCM or ChaCha20-Poly1305
	KeyExchange string        `json:"keyExchange,omitempty"` // X25519+ML-KEM-768 or X25519
	Handshake   bool          `json:"handshake"`             // this node has one under way
	Pending     int           `json:"pending"`               // sessions the member has begun and not used yet
	Old         int           `json:"old"`                   // sessions that still receive, for a minute
	Sent        uint64        `json:"sent"`                  // messages, in all sessions that are remembered
	Received    uint64        `json:"received"`              // messages given to Receive, or waiting for it
	Senders     int           `json:"senders"`               // calls of Send that wait for a session, credit or their turn
	Credit      int           `json:"credit"`                // bytes that may still be sent, each message charged its body + 288
	Waiting     int           `json:"waiting"`               // bytes that wait for Receive or for earlier messages, charged alike
	Held        int           `json:"held"`                  // messages that wait for earlier ones
}

// Sessions returns all members with whom there are sessions, or were lately, by
// name and address.
func (n *Node) Sessions() []Session {
	s := n.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	all := make([]Session, 0, len(s.members))
	for _, m := range s.members {
		all = append(all, m.show(now))
	}
	slices.SortFunc(all, func(a, b Session) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Address[:], b.Address[:]))
	})
	return all
}

func (m *member) show(now time.Time) Session {
	i := m.core.Info()
	v := Session{
		Address: m.address, Epoch: i.Epoch, Initiator: i.Initiator, Handshake: i.Handshake, Pending: i.Pending, Old: i.Old,
		Sent: m.sent, Received: m.received, Senders: m.users, Credit: i.Credit, Waiting: i.Waiting, Held: i.Held,
	}
	if m.cert != nil {
		v.Name = m.cert.name
	}
	if i.Made.IsZero() {
		return v
	}
	v.Made, v.AgeSeconds, v.AEAD, v.KeyExchange = i.Made, now.Sub(i.Made).Seconds(), i.AEAD.String(), "X25519"
	if i.Hybrid {
		v.KeyExchange = "X25519+ML-KEM-768"
	}
	return v
}
