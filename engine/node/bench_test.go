package node

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/session"
)

// benchNodes are two nodes at one router in memory.
func benchNodes(b *testing.B, plain bool) (x, y *Node) {
	d := NewTestDomain()
	b.Cleanup(d.Close)
	join := func(name string) *Node {
		c := d.Config(name)
		c.Plain, c.AcceptPlain, c.ReceiveQueuePerSender = plain, plain, 64<<20
		n, err := Connect(context.Background(), c)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { n.Close() })
		return n
	}
	x, y = join("x"), join("y")
	d.Settle(2)
	return x, y
}

// A message from Send to Receive: signed in bursts, over TLS twice, verified, and
// sealed and opened unless plain. Both nodes and the router share the machine.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{64, 1024, 16384} {
		for _, plain := range []bool{true, false} {
			name := "sealed"
			if plain {
				name = "plain"
			}
			b.Run(fmt.Sprintf("%d/%s", size, name), func(b *testing.B) {
				x, y := benchNodes(b, plain)
				ctx, end := context.WithTimeout(context.Background(), 5*time.Minute)
				defer end()
				body := make([]byte, size)
				pass := func(count int) { // a window at a time: plain messages have no credit
					for range count {
						if _, err := x.Send(ctx, y.Address(), codec.CategoryApplication, body); err != nil {
							b.Fatal(err)
						}
					}
					for range count {
						if _, err := y.Receive(ctx); err != nil {
							b.Fatal(err)
						}
					}
				}
				pass(1)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for left := b.N; left > 0; left -= 128 {
					pass(min(left, 128))
				}
			})
		}
	}
}

// A member with whom nothing is going on, in this package: crypto/session measures
// the session itself.
func BenchmarkIdleMember(b *testing.B) {
	const members = 10000
	x, _ := benchNodes(b, false)
	var before, after runtime.MemStats
	for b.Loop() {
		s := &sessions{node: x, max: members, wake: make(chan struct{}, 1), members: make(map[codec.Address]*member)}
		s.local, _ = session.New(session.Config{})
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range members {
			s.memberLocked(codec.Address{0: 0xfd, 14: byte(i >> 8), 15: byte(i)})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(s)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/members, "B/member")
}
