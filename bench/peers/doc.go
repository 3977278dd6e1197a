// Package peers pins the servers that the router is measured beside, and holds no
// code: go.mod names nats-server and Tailscale's DERP server as tools, and `make
// bench-peers` builds both from there into bin/peers. The module is one of its own
// so that what these servers need does not become a dependency of the router.
//
//	cd bench/peers && go build -o ../../bin/peers/ github.com/nats-io/nats-server/v2 tailscale.com/cmd/derper
//
// bench/load speaks their protocols itself (its verb peers).
package peers
