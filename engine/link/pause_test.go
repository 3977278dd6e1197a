package link

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/engine/buf"
)

// flood writes frames until the connection fails; it returns a function that
// stops it and waits.
func flood(w net.Conn, size int) (stop func()) {
	block := []byte(nil)
	for i := range 64 {
		block = appendFrame(block, i, size)
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}()
	return func() { w.Close(); wg.Wait() }
}

// turns waits until the loop has turned n more times.
func turns(t testing.TB, l *Loop, n int) {
	for range n {
		on(t, l, func() {})
	}
}

func TestPauseIsHardWhileAPeerFloods(t *testing.T) {
	var frames atomic.Int64
	r := (&rig{frame: func(c *Conn, b *buf.Buffer) { frames.Add(1); buf.Put(b) }}).start(t, Config{})
	client, conn := r.dial()
	defer flood(tcpAndTLS{client, tcpOf(client)}, 1000)()
	eventually(t, "the flood", func() bool { return frames.Load() > 1000 })

	var at, bytesAt int64
	on(t, conn.Loop(), func() { conn.PauseOnLoop(); at = frames.Load() })
	turns(t, conn.Loop(), 3) // a read that was already announced
	bytesAt = int64(conn.Counters().BytesIn)
	turns(t, conn.Loop(), 2000)
	if n := frames.Load(); n != at {
		t.Errorf("%d frames cut while paused", n-at)
	}
	if n := int64(conn.Counters().BytesIn); n != bytesAt {
		t.Errorf("%d bytes read while paused", n-bytesAt)
	}
	begin := time.Now()
	on(t, conn.Loop(), conn.ResumeOnLoop)
	eventually(t, "resuming", func() bool { return frames.Load() > at })
	t.Logf("resumed within %v", time.Since(begin))
	eventually(t, "reading the socket again", func() bool { return int64(conn.Counters().BytesIn) > bytesAt+1<<20 })
}

// tcpAndTLS closes without TLS's close_notify, which would wait for a write.
type tcpAndTLS struct {
	net.Conn
	tcp *net.TCPConn
}

func (c tcpAndTLS) Close() error { return c.tcp.Close() }

func TestPauseInTheMiddleOfAReadStopsAtOnce(t *testing.T) {
	// Each frame pauses; many frames come in one record, many records in one
	// read. Each resume must give exactly one frame, without new socket data.
	var frames atomic.Int64
	got := make(chan int, 1)
	r := (&rig{frame: func(c *Conn, b *buf.Buffer) {
		c.PauseOnLoop()
		frames.Add(1)
		got <- frameNumber(b.B)
		buf.Put(b)
	}}).start(t, Config{})
	client, conn := r.dial()
	const n = 300
	var out []byte
	for i := range n {
		out = appendFrame(out, i, 200+i)
	}
	mustWrite(t, client, out)
	for i := range n {
		if k := receive(t, got); k != i {
			t.Fatalf("frame %d came as number %d", k, i)
		}
		turns(t, conn.Loop(), 2)
		if k := frames.Load(); k != int64(i+1) {
			t.Fatalf("%d frames after %d resumes", k, i)
		}
		on(t, conn.Loop(), conn.ResumeOnLoop)
	}
	out = appendFrame(nil, n, 100)
	mustWrite(t, client, out)
	if k := receive(t, got); k != n {
		t.Errorf("after all that frame %d, want %d", k, n)
	}
	on(t, conn.Loop(), conn.ResumeOnLoop)
}

func TestPausesNest(t *testing.T) {
	var frames atomic.Int64
	r := (&rig{frame: func(c *Conn, b *buf.Buffer) { frames.Add(1); buf.Put(b) }}).start(t, Config{})
	client, conn := r.dial()
	on(t, conn.Loop(), func() { conn.PauseOnLoop(); conn.PauseOnLoop() })
	mustWrite(t, client, appendFrame(nil, 1, 50))
	on(t, conn.Loop(), conn.ResumeOnLoop)
	turns(t, conn.Loop(), 50)
	if frames.Load() != 0 {
		t.Error("a frame came while one of two causes to pause was left")
	}
	on(t, conn.Loop(), conn.ResumeOnLoop)
	eventually(t, "the frame", func() bool { return frames.Load() == 1 })
}

func TestInputOfAPausedConnectionSurvivesItsReset(t *testing.T) {
	for _, reset := range []bool{false, true} {
		var frames atomic.Int64
		r := (&rig{frame: func(c *Conn, b *buf.Buffer) { frames.Add(1); buf.Put(b) }}).start(t, Config{})
		client, conn := r.dial()
		on(t, conn.Loop(), conn.PauseOnLoop)
		const n = 100
		var out []byte
		for i := range n {
			out = appendFrame(out, i, 1000)
		}
		mustWrite(t, client, out)
		if reset {
			// All of it must be at the other end before the reset, which
			// throws away what is not.
			eventually(t, "the bytes to arrive", func() bool { return unsent(t, tcpOf(client)) == 0 })
			_ = tcpOf(client).SetLinger(0)
		}
		tcpOf(client).Close()
		if reset {
			eventually(t, "gnet to hang up", func() bool {
				gone := false
				on(t, conn.Loop(), func() { gone = conn.socket == nil })
				return gone
			})
		}
		on(t, conn.Loop(), conn.ResumeOnLoop)
		why := receive(t, r.ends)
		if reset == errors.Is(why, io.EOF) {
			t.Errorf("reset %v: closed for %v", reset, why)
		}
		if k := frames.Load(); k != n {
			t.Errorf("reset %v: %d of %d frames cut", reset, k, n)
		}
	}
}

func TestWaitEndsAtTheLowMarkAcrossLoopsWithoutData(t *testing.T) {
	// The destination's loop and the waiter's have no other traffic: the
	// message alone must wake the waiter's loop.
	const low, high = 64 << 10, 256 << 10
	resumed := make(chan *Conn, 16)
	r := (&rig{resumed: func(c *Conn) { resumed <- c }}).start(t, Config{QueueHigh: high, QueueLow: low})
	for _, home := range []int{0, 1} {
		reader, dst := r.dialOn(0)
		_, waiting := r.dialOn(home)
		stall(t, dst)
		// Fill until the queue is above the low mark and nothing moves.
		on(t, dst.Loop(), func() {
			for !dst.Loop().Full(dst.Ref()) {
				dst.Loop().Send(dst.Ref(), frameBuf(1, 16<<10))
			}
		})
		var registered, again bool
		on(t, waiting.Loop(), func() {
			registered = waiting.WaitForOnLoop(dst.Ref())
			again = waiting.Paused()
		})
		if !registered || !again {
			t.Fatalf("waiting for a full destination: registered %v, paused %v", registered, again)
		}
		on(t, dst.Loop(), func() { unstall(dst) })
		go func() { _, _ = io.Copy(io.Discard, reader) }()
		if c := receive(t, resumed); c != waiting {
			t.Fatal("another connection was resumed")
		}
		on(t, waiting.Loop(), func() {
			if waiting.Paused() {
				t.Error("still paused after Resumed")
			}
			if waiting.WaitForOnLoop(dst.Ref()) {
				t.Error("waiting for a destination below its low mark")
			}
		})
	}
}

// stall stops writing to c as if the kernel took no more; unstall ends that.
func stall(t testing.TB, c *Conn) { on(t, c.Loop(), func() { c.blocked = true }) }
func unstall(c *Conn)             { c.blocked = false; c.markDirty() }

func TestWaitEndsWhenTheDestinationIsGone(t *testing.T) {
	resumed := make(chan *Conn, 16)
	r := (&rig{resumed: func(c *Conn) { resumed <- c }}).start(t, Config{QueueHigh: 1000, QueueLow: 100})
	_, dst := r.dialOn(0)
	_, waiting := r.dialOn(1)
	stall(t, dst)
	on(t, dst.Loop(), func() { dst.Loop().Send(dst.Ref(), frameBuf(1, 5000)) })
	on(t, waiting.Loop(), func() {
		if !waiting.WaitForOnLoop(dst.Ref()) {
			t.Error("not registered")
		}
	})
	on(t, dst.Loop(), func() { dst.CloseOnLoop(io.ErrClosedPipe) })
	if c := receive(t, resumed); c != waiting {
		t.Error("another connection was resumed")
	}
	on(t, waiting.Loop(), func() {
		if waiting.WaitForOnLoop(dst.Ref()) || waiting.Paused() {
			t.Error("waiting for a destination that is gone")
		}
	})
}

func TestACancelledWaitNeitherResumesNorStays(t *testing.T) {
	resumed := make(chan *Conn, 16)
	r := (&rig{resumed: func(c *Conn) { resumed <- c }}).start(t, Config{Loops: 1, QueueHigh: 1000, QueueLow: 100})
	_, first := r.dial()
	_, second := r.dial()
	_, waiting := r.dial()
	stall(t, first)
	stall(t, second)
	on(t, first.Loop(), func() {
		l := first.Loop()
		l.Send(first.Ref(), frameBuf(1, 5000))
		l.Send(second.Ref(), frameBuf(1, 5000))
		waiting.WaitForOnLoop(first.Ref())
		waiting.WaitForOnLoop(second.Ref()) // cancels the first
		if first.slot.waiting.Load() || !waiting.Paused() {
			t.Error("the first wait is still registered, or nothing is waited for")
		}
		unstall(first)
	})
	eventually(t, "the first to drain", func() bool { return first.QueuedBytes() == 0 })
	turns(t, first.Loop(), 3)
	if len(resumed) != 0 {
		t.Error("the cancelled wait was ended")
	}
	on(t, first.Loop(), func() {
		waiting.CancelWaitOnLoop()
		if waiting.Paused() || second.slot.waiting.Load() {
			t.Error("still waiting after CancelWaitOnLoop")
		}
		unstall(second)
	})
	eventually(t, "the second to drain", func() bool { return second.QueuedBytes() == 0 })
	turns(t, first.Loop(), 3)
	if len(resumed) != 0 {
		t.Error("a cancelled wait was ended")
	}
}
