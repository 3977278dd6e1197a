package node

import (
	"context"
	"sync"

	"causeway/codec"
)

// messageOverhead is charged for each waiting message besides its body, in
// bytes, so that empty messages are bounded too.
const messageOverhead = 256

// Message is a verified message as Receive returns it.
type Message struct {
	From, To codec.Address
	FromName string // the sender's name in the domain, from its certificate
	Category codec.Category
	SendTime uint64 // by the sender's clock, nanoseconds since the Unix epoch
	Digest   codec.Digest
	Sealed   bool   // by its sender, so that no router could read it
	Body     []byte // the receiver's own

	member *member // of a sealed message that waits: whose charge it is
	charge int     // of that, in bytes
}

// deliveries is the queue between the connection's reader and Receive.
//
// Bound: of plain messages perSenderMax bytes for each sender, max bytes in all; of
// sealed ones their senders' credit, and sealedMax in all. When full: it does not
// fit, and the caller drops with dropQueueFull and a notice.
type deliveries struct {
	perSenderMax, max, sealedMax int

	mu        sync.Mutex
	waiting   []Message // from head on
	head      int
	bytes     int                   // of plain ones
	sealed    int                   // bytes, charged
	perSender map[codec.Address]int // bytes; no zero entries
	ended     error                 // what Receive returns once nothing waits

	wake chan struct{} // capacity 1: something waits, or ended is set
}

func newDeliveries(perSenderMax, max int) *deliveries {
	return &deliveries{
		perSenderMax: perSenderMax, max: max,
		perSender: make(map[codec.Address]int),
		wake:      make(chan struct{}, 1),
	}
}

// fits reports whether a body of so many bytes from the sender would be taken
// now. As long as there is one caller of put, that is a promise.
func (q *deliveries) fits(from codec.Address, bodySize int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	charge := bodySize + messageOverhead
	return q.ended == nil && q.perSender[from]+charge <= q.perSenderMax && q.bytes+charge <= q.max
}

// fitsSealed is fits for a sealed message with that charge.
func (q *deliveries) fitsSealed(charge int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended == nil && q.sealed+charge <= q.sealedMax
}

// chargeLocked charges a message, or with sign -1 gives that back.
func (q *deliveries) chargeLocked(m *Message, sign int) {
	if m.Sealed {
		q.sealed += sign * m.charge
		return
	}
	charge := sign * (len(m.Body) + messageOverhead)
	q.bytes += charge
	if q.perSender[m.From] += charge; q.perSender[m.From] == 0 {
		delete(q.perSender, m.From)
	}
}

// put takes a message that fits.
func (q *deliveries) put(m Message) {
	q.mu.Lock()
	if q.head == len(q.waiting) {
		q.waiting, q.head = q.waiting[:0], 0
	} else if q.head > len(q.waiting)/2 && len(q.waiting) == cap(q.waiting) {
		n := copy(q.waiting, q.waiting[q.head:])
		clear(q.waiting[n:])
		q.waiting, q.head = q.waiting[:n], 0
	}
	q.waiting = append(q.waiting, m)
	q.chargeLocked(&m, 1)
	q.mu.Unlock()
	q.signal()
}

// take returns the oldest message; ctx or end can end the wait.
func (q *deliveries) take(ctx context.Context) (Message, error) {
	for {
		if m, ok, err := q.tryTake(); ok || err != nil {
			return m, err
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

func (q *deliveries) tryTake() (m Message, ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.waiting) {
		if q.ended != nil {
			q.signal() // pass it on: others may be waiting
		}
		return Message{}, false, q.ended
	}
	m = q.waiting[q.head]
	q.waiting[q.head] = Message{}
	q.head++
	q.chargeLocked(&m, -1)
	if q.head < len(q.waiting) || q.ended != nil {
		q.signal()
	}
	return m, true, nil
}

// end makes take fail with err once nothing waits any more.
func (q *deliveries) end(err error) {
	q.mu.Lock()
	if q.ended == nil {
		q.ended = err
	}
	q.mu.Unlock()
	q.signal()
}

func (q *deliveries) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// size returns what waits: messages and charged bytes.
func (q *deliveries) size() (messages, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) - q.head, q.bytes + q.sealed
}
