package session

// Credit (PROTOCOL.md section 15.10). The sender's end:
//
//	counters: … c ┊ charges of what was sent after c, in all at most w ┊ last
//
// The receiver's:
//
//	total:    0 … charges of what came …  limit, the highest of all grants
const (
	// WindowDefault is the window of credit in bytes.
	WindowDefault = 4 << 20

	chargePerMessage = 256 // bytes, besides the body
)

// Charge returns what a message costs of the credit: its frame's body length,
// sealed, in bytes, and something for each.
func Charge(bodySize int) int { return bodySize + chargePerMessage }

// charge is of one message under way.
type charge struct {
	counter uint32 // counters stay below 2^32
	bytes   uint32
}

// outbound is what this end may send in a session.
type outbound struct {
	granted     uint64        // w of the newest grant
	grantedBy   uint64        // that grant's own counter
	outstanding uint64        // sum of underWay
	underWay    queue[charge] // what was sent after c, with a charge; at most granted / 256
}

// covers reports whether a message with that charge may be sent.
func (o *outbound) covers(bytes int) bool { return o.outstanding+uint64(bytes) <= o.granted }

func (o *outbound) sent(counter uint64, bytes int) {
	o.underWay.push(charge{uint32(counter), uint32(bytes)})
	o.outstanding += uint64(bytes)
}

// grant takes the grant (c, w) that came under the counter by. Of two the later
// counts.
func (o *outbound) grant(by, c uint64, w uint32) {
	if by < o.grantedBy {
		return
	}
	o.grantedBy, o.granted = by, uint64(w)
	for o.underWay.len() > 0 && uint64(o.underWay.front().counter) <= c {
		o.outstanding -= uint64(o.underWay.front().bytes)
		o.underWay.pop()
	}
}

// inbound is what the peer may send in a session.
type inbound struct {
	total    uint64 // charges of what came
	limit    uint64 // total may come to this
	grantedC uint64 // c of the last grant
}

// arrived charges a message and reports whether the peer had the credit. One at
// or below the last grant's counter was sent under an earlier grant, and its
// sender has not charged it to the last one.
func (i *inbound) arrived(counter uint64, bytes int) bool {
	i.total += uint64(bytes)
	if counter <= i.grantedC {
		i.limit += uint64(bytes)
	}
	return i.total <= i.limit
}

// raise is by how much a grant of w bytes now would raise the limit; negative
// when it would not.
func (i *inbound) raise(w uint64) int64 { return int64(i.total+w) - int64(i.limit) }

// grant takes note of the grant (c, w) that is sent now.
func (i *inbound) grant(c, w uint64) {
	i.limit = max(i.limit, i.total+w)
	i.grantedC = c
}
