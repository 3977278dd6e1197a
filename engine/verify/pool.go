package verify

import (
	"sync"
	"sync/atomic"
	"time"
)

// What a worker takes from one ring before it is the next ring's turn. A share
// is bounded in bytes too, since hashing a frame of 1 MiB takes fifty times as
// long as checking a small one. Within these bounds a connection that floods
// costs the others one share each round.
const (
	takeMax      = 8        // frames
	takeBytesMax = 64 << 10 // but one frame always
)

// Config of a Pool.
type Config struct {
	// Workers is how many goroutines check signatures; 0: the loops do it
	// themselves, in Push.
	Workers int
	// Observe, if not nil, is called by a worker after each batch: so many
	// frames took so long together.
	Observe func(frames int, took time.Duration)
}

// Batch collects what one loop has pushed in a turn. The zero Batch is ready.
type Batch struct{ pushed []pushed }

// pushed is one slot to be checked.
type pushed struct {
	ring *Ring
	slot uint8
}

// Pool checks signatures in worker goroutines. Rings with jobs wait in turn: a
// worker takes a share of the first ring, which then goes to the end.
type Pool struct {
	workers int
	observe func(int, time.Duration)
	wait    sync.WaitGroup
	queued  atomic.Int64

	mu     sync.Mutex
	wake   sync.Cond
	rings  ringQueue // that have jobs
	idle   int
	closed bool
}

// NewPool starts c.Workers workers. Close ends them.
func NewPool(c Config) *Pool {
	p := &Pool{workers: c.Workers, observe: c.Observe}
	p.wake.L = &p.mu
	for range c.Workers {
		p.wait.Go(p.work)
	}
	return p
}

// Submit hands b's jobs to the workers and empties b.
func (p *Pool) Submit(b *Batch) {
	if len(b.pushed) == 0 {
		return
	}
	p.queued.Add(int64(len(b.pushed)))
	p.mu.Lock()
	for _, j := range b.pushed {
		r := j.ring
		if r.jobs.empty() {
			p.rings.put(r)
		}
		r.jobs.from = r.slots // stays while a frame is in the ring
		r.jobs.put(j.slot)
	}
	wake := min(p.idle, (len(b.pushed)+takeMax-1)/takeMax)
	p.mu.Unlock()
	for range wake {
		p.wake.Signal()
	}
	clear(b.pushed)
	b.pushed = b.pushed[:0]
}

// Queued returns how many frames wait for a worker.
func (p *Pool) Queued() int { return int(max(p.queued.Load(), 0)) }

// Close lets the workers finish what is queued and waits for them. Nothing may
// be submitted afterwards.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.wake.Broadcast()
	p.wait.Wait()
}

func (p *Pool) work() {
	var share [takeMax]*slot
	for {
		r, n := p.take(&share)
		if n == 0 {
			return
		}
		p.run(r, share[:n])
		clear(share[:n])
	}
}

// take takes a share of the ring whose turn it is; 0 when the pool is closed
// and empty.
func (p *Pool) take(share *[takeMax]*slot) (r *Ring, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.rings.empty() {
		if p.closed {
			return nil, 0
		}
		p.idle++
		p.wake.Wait()
		p.idle--
	}
	r = p.rings.take()
	for bytes := 0; n < takeMax && !r.jobs.empty(); n++ {
		s := &r.jobs.from[r.jobs.first()]
		if bytes += len(s.frame.B); n > 0 && bytes > takeBytesMax {
			break
		}
		r.jobs.drop()
		share[n] = s
	}
	if !r.jobs.empty() {
		p.rings.put(r)
	}
	p.queued.Add(int64(-n))
	return r, n
}

// run checks a share and notifies the ring's owner. The ring may be popped, and
// its slots lent to another, as soon as a verdict is stored: a slot is not
// touched after that, only r.notify is.
func (p *Pool) run(r *Ring, share []*slot) {
	start := time.Now()
	for _, s := range share {
		s.verdict.Store(uint32(check(s)))
	}
	r.notify()
	if p.observe != nil {
		p.observe(len(share), time.Since(start))
	}
}

// jobs are the slots of one ring that wait for a worker, in order; guarded by
// Pool.mu.
type jobs struct {
	from       *slots
	slots      [RingSize]uint8
	head, tail uint32 // free-running
}

func (j *jobs) empty() bool    { return j.head == j.tail }
func (j *jobs) first() uint8   { return j.slots[j.head&ringMask] }
func (j *jobs) put(slot uint8) { j.slots[j.tail&ringMask] = slot; j.tail++ }

func (j *jobs) drop() {
	if j.head++; j.head == j.tail {
		j.from = nil
	}
}

// ringQueue is a first-in-first-out queue of rings, linked through them: each
// is in it at most once.
type ringQueue struct{ head, tail *Ring }

func (q *ringQueue) empty() bool { return q.head == nil }

func (q *ringQueue) put(r *Ring) {
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
}

func (q *ringQueue) take() *Ring {
	r := q.head
	q.head, r.next = r.next, nil
	if q.head == nil {
		q.tail = nil
	}
	return r
}
