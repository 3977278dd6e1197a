package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/engine/buf"
)

func TestWakesDoNotStarveSockets(t *testing.T) {
	// One connection wakes its loop in every turn, for ever. A frame that is in
	// another's socket must be read within a few turns all the same.
	const turnsMax = 4
	var noisy atomic.Pointer[Conn]
	var sentAt, worst uint64 // on the loop
	arrived := make(chan struct{}, 1)
	r := &rig{
		ready: func(c *Conn) {
			if c == noisy.Load() {
				c.Notify()
			}
		},
		frame: func(c *Conn, b *buf.Buffer) {
			worst = max(worst, c.loop.stat.turns.Load()-sentAt)
			buf.Put(b)
			arrived <- struct{}{}
		},
	}
	r.start(t, Config{Loops: 1})
	_, loud := r.dial()
	client, quiet := r.dial()
	noisy.Store(loud)
	loud.Notify()
	frame := appendFrame(nil, 1, 100)
	for range 300 {
		on(t, quiet.Loop(), func() {
			sentAt = quiet.loop.stat.turns.Load()
			if _, err := client.Write(frame); err != nil {
				t.Error(err)
			}
			for end := time.Now().Add(patience); ; { // the loop stands until it is in the socket
				n, err := unix.IoctlGetInt(quiet.fd, unix.SIOCINQ)
				if err != nil || time.Now().After(end) {
					t.Errorf("%d bytes came: %v", n, err)
				}
				if err != nil || n > 0 || time.Now().After(end) {
					return
				}
			}
		})
		receive(t, arrived)
	}
	noisy.Store(nil)
	on(t, quiet.Loop(), func() {
		if worst > turnsMax {
			t.Errorf("%d turns until a readable socket was read", worst)
		}
	})
}

func TestNotifyIsNeverLost(t *testing.T) {
	const goroutines, each = 8, 5000
	var count atomic.Int64
	var seen, calls int64 // on the loop
	r := (&rig{ready: func(*Conn) { seen = count.Load(); calls++ }}).start(t, Config{Loops: 1})
	_, conn := r.dial()
	var wg sync.WaitGroup
	for range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range each {
				count.Add(1)
				conn.Notify()
			}
		}()
	}
	wg.Wait()
	eventually(t, "the last Ready", func() bool {
		ok := false
		on(t, conn.Loop(), func() { ok = seen == goroutines*each })
		return ok
	})
	on(t, conn.Loop(), func() {
		if calls == 0 || calls > goroutines*each {
			t.Errorf("%d calls of Ready", calls)
		}
	})
	if n := testing.AllocsPerRun(1000, conn.Notify); n > 0.1 {
		t.Errorf("%v allocations per Notify", n)
	}
}

func TestNotifyWakesAQuietLoop(t *testing.T) {
	got := make(chan struct{}, 1)
	r := (&rig{ready: func(*Conn) { got <- struct{}{} }}).start(t, Config{Loops: 1, Tick: time.Hour})
	_, conn := r.dial()
	for range 2000 { // each must wake by itself: no tick comes to help
		conn.Notify()
		receive(t, got)
	}
}

func TestNotifyBeforeOpenedCounts(t *testing.T) {
	var open atomic.Bool
	got := make(chan struct{}, 1)
	r := &rig{
		handshaken: func(c *Conn, _ tls.ConnectionState) error { c.Notify(); return nil },
		opened:     func(*Conn) { open.Store(true) },
		ready: func(*Conn) {
			if !open.Load() {
				t.Error("Ready before Opened")
			}
			got <- struct{}{}
		},
	}
	r.start(t, Config{})
	r.dial()
	receive(t, got)
}

func TestIdleLoopsRest(t *testing.T) {
	type tick struct {
		at    time.Time
		turns uint64
	}
	ticks := make(chan tick, 100)
	(&rig{tick: func(l *Loop, now time.Time) {
		select {
		case ticks <- tick{now, l.stat.turns.Load()}:
		default: // enough
		}
	}}).start(t, Config{Loops: 1, Tick: time.Millisecond})
	first := receive(t, ticks)
	var last tick
	for range 5 {
		last = receive(t, ticks)
	}
	if n := last.turns - first.turns; n > 5+2 {
		t.Errorf("%d turns of an idle loop in 5 ticks", n)
	}
	if d := last.at.Sub(first.at); d < 2*tickMin { // without the least of tickMin: 5 ms
		t.Errorf("5 ticks in %v", d)
	}
}

func TestSelfCheckFindsABrokenTrick(t *testing.T) {
	r := (&rig{}).start(t, Config{Loops: 1})
	other, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	l := r.engine.Loops()[0]
	var right int
	on(t, l, func() { right, l.port.epoll = l.port.epoll, other })
	err = r.engine.check(l)
	on(t, l, func() { l.port.epoll = right })
	if err == nil || !strings.Contains(err.Error(), "pausing a socket") || !strings.Contains(err.Error(), "loop 0") {
		t.Errorf("error %v", err)
	}
	if err := r.engine.check(l); err != nil {
		t.Errorf("mended: %v", err)
	}
}

func TestOneConnectionHasAShareOfATurn(t *testing.T) {
	var last, worst uint64
	r := &rig{}
	r.turnEnd = func(l *Loop) {
		now := l.stat.bytesOut.Load()
		worst = max(worst, now-last)
		last = now
	}
	r.start(t, Config{Loops: 1})
	client, conn := r.dial()
	go func() { _, _ = io.Copy(io.Discard, client) }()
	on(t, conn.Loop(), func() {
		for i := range 50 {
			conn.Loop().Send(conn.Ref(), frameBuf(i, 1<<20))
		}
	})
	eventually(t, "50 MiB to be written", func() bool { return conn.QueuedBytes() == 0 })
	on(t, conn.Loop(), func() {
		if limit := uint64(flushMax + sealedMax + 2*recordMax); worst > limit {
			t.Errorf("%d bytes written in one turn", worst)
		}
	})
}

// heapObjects returns how many objects were ever allocated.
func heapObjects() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

type onlyReader struct{ io.Reader }

type onlyWriter struct{}

func (onlyWriter) Write(p []byte) (int, error) { return len(p), nil }

func TestFramesAllocateNothingOnTheirWay(t *testing.T) {
	if buf.Debug || raceEnabled {
		t.Log("the debug and race builds allocate by themselves")
		return
	}
	const frames, size, perWrite = 300_000, 256, 64
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools
	var dst atomic.Uint64
	r := (&rig{frame: func(c *Conn, b *buf.Buffer) {
		to := Ref(dst.Load())
		if c.Loop().Full(to) {
			c.WaitForOnLoop(to)
		}
		c.Loop().Send(to, b)
	}}).start(t, Config{QueueHigh: 256 << 10})
	r.t = nil // no check of each frame
	defer func() { r.t = t }()
	block := []byte(nil)
	for i := range perWrite {
		block = appendFrame(block, i, size)
	}
	run := func(to *Conn, writer *tls.Conn, frames int) {
		want := to.Counters().FramesOut + uint64(frames)
		for i := 0; i < frames; i += perWrite {
			if _, err := writer.Write(block); err != nil {
				t.Error(err)
			}
		}
		eventually(t, "all frames", func() bool { return to.Counters().FramesOut == want })
	}
	for _, home := range []int{0, 1} { // on the same loop, and across
		r.t = t
		reader, conn := r.dialOn(0)
		writer, _ := r.dialOn(home)
		r.t = nil
		dst.Store(uint64(conn.Ref()))
		// The client's crypto/tls would allocate: its end is read below TLS.
		go func() { _, _ = io.CopyBuffer(onlyWriter{}, onlyReader{tcpOf(reader)}, make([]byte, 64<<10)) }()
		run(conn, writer, frames/3/perWrite*perWrite) // fills pools
		var most []*buf.Buffer                        // with more than a full queue and some reads hold, too
		for range (256<<10 + 8*readBytesMax) / size {
			most = append(most, buf.Get(size))
		}
		for _, b := range most {
			buf.Put(b)
		}
		before := heapObjects()
		n := frames / perWrite * perWrite
		run(conn, writer, n)
		per := float64(heapObjects()-before) / float64(n)
		t.Logf("reader on loop 0, writer on loop %d: %.5f allocations per frame", home, per)
		if per > 0.002 {
			t.Errorf("%.4f allocations per frame", per)
		}
	}
}

func TestAFreshConnectionIsSmall(t *testing.T) {
	if buf.Debug || raceEnabled {
		t.Log("the debug and race builds take more by themselves")
		return
	}
	const pairs, perEndMax = 300, 12 << 10
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	server := (&rig{}).start(t, Config{Loops: 1})
	client := (&rig{}).start(t, Config{Loops: 1})
	dial := func(n int) {
		for range n {
			if err := client.engine.Dial(t.Context(), server.addr, clientTLS(), nil); err != nil {
				t.Fatal(err)
			}
			receive(t, client.conns)
			receive(t, server.conns)
		}
	}
	dial(20) // tables and pools
	before := heap()
	dial(pairs)
	per := (heap() - before) / pairs / 2
	t.Logf("%d bytes per fresh end of a connection", per)
	if per > perEndMax {
		t.Errorf("%d bytes per fresh end of a connection", per)
	}
}

func TestCloseEndsEverythingAndSaysWhatItCut(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	reading, first := r.dial()
	_, second := r.dial() // reads nothing
	for _, c := range []*Conn{first, second} {
		on(t, c.Loop(), func() {
			for i := range 30 { // much more than the kernel takes, or that one could not read in the time
				c.Loop().Send(c.Ref(), frameBuf(i, map[*Conn]int{first: 200 << 10, second: 1 << 20}[c]))
			}
		})
	}
	got := make(chan int, 1)
	go func() { got <- countFrames(t, reading); reading.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	err := r.engine.Close(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("Close: %v", err)
	}
	if n := receive(t, got); n != 30 {
		t.Errorf("the peer that reads got %d of 30 frames", n)
	}
	for range 2 {
		if why := receive(t, r.ends); why != ErrEngineClosed {
			t.Errorf("closed for %v", why)
		}
	}
	if err := r.engine.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := r.engine.Dial(t.Context(), r.addr, clientTLS(), nil); !errors.Is(err, ErrEngineClosed) {
		t.Errorf("Dial after Close: %v", err)
	}
	if _, err := r.engine.Listen("127.0.0.1:0", testTLS()); !errors.Is(err, ErrEngineClosed) {
		t.Errorf("Listen after Close: %v", err)
	}
	if r.engine.Loops()[0].Post(func() { t.Error("ran after Close") }) {
		t.Error("Post after Close")
	}
	before := r.engine.Stats().Undeliverable
	r.engine.Send(first.Ref(), frameBuf(1, 100))
	first.Notify()
	if n := r.engine.Stats().Undeliverable; n != before+1 {
		t.Errorf("a frame sent after Close: %d undeliverable", n-before)
	}
}
