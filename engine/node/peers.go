package node

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// peers are the nodes that are connected to this one (PROTOCOL.md section 4.2), by
// address. Each has a queue of its own, so that one that does not read holds up
// nobody else.
//
// Bound: max nodes, and handshakesMax connections more that leave; handshakesMax handshakes, handshakesOfOne of one source. When full: a node beyond gets goodbye
// "limit", a handshake beyond is closed.
type peers struct {
	max        int
	left       atomic.Int64    // messages in the queues of peers that Close ended
	ctx        context.Context // ends when all are to leave
	end        context.CancelFunc
	goroutines sync.WaitGroup // of those that accept, and of peers

	// mu comes after sessions.mu, and before outgoing.mu.
	mu      sync.Mutex
	by      map[codec.Address]*conn
	changed chan struct{} // closed, and made anew, when a node has connected

	live         int // connections from add to gone: also those that leave
	handshakes   int // under way
	handshakesOf map[netip.Prefix]int
}

func newPeers(ctx context.Context, max int) *peers {
	p := &peers{max: max, by: make(map[codec.Address]*conn), changed: make(chan struct{}), handshakesOf: make(map[netip.Prefix]int)}
	p.ctx, p.end = context.WithCancel(ctx)
	return p
}

// add makes c the way to its node. older is the connection whose place it takes;
// ok is false when there are too many. What the node is now goes by c from then on.
func (p *peers) add(c *conn, what *outgoing) (older *conn, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	address := codec.Address(c.link.router.Address)
	older = p.by[address]
	if older == nil && len(p.by) >= p.max || p.live >= p.max+handshakesMax {
		return nil, false
	}
	p.live++
	p.by[address] = c
	c.out.become(what)
	close(p.changed)
	p.changed = make(chan struct{})
	return older, true
}

func (p *peers) remove(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address := codec.Address(c.link.router.Address); p.by[address] == c {
		delete(p.by, address)
	}
}

// gone is said once of each connection that was added, when it has ended.
func (p *peers) gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live--
}

func (p *peers) all() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*conn, 0, len(p.by))
	for _, c := range p.by {
		all = append(all, c)
	}
	return all
}

func (p *peers) none() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.by) == 0
}

func (p *peers) unsent() int { return int(p.left.Load()) }

// renew makes all queues go on as what does.
func (p *peers) renew(what *outgoing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.by {
		c.out.become(what)
	}
}

// become makes o sign as the other queue does.
func (o *outgoing) become(other *outgoing) {
	other.mu.Lock()
	selves, now := append([]*self(nil), other.selves...), other.self.Load()
	other.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.selves = selves
	o.self.Store(now)
	if o.writer != nil {
		o.writer.wakeWriter()
	}
}

// newPeerOut returns the queue for a node that has connected. Nothing is sent
// again there: it is the recipient itself.
func (n *Node) newPeerOut() *outgoing {
	o := newOutgoing(&n.cfg, n.rand)
	o.clock, o.recent, o.kept = n.out.clock, newRecent(pendingMax), kept{}
	return o
}

// outTo returns the queue for frames to that address.
func (n *Node) outTo(to codec.Address) *outgoing {
	o, _ := n.wayTo(to)
	return o
}

// wayTo is outTo; changed is closed when that may be another queue, nil when its
// end says so.
func (n *Node) wayTo(to codec.Address) (o *outgoing, changed <-chan struct{}) {
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	if c := n.peers.by[to]; c != nil {
		return c.out, nil
	}
	return n.out, n.peers.changed
}

// way is how a message that waits for room finds out that its recipient has
// connected meanwhile.
type way struct {
	n  *Node
	to codec.Address
}

// left waits until frames go by another queue than o, or until either channel is
// closed; it reports whether it was the queue.
func (w way) left(o *outgoing, granted, done <-chan struct{}) bool {
	for {
		now, changed := w.n.wayTo(w.to)
		if now != o && changed == nil {
			return true // else the recipient has left again, and o is refused
		}
		select {
		case <-granted:
			return false
		case <-done:
			return false
		case <-changed:
		}
	}
}

// outOfNotice returns the queue by which the frames went that a notice is about: a
// node may have been reached by routers before it connected.
func (n *Node) outOfNotice(m *codec.Notice) *outgoing {
	o := n.outTo(m.Recipient)
	if o == n.out || len(m.Frames) == 0 {
		return o
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range m.Frames {
		if o.recent.find(f, m.Recipient) != nil {
			return o
		}
	}
	return n.out
}

// Peer is a node that this one is connected to without a router.
type Peer struct {
	Name     string        `json:"name"`
	Address  codec.Address `json:"address"`
	Kind     string        `json:"kind"`
	Software string        `json:"software"`
	URL      string        `json:"url"`      // of Config.Direct, or host:port that it has connected from
	Accepted bool          `json:"accepted"` // it has connected to this node
	BodyMax  int           `json:"bodyMax"`  // bytes
}

// Peers returns the nodes that this one is connected to without a router: those
// that have connected to it, and that of Config.Direct.
func (n *Node) Peers() []Peer {
	var all []Peer
	for _, c := range n.directs() {
		all = append(all, Peer{
			Name: c.link.router.Name, Address: c.link.router.Address, Kind: c.hello.Kind, Software: c.hello.Software,
			URL: c.url, Accepted: c.accepted, BodyMax: int(c.hello.BodyMax),
		})
	}
	return all
}

// directs returns all connections with nodes.
func (n *Node) directs() []*conn {
	all := n.peers.all()
	if c, _ := n.out.current(); c != nil && c.direct {
		all = append(all, c)
	}
	return all
}

// peerNamed finds a node that this one is connected to without a router; of several
// of that name the one that counts.
func (n *Node) peerNamed(name string) (found Entry, ok bool) {
	for _, c := range n.directs() {
		p := c.newest.Load()
		if p.Name != name {
			continue
		}
		e := Entry{Name: name, Address: p.Address, Kind: c.hello.Kind, NotBefore: p.Leaf.NotBefore, NotAfter: p.NotAfter}
		if !ok || e.isBefore(found) {
			found, ok = e, true
		}
	}
	return found, ok
}

// leadsTo reports whether frames to that address may go by the connection.
func (c *conn) leadsTo(to codec.Address) bool {
	return !c.direct || to == codec.Address(c.link.router.Address)
}

// checkDirect checks that a frame on a direct connection goes from its one end to
// the other: nobody forwards there.
func (c *conn) checkDirect(raw codec.Raw) error {
	switch {
	case !c.direct:
	case raw.Recipient() != c.n.address:
		return &ProtocolError{What: "a frame for another recipient, and a node forwards nothing"}
	case raw.Sender() != codec.Address(c.link.router.Address):
		return &ProtocolError{What: "a frame of another sender, and a node forwards nothing"}
	}
	return nil
}

// handleDirect takes link control of a node.
func (c *conn) handleDirect(m codec.Control) error {
	switch m := m.(type) {
	case *codec.KeepAlive:
		return c.keepAlive(m)
	case *codec.Goodbye:
		m.Routers = nil // only routers are asked for others
		return c.hearGoodbye(m)
	case *codec.Renewal:
		return c.renewal(m)
	}
	return &ProtocolError{What: "a node was sent a second hello by another, or what only routers say or answer"}
}

// learnPeerLocked makes sure that the certificate of a frame on a direct connection
// is known; false: it was not announced there, or is revoked. in.mu is held, by c's reader.
func (n *Node) learnPeerLocked(c *conn, raw codec.Raw, now time.Time) bool {
	id := raw.CertID()
	for _, announced := range c.link.certs {
		if codec.CertID(announced.peer.CertID) != id {
			continue
		}
		_, state := n.in.certs.lookup(raw.CertKey(), now)
		return state != certUnknown || n.learnLocked(announced.peer, now)
	}
	return false
}

// endRevoked ends connections with nodes whose certificate next does not bear out.
func (n *Node) endRevoked(next *pki.Store, now time.Time) {
	for _, c := range n.directs() {
		if err := c.checkRevoked(next, now); err != nil {
			c.kill(err)
		}
	}
}

// reserve is outgoing.reserve in the queue for that address.
func (n *Node) reserve(ctx context.Context, to codec.Address, bodySize int) (*outgoing, *slot, error) {
	for {
		o := n.outTo(to)
		s, err := o.reserve(ctx, way{n, to}, bodySize)
		if err != errPeerLeft { // else by routers, or by its next connection
			return o, s, err
		}
	}
}
