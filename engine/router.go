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

	table    *table.Table
	pool     *verify.Pool
	link     *link.Engine
	gate     *gate.Gate
	loops    []*loop
	observed verifyObserver

	alarmed  tableAlarm
	started  atomic.Bool // all of the above is set; loops may turn before
	current  atomic.Pointer[state]
	reloads  *reloads
	lastTime atomic.Uint64 // send time of the last own frame
	refused  refusals
	replaced replacements

	closeOnce sync.Once
	closeErr  error

	mu        sync.Mutex
	listeners []*link.Listener
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
		config: c, log: c.Logger, table: table.New(), reloads: newReloads(time.Now()),
		lookEvery: max(lookEveryMin, min(lookEveryMax, c.KeepAlive/4)),
	}
	first, err := newState(r, c, nil, time.Now())
	if err != nil {
		return nil, err
	}
	for _, d := range first.domains {
		d.members.hold(d.grant)
	}
	r.current.Store(first)
	workers := c.VerifyWorkers
	if c.VerifyNone {
		workers = 1 // link control is verified all the same
	}
	r.pool = verify.NewPool(verify.Config{Workers: workers, Path: c.VerifyPath, TableMemory: c.VerifyTables, Observe: r.observed.observe})
	r.gate = gate.New(*c.Limits, time.Now())
	r.gate.SetFirewall(c.Firewall)
	for range c.Loops {
		r.loops = append(r.loops, newLoop(r))
	}
	r.link, err = link.Start(link.Config{
		Loops: c.Loops, CPUs: c.CPUs,
		Cut:              func(conn *link.Conn, b []byte) (int, error) { return codec.Cut(b, peerOf(conn).bodyMax()) },
		HandshakeTimeout: c.HandshakeTimeout, HandshakesMax: c.HandshakesMax, ReceiveBuffer: c.ReceiveBuffer,
		Admit:     r.admit,
		QueueHigh: c.QueueHigh, QueueLow: c.QueueLow, PartialMax: int64(c.PartialMax), Logger: c.Logger,
	}, handler{r})
	if err != nil {
		r.pool.Close()
		return nil, err
	}
	for i, l := range r.link.Loops() {
		r.loops[i].link = l
	}
	r.started.Store(true)
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
	r.listeners = append(r.listeners, l)
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
	return nil
}

// Close stops accepting, says goodbye to all peers, hands over what is queued
// for them, and ends everything. When ctx ends first, the rest is dropped; the
// frames are counted, and the error tells. No goroutine of the router is left.
// Later calls wait for the first and return the same.
func (r *Router) Close(ctx context.Context) error {
	r.closeOnce.Do(func() { r.closeErr = r.close(ctx) })
	return r.closeErr
}

func (r *Router) close(ctx context.Context) error {
	r.mu.Lock()
	r.closing = true
	r.closeBy, _ = ctx.Deadline()
	listeners := r.listeners
	r.listeners = nil
	r.mu.Unlock()
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	for _, l := range r.loops {
		l.link.Post(func() {
			l.link.Range(func(c *link.Conn) {
				peerOf(c).leave(codec.GoodbyeDraining, "this router stops")
			})
		})
	}
	errs = append(errs, r.link.Close(ctx))
	r.pool.Close()
	for _, l := range r.loops {
		l.sweep()
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

// sweep drops what the rings of closed connections still hold. The loop has
// stopped.
func (l *loop) sweep() {
	for p := range l.leftovers {
		for p.ring.Len() > 0 {
			l.drop(dropShutdown, p.ring.Pop())
		}
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
	id, err := verifyNode(now.config.Store, state, d.name, time.Now())
	if err != nil {
		return err
	}
	if now.config.RequireAESGCM && !aesGCM(state.CipherSuite) {
		return errCipher
	}
	p, err := newPeer(h.r, c, d, id)
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
	now := c.Loop().Now()
	p.opened, p.heardAt, p.spokeAt, p.sentAt = now, now, now, now
	p.loop.endsAt(p.id.NotAfter)
	p.loop.endsAt(p.domain.grant.NotAfter)
	p.rates.begin(now)
	if pass, ok := c.Pass().(*gate.Pass); ok && pass.Denied() {
		p.loop.denyLater(c.Ref())
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
