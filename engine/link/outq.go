package link

import (
	"iter"
	"math"
	"unsafe"

	"causeway/engine/buf"
)

// segmentLen is how many items a queue's segment holds: an idle connection has
// no segment, one with a single frame waiting has one of 768 bytes. With 31 the
// segments of both kinds just fit a size class of Go's allocator.
const segmentLen = 31

// A loop keeps at most segmentsKeptMax spare segments of one kind, and
// segmentsKeptMin when memory is scarce.
const (
	segmentsKeptMax = 1 << 12
	segmentsKeptMin = 1 << 6
)

// segment is a piece of a queue.
type segment[T any] struct {
	items [segmentLen]T
	next  *segment[T]
}

// segments are a loop's spare ones.
type segments[T any] struct {
	first   *segment[T]
	n       int
	account *buf.Account // counts all, spare or not; nil: nobody does
}

func (s *segments[T]) get() *segment[T] {
	g := s.first
	if g == nil {
		g = new(segment[T])
		s.account.Use(buf.PartLists, int64(unsafe.Sizeof(*g)))
		return g
	}
	s.first, g.next = g.next, nil
	s.n--
	return g
}

func (s *segments[T]) put(g *segment[T]) {
	if s.n >= segmentsKeptMax || s.n >= segmentsKeptMin && s.account.Scarce() {
		s.account.Use(buf.PartLists, -int64(unsafe.Sizeof(*g)))
		return
	}
	g.next = s.first
	s.first = g
	s.n++
}

// shed gives back all but a few spare segments while memory is scarce.
func (s *segments[T]) shed() {
	for s.n > segmentsKeptMin && s.account.Scarce() {
		s.account.Use(buf.PartLists, -int64(unsafe.Sizeof(*s.first)))
		s.first = s.first.next
		s.n--
	}
}

// fifo is a queue that allocates nothing once the loop has spare segments, and
// holds no memory while it is empty. Its users bound it.
type fifo[T any] struct {
	head, tail *segment[T]
	read       int // index in head of the first item
	write      int // index in tail of the first free place
}

func (f *fifo[T]) empty() bool { return f.head == nil }

// push appends an item and returns its place.
func (f *fifo[T]) push(spare *segments[T], item T) {
	switch {
	case f.head == nil:
		g := spare.get()
		f.head, f.tail, f.read, f.write = g, g, 0, 0
	case f.write == segmentLen:
		g := spare.get()
		f.tail.next, f.tail, f.write = g, g, 0
	}
	f.tail.items[f.write] = item
	f.write++
}

// front returns the first item's place; the queue must not be empty.
func (f *fifo[T]) front() *T { return &f.head.items[f.read] }

// all goes through the items, from the first on, which stay.
func (f *fifo[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for g, i := f.head, f.read; g != nil; g, i = g.next, 0 {
			end := segmentLen
			if g == f.tail {
				end = f.write
			}
			for ; i < end; i++ {
				if !yield(g.items[i]) {
					return
				}
			}
		}
	}
}

// pop removes the first item.
func (f *fifo[T]) pop(spare *segments[T]) (item T) {
	var zero T
	g := f.head
	item, g.items[f.read] = g.items[f.read], zero
	f.read++
	switch {
	case g == f.tail && f.read == f.write:
		*f = fifo[T]{}
		spare.put(g)
	case f.read == segmentLen:
		f.head, f.read = g.next, 0
		spare.put(g)
	}
	return item
}

// queued is a frame that waits for its connection.
type queued struct {
	b     *buf.Buffer
	at    int64 // when it was queued, as Loop.elapsedNow
	share share // of who sent it
	own   bool
}

// mark is one TLS record on its way to the kernel.
type mark struct {
	end    uint64 // of its last byte in the connection's ciphertext
	at     int64  // when its oldest frame was queued
	bytes  int32  // of frames in it
	frames int32  // whose last byte is in it
	own    int32  // of these
}

// enqueue takes b, which is in c's slot's backlog already.
func (c *Conn) enqueue(b *buf.Buffer, kind Kind, of share) {
	l := c.loop
	to := &c.queue
	switch kind {
	case OwnAhead:
		to = &c.ahead
		c.aheadN += len(b.B)
	case OwnLast:
		c.lastQueued = true
	}
	to.push(&l.spareQueued, queued{b, l.elapsedNow, of, kind != Forwarded})
	if c.unsealed += len(b.B); c.unsealed >= hotMin && !c.hot {
		c.hot = true
		l.hot = append(l.hot, c)
	}
	if c.oldest.Load() == 0 {
		c.oldest.Store(l.elapsedNow)
	}
	c.markDirty()
}

// queuesEmpty tells whether no frame waits to be sealed.
func (c *Conn) queuesEmpty() bool { return c.queue.empty() && c.ahead.empty() }

// nextQueue returns the queue whose first frame is sealed next: one that is
// sealed in part is finished first, then the frames go that go ahead. Not both
// queues may be empty.
func (c *Conn) nextQueue() *fifo[queued] {
	switch {
	case c.sealed > 0:
		return c.sealing
	case !c.ahead.empty():
		return &c.ahead
	}
	return &c.queue
}

// markDirty lets the next flush look at c.
func (c *Conn) markDirty() {
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
		c.loop.arm()
	}
}

// noteOldest recomputes when the oldest frame was queued.
func (c *Conn) noteOldest() {
	at := int64(math.MaxInt64)
	if !c.marks.empty() {
		at = c.marks.front().at
	}
	for _, q := range []*fifo[queued]{&c.ahead, &c.queue} {
		if !q.empty() {
			at = min(at, q.front().at)
		}
	}
	if at == math.MaxInt64 {
		at = 0
	}
	if c.oldest.Load() != at {
		c.oldest.Store(at)
	}
}
