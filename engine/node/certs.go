package node

import (
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// Bounds of what waits for certificates, and of what is known of them.
const (
	certsKnownMax    = 16384           // certificates remembered, about 3 KB each
	certsRefusedMax  = 4096            // keys remembered as not known
	certsRefusedFor  = 5 * time.Second // how long
	certsRequestsMax = 16              // outstanding at once
	certsAskedMax    = 2048            // keys wanted, asked for or to be asked for
	roomBytesMax     = 4 << 20         // waiting of one sender, in bytes; one frame is always taken
	roomsBytesMax    = 32 << 20        // waiting in all, in bytes
	roomOverhead     = 128             // charged for each waiting frame besides its own bytes
)

// certificate is what is kept of a verified chain.
type certificate struct {
	peer                *pki.Peer
	name                string // as in Message.FromName
	key                 *sign.Key
	notBefore, notAfter time.Time // of the chain
}

// newCertificate returns nil when the key is of no use.
func newCertificate(p *pki.Peer) *certificate {
	key, err := sign.NewKey(p.Public)
	if err != nil {
		return nil
	}
	name := p.Name
	if p.Role == pki.RoleRouter {
		name = routerPrefix + name
	}
	return &certificate{peer: p, name: name, key: key, notBefore: p.NotBefore, notAfter: p.NotAfter}
}

// validAt reports whether a frame sent at that time may be signed with it.
func (c *certificate) validAt(sendTime uint64, now time.Time, skewMax time.Duration) bool {
	t := frameTime(sendTime)
	return !t.Before(c.notBefore) && !t.After(c.notAfter) && !now.After(c.notAfter.Add(skewMax))
}

type certState uint8

const (
	certKnown certState = iota
	certRefused
	certUnknown
)

// certRequest is an outstanding request (PROTOCOL.md section 5.4).
type certRequest struct {
	on       *conn
	keys     map[codec.CertKey]bool // false: not answered yet
	parts    uint8                  // of the answer; 0: none came
	next     uint8                  // part
	entries  []codec.CertificateEntry
	deadline time.Time
}

// room is where frames of one sender wait for its certificates, in order.
type room struct {
	frames []codec.Raw
	bytes  int
}

// certs knows senders' certificates, and holds frames back whose sender's is
// being asked for. It neither sends nor verifies: that is its caller's, who has
// the lock.
type certs struct {
	known   map[codec.CertKey]*certificate
	refused map[codec.CertKey]time.Time // until then

	wanted   map[codec.CertKey]bool // asked for, or in toAsk
	toAsk    []codec.CertKey
	requests map[uint64]*certRequest
	number   uint64 // of the last request

	rooms map[codec.Address]*room
	bytes int // in rooms
}

func newCerts() *certs {
	return &certs{
		known: make(map[codec.CertKey]*certificate), refused: make(map[codec.CertKey]time.Time),
		wanted: make(map[codec.CertKey]bool), requests: make(map[uint64]*certRequest),
		rooms: make(map[codec.Address]*room),
	}
}

// lookup returns the certificate if it is known.
func (c *certs) lookup(key codec.CertKey, now time.Time) (*certificate, certState) {
	if cert := c.known[key]; cert != nil {
		return cert, certKnown
	}
	if until, ok := c.refused[key]; ok {
		if now.Before(until) {
			return nil, certRefused
		}
		delete(c.refused, key)
	}
	return nil, certUnknown
}

// learn remembers a certificate; when they are too many, any other is
// forgotten, and can be asked for again.
func (c *certs) learn(key codec.CertKey, cert *certificate) {
	delete(c.refused, key)
	delete(c.wanted, key)
	if c.known[key] == nil {
		makeRoom(c.known, certsKnownMax)
	}
	c.known[key] = cert
}

// refuse remembers for a while that the certificate is not to be had.
func (c *certs) refuse(key codec.CertKey, now time.Time) {
	delete(c.wanted, key)
	makeRoom(c.refused, certsRefusedMax)
	c.refused[key] = now.Add(certsRefusedFor)
}

// makeRoom deletes any entry when there are max.
func makeRoom[K comparable, V any](m map[K]V, max int) {
	if len(m) < max {
		return
	}
	for k := range m {
		delete(m, k)
		return
	}
}

// waits reports whether frames of the sender wait.
func (c *certs) waits(sender codec.Address) bool { return c.rooms[sender] != nil }

// park makes a copy of the frame wait. It reports false when there is no room.
func (c *certs) park(raw codec.Raw, now time.Time) bool {
	sender, key := raw.Sender(), raw.CertKey()
	charge := len(raw) + roomOverhead
	if c.bytes+charge > roomsBytesMax {
		return false
	}
	_, state := c.lookup(key, now)
	if state == certUnknown && !c.wanted[key] && len(c.wanted) >= certsAskedMax {
		return false
	}
	r := c.rooms[sender]
	if r == nil { // then the frame is taken: no room stays empty
		r = &room{}
		c.rooms[sender] = r
	}
	if len(r.frames) > 0 && r.bytes+charge > roomBytesMax {
		return false
	}
	r.frames = append(r.frames, append(codec.Raw(nil), raw...))
	r.bytes += charge
	c.bytes += charge
	if state == certUnknown && !c.wanted[key] {
		c.wanted[key] = true
		c.toAsk = append(c.toAsk, key)
	}
	return true
}

// unpark returns the sender's next frame, if it need not wait any longer.
func (c *certs) unpark(sender codec.Address, now time.Time) codec.Raw {
	r := c.rooms[sender]
	if r == nil {
		return nil
	}
	raw := r.frames[0]
	key := raw.CertKey()
	if _, state := c.lookup(key, now); state == certUnknown {
		if !c.wanted[key] { // a refusal has run out while the frame stood behind others
			c.wanted[key] = true
			c.toAsk = append(c.toAsk, key)
		}
		return nil
	}
	r.frames[0] = nil
	r.frames = r.frames[1:]
	r.bytes -= len(raw) + roomOverhead
	c.bytes -= len(raw) + roomOverhead
	if len(r.frames) == 0 {
		delete(c.rooms, sender)
	}
	return raw
}

// request returns the next request to send on a connection, or nil.
func (c *certs) request(on *conn, deadline time.Time) *codec.CertificateRequest {
	if len(c.toAsk) == 0 || len(c.requests) >= certsRequestsMax {
		return nil
	}
	n := min(len(c.toAsk), codec.CertificatesWantedMax)
	keys := append([]codec.CertKey(nil), c.toAsk[:n]...)
	if c.toAsk = c.toAsk[n:]; len(c.toAsk) == 0 {
		c.toAsk = nil
	}
	c.number++
	r := &certRequest{on: on, keys: make(map[codec.CertKey]bool, n), deadline: deadline}
	for _, k := range keys {
		r.keys[k] = false
	}
	c.requests[c.number] = r
	return &codec.CertificateRequest{Number: c.number, Wanted: keys}
}

// answer takes a part of an answer. When it is the last one, the request and
// all entries are returned. ok is false when it breaks section 5.5; an answer to
// nothing (it may have come too late) is left alone.
func (c *certs) answer(on *conn, m *codec.Certificates) (r *certRequest, ok bool) {
	r = c.requests[m.Number]
	if r == nil || r.on != on {
		return nil, true
	}
	if r.parts == 0 {
		r.parts = m.Parts
	}
	if m.Parts != r.parts || m.Part != r.next {
		return nil, false
	}
	for _, e := range m.Entries {
		if answered, asked := r.keys[e.CertKey]; !asked || answered {
			return nil, false
		}
		r.keys[e.CertKey] = true
	}
	r.entries = append(r.entries, m.Entries...)
	if r.next++; r.next < r.parts {
		return nil, true
	}
	delete(c.requests, m.Number)
	return r, true
}

// expire returns the keys of requests that were not answered in time, and
// forgets these.
func (c *certs) expire(now time.Time) []codec.CertKey {
	var keys []codec.CertKey
	for number, r := range c.requests {
		if now.After(r.deadline) {
			delete(c.requests, number)
			for k := range r.keys {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// connGone makes what was asked for on the connection to be asked for again.
func (c *certs) connGone(on *conn) {
	for number, r := range c.requests {
		if r.on == on {
			delete(c.requests, number)
			for k := range r.keys {
				c.toAsk = append(c.toAsk, k)
			}
		}
	}
}
