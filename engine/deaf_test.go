package engine

import (
	"fmt"
	"net"
	"testing"
	"time"

	"causeway/codec"
)

// A peer that asks and does not read the answers makes the router hold no more
// than a bounded number of bytes for it, whatever it asks for.
func TestAPeerThatDoesNotReadMakesTheRouterHoldLittle(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.QueueHigh = 256 << 10 }, d)
	for n := range 60 { // so that a list is long
		connect(t, addr, d.node(fmt.Sprintf("node-%d", n)))
	}
	for _, c := range []struct {
		name string
		ask  func(c *client, n int) *codec.Frame
	}{
		{"keep-alives", func(c *client, _ int) *codec.Frame { return c.controlFrame(&codec.KeepAlive{Answer: true}) }},
		{"lists", func(c *client, n int) *codec.Frame {
			return c.controlFrame(&codec.NameRequest{Number: uint64(n), Max: codec.NamesMax})
		}},
		{"echoes", func(c *client, _ int) *codec.Frame {
			return c.frame(c.router, codec.CategoryEcho, must(codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoRequest, Payload: make([]byte, codec.EchoPayloadMax)})))
		}},
		{"frames to nobody", func(c *client, n int) *codec.Frame {
			to := codec.Address(c.id.Peer.Address)
			to[14], to[15] = byte(n>>8), byte(n)
			return c.frame(to, codec.CategoryApplication, nil)
		}},
	} {
		cl := connect(t, addr, d.node("deaf"))
		cl.conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
		before := r.Counts().Cut
		sent := 0
		for ; sent < 5000; sent++ {
			cl.conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := cl.conn.Write(cl.wire(c.ask(cl, sent))); err != nil {
				break // the router reads it no more, or has ended it
			}
		}
		waitFor(t, "the router has looked at all it reads", func() bool { return r.Counts().InFlight == 0 || r.link.Stats().QueuedBytes > 0 })
		if q := r.link.Stats().QueuedBytes; q > int64(r.config.QueueHigh)+1<<20 {
			t.Errorf("%s: %d bytes wait for a peer that does not read, after %d of %d frames", c.name, q, r.Counts().Cut-before, sent)
		}
		cl.conn.NetConn().Close()
		waitFor(t, "it is gone", func() bool { return r.link.Stats().QueuedBytes == 0 })
	}
}
