// Package node is the far end of the network: it connects a program to a router
// as a member of its domain, so that the program can send messages to other
// members and receive theirs.
//
// # A connection
//
// Connect dials the routers of Config.Routers in turn until one has accepted
// the node: TLS 1.3 with certificates on both sides, then an exchange of hellos
// (PROTOCOL.md section 4). From then on the Node keeps itself connected: it
// notices a dead connection, and dials the list again with jittered exponential
// backoff until Close, or until a reason comes up that no further attempt can
// mend (ErrReplaced, a revoked or expired certificate); Done and Err tell.
//
// # Sending
//
// Send signs a message and queues it. It blocks, with its context, while the
// queue is full or no router is connected. The Sent it returns can be asked for
// more: Confirmed waits until the router has counted the frame, Seen until the
// recipient says that it has it. A *NoticeError says why a message was not
// delivered. What Send accepted is never lost in silence: it is sent on the next
// connection, or its Sent gets an error.
//
// # Receiving
//
// Everything received is verified again, whatever routers did: certificate
// chain, address, signature, send time, and that it has not come before. What
// waits for Receive is bounded; beyond that messages are dropped, counted, and
// their senders told. Echo and receipt requests are answered without the
// application.
//
// # Plain bodies
//
// Sealed bodies need sessions, which this version does not have. Bodies travel
// readable by the routers of the domain, so both ends have to say that they
// want it: Config.Plain to send, Config.AcceptPlain to receive.
//
// # Renewal and revocation
//
// Renew makes a node go on under a newer certificate, for the same key or
// another, on the connection it has: the router is told before the first message
// that is signed with it. Revocation lists that the router sends are checked like
// those of a trust store and taken when they are newer; senders they name are
// refused from then on.
//
// # Inside
//
// One goroutine (run.go) owns the life of the node; a connection has a reader
// (control.go, receive.go) and a writer (write.go); replies are signed and
// queued by one more (answer.go). Locks, in the order in which they may be held
// together: receiving.mu, then outgoing.mu; those of the other parts
// (deliveries, answers, echoes, names) guard their own maps and queues, and no
// other lock is taken while one of them is held. What decides without I/O takes
// (event, now) and is tested by itself: hello.go, dedup.go, pending.go,
// certs.go, recent.go, backoff.go, revoked.go (parts of lists).
package node
