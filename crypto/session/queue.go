package session

// queue is first in, first out. When it is empty it keeps memory for at most
// queueKeep items.
type queue[T any] struct {
	items []T // from head on
	head  int
}

const queueKeep = 64 // items

func (q *queue[T]) len() int { return len(q.items) - q.head }

// front is the oldest of at least one.
func (q *queue[T]) front() *T { return &q.items[q.head] }

func (q *queue[T]) push(item T) {
	if q.head > len(q.items)/2 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, item)
}

// pop drops the oldest of at least one.
func (q *queue[T]) pop() {
	var none T
	q.items[q.head] = none
	q.head++
	if q.head < len(q.items) {
		return
	}
	q.items, q.head = q.items[:0], 0
	if cap(q.items) > queueKeep {
		q.items = nil
	}
}
