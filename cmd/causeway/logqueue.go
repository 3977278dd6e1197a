package main

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"causeway/engine/admin"
)

const (
	// logQueueMax bounds the log lines that wait to be written, in bytes. As much
	// again may be in the middle of being written.
	logQueueMax = 1 << 20

	// logFlushMax is how long the end of the process waits for them.
	logFlushMax = time.Second
)

// logQueue is a writer that never waits: who reads the log, a terminal, a pipe, a
// collector, must not hold the loops up that have something to log. Lines beyond
// its bound are lost, counted, and told of.
type logQueue struct {
	to    io.Writer // of its goroutine
	ended chan struct{}
	lost  atomic.Uint64 // lines

	mu      sync.Mutex
	wake    sync.Cond
	lines   []byte // guarded by mu, like all below
	untold  uint64 // lines lost since that was told
	log     *slog.Logger
	closing bool
}

// newLogQueue starts to write to w what is written to the queue.
func newLogQueue(w io.Writer) *logQueue {
	q := &logQueue{to: w, ended: make(chan struct{})}
	q.wake.L = &q.mu
	go q.run()
	return q
}

// Write takes a copy of whole lines, or loses them. It never fails.
func (q *logQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines)+len(p) > logQueueMax {
		q.lost.Add(1)
		q.untold++
		return len(p), nil
	}
	q.lines = append(q.lines, p...)
	q.wake.Signal()
	return len(p), nil
}

// tellBy has lost lines told of in the log itself.
func (q *logQueue) tellBy(log *slog.Logger) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.log = log
}

func (q *logQueue) run() {
	defer close(q.ended)
	var batch []byte
	for {
		q.mu.Lock()
		for len(q.lines) == 0 && !q.closing {
			q.wake.Wait()
		}
		if len(q.lines) == 0 {
			q.mu.Unlock()
			return
		}
		batch, q.lines = q.lines, batch[:0]
		untold, log := q.untold, q.log
		q.untold = 0
		q.mu.Unlock()
		_, _ = q.to.Write(batch) // there is nobody to tell
		if untold > 0 && log != nil {
			log.Warn("log lines were lost: they were not read fast enough", "lines", untold)
		}
	}
}

// close writes what waits, but does not wait for long.
func (q *logQueue) close() {
	q.mu.Lock()
	q.closing = true
	q.wake.Signal()
	q.mu.Unlock()
	select {
	case <-q.ended:
	case <-time.After(logFlushMax):
	}
}

func (q *logQueue) addMetrics(m *admin.Metrics) {
	m.Add(admin.Family{
		Name: "causeway_log_lines_lost_total", Help: "Log lines that were not read fast enough.", Counter: true,
		Read: func() []admin.Sample { return []admin.Sample{{Value: float64(q.lost.Load())}} },
	})
}
