package route

import (
	"bytes"
	"slices"
	"time"

	"causeway/codec"
)

// entry is what one neighbour announces about one destination (RFC 8966 section
// 3.2.6); its metric is finite.
type entry struct {
	link *link
	advert
	expires time.Time

	asked stamp // by the last seqno request to this neighbour
}

func (e *entry) metric() uint16 { return sum(e.advert.metric, e.link.cost) }

// destination is another router: what RFC 8966 has in its source table, route
// table and table of requests, and the router's address list.
type destination struct {
	address codec.Address

	entries   []*entry // by link
	distance  advert   // isBetter than every advert that is not feasible
	hasSent   bool     // distance is set
	idleSince time.Time

	selected   *entry
	selectedAs advert // selected's advert when it was last feasible; always better than distance
	installed  *link  // what the caller was told last

	reached  bool      // its list counts: there is a route, and has not come back too often
	returned bool      // it was reached before
	returnAt time.Time // when a list that waits to count may; zero: none does

	retry     time.Time // when to ask again; zero: nothing is wanted
	attempts  int
	forwarded stamp // newest seqno request passed on
	until     time.Time

	list  *list // nil: none
	asked asked
}

// A seqno request that finds no answer is repeated after retryFirst, then after
// twice the time, up to retryMax.
const (
	retryFirst = time.Second
	retryMax   = 8 * time.Second
)

// destination returns that of router, and makes it when it is not known. It
// returns nil when there are too many.
func (i *Instance) destination(router codec.Address, now time.Time) *destination {
	d := i.routers[router]
	if d != nil {
		return d
	}
	if len(i.order) >= i.config.MaxRouters {
		i.refused.Limit++
		return nil
	}
	d = &destination{address: router, idleSince: now}
	i.routers[router] = d
	at, _ := i.findRouter(router)
	i.order = slices.Insert(i.order, at, d)
	i.wake(now.Add(ForgetAfter))
	return d
}

func (i *Instance) findRouter(router codec.Address) (at int, found bool) {
	return slices.BinarySearchFunc(i.order, router, func(d *destination, a codec.Address) int {
		return bytes.Compare(d.address[:], a[:])
	})
}

// entry returns what l announces, or nil.
func (d *destination) entry(l *link) *entry {
	for _, e := range d.entries {
		if e.link == l {
			return e
		}
	}
	return nil
}

// remove takes l's entry away and tells whether there was one; choose must
// follow.
func (d *destination) remove(l *link) bool {
	for at, e := range d.entries {
		if e.link == l {
			d.entries = slices.Delete(d.entries, at, at+1)
			if d.selected == e {
				d.selected = nil
			}
			return true
		}
	}
	return false
}

// isFeasible is RFC 8966 section 3.5.1 for a finite metric.
func (d *destination) isFeasible(a advert) bool { return !d.hasSent || a.isBetter(d.distance) }

// best returns the feasible entry to select, or nil (RFC 8966 section 3.6).
func (d *destination) best() (best *entry) {
	for _, e := range d.entries {
		if e.metric() == infinity || !d.isFeasible(e.advert) {
			continue
		}
		if best == nil || d.isPreferred(e, best) {
			best = e
		}
	}
	return best
}

// isPreferred: a route of a newer source, since the older one is no more; else
// the smaller metric, else the one in use. Sequence numbers do not count.
func (d *destination) isPreferred(e, to *entry) bool {
	if c := compareSources(e.Source, to.Source); c != 0 {
		return c > 0
	}
	if e.metric() != to.metric() {
		return e.metric() < to.metric()
	}
	return e == d.selected
}

// kept returns the selected entry if only its metric has grown beyond what is
// feasible, or nil: the next hop stays loop-free by the advert it was selected
// with (RFC 8966 section 3.5.3 permits to ignore the later one).
func (d *destination) kept() *entry {
	if e := d.selected; e != nil && e.stamp == d.selectedAs.stamp && e.metric() != infinity {
		return e
	}
	return nil
}

// choose selects anew after any change of d's entries.
func (i *Instance) choose(d *destination, now time.Time) {
	if best := d.best(); best != nil {
		d.selected, d.selectedAs = best, best.advert
	} else {
		d.selected = d.kept()
	}
	if len(d.entries) > 0 {
		if !d.idleSince.IsZero() && !now.Before(d.idleSince.Add(ForgetAfter/2)) {
			i.remind(d)
		}
		d.idleSince = time.Time{}
	} else if d.idleSince.IsZero() {
		d.idleSince = now
		i.wake(now.Add(ForgetAfter))
	}
	i.rerouted[d] = struct{}{}
	i.dirty[d] = struct{}{}
	i.flushDue = true
	i.ask(d, now)
}

// reroute tells the caller where next hops have changed, and marks the addresses
// of routers that have come or gone.
func (i *Instance) reroute(now time.Time) {
	if len(i.rerouted) == 0 {
		return
	}
	for _, d := range sorted(i.rerouted) {
		var via *link
		if d.selected != nil {
			via = d.selected.link
		}
		d.returnAt = time.Time{}
		if reached := via != nil && (d.reached || i.mayReturn(now, d, via.router)); reached != d.reached {
			d.reached = reached
			d.touch(i.touched)
		}
		if via == d.installed {
			continue
		}
		d.installed = via
		if debug {
			if broken := i.checkDestination(d); broken != "" {
				panic("route: " + broken)
			}
		}
		change := RouteChange{Router: d.address}
		if via != nil {
			change.Via = via.id
		}
		i.out.Routes = append(i.out.Routes, change)
	}
	clear(i.rerouted)
}

// touch adds the addresses of d's list to a set.
func (d *destination) touch(set map[codec.Address]struct{}) {
	if d.list == nil {
		return
	}
	for a := range d.list.nodes {
		set[a] = struct{}{}
	}
}

// A router that goes and comes back costs a look at each address of its list, for a
// few bytes of a neighbour's. So by way of one neighbour lists of returnsPerSecond
// addresses may come back in the long run, what that makes in returnsAhead at once.
// Others wait: their routers are reached, their nodes are not.
const (
	returnsPerSecond = 100_000
	returnsAhead     = 5 * time.Second
)

// mayReturn reports whether the list of a router that is reached again, by way of
// that neighbour, counts now; otherwise it is looked at again later. The first time
// costs no more than its list did.
func (i *Instance) mayReturn(now time.Time, d *destination, neighbour codec.Address) bool {
	if !d.returned {
		d.returned = true
		return true
	}
	if d.list == nil {
		return true
	}
	paid := i.returns[neighbour]
	if paid.Before(now) {
		paid = now
	}
	if paid.After(now.Add(returnsAhead)) {
		d.returnAt = paid.Add(-returnsAhead)
		i.wake(d.returnAt)
		return false
	}
	i.returns[neighbour] = paid.Add(time.Duration(len(d.list.nodes)) * time.Second / returnsPerSecond)
	return true
}

func sorted(set map[*destination]struct{}) []*destination {
	all := make([]*destination, 0, len(set))
	for d := range set {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *destination) int { return bytes.Compare(a.address[:], b.address[:]) })
	return all
}
