package engine

import (
	"maps"
	"sync/atomic"

	"causeway/engine/admin"
)

// addNeighbourMetrics registers what is counted of links to other routers.
func (r *Router) addNeighbourMetrics(m *admin.Metrics) {
	gauge(m, "causeway_links", "Open links to other routers.", func() (n float64) {
		r.links.mu.Lock()
		defer r.links.mu.Unlock()
		for _, links := range r.links.open {
			n += float64(links)
		}
		return n
	})
	m.Add(admin.Family{
		Name: "causeway_link_frames_total", Counter: true, Labels: []string{"direction"},
		Help: "Frames other than link control cut from links, and handed to links.",
		Read: func() []admin.Sample {
			in := r.sum(func(c *counters) *atomic.Uint64 { return &c.linkIn })
			out := r.sum(func(c *counters) *atomic.Uint64 { return &c.linkOut })
			return []admin.Sample{{Labels: []string{"in"}, Value: in()}, {Labels: []string{"out"}, Value: out()}}
		},
	})
	m.Add(admin.Family{
		Name: "causeway_link_ignored_total", Counter: true, Labels: []string{"reason"},
		Help: "Domain proofs and grants of other routers that were ignored, by reason.",
		Read: func() []admin.Sample {
			ignored := map[string]uint64{ignoredReflected: 0, ignoredUnproven: 0, ignoredKey: 0}
			r.links.mu.Lock()
			maps.Copy(ignored, r.links.ignored)
			r.links.mu.Unlock()
			return samples(ignored)
		},
	})
	m.Add(admin.Family{
		Name: "causeway_name_messages_total", Counter: true, Labels: []string{"fate"},
		Help: "Questions and answers about names between routers, by what became of them here.",
		Read: func() (s []admin.Sample) {
			for fate, name := range nameFateNames {
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(r.asking.fates[fate].Load())})
			}
			return s
		},
	})
}
