package engine

import (
	"fmt"
	"sync/atomic"

	"causeway/codec"
	"causeway/engine/link"
	"causeway/engine/table"
)

// Values of the recipient table (engine/table):
//
//	63 62            32 31             0
//	| 0 | link.Ref                     |  of a node that is connected here
//	| 1 | generation | number          |  of the router that has the node, or is the recipient
//
// So a route that changes is one store, however many nodes are behind it. A
// link.Ref has a loop below 256 in its highest bits, so bit 63 is never its own.
const (
	remoteBit      table.Value = 1 << 63
	generationBits             = 31
	generationMask             = 1<<generationBits - 1

	hopsPerChunk = 1 << 10 // of 16 bytes
	hopChunksMax = 1 << 12 // four million routers
)

// tableValue returns what the table holds for a connection.
func tableValue(ref link.Ref) table.Value { return table.Value(ref) }

// isRemote tells whether v names a router.
func isRemote(v table.Value) bool { return v&remoteBit != 0 }

// isHere tells whether v names a connection of this router.
func isHere(v table.Value) bool { return v != 0 && v&remoteBit == 0 }

func hopNumber(v table.Value) uint32     { return uint32(v) }
func hopGeneration(v table.Value) uint32 { return uint32(v>>32) & generationMask }

// hop is the next hop to one router.
type hop struct {
	ref        atomic.Uint64 // link.Ref; 0: there is no route
	generation atomic.Uint32 // of the Value that the hop is for
	_          [4]byte
}

// hops has the next hop for each router that a Value names. One goroutine
// writes, any number read.
//
// A number that is taken back serves another router, of another domain perhaps,
// while a reader may still have the Value of the one before. So it is taken back
// only when no entry of the table has it, and its generation changes before its
// hop does: a reader takes the hop first, then looks at the generation, and if
// that is not its Value's, the table has another Value by then.
type hops struct {
	chunks [hopChunksMax]atomic.Pointer[[hopsPerChunk]hop]

	// the writer's
	states []hopState // by number
	free   []uint32   // numbers
}

// hopState is what the writer knows of a number.
type hopState struct {
	entries int  // of the table
	given   bool // a router has it; else it is free when entries is 0
}

// get returns the hop that v, which isRemote, is for. It is false when v is none
// of the table's any more.
func (h *hops) get(v table.Value) (to link.Ref, ok bool) {
	at := h.at(hopNumber(v))
	to = link.Ref(at.ref.Load())
	return to, at.generation.Load() == hopGeneration(v)
}

func (h *hops) at(number uint32) *hop {
	return &h.chunks[number/hopsPerChunk].Load()[number%hopsPerChunk]
}

// give returns a Value for a router, which has no hop yet; false: there are
// none left.
func (h *hops) give() (v table.Value, ok bool) {
	var number uint32
	if n := len(h.free); n > 0 {
		number, h.free = h.free[n-1], h.free[:n-1]
	} else if number = uint32(len(h.states)); number == hopsPerChunk*hopChunksMax {
		return 0, false
	} else {
		if number%hopsPerChunk == 0 {
			h.chunks[number/hopsPerChunk].Store(new([hopsPerChunk]hop))
		}
		h.states = append(h.states, hopState{})
	}
	h.states[number].given = true
	return remoteBit | table.Value(h.at(number).generation.Load())<<32 | table.Value(number), true
}

// set makes `to` the hop for v; 0: there is no route.
func (h *hops) set(v table.Value, to link.Ref) { h.at(hopNumber(v)).ref.Store(uint64(to)) }

// takeBack ends the use of v for its router: the number is given again when the
// table has no entry with it.
func (h *hops) takeBack(v table.Value) {
	h.set(v, 0)
	h.states[hopNumber(v)].given = false
	h.count(v, 0)
}

// count notes that n entries of the table more have v; others than remote ones
// need no counting.
func (h *hops) count(v table.Value, n int) {
	if !isRemote(v) {
		return
	}
	number := hopNumber(v)
	s := &h.states[number]
	if s.entries += n; s.entries < 0 {
		panic(fmt.Sprintf("engine: router number %d has %d entries", number, s.entries))
	}
	if s.entries == 0 && !s.given {
		at := h.at(number)
		at.generation.Store((at.generation.Load() + 1) & generationMask)
		h.free = append(h.free, number)
	}
}

// inUse returns how many numbers are not free. It is the writer's.
func (h *hops) inUse() int { return len(h.states) - len(h.free) }

// lookup returns the connection that leads to an address: its own, or of another
// router's node the link to take. 0: there is none. It takes no lock and
// allocates nothing; any goroutine.
func (r *Router) lookup(a codec.Address) (to link.Ref, remote bool) {
	for {
		v := r.table.Lookup(a)
		if !isRemote(v) {
			return link.Ref(v), false
		}
		// Without a hop it may be v's router that has just been lost, and a by another.
		if to, ok := r.hops.get(v); ok && (to != 0 || r.table.Lookup(a) == v) {
			return to, true
		}
	}
}
