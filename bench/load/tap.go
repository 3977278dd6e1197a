package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// tap is a connection whose reading can be turned down or off, at a byte's
// precision: nothing above it notices.
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

// turn sets the rate of reading. A read that waits goes on at the new one.
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
		if rate == tapOpen {
			n, err := t.Conn.Read(p)
			if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			return n, err
		}
		var next <-chan time.Time
		if rate > 0 {
			next = time.After(time.Second / time.Duration(rate))
		}
		select {
		case <-turned:
		case <-t.ctx.Done():
			return 0, net.ErrClosed
		case <-next:
			return t.readByte(p)
		}
	}
}

// readByte reads one byte while the tap is turned down.
func (t *tap) readByte(p []byte) (int, error) {
	_ = t.SetReadDeadline(time.Time{})
	n, err := t.Conn.Read(p[:min(1, len(p))])
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate != tapOpen {
		_ = t.SetReadDeadline(time.Unix(1, 0))
	}
	return n, err
}
