package link

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"causeway/engine/buf"
)

type Engine struct{}
type Listener struct{}
type Loop struct{}
type Conn struct{ State any }
type Stats struct {
	LoopStats                          // sums over all loops
	Loops            []LoopStats       // by loop
	Handshaking      int               // under way now
	Accepted         uint64            // connections accepted from the kernel
	Handshakes       uint64            // complete and accepted by Handshaken
	HandshakesFailed map[string]uint64 // by reason
	AcceptErrors     map[string]uint64 // by reason: "descriptors", "other"
}
type LoopStats struct {
	Connections   int   // open now
	QueuedBytes   int64 // bytes of frames queued now, for connections of this loop
	Opened        uint64
	Closed        uint64
	BytesIn       uint64 // ciphertext
	BytesOut      uint64 // ciphertext handed to the kernel
	FramesCut     uint64
	FramesWritten uint64 // handed to the kernel to the last byte
	Undeliverable uint64 // frames
	Lost          uint64 // frames
	Malformed     uint64 // connections closed for a malformed frame
	Pauses        uint64
	Turns         uint64
	Wakes         uint64
	Writes        uint64 // writev calls
	Records       uint64 // TLS records sealed
}
type Counters struct{ FramesIn, FramesOut, BytesIn, BytesOut uint64 }

const skeleton = "link: not built yet"

func Start(cfg Config, h Handler) (*Engine, error)                      { panic(skeleton) }
func (e *Engine) Listen(addr string, tc *tls.Config) (*Listener, error) { panic(skeleton) }
func (e *Engine) Dial(ctx context.Context, addr string, tc *tls.Config, tag any) error {
	panic(skeleton)
}
func (e *Engine) Loops() []*Loop                           { panic(skeleton) }
func (e *Engine) Send(to Ref, b *buf.Buffer)               { panic(skeleton) }
func (e *Engine) Stats() Stats                             { panic(skeleton) }
func (e *Engine) Close(ctx context.Context) error          { panic(skeleton) }
func (l *Listener) Addr() net.Addr                         { panic(skeleton) }
func (l *Listener) Close() error                           { panic(skeleton) }
func (l *Loop) Index() int                                 { panic(skeleton) }
func (l *Loop) Now() time.Time                             { panic(skeleton) }
func (l *Loop) Conn(ref Ref) *Conn                         { panic(skeleton) }
func (l *Loop) Send(to Ref, b *buf.Buffer)                 { panic(skeleton) }
func (l *Loop) Backlog(to Ref) int                         { panic(skeleton) }
func (l *Loop) Full(to Ref) bool                           { panic(skeleton) }
func (l *Loop) Post(fn func())                             { panic(skeleton) }
func (l *Loop) Range(fn func(*Conn))                       { panic(skeleton) }
func (c *Conn) Ref() Ref                                   { panic(skeleton) }
func (c *Conn) Loop() *Loop                                { panic(skeleton) }
func (c *Conn) Remote() netip.AddrPort                     { panic(skeleton) }
func (c *Conn) Local() netip.AddrPort                      { panic(skeleton) }
func (c *Conn) TLS() tls.ConnectionState                   { panic(skeleton) }
func (c *Conn) Dialed() bool                               { panic(skeleton) }
func (c *Conn) Tag() any                                   { panic(skeleton) }
func (c *Conn) Notify()                                    { panic(skeleton) }
func (c *Conn) Paused() bool                               { panic(skeleton) }
func (c *Conn) PauseOnLoop()                               { panic(skeleton) }
func (c *Conn) ResumeOnLoop()                              { panic(skeleton) }
func (c *Conn) WaitForOnLoop(to Ref) bool                  { panic(skeleton) }
func (c *Conn) CancelWaitOnLoop()                          { panic(skeleton) }
func (c *Conn) CloseOnLoop(why error)                      { panic(skeleton) }
func (c *Conn) FinishOnLoop(why error, deadline time.Time) { panic(skeleton) }
func (c *Conn) QueuedBytes() int                           { panic(skeleton) }
func (c *Conn) OldestQueued() time.Time                    { panic(skeleton) }
func (c *Conn) Counters() Counters                         { panic(skeleton) }
