package link

import (
	"errors"
	"io"
	"testing"
	"time"

	"causeway/engine/buf"
)

var errDone = errors.New("done")

// countFrames reads frames until the stream ends in order, and returns how many
// came, in sequence from 0.
func countFrames(t testing.TB, r io.Reader) (n int) {
	t.Helper()
	for {
		b, err := readFrame(r)
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatalf("after %d frames: %v", n, err)
		}
		if frameNumber(b) != n {
			t.Fatalf("frame %d came as number %d", frameNumber(b), n)
		}
		n++
	}
}

func TestFinishLosesNothing(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, conn := r.dial()
	const frames, size = 10 << 10, 1 << 10
	mustWrite(t, client, appendFrame(nil, 0, 5000)) // unread input must not turn the close into a reset
	on(t, conn.Loop(), func() {
		for i := range frames {
			conn.Loop().Send(conn.Ref(), frameBuf(i, size))
		}
		conn.FinishOnLoop(errDone, time.Now().Add(patience))
	})
	if n := countFrames(t, client); n != frames {
		t.Errorf("%d of %d frames arrived", n, frames)
	}
	client.Close()
	if why := receive(t, r.ends); why != errDone {
		t.Errorf("closed for %v", why)
	}
	if s := r.engine.Stats(); s.FramesWritten != frames || s.Lost+s.Undeliverable != 0 {
		t.Errorf("written %d, lost %d, undeliverable %d", s.FramesWritten, s.Lost, s.Undeliverable)
	}
}

func TestFinishWaitsForFramesUnderWayFromAnotherLoop(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, conn := r.dialOn(0)
	other := r.engine.Loops()[1]
	const frames = 1000
	on(t, other, func() {
		for i := range frames {
			other.Send(conn.Ref(), frameBuf(i, 500))
		}
		// Before this loop's turn has spliced them over, the other finishes.
		on(t, conn.Loop(), func() { conn.FinishOnLoop(errDone, time.Now().Add(patience)) })
		turns(t, conn.Loop(), 5)
	})
	if n := countFrames(t, client); n != frames {
		t.Errorf("%d of %d frames arrived", n, frames)
	}
}

func TestFinishEndsAtItsDeadline(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	_, conn := r.dial() // never reads
	const frames = 100
	on(t, conn.Loop(), func() {
		for i := range frames {
			conn.Loop().Send(conn.Ref(), frameBuf(i, 1<<20))
		}
		conn.FinishOnLoop(errDone, time.Now().Add(200*time.Millisecond))
	})
	if why := receive(t, r.ends); why != errDone {
		t.Errorf("closed for %v", why)
	}
	s := r.engine.Stats()
	if s.Undeliverable == 0 || s.FramesWritten+s.Undeliverable+s.Lost != frames {
		t.Errorf("written %d + undeliverable %d + lost %d, want %d", s.FramesWritten, s.Undeliverable, s.Lost, frames)
	}
}

func TestCloseGivesBackWhatIsNotSealed(t *testing.T) {
	var back []int // of the connection's own loop
	r := (&rig{}).start(t, Config{})
	r.undeliverable = func(l *Loop, to Ref, b *buf.Buffer) {
		if l.Conn(to) == nil && frameNumber(b.B) < 4 {
			t.Error("given back by Close after its Ref resolved to nothing")
		}
		if frameNumber(b.B) < 8 {
			back = append(back, frameNumber(b.B))
		}
		buf.Put(b)
	}
	_, conn := r.dial()
	var inHandler bool
	r.closed = func(*Conn, error, int) {
		if inHandler {
			t.Error("Closed was called from inside CloseOnLoop")
		}
	}
	ref := conn.Ref()
	on(t, conn.Loop(), func() {
		l := conn.Loop()
		conn.blocked = true
		for i := range 4 {
			l.Send(ref, frameBuf(i, 100))
		}
		inHandler = true
		conn.CloseOnLoop(errDone)
		inHandler = false
		conn.CloseOnLoop(io.EOF) // too late to matter
		l.Send(ref, frameBuf(4, 100))
	})
	if why := receive(t, r.ends); why != errDone {
		t.Errorf("closed for %v", why)
	}
	on(t, conn.Loop(), func() {
		if conn.Loop().Conn(ref) != nil || conn.Loop().Backlog(ref) != 0 {
			t.Error("the Ref still resolves after Closed")
		}
		conn.Loop().Send(ref, frameBuf(5, 100))
	})
	turns(t, conn.Loop(), 2)
	r.engine.Loops()[1-conn.Loop().Index()].Post(func() {
		r.engine.Loops()[1-conn.Loop().Index()].Send(ref, frameBuf(6, 100))
	})
	r.engine.Send(ref, frameBuf(7, 100))
	r.engine.Send(newRef(1, 1<<19, 77), frameBuf(8, 100)) // never was; may be another loop
	eventually(t, "all frames given back", func() bool { return r.engine.Stats().Undeliverable == 9 })
	if s := r.engine.Stats(); s.QueuedBytes != 0 {
		t.Errorf("%d bytes still queued", s.QueuedBytes)
	}
	on(t, conn.Loop(), func() {
		if len(back) < 6 || back[0] != 0 || back[3] != 3 {
			t.Errorf("given back: %v", back)
		}
	})
}

func TestPeersHalfCloseStillGetsWhatIsQueued(t *testing.T) {
	for _, byTCP := range []bool{false, true} {
		r := (&rig{}).start(t, Config{})
		client, conn := r.dial()
		const frames, size = 3000, 2000
		on(t, conn.Loop(), func() {
			for i := range frames {
				conn.Loop().Send(conn.Ref(), frameBuf(i, size))
			}
		})
		if byTCP {
			_ = tcpOf(client).CloseWrite()
		} else {
			_ = client.CloseWrite()
		}
		if n := countFrames(t, client); n != frames {
			t.Errorf("FIN %v: %d of %d frames arrived", byTCP, n, frames)
		}
		client.Close()
		if why := receive(t, r.ends); !errors.Is(why, io.EOF) {
			t.Errorf("FIN %v: closed for %v", byTCP, why)
		}
	}
}

func TestHalfAFrameAtTheEndIsUnexpected(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, _ := r.dial()
	mustWrite(t, client, appendFrame(nil, 1, 100)[:50])
	client.Close()
	if why := receive(t, r.ends); why != io.ErrUnexpectedEOF {
		t.Errorf("closed for %v", why)
	}
}

func TestResetWithAFullQueueIsAccountedFor(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, conn := r.dial()
	const frames, size = 5000, 4000
	on(t, conn.Loop(), func() {
		for i := range frames {
			conn.Loop().Send(conn.Ref(), frameBuf(i, size))
		}
	})
	eventually(t, "the kernel to take no more", func() bool {
		full := false
		on(t, conn.Loop(), func() { full = conn.blocked })
		return full
	})
	_ = tcpOf(client).SetLinger(0)
	tcpOf(client).Close()
	why := receive(t, r.ends)
	if why == nil || errors.Is(why, io.EOF) {
		t.Errorf("closed for %v, want a reset", why)
	}
	s := r.engine.Stats()
	if s.FramesWritten == 0 || s.Lost == 0 || s.Undeliverable == 0 || s.FramesWritten+s.Undeliverable+s.Lost != frames {
		t.Errorf("written %d + undeliverable %d + lost %d, want %d", s.FramesWritten, s.Undeliverable, s.Lost, frames)
	}
}

func TestMalformedFrameClosesTheConnection(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	client, conn := r.dial()
	mustWrite(t, client, append(appendFrame(nil, 1, 100), 0xff, 0xff, 0xff, 0xff, 0, 0))
	if why := receive(t, r.ends); why != errTestMalformed {
		t.Errorf("closed for %v", why)
	}
	if s := r.engine.Stats(); s.Malformed != 1 || s.FramesCut != 1 || conn.Counters().FramesIn != 1 {
		t.Errorf("malformed %d, cut %d", s.Malformed, s.FramesCut)
	}
}
