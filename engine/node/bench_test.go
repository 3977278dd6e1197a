package node

import (
	"context"
	"fmt"
	"runtime"
	"sync"
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
		n := benchNode(b, c)
		b.Cleanup(func() { n.Close() })
		return n
	}
	x, y = join("x"), join("y")
	d.Settle(2)
	return x, y
}

func benchNode(b *testing.B, c Config) *Node {
	n, err := Connect(context.Background(), c)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// A session between two nodes that have none, as the first message makes it: from
// Send to Receive, with the certificates that are asked for, signatures, chains and
// TLS. setUpsAtOnce are under way; nodes and router share the machine.
func BenchmarkSessionSetUp(b *testing.B) {
	const nodes = 32 // at each end; each pair has one session
	var used time.Duration
	for left := b.N; left > 0; left -= nodes * nodes {
		b.StopTimer()
		used += setUpSessions(b, nodes, min(left, nodes*nodes))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
}

const setUpsAtOnce = 16

// setUpSessions makes new nodes, and count sessions between the first of them and
// the others; the timer runs for the latter alone, and used is the CPU time of that.
func setUpSessions(b *testing.B, nodes, count int) (used time.Duration) {
	d := NewTestDomain()
	defer d.Close()
	ctx, end := context.WithTimeout(context.Background(), 5*time.Minute)
	defer end()
	var from, to []*Node
	for i := range nodes {
		from = append(from, benchNode(b, d.Config(fmt.Sprintf("from-%d", i))))
		to = append(to, benchNode(b, d.Config(fmt.Sprintf("to-%d", i))))
		defer from[i].Close()
		defer to[i].Close()
	}
	d.Settle(2 * nodes)
	room := make(chan struct{}, setUpsAtOnce)
	var senders, receivers sync.WaitGroup
	for i, n := range to {
		receivers.Go(func() {
			for range (count - i + nodes - 1) / nodes {
				if _, err := n.Receive(ctx); err != nil {
					b.Error(err)
					return
				}
				<-room
			}
		})
	}
	before := processTime()
	b.StartTimer()
	for i := range count {
		room <- struct{}{}
		senders.Go(func() { // Send waits for the session
			// Each round of the recipients begins with another sender.
			if _, err := from[(i+i/nodes)%nodes].Send(ctx, to[i%nodes].Address(), codec.CategoryApplication, []byte("first")); err != nil {
				b.Error(err)
			}
		})
	}
	senders.Wait()
	receivers.Wait()
	b.StopTimer()
	used = processTime() - before
	made := 0
	for _, n := range to {
		made += len(n.Sessions())
	}
	if made != count {
		b.Fatalf("%d sessions, want %d", made, count)
	}
	return used
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
