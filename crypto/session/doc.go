// Package session lets two nodes agree on keys, and seals and opens the bodies
// they send each other (PROTOCOL.md section 15).
//
// It is pure: verified frames, what an application sends, and the time go in;
// frames to sign, messages in order, and the next deadline come out. The caller
// signs and verifies, drops duplicate frames, keeps one Peer for each address, and
// runs all Peers of a Local on one goroutine.
//
//	peer.go       a peer, its events; send.go, receive.go the way of a message
//	handshake.go  M1 and M2, from either side; change.go which session is in use
//	tick.go       what only time brings: repetition, renewal, erasure
//	order.go      gaps, and order across a change of sessions
//	credit.go     how much may be under way
//	message.go    the bodies of category 1
//	keys.go       key agreement; aead.go which AEAD; replay.go counters that came
//	limits.go     what handshakes may cost; drop.go why a frame was dropped
//
// A Peer survives every drop: what is refused changes nothing but counters and
// budgets, except that a peer which exceeds its credit loses that session.
package session
