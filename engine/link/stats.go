package link

import (
	"maps"
	"sync/atomic"

	"causeway/engine/buf"
)

// LoopStats are one loop's sums since start, and its gauges.
type LoopStats struct {
	Connections   int    // open now
	QueuedBytes   int64  // of frames that wait now for connections of this loop
	Opened        uint64 // connections
	Closed        uint64 // connections
	BytesIn       uint64 // ciphertext, without handshakes
	BytesOut      uint64 // ciphertext handed to the kernel, without handshakes
	FramesCut     uint64
	FramesWritten uint64 // handed to the kernel to the last byte
	OwnWritten    uint64 // of these, frames that the handler made
	Undeliverable uint64 // frames given back
	Lost          uint64 // frames, own ones included, that were sealed and never handed to the kernel
	Malformed     uint64 // connections closed for a malformed frame
	PartialEnded  uint64 // connections closed because half-received frames were too many
	Pauses        uint64
	Turns         uint64
	Wakes         uint64 // writes to the loop's eventfd
	Writes        uint64 // writev calls
	Records       uint64 // TLS records sealed
}

// Stats are an engine's.
type Stats struct {
	LoopStats                          // sums over all loops
	Loops            []LoopStats       // by loop
	Handshaking      int               // under way now, dialed ones included
	Accepted         uint64            // connections taken from the kernel
	Handshakes       uint64            // complete, accepted by the handler and enrolled
	PartialBytes     int64             // of half-received frames now
	HandshakesFailed map[string]uint64 // by reason
	AcceptErrors     map[string]uint64 // by reason: "descriptors", "other"
}

// loopStat is written by the home loop, once per batch, and read by anyone.
type loopStat struct {
	opened, closed           atomic.Uint64
	bytesIn, bytesOut        atomic.Uint64
	framesCut, framesWritten atomic.Uint64
	ownWritten               atomic.Uint64
	undeliverable, lost      atomic.Uint64
	malformed, pauses        atomic.Uint64
	partialEnded             atomic.Uint64
	partial                  atomic.Int64 // bytes of half-received frames
	turns, wakes             atomic.Uint64
	writes, records          atomic.Uint64
}

// Connections returns how many connections are open now. Any goroutine.
func (e *Engine) Connections() (n int) {
	for _, l := range e.loops {
		n += int(l.stat.opened.Load() - min(l.stat.closed.Load(), l.stat.opened.Load()))
	}
	return n
}

// Stats returns all counters. Each is exact; under traffic they are not of one
// moment. Any goroutine.
func (e *Engine) Stats() Stats {
	var s Stats
	for _, l := range e.loops {
		one := l.stats()
		s.Loops = append(s.Loops, one)
		s.LoopStats.add(one)
	}
	s.Handshaking = int(e.handshaking.Load())
	s.Accepted = e.accepted.Load()
	s.PartialBytes = e.cfg.Budget.Usage()[buf.PartPartial]
	s.Handshakes = e.handshakes.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	s.HandshakesFailed = maps.Clone(e.failed)
	s.AcceptErrors = maps.Clone(e.acceptErrors)
	return s
}

func (l *Loop) stats() LoopStats {
	t := &l.stat
	s := LoopStats{
		Opened: t.opened.Load(), Closed: t.closed.Load(),
		BytesIn: t.bytesIn.Load(), BytesOut: t.bytesOut.Load(),
		FramesCut: t.framesCut.Load(), FramesWritten: t.framesWritten.Load(),
		OwnWritten:    t.ownWritten.Load(),
		Undeliverable: t.undeliverable.Load(), Lost: t.lost.Load(),
		Malformed: t.malformed.Load(), PartialEnded: t.partialEnded.Load(), Pauses: t.pauses.Load(),
		Turns: t.turns.Load(), Wakes: t.wakes.Load(),
		Writes: t.writes.Load(), Records: t.records.Load(),
	}
	s.Connections = int(s.Opened - min(s.Closed, s.Opened))
	for i := range l.slots.chunks {
		chunk := l.slots.chunks[i].Load()
		if chunk == nil {
			break
		}
		for j := range chunk {
			s.QueuedBytes += chunk[j].backlog.Load()
		}
	}
	return s
}

func (s *LoopStats) add(o LoopStats) {
	s.Connections += o.Connections
	s.QueuedBytes += o.QueuedBytes
	s.Opened += o.Opened
	s.Closed += o.Closed
	s.BytesIn += o.BytesIn
	s.BytesOut += o.BytesOut
	s.FramesCut += o.FramesCut
	s.FramesWritten += o.FramesWritten
	s.Undeliverable += o.Undeliverable
	s.OwnWritten += o.OwnWritten
	s.Lost += o.Lost
	s.Malformed += o.Malformed
	s.PartialEnded += o.PartialEnded
	s.Pauses += o.Pauses
	s.Turns += o.Turns
	s.Wakes += o.Wakes
	s.Writes += o.Writes
	s.Records += o.Records
}
