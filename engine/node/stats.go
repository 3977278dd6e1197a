package node

import (
	"strings"
	"sync/atomic"

	"causeway/crypto/session"
)

// dropReason says why a received frame was not delivered; its label is the key
// in Stats.Dropped.
type dropReason uint8

const (
	dropForeignRecipient   dropReason = iota // not for this node
	dropCategory                             // flag or category not allowed, or of no use here
	dropLate                                 // send time outside the skew, or below the floor of section 9 rule 5
	dropUnknownCertificate                   // the router does not have it, or it does not verify
	dropCertificateTime                      // not valid at the send time
	dropWaiting                              // too many wait for a certificate
	dropBadSignature
	dropBeforeStart // sent before this node started
	dropDuplicate
	dropPlain         // plain, and Config.AcceptPlain is not set
	dropQueueFull     // Receive was not called often enough
	dropForgedNotice  // from neither a router nor the recipient
	dropMalformedBody // of a notice or an echo
	dropAnswer        // an echo that could not be answered: too many at once
	dropMembers       // of a session, and there are too many members (Config.SessionMembers), or there can be none
	dropEnded         // held for order when its session was erased
	dropSession       // + session.Drop: a session's, see there

	dropReasons = dropSession + dropReason(session.DropCredit) + 1 // how many
)

var dropLabels = makeDropLabels()

func makeDropLabels() (l [dropReasons]string) {
	copy(l[:], []string{
		"foreign-recipient", "category", "late", "unknown-certificate", "certificate-time", "waiting",
		"bad-signature", "before-start", "duplicate", "plain", "queue-full", "forged-notice", "malformed-body", "answer",
		"session-members", "session-ended",
	})
	for _, d := range session.Drops() {
		l[dropOfSession(d)] = "session-" + strings.TrimSuffix(d.String(), "-session")
	}
	return l
}

func dropOfSession(d session.Drop) dropReason { return dropSession + dropReason(d) }

// Stats is a snapshot of a node's counters since Connect, and of what waits.
type Stats struct {
	Connections    uint64 // routers that accepted this node
	ConnectFailed  uint64 // attempts that did not get so far
	ProtocolErrors uint64 // connections closed for what the other end sent
	Accepted       uint64 // connections of nodes to this one that were accepted
	AcceptFailed   uint64 // those that did not get so far, or were too many
	Peers          int    // nodes that are connected to this one

	FramesOut   uint64 // written, link control apart
	Bursts      uint64 // signatures under several frames each
	BurstFrames uint64 // frames that were signed so, written or not yet
	Resent      uint64 // of those, sent again after a notice
	BytesOut    uint64 // of all frames, before TLS
	Confirmed   uint64 // frames that routers have counted
	Unconfirmed uint64 // frames written to connections that died before that

	FramesIn  uint64 // cut, link control apart; = Delivered + Consumed + sum of Dropped + Parked + Held
	BytesIn   uint64 // of all frames, after TLS
	Delivered uint64 // given to Receive, or waiting for it
	Consumed  uint64 // notices, echoes, and what sessions say of themselves
	Dropped   map[string]uint64
	Parked    uint64 // waiting for a sender's certificate
	Held      uint64 // sealed messages that wait for earlier ones

	CertificatesAsked   uint64
	CertificatesRefused uint64 // answers that did not verify
	ListsTaken          uint64 // revocation lists of the router that were newer
	ListsRefused        uint64 // those that none of the known authorities has signed
	NamesRefused        uint64 // entries of lookups that did not verify
	NoticesIgnored      uint64 // frames in notices that this node does not remember to have sent
	NoticesAmbiguous    uint64 // frames that notices counted and that could not be told apart (NoticeError.Ambiguous)
	AnswersLost         uint64 // refused frames whose senders could not be told, and frames of category 1 that could not be queued
	CallbacksLost       uint64 // notices that Config.OnNotice was too slow for

	WaitingOutBytes   int // queued by Send, charged
	WaitingResend     int // frames to be sent again
	KeptBytes         int // of frames that could be sent again, or are to be
	Members           int // with whom there are or were sessions lately
	WaitingInMessages int // for Receive
	WaitingInBytes    int // for Receive, charged
}

// counters are what Stats copies. All are atomic.
type counters struct {
	connections, connectFailed, protocolErrors     atomic.Uint64
	accepted, acceptFailed                         atomic.Uint64
	framesOut, bytesOut, confirmed, unconfirmed    atomic.Uint64
	resent, noticesAmbiguous, bursts, burstFrames  atomic.Uint64
	framesIn, bytesIn, delivered, consumed, parked atomic.Uint64
	certificatesAsked, certificatesRefused         atomic.Uint64
	listsTaken, listsRefused, namesRefused         atomic.Uint64
	noticesIgnored, answersLost, callbacksLost     atomic.Uint64
	dropped                                        [dropReasons]atomic.Uint64
}

func (c *counters) drop(reason dropReason) { c.dropped[reason].Add(1) }

// Stats returns the counters. Each is exact; taken while frames move, they
// need not fit each other.
func (n *Node) Stats() Stats {
	c := &n.counters
	s := Stats{
		Connections: c.connections.Load(), ConnectFailed: c.connectFailed.Load(), ProtocolErrors: c.protocolErrors.Load(),
		Accepted: c.accepted.Load(), AcceptFailed: c.acceptFailed.Load(),
		FramesOut: c.framesOut.Load(), BytesOut: c.bytesOut.Load(), Confirmed: c.confirmed.Load(), Unconfirmed: c.unconfirmed.Load(),
		FramesIn: c.framesIn.Load(), BytesIn: c.bytesIn.Load(), Delivered: c.delivered.Load(), Consumed: c.consumed.Load(), Parked: c.parked.Load(),
		Bursts: c.bursts.Load(), BurstFrames: c.burstFrames.Load(),
		Resent: c.resent.Load(), NoticesAmbiguous: c.noticesAmbiguous.Load(),
		CertificatesAsked: c.certificatesAsked.Load(), CertificatesRefused: c.certificatesRefused.Load(),
		ListsTaken: c.listsTaken.Load(), ListsRefused: c.listsRefused.Load(), NamesRefused: c.namesRefused.Load(),
		NoticesIgnored: c.noticesIgnored.Load(), AnswersLost: c.answersLost.Load(), CallbacksLost: c.callbacksLost.Load(),
		Dropped: make(map[string]uint64),
	}
	for reason := range c.dropped {
		if v := c.dropped[reason].Load(); v != 0 {
			s.Dropped[dropLabels[reason]] = v
		}
	}
	n.out.mu.Lock()
	s.WaitingOutBytes, s.WaitingResend, s.KeptBytes = n.out.bytes, n.out.resends.waiting(), n.out.kept.bytes
	n.out.mu.Unlock()
	for _, c := range n.peers.all() {
		s.Peers++
		c.out.mu.Lock()
		s.WaitingOutBytes += c.out.bytes
		c.out.mu.Unlock()
	}
	n.sessions.mu.Lock()
	s.Members, s.Held = len(n.sessions.members), uint64(n.sessions.held)
	n.sessions.mu.Unlock()
	s.WaitingInMessages, s.WaitingInBytes = n.inbox.size()
	return s
}
