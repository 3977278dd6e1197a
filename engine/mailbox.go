package engine

import (
	"sync"
	"time"
	"unsafe"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/route"
)

// mailbox is what waits for routing. Bound: of what neighbours have sent,
// mailMaxPart of the cap on memory in all, and mailShare of that of one link;
// but mailSure of each link also when others have filled it, so that a neighbour
// with several links costs no other its own. What loops tell of their own connections is bounded by these. Full: the neighbour
// is left with goodbye "limit".
type mailbox struct {
	// fixed after start
	max    int64         // bytes of messages
	share  int64         // of one link's
	wake   chan struct{} // capacity 1
	budget *buf.Budget

	mu     sync.Mutex
	closed bool // guarded by mu, like all below
	waits  []mail
	bytes  int64                  // of messages, until they are handled
	links  map[route.LinkID]int64 // the same by link
}

// mail is something for routing to do; size is that of a message of a link, in
// bytes of memory.
type mail struct {
	do   func(now time.Time)
	link route.LinkID
	size int64
}

const (
	mailMaxPart = 16
	mailShare   = 4
	mailSure    = 1 << 20 // bytes: more than any one message
	// mailMaxLeast lets a whole list of as many addresses as a router may have come
	// before any of it is handled, whatever the cap on memory is.
	mailMaxLeast = mailShare * 8 << 20

	// mailsKept bounds the memory that is kept for the next mails, in mails.
	mailsKept = 1 << 10
)

// Compile-time: a whole list of the default size fits into one link's share.
var _ [mailMaxLeast/mailShare - route.MaxAddressesDefault*int64(unsafe.Sizeof(codec.Attached{}))]struct{}

func newMailbox(budget *buf.Budget) *mailbox {
	most := max(budget.Limit()/mailMaxPart, mailMaxLeast)
	return &mailbox{
		max: most, share: most / mailShare, budget: budget,
		wake: make(chan struct{}, 1), links: make(map[route.LinkID]int64),
	}
}

// put adds something to do; false: there is no room for a message, or routing
// has ended.
func (m *mailbox) put(what mail) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	mine := m.links[what.link] + what.size
	if m.closed || what.size > 0 && (mine > m.share || m.bytes+what.size > m.max && mine > mailSure) {
		return false
	}
	m.waits = append(m.waits, what)
	if what.size > 0 {
		m.bytes += what.size
		m.links[what.link] += what.size
		m.budget.Use(buf.PartRoutes, what.size)
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns all that waits, and leaves the empty list given in its place.
func (m *mailbox) take(empty []mail) []mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.waits
	if clear(empty[:cap(empty)]); cap(empty) > mailsKept {
		empty = nil
	}
	m.waits = empty[:0]
	return all
}

// handled notes that a mail takes no memory any more.
func (m *mailbox) handled(what mail) {
	if what.size == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes -= what.size
	if m.links[what.link] -= what.size; m.links[what.link] == 0 {
		delete(m.links, what.link)
	}
	m.budget.Use(buf.PartRoutes, -what.size)
}

// close lets nothing more in, and returns what waits.
func (m *mailbox) close() []mail {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	return m.take(nil)
}

// waiting returns how many bytes of messages wait.
func (m *mailbox) waiting() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}

// memoryOf returns what a message about routes takes in memory, in bytes.
func memoryOf(m codec.Control) int64 {
	const message = 256 // the struct and what is around it
	switch m := m.(type) {
	case *codec.RouteUpdate:
		return message + int64(len(m.Routes))*int64(unsafe.Sizeof(codec.Route{}))
	case *codec.SeqnoRequest:
		return message + int64(len(m.Wanted))*int64(unsafe.Sizeof(codec.SeqnoWanted{}))
	case *codec.AddressList:
		return message + int64(len(m.Added))*int64(unsafe.Sizeof(codec.Attached{})) + int64(len(m.Removed))*codec.AddressSize
	case *codec.ListNumbers:
		return message + int64(len(m.Lists))*int64(unsafe.Sizeof(codec.ListNumber{}))
	}
	return message
}
