// Package link moves whole frames between TLS byte streams and the router.
//
// # The way of a frame
//
//  1. accept.go: our own listener; handshake.go: the TLS handshake in a bounded
//     goroutine; then the socket is enrolled on one loop, for good.
//  2. gnet_linux.go: gnet's epoll loop, one locked (and, when asked, pinned)
//     thread each, reads up to 64 KiB of ciphertext.
//  3. tls.go: the ciphertext is fed, record by record, to crypto/tls through a
//     transport in memory.
//  4. cut.go: whole frames are copied into engine/buf, where ownership starts,
//     and handed to Handler.Frame.
//  5. send.go: Loop.Send puts a frame into the queue of its destination, directly
//     on the same loop, else through inbox.go, spliced once a turn.
//  6. outq.go, write.go: at the end of the turn many frames become one TLS
//     record and all records one writev.
//
// # Turns
//
// A loop works in turns: gnet hands over what some sockets have received, then
// comes one call of Loop.turn (loop.go), which takes what other goroutines sent
// to the loop, tells the handler, and writes. One loop owns a connection and all
// that hangs on it. Methods whose name ends in OnLoop, and all methods of Loop
// that are not documented otherwise, may only be called from a Handler callback
// (or a Loop.Post function) on that same loop.
//
// # What gnet is used for
//
// gnet v2.10.0 gives epoll dispatch, threads and a context per connection. It
// cannot pause a connection, has no event for "writable again", loses queued
// bytes in every way of closing, and ends altogether when descriptors run out.
// What this package does instead is all in gnet_linux.go and is tried by a
// self-check at every start (check_linux.go). The package is for Linux only.
//
// # Counting
//
// Every frame given to Send ends in exactly one of: written (its last byte was
// handed to the kernel), undeliverable (given back through
// Handler.Undeliverable, still whole), lost (sealed, but the connection ended
// before the kernel took it; counted in Handler.Closed).
package link
