package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/gate"
	"causeway/engine/link"
	"causeway/engine/table"
	"causeway/engine/verify"
)

// Router carries frames between the nodes that connect to it.
type Router struct {
	// fixed after start
	config Config // as at the start: use state for what a reload can change
	log    *slog.Logger

	lookEvery time.Duration

	table     *table.Table // written by loops for who is connected, else by routing
	hops      *hops        // written by routing
	routing   *routing
	asking    *asking
	withdrawn *withdrawals
	awaiting  *awaiting
	fetcher   *fetcher
	pool      *verify.Pool
	link      *link.Engine
	gate      *gate.Gate
	budget    *buf.Budget
	loops     []*loop
	observed  verifyObserver

	alarmed  tableAlarm
	started  atomic.Bool // all of the above is set; loops may turn before
	current  atomic.Pointer[state]
	reloads  *reloads
	lastTime atomic.Uint64 // send time of the last own frame
	refused  refusals
	replaced replacements
	stalled  lines
	blocked  lines
	astray   lines // of routing

	closeOnce sync.Once
	closeErr  error

	drains drain
	links  *links
	lists  receivedLists

	mu        sync.Mutex
	listeners []listening
	closing   bool
	closeBy   time.Time // when closing: the end of Close's context, if it has one
}

// Start makes a router that listens nowhere yet. Close ends it.
func Start(c Config) (*Router, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Router{
		config: c, log: c.Logger, table: table.New(), hops: new(hops), withdrawn: newWithdrawals(time.Now(), c.Memory), reloads: newReloads(time.Now()), links: newLinks(),
		awaiting:  newAwaiting(c.Memory),
		budget:    buf.NewBudget(c.Memory, c.Loops),
		lookEvery: max(lookEveryMin, min(lookEveryMax, c.KeepAlive/4)),
	}
	r.drains.empty = make(chan struct{}, 1)
	first, err := newState(r, c, nil, time.Now())
	if err != nil {
		return nil, err
	}
	for _, d := range first.domains {
		d.members.hold(d.grant)
	}
	r.current.Store(first)
	if r.pool, err = verify.NewPool(verify.Config{
		Workers: c.VerifyWorkers, CPUs: c.VerifyCPUs, Path: c.VerifyPath, TableMemory: c.VerifyTables, Observe: r.observed.observe,
	}); err != nil {
		return nil, err
	}
	r.gate = gate.New(*c.Limits, time.Now())
	r.gate.SetFirewall(c.Firewall)
	for range c.Loops {
		r.loops = append(r.loops, newLoop(r))
	}
	r.fetcher = newFetcher(r)
	r.link, err = link.Start(link.Config{
		Loops: c.Loops, CPUs: c.CPUs,
		Cut: func(conn *link.Conn, b []byte) (int, error) {
			return codec.Cut(b, codec.BodyMaxOf(b, peerOf(conn).bodyMax()))
		},
		Recipient:        recipientOf,
		HandshakeTimeout: c.HandshakeTimeout, ReceiveBuffer: c.ReceiveBuffer,
		Admit:     r.admit,
		QueueHigh: c.QueueHigh, QueueLow: c.QueueLow, PartialMax: int64(c.PartialMax), Budget: r.budget, Logger: c.Logger,
	}, handler{r})
	if err != nil {
		r.pool.Close()
		return nil, err
	}
	for i, l := range r.link.Loops() {
		r.loops[i].link = l
		r.loops[i].book.account = l.Account()
		r.loops[i].keys.account = l.Account()
	}
	r.asking = newAsking()
	r.routing = newRouting(routingHands{r}, r.table, r.hops, r.withdrawn, r.budget)
	r.routing.serve(first.served())
	r.fetcher.start()
	r.started.Store(true)
	r.dialAll(first)
	return r, nil
}

// state returns what is in force now; one decision asks once.
func (r *Router) state() *state { return r.current.Load() }

// Listen accepts nodes on hostPort; port 0 picks a free one. The error of a
// port in use satisfies errors.Is(err, syscall.EADDRINUSE).
func (r *Router) Listen(hostPort string) (net.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return nil, errors.New("engine: the router is closing")
	}
	l, err := r.link.Listen(hostPort, r.listenerTLS())
	if err != nil {
		return nil, err
	}
	r.listeners = append(r.listeners, listening{hostPort, l})
	return l.Addr(), nil
}

// Ready tells whether nodes can connect: nil, or why not.
func (r *Router) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closing:
		return errors.New("closing")
	case len(r.listeners) == 0:
		return errors.New("not listening yet")
	}
	return r.state().ready(time.Now())
}

// Close stops accepting and drains (PROTOCOL.md section 5.3): it asks all peers
// to leave, and goes on forwarding until each has said goodbye and got what is
// queued for it. Then, or when ctx is about to end (10 s from now if it has no
// deadline), it ends everything. What is not handed over by then is dropped; the
// frames are counted, senders who are still there are told, and the error tells.
// No goroutine of the router is left. Later calls wait for the first and return
// the same.
func (r *Router) Close(ctx context.Context) error {
	r.closeOnce.Do(func() { r.closeErr = r.close(ctx) })
	return r.closeErr
}

func (r *Router) close(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, drainDefault)
		defer cancel()
	}
	r.mu.Lock()
	r.closing = true
	r.closeBy, _ = ctx.Deadline()
	listeners := r.listeners
	r.listeners = nil
	r.mu.Unlock()
	r.links.stop()
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	r.drains.others = withoutOwn(r.state().config.DrainTo, listeners)
	r.drain(ctx)
	r.closeLists() // it posts to the loops, as the next one does
	r.fetcher.close()
	unwritten := r.link.Close(ctx) // by itself it may be about goodbyes only
	r.routing.close()
	r.asking.close(r)
	r.pool.Close()
	for _, l := range r.loops {
		l.sweep()
	}
	if err := r.drained(); err != nil {
		errs = append(errs, err, unwritten)
	}
	return errors.Join(errs...)
}

// leaveBy returns until when a connection that was told goodbye is kept.
func (r *Router) leaveBy(now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing && !r.closeBy.IsZero() {
		return r.closeBy
	}
	return now.Add(leaveTime)
}

// sweep drops what the rings of closed connections and the rooms still hold. The
// loop has stopped.
func (l *loop) sweep() {
	for a, room := range l.rooms {
		delete(l.rooms, a)
		for _, b := range room.frames {
			l.router.withdrawn.giveBack(room.of, int64(cap(b.B)))
			l.drop(dropShutdown, b)
		}
	}
	l.sweepStranded()
	for p := range l.awaits {
		p.emptyRooms(dropShutdown)
	}
	for p := range l.leftovers {
		if p.ring.Len() == 0 {
			continue
		}
		for p.ring.Len() > 0 {
			l.drop(dropShutdown, p.ring.Pop())
		}
		p.over()
	}
}

// handler passes link's events to the peers and loops that they are for.
type handler struct{ r *Router }

func peerOf(c *link.Conn) *peer { return c.State.(*peer) }

func (h handler) Handshaken(c *link.Conn, state tls.ConnectionState) error {
	now := h.r.state()
	d := now.domains[state.ServerName]
	if d == nil {
		return &tlsError{"unknown-domain", "the peer asks for no domain of this router"}
	}
	id, err := verifyPeer(now.config.Store, state, d.name, time.Now())
	if err != nil {
		return err
	}
	if now.config.RequireAESGCM && !aesGCM(state.CipherSuite) {
		return errCipher
	}
	p, err := newPeer(h.r, c, d, id.Compact())
	if err != nil {
		return err
	}
	c.State = p
	return nil
}

func (h handler) HandshakeFailed(remote netip.AddrPort, reason string, err error) {
	h.r.refused.add(h.r.log, remote, reason, err)
}

func (h handler) Opened(c *link.Conn) {
	p := peerOf(c)
	p.loop = h.r.loops[c.Loop().Index()]
	p.loop.count.suites[suiteIndex(c.TLS().CipherSuite)].Add(1)
	now := c.Loop().Now()
	p.opened, p.heardAt, p.spokeAt, p.sentAt = now, now, now, now
	p.loop.endsAt(p.id.NotAfter)
	p.loop.endsAt(p.domain.grant.NotAfter)
	p.rates.begin(now)
	h.r.drains.opened(p)
	if p.loop.draining {
		p.loop.askLater(c.Ref())
	}
	if pass, ok := c.Pass().(*gate.Pass); ok && pass.Denied() {
		p.loop.denyLater(c.Ref())
	}
	if c.Dialed() {
		p.sayHello()
	}
}

func (h handler) Frame(c *link.Conn, b *buf.Buffer) { peerOf(c).frame(b) }
func (h handler) Ready(c *link.Conn)                { peerOf(c).ready() }
func (h handler) Resumed(c *link.Conn)              { peerOf(c).roomed() }

func (h handler) Undeliverable(l *link.Loop, to link.Ref, b *buf.Buffer) {
	h.r.loops[l.Index()].undeliverable(to, b)
}

func (h handler) Sealed(c *link.Conn, b *buf.Buffer, own bool) {
	peerOf(c).sealed(codec.Raw(b.B), own)
}

func (h handler) Closed(c *link.Conn, why error, lost int) {
	p := peerOf(c)
	h.r.log.Debug("connection closed", "peer", describe(p.id), "remote", c.Remote(), "why", why)
	p.gone(lost)
	p.linkEnded(why)
}

func (h handler) TurnEnd(l *link.Loop) {
	if h.r.started.Load() {
		h.r.loops[l.Index()].turnEnd()
	}
}

func (h handler) Tick(l *link.Loop, now time.Time) {
	if h.r.started.Load() {
		h.r.loops[l.Index()].tick(now)
	}
}
