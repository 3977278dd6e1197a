package link

import (
	"io"
	"testing"

	"causeway/engine/buf"
)

// BenchmarkForward sends frames of 256 bytes from one connection to another
// through the router's end of both; the clients' work is on the same cores.
func BenchmarkForward(b *testing.B) {
	const size, perWrite = 256, 64
	var to Ref
	r := (&rig{frame: func(c *Conn, f *buf.Buffer) {
		if c.Loop().Full(to) {
			c.WaitForOnLoop(to)
		}
		c.Loop().Send(to, f)
	}}).start(b, Config{QueueHigh: 1 << 20})
	reader, conn := r.dialOn(0)
	writer, home := r.dialOn(1)
	r.t = nil // no check of each frame
	defer func() { r.t = b }()
	on(b, home.Loop(), func() { to = conn.Ref() })
	go func() { _, _ = io.CopyBuffer(onlyWriter{}, onlyReader{tcpOf(reader)}, make([]byte, 64<<10)) }()
	block := []byte(nil)
	for i := range perWrite {
		block = appendFrame(block, i, size)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for ; n < b.N; n += perWrite {
		mustWrite(b, writer, block)
	}
	eventually(b, "all frames", func() bool { return conn.Counters().FramesOut == uint64(n) })
}
