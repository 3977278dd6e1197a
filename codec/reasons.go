package codec

// GoodbyeReason says why an end leaves a connection (PROTOCOL.md section 5.3).
type GoodbyeReason uint8

// Reasons for a goodbye.
const (
	GoodbyeDone          GoodbyeReason = 1  // this end has nothing more to say
	GoodbyeDraining      GoodbyeReason = 2  // this router stops; use another
	GoodbyeReplaced      GoodbyeReason = 3  // a newer connection of the same address came
	GoodbyeVersion       GoodbyeReason = 4  // protocol version or software version refused
	GoodbyeClock         GoodbyeReason = 5  // send time of the hello too far from this end's clock
	GoodbyeRole          GoodbyeReason = 6  // role in hello and certificate do not fit, or a router was required
	GoodbyeExpired       GoodbyeReason = 7  // a certificate of this connection has expired
	GoodbyeRevoked       GoodbyeReason = 8  // a certificate of this connection is revoked
	GoodbyeProtocol      GoodbyeReason = 9  // malformed or forbidden input
	GoodbyeBadSignatures GoodbyeReason = 10 // too many frames with bad signatures
	GoodbyeIdle          GoodbyeReason = 11 // nothing came for the dead-after or idle time
	GoodbyeLimit         GoodbyeReason = 12 // a limit of connections or memory
	GoodbyeStalled       GoodbyeReason = 13 // the receiver of this message read too slowly

	goodbyeLast = GoodbyeStalled
)

var goodbyeLabels = [goodbyeLast + 1]string{
	GoodbyeDone:          "done",
	GoodbyeDraining:      "draining",
	GoodbyeReplaced:      "replaced",
	GoodbyeVersion:       "version",
	GoodbyeClock:         "clock",
	GoodbyeRole:          "role",
	GoodbyeExpired:       "expired",
	GoodbyeRevoked:       "revoked",
	GoodbyeProtocol:      "protocol",
	GoodbyeBadSignatures: "bad-signatures",
	GoodbyeIdle:          "idle",
	GoodbyeLimit:         "limit",
	GoodbyeStalled:       "stalled",
}

// labelUnknown is the label of values that are no constants.
const labelUnknown = "unknown"

func (r GoodbyeReason) known() bool { return r >= GoodbyeDone && r <= goodbyeLast }

// String returns the reason's metric and CLI label.
func (r GoodbyeReason) String() string {
	if !r.known() {
		return labelUnknown
	}
	return goodbyeLabels[r]
}

// GoodbyeReasons returns all reasons, for metrics that begin at zero.
func GoodbyeReasons() []GoodbyeReason { return enumerate(GoodbyeDone, goodbyeLast) }

// NoticeReason says why frames were not delivered (PROTOCOL.md section 6).
type NoticeReason uint8

// Reasons of a notice.
const (
	NoticeNoRoute       NoticeReason = 1 // the recipient is not known here
	NoticeTTLSpent      NoticeReason = 2
	NoticeNotPermitted  NoticeReason = 3 // wrong domain, category not allowed, or a plain body that the recipient does not take
	NoticeQueueFull     NoticeReason = 4
	NoticeRecipientGone NoticeReason = 5 // the connection ended before the frame was handed to the network
	NoticeUnconfirmed   NoticeReason = 6 // it ended afterwards: perhaps delivered
	NoticeLate          NoticeReason = 7 // send time outside the maximal skew of the router's clock
	NoticeTooLarge      NoticeReason = 8 // the body is larger than the recipient takes

	noticeLast = NoticeTooLarge
)

var noticeLabels = [noticeLast + 1]string{
	NoticeNoRoute:       "no-route",
	NoticeTTLSpent:      "ttl",
	NoticeNotPermitted:  "not-permitted",
	NoticeQueueFull:     "queue-full",
	NoticeRecipientGone: "recipient-gone",
	NoticeUnconfirmed:   "unconfirmed",
	NoticeLate:          "late",
	NoticeTooLarge:      "too-large",
}

func (r NoticeReason) known() bool { return r >= NoticeNoRoute && r <= noticeLast }

// String returns the reason's metric and CLI label.
func (r NoticeReason) String() string {
	if !r.known() {
		return labelUnknown
	}
	return noticeLabels[r]
}

// NoticeReasons returns all reasons, for metrics that begin at zero.
func NoticeReasons() []NoticeReason { return enumerate(NoticeNoRoute, noticeLast) }

func enumerate[R ~uint8](first, last R) []R {
	all := make([]R, 0, last-first+1)
	for r := first; r <= last; r++ {
		all = append(all, r)
	}
	return all
}
