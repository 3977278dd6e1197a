package engine

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"causeway/codec"
	"causeway/engine/link"
)

// Route is how a router is reached in one domain, as an operator sees it. The
// first of each domain is this router itself.
type Route struct {
	Domain  string `json:"domain"`
	Name    string `json:"name"` // "router/NAME"; empty: not known here
	Address string `json:"address"`
	Here    bool   `json:"here"`   // it is this router
	Metric  uint16 `json:"metric"` // costs of links and routers on the way
	Nodes   int    `json:"nodes"`  // that are reached there

	NextName    string `json:"nextName"`    // the neighbour to which frames go first; empty here
	NextAddress string `json:"nextAddress"` // in this domain
	NextRemote  string `json:"nextRemote"`  // the other end of the link
}

// Routes is all of them.
type Routes struct {
	Time   time.Time `json:"time"`
	Routes []Route   `json:"routes"` // by domain; this router, then by address
}

// known is a route as routing knows it.
type known struct {
	domain string
	router codec.Address
	here   bool
	metric uint16
	by     link.Ref
	nodes  int
}

// Routes describes all routes. It waits a few seconds at most, and not beyond the
// end of ctx.
func (r *Router) Routes(ctx context.Context) Routes {
	ctx, cancel := context.WithTimeout(ctx, peersWait)
	defer cancel()
	all := Routes{Time: time.Now().UTC(), Routes: []Route{}}
	answer := make(chan []known, 1)
	if !r.routing.post(func(time.Time) { answer <- r.routing.known() }) {
		return all
	}
	var routes []known
	select {
	case routes = <-answer:
	case <-ctx.Done():
		return all
	}
	neighbours := r.neighbours(ctx, routes)
	names := make(map[codec.Address]string)
	for _, d := range r.state().domains {
		d.members.routers(names)
		names[d.address] = d.grant.Name
	}
	for _, n := range neighbours {
		for a, name := range n.names {
			names[a] = name
		}
	}
	named := func(a codec.Address) string {
		if name := names[a]; name != "" {
			return routerPrefix + name
		}
		return ""
	}
	for _, k := range routes {
		to := Route{Domain: k.domain, Name: named(k.router), Address: k.router.String(), Here: k.here, Metric: k.metric, Nodes: k.nodes}
		if n, there := neighbours[k.by]; there && !k.here {
			next := n.addresses[k.router.Prefix()]
			to.NextName, to.NextAddress, to.NextRemote = named(next), next.String(), n.remote
		}
		all.Routes = append(all.Routes, to)
	}
	return all
}

// known returns all routes. It is for routing's goroutine.
func (rt *routing) known() (all []known) {
	for _, in := range rt.instances {
		nodes := make(map[codec.Address]int)
		for _, o := range in.core.Owners() {
			nodes[o.Router]++
		}
		all = append(all, known{domain: in.name, router: in.self, here: true, nodes: nodes[in.self]})
		for _, to := range in.core.Routes() {
			all = append(all, known{domain: in.name, router: to.Router, metric: to.Metric, by: in.links[to.Via], nodes: nodes[to.Router]})
		}
	}
	slices.SortFunc(all, func(a, b known) int {
		here := func(k known) int {
			if k.here {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(here(a), here(b)), bytes.Compare(a.router[:], b.router[:]))
	})
	return all
}

// linkEnd is who is at the other end of a link.
type linkEnd struct {
	remote    string
	addresses map[prefix]codec.Address // by domain
	names     map[codec.Address]string
}

// neighbours returns who is at the ends of the links that the routes take; who
// has not answered in time is missing.
func (r *Router) neighbours(ctx context.Context, routes []known) map[link.Ref]linkEnd {
	type found struct {
		by link.Ref
		linkEnd
	}
	asked := make(map[link.Ref]bool)
	for _, k := range routes {
		if k.by != 0 {
			asked[k.by] = true
		}
	}
	answers := make(chan found, len(asked))
	for by := range asked {
		l := r.loops[by.Loop()]
		if !l.link.Post(func() {
			end := linkEnd{addresses: make(map[prefix]codec.Address), names: make(map[codec.Address]string)}
			if c := l.link.Conn(by); c != nil && peerOf(c).far != nil {
				end.remote = c.Remote().String()
				for at, up := range peerOf(c).far.proven {
					end.addresses[at], end.names[up.address] = up.address, up.grant.id.Name
				}
			}
			answers <- found{by, end}
		}) {
			answers <- found{by: by}
		}
	}
	ends := make(map[link.Ref]linkEnd, len(asked))
	for range asked {
		select {
		case f := <-answers:
			ends[f.by] = f.linkEnd
		case <-ctx.Done():
			return ends
		}
	}
	return ends
}
