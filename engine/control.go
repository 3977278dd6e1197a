package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/link"
)

// say sends a link-control message to the peer, before what else waits for it;
// a last goodbye behind all.
func (p *peer) say(m codec.Control) {
	kind := link.OwnAhead
	if g, ok := m.(*codec.Goodbye); ok && g.ReadFor == 0 {
		kind = link.OwnLast
	}
	p.sayAs(m, kind)
}

// sayBehind says a message, with that count of received frames, behind what else waits
// for the peer.
func (p *peer) sayBehind(m codec.Control, received uint64) {
	if p.behindAt == 0 {
		p.behind = received
	}
	p.behindAt = p.sayAs(m, link.Own)
}

// sayAs returns the message's send time; 0: it could not be made.
func (p *peer) sayAs(m codec.Control, kind link.Kind) (sendTime uint64) {
	body, err := codec.AppendControl(nil, m)
	if err != nil { // what others said is in it; it is checked, but who knows
		p.router.log.Error("a message to a node breaks a bound of the protocol", "peer", describe(p.id), "type", fmt.Sprintf("%T", m), "error", err)
		return 0
	}
	return p.loop.sendOwn(p.conn.Ref(), p.domain, p.address(), codec.CategoryControl, body, kind)
}

// control handles f, a link-control frame with a good signature.
func (p *peer) control(f codec.Raw) {
	if p.phase >= phaseLeaving {
		p.lateAnswer(f)
		return
	}
	m, err := codec.DecodeControl(f.Body())
	if err != nil {
		p.leave(codec.GoodbyeProtocol, err.Error())
		return
	}
	if p.phase == phaseParting {
		p.parting(m)
		return
	}
	hello, isHello := m.(*codec.Hello)
	if g, ok := m.(*codec.Goodbye); ok && p.phase == phaseHello && p.conn.Dialed() {
		p.refused(g)
		return
	}
	if isHello != (p.phase == phaseHello) {
		p.leave(codec.GoodbyeProtocol, "hello must come first, and once")
		return
	}
	if p.far != nil {
		p.linkControl(m)
		return
	}
	switch m := m.(type) {
	case *codec.Hello:
		p.hello(hello, f)
	case *codec.KeepAlive:
		p.keepAlive(m)
	case *codec.Goodbye:
		p.goodbye(m)
	case *codec.CertificateRequest:
		if p.mayAsk() {
			p.certificates(m)
		}
	case *codec.NameRequest:
		if p.mayAsk() {
			p.names(m)
		}
	default:
		p.leave(codec.GoodbyeProtocol, "certificates and names go from router to node, routes between routers")
	}
}

// keepAlive notes what the peer has received, and answers if asked to. The
// answer comes after the notices about earlier frames.
func (p *peer) keepAlive(k *codec.KeepAlive) {
	if !p.cover(k.Received) {
		return
	}
	if p.probed {
		p.probed = false
		p.router.routing.answered(p.domain.address, p.address())
	}
	if !k.Answer {
		return
	}
	p.loop.payNotices()
	if p.owesAnswer = p.behindAt != 0 || !p.takes(answerSmall) || !p.pokes.take(p.loop.link.Now(), pokesPerSecond, pokesPerSecond); !p.owesAnswer {
		p.say(&codec.KeepAlive{Received: p.decided()})
	}
}

// answerOwed answers a keep-alive that could not be answered when it came.
func (p *peer) answerOwed() {
	if p.owesAnswer && (p.isOpen() || p.phase == phaseParting && p.far != nil) && p.behindAt == 0 && p.takes(answerSmall) &&
		p.pokes.take(p.loop.link.Now(), pokesPerSecond, pokesPerSecond) {
		p.owesAnswer = false
		p.loop.payNotices()
		p.say(&codec.KeepAlive{Received: p.decided()})
	}
}

// cover notes that the peer says to have received n frames in all; false: it
// can't be, and the peer is left.
func (p *peer) cover(n uint64) bool {
	if n < p.ledger.covered || n > p.ledger.sealed {
		p.leave(codec.GoodbyeProtocol, fmt.Sprintf("received went from %d to %d, of at most %d frames sent", p.ledger.covered, n, p.ledger.sealed))
		return false
	}
	p.ledger.cover(n)
	return true
}

// ready does what has come up elsewhere: verdicts, an answer, and a question that is
// due.
func (p *peer) ready() {
	p.drain()
	p.answerOwed()
	if p.isOpen() && p.ledger.due() {
		p.ask()
	}
}

// hello checks the peer's hello (PROTOCOL.md section 4) and opens the
// connection for frames.
func (p *peer) hello(h *codec.Hello, f codec.Raw) {
	s := p.router.state()
	c := &s.config
	now := p.loop.link.Now()
	sent := time.Unix(0, int64(f.SendTime()))
	switch {
	case h.Version != codec.ProtocolVersion:
		p.leave(codec.GoodbyeVersion, fmt.Sprintf("you speak protocol version %d, this router %d", h.Version, codec.ProtocolVersion))
		return
	case !p.cert(f.CertID()).timely(f, now, p.router.state().config.SkewMax):
		p.leave(codec.GoodbyeClock, fmt.Sprintf("your clock says %s, this router's %s; at most %v apart is allowed",
			clock(sent), clock(now), c.SkewMax))
		return
	case h.Role != p.role():
		p.leave(codec.GoodbyeRole, "hello says "+h.Role.String()+", the certificate "+p.role().String())
		return
	case s.cutoff != nil && h.IsOlderThan(*s.cutoff):
		p.leave(codec.GoodbyeVersion, fmt.Sprintf("you run %s; this router takes %s and newer", h.Software, c.VersionCutoff))
		return
	}
	if p.loop.draining {
		p.leaveDraining()
		return
	}
	if p.adopt(s); p.phase >= phaseLeaving {
		return // what was good in the handshake is no longer
	}
	if h.BodyMax < c.BodyMax {
		p.conn.SetFrameMaxOnLoop(int(max(h.BodyMax, 1))) // 0 would be: not said
	}
	if p.far != nil {
		p.openLink(h)
		return
	}
	p.phase = phaseOpen
	p.kind, p.software, p.helloSent = h.Kind, h.Software, f.SendTime()
	p.sayHello()
	p.register()
	p.loop.tellLater(p)
}

// clock writes a time as errors about clocks show it.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }

// register makes the peer the one recipient of its address.
func (p *peer) register() {
	p.member = &member{id: p.id, kind: p.kind, ref: p.conn.Ref()}
	p.domain.members.join(p.member)
	for _, c := range p.certs {
		p.domain.members.hold(c.id)
	}
	if last := p.router.withdrawn.find(p.address()); last != nil && last.bytes.Load() > 0 {
		p.enterAfter(last)
		return
	}
	p.enter()
}

// enter puts the peer into the table. Of two connections of one address that which has
// come first is told that it was replaced: mostly the one in the table, but the peer
// may have waited (enterAfter) while a newer one has not.
func (p *peer) enter() {
	r, a, ref := p.router, p.address(), p.conn.Ref()
	old := r.table.Lookup(a)
	for {
		if isHere(old) && p.domain.members.isAfter(link.Ref(old), p.member) {
			p.replacedBy(aNewerOne{})
			return
		}
		if r.table.CompareAndSwap(a, old, tableValue(ref)) {
			break
		}
		old = r.table.Lookup(a)
	}
	r.routing.attach(p.domain.address, a, ref, p.helloSent, old)
	if isHere(old) {
		before := link.Ref(old)
		r.loops[before.Loop()].replace(before, p.conn.Remote())
	}
	r.comesBack(a)
}

// replace says goodbye to the connection ref of this loop, whose address has
// connected again from `by`. Any goroutine may call it.
func (l *loop) replace(ref link.Ref, by netip.AddrPort) {
	l.link.Post(func() {
		if c := l.link.Conn(ref); c != nil {
			peerOf(c).replacedBy(by)
		}
	})
}

// replacedBy ends the connection of a peer whose address has a newer one.
func (p *peer) replacedBy(by fmt.Stringer) {
	p.router.replaced.add(p.router.log, p.loop.link.Now(), p, by)
	p.conn.GiveBackOnLoop(nil) // what waits goes to the newer connection
	p.leave(codec.GoodbyeReplaced, "the same address has connected again")
}

// aNewerOne is what has replaced a connection, for the log.
type aNewerOne struct{}

func (aNewerOne) String() string { return "another, which was quicker" }

// goodbye ends the connection of a peer that has said goodbye: at once when it
// reads no more, else when it has said to have received all that was queued for
// it.
func (p *peer) goodbye(g *codec.Goodbye) {
	if !p.cover(g.Received) {
		return
	}
	p.loop.payNotices()
	p.unregister(true)
	now := p.loop.link.Now()
	if g.ReadFor > 0 {
		p.payOff()
	}
	p.phase, p.drained, p.partBy = phaseParting, drainAnswered, p.router.leaveBy(now)
	if by := now.Add(g.ReadFor); by.Before(p.partBy) {
		p.partBy = by
	}
	if g.ReadFor > 0 {
		p.part()
		return
	}
	p.phase = phaseLeaving
	if p.far != nil { // it reads no more: what is queued goes on by other links
		p.conn.CloseOnLoop(&leftError{codec.GoodbyeDone})
		return
	}
	p.conn.FinishOnLoop(&leftError{codec.GoodbyeDone}, p.router.leaveBy(now))
}

// parting handles what a peer says after its goodbye. A neighbour whose goodbye has
// crossed this router's asks, too, and ends with a goodbye of its own.
func (p *peer) parting(m codec.Control) {
	switch m := m.(type) {
	case *codec.KeepAlive:
		if !p.cover(m.Received) {
			return
		}
		if m.Answer && p.far != nil {
			p.owesAnswer = true
			p.answerOwed()
		}
	case *codec.Goodbye:
		if p.far == nil || !p.cover(m.Received) {
			return
		}
	default:
		return
	}
	p.part()
}

// part goes on with the end of a peer that has said goodbye and still reads: wait
// until it has been sent the notices that it is owed, ask what it has received
// until that is all, or its time is over.
func (p *peer) part() {
	now := p.loop.link.Now()
	untaken := p.conn.QueuedBytes() > 0 || p.ledger.covered < p.ledger.sealed
	if now.Before(p.partBy) && (p.owing > 0 || untaken || p.far != nil && len(p.far.rooms.of) > 0) {
		if p.owing == 0 && untaken && !p.ledger.waits() {
			p.ask()
		}
		return
	}
	received := p.received
	if p.far != nil { // frames may wait for a certificate yet
		received = p.decided()
	}
	p.say(&codec.Goodbye{Reason: codec.GoodbyeDone, Received: received})
	p.phase = phaseLeaving
	p.conn.FinishOnLoop(&leftError{codec.GoodbyeDone}, p.router.leaveBy(now))
}

// answersMax bounds, in bytes, what waits for a peer of answers that it has
// asked for: four of the largest. Who does not read gets no more.
const answersMax = 4 * codec.ControlBodyMax

// answerSmall is more than a keep-alive or the answer to an echo has, in bytes.
const answerSmall = 2 << 10

// mayAsk bounds how often a node may ask for certificates and names. Past it
// requests are left unanswered; libraries ask again.
func (p *peer) mayAsk() bool {
	return p.mayHave(answerSmall) && p.answered(p.requests.take(p.loop.link.Now(), asksPerSecond, asksPerSecond))
}

// mayHave tells whether an answer of so many bytes may be made for the peer.
func (p *peer) mayHave(bytes int) bool { return p.answered(p.takes(bytes)) }

// answered counts a request that is not.
func (p *peer) answered(ok bool) bool {
	if !ok {
		p.loop.count.unanswered.Add(1)
	}
	return ok
}

// sendCertificates answers a certificate request (PROTOCOL.md section 5.5), in
// as many parts as the size of a body asks for.
func (p *peer) sendCertificates(number uint64, entries []codec.CertificateEntry) {
	var parts [][]codec.CertificateEntry
	var part []codec.CertificateEntry
	size, all := 0, 0
	for _, e := range entries {
		n := chainSize(e.Chain)
		if size+n > answerMax && len(part) > 0 {
			parts, part, size = append(parts, part), nil, 0
		}
		part, size, all = append(part, e), size+n, all+n
	}
	parts = append(parts, part)
	if !p.mayHave(all) {
		return
	}
	for i, entries := range parts {
		p.say(&codec.Certificates{Number: number, Part: uint8(i), Parts: uint8(len(parts)), Entries: entries})
	}
}

// answerMax leaves room in a control body for what stands around the entries;
// entryExtra is what stands around one chain.
const (
	answerMax  = codec.ControlBodyMax - 1024
	entryExtra = 128
)

func chainSize(chain [][]byte) int {
	n := entryExtra
	for _, der := range chain {
		n += len(der)
	}
	return n
}

// chain returns the chain of a node of the domain, or of this router.
func (d *domain) chain(key codec.CertKey) [][]byte {
	return d.members.chain(key)
}

// routerPrefix begins the names of routers in name requests.
const routerPrefix = "router/"

// describe is how a peer stands in the log.
func describe(id *pki.Peer) string { return strings.TrimPrefix(id.URI(), codec.URLScheme) }
