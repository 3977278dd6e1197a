package verify

import (
	"sync"
	"sync/atomic"
	"time"
)

// takeMax is how many jobs a worker takes at once. Small, because one check
// costs tens of microseconds and the jobs behind it wait: eight keep the lock
// below a hundredth of the time and a lone sender's frames on several workers.
const takeMax = 8

// Config of a Pool.
type Config struct {
	// Workers is how many goroutines check signatures; 0: the loops do it
	// themselves, in Push.
	Workers int
	// Observe, if not nil, is called by a worker after each batch: so many
	// frames took so long together.
	Observe func(frames int, took time.Duration)
}

type job struct {
	slot *slot
	ring *Ring
}

// Batch collects the jobs of one loop's turn. The zero Batch is ready.
type Batch struct{ jobs []job }

// Pool checks signatures in worker goroutines.
type Pool struct {
	workers int
	observe func(int, time.Duration)
	wait    sync.WaitGroup
	queued  atomic.Int64

	mu     sync.Mutex
	wake   sync.Cond
	queue  []job // jobs [first:]
	first  int
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
	if len(b.jobs) == 0 {
		return
	}
	p.mu.Lock()
	p.queue = append(p.queue, b.jobs...)
	wake := min(p.idle, (len(b.jobs)+takeMax-1)/takeMax)
	p.mu.Unlock()
	p.queued.Add(int64(len(b.jobs)))
	for range wake {
		p.wake.Signal()
	}
	clear(b.jobs)
	b.jobs = b.jobs[:0]
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
	var jobs [takeMax]job
	for {
		n := p.take(jobs[:])
		if n == 0 {
			return
		}
		p.run(jobs[:n])
		clear(jobs[:n])
	}
}

// take fills jobs with the oldest ones, a fair share of what waits, and returns
// how many; 0 when the pool is closed and empty.
func (p *Pool) take(jobs []job) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.first == len(p.queue) {
		if p.closed {
			return 0
		}
		p.idle++
		p.wake.Wait()
		p.idle--
	}
	waiting := len(p.queue) - p.first
	n := copy(jobs[:min(len(jobs), (waiting+p.workers-1)/p.workers)], p.queue[p.first:])
	p.first += n
	if p.first == len(p.queue) {
		p.queue, p.first = p.queue[:0], 0
	} else if p.first > len(p.queue)/2 {
		p.queue = p.queue[:copy(p.queue, p.queue[p.first:])]
		p.first = 0
	}
	p.queued.Add(int64(-n))
	return n
}

// run checks jobs and notifies each ring once per run of its jobs. A ring may be
// popped, and its slots lent to another, as soon as the verdict is stored: the
// slot is not touched after that, only ring.notify is.
func (p *Pool) run(jobs []job) {
	start := time.Now()
	for i, j := range jobs {
		j.slot.verdict.Store(uint32(check(j.slot)))
		if i+1 == len(jobs) || jobs[i+1].ring != j.ring {
			j.ring.notify()
		}
	}
	if p.observe != nil {
		p.observe(len(jobs), time.Since(start))
	}
}
