package session

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

// pairOf joins two ends and takes what they say to each other on the way.
func pairOf(t testing.TB, aead AEAD, kem bool) (a, b *end) {
	n := newNetwork(t, 50)
	for _, e := range n.ends {
		e.cfg.AEADs = AEADs(aead) | AEADs(ChaCha20Poly1305)
		e.cfg.Window = WindowMax
		if kem {
			e.withKEM()
		} else {
			e.restart()
		}
	}
	return n.join()
}

// pass sends one message from a to b, whose application takes it, and hands over
// what grants that makes.
func pass(t testing.TB, a, b *end, buffer, content []byte) []byte {
	out := &a.out
	out.Reset()
	signed, ok := a.peer.Send(a.net.now, buffer[:0], 64, content, out)
	if !ok {
		t.Fatal("no session or credit")
	}
	receiveAndGrant(t, a, b, signed, len(content))
	return signed
}

func receiveAndGrant(t testing.TB, a, b *end, signed []byte, size int) {
	out := &b.out
	out.Reset()
	if d := b.peer.Receive(b.net.now, Received{Signed: signed}, out); d != DropNone || len(out.Messages) != 1 || len(out.Messages[0].Content) != size {
		t.Fatalf("%v, %d messages", d, len(out.Messages))
	}
	b.peer.Taken(b.net.now, out.Messages[0].Charge, out)
	for _, f := range out.Frames {
		if d := a.peer.Receive(a.net.now, Received{Signed: f}, &a.out); d != DropNone {
			t.Fatal(d)
		}
	}
}

func TestAMessageInOrderAllocatesNothing(t *testing.T) {
	for _, aead := range []AEAD{AES256GCM, ChaCha20Poly1305} {
		a, b := pairOf(t, aead, false)
		content := make([]byte, 1024)
		buffer := pass(t, a, b, nil, content)
		for range 2000 { // queues have their size
			buffer = pass(t, a, b, buffer, content)
		}
		if allocs := testing.AllocsPerRun(1000, func() { buffer = pass(t, a, b, buffer, content) }); allocs != 0 {
			t.Errorf("%v: %v allocations a message", aead, allocs)
		}
		if !bytes.Equal(b.out.Messages[0].Content, content) {
			t.Error("another content came")
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, aead := range []AEAD{AES256GCM, ChaCha20Poly1305} {
		for _, size := range []int{64, 1024, 16384} {
			b.Run(fmt.Sprintf("%s/%d", aead, size), func(b *testing.B) {
				x, _ := pairOf(b, aead, false)
				content, buffer := make([]byte, size), []byte(nil)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					o := &x.peer.current.out
					o.outstanding, o.underWay.items = 0, o.underWay.items[:0]
					buffer, _ = x.peer.Send(x.net.now, buffer[:0], 64, content, &x.out)
				}
			})
		}
	}
}

// Sealed, opened, delivered in order, taken, and credit granted.
func BenchmarkSealAndOpen(b *testing.B) {
	for _, aead := range []AEAD{AES256GCM, ChaCha20Poly1305} {
		for _, size := range []int{64, 1024, 16384} {
			b.Run(fmt.Sprintf("%s/%d", aead, size), func(b *testing.B) {
				x, y := pairOf(b, aead, false)
				content, buffer := make([]byte, size), []byte(nil)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					buffer = pass(b, x, y, buffer, content)
				}
			})
		}
	}
}

// Both ends of a handshake: M1, M2, both confirms. Frames are neither signed nor
// verified here.
func BenchmarkSetUp(b *testing.B) {
	for _, kem := range []bool{false, true} {
		name := "X25519"
		if kem {
			name = "X25519 and ML-KEM-768"
		}
		b.Run(name, func(b *testing.B) {
			x, y := pairOf(b, AES256GCM, kem)
			b.ReportAllocs()
			for b.Loop() {
				x.local.handshakes, y.local.handshakes = bucket{}, bucket{}
				x.peer, y.peer = x.local.Peer(y.address), y.local.Peer(x.address)
				x.out.Reset()
				x.peer.start(x.net.now, &x.out)
				exchangeFrames(b, x, y)
				if x.peer.current == nil || y.peer.current == nil || !x.peer.current.heard {
					b.Fatal("no session")
				}
			}
		})
	}
}

// exchangeFrames hands over frames until neither end has any.
func exchangeFrames(b *testing.B, x, y *end) {
	for from, to := x, y; len(from.out.Frames) > 0; from, to = to, from {
		to.out.Reset()
		for _, f := range from.out.Frames {
			if d := to.peer.Receive(to.net.now, Received{Signed: f}, &to.out); d != DropNone {
				b.Fatal(d)
			}
		}
	}
}

// One end of a session in which something was sent and received.
func BenchmarkIdleSession(b *testing.B) {
	for _, aead := range []AEAD{AES256GCM, ChaCha20Poly1305} {
		b.Run(aead.String(), func(b *testing.B) {
			x, y := pairOf(b, aead, false)
			var before, after runtime.MemStats
			const sessions = 1000
			kept := make([]*Peer, 0, sessions)
			bytes := 0.0
			for b.Loop() {
				clear(kept)
				kept = kept[:0]
				runtime.GC()
				runtime.ReadMemStats(&before)
				for range sessions {
					x.local.handshakes, y.local.handshakes = bucket{}, bucket{}
					x.peer, y.peer = x.local.Peer(y.address), y.local.Peer(x.address)
					x.out, y.out = Actions{}, Actions{}
					x.peer.start(x.net.now, &x.out)
					exchangeFrames(b, x, y)
					pass(b, x, y, nil, make([]byte, 100))
					pass(b, y, x, nil, make([]byte, 100))
					kept = append(kept, x.peer)
				}
				x.out, y.out, y.peer = Actions{}, Actions{}, nil
				runtime.GC()
				runtime.ReadMemStats(&after)
				bytes = float64(after.HeapAlloc) - float64(before.HeapAlloc)
			}
			runtime.KeepAlive(kept)
			b.ReportMetric(bytes/sessions, "B/session")
		})
	}
}
