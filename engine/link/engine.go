package link

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// Engine runs loops, listeners and connections.
type Engine struct {
	// fixed after start
	cfg     Config
	handler Handler
	start   time.Time
	loops   []*Loop
	client  *gnet.Client
	probe   *probe          // of the self-check
	ctx     context.Context // ends when Close begins
	cancel  context.CancelFunc
	closed  chan struct{} // closed when Close is done

	working     sync.WaitGroup // accepted connections until they are on their loops, and dials
	live        atomic.Bool    // Listen or Dial was called: the handler's owner has its Engine
	handshaking atomic.Int64
	accepted    atomic.Uint64
	handshakes  atomic.Uint64
	cutShort    atomic.Int64 // connections that Close ended before all was written

	mu           sync.Mutex
	closing      bool                   // guarded by mu, like all below
	listeners    map[*Listener]struct{} //
	failed       map[string]uint64      // handshakes by reason
	acceptErrors map[string]uint64      // by reason
}

// Start starts the loops and checks that gnet behaves as this package needs.
// Handler callbacks begin with the first Listen or Dial.
func Start(cfg Config, h Handler) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, handler: h, start: time.Now(),
		closed: make(chan struct{}), listeners: make(map[*Listener]struct{}),
		failed: make(map[string]uint64), acceptErrors: make(map[string]uint64),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	ports := make([]*port, cfg.Loops)
	for i := range ports {
		l := newLoop(e, i)
		cpu := -1
		if cfg.CPUs != nil {
			cpu = cfg.CPUs[i]
		}
		l.port = newPort(cpu, cfg.Tick, l.turn)
		ports[i] = l.port
		e.loops = append(e.loops, l)
	}
	if e.client, err = startGnet(ports, cfg.Logger); err != nil {
		e.cancel()
		return nil, err
	}
	for _, l := range e.loops {
		if err := e.check(l); err != nil {
			e.cancel()
			stopGnet(e.client, ports)
			return nil, err
		}
	}
	return e, nil
}

// Loops returns the loops; the slice is the engine's.
func (e *Engine) Loops() []*Loop { return e.loops }

// Close ends everything: listeners and handshakes at once; connections with
// FinishOnLoop until ctx ends, then by force; then the loops. When it returns
// no goroutine of the engine is left and no callback comes. It waits for
// callbacks that are running, whatever ctx says. The error tells that
// connections with unwritten frames had to be ended by force.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		<-e.closed
		return nil
	}
	e.closing = true
	var listeners []*Listener
	for ln := range e.listeners {
		listeners = append(listeners, ln)
	}
	e.mu.Unlock()
	defer close(e.closed)
	for _, ln := range listeners {
		ln.Close()
	}
	e.cancel()
	e.working.Wait()
	e.finishAll(ctx)
	ports := make([]*port, len(e.loops))
	var ending sync.WaitGroup
	for i, l := range e.loops {
		ports[i] = l.port
		ending.Add(1)
		l.Post(func() { l.whenDone = ending.Done })
	}
	ending.Wait()
	stopGnet(e.client, ports)
	if n := e.cutShort.Load(); n > 0 {
		return fmt.Errorf("link: %d connections still had frames to write: %w", n, cmp.Or(ctx.Err(), context.DeadlineExceeded))
	}
	return nil
}

// finishAll ends all connections, from the end of ctx on by force.
func (e *Engine) finishAll(ctx context.Context) {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		deadline = time.Now().Add(365 * 24 * time.Hour)
	}
	var empty sync.WaitGroup
	for _, l := range e.loops {
		empty.Add(1)
		l.Post(func() {
			l.Range(func(c *Conn) { c.FinishOnLoop(ErrEngineClosed, deadline) })
			l.whenEmpty = empty.Done
		})
	}
	done := make(chan struct{})
	go func() {
		empty.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	for _, l := range e.loops {
		l.Post(func() { l.Range((*Conn).giveUp) })
	}
	<-done
}

// endTurn is where Close learns, at the end of a turn, that a loop has no more
// connections, and where a loop ends.
func (l *Loop) endTurn() {
	l.account.Tell()
	if l.whenEmpty != nil && l.open == 0 {
		l.whenEmpty()
		l.whenEmpty = nil
	}
	if l.whenDone == nil {
		return
	}
	l.inbox.close()
	l.takeInbox()
	l.bury()
	l.ended = true // from here on frames end here, counted
	l.spliceOutboxes()
	for len(l.dead) > 0 {
		l.bury()
	}
	l.resumes = nil
	l.account.Close()
	l.whenDone()
	l.whenDone = nil
}
