// Package simnet is a network in memory for tests: nodes, and links that are
// reliable and ordered until they fail, with delay, loss, restarts and
// partitions, all drawn from a seed.
//
// Time is simulated, and everything happens in one goroutine: one event after
// another, each at its time. The same seed and calls give the same events.
package simnet

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// NodeID names a node through all its restarts. The first is 0.
type NodeID int

// LinkID names a link for its life; a new link between the same nodes has
// another. The first is 1.
type LinkID uint64

// Node is what takes part. The network calls it with the simulated time, never
// from within a call of its own.
type Node interface {
	// LinkUp says that a link to peer is up; nothing has come by it before.
	LinkUp(now time.Time, l LinkID, peer NodeID)
	// LinkDown says that a link has ended; nothing comes by it after.
	LinkDown(now time.Time, l LinkID)
	// Receive gives the node a message, which it owns.
	Receive(now time.Time, l LinkID, message []byte)
	// Tick is the answer to WakeAt.
	Tick(now time.Time)
}

// Config is what a network is like.
type Config struct {
	Seed      uint64
	Start     time.Time
	DelayMin  time.Duration // of a message
	DelayMax  time.Duration
	NoticeMax time.Duration // each end hears within this that its link is up or has failed
	Loss      float64       // probability that a message is lost, and so its link fails
}

// Stats counts what has been sent and how much of it was lost with its link.
type Stats struct {
	Messages, Bytes, Lost uint64
}

// end is one end of a link.
type end struct {
	node *node
	life int       // of node, when the link was made
	last time.Time // nothing arrives here before
	isUp bool      // the node has been told of it
}

type link struct {
	id    LinkID
	ends  [2]end
	alive bool
}

type node struct {
	id     NodeID
	node   Node
	life   int
	wakeAt time.Time
}

// event is something to happen; run tells whether it still did.
type event struct {
	at  time.Time
	seq uint64
	run func() bool
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return x
}

// Network is one simulation.
type Network struct {
	config Config
	rand   *rand.Rand
	now    time.Time
	seq    uint64
	queue  queue
	nodes  []*node
	links  map[LinkID]*link
	lastID LinkID
	stats  Stats
}

// New returns a network without nodes. It panics when the delays are out of
// order.
func New(config Config) *Network {
	if config.DelayMin < 0 || config.DelayMax < config.DelayMin || config.NoticeMax < 0 {
		panic(fmt.Sprintf("simnet: delays %v to %v, notice %v", config.DelayMin, config.DelayMax, config.NoticeMax))
	}
	return &Network{
		config: config,
		rand:   rand.New(rand.NewPCG(config.Seed, 1)),
		now:    config.Start,
		links:  map[LinkID]*link{},
	}
}

// Now returns the simulated time.
func (n *Network) Now() time.Time { return n.now }

// Rand returns the network's randomness, for what else the seed is to decide.
func (n *Network) Rand() *rand.Rand { return n.rand }

// Stats returns the counts so far.
func (n *Network) Stats() Stats { return n.stats }

// Add adds a node.
func (n *Network) Add(what Node) NodeID {
	id := NodeID(len(n.nodes))
	n.nodes = append(n.nodes, &node{id: id, node: what})
	return id
}

// Restart puts another Node in the place of one that ends without a word. Its
// links fail; the other ends hear of it, the new Node does not.
func (n *Network) Restart(id NodeID, what Node) {
	at := n.nodes[id]
	for _, l := range n.aliveLinks() {
		if l.ends[0].node == at || l.ends[1].node == at {
			n.fail(l)
		}
	}
	at.node, at.life, at.wakeAt = what, at.life+1, time.Time{}
}

// Connect makes a link between two nodes, whose ends hear of it after a moment.
func (n *Network) Connect(a, b NodeID) LinkID {
	if a == b {
		panic(fmt.Sprintf("simnet: node %d with itself", a))
	}
	n.lastID++
	l := &link{id: n.lastID, alive: true}
	for side, id := range []NodeID{a, b} {
		at := n.nodes[id]
		up := n.now.Add(n.between(0, n.config.NoticeMax))
		l.ends[side] = end{node: at, life: at.life, last: up}
	}
	n.links[l.id] = l
	for side := range l.ends {
		e, peer := &l.ends[side], l.ends[1-side].node.id
		n.schedule(e.last, func() bool {
			if !l.alive || e.life != e.node.life {
				return false
			}
			e.isUp = true
			e.node.node.LinkUp(n.now, l.id, peer)
			return true
		})
	}
	return l.id
}

// Fail ends a link with all that is under way on it. Each end hears of it in its
// own time. A link that has failed is left alone.
func (n *Network) Fail(id LinkID) {
	if l := n.links[id]; l != nil {
		n.fail(l)
	}
}

func (n *Network) fail(l *link) {
	l.alive = false
	delete(n.links, l.id)
	for side := range l.ends {
		e := &l.ends[side]
		n.schedule(n.now.Add(n.between(0, n.config.NoticeMax)), func() bool {
			if !e.isUp || e.life != e.node.life {
				return false
			}
			e.isUp = false
			e.node.node.LinkDown(n.now, l.id)
			return true
		})
	}
}

// Partition fails all links between nodes for which side differs.
func (n *Network) Partition(side func(NodeID) bool) {
	for _, l := range n.aliveLinks() {
		if side(l.ends[0].node.id) != side(l.ends[1].node.id) {
			n.fail(l)
		}
	}
}

// Links returns the links that have not failed, by ID.
func (n *Network) Links() (ids []LinkID) {
	for _, l := range n.aliveLinks() {
		ids = append(ids, l.id)
	}
	return ids
}

func (n *Network) aliveLinks() (all []*link) {
	for id := LinkID(1); id <= n.lastID; id++ {
		if l := n.links[id]; l != nil {
			all = append(all, l)
		}
	}
	return all
}

// Ends returns the nodes of a link that has not failed.
func (n *Network) Ends(id LinkID) (a, b NodeID, alive bool) {
	l := n.links[id]
	if l == nil {
		return 0, 0, false
	}
	return l.ends[0].node.id, l.ends[1].node.id, true
}

// Peer returns who is at the other end of a link from node; false when the link
// has failed.
func (n *Network) Peer(id LinkID, from NodeID) (NodeID, bool) {
	a, b, alive := n.Ends(id)
	if a == from {
		return b, alive
	}
	return a, alive
}

// Send sends a message, which the network takes. By a link that has failed it is
// lost.
func (n *Network) Send(from NodeID, id LinkID, message []byte) {
	n.stats.Messages++
	n.stats.Bytes += uint64(len(message))
	l := n.links[id]
	if l == nil {
		n.stats.Lost++
		return
	}
	to := &l.ends[0]
	if to.node.id == from {
		to = &l.ends[1]
	}
	if n.config.Loss > 0 && n.rand.Float64() < n.config.Loss {
		n.stats.Lost++
		n.fail(l)
		return
	}
	at := n.now.Add(n.between(n.config.DelayMin, n.config.DelayMax))
	if at.Before(to.last) {
		at = to.last
	}
	to.last = at
	n.schedule(at, func() bool {
		if !l.alive {
			n.stats.Lost++
			return false
		}
		to.node.node.Receive(n.now, id, message)
		return true
	})
}

// SetLoss changes the probability of loss.
func (n *Network) SetLoss(p float64) { n.config.Loss = p }

// WakeAt has the node's Tick called at that time, and at no earlier one that it
// was to be called at before.
func (n *Network) WakeAt(id NodeID, at time.Time) {
	who := n.nodes[id]
	if at.Before(n.now) {
		at = n.now
	}
	if who.wakeAt.Equal(at) {
		return
	}
	who.wakeAt = at
	life := who.life
	n.schedule(at, func() bool {
		if who.life != life || !who.wakeAt.Equal(at) {
			return false
		}
		who.wakeAt = time.Time{}
		who.node.Tick(n.now)
		return true
	})
}

// After runs f after d, as an event.
func (n *Network) After(d time.Duration, f func()) {
	n.schedule(n.now.Add(d), func() bool {
		f()
		return true
	})
}

// Run runs all events of the next d and moves the time on by it. It returns how
// many there were.
func (n *Network) Run(d time.Duration) (events int) {
	until := n.now.Add(d)
	for len(n.queue) > 0 && !n.queue[0].at.After(until) {
		e := heap.Pop(&n.queue).(event)
		n.now = e.at
		if e.run() {
			events++
		}
	}
	n.now = until
	return events
}

func (n *Network) schedule(at time.Time, run func() bool) {
	n.seq++
	heap.Push(&n.queue, event{at, n.seq, run})
}

func (n *Network) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(n.rand.Int64N(int64(high-low)+1))
}
