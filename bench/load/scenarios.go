package main

import (
	"context"
	"strings"
	"time"
)

// scenario is one way in which peers put the router under pressure.
type scenario struct {
	name, title string
	course      func(context.Context, *stage) error
	full, short form
}

// form is how large a scenario is.
type form struct {
	serve     []string      // further flags of the router
	attack    *raidRequest  // of flood
	stall     *stallRequest // of patient and disconnected
	reference time.Duration // length of the round without
	length    time.Duration // and with
	felt      felt          // what shows the attack
	feltLeast float64       // how much of it, at least
	drops     []string      // reasons for which frames may be dropped
	blocked   time.Duration // longest write of a sender that is held up, at least
	patience  time.Duration // --stall-timeout
	growth    float64       // bytes of memory that a recipient that stalls may cost
}

// felt is metrics whose sum grows when an attack takes place.
type felt struct {
	what    string
	metrics []string
}

// since returns by how much they have grown.
func (f *felt) since(before, now metrics) (n float64) {
	for _, name := range f.metrics {
		n += now[name] - before[name]
	}
	return n
}

// nodes returns how many nodes attack.
func (f *form) nodes() int {
	switch {
	case f.attack != nil:
		return f.attack.Attackers
	case f.stall != nil:
		return f.stall.Senders + 1
	}
	return 0
}

const (
	second       = time.Second
	senderBuffer = 64 << 10
	readerBuffer = 64 << 10

	// What one queue of 4 MiB may make the router grow by, bytes. Buffers are of
	// up to twice a frame's size, and the garbage collector lets the heap become
	// twice what is in use; where frames are dropped there are notices besides.
	heldUp  = 2 * 2 * 4 << 20
	dropped = 3 * 2 * 4 << 20
)

// stallOf is a stall with a body of 16 KiB, so that the router's time goes into
// bytes that wait and not into signatures.
func stallOf(senders int, perSecond float64, readPerSecond int) *stallRequest {
	return &stallRequest{Senders: senders, Body: 16 << 10, PerSecond: perSecond, BytesPerSecond: readPerSecond, SendBuffer: senderBuffer, ReceiveBuffer: readerBuffer}
}

func refused(reasons ...string) felt {
	f := felt{what: "connections refused as " + strings.Join(reasons, ", ")}
	for _, r := range reasons {
		f.metrics = append(f.metrics, `causeway_handshakes_refused_total{reason="`+r+`"}`)
	}
	return f
}

// unread are the reasons for which frames to a recipient that does not read are
// dropped.
var unread = []string{"queue-full", "recipient-gone", "no-route"}

var (
	connected = felt{"connections", []string{"causeway_connections"}}
	halves    = felt{"bytes of half-received frames", []string{"causeway_partial_bytes"}}
	bad       = felt{"bad signatures", []string{`causeway_frames_dropped_total{reason="bad-signature"}`}}
	malformed = felt{"malformed frames", []string{"causeway_malformed_total"}}
	heldOpen  = felt{"handshakes held open, or made to yield", append(refused("displaced", "timeout", "max-handshakes", "max-waiting").metrics,
		"causeway_handshakes_under_way", `causeway_handshakes_waiting{for="record"}`, `causeway_handshakes_waiting{for="room"}`)}
)

// capped has the router keep the cap that judgeMemoryCap judges, in all scenarios.
var capped = []string{"--memory", "512MiB"}

var scenarios = []*scenario{
	{
		name: "patient", title: "a recipient reads nothing, and the router is patient", course: patient,
		full:  form{serve: append([]string{"--pause-max", "30s", "--stall-timeout", "90s"}, capped...), stall: stallOf(1, 1000, 0), reference: 10 * second, length: 25 * second, blocked: 10 * second, growth: heldUp},
		short: form{serve: append([]string{"--pause-max", "30s", "--stall-timeout", "90s"}, capped...), stall: stallOf(1, 4000, 0), reference: second, length: 4 * second, blocked: 1500 * time.Millisecond, growth: heldUp},
	},
	{
		name: "stalled", title: "a recipient reads nothing", course: disconnected,
		full:  form{serve: capped, stall: stallOf(1, 500, 0), reference: 10 * second, length: 60 * second, drops: unread, patience: 20 * second, growth: dropped},
		short: form{serve: append([]string{"--stall-timeout", "2s"}, capped...), stall: stallOf(1, 1000, 0), reference: second, length: 5 * second, drops: unread, patience: 2 * second, growth: dropped},
	},
	{
		name: "byte-reader", title: "a recipient reads a byte a second", course: disconnected,
		full:  form{serve: capped, stall: stallOf(1, 500, 1), reference: 10 * second, length: 60 * second, drops: unread, patience: 20 * second, growth: dropped},
		short: form{serve: append([]string{"--stall-timeout", "2s"}, capped...), stall: stallOf(1, 1000, 1), reference: second, length: 5 * second, drops: unread, patience: 2 * second, growth: dropped},
	},
	{
		name: "crowded", title: "a recipient of many senders reads nothing", course: disconnected,
		full:  form{serve: capped, stall: stallOf(300, 1000, 0), reference: 10 * second, length: 60 * second, drops: unread, patience: 20 * second, growth: dropped},
		short: form{serve: append([]string{"--stall-timeout", "2s"}, capped...), stall: stallOf(100, 1000, 0), reference: second, length: 5 * second, drops: unread, patience: 2 * second, growth: dropped},
	},
	{
		name: "byte-senders", title: "nodes send a byte a second each", course: flood,
		full: form{serve: capped, attack: &raidRequest{Kind: attackByteSenders, Attackers: 1000, Sources: 1000, PerSecond: 200}, reference: 10 * second, length: 40 * second,
			felt: connected, feltLeast: 1000},
		short: form{serve: capped, attack: &raidRequest{Kind: attackByteSenders, Attackers: 200, Sources: 200, PerSecond: 200}, reference: second, length: 3 * second,
			felt: connected, feltLeast: 150},
	},
	{
		name: "idle", title: "nodes say nothing after their hello", course: flood,
		full: form{serve: append([]string{"--dead-after", "10m"}, capped...), attack: &raidRequest{Kind: attackIdle, Attackers: 10_000, Sources: 1000, PerSecond: 300},
			reference: 10 * second, length: 60 * second, felt: connected, feltLeast: 10_000},
		short: form{serve: append([]string{"--dead-after", "10m"}, capped...), attack: &raidRequest{Kind: attackIdle, Attackers: 500, Sources: 100, PerSecond: 300},
			reference: second, length: 4 * second, felt: connected, feltLeast: 400},
	},
	{
		name: "half-open", title: "strangers hold handshakes open, each of an address of its own; half of them have sent a ClientHello", course: flood,
		full: form{serve: capped, attack: &raidRequest{Kind: attackHalfOpen, Attackers: 5000, Sources: 5000, PerSecond: 2000}, reference: 10 * second, length: 30 * second,
			felt: heldOpen, feltLeast: 4000},
		short: form{serve: capped, attack: &raidRequest{Kind: attackHalfOpen, Attackers: 500, Sources: 500, PerSecond: 500}, reference: second, length: 3 * second,
			felt: heldOpen, feltLeast: 400},
	},
	{
		name: "half-frames", title: "nodes send the first half of a frame of 1 MiB", course: flood,
		full: form{serve: capped, attack: &raidRequest{Kind: attackHalfFrames, Attackers: 1000, Sources: 1000, PerSecond: 100, Actions: 800}, reference: 10 * second, length: 40 * second,
			felt: halves, feltLeast: 64 << 20},
		short: form{serve: capped, attack: &raidRequest{Kind: attackHalfFrames, Attackers: 100, Sources: 100, PerSecond: 200, Actions: 3200}, reference: second, length: 4 * second,
			felt: halves, feltLeast: 16 << 20},
	},
	{
		name: "bad-signatures", title: "nodes send frames with bad signatures", course: flood,
		full: form{serve: capped, attack: &raidRequest{Kind: attackBadSignatures, Attackers: 50, Sources: 50, PerSecond: 50, Actions: 2000}, reference: 10 * second, length: 20 * second,
			felt: bad, feltLeast: 10_000, drops: []string{"bad-signature", "closing"}},
		short: form{serve: capped, attack: &raidRequest{Kind: attackBadSignatures, Attackers: 50, Sources: 50, PerSecond: 50, Actions: 2000}, reference: second, length: 3 * second,
			felt: bad, feltLeast: 500, drops: []string{"bad-signature", "closing"}},
	},
	{
		name: "garbage", title: "strangers send what is no TLS", course: flood,
		full: form{serve: capped, attack: &raidRequest{Kind: attackGarbage, Attackers: 1000, Sources: 1000, PerSecond: 1000}, reference: 10 * second, length: 20 * second,
			felt: refused("not-tls"), feltLeast: 2000},
		short: form{serve: capped, attack: &raidRequest{Kind: attackGarbage, Attackers: 500, Sources: 500, PerSecond: 500}, reference: second, length: 3 * second,
			felt: refused("not-tls"), feltLeast: 100},
	},
	{
		name: "bad-frames", title: "nodes send what is no frame", course: flood,
		full: form{serve: capped, attack: &raidRequest{Kind: attackBadFrames, Attackers: 200, Sources: 200, PerSecond: 200}, reference: 10 * second, length: 20 * second,
			felt: malformed, feltLeast: 1000},
		short: form{serve: capped, attack: &raidRequest{Kind: attackBadFrames, Attackers: 100, Sources: 100, PerSecond: 200}, reference: second, length: 3 * second,
			felt: malformed, feltLeast: 50},
	},
	{
		name: "connects", title: "strangers connect and close", course: flood,
		full: form{serve: capped, attack: &raidRequest{Kind: attackConnects, Attackers: 200, Sources: 1000, PerSecond: 3000}, reference: 10 * second, length: 20 * second,
			felt: refused("gone"), feltLeast: 5000},
		short: form{serve: capped, attack: &raidRequest{Kind: attackConnects, Attackers: 200, Sources: 200, PerSecond: 1000}, reference: second, length: 3 * second,
			felt: refused("gone"), feltLeast: 100},
	},
}
