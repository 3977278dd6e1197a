package engine

import "sync/atomic"

// dropReason is why a frame was dropped. Its String is the label "reason" of
// causeway_frames_dropped_total, and the word used in PROTOCOL.md section 8.
type dropReason uint8

const (
	dropNone               dropReason = iota // not dropped
	dropBeforeHello                          // any frame but hello before hello was accepted; closes
	dropClosing                              // came after this router had said goodbye
	dropForeignSender                        // a node sent as another
	dropUnknownCertificate                   // under a certificate it had not announced
	dropCategory                             // a category that may not go there, or with the wrong flag
	dropBadSignature
	dropBlockedSender // of a sender that the link is blocked for
	dropLate          // send time outside the maximal skew
	dropForgedNotice  // a notice about frames that were not for its sender
	dropForeignDomain // recipient in another domain
	dropTTL
	dropNoRoute
	dropTooLarge // larger than the recipient said it takes
	dropQueueFull
	dropRecipientGone // its connection ended before the frame was handed to the kernel
	dropProtocol      // link control that breaks the protocol; closes
	dropEchoRate      // echo requests to the router beyond their rate
	dropNoticeRate    // notices of one node beyond their rate
	dropShutdown      // left over when this router stopped
	dropReasons
)

var dropNames = [dropReasons]string{
	dropNone:               "",
	dropBeforeHello:        "before-hello",
	dropClosing:            "closing",
	dropForeignSender:      "foreign-sender",
	dropUnknownCertificate: "unknown-certificate",
	dropCategory:           "category",
	dropBadSignature:       "bad-signature",
	dropBlockedSender:      "blocked-sender",
	dropLate:               "late",
	dropForgedNotice:       "forged-notice",
	dropForeignDomain:      "foreign-domain",
	dropTTL:                "ttl",
	dropNoRoute:            "no-route",
	dropTooLarge:           "too-large",
	dropQueueFull:          "queue-full",
	dropRecipientGone:      "recipient-gone",
	dropProtocol:           "protocol",
	dropEchoRate:           "echo-rate",
	dropNoticeRate:         "notice-rate",
	dropShutdown:           "shutdown",
}

func (r dropReason) String() string { return dropNames[r] }

// counters are one loop's. Only that loop adds, anyone reads.
type counters struct {
	received     atomic.Uint64 // cut, other than link control
	control      atomic.Uint64 // cut, link control
	linkIn       atomic.Uint64 // of received: cut from links
	linkOut      atomic.Uint64 // sealed for links, other than link control
	consumed     atomic.Uint64 // handled here: link control, echo to this router
	noticed      atomic.Uint64 // frames that notices told of, listed or counted
	unnoticed    atomic.Uint64 // frames whose sender could not be told: gone, or too many kinds of trouble at once
	unconfirmed  atomic.Uint64 // forwarded to a recipient whose connection ended before it had said to have them
	ledger       atomic.Int64  // bytes of memory of the peers' ledgers
	stalled      atomic.Uint64 // nodes disconnected because they did not read
	blocked      atomic.Uint64 // senders, on a link
	blockedThere atomic.Uint64 // senders, as neighbours have told
	paused       atomic.Uint64 // times a node was not read because a queue was full
	unanswered   atomic.Uint64 // requests beyond a node's rate, or for which there was no memory
	pressed      [pressedEffects]atomic.Uint64
	askedToLeave atomic.Uint64 // peers asked to leave, since this router stops
	drained      [drainEnds]atomic.Uint64
	suites       suites // connections, dialed ones too
	dropped      [dropReasons]atomic.Uint64
}

// Counts is a snapshot of a router's frame counters. Frames of all kinds count.
type Counts struct {
	Cut         uint64            // whole frames received
	Forwarded   uint64            // handed to the kernel for another's connection
	Consumed    uint64            // handled by this router
	Dropped     map[string]uint64 // by reason
	Made        uint64            // made here and handed to the kernel
	Unconfirmed uint64            // of Forwarded: the connection ended before the recipient had said to have them
	InFlight    uint64            // cut, and not yet any of the above
}

// DroppedSum returns how many frames were dropped for all reasons together.
func (c Counts) DroppedSum() (sum uint64) {
	for _, n := range c.Dropped {
		sum += n
	}
	return sum
}
