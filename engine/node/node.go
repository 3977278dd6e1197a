package node

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// Node is one member of a domain, connected to one of its routers or on the way
// back to one. Its methods may be called by any goroutine.
type Node struct {
	cfg       Config // prepared; Identity and Trust as they were at the start
	address   codec.Address
	ownRoots  bool                       // the identity's roots are what the node trusts
	trust     *atomic.Pointer[pki.Store] // changed with in.mu held
	self      *atomic.Pointer[self]      // changed with out.mu held
	rand      io.Reader                  // cfg.Rand for many goroutines
	started   uint64                     // send time scale
	lock      *lock
	listeners []net.Listener

	ctx        context.Context // ends when Close is called or the node has ended
	cancel     context.CancelFunc
	goroutines sync.WaitGroup
	counters   counters

	out      *outgoing // to routers, or to Config.Direct
	peers    *peers    // nodes that are connected to this one
	in       *receiving
	inbox    *deliveries
	answers  *answers
	sessions *sessions
	echoes   *echoes
	names    *names
	notices  chan *NoticeError // for callBack; nil without Config.OnNotice

	// Of the run goroutine; readable when done is closed.
	backoff   backoff
	err       error // what ended the node
	unsent    int   // messages in the queue at the end
	lossCause error // why; may be nil

	unconfirmed atomic.Int64 // messages written to connections that Close ended

	// Guarded by in.mu.
	hinted [dropReasons]time.Time // when a drop was last logged

	done      chan struct{} // closed when the node has ended
	closeOnce sync.Once
	closeErr  error
}

// Connect connects the node to the first of Config.Routers that accepts it, or to
// Config.Direct, and keeps it connected until Close. With Config.Listen it returns as
// soon as the node listens: who connects there is answered from then on, whether or
// not there is a router, and the node goes on to connect to one, if there is any in
// Config.Routers. ctx is for connecting only. Errors are
// *ConfigError, *LockError, *ListenError, *ExpiredError, *ConnectError with what
// each router said, or one of pki about the node's own certificate.
func Connect(ctx context.Context, cfg Config) (*Node, error) {
	ownRoots := cfg.Trust == nil
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	n, err := newNode(cfg)
	if err != nil {
		return nil, err
	}
	n.ownRoots = ownRoots
	if cfg.LockFile != "" {
		if n.lock, err = takeLock(cfg.LockFile); err != nil {
			return nil, err
		}
	}
	c, err := n.first(ctx)
	if err != nil {
		n.cancel()
		n.closeListeners()
		n.lock.release()
		return nil, err
	}
	if c != nil {
		n.use(c)
	}
	n.acceptAll()
	n.goroutines.Go(func() { n.run(c) })
	n.goroutines.Go(n.answer)
	n.goroutines.Go(n.keepSessions)
	if n.notices != nil {
		n.goroutines.Go(n.callBack)
	}
	return n, nil
}

// first listens, or makes the first connection.
func (n *Node) first(ctx context.Context) (*conn, error) {
	if err := n.listen(); err != nil {
		return nil, err
	}
	switch {
	case len(n.listeners) > 0:
		return nil, nil // run connects
	case n.cfg.Wait:
		return n.connect(ctx, nil)
	}
	return n.round(ctx, n.cfg.Routers)
}

func newNode(cfg Config) (*Node, error) {
	first, err := newSelf(cfg.Identity)
	if err != nil {
		return nil, err
	}
	random := &sharedReader{r: cfg.Rand}
	n := &Node{
		cfg:     cfg,
		address: cfg.Identity.Peer.Address,
		trust:   new(atomic.Pointer[pki.Store]),
		rand:    random,
		started: uint64(cfg.Now().UnixNano()),
		out:     newOutgoing(&cfg, random),
		in:      newReceiving(),
		inbox:   newDeliveries(cfg.ReceiveQueuePerSender, cfg.ReceiveQueue),
		answers: newAnswers(),
		echoes:  &echoes{waiting: make(map[[codec.EchoIDSize]byte]*echoWait)},
		names:   newNames(),
		backoff: backoff{min: cfg.BackoffMin, max: cfg.BackoffMax},
		done:    make(chan struct{}),
	}
	n.inbox.sealedMax = cfg.SealedQueue
	if n.sessions, err = newSessions(n); err != nil {
		return nil, err
	}
	n.trust.Store(cfg.Trust)
	n.out.selves = []*self{first}
	n.out.self.Store(first)
	n.self = &n.out.self
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.peers = newPeers(n.ctx, cfg.PeersMax)
	if cfg.OnNotice != nil {
		n.notices = make(chan *NoticeError, callbacksMax)
	}
	return n, nil
}

// sharedReader lets many goroutines read from one reader.
type sharedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (s *sharedReader) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(b)
}

// Close sends what Send has accepted, waits until the router has confirmed it,
// says goodbye and ends the node; all that for Config.CloseTimeout at most, and
// not at all while no router is connected. What waits to be sent again by then
// fails with its last notice. It returns *CloseError when something
// was left over, and what ended the node if it had ended before. Later calls
// return the same.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		n.cancel()
		n.goroutines.Wait()
		n.lock.release()
		switch {
		case n.err != ErrClosed:
			n.closeErr = n.err
		case n.unsent+n.peers.unsent() > 0 || n.unconfirmed.Load() > 0:
			n.closeErr = &CloseError{Unsent: n.unsent + n.peers.unsent(), Unconfirmed: int(n.unconfirmed.Load()), Err: n.lossCause}
		}
	})
	return n.closeErr
}

// Done is closed when the node has ended: by Close, or for good.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns what ended the node: ErrClosed, ErrReplaced (test with
// errors.Is), *ExpiredError; nil while it has not ended.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.err
	default:
		return nil
	}
}

// Address returns the node's address.
func (n *Node) Address() codec.Address { return n.address }

// Domain returns the name of the node's domain.
func (n *Node) Domain() string { return n.cfg.Identity.Peer.Domain }

// Name returns the node's name in its domain.
func (n *Node) Name() string { return n.cfg.Identity.Peer.Name }

// Router is the router a node is connected to.
type Router struct {
	URL      string        `json:"url"`
	Name     string        `json:"name"`
	Address  codec.Address `json:"address"`
	Kind     string        `json:"kind"`
	Software string        `json:"software"`
	BodyMax  int           `json:"bodyMax"` // bytes
}

// Router returns the router the node is connected to; ok is false while it is
// connected to none.
func (n *Node) Router() (r Router, ok bool) {
	c, _ := n.out.current()
	if c == nil || c.direct {
		return Router{}, false
	}
	return Router{
		URL: c.url, Name: c.link.router.Name, Address: c.link.router.Address,
		Kind: c.hello.Kind, Software: c.hello.Software, BodyMax: int(c.hello.BodyMax),
	}, true
}

// Send seals a message, so that its recipient alone can read it, and queues it. It
// blocks while there is no session with the recipient or no credit (package doc),
// while the queue is full, and while no router is connected. The message is signed
// when the connection is free to take it, together with others that wait then; a
// key that fails to sign it is told by its Sent (*UnsentError), or by Send if it is
// P-256. The body is borrowed until return. Category is 0, 5 (device traffic), or
// one from 64 on. With Config.Plain bodies are not sealed, but for category 5.
//
// Messages to one recipient arrive in the order in which Send was called, plain ones
// as long as neither changes routers. Errors: *CategoryError, *BodySizeError,
// *NoticeError when the recipient can't be reached to make a session, *RevokedError,
// *NotConnectedError or *WaitError when ctx ends, and what ended the node.
func (n *Node) Send(ctx context.Context, to codec.Address, category codec.Category, body []byte) (*Sent, error) {
	if category != codec.CategoryData && category != codec.CategoryDevice && category < codec.CategoryApplication {
		return nil, &CategoryError{category}
	}
	if to.IsZero() {
		return nil, errNoRecipient
	}
	if n.cfg.Plain && category != codec.CategoryDevice {
		return n.send(ctx, to, category, body, false)
	}
	return n.sendSealed(ctx, to, category, body)
}

// send queues a plain frame; internal: it is not the application's.
func (n *Node) send(ctx context.Context, to codec.Address, category codec.Category, body []byte, internal bool) (*Sent, error) {
	return n.sendTTL(ctx, to, codec.TTLDefault, category, body, internal)
}

// sendTTL is send with a time to live.
func (n *Node) sendTTL(ctx context.Context, to codec.Address, ttl uint8, category codec.Category, body []byte, internal bool) (*Sent, error) {
	if err := n.check(to, len(body), 0); err != nil {
		return nil, err
	}
	o, slot, err := n.reserve(ctx, to, len(body))
	if err != nil {
		return nil, err
	}
	s := &Sent{To: to, Category: category, SendTime: slot.sendTime, node: n, out: o, internal: internal, queuedAt: time.Now()}
	by := n.self.Load()
	frame, state, err := by.compose(n.address, to, category, slot.sendTime, body)
	if err != nil {
		o.void(slot)
		return nil, err
	}
	codec.Raw(frame).SetTTL(ttl)
	s.Digest = codec.Raw(frame).Digest()
	o.publish(slot, state, by, frame, s)
	return s, nil
}

// waitError turns the end of ctx into an error that says what was missing, and
// whether there is a connection at all.
func (n *Node) waitError(ctx context.Context, what string, last error) error {
	alone := n.peers.none()
	n.out.mu.Lock()
	defer n.out.mu.Unlock()
	if n.out.writer == nil && n.out.ended == nil && alone {
		return &NotConnectedError{Last: n.out.last, Err: ctx.Err()}
	}
	return waitError(ctx, what, last)
}
