package verify

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"causeway/crypto/sign"
)

// What a worker takes from one ring before it is the next ring's turn. A share
// is bounded in bytes too, since hashing a frame of 1 MiB takes fifty times as
// long as checking a small one. Within these bounds a connection that floods
// costs the others one share each round.
const (
	takeMax      = 8        // frames
	takeBytesMax = 64 << 10 // but one frame always
)

// gatherMax is how many frames a worker checks together, at most: from 64 on a
// shared inversion costs next to nothing, and no verdict should wait for more.
const gatherMax = 64

// lanes is how many signatures the widest path checks at once.
const lanes = 8

// Config of a Pool.
type Config struct {
	// Workers is how many goroutines check signatures; 0: the loops do it
	// themselves, in Submit.
	Workers int
	// CPUs are the cores that workers are pinned to, in turn: worker i to
	// CPUs[i%len(CPUs)]; nil: they are not.
	CPUs []int
	// Path says how Ed25519 signatures are checked; 0: by the fastest way there
	// is.
	Path sign.Path
	// TableMemory is what signers' tables may take, in bytes, at least
	// sign.TablesMemoryMin; 0: TableMemoryDefault. Unused with sign.PathStdlib.
	TableMemory int
	// Observe, if not nil, is called by a worker after each batch: so many
	// frames took so long together.
	Observe func(frames int, took time.Duration)
}

// TableMemoryDefault has room for 3,900 signers.
const TableMemoryDefault = 256 << 20

// Batch collects what one loop has pushed in a turn. The zero Batch is ready.
type Batch struct {
	pushed  []pushed
	checker *checker // when the loops check themselves
}

// pushed is one slot to be checked.
type pushed struct {
	ring *Ring
	slot uint16
}

// Pool checks signatures in worker goroutines. Rings with jobs wait in turn: a
// worker takes a share of the first ring, which then goes to the end, and so on
// while there is work for it; what it has taken it checks together.
type Pool struct {
	// fixed after start
	workers int
	chosen  sign.Path
	observe func(int, time.Duration)
	tables  *sign.Tables
	failed  error
	arena   []byte // of tables; Close gives it back

	wait   sync.WaitGroup // for the workers
	maker  sync.WaitGroup // for who makes tables
	quit   chan struct{}  // closed: make no more
	queued atomic.Int64

	mu     sync.Mutex
	wake   sync.Cond
	rings  ringQueue // that have jobs
	idle   int
	closed bool
}

// NewPool starts c.Workers workers, and one goroutine that makes tables. Close
// ends them. The error says which core a worker cannot be pinned to.
func NewPool(c Config) (*Pool, error) {
	if c.Path == 0 {
		c.Path = sign.BestPath()
	}
	if c.TableMemory == 0 {
		c.TableMemory = TableMemoryDefault
	}
	p := &Pool{workers: c.Workers, chosen: c.Path, observe: c.Observe, quit: make(chan struct{})}
	p.wake.L = &p.mu
	p.newTables(c.TableMemory)
	if err := p.start(c.CPUs); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// start starts the workers, pinned to cores if there are any.
func (p *Pool) start(cores []int) error {
	if len(cores) == 0 {
		for range p.workers {
			p.wait.Go(p.work)
		}
		return nil
	}
	pinned := make(chan error)
	for i := range p.workers {
		p.wait.Go(func() {
			runtime.LockOSThread() // for good: the thread ends with the worker
			err := pin(cores[i%len(cores)])
			pinned <- err
			if err == nil {
				p.work()
			}
		})
	}
	var first error
	for range p.workers {
		if err := <-pinned; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Submit hands b's jobs to the workers, or does them, and empties b.
func (p *Pool) Submit(b *Batch) {
	if len(b.pushed) == 0 {
		return
	}
	if p.workers == 0 {
		p.checkHere(b)
	} else {
		p.hand(b)
	}
	clear(b.pushed)
	b.pushed = b.pushed[:0]
}

func (p *Pool) hand(b *Batch) {
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
}

// checkHere checks b's jobs on the loop.
func (p *Pool) checkHere(b *Batch) {
	if b.checker == nil {
		b.checker = p.newChecker()
	}
	var g gathered
	for len(b.pushed) > 0 {
		n := min(len(b.pushed), gatherMax)
		g.n, g.shares = 0, g.shares[:0]
		for _, j := range b.pushed[:n] {
			g.add(j.ring, &j.ring.slots.at[j.slot])
		}
		clear(b.pushed[:n])
		b.pushed = b.pushed[n:]
		p.run(b.checker, &g)
	}
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
	close(p.quit)
	p.maker.Wait()
	if p.arena != nil {
		freeArena(p.arena)
		p.arena = nil
	}
}

// gathered is what is checked together: shares of rings, one after another.
type gathered struct {
	slots  [gatherMax]*slot
	n      int
	shares []share
}

type share struct {
	ring *Ring
	end  int // in slots
}

func (g *gathered) add(r *Ring, s *slot) {
	g.slots[g.n] = s
	g.n++
	if k := len(g.shares); k > 0 && g.shares[k-1].ring == r {
		g.shares[k-1].end = g.n
		return
	}
	g.shares = append(g.shares, share{r, g.n})
}

func (p *Pool) work() {
	c := p.newChecker()
	g := &gathered{shares: make([]share, 0, gatherMax)}
	for {
		if p.gather(g); g.n == 0 {
			return
		}
		p.run(c, g)
		clear(g.slots[:g.n])
		clear(g.shares)
	}
}

// gather takes shares of the rings whose turn it is, as many as are this
// worker's part of what waits; none when the pool is closed and empty.
func (p *Pool) gather(g *gathered) {
	g.n, g.shares = 0, g.shares[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.rings.empty() {
		if p.closed {
			return
		}
		p.idle++
		p.wake.Wait()
		p.idle--
	}
	part := (int(p.queued.Load()) + p.workers - 1) / p.workers
	part = min(max((part+lanes-1)/lanes*lanes, takeMax), gatherMax)
	for g.n < part && !p.rings.empty() {
		r := p.rings.take()
		most := min(takeMax, part-g.n)
		for n, bytes := 0, 0; n < most && !r.jobs.empty(); n++ {
			s := r.jobs.first()
			if bytes += len(s.frame.B); n > 0 && bytes > takeBytesMax {
				break
			}
			r.jobs.drop()
			g.add(r, s)
		}
		if !r.jobs.empty() {
			p.rings.put(r)
		}
	}
	p.queued.Add(int64(-g.n))
}

// run checks what was gathered and notifies the rings' owners. A ring may be
// popped, and its slots lent to another, as soon as a verdict is stored: a slot
// is not touched after that, only the ring's notify is.
func (p *Pool) run(c *checker, g *gathered) {
	start := time.Now()
	checks := c.check(g.slots[:g.n])
	from := 0
	for _, s := range g.shares {
		for i := from; i < s.end; i++ {
			verdict := Bad
			if checks[i].Good {
				verdict = Good
			}
			g.slots[i].verdict.Store(uint32(verdict))
		}
		from = s.end
		s.ring.notify()
	}
	clear(checks)
	if p.observe != nil {
		p.observe(g.n, time.Since(start))
	}
}

// jobs are the slots of one ring that wait for a worker, in order; guarded by
// Pool.mu.
type jobs struct {
	from       *slots // nil when there are none
	head, tail uint32 // free-running, in from.jobs
}

func (j *jobs) empty() bool     { return j.head == j.tail }
func (j *jobs) first() *slot    { return &j.from.at[j.from.jobs[j.head&j.from.mask]] }
func (j *jobs) put(slot uint16) { j.from.jobs[j.tail&j.from.mask] = slot; j.tail++ }

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
