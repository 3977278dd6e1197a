// Package engine decides for every frame where it goes, and wires everything
// that decision needs.
//
// # Packages
//
//	cmd/causeway        verbs: one file and one script test each
//	bench/load          the router measured from outside; imports nothing of engine
//	engine              the decision per frame; the wiring of all below
//	engine/link         byte streams: loops, TLS, cutting, outbound queues
//	engine/gate         who may connect: firewall, limits per source
//	engine/verify       frames waiting for a verdict in a worker pool
//	engine/table        recipient address → destination, read without locks
//	engine/route        by which link each router is reached, and who is attached to it
//	engine/simnet       a network in memory, for tests
//	engine/admin        what an operator sees
//	engine/buf          frame memory
//	engine/node         the far end: the library of nodes
//	crypto/sign         signatures of frames
//	crypto/pki          certificates, domains, trust store
//	crypto/session      keys between two nodes, sealed bodies, their order and credit
//	codec               bytes on the wire ↔ structs; PROTOCOL.md
//
// Imports go down this list only; tidy_test.go has the exact table. The parts
// of engine never import each other, except buf: they meet here.
//
// # Life of a frame
//
//  1. link: accept.go accepts, handshake.go does TLS in a goroutine; Handshaken
//     (admit.go) verifies the certificate and makes a peer.
//  2. link: a loop wakes, decrypts, cuts; the frame is copied once, into buf.
//  3. peer.go, frame: cheap rules (section 8 of PROTOCOL.md, 2 to 6), then the
//     peer's verify.Ring. What a loop gathers in a turn goes to the workers once.
//     With --verify none a frame before which nothing waits goes on at 5.
//     Frames of another router: linkframe.go; or rooms.go, where they wait until
//     their sender's certificate has been fetched (fetcher.go, fetch.go).
//  4. verify: a worker checks the signature and notifies the connection. A few
//     messages of link control, which decide on what is behind them, are checked on
//     the loop instead (peer.go, renewalFrame, settlingFrame), so many a second.
//  5. forward.go, on the home loop, in order: the other rules, Router.lookup; or
//     hold.go, where frames wait for who has just left.
//  6. link: the destination's queue, on this loop or through another's inbox;
//     one TLS record for many frames, one writev a turn.
//
// Every frame ends in exactly one of forwarded (handed to the kernel), consumed,
// or dropped with a reason (counters.go), and
//
//	cut = forwarded - made here + consumed + dropped + in flight
//
// holds at every moment; in flight is zero when the router is quiet.
//
// # Between routers
//
// A recipient may be connected to another router. Then the table has the number of
// that router, and hops.go the link that leads there (engine/route).
//
//	neighbour.go, proofs.go, dial.go, relink.go   links: who is there, for which domains
//	linkroutes.go                                 what neighbours and routing say to each other
//	attach.go                                     what routing and the loops tell each other of nodes
//	routing.go, mailbox.go                        the goroutine that owns the routes of all domains
//	places.go                                     what it finds, in table and hops
//	hops.go                                       lookup
//	linkframe.go, stranded.go                     frames from links; frames whose link has ended
//
// Frames for who is connected here go there, even if another router has the
// address later; routing asks such a node for an answer, and leaves it without.
// When it is gone routing puts the other router in its place.
//
// # The end of a router
//
// drain.go has the order of it (PROTOCOL.md section 5.3): other routers go around
// this one, nodes leave, frames follow them by the links, links end last.
//
// # Who may touch what
//
// A peer belongs to the loop of its connection. members.go, the router's view of
// who is connected in a domain, is for control messages, and for the first frames
// of senders elsewhere (keys.go), and has a mutex.
// Frames meet no mutex but one per turn and loop, and, while somebody has just
// left, one for frames that find nobody (hold.go).
package engine
