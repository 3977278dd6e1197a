package engine

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
	"causeway/engine/buf"
	"causeway/engine/link"
	"causeway/engine/verify"
)

// phase of a peer. It only goes forward.
type phase uint8

const (
	phaseHello    phase = iota // waiting for a hello that is accepted
	phaseOpen                  // frames flow
	phaseDraining              // the same; the peer was asked to leave and has not answered
	phaseParting               // the peer said goodbye, and says what it still receives
	phaseLeaving               // goodbye was said; what still comes is dropped
	phaseClosed                // the connection is gone; what the ring holds is still forwarded
)

// leaveTime bounds how long a connection that was told goodbye is kept to hand
// over what is queued for it.
const leaveTime = 5 * time.Second

// expelTime is leaveTime of a connection whose certificate is no longer good:
// the connection is closed within a second of that, read or unread.
const expelTime = 500 * time.Millisecond

// peer is one connection and who is at its other end.
type peer struct {
	// fixed after start
	router *Router
	conn   *link.Conn
	far    *neighbour // nil: the peer is a node

	// home loop
	domain   *domain      // under the grant that the peer was told of last
	id       *pki.Peer    // by the newest of certs
	certs    []*announced // on this connection: that of TLS, then renewals
	loop     *loop
	ring     verify.Ring
	phase    phase
	full     bool        // the ring was full and reading is paused for it
	resting  bool        // its socket is not read, and it is in loop.resting
	waitsFor destination // a full one that the ring's head is for; zero: none
	waitsAt  time.Time   // since when
	received uint64      // frames other than link control that were cut
	ledger   ledger      // what it was sent and has not said to have received
	partBy   time.Time   // when parting: the end of its patience
	owing    int         // when parting: loops that may still owe it notices
	badSigs  bucket
	member   *member // once open
	kind     string
	software string
	echoes   bucket
	late     []*lateAnswer // to its certificate requests
	requests bucket        // certificate and name requests
	pokes    bucket        // keep-alives that ask for an answer
	notices  bucket        // notices that it sends
	renewals bucket
	goodbyes uint8 // of it that were verified on the loop, at most goodbyesOnLoop
	tells    outline
	asks     nameAsks

	askedToLeave bool     // since this router stops
	drained      drainEnd // how that ends
	isOver       bool

	owesAnswer bool // to a keep-alive that asked for one

	// Messages with a count of received frames that wait behind other frames: what goes
	// ahead of them may not say more, or the count would go back.
	behind   uint64 // of the first
	behindAt uint64 // send time of the last; 0: none waits

	helloSent uint64 // when, nanoseconds since the Unix epoch
	probed    bool   // it was asked for an answer, since another router says to have it

	opened  time.Time
	heardAt time.Time // something came, or the connection was paused
	heard   uint64    // bytes received by then
	spokeAt time.Time // something was sent
	spoken  uint64    // bytes sent by then

	sentAt     time.Time // a frame other than link control came, or the connection was paused
	sentBefore uint64    // received by then
	rates      rates

	// atomic
	closed atomic.Bool // set on the loop; verdicts are then told by Post
	posted atomic.Bool

	answering atomic.Int32 // certificates from the neighbour that the fetcher has yet to look at
}

// Rates of what a node may ask of the router itself, per second and at once.
const (
	echoesPerSecond = 200
	pokesPerSecond  = 1000 // answered later beyond that
	asksPerSecond   = 200
	noticesFromNode = 200 // each is decoded, and may be of 64 KiB
)

// goodbyesOnLoop is how many goodbyes of a connection are verified before they
// are pushed. A node says one, a neighbour a few while either end stops or a link
// is renewed; the others wait for workers as all frames do.
const goodbyesOnLoop = 8

// ringBytesMax is how much of one connection may wait for verdicts before it is
// read no further; a frame that is larger waits alone.
const ringBytesMax = 1 << 20

// decided returns how many frames other than link control came before the
// oldest that still waits for its verdict or for room: those whose fate is
// known, and whose senders were told if it was bad.
func (p *peer) decided() uint64 {
	n, waits := p.ring.HeadTag()
	if !waits {
		n = p.received
	}
	return p.least(n)
}

// decidedAhead is decided for a message that goes ahead of those that wait.
func (p *peer) decidedAhead() uint64 {
	if n := p.decided(); p.behindAt == 0 || n < p.behind {
		return n
	}
	return p.behind
}

// bucket is a token bucket. The zero bucket is full.
type bucket struct {
	used float64
	at   time.Time
}

// take takes one token of a bucket that holds most and fills at the rate given.
func (b *bucket) take(now time.Time, perSecond, most float64) bool {
	b.used = max(0, b.used-perSecond*now.Sub(b.at).Seconds())
	b.at = now
	if b.used+1 > most {
		return false
	}
	b.used++
	return true
}

func newPeer(r *Router, c *link.Conn, d *domain, id *pki.Peer) (*peer, error) {
	key, err := sign.NewKey(id.Public)
	if err != nil {
		return nil, err
	}
	p := &peer{router: r, conn: c, domain: d, id: id, certs: []*announced{newAnnounced(id, key)}}
	if id.Role == pki.RoleRouter {
		if err := p.newNeighbour(); err != nil {
			return nil, err
		}
	}
	if p.far == nil {
		p.ring = r.pool.NewRing(p.notify, c.Loop().Account())
	} else {
		p.ring = r.pool.NewLongRing(p.notify, c.Loop().Account())
	}
	return p, nil
}

// announced is a certificate that the peer has shown on this connection.
type announced struct {
	id          *pki.Peer
	key         *sign.Key
	from, until int64 // when it is valid, as send times; one that ends beyond 2262 has no end
	isClaim     bool  // a neighbour's grant that is refused here, under a key that it has: for link control alone
}

func newAnnounced(id *pki.Peer, key *sign.Key) *announced {
	c := &announced{id: id, key: key, from: id.NotBefore.UnixNano(), until: math.MaxInt64}
	if id.NotAfter.Before(time.Unix(0, math.MaxInt64)) {
		c.until = id.NotAfter.UnixNano()
	}
	return c
}

// cert returns the announced certificate of that ID, or nil.
func (p *peer) cert(id codec.CertID) *announced {
	for i := len(p.certs) - 1; i >= 0; i-- { // mostly the newest
		if p.certs[i].id.CertID == id {
			return p.certs[i]
		}
	}
	return nil
}

// notify tells the home loop that the ring has verdicts. Workers call it.
func (p *peer) notify() {
	switch {
	case !p.closed.Load():
		p.conn.Notify()
	case p.posted.CompareAndSwap(false, true):
		p.loop.link.Post(func() {
			p.posted.Store(false)
			p.drain()
		})
	}
}

// frame takes b, one whole frame from the connection: rules 2 to 6 of
// PROTOCOL.md section 8, which need no signature, then the ring.
func (p *peer) frame(b *buf.Buffer) {
	l := p.loop
	f := codec.Raw(b.B)
	control := f.Category() == codec.CategoryControl
	if control {
		l.count.control.Add(1)
	} else {
		l.count.received.Add(1)
		p.received++
	}
	if reason := p.early(f, control); reason != dropNone {
		l.drop(reason, b)
		return
	}
	switch {
	case p.far != nil && !control:
		l.count.linkIn.Add(1)
		p.linkFrame(b)
		return
	case p.far != nil && codec.SettlesLink(f.Body()):
		p.settlingFrame(b)
		return
	case control && p.isOpen() && codec.IsRenewal(f.Body()):
		p.renewalFrame(b)
		return
	}
	if p.far != nil { // its control is always taken: lists come in parts
		if p.ring.Bytes() >= restingFrom && l.link.Account().Met() {
			p.rest()
		}
	} else if p.overflows(b, control) {
		return
	}
	var key *sign.Key
	if !p.router.config.VerifyNone || control {
		key = p.cert(f.CertID()).key
	}
	if control && p.ring.Len() == 0 && p.goodbyes < goodbyesOnLoop && codec.IsGoodbye(f.Body()) {
		// It is acted on before the end of the stream, which may come with it:
		// that would be the end of the queue.
		p.goodbyes++
		if key.Verify(f.Signed(), f.Signature()) {
			key = nil
		}
	}
	if key == nil && !control && p.ring.Len() == 0 && p.route(b) {
		return
	}
	before := p.received // frames other than link control that came before this one
	if !control {
		before--
	}
	p.push(b, key, before)
	p.pushed()
}

// push puts b into the ring, and reads no further when that is full; before is how
// many frames other than link control came before it.
func (p *peer) push(b *buf.Buffer, key *sign.Key, before uint64) {
	p.ring.Push(b, key, p.least(before), &p.loop.batch)
	if p.ringIsFull() && !p.full && p.phase != phaseClosed {
		p.full = true
		p.conn.PauseOnLoop()
	}
}

// pushed follows push for a frame that has just come.
func (p *peer) pushed() {
	if _, verdict := p.ring.Head(); verdict != verify.Pending {
		p.drain()
	}
	if p.ring.Bytes() >= restingFrom && p.loop.link.Account().Short() {
		p.rest()
	}
}

// early applies the rules that need no signature.
func (p *peer) early(f codec.Raw, control bool) dropReason {
	switch {
	case p.phase >= phaseLeaving || p.phase == phaseParting && !control:
		return dropClosing
	case p.phase == phaseHello && (!control || p.ring.Len() > 0):
		p.leave(codec.GoodbyeProtocol, "a frame came before hello was answered")
		return dropBeforeHello
	case control && !p.isBetweenEnds(f):
		p.leave(codec.GoodbyeProtocol, "link control must go from this connection's one end to its other")
		return dropProtocol
	case control || p.far != nil:
		return dropNone
	case f.Sender() != p.address():
		return dropForeignSender
	case p.cert(f.CertID()) == nil:
		return dropUnknownCertificate
	case !f.Category().AllowsFlag(f.Encrypted()):
		return dropCategory
	}
	return dropNone
}

// isBetweenEnds tells whether f, link control, goes from the connection's one end
// to its other, under a certificate that was announced on it.
func (p *peer) isBetweenEnds(f codec.Raw) bool {
	c := p.cert(f.CertID())
	if c == nil || f.Sender() != c.id.Address || f.Encrypted() {
		return false
	}
	if p.far != nil {
		return f.Recipient() == p.far.own[f.Sender().Prefix()]
	}
	return f.Recipient() == p.domain.address
}

// isOpen tells whether frames flow.
func (p *peer) isOpen() bool { return p.phase == phaseOpen || p.phase == phaseDraining }

func (p *peer) address() codec.Address { return p.id.Address }

// drain forwards, consumes or drops what has its verdict, in order, until a
// frame waits for its verdict or for room.
func (p *peer) drain() {
	for p.waitsFor.to == 0 {
		b, verdict := p.ring.Head()
		if verdict == verify.Pending {
			break
		}
		switch f := codec.Raw(b.B); {
		case verdict == verify.Bad && p.far != nil && f.Category() != codec.CategoryControl:
			p.badOnLink(p.ring.Pop())
		case verdict == verify.Bad:
			p.badSignature(p.ring.Pop(), f.Category() == codec.CategoryControl)
		case f.Category() == codec.CategoryControl:
			p.control(f)
			p.loop.consume(p.ring.Pop())
		default:
			before, _ := p.ring.HeadTag()
			p.ring.Pop()
			if !p.route(b) {
				p.ring.Unpop(b, before) // waits for room
				return
			}
		}
	}
	if p.far != nil && len(p.far.rooms.ready) > 0 {
		p.settleReady()
	}
	if p.full && p.ring.Len() <= p.ring.Size()/2 && p.ring.Bytes() <= ringBytesMax/2 {
		p.full = false
		if p.phase != phaseClosed {
			p.conn.ResumeOnLoop()
		}
	}
	if p.phase == phaseClosed && p.ring.Len() == 0 {
		p.over()
	}
}

func (p *peer) badSignature(b *buf.Buffer, control bool) {
	p.loop.drop(dropBadSignature, b)
	if p.phase >= phaseLeaving {
		return
	}
	switch {
	case control:
		p.leave(codec.GoodbyeProtocol, "a link-control frame has a bad signature")
	case !p.badSigs.takeOf(p.loop.link.Now(), p.router.state().config.BadSignatures, badSignaturesRefill):
		p.leave(codec.GoodbyeBadSignatures, fmt.Sprintf("more than %d frames had bad signatures within %v", p.router.state().config.BadSignatures, badSignaturesRefill))
	}
}

// leave says goodbye and ends the connection when what is queued for it has
// gone, or leaveTime is over. It is no longer a recipient at once.
func (p *peer) leave(reason codec.GoodbyeReason, text string) {
	p.leaveBy(reason, text, p.router.leaveBy(p.loop.link.Now()))
}

// expel is leave for who has lost the right to be here.
func (p *peer) expel(reason codec.GoodbyeReason, text string) {
	p.loop.router.log.Info("ending a connection", "peer", describe(p.id), "remote", p.conn.Remote(), "reason", reason.String(), "text", text)
	p.leaveBy(reason, text, p.loop.link.Now().Add(expelTime))
}

func (p *peer) leaveBy(reason codec.GoodbyeReason, text string, by time.Time) {
	if p.phase >= phaseLeaving {
		return
	}
	p.loop.router.log.Debug("leaving a connection", "peer", p.id.URI(), "remote", p.conn.Remote(), "reason", reason.String(), "text", text)
	p.unregister(false)
	last := &codec.Goodbye{Reason: reason, Text: shortened(text), Received: p.decided()}
	if p.loop.draining && reason == codec.GoodbyeDraining {
		last.Routers = p.otherRouters()
	}
	p.say(last)
	p.phase, p.drained = phaseLeaving, drainEnded
	p.conn.FinishOnLoop(&leftError{reason}, by)
}

// shortened returns text as a goodbye can carry it.
func shortened(text string) string {
	if len(text) > codec.GoodbyeTextMax {
		text = text[:codec.GoodbyeTextMax]
	}
	return strings.ToValidUTF8(text, "")
}

// helloBodyMax is the largest body of a peer that has not introduced itself.
const helloBodyMax = codec.ControlBodyMax

// bodyMax returns the largest body that the peer may send now, in bytes, but for
// link control (codec.BodyMaxOf).
func (p *peer) bodyMax() uint32 {
	if p.phase == phaseHello {
		return min(helloBodyMax, p.router.config.BodyMax)
	}
	return p.router.config.BodyMax
}

// leftError is why this router ended a connection.
type leftError struct{ reason codec.GoodbyeReason }

func (e *leftError) Error() string { return "goodbye: " + e.reason.String() }

// unregister takes the peer out of the table and the members, if it is there; of
// a link it withdraws all domains.
// hold: frames for it wait for it to come back.
func (p *peer) unregister(hold bool) {
	if p.far != nil {
		p.unlink()
	}
	if p.member == nil {
		return
	}
	p.withdraw(hold)
	now, keep := p.loop.link.Now(), p.router.state().config.SkewMax
	p.domain.members.leave(p.member)
	for _, c := range p.certs {
		p.domain.members.release(c.id, now, keep)
	}
	p.member = nil
}

// gone is the last event of the connection. What it had sent before is still
// forwarded, but no longer waits for room.
func (p *peer) gone(lost int) {
	p.unregister(true)
	p.phase = phaseClosed
	if p.far != nil || len(p.late) > 0 {
		p.router.fetcher.gone(p.conn.Ref())
	}
	if p.far != nil {
		p.emptyRooms(dropUnknownCertificate)
		p.dropList()
		p.dropUnsaid()
	}
	p.endLedger(lost)
	delete(p.loop.waiting, p)
	p.waitsFor = destination{}
	p.closed.Store(true)
	p.drain()
	if p.ring.Len() > 0 {
		p.loop.leftovers[p] = struct{}{}
	}
}
