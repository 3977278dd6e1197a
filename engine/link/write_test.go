package link

import (
	"crypto/tls"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/engine/buf"
)

func TestWritingGoesOnWhenTheSocketIsWritableAgain(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, conn := r.dial()
	const frames, size = 20_000, 1000
	on(t, conn.Loop(), func() {
		for i := range frames {
			conn.Loop().Send(conn.Ref(), frameBuf(i, size))
		}
	})
	blocked := func() (b bool) {
		on(t, conn.Loop(), func() { b = conn.blocked })
		return b
	}
	eventually(t, "the kernel to take no more", blocked)
	eventually(t, "100 turns without a write to a full socket", func() bool { // the kernel may still move what it has
		before := r.engine.Stats().Writes
		turns(t, conn.Loop(), 100)
		return r.engine.Stats().Writes == before
	})
	if old := conn.OldestQueued(); old.IsZero() || time.Since(old) > patience {
		t.Errorf("oldest queued frame: %v", old)
	}
	if n := conn.QueuedBytes(); n == 0 || n > frames*size {
		t.Errorf("%d bytes queued", n)
	}
	for i := range frames {
		if b, err := readFrame(client); err != nil || frameNumber(b) != i {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
	eventually(t, "the queue to be empty", func() bool { return conn.QueuedBytes() == 0 && conn.OldestQueued().IsZero() })
}

func TestOneRecordAndOneWriteForManyFrames(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, conn := r.dial()
	// Past crypto/tls's first small records.
	go func() { _, _ = io.CopyN(io.Discard, client, 1000*2000+100*100) }()
	on(t, conn.Loop(), func() {
		for i := range 1000 {
			conn.Loop().Send(conn.Ref(), frameBuf(i, 2000))
		}
	})
	eventually(t, "warming up", func() bool { return conn.QueuedBytes() == 0 })
	before := r.engine.Stats()
	on(t, conn.Loop(), func() {
		for i := range 100 {
			conn.Loop().Send(conn.Ref(), frameBuf(i, 100))
		}
	})
	eventually(t, "100 frames", func() bool { return conn.QueuedBytes() == 0 })
	after := r.engine.Stats()
	if n := after.Records - before.Records; n != 1 {
		t.Errorf("%d records for 100 frames of 100 bytes", n)
	}
	if n := after.Writes - before.Writes; n != 1 {
		t.Errorf("%d writes", n)
	}
}

func TestOrderHoldsFromEachLoopToEachDestination(t *testing.T) {
	const loops, perLoop, dests = 3, 3000, 2
	r := (&rig{}).start(t, Config{Loops: loops})
	var done sync.WaitGroup
	var refs []Ref
	for d := range dests {
		client, conn := r.dialOn(d)
		refs = append(refs, conn.Ref())
		done.Add(1)
		go func() {
			defer done.Done()
			var next [loops]int
			for range loops * perLoop {
				b, err := readFrame(client)
				if err != nil {
					t.Error(err)
					return
				}
				from, n := frameNumber(b)/perLoop, frameNumber(b)%perLoop
				if n != next[from] {
					t.Errorf("from loop %d frame %d, want %d", from, n, next[from])
					return
				}
				next[from]++
			}
		}()
	}
	for i, l := range r.engine.Loops() {
		var step func()
		n := 0
		step = func() { // a few per turn, so that the loops interleave
			for range 10 {
				for _, ref := range refs {
					l.Send(ref, frameBuf(i*perLoop+n, 20+n%500))
				}
				n++
			}
			if n < perLoop {
				l.Post(step)
			}
		}
		l.Post(step)
	}
	done.Wait()
}

func TestManySendersToAStalledReceiverStayBounded(t *testing.T) {
	const (
		senders = 60
		high    = 1 << 20
		low     = 256 << 10
		size    = 1000
		each    = 2000 // frames of one sender
	)
	var parked sync.Map // *Conn → frame that waits
	var dst atomic.Uint64
	forward := func(c *Conn, b *buf.Buffer) {
		to := Ref(dst.Load())
		if c.Loop().Full(to) && c.WaitForOnLoop(to) {
			parked.Store(c, b)
			return
		}
		c.Loop().Send(to, b)
	}
	var resumed func(c *Conn)
	resumed = func(c *Conn) {
		if b, ok := parked.LoadAndDelete(c); ok {
			forward(c, b.(*buf.Buffer))
		}
	}
	r := (&rig{frame: forward, resumed: func(c *Conn) { resumed(c) }}).start(t, Config{QueueHigh: high, QueueLow: low})
	reader, conn := r.dialOn(1)
	dst.Store(uint64(conn.Ref()))
	var writing sync.WaitGroup
	for s := range senders {
		client, _ := r.dial()
		writing.Add(1)
		go func() {
			defer writing.Done()
			var out []byte
			for i := range each {
				out = appendFrame(out[:0], s*each+i, size)
				if _, err := client.Write(out); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	eventually(t, "the receiver's queue to be full", func() bool { return conn.QueuedBytes() >= r.engine.cfg.QueueHigh })
	// All senders end up paused; what is queued stays within the high mark and
	// one read per sender.
	eventually(t, "the senders to be paused", func() bool {
		quiet := 0
		for _, l := range r.engine.Loops() {
			on(t, l, func() {
				l.Range(func(c *Conn) {
					if c.Paused() || c.Counters().FramesIn == each {
						quiet++
					}
				})
			})
		}
		return quiet == senders
	})
	peak := 0
	for range 200 {
		peak = max(peak, conn.QueuedBytes())
		turns(t, conn.Loop(), 1)
	}
	if limit := high + senders*size; peak > limit {
		t.Errorf("%d bytes queued, limit %d", peak, limit)
	}
	if out := buf.Out().Bytes; out > 2*(high+senders*2*readBytesMax) {
		t.Errorf("%d bytes of buffers out", out)
	}
	var next [senders]int
	for range senders * each {
		b, err := readFrame(reader)
		if err != nil {
			t.Fatal(err)
		}
		s, n := frameNumber(b)/each, frameNumber(b)%each
		if n != next[s] {
			t.Fatalf("from sender %d frame %d, want %d", s, n, next[s])
		}
		next[s]++
	}
	writing.Wait()
	eventually(t, "all writes to count", func() bool { return r.engine.Stats().FramesWritten == senders*each })
	s := r.engine.Stats()
	if s.FramesCut != senders*each || s.FramesCut != s.FramesWritten || s.Lost+s.Undeliverable != 0 {
		t.Errorf("cut %d, written %d, lost %d, undeliverable %d", s.FramesCut, s.FramesWritten, s.Lost, s.Undeliverable)
	}
}

func TestCutFramesAreWrittenGivenBackOrLost(t *testing.T) {
	// Receivers come and go while senders never stop: whatever happens, the
	// sums agree.
	var targets [4]atomic.Uint64
	r := (&rig{frame: func(c *Conn, b *buf.Buffer) {
		to := Ref(targets[frameNumber(b.B)%len(targets)].Load())
		if c.Loop().Full(to) && c.WaitForOnLoop(to) {
			c.Loop().Send(to, b) // above the mark, once
			return
		}
		c.Loop().Send(to, b)
	}}).start(t, Config{QueueHigh: 128 << 10})
	var readers [len(targets)]*tls.Conn
	for i := range targets {
		client, conn := r.dial()
		readers[i] = client
		targets[i].Store(uint64(conn.Ref()))
	}
	stopFloods := make([]func(), 4)
	for i := range stopFloods {
		client, _ := r.dial()
		stopFloods[i] = flood(tcpAndTLS{client, tcpOf(client)}, 300+i*1000)
	}
	for round := range 15 {
		cut := r.engine.Stats().FramesCut
		for i := range targets {
			reader, conn := r.dial()
			old, oldReader := Ref(targets[i].Swap(uint64(conn.Ref()))), readers[i]
			readers[i] = reader
			switch (round + i) % 3 {
			case 0:
				_ = tcpOf(oldReader).SetLinger(0)
				tcpOf(oldReader).Close()
			case 1:
				l := r.engine.Loops()[old.Loop()]
				on(t, l, func() { l.Conn(old).CloseOnLoop(errDone) })
			case 2:
				go func() { _, _ = io.Copy(io.Discard, oldReader) }()
			}
		}
		// No destination of before is left: every wait has ended.
		eventually(t, "traffic", func() bool { return r.engine.Stats().FramesCut > cut+100 })
	}
	for _, stop := range stopFloods {
		stop()
	}
	r.stop()
	s := r.engine.Stats()
	t.Logf("cut %d = written %d + undeliverable %d + lost %d", s.FramesCut, s.FramesWritten, s.Undeliverable, s.Lost)
	if s.FramesCut == 0 || s.FramesCut != s.FramesWritten+s.Undeliverable+s.Lost {
		t.Error("the sums do not agree")
	}
}

func TestOwnFramesGoAheadAtTheNextBoundaryAndAreCountedApart(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, conn := r.dial()
	on(t, conn.Loop(), func() {
		l := conn.Loop()
		conn.blocked = true // nothing leaves before all is queued
		l.Send(conn.Ref(), frameBuf(0, 2*sealedMax))
		l.Send(conn.Ref(), frameBuf(1, 100))
		conn.seal()
		if conn.sealed == 0 {
			t.Error("the large frame is not sealed in part")
		}
		l.SendKind(conn.Ref(), frameBuf(2, 100), Own)
		l.SendKind(conn.Ref(), frameBuf(3, 100), OwnAhead)
		unstall(conn)
	})
	var order []int
	for range 4 {
		b, err := readFrame(client)
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, frameNumber(b))
	}
	if !slices.Equal(order, []int{0, 3, 1, 2}) {
		t.Errorf("order %v", order)
	}
	eventually(t, "the counters", func() bool {
		s := r.engine.Stats()
		return s.FramesWritten == 4 && s.OwnWritten == 2
	})
}
