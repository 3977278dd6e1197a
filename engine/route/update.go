package route

import (
	"time"

	"causeway/codec"
)

// expiryIntervals of the sender make a route expire that was not repeated:
// expiryNumerator / expiryDenominator (RFC 8966 appendix B).
const (
	expiryNumerator   = 7
	expiryDenominator = 2
)

// receiveUpdate is RFC 8966 section 3.5.3.
func (i *Instance) receiveUpdate(now time.Time, l *link, u *codec.RouteUpdate) {
	expires := now.Add(u.Interval * expiryNumerator / expiryDenominator)
	for n := range u.Routes {
		r := &u.Routes[n]
		a := advert{stamp{r.Source, r.Seqno}, r.Metric}
		if a.metric != infinity && i.isAhead(a.Epoch, now) {
			i.refused.Future++
			a = retracted
		}
		if r.Router == i.config.Self {
			if a.metric != infinity {
				i.outdo(now, a.Source)
			}
			continue
		}
		i.learn(now, l, r.Router, a, expires)
	}
}

// learn takes what l announces about router.
func (i *Instance) learn(now time.Time, l *link, router codec.Address, a advert, expires time.Time) {
	if a.metric == infinity {
		if d := i.routers[router]; d != nil && d.remove(l) {
			i.choose(d, now)
		}
		return
	}
	d := i.destination(router, now)
	if d == nil {
		return
	}
	e := d.entry(l)
	if e == nil {
		e = &entry{link: l}
		at := 0
		for at < len(d.entries) && d.entries[at].link.id < l.id {
			at++
		}
		d.entries = append(d.entries, nil)
		copy(d.entries[at+1:], d.entries[at:])
		d.entries[at] = e
	}
	e.advert, e.expires = a, expires
	i.wake(expires)
	i.choose(d, now)
}

// outdo makes this router's source newer than another of its address: what an
// earlier life with a clock further ahead has left in the network.
func (i *Instance) outdo(now time.Time, other codec.Source) {
	if compareSources(other, i.source) > 0 {
		i.renew(now, other.Epoch+1)
	}
}

// renewalsMax bounds how often in an UpdateInterval a router takes a greater
// epoch: of two routers that are alive with one address neither would give in.
const renewalsMax = 8

// renew gives this router a greater epoch, in routes and in its list.
func (i *Instance) renew(now time.Time, epoch uint64) {
	if !now.Before(i.renewedAt.Add(UpdateInterval)) {
		i.renewedAt, i.renewals = now, 0
	}
	if i.renewals == renewalsMax {
		i.refused.Twin++
		return
	}
	i.renewals++
	i.source.Epoch = epoch
	i.self.list.version = version{i.source, 1}
	i.dirtySelf = true
	for _, l := range i.links {
		l.tellLists = true
	}
	i.flushDue = true
}

// wanted returns what l should know about d, this router's own address included.
func (i *Instance) wanted(d *destination, l *link) advert {
	if d == &i.self {
		return advert{stamp{i.source, i.seqno}, 0}
	}
	s := d.selected
	if s == nil || s.link.router == l.router { // split horizon, RFC 8966 section 3.7.4
		return retracted
	}
	metric := sum(s.metric(), i.config.NodeCost)
	if metric == infinity {
		return retracted
	}
	return advert{s.stamp, metric}
}

// flush tells every neighbour what has changed, and new ones everything.
func (i *Instance) flush(now time.Time) {
	dirty := sorted(i.dirty)
	if i.dirtySelf {
		dirty = append(dirty, &i.self)
	}
	i.changeOwnList()
	for _, l := range i.links {
		if l.isFresh || i.refreshing {
			i.update(l, append([]*destination{&i.self}, i.order...))
			l.isFresh = false
		} else {
			i.update(l, dirty)
		}
	}
	i.tellLists()
	clear(i.dirty)
	i.dirtySelf, i.refreshing, i.flushDue, i.raised = false, false, false, false
	i.flushedAt = now
}

// update sends l those routes in about that it has not been told so. Before a
// finite one goes out, the distance takes it in (RFC 8966 section 3.7.3).
func (i *Instance) update(l *link, about []*destination) {
	var routes []codec.Route
	for _, d := range about {
		want := i.wanted(d, l)
		told, hasTold := l.told[d.address]
		switch {
		case want.metric == infinity && !hasTold, hasTold && told == want && !i.refreshing:
			continue
		case want.metric == infinity:
			delete(l.told, d.address)
			want.stamp = told.stamp
		default:
			l.told[d.address] = want
			if !d.hasSent || want.isBetter(d.distance) {
				d.distance, d.hasSent = want, true
			}
		}
		routes = append(routes, codec.Route{Router: d.address, Source: want.Source, Seqno: want.seqno, Metric: want.metric})
	}
	for len(routes) > 0 {
		n := min(len(routes), codec.RoutesMax)
		i.send(l, &codec.RouteUpdate{Interval: UpdateInterval, Routes: routes[:n:n]})
		routes = routes[n:]
	}
}
