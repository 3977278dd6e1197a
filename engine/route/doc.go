// Package route knows, in one domain, by which link each other router is
// reached and to which router each node is attached.
//
// It implements section 14 of PROTOCOL.md: the Babel protocol (RFC 8966) for
// routers' addresses, and numbered lists of attached addresses. An Instance is
// pure: every event comes with the time, and answers with Actions: messages to
// send, changes of the forwarding table, nodes to ask for an answer, and when
// it wants to be called next. It has no goroutine, clock or lock; the caller
// serialises.
//
// # Words
//
//   - Link: a connection to another router that has proven the domain. There
//     can be several to one router.
//   - Source: one life of a router: epoch and router ID.
//   - Stamp: source and sequence number; orders what a router says of itself.
//   - Advert: a route as a neighbour announces it: stamp and metric.
//   - Distance: the feasibility distance of RFC 8966, the best advert that this
//     router has ever sent.
//   - Owner: the router that an attached address belongs to.
//
// # Why there is no loop
//
// A distance gets better only, and the selected advert is always better than
// the distance (Check has both). A neighbour's distance is at least as good as
// what it has announced. So along the next hops of one destination, adverts get
// strictly better with every hop, at any moment and whatever is under way.
//
// # Files
//
//	instance.go    events in, actions out
//	advert.go      stamps, metrics, feasibility
//	selection.go   one destination: its routes and which is selected
//	update.go      routes received and sent
//	request.go     seqno requests
//	lists.go       lists of attached addresses: flooding
//	owners.go      whose an address is; own nodes, probes
//	timers.go      what becomes due
//	settings.go    what changes while it runs; what the caller may ask
//	check.go       invariants, for tests
package route
