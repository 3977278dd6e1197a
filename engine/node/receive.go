package node

import (
	"context"
	"sync"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// The way of a frame in (PROTOCOL.md section 9):
//
//	1. receive   for this node? flag, kind of sender, send time
//	2. certs     the sender's certificate: known, or the frame waits
//	3. accept    certificate's time, signature, before the start, duplicate
//	4. dispatch  notice, echo, a session's (unseal.go), or
//	5. deliver   plain? room? then it waits for Receive
//
// Every frame ends as delivered, consumed, or dropped with one reason, or it
// is parked, or held for order.

// receiving is the state of the way in; it outlives connections.
type receiving struct {
	mu     sync.Mutex
	dedup  *dedup
	certs  *certs
	chains bucket
}

func newReceiving() *receiving {
	return &receiving{dedup: newDedup(dedupFramesMax, dedupFramesLeast, dedupSendersMax, dedupTotalMax), certs: newCerts()}
}

// learn takes a verified peer's certificate, unless it has been revoked meanwhile.
func (n *Node) learn(p *pki.Peer) {
	now := n.cfg.Now()
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	n.learnLocked(p, now)
}

// learnLocked reports whether the certificate is good.
func (n *Node) learnLocked(p *pki.Peer, now time.Time) bool {
	cert := newCertificate(p)
	if cert == nil || revokedBy(n.trust.Load(), p, now) != nil {
		return false
	}
	n.in.certs.learn(codec.CertKey{Address: p.Address, CertID: p.CertID}, cert)
	n.sessions.good(p.Address)
	n.unparkLocked(p.Address, now) // what has waited for it goes first
	return true
}

func (in *receiving) connGone(c *conn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.certs.connGone(c)
}

// Receive returns the next message. It fails when ctx ends, and with what ended
// the node once nothing waits any more. Messages of one sender come in the order
// they arrived. Several goroutines may call it.
func (n *Node) Receive(ctx context.Context) (Message, error) {
	m, err := n.inbox.take(ctx)
	if m.member != nil {
		n.sessions.taken(m.member, m.charge)
		m.member, m.charge = nil, 0
	}
	return m, err
}

// A node that has brought so many bad signatures is left: they cost as much as good
// ones. The budget fills again within the time.
const (
	badSignaturesMax    = 100
	badSignaturesRefill = 10 * time.Minute
)

// receive takes a frame (borrowed) of any category but link control. An error ends
// the connection.
func (n *Node) receive(c *conn, raw codec.Raw) error {
	n.counters.framesIn.Add(1)
	now := n.cfg.Now()
	if reason, ok := n.precheck(raw, now); !ok {
		n.counters.drop(reason)
		return nil
	}
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	if c.direct && !n.learnPeerLocked(c, raw, now) {
		n.counters.drop(dropUnknownCertificate)
		return nil
	}
	if raw.Category() == codec.CategorySession && !n.learnChainLocked(raw, now) {
		n.counters.drop(dropUnknownCertificate)
		return nil
	}
	if !c.direct && n.in.certs.waits(raw.Sender()) {
		n.parkLocked(c, raw, now) // behind those that came before; what their sender says itself waits for nothing
		return nil
	}
	switch cert, state := n.in.certs.lookup(raw.CertKey(), now); state {
	case certKnown:
		if !n.acceptLocked(raw, cert, now) && c.direct && !c.badSignatures.take(now, badSignaturesMax, badSignaturesRefill) {
			return &ProtocolError{What: "too many frames with bad signatures", signatures: true}
		}
	case certRefused:
		n.counters.drop(dropUnknownCertificate)
	case certUnknown:
		n.parkLocked(c, raw, now)
	}
	return nil
}

// precheck is what needs neither certificate nor memory. The send time is
// looked at before the certificate, so that old frames cause no requests.
func (n *Node) precheck(raw codec.Raw, now time.Time) (dropReason, bool) {
	category := raw.Category()
	switch {
	case raw.Recipient() != n.address:
		return dropForeignRecipient, false
	case !category.AllowsFlag(raw.Encrypted()):
		return dropCategory, false
	case raw.Sender().Kind() == codec.KindRouter && category != codec.CategoryNotice && category != codec.CategoryEcho:
		return dropCategory, false
	case !inSkew(raw.SendTime(), now, n.cfg.SkewMax):
		return dropLate, false
	}
	return 0, true
}

func (n *Node) parkLocked(c *conn, raw codec.Raw, now time.Time) {
	if !n.in.certs.park(raw, now) {
		n.counters.drop(dropWaiting)
		return
	}
	n.counters.parked.Add(1)
	n.askLocked(c, now)
}

// askLocked sends what certificate requests are due: by c, where the frames came
// from, or by the connection in use once nothing more can be asked there. If there
// is none they wait for it.
func (n *Node) askLocked(c *conn, now time.Time) {
	if c.direct || c.left() {
		if c, _ = n.out.current(); c == nil || c.direct || c.left() {
			return
		}
	}
	for {
		m := n.in.certs.request(c, now.Add(n.cfg.AnswerTimeout))
		if m == nil {
			return
		}
		n.counters.certificatesAsked.Add(uint64(len(m.Wanted)))
		c.request(m) // if there is no room it runs out of time like an unanswered one
	}
}

// askCertificates asks a new connection for what an old one has not answered.
func (n *Node) askCertificates(c *conn) {
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	n.askLocked(c, n.cfg.Now())
}

// certificates takes an answer of the router. An error ends the connection.
func (n *Node) certificates(c *conn, m *codec.Certificates) error {
	now := n.cfg.Now()
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	r, ok := n.in.certs.answer(c, m)
	if !ok {
		return &ProtocolError{What: "certificates that were not asked for, or parts out of order"}
	}
	if r == nil {
		return nil
	}
	for _, e := range r.entries {
		r.keys[e.CertKey] = n.takeChainLocked(e, now)
	}
	for key, taken := range r.keys {
		if !taken {
			n.in.certs.refuse(key, now)
		}
	}
	for key := range r.keys {
		n.unparkLocked(key.Address, now)
	}
	n.askLocked(c, now)
	return nil
}

// takeChainLocked verifies one entry of an answer and remembers it.
func (n *Node) takeChainLocked(e codec.CertificateEntry, now time.Time) bool {
	if len(e.Chain) == 0 {
		return false
	}
	peer, err := n.verifyChain(e.Chain, now)
	if err != nil || codec.Address(peer.Address) != e.Address || codec.CertID(peer.CertID) != e.CertID {
		n.counters.certificatesRefused.Add(1)
		return false
	}
	cert := newCertificate(peer)
	if cert == nil {
		n.counters.certificatesRefused.Add(1)
		return false
	}
	n.in.certs.learn(e.CertKey, cert)
	n.sessions.good(e.Address)
	return true
}

// verifyChain verifies a chain of this node's domain. One that has ended, or
// not begun, within the maximal skew is verified as of its time: whether it was
// valid when a frame was sent is checked for each frame.
func (n *Node) verifyChain(chain [][]byte, now time.Time) (*pki.Peer, error) {
	domain := n.cfg.Identity.Peer.Domain
	trust := n.trust.Load()
	peer, err := trust.VerifyDER(chain, domain, now)
	if err == nil {
		return peer, nil
	}
	switch reason, _ := pki.ReasonOf(err); reason {
	case pki.ReasonExpired:
		return trust.VerifyDER(chain, domain, now.Add(-n.cfg.SkewMax))
	case pki.ReasonNotYetValid:
		return trust.VerifyDER(chain, domain, now.Add(n.cfg.SkewMax))
	}
	return nil, err
}

func (n *Node) unparkLocked(sender codec.Address, now time.Time) {
	for {
		raw := n.in.certs.unpark(sender, now)
		if raw == nil {
			return
		}
		n.counters.parked.Add(^uint64(0))
		cert, state := n.in.certs.lookup(raw.CertKey(), now)
		if state != certKnown {
			n.counters.drop(dropUnknownCertificate)
			continue
		}
		n.acceptLocked(raw, cert, now)
	}
}

// expireCertificates gives up what was not answered in time.
func (n *Node) expireCertificates(now time.Time) {
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	expired := n.in.certs.expire(now)
	for _, key := range expired {
		n.in.certs.refuse(key, now)
	}
	for _, key := range expired {
		n.unparkLocked(key.Address, now)
	}
	if c, _ := n.out.current(); c != nil {
		n.askLocked(c, now)
	}
}

// acceptLocked takes a frame (borrowed) whose sender's certificate is known.
// It reports whether the signature is good, or was not looked at.
func (n *Node) acceptLocked(raw codec.Raw, cert *certificate, now time.Time) bool {
	sendTime := raw.SendTime()
	signed := raw.Signed()
	switch {
	case !inSkew(sendTime, now, n.cfg.SkewMax): // it may have waited
		n.counters.drop(dropLate)
		return true
	case !cert.validAt(sendTime, now, n.cfg.SkewMax):
		n.counters.drop(dropCertificateTime)
		return true
	case !cert.key.Verify(signed, raw.Signature()):
		n.counters.drop(dropBadSignature)
		return false
	case raw.Category().IsPayload() && !raw.Encrypted() && !n.cfg.AcceptOld && sendTime < n.started:
		n.counters.drop(dropBeforeStart)
		n.hint(dropBeforeStart, "refused a plain message sent before this node's start",
			"from", cert.name, "sent", clockText(frameTime(sendTime)), "started", clockText(frameTime(n.started)),
			"remedy", "if it was sent later, the sender's clock is behind; Config.AcceptOld (--accept-old) takes such messages")
		return true
	}
	digest := codec.DigestOf(signed)
	switch n.in.dedup.admit(raw.Sender(), sendTime, digest) {
	case verdictDuplicate:
		n.counters.drop(dropDuplicate)
	case verdictLate:
		n.counters.drop(dropLate)
	case verdictNew:
		n.dispatchLocked(raw, digest, cert)
	}
	return true
}

func (n *Node) dispatchLocked(raw codec.Raw, digest codec.Digest, cert *certificate) {
	switch category := raw.Category(); {
	case category == codec.CategoryNotice:
		n.count(n.hearNotice(raw, cert.name))
	case category == codec.CategoryEcho:
		n.count(n.hearEchoLocked(raw, cert))
	case category == codec.CategorySession, category.IsPayload() && raw.Encrypted():
		n.hearSessionLocked(raw, digest, cert)
	case !category.IsPayload():
		n.counters.drop(dropCategory)
	default:
		n.deliverLocked(raw, digest, cert)
	}
}

// fate is what became of a frame that was for the node itself.
type fate int

const (
	consumed  fate = -1
	undecided fate = -2 // it waits for its answer, whose fate is its own
)

func dropped(reason dropReason) fate { return fate(reason) }

func (n *Node) count(f fate) {
	switch f {
	case consumed:
		n.counters.consumed.Add(1)
	case undecided:
	default:
		n.counters.drop(dropReason(f))
	}
}

func (n *Node) deliverLocked(raw codec.Raw, digest codec.Digest, cert *certificate) {
	from, sendTime, body := raw.Sender(), raw.SendTime(), raw.Body()
	frame := codec.NoticeFrame{Digest: digest, SendTime: sendTime}
	if !n.cfg.AcceptPlain {
		n.counters.drop(dropPlain)
		n.answers.notice(n, from, codec.NoticeNotPermitted, frame)
		n.hint(dropPlain, "refused a plain message", "from", cert.name, "remedy", "its sender has to send without --plain; to take such messages, set Config.AcceptPlain (--accept-plain)")
		return
	}
	if !n.inbox.fits(from, len(body)) {
		n.counters.drop(dropQueueFull)
		n.answers.notice(n, from, codec.NoticeQueueFull, frame)
		return
	}
	n.in.dedup.delivered(from, sendTime)
	n.counters.delivered.Add(1)
	n.inbox.put(Message{
		From: from, To: n.address, FromName: cert.name, Category: raw.Category(),
		SendTime: sendTime, Digest: digest, Body: append([]byte(nil), body...),
	})
}

// hintEvery is how often one kind of drop is logged at most: the first tells an
// operator what to change, the others are counted.
const hintEvery = time.Minute

// hint is called with in.mu held.
func (n *Node) hint(reason dropReason, text string, args ...any) {
	if now := time.Now(); now.Sub(n.hinted[reason]) >= hintEvery {
		n.hinted[reason] = now
		n.cfg.Logger.Warn(text, args...)
	}
}
