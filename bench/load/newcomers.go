package main

import (
	"slices"
	"sync"
	"time"
)

const (
	newcomersNetwork = 2 // newcomers have addresses in 127.2/16
	newcomersSources = 16
)

// newcomersRequest has nodes connect, one after another, each from the
// beginning: TCP, TLS, and a hello that the router answers.
type newcomersRequest struct {
	Addr  string
	Every time.Duration // between two
}

// newcomersStatus is how long they took.
type newcomersStatus struct {
	Took   []time.Duration // of those that got in
	Failed int
	Last   string        // why the last one failed
	Trying time.Duration // for how long the one has been that is at it
}

// most returns the longest time, one that has not ended yet included.
func (s *newcomersStatus) most() time.Duration {
	return max(s.Trying, slices.Max(append(s.Took, 0)))
}

// newcomers at work.
type newcomers struct {
	*life
	mu    sync.Mutex
	so    newcomersStatus
	since time.Time // the one that is at it began; zero: none is
}

func (c *crowd) newcomers(r *newcomersRequest) work {
	w := &newcomers{life: newLife()}
	w.all.Go(func() {
		for n := 0; w.sleep(r.Every); n++ {
			w.begin()
			w.done(c.comeNew(w.life, r.Addr, n))
		}
	})
	return w
}

// comeNew connects once.
func (c *crowd) comeNew(l *life, addr string, n int) error {
	raw, release, err := l.dial(addr, source(newcomersNetwork, n, newcomersSources))
	if err != nil {
		return err
	}
	defer release()
	_, err = join(l.ctx, raw, c.members[n%len(c.members)], c.roots, c.setup.Router)
	return err
}

func (w *newcomers) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
}

func (w *newcomers) done(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	took := time.Since(w.since)
	w.since = time.Time{}
	switch {
	case err == nil:
		w.so.Took = append(w.so.Took, took)
	case w.ctx.Err() == nil:
		w.so.Failed, w.so.Last = w.so.Failed+1, err.Error()
	}
}

func (w *newcomers) status(s *crowdStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Newcomers = w.so
	s.Newcomers.Took = slices.Clone(w.so.Took)
	if !w.since.IsZero() {
		s.Newcomers.Trying = time.Since(w.since)
	}
}
