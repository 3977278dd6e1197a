package node

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"causeway/codec"
	"causeway/crypto/session"
)

// What waits for Receive is bounded whatever the number of senders, each of which has
// credit; of what is more they are told.
func TestSealedMessagesOfManySendersAreBounded(t *testing.T) {
	const bodyMax, senders = 64 << 10, 6
	window := 2 * session.Charge(bodyMax)
	inWorld(t, func(w *world) {
		b := w.connect("b", sealing, func(c *Config) { c.BodyMax, c.Window, c.SealedQueue = bodyMax, window, 3*window })
		var all []*Sent
		for i := range senders {
			a := w.connect(fmt.Sprint("a", i), sealing)
			for range 2 {
				all = append(all, w.send(a, b.Address(), string(make([]byte, bodyMax-session.SealedOverhead))))
			}
		}
		synctest.Wait()
		if waiting := b.Stats().WaitingInBytes; waiting != 3*window {
			t.Errorf("%d bytes wait, want %d", waiting, 3*window)
		}
		told := 0
		for _, s := range all {
			var notice *NoticeError
			if err := s.Seen(w.ctx()); errors.As(err, &notice) && notice.Reason == codec.NoticeQueueFull {
				told++
			} else if err != nil {
				t.Error(err)
			}
		}
		if told != len(all)/2 {
			t.Errorf("%d of %d are told of, want half", told, len(all))
		}
		w.drops(b, map[string]uint64{"queue-full": uint64(told)})
		for range told {
			if _, err := b.Receive(w.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		w.receivesNothing(b)
	})
}

// By default it is what a small machine has, and no less than one window.
func TestSealedQueueByDefault(t *testing.T) {
	id := newDomain("prod.example").node("a")
	for _, bodyMax := range []int{0, codec.BodyMaxLimit} {
		c := Config{Identity: id, Listen: []string{"dbw://127.0.0.1:0"}, BodyMax: bodyMax}
		if err := c.prepare(); err != nil {
			t.Fatal(err)
		}
		if c.SealedQueue != 64<<20 || c.SealedQueue < c.Window {
			t.Errorf("bodies of %d bytes: %d bytes wait at most, of one sender %d", bodyMax, c.SealedQueue, c.Window)
		}
	}
}

// Messages of sessions that there are not cost no memory.
func TestMessagesOfUnknownSessionsAreNotCopied(t *testing.T) {
	const count, size = 64, 1 << 20
	inWorld(t, func(w *world) {
		n := w.connect("n", sealing)
		id := w.d.node("a")
		s := newSender(id.Peer, id.Key)
		cert := newCertificate(id.Peer)
		raw := s.sign(&codec.Frame{
			TTL: 31, Recipient: n.Address(), Sender: s.address(), Category: app, SendTime: s.now(),
			CertID: id.Peer.CertID, Encrypted: true, Body: bytes.Repeat([]byte{1}, size),
		})
		digest := raw.Digest()
		var before, after runtime.MemStats
		n.in.mu.Lock()
		runtime.ReadMemStats(&before)
		for range count {
			n.hearSessionLocked(raw, digest, cert)
		}
		runtime.ReadMemStats(&after)
		n.in.mu.Unlock()
		if each := (after.TotalAlloc - before.TotalAlloc) / count; each > size/16 {
			t.Errorf("%d bytes are allocated for each", each)
		}
		w.drops(n, map[string]uint64{"session-unknown": count})
	})
}
