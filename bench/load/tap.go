package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// tap is a connection whose reading can be turned down or off; nothing above it
// notices. A read that is under way when it is turned may still bring what has
// come by then.
type tap struct {
	net.Conn
	ctx context.Context // reading fails when it ends

	mu     sync.Mutex
	rate   int           // bytes a second; tapOff, tapOpen
	turned chan struct{} // closed when rate changes
}

const (
	tapOff  = 0
	tapOpen = -1
)

func newTap(ctx context.Context, c net.Conn) *tap {
	return &tap{Conn: c, ctx: ctx, rate: tapOpen, turned: make(chan struct{})}
}

// turn sets the rate of reading, also for a read that waits.
func (t *tap) turn(rate int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate = rate
	close(t.turned)
	t.turned = make(chan struct{})
	if rate == tapOpen {
		_ = t.SetReadDeadline(time.Time{})
	} else {
		_ = t.SetReadDeadline(time.Unix(1, 0)) // ends a read that waits
	}
}

func (t *tap) Read(p []byte) (int, error) {
	for {
		t.mu.Lock()
		rate, turned := t.rate, t.turned
		t.mu.Unlock()
		most := len(p)
		if rate != tapOpen {
			if !t.await(rate, turned) {
				return 0, net.ErrClosed
			}
			if most = t.begin(turned); most == 0 {
				continue
			}
		}
		n, err := t.Conn.Read(p[:min(most, len(p))])
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.done()
			return n, err
		}
	}
}

// await waits for a byte's time or for the rate to change; false: all ends.
func (t *tap) await(rate int, turned <-chan struct{}) bool {
	var next <-chan time.Time
	if rate > tapOff {
		next = time.After(time.Second / time.Duration(rate))
	}
	select {
	case <-turned:
	case <-next:
	case <-t.ctx.Done():
		return false
	}
	return true
}

// begin lets one byte be read, unless the rate has changed.
func (t *tap) begin(turned <-chan struct{}) (bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turned != turned {
		return 0
	}
	_ = t.SetReadDeadline(time.Time{})
	return 1
}

// done lets nothing more be read while the tap is not open.
func (t *tap) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate != tapOpen {
		_ = t.SetReadDeadline(time.Unix(1, 0))
	}
}
