package route

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"causeway/codec"
)

// lookPause is at least between two looks at everything, which neighbours could
// ask for with every message.
const lookPause = BatchDelay

// wake makes Tick look at everything at that time, or soon after.
func (i *Instance) wake(at time.Time) {
	if soonest := i.lookedAt.Add(lookPause); at.Before(soonest) {
		at = soonest
	}
	if i.wakeAt.IsZero() || at.Before(i.wakeAt) {
		i.wakeAt = at
	}
}

// Tick does what has become due: retries, expiry, probes, updates. It may be
// called at any time, and must be at the last event's Deadline.
func (i *Instance) Tick(now time.Time) Actions {
	if !now.Before(i.refreshAt) {
		i.refreshAt = now.Add(UpdateInterval)
		i.refreshing, i.flushDue = true, true
		for _, l := range i.links {
			l.tellLists = true
		}
		maps.DeleteFunc(i.returns, func(_ codec.Address, paid time.Time) bool { return paid.Before(now) })
	}
	if !i.wakeAt.IsZero() && !now.Before(i.wakeAt) {
		i.wakeAt, i.lookedAt = time.Time{}, now
		for _, d := range slices.Clone(i.order) {
			i.due(d, now)
		}
		i.reroute(now)
		i.resolve(now) // a probe may have been made for a router that is lost
		i.dueProbes(now)
	}
	return i.finish(now)
}

// isDue tells whether at has come; if not, Tick will look again then. A zero at
// never comes.
func (i *Instance) isDue(at, now time.Time) bool {
	if at.IsZero() {
		return false
	}
	if now.Before(at) {
		i.wake(at)
		return false
	}
	return true
}

func (i *Instance) due(d *destination, now time.Time) {
	expired := false
	for n := len(d.entries) - 1; n >= 0; n-- {
		if i.isDue(d.entries[n].expires, now) {
			expired = d.remove(d.entries[n].link) || expired
		}
	}
	if expired {
		i.choose(d, now)
	}
	if i.isDue(d.returnAt, now) {
		i.rerouted[d] = struct{}{}
	}
	if i.isDue(d.retry, now) {
		i.askAgain(d, now)
	}
	if d.asked.link != nil && i.isDue(d.asked.until, now) {
		i.giveUp(d, now)
	}
	if !d.idleSince.IsZero() && i.isDue(d.idleSince.Add(ForgetAfter), now) {
		i.forget(d)
	}
}

// forget drops a destination that had no route for ForgetAfter.
func (i *Instance) forget(d *destination) {
	if d.list != nil {
		for a := range d.list.nodes {
			i.leave(d, a)
		}
		i.listed -= len(d.list.nodes)
	}
	for _, l := range i.links {
		i.dropPartial(l, d.address)
		delete(l.lists, d.address)
		delete(l.awaited, d.address)
		delete(l.answered, d.address)
	}
	at, _ := i.findRouter(d.address)
	i.order = slices.Delete(i.order, at, at+1)
	delete(i.routers, d.address)
}

func (i *Instance) dueProbes(now time.Time) {
	for _, node := range slices.SortedFunc(maps.Keys(i.probes), func(a, b codec.Address) int { return bytes.Compare(a[:], b[:]) }) {
		p := i.probes[node]
		switch {
		case p.answered && !p.again || !i.isDue(p.until, now):
		case p.again:
			i.probe(now, node, p)
		default:
			i.detach(node)
			i.out.Withdrawn = append(i.out.Withdrawn, node)
		}
	}
}
