package route

import (
	"time"

	"causeway/codec"
)

// Set changes what of its Config an Instance can change while it runs: the cost
// of every route through this router, and how far times may be ahead of the
// clock; 0: the default. A cost that grows leaves the routes of neighbours in
// use until they have found others, so a router that is about to stop raises
// its own first.
func (i *Instance) Set(now time.Time, nodeCost uint16, maxSkew time.Duration) Actions {
	if maxSkew == 0 {
		maxSkew = MaxSkewDefault
	}
	i.config.MaxSkew = maxSkew
	if nodeCost != i.config.NodeCost {
		i.config.NodeCost = nodeCost
		for _, d := range i.order {
			i.dirty[d] = struct{}{}
		}
		i.flushDue = true
	}
	return i.finish(now)
}

// Owner returns the router that a node belongs to, as the last OwnerChange of it
// said; zero: nobody has it.
func (i *Instance) Owner(node codec.Address) (router codec.Address) {
	if p := i.places[node]; p != nil && p.owner != nil {
		router = p.owner.address
	}
	return router
}

// Owners returns all nodes that somebody has, in no order.
func (i *Instance) Owners() []OwnerChange {
	all := make([]OwnerChange, 0, len(i.places))
	for node, p := range i.places {
		if p.owner != nil {
			all = append(all, OwnerChange{Node: node, Router: p.owner.address})
		}
	}
	return all
}

// Size is how much an Instance knows.
type Size struct {
	Links   int
	Routers int // known, this one not counted
	Nodes   int // attached somewhere
	Listed  int // entries of all lists: of nodes that several routers list, more than Nodes
}

// Size returns the numbers of now. It looks at each router.
func (i *Instance) Size() Size {
	s := Size{Links: len(i.links), Routers: len(i.order), Nodes: len(i.places), Listed: len(i.attached)}
	for _, d := range i.order {
		if d.list != nil {
			s.Listed += len(d.list.nodes)
		}
	}
	return s
}
