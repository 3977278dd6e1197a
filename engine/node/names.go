package node

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

const (
	routerPrefix    = "router/"              // begins the names of routers
	namesCachedFor  = 5 * time.Second        // a found name is not asked for again
	namesPeerWait   = 500 * time.Millisecond // for routers, about a name that a connected node has
	namesCachedMax  = 1024
	namesAskedMax   = 64   // requests outstanding at once; others wait for them
	namesPagesMax   = 4096 // of one list: a million names
	namesPageLength = codec.NamesMax
)

// Entry is a member of the domain that is connected.
type Entry struct {
	Name      string        `json:"name"` // of a router: "router/NAME"
	Address   codec.Address `json:"address"`
	Kind      string        `json:"kind"` // free text of its hello; not verified
	NotBefore time.Time     `json:"notBefore"`
	NotAfter  time.Time     `json:"notAfter"`
}

type cachedEntry struct {
	entry Entry
	until time.Time
}

type namesRequest struct {
	on     *conn
	answer chan *codec.Names // capacity 1; closed when the connection is gone
}

// names are the outstanding requests for names, and what was found lately.
type names struct {
	slots chan struct{} // capacity namesAskedMax: requests outstanding

	mu      sync.Mutex
	number  uint64
	waiting map[uint64]*namesRequest
	cache   map[string]cachedEntry
}

func newNames() *names {
	return &names{
		slots:   make(chan struct{}, namesAskedMax),
		waiting: make(map[uint64]*namesRequest), cache: make(map[string]cachedEntry),
	}
}

// Lookup returns the connected node with the name, or, for "router/NAME", the
// router. Only the certificate's verified name counts; of two nodes with one
// name it is the one whose certificate is younger, connected to this node itself or
// to a router. Results of routers are remembered for 5 s. It fails with *NameError (ErrNoSuchName) when there is none, and
// *WaitError or *NotConnectedError when no answer came.
func (n *Node) Lookup(ctx context.Context, name string) (Entry, error) {
	if err := pki.CheckName(strings.TrimPrefix(name, routerPrefix)); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", &NameError{Name: name, Domain: n.Domain()}, err)
	}
	peer, connected := n.peerNamed(name)
	if c, _ := n.out.current(); connected && (c == nil || c.direct) {
		return peer, nil
	}
	if connected { // it is here, whatever routers say, and when
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, namesPeerWait)
		defer end()
	}
	found, err := n.routersLookup(ctx, name)
	if connected && (err != nil || peer.isBefore(found)) {
		return peer, nil
	}
	return found, err
}

// routersLookup asks routers for a name.
func (n *Node) routersLookup(ctx context.Context, name string) (Entry, error) {
	if e, ok := n.names.cached(name, n.cfg.Now()); ok {
		return e, nil
	}
	m, err := n.askNames(ctx, codec.NameRequest{Name: name, Max: namesPageLength})
	if err != nil {
		return Entry{}, err
	}
	var found Entry
	for _, e := range n.verifyEntries(m.Entries) {
		if e.Name == name && (found.Name == "" || e.isBefore(found)) {
			found = e
		}
	}
	if found.Name == "" {
		return Entry{}, &NameError{Name: name, Domain: n.Domain()}
	}
	n.names.remember(found, n.cfg.Now())
	return found, nil
}

// List returns the connected nodes of the domain, in byte order of their names.
func (n *Node) List(ctx context.Context) ([]Entry, error) {
	var all []Entry
	after := ""
	for range namesPagesMax {
		m, err := n.askNames(ctx, codec.NameRequest{After: after, Max: namesPageLength})
		if err != nil {
			return nil, err
		}
		for _, e := range n.verifyEntries(m.Entries) {
			if e.Name <= after || len(all) > 0 && e.Name < all[len(all)-1].Name {
				n.counters.namesRefused.Add(1)
				continue // out of order: it may be repeated for ever
			}
			if len(all) > 0 && e.Name == all[len(all)-1].Name {
				if e.isBefore(all[len(all)-1]) {
					all[len(all)-1] = e
				}
				continue
			}
			all = append(all, e)
		}
		if m.Next == "" {
			return all, nil
		}
		if m.Next <= after {
			return nil, &ProtocolError{What: "a list of names goes back"}
		}
		after = m.Next
	}
	return nil, &ProtocolError{What: fmt.Sprintf("a list of names has more than %d parts", namesPagesMax)}
}

// verifyEntries returns what the verified chains say; others are counted.
func (n *Node) verifyEntries(entries []codec.NameEntry) []Entry {
	now := n.cfg.Now()
	verified := make([]Entry, 0, len(entries))
	for _, e := range entries {
		peer, err := n.trust.Load().VerifyDER(e.Chain, n.Domain(), now)
		if err != nil {
			n.counters.namesRefused.Add(1)
			continue
		}
		n.learn(peer)
		name := peer.Name
		if peer.Role == pki.RoleRouter {
			name = routerPrefix + name
		}
		verified = append(verified, Entry{
			Name: name, Address: peer.Address, Kind: e.Kind,
			NotBefore: peer.Leaf.NotBefore, NotAfter: peer.NotAfter,
		})
	}
	return verified
}

// askNames sends a request and waits for its answer; when a connection is lost
// meanwhile, it asks on the next one.
func (n *Node) askNames(ctx context.Context, request codec.NameRequest) (*codec.Names, error) {
	const what = "answer about names from the router"
	ctx, cancel := context.WithTimeout(ctx, n.cfg.AnswerTimeout)
	defer cancel()
	select {
	case n.names.slots <- struct{}{}:
		defer func() { <-n.names.slots }()
	case <-n.done:
		return nil, n.Err()
	case <-ctx.Done():
		return nil, n.waitError(ctx, what, nil)
	}
	for {
		c, err := n.connection(ctx)
		if err != nil {
			return nil, err
		}
		number, answer := n.names.open(c)
		request.Number = number
		if !c.request(&request) {
			n.names.close(number)
			if err := n.leave(ctx, c); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case m, ok := <-answer:
			if ok {
				return m, nil
			}
		case <-n.done:
			n.names.close(number)
			return nil, n.Err()
		case <-ctx.Done():
			n.names.close(number)
			return nil, n.waitError(ctx, what, nil)
		}
	}
}

// connection waits for a connection.
func (n *Node) connection(ctx context.Context) (*conn, error) {
	for {
		c, connected := n.out.current()
		if c != nil && c.direct {
			return nil, &DirectError{Peer: c.link.router.Address, Name: c.link.router.Name}
		}
		if c != nil {
			return c, nil
		}
		select {
		case <-connected:
		case <-n.done:
			return nil, n.Err()
		case <-ctx.Done():
			return nil, n.waitError(ctx, "connection", nil)
		}
	}
}

// leave waits until a connection that takes no requests any more has ended, or
// its queue has moved on.
func (n *Node) leave(ctx context.Context, c *conn) error {
	select {
	case <-c.ended:
	case <-c.progress:
		signal(c.progress) // it is not only for us
	case <-n.done:
		return n.Err()
	case <-ctx.Done():
		return n.waitError(ctx, "room for a request", nil)
	}
	return nil
}

func (s *names) open(on *conn) (uint64, <-chan *codec.Names) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	r := &namesRequest{on: on, answer: make(chan *codec.Names, 1)}
	s.waiting[s.number] = r
	return s.number, r.answer
}

func (s *names) close(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, number)
}

// answer takes the router's answer; one to nothing may have come too late.
func (s *names) answer(on *conn, m *codec.Names) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.waiting[m.Number]; r != nil && r.on == on {
		delete(s.waiting, m.Number)
		r.answer <- m
	}
}

func (s *names) connGone(on *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for number, r := range s.waiting {
		if r.on == on {
			delete(s.waiting, number)
			close(r.answer)
		}
	}
}

func (s *names) cached(name string, now time.Time) (Entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.cache[name]
	if ok && now.After(e.until) {
		delete(s.cache, name)
		return Entry{}, false
	}
	return e.entry, ok
}

func (s *names) remember(e Entry, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	makeRoom(s.cache, namesCachedMax)
	s.cache[e.Name] = cachedEntry{e, now.Add(namesCachedFor)}
}

// isBefore reports whether e counts, and not other, of two nodes with one name
// (PROTOCOL.md section 5.7).
func (e Entry) isBefore(other Entry) bool {
	if !e.NotBefore.Equal(other.NotBefore) {
		return e.NotBefore.After(other.NotBefore)
	}
	return bytes.Compare(e.Address[:], other.Address[:]) > 0
}
