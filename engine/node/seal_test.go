package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"causeway/crypto/session"
)

// A message above the recipient's whole window fails at once; one that only has to
// wait for what is there waits.
func TestMessageLargerThanTheRecipientsWindow(t *testing.T) {
	const bodyMax = 64 << 10
	window := 2 * session.Charge(bodyMax)
	most := window - session.Charge(session.SealedOverhead)
	inWorld(t, func(w *world) {
		w.r.alive = true
		a := w.connect("a", sealing)
		id := w.d.node("b")
		b := w.connect("spare", sealing, func(c *Config) { c.Identity, c.BodyMax, c.Window = id, bodyMax, window })
		start := time.Now()
		_, err := a.Send(context.Background(), b.Address(), app, make([]byte, most+1))
		e := checkError[*WindowError](t, err, b.Address().String(), fmt.Sprint(most), fmt.Sprint(most+1))
		if e.Size != most+1 || e.Max != most || e.Recipient != b.Address() {
			t.Errorf("error %+v, want %d and %d", e, most+1, most)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("failed after %v", took)
		}
		w.send(a, b.Address(), string(make([]byte, bodyMax-session.SealedOverhead)))
		w.send(a, b.Address(), string(make([]byte, bodyMax-session.SealedOverhead)))
		var sending sync.WaitGroup
		var sent atomic.Bool
		sending.Go(func() {
			w.send(a, b.Address(), "waits")
			sent.Store(true)
		})
		time.Sleep(time.Minute / 2)
		synctest.Wait()
		if sent.Load() {
			t.Error("there is credit beyond the window")
		}
		for range 2 {
			if _, err := b.Receive(w.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		w.receives(b, "waits")
		sending.Wait()
		_, err = a.Send(context.Background(), b.Address(), app, make([]byte, most+1))
		checkError[*WindowError](t, err)
		w.drops(b, nil)
	})
}
