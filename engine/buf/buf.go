package buf

import (
	"math/bits"
	"sync/atomic"

	"github.com/valyala/bytebufferpool"
)

// Size classes: powers of two from 256 B to 32 MiB. A whole frame with the
// largest body (16 MiB) and the largest signature fits the last one.
const (
	classMinBits = 8
	classMaxBits = 25
	classes      = classMaxBits - classMinBits + 1

	// SizeMax is the largest size that Get takes, in bytes.
	SizeMax = 1 << classMaxBits
)

// Buffer holds one frame in B. Who has a Buffer owns it: either hand it on, or
// end with Put. B may be re-sliced from its start (B[:n]) but must not be
// replaced by other memory.
type Buffer = bytebufferpool.ByteBuffer

// class is one size's pool. bytebufferpool drops what is larger than the
// 95th percentile of the lengths it is given back, and Put always gives back
// full capacity, so within one class nothing is ever dropped.
type class struct {
	pool bytebufferpool.Pool
	_    [64]byte
	out  atomic.Int64 // buffers handed out and not put back
	_    [56]byte
}

var pools [classes]class

// classOf returns the smallest class that holds n bytes.
func classOf(n int) int {
	if n <= 1<<classMinBits {
		return 0
	}
	return bits.Len(uint(n-1)) - classMinBits
}

// Capacity returns the capacity of what Get(n) returns, in bytes.
func Capacity(n int) int { return 1 << (classOf(n) + classMinBits) }

// Get returns a Buffer with len(B) == n; its content is undefined. The caller
// owns it. It panics when n is negative or above SizeMax: whoever cuts frames
// has checked the length before.
func Get(n int) *Buffer {
	if n < 0 || n > SizeMax {
		panic("buf: Get: size outside 0..SizeMax")
	}
	c := classOf(n)
	b := pools[c].pool.Get()
	if size := 1 << (c + classMinBits); cap(b.B) != size {
		b.B = make([]byte, size)
	}
	b.B = b.B[:n]
	pools[c].out.Add(1)
	debugGet(b)
	return b
}

// Put ends b's life: takes it. Nothing may refer to its memory afterwards.
func Put(b *Buffer) {
	c := classOf(cap(b.B))
	if cap(b.B) != 1<<(c+classMinBits) {
		panic("buf: Put: memory that Get did not hand out")
	}
	b.B = b.B[:cap(b.B)]
	debugPut(b)
	pools[c].out.Add(-1)
	pools[c].pool.Put(b)
}

// Grow returns a Buffer with len(B) == n that begins with b's content, and
// takes b. It returns b itself when its capacity suffices.
func Grow(b *Buffer, n int) *Buffer {
	if n <= cap(b.B) {
		b.B = b.B[:n]
		return b
	}
	g := Get(n)
	copy(g.B, b.B)
	Put(b)
	return g
}

// Usage is what is handed out at one moment.
type Usage struct {
	Buffers int64 // handed out and not put back
	Bytes   int64 // their capacity
}

// Out returns what is handed out now. The classes are read one after another,
// so under traffic the sums are near, not exact; in a quiet process they are
// exact.
func Out() (u Usage) {
	for c := range pools {
		n := pools[c].out.Load()
		u.Buffers += n
		u.Bytes += n << (c + classMinBits)
	}
	return u
}
