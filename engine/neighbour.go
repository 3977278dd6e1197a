package engine

import (
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
	"causeway/engine/route"
)

// A link is a connection between two routers (PROTOCOL.md section 4.1); the one
// at its other end is this router's neighbour there:
//
//  1. dial.go       connects to a target, and again when the link has ended
//  2. neighbour.go  hellos: the link is open, or refused
//  3. proofs.go     both prove their domains and show grants for those that they
//     share; a domain that is proven at both ends is up, until it is withdrawn
//  4. what is up    routes and frames of the domain, by the hooks domainUp,
//     domainDown, routeMessage and linkFrame
type neighbour struct {
	// fixed after start
	id       route.LinkID
	cost     uint16   // of the link
	sni      string   // the domain it was opened in
	attempt  *attempt // of the dialer; nil: the link was accepted
	exporter []byte   // of TLS, binds domain proofs to the connection
	key      string   // public key of its handshake, DER

	// home loop
	nodeCost  uint16 // as it announced
	counted   bool   // among links.open
	openedAt  time.Time
	farewell  error // the goodbye it said
	settling  bucket
	suspects  suspects
	questions bucket // about names
	answers   bucket // the same, which go on to other routers

	retiring   bool // this end has done with the link
	retireSaid bool // and has said so
	retireText string
	retireFrom time.Time // since when; of the goodbye once that is said

	rooms   rooms     // of frames that wait for certificates
	lists   linkLists // revocation lists under way
	unsaid  unsaid    // what routing has to say
	current current   // of the domain of the frame that came last
	settlement
}

// proven is a domain that the neighbour has proven.
type proven struct {
	domain  *domain    // this router's part in it
	grant   *announced // the neighbour's
	address codec.Address
	isDown  bool // domainDown was told; frames that are under way are still taken
}

// Rates of the messages that settle what a link is for: domain proofs, grants,
// renewals (PROTOCOL.md section 5.17).
const (
	settlesPerSecond = 8
	settlesBurst     = 64
)

// links is what a router knows of all its links.
type links struct {
	lastID atomic.Uint64

	mu      sync.Mutex
	open    map[string]int    // links by the neighbour's key, at most codec.LinksMax each
	ignored map[string]uint64 // grants and proofs, by reason
	results map[string]uint64 // of dialing
	dialers map[string]*dialer
	stopped bool

	dialing sync.WaitGroup
}

func newLinks() *links {
	ls := &links{open: make(map[string]int), ignored: make(map[string]uint64), dialers: make(map[string]*dialer)}
	ls.results = map[string]uint64{dialLinked: 0, dialUnreachable: 0, dialRefused: 0}
	return ls
}

// join counts a link to the router with that key; false: there are too many.
func (ls *links) join(key string) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.open[key] >= codec.LinksMax {
		return false
	}
	ls.open[key]++
	return true
}

func (ls *links) part(key string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.open[key]--; ls.open[key] == 0 {
		delete(ls.open, key)
	}
}

// ignore counts a grant or a proof that was ignored; reason is from a bounded
// set.
func (ls *links) ignore(reason string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.ignored[reason]++
}

// errSelf is a link to this router itself.
var errSelf = &tlsError{"self", "the router at the other end is this one: it has this router's key"}

// newNeighbour makes p the end of a link.
func (p *peer) newNeighbour() error {
	if pki.SameKey(p.id.Public, p.domain.grant.Public) {
		return errSelf
	}
	tls := p.conn.TLS()
	exporter, err := tls.ExportKeyingMaterial(codec.DomainsExporter, nil, codec.DomainsExporterSize)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKIXPublicKey(p.id.Public)
	if err != nil {
		return err
	}
	p.far = &neighbour{
		id: route.LinkID(p.router.links.lastID.Add(1)), cost: p.router.state().config.linkCost(""), sni: p.domain.name, exporter: exporter, key: string(key),
		suspects: make(suspects), settlement: newSettlement(p.domain, p.certs[0]),
	}
	p.conn.AutotuneReceive() // links go far, and are never paused for a recipient
	if a, ok := p.conn.Tag().(*attempt); ok {
		p.far.attempt, p.far.cost = a, a.cost
		a.ref = p.conn.Ref
	}
	return nil
}

// role is what the peer's certificate says it is.
func (p *peer) role() codec.Role {
	if p.far != nil {
		return codec.RoleRouter
	}
	return codec.RoleNode
}

// sayHello introduces this router.
func (p *peer) sayHello() {
	c := &p.router.state().config
	p.say(&codec.Hello{
		Version: codec.ProtocolVersion, Role: codec.RoleRouter, Kind: "router", NodeCost: c.NodeCost,
		Software: c.Software, KeepAlive: c.KeepAlive, DeadAfter: c.DeadAfter, BodyMax: c.BodyMax,
	})
}

// openLink opens the link for what follows a good hello.
func (p *peer) openLink(h *codec.Hello) {
	far := p.far
	if !p.router.links.join(far.key) {
		p.leave(codec.GoodbyeLimit, fmt.Sprintf("there are %d links between us", codec.LinksMax))
		return
	}
	p.phase, p.kind, p.software = phaseOpen, h.Kind, h.Software
	far.counted, far.nodeCost, far.openedAt = true, h.NodeCost, p.loop.link.Now()
	if !p.conn.Dialed() {
		p.sayHello()
	}
	if far.attempt != nil {
		close(far.attempt.opened)
	}
	p.conn.SetLinkOnLoop()
	p.ledger.isLink = true
	p.offer(true)
}

// unlink withdraws all domains of the link, and counts it no more.
func (p *peer) unlink() {
	far := p.far
	p.withdrawAll()
	clear(far.proven)
	far.current.proven = nil
	if far.counted {
		p.router.links.part(far.key)
		far.counted = false
	}
}

// settlingFrame handles b, a message that settles what the link is for, before
// the frames behind it, whose fate may depend on it, are looked at. It overtakes
// those in the ring; for them nothing changes.
func (p *peer) settlingFrame(b *buf.Buffer) {
	f := codec.Raw(b.B)
	under := p.cert(f.CertID())
	if !under.key.Verify(f.Signed(), f.Signature()) {
		p.badSignature(b, true)
		return
	}
	if m, err := codec.DecodeControl(f.Body()); err != nil {
		p.leave(codec.GoodbyeProtocol, err.Error())
	} else {
		p.settled(m, f, under)
	}
	p.loop.consume(b)
}

// settled acts on a message of settlingFrame that was signed under the
// certificate given.
func (p *peer) settled(m codec.Control, f codec.Raw, under *announced) {
	hello, isHello := m.(*codec.Hello)
	switch {
	case p.phase == phaseParting: // what it offers does not matter any more
		return
	case isHello != (p.phase == phaseHello):
		p.leave(codec.GoodbyeProtocol, "hello must come first, and once")
		return
	case isHello:
		p.hello(hello, f)
		return
	case !p.far.settling.take(p.loop.link.Now(), settlesPerSecond, settlesBurst):
		p.leave(codec.GoodbyeLimit, fmt.Sprintf("more than %d domain proofs, grants and renewals a second", settlesPerSecond))
		return
	}
	switch m := m.(type) {
	case *codec.DomainProofs:
		p.proofs(m)
	case *codec.Grants:
		p.grants(m)
	case *codec.Renewal:
		p.linkRenewal(m, under)
	}
}

// linkControl handles another link-control message of a neighbour.
func (p *peer) linkControl(m codec.Control) {
	switch m := m.(type) {
	case *codec.KeepAlive:
		p.keepAlive(m)
	case *codec.Goodbye:
		p.far.farewell = &farewellError{m.Reason, m.Text}
		p.linkGoodbye(m)
	case *codec.CertificateRequest:
		if p.mayAsk() {
			p.certificates(m)
		}
	case *codec.Certificates:
		p.answered(p.router.fetcher.answer(p, m))
	case *codec.RevocationList:
		p.revocationList(m)
	case *codec.RouteUpdate, *codec.SeqnoRequest, *codec.AddressList, *codec.ListRequest, *codec.ListNumbers:
		p.routeMessage(m)
	case *codec.SenderBlocked:
		p.senderBlocked(m)
	case *codec.NameQuestion:
		p.nameQuestion(m)
	case *codec.NameAnswer:
		p.nameAnswer(m)
	default:
		p.leave(codec.GoodbyeProtocol, "names go from router to node")
	}
}

// farewellError is a goodbye of the neighbour, as why its link has ended.
type farewellError struct {
	reason codec.GoodbyeReason
	text   string
}

func (e *farewellError) Error() string {
	if e.text == "" {
		return "the router there said goodbye: " + e.reason.String()
	}
	return "the router there said goodbye: " + e.reason.String() + ": " + e.text
}

// refused ends a dialed link whose hello was answered by a goodbye.
func (p *peer) refused(g *codec.Goodbye) {
	p.far.farewell = &farewellError{g.Reason, g.Text}
	p.phase = phaseLeaving
	p.conn.FinishOnLoop(p.far.farewell, p.router.leaveBy(p.loop.link.Now()))
}

// lookLink acts on what has not happened on a link.
func (p *peer) lookLink(now time.Time) {
	p.far.suspects.forget(now, p.router.state().config.BadSignatures)
	p.lookRetiring(now)
	p.lookList(now)
	if p.phase == phaseOpen && len(p.far.proven) == 0 && now.Sub(p.far.openedAt) >= p.router.state().config.HelloTimeout {
		p.leave(codec.GoodbyeDone, "no domain was proven in time")
	}
}
