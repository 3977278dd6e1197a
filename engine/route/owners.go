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
	routers []*destination // whose lists have it; i.self for own nodes
	owner   *destination   // what the caller was told last; nil: nobody
}

// probe is a question to an own node that belongs to another router now.
type probe struct {
	claim    uint64 // attached time at the other router
	until    time.Time
	answered bool
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
	i.settle(&i.self, node)
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

// settle notes that d's list has the node, perhaps with another time.
func (i *Instance) settle(d *destination, node codec.Address) {
	p := i.places[node]
	if p == nil {
		p = new(place)
		i.places[node] = p
	}
	if !slices.Contains(p.routers, d) {
		p.routers = append(p.routers, d)
	}
	i.touched[node] = struct{}{}
}

// leave notes that d's list does not have the node any more.
func (i *Instance) leave(d *destination, node codec.Address) {
	p := i.places[node]
	if at := slices.Index(p.routers, d); at >= 0 {
		p.routers = slices.Delete(p.routers, at, at+1)
	}
	i.touched[node] = struct{}{}
}

// claim returns the attached time that d's list has for a node.
func (i *Instance) claim(d *destination, node codec.Address) uint64 {
	if d == &i.self {
		return i.attached[node]
	}
	return d.list.nodes[node]
}

// owner returns the router that a node belongs to, or nil: of those that are
// reached, the one with the greatest attached time, then the greater address.
func (i *Instance) owner(p *place, node codec.Address) (owner *destination) {
	for _, d := range p.routers {
		if d != &i.self && d.selected == nil {
			continue
		}
		if owner == nil {
			owner = d
			continue
		}
		mine, best := i.claim(d, node), i.claim(owner, node)
		if mine > best || mine == best && bytes.Compare(d.address[:], owner.address[:]) > 0 {
			owner = d
		}
	}
	return owner
}

// resolve tells the caller where owners have changed, and has own nodes probed
// that belong to another router now.
func (i *Instance) resolve(now time.Time) {
	if len(i.touched) == 0 {
		return
	}
	for _, node := range slices.SortedFunc(maps.Keys(i.touched), func(a, b codec.Address) int { return bytes.Compare(a[:], b[:]) }) {
		p := i.places[node]
		owner := i.owner(p, node)
		if owner != p.owner {
			change := OwnerChange{Node: node}
			if owner != nil {
				change.Router = owner.address
			}
			i.out.Owners = append(i.out.Owners, change)
			p.owner = owner
		}
		i.doubt(now, node, owner)
		if len(p.routers) == 0 {
			delete(i.places, node)
		}
	}
	clear(i.touched)
}

// doubt probes an own node for every later attachment elsewhere that is heard of.
func (i *Instance) doubt(now time.Time, node codec.Address, owner *destination) {
	if _, own := i.attached[node]; !own {
		return
	}
	if owner == &i.self {
		delete(i.probes, node)
		return
	}
	claim := i.claim(owner, node)
	if p := i.probes[node]; p != nil && p.claim >= claim {
		return
	}
	i.probes[node] = &probe{claim: claim, until: now.Add(ProbeTimeout)}
	i.wake(now.Add(ProbeTimeout))
	i.out.Probes = append(i.out.Probes, node)
}
