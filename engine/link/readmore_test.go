package link

import (
	"sync/atomic"
	"testing"

	"causeway/engine/buf"
)

// What has come from a link is cut in one turn, up to linkReadsMax reads of it; that
// of other connections is not.
func TestALinkIsReadSeveralTimesInATurn(t *testing.T) {
	const size, count = 1 << 10, 3 * readBytesMax / (1 << 10)
	for _, isLink := range []bool{false, true} {
		var turns []int // frames that came before the end of each
		now := 0
		var all atomic.Int32
		r := &rig{
			frame: func(_ *Conn, b *buf.Buffer) { now++; all.Add(1); buf.Put(b) },
			turnEnd: func(*Loop) {
				if now > 0 {
					turns, now = append(turns, now), 0
				}
			},
		}
		r.start(t, Config{Loops: 1, Recipient: testRecipient})
		client, conn := r.dial()
		on(t, conn.Loop(), func() {
			if isLink {
				conn.SetLinkOnLoop()
			}
			conn.PauseOnLoop()
		})
		var frames []byte
		for n := range count {
			frames = appendFrame(frames, n, size)
		}
		mustWrite(t, client, frames)
		eventually(t, "the router's kernel has all", func() bool { return unsent(t, tcpOf(client)) == 0 })
		on(t, conn.Loop(), conn.ResumeOnLoop)
		eventually(t, "all frames are cut", func() bool { return all.Load() == count })
		on(t, conn.Loop(), func() {}) // the turn in which the last came is over
		on(t, conn.Loop(), func() {
			if isLink != (len(turns) == 1) {
				t.Errorf("link %v: frames came in turns of %d", isLink, turns)
			}
		})
		r.stop()
	}
}

// A link that is paused while it is read on is not read further.
func TestALinkThatIsPausedIsNotReadOn(t *testing.T) {
	const size, count = 1 << 10, 3 * readBytesMax / (1 << 10)
	var all atomic.Int32
	pauseAt := int32(readBytesMax/size + 10) // in the second read
	r := &rig{frame: func(c *Conn, b *buf.Buffer) {
		if all.Add(1) == pauseAt {
			c.PauseOnLoop()
		}
		buf.Put(b)
	}}
	r.start(t, Config{Loops: 1, Recipient: testRecipient})
	client, conn := r.dial()
	on(t, conn.Loop(), func() { conn.SetLinkOnLoop(); conn.PauseOnLoop() })
	var frames []byte
	for n := range count {
		frames = appendFrame(frames, n, size)
	}
	mustWrite(t, client, frames)
	eventually(t, "the router's kernel has all", func() bool { return unsent(t, tcpOf(client)) == 0 })
	on(t, conn.Loop(), conn.ResumeOnLoop)
	eventually(t, "the link is paused", func() bool { return all.Load() >= pauseAt })
	on(t, conn.Loop(), func() {
		held := 0
		if conn.held != nil {
			held = len(conn.held.B)
		}
		if all.Load() != pauseAt || held > readBytesMax || !conn.Paused() {
			t.Errorf("%d frames were cut, and %d bytes are held", all.Load(), held)
		}
		conn.ResumeOnLoop()
	})
	eventually(t, "all frames are cut", func() bool { return all.Load() == count })
}
