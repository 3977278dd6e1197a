package route

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"causeway/codec"
)

// place is where one node's address is listed.
type place struct {
	claims []claim      // by the lists that have it
	owner  *destination // what the caller was told last; nil: nobody
}

// claim is what one list says of a node.
type claim struct {
	router *destination // i.self for own nodes
	sent   uint64       // attached time
}

// probe is a question to an own node that belongs to another router now.
type probe struct {
	claim    uint64 // attached time at the other router
	until    time.Time
	answered bool
	again    bool // a later claim has come; it is asked again at until
}

// Attach says that a node is attached to this router, by a connection for which
// it signed a hello at that time, in nanoseconds since the Unix epoch. Attaching
// it again gives it the new time. It fails with ErrAddresses. It panics on an
// address that is no node's of this domain.
func (i *Instance) Attach(now time.Time, node codec.Address, sent uint64) (Actions, error) {
	if node.Kind() != codec.KindNode || node.Prefix() != i.config.Self.Prefix() {
		panic(fmt.Sprintf("route: %v is no node of the domain of %v", node, i.config.Self))
	}
	if _, ok := i.attached[node]; !ok && len(i.attached) >= i.config.MaxAddresses {
		return Actions{}, ErrAddresses
	}
	i.attached[node] = sent
	i.pending[node] = struct{}{}
	i.flushDue = true
	delete(i.probes, node)
	i.settle(&i.self, node, sent)
	return i.finish(now), nil
}

// Detach says that a node is not attached any more.
func (i *Instance) Detach(now time.Time, node codec.Address) Actions {
	i.detach(node)
	return i.finish(now)
}

// Answered says that a node that was to be probed has answered.
func (i *Instance) Answered(now time.Time, node codec.Address) Actions {
	if p := i.probes[node]; p != nil {
		p.answered = true
	}
	return i.finish(now)
}

func (i *Instance) detach(node codec.Address) {
	if _, ok := i.attached[node]; !ok {
		return
	}
	delete(i.attached, node)
	delete(i.probes, node)
	i.pending[node] = struct{}{}
	i.flushDue = true
	i.leave(&i.self, node)
}

// settle notes that d's list has the node, perhaps with another time than before.
func (i *Instance) settle(d *destination, node codec.Address, sent uint64) {
	p := i.places[node]
	if p == nil {
		p = new(place)
		i.places[node] = p
	}
	if at := p.find(d); at >= 0 {
		p.claims[at].sent = sent
	} else {
		p.claims = append(p.claims, claim{d, sent})
	}
	i.touched[node] = struct{}{}
}

// leave notes that d's list does not have the node any more.
func (i *Instance) leave(d *destination, node codec.Address) {
	p := i.places[node]
	if at := p.find(d); at >= 0 {
		p.claims = slices.Delete(p.claims, at, at+1)
	}
	i.touched[node] = struct{}{}
}

// find returns where d's claim is, or -1.
func (p *place) find(d *destination) int {
	return slices.IndexFunc(p.claims, func(c claim) bool { return c.router == d })
}

// owner returns the claim of the router that a node belongs to, or none: of those
// that are reached, the one with the greatest attached time, then the greater
// address.
func (i *Instance) owner(p *place) (best claim) {
	for _, c := range p.claims {
		switch {
		case c.router != &i.self && !c.router.reached:
		case best.router == nil, c.sent > best.sent,
			c.sent == best.sent && bytes.Compare(c.router.address[:], best.router.address[:]) > 0:
			best = c
		}
	}
	return best
}

// resolve tells the caller where owners have changed, and has own nodes probed
// that belong to another router now.
func (i *Instance) resolve(now time.Time) {
	if len(i.touched) == 0 {
		return
	}
	for _, node := range slices.SortedFunc(maps.Keys(i.touched), func(a, b codec.Address) int { return bytes.Compare(a[:], b[:]) }) {
		p := i.places[node]
		best := i.owner(p)
		if best.router != p.owner {
			change := OwnerChange{Node: node}
			if best.router != nil {
				change.Router = best.router.address
			}
			i.out.Owners = append(i.out.Owners, change)
			p.owner = best.router
		}
		i.doubt(now, node, best)
		if len(p.claims) == 0 {
			delete(i.places, node)
		}
	}
	clear(i.touched)
}

// doubt probes an own node for every later attachment elsewhere that is heard of,
// one probe at a time.
func (i *Instance) doubt(now time.Time, node codec.Address, best claim) {
	if _, own := i.attached[node]; !own {
		return
	}
	if best.router == &i.self {
		delete(i.probes, node)
		return
	}
	p := i.probes[node]
	switch {
	case p == nil:
		p = new(probe)
		i.probes[node] = p
	case p.claim >= best.sent:
		return
	case now.Before(p.until):
		p.claim, p.again = best.sent, p.answered
		i.wake(p.until)
		return
	}
	p.claim = best.sent
	i.probe(now, node, p)
}

// probe has a node asked for an answer.
func (i *Instance) probe(now time.Time, node codec.Address, p *probe) {
	p.until, p.answered, p.again = now.Add(ProbeTimeout), false, false
	i.wake(p.until)
	i.out.Probes = append(i.out.Probes, node)
}
