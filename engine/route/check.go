package route

import (
	"bytes"
	"fmt"
	"slices"
)

// Check returns a description of the first broken invariant, or "". It is for
// tests, between events.
func (i *Instance) Check() string {
	if len(i.order) != len(i.routers) || !slices.IsSortedFunc(i.order, func(a, b *destination) int { return bytes.Compare(a.address[:], b.address[:]) }) {
		return "order is not that of the routers"
	}
	for _, d := range i.order {
		if i.routers[d.address] != d {
			return fmt.Sprintf("%v is not found", d.address)
		}
		if broken := i.checkDestination(d); broken != "" {
			return broken
		}
		if via := d.installed; (via == nil) != (d.selected == nil) || via != nil && via != d.selected.link {
			return fmt.Sprintf("the caller has not been told of the route to %v", d.address)
		}
		if d.reached && d.selected == nil || d.selected != nil && !d.reached && d.returnAt.IsZero() {
			return fmt.Sprintf("the list of %v counts without a route, or never again", d.address)
		}
		if broken := i.checkList(d); broken != "" {
			return broken
		}
	}
	return i.checkPlaces()
}

func (i *Instance) checkDestination(d *destination) string {
	for n, e := range d.entries {
		if _, up := i.findLink(e.link.id); !up || n > 0 && d.entries[n-1].link.id >= e.link.id {
			return fmt.Sprintf("%v has an entry of a link that is down, or not in its order", d.address)
		}
		if e.advert.metric == infinity {
			return fmt.Sprintf("%v has a retracted entry", d.address)
		}
	}
	if s := d.selected; s != nil {
		switch {
		case !slices.Contains(d.entries, s) || s.metric() == infinity || s.stamp != d.selectedAs.stamp:
			return fmt.Sprintf("%v: what is selected is no route", d.address)
		case d.hasSent && !d.selectedAs.isBetter(d.distance):
			return fmt.Sprintf("%v: the selected advert %v is not better than the distance %v", d.address, d.selectedAs, d.distance)
		}
	}
	for _, l := range i.links {
		if told, ok := l.told[d.address]; ok && (!d.hasSent || told.metric != infinity && told.isBetter(d.distance)) {
			return fmt.Sprintf("%v: told %v, which is better than the distance %v", d.address, told, d.distance)
		}
	}
	return ""
}

func (i *Instance) checkList(d *destination) string {
	if d.list == nil {
		return ""
	}
	if len(d.list.nodes) > i.config.MaxAddresses {
		return fmt.Sprintf("%v has %d addresses", d.address, len(d.list.nodes))
	}
	for node := range d.list.nodes {
		if p := i.places[node]; p == nil || p.find(d) < 0 || p.claims[p.find(d)].sent != d.list.nodes[node] {
			return fmt.Sprintf("%v is not placed at %v", node, d.address)
		}
	}
	return ""
}

func (i *Instance) checkPlaces() string {
	for node, p := range i.places {
		if len(p.claims) == 0 || i.owner(p).router != p.owner {
			return fmt.Sprintf("%v has another owner than the caller was told", node)
		}
		for _, c := range p.claims {
			d := c.router
			listed := d.list != nil && i.routers[d.address] == d
			if d == &i.self {
				_, listed = i.attached[node]
			} else if listed {
				_, listed = d.list.nodes[node]
			}
			if !listed {
				return fmt.Sprintf("%v is placed at %v, which does not list it", node, d.address)
			}
		}
	}
	for node := range i.attached {
		if p := i.places[node]; p == nil || p.find(&i.self) < 0 {
			return fmt.Sprintf("own node %v is not placed", node)
		}
	}
	return ""
}
