package engine

import (
	"errors"
	"net"

	"causeway/engine/admin"
)

// Results of dialing, labels of causeway_link_dials_total.
const (
	dialLinked      = "linked"
	dialUnreachable = "unreachable" // no TCP connection
	dialRefused     = "refused"     // in the handshake or the hello, by either end
)

// dialed counts the result of dialing.
func (ls *links) dialed(err error) {
	var tcp *net.OpError
	result := dialLinked
	switch {
	case errors.As(err, &tcp) && tcp.Op == "dial":
		result = dialUnreachable
	case err != nil:
		result = dialRefused
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.results[result]++
}

func (r *Router) addDialMetrics(m *admin.Metrics) {
	gauge(m, "causeway_link_targets_down", "Routers to connect to with which there is no link.", func() (n float64) {
		r.links.mu.Lock()
		defer r.links.mu.Unlock()
		for _, d := range r.links.dialers {
			if !d.isLinked.Load() {
				n++
			}
		}
		return n
	})
	m.Add(admin.Family{
		Name: "causeway_link_dials_total", Help: "Attempts to open a link, by result.", Counter: true, Labels: []string{"result"},
		Read: func() []admin.Sample {
			r.links.mu.Lock()
			defer r.links.mu.Unlock()
			return samples(r.links.results)
		},
	})
}
