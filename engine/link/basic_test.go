package link

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"causeway/engine/buf"
)

// echo sends frames back to where they came from.
func echo(c *Conn, b *buf.Buffer) { c.Loop().Send(c.Ref(), b) }

func TestFramesComeBackWholeAndInOrder(t *testing.T) {
	r := (&rig{frame: echo}).start(t, Config{})
	client, conn := r.dial()
	sizes := []int{8, 9, 55, 300, 1 << 10, recordMax - 1, recordMax, recordMax + 1, 70_000, 1 << 20, 8}
	go func() {
		var out []byte
		for i, size := range sizes {
			out = appendFrame(out, i, size)
		}
		_, _ = client.Write(out)
	}()
	for i, size := range sizes {
		b, err := readFrame(client)
		if err != nil || frameNumber(b) != i || len(b) != size {
			t.Fatalf("frame %d of %d bytes came back as %d bytes, error %v", i, size, len(b), err)
		}
	}
	eventually(t, "counters", func() bool {
		return conn.Counters().FramesIn == uint64(len(sizes)) && conn.Counters().FramesOut == uint64(len(sizes)) && conn.QueuedBytes() == 0 && conn.OldestQueued().IsZero()
	})
	client.Close()
	if why := receive(t, r.ends); !errors.Is(why, io.EOF) {
		t.Errorf("closed for %v, want EOF", why)
	}
}

func TestDialedConnectionsCarryFramesBothWays(t *testing.T) {
	got := make(chan int, 10)
	server := (&rig{frame: echo}).start(t, Config{})
	client := &rig{frame: func(c *Conn, b *buf.Buffer) { got <- frameNumber(b.B); buf.Put(b) }}
	client.start(t, Config{})
	if err := client.engine.Dial(context.Background(), server.addr, clientTLS(), "tag"); err != nil {
		t.Fatal(err)
	}
	c := receive(t, client.conns)
	if !c.Dialed() || c.Tag() != "tag" || c.Remote().String() != server.addr || c.TLS().NegotiatedProtocol != testALPN {
		t.Errorf("dialed %v, tag %v, remote %v, protocol %q", c.Dialed(), c.Tag(), c.Remote(), c.TLS().NegotiatedProtocol)
	}
	for i := range 5 {
		client.engine.Send(c.Ref(), frameBuf(i, 100))
	}
	for i := range 5 {
		if n := receive(t, got); n != i {
			t.Fatalf("frame %d came as number %d", n, i)
		}
	}
	on(t, c.Loop(), func() { c.FinishOnLoop(errors.New("done"), time.Now().Add(patience)) })
	if why := receive(t, client.ends); why == nil || why.Error() != "done" {
		t.Errorf("closed for %v", why)
	}
	if why := receive(t, server.ends); !errors.Is(why, io.EOF) {
		t.Errorf("the other end closed for %v", why)
	}
}
