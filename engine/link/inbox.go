package link

import (
	"sync"
	"unsafe"

	"causeway/engine/buf"
)

// parcel is what one loop sends to another: a frame, or (b == nil) the end of
// a wait.
type parcel struct {
	to   Ref
	b    *buf.Buffer
	tag  uint32 // b's share; or of the wait that ended
	kind Kind   // of b
}

// parcelsKeptMax bounds the memory that an inbox or outbox keeps after a burst,
// in parcels; where memory is scarce, parcelsKeptMin.
const (
	parcelsKeptMax = 1 << 16
	parcelsKeptMin = 1 << 8
)

// inbox is what other goroutines give to a loop. Loops splice into it once per
// turn. Bound: frames in it are part of their destinations' backlogs.
type inbox struct {
	mu      sync.Mutex
	closed  bool // the loop has ended; guarded by mu, like all below
	parcels []parcel
	posts   []func()
}

// put appends parcels, which it copies; false when the loop has ended.
func (in *inbox) put(p ...parcel) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	in.parcels = append(in.parcels, p...)
	return true
}

func (in *inbox) post(fn func()) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	in.posts = append(in.posts, fn)
	return true
}

// takeOnLoop swaps the content with the (empty) slices given.
func (in *inbox) takeOnLoop(parcels []parcel, posts []func()) ([]parcel, []func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	parcels, in.parcels = in.parcels, parcels[:0]
	posts, in.posts = in.posts, posts[:0]
	return parcels, posts
}

// close lets nothing more in.
func (in *inbox) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
}

// emptied returns s with length 0 and without references, or nil when its
// capacity is more than a quiet loop should keep.
func emptied[T any](l *Loop, s []T) []T {
	clear(s)
	if kept := cap(s); kept > parcelsKeptMax || kept > parcelsKeptMin && l.account.Scarce() {
		return nil
	}
	return s[:0]
}

// countLists tells the account what the lists of parcels take. The inbox has
// swapped its list with l.parcels, and may have it as long again.
func (l *Loop) countLists() {
	n := 2*cap(l.parcels) + cap(l.dead) + cap(l.spareDead)
	for _, parcels := range l.outbox {
		n += cap(parcels)
	}
	if bytes := int64(n) * int64(unsafe.Sizeof(parcel{})); bytes != l.listBytes {
		l.account.Use(buf.PartLists, bytes-l.listBytes)
		l.listBytes = bytes
	}
}

// takeInbox handles what others sent since the last turn: frames first, then
// functions.
func (l *Loop) takeInbox() {
	l.parcels, l.posts = l.inbox.takeOnLoop(l.parcels, l.posts)
	for _, p := range l.parcels {
		if p.b == nil {
			l.endWait(p.to, p.tag)
		} else {
			l.deliver(p)
		}
	}
	l.parcels = emptied(l, l.parcels)
	for _, fn := range l.posts {
		fn()
	}
	l.posts = emptied(l, l.posts)
}

// deliver ends the journey of a frame from another goroutine. It is in its
// slot's backlog already.
func (l *Loop) deliver(p parcel) {
	if c := l.Conn(p.to); c != nil && c.takes(p.b, p.kind) {
		c.enqueue(p.b, p.kind, share(p.tag))
		return
	}
	l.account.Use(buf.PartQueues, -buf.SizeOf(p.b))
	if s := l.slots.get(p.to.slot()); s != nil {
		s.discharge(share(p.tag), p.b)
		l.release(s, len(p.b.B))
	}
	l.dead = append(l.dead, p)
}

// spliceOutboxes hands over what this loop has for others.
func (l *Loop) spliceOutboxes() {
	for i, parcels := range l.outbox {
		if len(parcels) == 0 {
			continue
		}
		dst := l.engine.loops[i]
		if dst.inbox.put(parcels...) {
			dst.wake()
		} else { // that loop has ended: what was for it is undeliverable
			for _, p := range parcels {
				if p.b != nil {
					l.uncharge(p)
					l.dead = append(l.dead, p)
				}
			}
		}
		l.outbox[i] = emptied(l, parcels)
	}
	l.countLists()
}
