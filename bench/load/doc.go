// Command load measures the router from outside.
//
//	go run ./bench/load              throughput per second of CPU time, and the time of a lone frame
//	go run ./bench/load chain        the same through routers in a row
//	go run ./bench/load peers        the same beside nats-server and Tailscale's DERP server
//	go run ./bench/load idle         memory of idle connections
//	go run ./bench/load pressure     what one slow or hostile peer costs the others
//	go run ./bench/load flood        how long a new node takes to connect while
//	                                 others hold handshakes open
//
// # Who is measured
//
// Five variants take turns, slice by slice, each a process of its own pinned to
// one core, with the same certificates:
//
//	echo        plain crypto/tls: what a connection sends comes back to it
//	forwarder   goroutine per connection, bufio, a writer goroutine each, the
//	            same routing by a map; no rule, no signature, no bound of memory
//	none        the router, signatures unchecked
//	all         the router, every signature checked, one of each frame
//	bursts      the same, the frames signed in bursts of 64
//
// --conns says how many nodes receive, --signers how many send. A router takes from
// a connection only what that node has signed, and of two connections of one node
// the newer replaces the older (PROTOCOL.md sections 4 and 8), so each signer has a
// connection of its own: 1,000 signers to 8 receivers are 1,000+8 connections.
// Routers have the tables of all signers before anything counts: the load sends until
// their metrics say so. The report says where they do not fit.
//
// The frames of a burst go to the receivers in turn, as those do that are signed one
// by one, and are marked as sealed, so that they may (section 2). A sender sends
// whole bursts, and there are more different ones than a router remembers, so that
// each costs a check of its signature when it comes again; with bodies of 16 KiB
// there are too few for that, and the check is below a hundredth of their hashing.
// Each frame of a burst has 196 bytes more.
//
// The load has a process and a core of its own. It signs ahead; one goroutine
// drives all connections through epoll, seals TLS records itself, and counts
// what arrives by the lengths of records without opening them, but for one
// record of each connection and slice whose frame it checks (sample.go). So it
// costs less than what it measures. A slice in which its core was more than 90%
// busy, whoever kept it so, is void.
//
// # The life of a slice
//
//  1. frames older than a part of the router's --max-skew are signed again
//  2. senders send while less than a bounded number of bytes is under way (the window,
//     far below any queue's bound, so that nothing is ever dropped)
//  3. after a warm-up, counters and clocks are read; again at the slice's end
//  4. sending stops, all that is under way must arrive
//
// Messages per CPU-second is what arrived between the two readings over the CPU
// time of the process under test, utime + stime of all its threads. The ratios
// are those of one round; the report has medians and quartiles over the rounds.
//
// # What is ideal
//
// A message of b bytes costs at least opening and sealing b bytes (AES-GCM,
// about 5 GB/s each way in Go on Zen 4) and its share of a read and a write of
// many records. TLS echo pays just that, so a ratio of 1 to it is a router
// without cost of its own when records are full; for small frames sent to many
// connections the bound is system calls, each connection needs its own write;
// with signatures checked it is one Ed25519 verification a message, or of bursts a
// 64th of one, two or three hashes, and the longer frame.
//
// # Other servers
//
// The verb peers has none, all and bursts take turns with two other servers, which
// check no signature:
//
//	nats        nats-server: a subject for each receiver, payloads of the body's size
//	derp        derper, Tailscale's relay: packets of the body's size to a receiver's key
//
// Both are the programs as their projects build them, of versions that bench/peers
// pins, with the router's certificate, TLS 1.3 with AES-128-GCM, one core, and what
// else they have by default. The load speaks their protocols itself, over the same
// number of connections; messages are made ahead and go to the receivers in turn,
// as frames do. What comes is opened, cut, and compared with what was sent, message
// by message, and only what is the same counts. So the load has more to do for each
// message than with the router, which is why its share is in the report too.
//
// What is under way is bounded here by messages to each receiver, the same for all
// variants, and a write has as many messages for all (pace.go). A DERP server keeps
// 32 packets for a client and then drops the oldest; a nats-server cuts off a client
// that lets 64 MiB gather. Nothing of that happens within the bound, and a message
// that does not arrive makes the run fail. The first bound is 32. Since a server
// works more cheaply the more there is to take at a time, 128 and 512 follow, where
// that is not too much in all; for them the DERP server is told to keep as many
// packets, which spares it from dropping them.
//
// # Lone frames
//
// The time of a frame that is alone in the process is that from its write to its
// whole arrival, one sender, one receiver, a frame a millisecond. It has a plain
// signature, as every frame that waits alone, and the router has its signer's
// table. The bound is 1.3 times that of the echo and one signature check, by
// the table, measured in the same run.
//
// # Routers in a row
//
// The variants of chain are one router, and rows of two and three that are joined by
// a link each (--connect) and serve one domain: senders at the first, receivers at
// the last. All routers of a row are pinned to the same core and have CPU clocks of
// their own, so that the figure of each is what arrived over its own time, beside
// the one router of the same round with as many connections. They take turns on
// their core as the kernel has it, so each finds more to do when its turn comes than
// it would on a core of its own. Nothing is sent before each router lists all others
// with their nodes (/debug/routes), and each sender's first frame has arrived, for
// which routers that verify have asked for its certificate. Each router must have
// forwarded what was sent, and dropped nothing: a router pauses nodes when a queue
// has no room, but no router, so less is under way than elsewhere (chainWindow).
//
// With verify edge only the first router checks signatures. The frames are the same
// bytes in all variants.
//
// # Pressure
//
// The scenarios of pressure have a router with an operator's flags on one core,
// and processes of their own on the other: legitimate traffic (traffic.go) at
// half of the rate that its nodes and the router sustain, which is measured
// first; a crowd (crowd.go) of attackers, or of nodes that send to one that
// does not keep up, whose rates are capped; and nodes that connect one after
// another. A round without is compared with one with:
//
//  1. warm: nothing is judged until the router has tables of all senders
//  2. reference: the attackers are aimed at a port on the router's core that
//     closes at once (sink.go), so that the kernel has the same to do
//  3. attack: they are aimed at the router
//
// Legitimate frames are due at a steady rate, whatever becomes of earlier ones,
// and their times count from when they were due. Each must arrive, once and in
// order, or the scenario fails. Rates and times tell nothing when the load's
// core was more than 90% busy or others used the router's core: then the
// scenario is void and tried again, at a lower rate if it was the load's core, and
// the last time in any case. --short has a few seconds of each, for machines that
// have other work too: its bounds on rates and times are loose, and left out when
// void; those on memory and on what became of each frame are the same.
//
// The 99th percentile of legitimate frames may double beside a recipient that
// stalls, or grow to 10 ms, if that is more: the load shares its core with the
// attackers, and one turn that the scheduler gives to them, or the hypervisor to
// other machines, takes some milliseconds.
//
// # Accounting
//
// The kernel's part of loopback, the softirq that receives what a process
// sends, runs on the sender's core and in its time, because processes are
// pinned; a kernel with CONFIG_IRQ_TIME_ACCOUNTING would leave it out.
package main
