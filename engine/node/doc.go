// Package node is the far end of the network: it connects a program to a router
// as a member of its domain, so that the program can send messages to other
// members and receive theirs.
//
// # A connection
//
// Connect dials the routers of Config.Routers in turn until one has accepted
// the node: TLS 1.3 with certificates on both sides, then an exchange of hellos
// (PROTOCOL.md section 4); with Config.Listen it does not wait for that, and no
// router that can't be reached or refuses ends it: Router and Stats tell. From then on
// the Node keeps itself connected: it
// notices a dead connection, and dials the list again with jittered exponential
// backoff until Close, or until a reason comes up that no further attempt can
// mend (ErrReplaced, a revoked or expired certificate); Done and Err tell.
//
// # Sending
//
// Send seals and queues a message. It blocks, with its context, while there is no
// session with the recipient, while that gives no credit, while the queue is full or
// no router is connected. Messages are signed just before they are written: those
// that wait together then, as they do while a node sends much, share a signature
// (bursts, PROTOCOL.md section 2); one that waits alone has its own, and is never
// delayed for the sake of others. The Sent that Send returns can be asked for
// more: Confirmed waits until the router has counted the frame, Seen until the
// recipient says that it has it. A *NoticeError says why a message was not
// delivered. What Send accepted is never lost in silence: it is sent on the next
// connection, or its Sent gets an error.
//
// # Without a router
//
// Nodes that Config.Listen lets in (PROTOCOL.md section 4.2) are sent what is for
// them over their own connection, in a queue of its own (Config.SendQueue); what
// waits there when they leave gets an *UnsentError, and later messages go by routers,
// if there are any. A node with Config.Direct has such a connection in place of a
// router: what is for others fails with a *DirectError. Confirmed then means that
// the recipient itself has counted the frame. Nobody forwards.
//
// # Changing routers
//
// A router that stops says so some seconds before ("draining"). The Node connects
// to another one, of those that the router names, then of Config.Routers, all
// verified alike; has confirmed what it had written, says goodbye, and reads the
// old connection until the router closes it. From the router's word on nothing
// new is written there: what is queued goes out on the next connection. When no
// other router answers within 2 s the Node leaves all the same and goes on
// dialling; Send then waits, with its context.
//
// The members of a domain do not arrive at their next router at the same moment.
// So, while the Node changes routers and for Config.ResendTime (5 s) after that,
// "no route" and "recipient gone" are no outcome: the frame is sent again, byte
// for byte, with pauses of up to half a second, for as long from its first notice
// on; only then its Sent gets the *NoticeError. Recipients drop copies. Later
// messages to the same recipient wait, so their order holds; in Config.SendQueue,
// so Send waits too when that is full. Messages to others go on. For this the
// last 8 MiB of what was written are kept for 30 s (Config.ResendQueue); what is
// not there any more is told at once. Frames that a notice calls perhaps
// delivered are never sent again.
//
// What was written to a connection and not confirmed when it ended has an
// *UnconfirmedError; it is counted in Stats, in the log line about the
// connection, and in the *CloseError of Close. After a router has drained there
// is none; when it was killed there may be.
//
// # Notices that count
//
// A notice may say how many frames it means, and from when to when they were
// sent, instead of listing them. Of the last 65,536 frames those are meant that
// went to that recipient in that time and have no other outcome, when they are
// not more than it counts: each Sent gets the *NoticeError. When they are more
// nobody can tell which; then only Config.OnNotice and Stats.NoticesAmbiguous
// learn of it.
//
// # Receiving
//
// Everything received is verified again, whatever routers did: certificate
// chain, address, signature, send time, and that it has not come before. The
// connection is read whether or not Receive is called. Echo and receipt requests are
// answered without the application.
//
// # Sessions
//
// Two nodes seal what they send each other, with keys of their own that are made
// anew every ten minutes and then erased (PROTOCOL.md section 15): no router can read
// a message, nor can who learns a node's key later. All of that is done by Send and
// Receive. The first message to a recipient makes the session, which takes a round
// trip. When the recipient is not connected Send fails with the *NoticeError that
// says so; when nothing comes of it, it tries on until its context ends. A
// recipient that was started anew does not know the session: what was under way to it
// gets a *NoticeError ("recipient gone"), and the next message makes a new session.
//
// Sealed messages come in the order in which they were sent. One that is missing is
// waited for 200 ms; what comes later is dropped (Stats.Dropped, "session-late").
// What waits for Receive is its sender's credit, Config.Window for each: a node that
// reads slowly has its senders' Send wait, and loses nothing, as long as all that waits
// is within Config.SealedQueue. When the recipient has no credit to give for a second,
// it is asked for some. A message that is larger than its whole window waits until ctx
// ends, since what others have waiting there makes a window look small.
//
// Sessions tells an operator with whom there are any. Keys can't be had.
//
// # Plain bodies
//
// Bodies that the routers of the domain can read are sent with Config.Plain and
// taken with Config.AcceptPlain, so both ends have to say that they want it: neither
// is ever fallen back to. Device traffic (category 5) is always sealed. Plain bodies
// have no credit: what waits for Receive is bounded (Config.ReceiveQueue); beyond that
// messages are dropped, counted, and their senders told.
//
// # Renewal and revocation
//
// Renew makes a node go on under a newer certificate, for the same key or
// another, on the connection it has: the router is told before the first message
// that is signed with it. Revocation lists that the router sends are checked like
// those of a trust store and taken when they are newer; senders they name are
// refused from then on, and sessions with them erased. Send to one of them fails with a
// *RevokedError, unless it answers within 2 s under another certificate; for the next
// 10 s Send fails at once.
//
// # Inside
//
// One goroutine (run.go) owns the life of the node; a connection has a reader
// (control.go, receive.go) and a writer (write.go, sign.go, take.go); replies are
// queued by one more (answer.go), and what is due in sessions is done by one
// (duemember.go). Nodes that connect are let in by one for each place that is listened
// on, and looked after by one each (accept.go, peers.go). Locks, in the order in which
// they may be held together: receiving.mu, sessions.mu, peers.mu, then one
// outgoing.mu; those of the other parts
// (deliveries, answers, echoes, names) guard their own maps and queues, and no
// other lock is taken while one of them is held, nor while randomness is read
// (Config.Rand), which may be under any of them. What decides without I/O takes
// (event, now) and is tested by itself: hello.go, dedup.go, pending.go,
// certs.go, recent.go, kept.go, resend.go, backoff.go, revoked.go (parts of
// lists).
package node
