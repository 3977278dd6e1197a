package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/engine/admin"
	"causeway/engine/link"
)

// The end of a router (PROTOCOL.md section 5.3):
//
//  1. yield        other routers go around this one where they can, and by it
//     where they can not; nodes that are attached here are reached as before
//  2. askToLeave   every node is told goodbye with the time that is left and the
//     routers that it may use; where it attaches next travels by the links, and
//     frames that still come for it follow, or wait until that is known. Without
//     links nothing waits any more for who may come back
//  3. goodbye      a peer's goodbye ends its connection when what is queued for
//     it has gone; until then its frames are taken and frames go to it
//  4. askLinks     when the nodes have gone, and other routers have had time for
//     1, or little time is left: neighbours are told goodbye. They use the link
//     no more, send what they have for it, and answer; then it ends like that of
//     a node
//  5. stopReading  a moment before the time is over: what is queued is written,
//     and nothing is added
//  6. closeSlow    who has not read that by half of the moment is closed, so that
//     the senders of it, who are still there, can be told
//  7. lastCall     who has not answered is told goodbye for good
//
// It is over when the last connection is gone, or the time.
const (
	// drainDefault is the time for a Close without a deadline.
	drainDefault = 10 * time.Second

	// The moment before the end: a share of the whole, and no more than lastMax.
	lastShare = 10
	lastMax   = 500 * time.Millisecond

	asksPerTurn = 64 // goodbyes are signed: about 3 ms

	// Neighbours are left this share of the time, and no more than linksMax: about
	// what it takes to hear a goodbye, to have sent the rest, and to answer.
	linksShare = 3
	linksMax   = 3 * time.Second

	// yieldTime is what other routers get to go around this one before it leaves its
	// links: some batches of updates, and a seqno request and its answer.
	yieldTime  = 500 * time.Millisecond
	yieldShare = 4 // of the time, at most
)

// drainEnd is how the drain of a connection has ended. Its String is the label
// "end" of causeway_drain_ends_total.
type drainEnd uint8

const (
	drainClosed   drainEnd = iota // the peer closed without a goodbye
	drainAnswered                 // it said goodbye
	drainEnded                    // this router ended it for another reason
	drainLate                     // it had not answered at the last call, or did not read
	drainEnds
)

var drainEndNames = [drainEnds]string{drainClosed: "closed", drainAnswered: "answered", drainEnded: "ended", drainLate: "late"}

func (e drainEnd) String() string { return drainEndNames[e] }

// drain is the router's end.
type drain struct {
	// set before loops are told
	others []string // URLs for the peers
	readBy time.Time

	// Close's
	began                      time.Time
	late                       bool // the last call was needed
	lostBefore, lostBeforeLast uint64
	unnoticedBefore            uint64

	// any goroutine
	started atomic.Bool
	open    atomic.Int64  // peers from the start of the router on, until over
	nodes   atomic.Int64  // of these
	empty   chan struct{} // capacity 1: one of them was 0
}

// opened and closed count a peer. They run on its loop.
func (d *drain) opened(p *peer) {
	d.open.Add(1)
	if p.far == nil {
		d.nodes.Add(1)
	}
}

func (d *drain) closed(p *peer) {
	gone := d.open.Add(-1) == 0
	if p.far == nil {
		gone = d.nodes.Add(-1) == 0 || gone
	}
	if gone {
		select {
		case d.empty <- struct{}{}:
		default:
		}
	}
}

// wait waits until there are none of the peers that are counted, or until then.
func (d *drain) wait(ctx context.Context, peers *atomic.Int64, until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for peers.Load() > 0 {
		select {
		case <-d.empty:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// drain has all peers leave until ctx, which has a deadline, is about to end.
func (r *Router) drain(ctx context.Context) {
	d, began := &r.drains, time.Now()
	by, _ := ctx.Deadline()
	left := max(by.Sub(began), 0)
	last := min(left/lastShare, lastMax)
	d.readBy = by.Add(-last)
	if ctx.Err() != nil {
		d.readBy = began
	}
	d.began, d.lostBefore, d.unnoticedBefore = began, r.lost(), r.unnoticed()
	d.started.Store(true)
	r.log.Info("draining", "peers", d.open.Load(), "time", left.Round(time.Millisecond), "others", d.others)
	r.routing.yield()
	r.onLoops((*loop).beginDrain)
	d.wait(ctx, &d.nodes, d.readBy.Add(-min(left/linksShare, linksMax)))
	if d.open.Load() > 0 && r.routing.links.Load() > 0 {
		d.wait(ctx, &d.open, began.Add(min(left/yieldShare, yieldTime)))
	}
	r.onLoops((*loop).askLinks)
	d.wait(ctx, &d.open, d.readBy)
	if d.open.Load() > 0 {
		d.late, d.lostBeforeLast = true, r.lost()
		r.onLoops((*loop).stopReading)
		d.wait(ctx, &d.open, d.readBy.Add(last/2))
		r.onLoops((*loop).closeSlow)
		r.onLoops(func(*loop) {}) // a turn later the notices about that are in their queues
		r.onLoops((*loop).lastCall)
	}
}

// drained tells how it went: the error says that frames were not handed over.
// What was lost with a peer that left by itself is no error.
func (r *Router) drained() error {
	d, ends, lost := &r.drains, r.drainEnds(), r.lost()
	log := r.log.Info
	if d.late {
		log = r.log.Warn
	}
	log("drained", "took", time.Since(d.began).Round(time.Millisecond), "answered", ends[drainAnswered], "closed", ends[drainClosed],
		"ended", ends[drainEnded], "late", ends[drainLate], "frames_not_handed_over", lost-d.lostBefore, "frames_unnoticed", r.unnoticed()-d.unnoticedBefore)
	if n := lost - d.lostBeforeLast; d.late && n > 0 {
		return fmt.Errorf("engine: %d frames could not be handed over in time: %w", n, context.DeadlineExceeded)
	}
	return nil
}

// lost returns how many frames went down with their recipient's connection, or
// with this router.
func (r *Router) lost() (n uint64) {
	for _, l := range r.loops {
		n += l.count.dropped[dropRecipientGone].Load() + l.count.dropped[dropShutdown].Load()
	}
	return n
}

// unnoticed returns how many frames were dropped whose senders could not be told.
func (r *Router) unnoticed() (n uint64) {
	for _, l := range r.loops {
		n += l.count.unnoticed.Load()
	}
	return n
}

func (r *Router) drainEnds() (all [drainEnds]uint64) {
	for _, l := range r.loops {
		for end := range all {
			all[end] += l.count.drained[end].Load()
		}
	}
	return all
}

// onLoops runs fn on every loop and waits until all have.
func (r *Router) onLoops(fn func(*loop)) {
	var running sync.WaitGroup
	for _, l := range r.loops {
		running.Add(1)
		if !l.link.Post(func() { defer running.Done(); fn(l) }) {
			running.Done()
		}
	}
	running.Wait()
}

// beginDrain asks all nodes to leave, some per turn.
func (l *loop) beginDrain() {
	l.draining = true
	l.settleRooms(l.link.Now())
	l.askAll()
}

// askLinks asks the neighbours, too.
func (l *loop) askLinks() {
	l.leavesLinks = true
	l.askAll()
}

func (l *loop) askAll() {
	var refs []link.Ref
	l.link.Range(func(c *link.Conn) { refs = append(refs, c.Ref()) })
	l.askSome(refs)
}

func (l *loop) askSome(refs []link.Ref) {
	n := min(len(refs), asksPerTurn)
	for _, ref := range refs[:n] {
		if c := l.link.Conn(ref); c != nil {
			peerOf(c).askToLeave()
		}
	}
	if refs = refs[n:]; len(refs) > 0 {
		l.link.Post(func() { l.askSome(refs) })
	}
}

// askLater is askToLeave for a connection that is just being opened.
func (l *loop) askLater(ref link.Ref) {
	l.link.Post(func() { l.askSome([]link.Ref{ref}) })
}

// askToLeave tells the peer that this router stops, and to say goodbye when it
// is ready. One without a hello, or without time, is left at once.
func (p *peer) askToLeave() {
	left := p.router.drains.readBy.Sub(p.loop.link.Now()).Truncate(time.Millisecond)
	switch {
	case p.phase == phaseHello || p.phase == phaseOpen && left <= 0:
		p.leaveDraining()
		return
	case p.phase != phaseOpen || p.far != nil && !p.loop.leavesLinks:
		return
	}
	p.phase, p.askedToLeave = phaseDraining, true
	p.loop.count.askedToLeave.Add(1)
	p.say(&codec.Goodbye{Reason: codec.GoodbyeDraining, Text: drainText, Routers: p.otherRouters(), ReadFor: left, Received: p.decidedAhead()})
}

const drainText = "this router stops"

// leaveDraining leaves the peer for good, since this router stops.
func (p *peer) leaveDraining() {
	if end := drainLate; p.phase < phaseLeaving {
		if p.phase == phaseParting {
			end = drainAnswered
		}
		p.leave(codec.GoodbyeDraining, drainText)
		p.drained = end
	}
}

// otherRouters returns the URLs for one peer. Each peer gets another one first,
// so that not all go to one router.
func (p *peer) otherRouters() []string {
	others := p.router.drains.others
	if len(others) < 2 {
		return others
	}
	first := int(p.loop.count.askedToLeave.Load()) % len(others)
	return slices.Concat(others[first:], others[:first])
}

// stopReading reads nothing more from who has not answered.
func (l *loop) stopReading() {
	l.last = true
	l.settleRooms(l.link.Now())
	l.link.Range(func(c *link.Conn) {
		if peerOf(c).isOpen() {
			c.PauseOnLoop()
		}
	})
}

// closeSlow closes the connections that have still something to write of before
// stopReading.
func (l *loop) closeSlow() {
	readBy := l.router.drains.readBy
	l.link.Range(func(c *link.Conn) {
		if oldest := c.OldestQueued(); !oldest.IsZero() && oldest.Before(readBy) {
			p := peerOf(c)
			p.leaveDraining()
			p.drained = drainLate // though it may have answered
			c.CloseOnLoop(&leftError{codec.GoodbyeDraining})
		}
	})
}

// lastCall leaves who has not answered.
func (l *loop) lastCall() {
	l.link.Range(func(c *link.Conn) { peerOf(c).leaveDraining() })
}

// linkGoodbye ends a link whose neighbour has said goodbye. One that stops is left
// without loss: frames of it are taken until all that is for it has gone.
func (p *peer) linkGoodbye(g *codec.Goodbye) {
	if g.Reason != codec.GoodbyeDraining || g.ReadFor == 0 || !p.isOpen() {
		p.goodbye(g)
	} else if p.cover(g.Received) {
		p.retire("the router there stops")
	}
}

// lateAnswer notes the answer of a peer that has closed its connection before
// the signature of its goodbye, f, was checked.
func (p *peer) lateAnswer(f codec.Raw) {
	if !p.askedToLeave || p.phase != phaseClosed || p.drained != drainClosed {
		return
	}
	if m, err := codec.DecodeControl(f.Body()); err == nil {
		if _, ok := m.(*codec.Goodbye); ok {
			p.drained = drainAnswered
		}
	}
}

// over notes that the peer is gone and all that it had sent is decided on. The
// first call counts.
func (p *peer) over() {
	if p.isOver {
		return
	}
	p.isOver = true
	if p.askedToLeave {
		p.loop.count.drained[p.drained].Add(1)
	}
	p.router.drains.closed(p)
}

func (r *Router) addDrainMetrics(m *admin.Metrics) {
	gauge(m, "causeway_draining", "1 while the router stops: peers have been told goodbye.", func() float64 {
		if r.drains.started.Load() {
			return 1
		}
		return 0
	})
	gauge(m, "causeway_drain_peers", "Peers that were told goodbye by a stopping router and are not gone yet.", func() (n float64) {
		for _, l := range r.loops {
			n += float64(l.count.askedToLeave.Load())
		}
		for _, ended := range r.drainEnds() {
			n -= float64(ended)
		}
		return max(n, 0)
	})
	m.Add(admin.Family{
		Name: "causeway_drain_ends_total", Help: "Connections of a stopping router that have ended, by how.", Counter: true, Labels: []string{"end"},
		Read: func() (s []admin.Sample) {
			for end, n := range r.drainEnds() {
				s = append(s, admin.Sample{Labels: []string{drainEnd(end).String()}, Value: float64(n)})
			}
			return s
		},
	})
}
