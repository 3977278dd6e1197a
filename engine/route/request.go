package route

import (
	"time"

	"causeway/codec"
)

const (
	requestHops = 64 // RFC 8966 section 3.8.2.1
	// suppressFor is how long the same seqno request is not passed on again; less
	// than retryFirst, so that a repeated one is.
	suppressFor = 500 * time.Millisecond
)

// Compile-time: a repeated request is passed on.
var _ [retryFirst - suppressFor - 1]struct{}

// isWanting tells whether a newer seqno would make e worth selecting: while
// there is no route (RFC 8966 section 3.8.2.1), for the selected one that is not
// feasible any more, or one that would be better (3.8.2.2).
func (d *destination) isWanting(e *entry) bool {
	if e.metric() == infinity || d.isFeasible(e.advert) {
		return false
	}
	return d.selected == nil || d.selected == e || d.isPreferred(e, d.selected)
}

// ask sends seqno requests to the neighbours whose routes are wanting and have
// not been asked for this seqno, and sees to it that they are asked again.
func (i *Instance) ask(d *destination, now time.Time) {
	isWanting := false
	next := d.distance.next()
	for _, e := range d.entries {
		if !d.isWanting(e) {
			e.asked = stamp{}
			continue
		}
		isWanting = true
		if e.asked != next {
			e.asked = next
			i.request(d, e)
		}
	}
	switch {
	case !isWanting:
		d.retry, d.attempts = time.Time{}, 0
	case d.retry.IsZero():
		d.retry = now.Add(retryFirst)
		i.wake(d.retry)
	}
}

// askAgain repeats the requests of a destination whose retry is due.
func (i *Instance) askAgain(d *destination, now time.Time) {
	d.attempts++
	d.retry = now.Add(min(retryFirst<<min(d.attempts, 16), retryMax))
	i.wake(d.retry)
	for _, e := range d.entries {
		e.asked = stamp{}
	}
	i.ask(d, now)
}

func (i *Instance) request(d *destination, e *entry) {
	next := d.distance.next()
	e.link.requests = append(e.link.requests, codec.SeqnoWanted{
		Router: d.address, Source: next.Source, Seqno: next.seqno, Hops: requestHops,
	})
}

// sendRequests sends what has gathered in this event.
func (i *Instance) sendRequests() {
	for _, l := range i.links {
		for len(l.requests) > 0 {
			n := min(len(l.requests), codec.SeqnoRequestsMax)
			i.send(l, &codec.SeqnoRequest{Wanted: l.requests[:n:n]})
			l.requests = l.requests[n:]
		}
		l.requests = nil
	}
}

// receiveRequest is RFC 8966 section 3.8.1.2.
func (i *Instance) receiveRequest(now time.Time, l *link, m *codec.SeqnoRequest) {
	for n := range m.Wanted {
		q := &m.Wanted[n]
		want := stamp{q.Source, q.Seqno}
		if i.isAhead(q.Epoch, now) {
			i.refused.Future++
			continue
		}
		if q.Router == i.config.Self {
			i.answerOwn(now, l, want)
			continue
		}
		d := i.routers[q.Router]
		if d == nil {
			continue
		}
		if d.selected != nil && !want.isNewer(d.selected.stamp) {
			l.tellAgain(d.address)
			i.dirty[d] = struct{}{}
			i.flushDue = true
			continue
		}
		i.forward(now, l, d, q)
	}
}

// answerOwn answers a request for this router. The seqno grows by one, whatever
// was asked for, and not again before it was announced: a distance that nobody
// could repair by asking would be one that is half of all seqnos behind.
func (i *Instance) answerOwn(now time.Time, l *link, want stamp) {
	switch {
	case compareSources(want.Source, i.source) > 0:
		i.outdo(now, want.Source)
	case i.raised:
	case want.isNewer(stamp{i.source, i.seqno}):
		i.seqno++
		i.raised = true
	default:
		l.tellAgain(i.config.Self)
	}
	i.dirtySelf = true
	i.flushDue = true
}

// tellAgain makes the next flush tell l about a router whatever it was told last.
func (l *link) tellAgain(router codec.Address) {
	if a, ok := l.told[router]; ok {
		a.metric = infinity // never equal to what is to be told; not forgotten, since a retraction may be due
		l.told[router] = a
	}
}

// forward passes a request on, if it may go further and is no duplicate.
func (i *Instance) forward(now time.Time, from *link, d *destination, q *codec.SeqnoWanted) {
	want := stamp{q.Source, q.Seqno}
	if q.Hops < 2 || now.Before(d.until) && !want.isNewer(d.forwarded) {
		return
	}
	to := d.towards(from.router)
	if to == nil {
		return
	}
	d.forwarded, d.until = want, now.Add(suppressFor)
	passed := *q
	passed.Hops--
	to.requests = append(to.requests, passed)
}

// towards returns where a request that has come from a router goes: the next hop
// of the selected route, or of another feasible one, or of any; but not back.
func (d *destination) towards(from codec.Address) *link {
	var best *entry
	rank := func(e *entry) int {
		switch {
		case e == d.selected:
			return 2
		case d.isFeasible(e.advert):
			return 1
		}
		return 0
	}
	for _, e := range d.entries {
		if e.link.router == from || e.metric() == infinity {
			continue
		}
		if best == nil || rank(e) > rank(best) || rank(e) == rank(best) && e.metric() < best.metric() {
			best = e
		}
	}
	if best == nil {
		return nil
	}
	return best.link
}
