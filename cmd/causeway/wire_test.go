package main

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wire is a TCP connection's way through the test: what connects to its listener
// is carried to its target. It can be cut, held still and made slow.
type wire struct {
	listener net.Listener
	target   func(context.Context) (net.Conn, error)
	carried  atomic.Uint64 // bytes, both ways

	ctx  context.Context
	done sync.WaitGroup

	mu    sync.Mutex
	held  chan struct{} // closed when bytes may pass again; nil: they may
	down  bool
	delay time.Duration // of each byte, one way
	open  map[net.Conn]bool
	made  int // connections carried so far
}

// wireChunk is how much is carried at a time, wireFlying how many chunks are on
// their way at most when there is a delay.
const (
	wireChunk  = 32 << 10
	wireFlying = 32
)

// newWire lays a wire; it is taken away when the test ends.
func newWire(t *testing.T, listener net.Listener, target func(context.Context) (net.Conn, error)) *wire {
	w := &wire{listener: listener, target: target, open: map[net.Conn]bool{}}
	ctx, end := context.WithCancel(context.Background())
	w.ctx = ctx
	w.done.Go(w.accept)
	t.Cleanup(func() {
		end()
		listener.Close()
		w.cut()
		w.done.Wait()
	})
	return w
}

// address is where the wire begins.
func (w *wire) address() string { return w.listener.Addr().String() }

// cut ends the connections, as both ends see at once, and refuses others.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for c := range w.open {
		reset(c)
	}
}

// restore lets connections be made again.
func (w *wire) restore() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// hold carries nothing any more, as a network does that loses all packets; the
// connections stay. What was underway comes after release.
func (w *wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		w.held = make(chan struct{})
	}
}

func (w *wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		close(w.held)
		w.held = nil
	}
}

// slow has each byte take so long, one way.
func (w *wire) slow(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = by
}

// connections returns how many are open, and how many there have been.
func (w *wire) connections() (open, made int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.open) / 2, w.made
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.done.Go(func() { w.carry(near) })
	}
}

// enter notes a pair of connections as open, unless the wire is cut.
func (w *wire) enter(near, far net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return false
	}
	w.open[near], w.open[far] = true, true
	w.made++
	return true
}

func (w *wire) isDown() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

func (w *wire) carry(near net.Conn) {
	if w.isDown() {
		reset(near)
		return
	}
	far, err := w.target(w.ctx)
	if err != nil {
		reset(near)
		return
	}
	defer reset(near)
	defer reset(far)
	if !w.enter(near, far) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { w.pump(near, far) })
	both.Go(func() { w.pump(far, near) })
	both.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, near)
	delete(w.open, far)
}

// flying is a chunk on its way.
type flying struct {
	bytes []byte
	due   time.Time
}

// pump carries one way until that ends; an end of the stream is carried like
// bytes, anything else ends both ways.
func (w *wire) pump(from, to net.Conn) {
	way := make(chan flying, wireFlying)
	var writing sync.WaitGroup
	writing.Go(func() {
		whole := true
		for f := range way {
			w.await(f.due)
			if _, err := to.Write(f.bytes); err != nil && whole {
				whole = false
				reset(from) // and read no more
			}
		}
		if whole {
			_ = to.(*net.TCPConn).CloseWrite()
		}
	})
	for {
		b := make([]byte, wireChunk)
		n, err := from.Read(b)
		if n > 0 {
			w.carried.Add(uint64(n))
			way <- flying{b[:n], time.Now().Add(w.delayed())}
		}
		if err != nil {
			if err != io.EOF {
				reset(to)
			}
			break
		}
	}
	close(way)
	writing.Wait()
}

func (w *wire) delayed() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.delay
}

// await waits until what is due then may be written.
func (w *wire) await(due time.Time) {
	if left := time.Until(due); left > 0 {
		select {
		case <-time.After(left):
		case <-w.ctx.Done():
		}
	}
	w.mu.Lock()
	held := w.held
	w.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-w.ctx.Done():
	}
}
