package engine

import (
	"time"

	"causeway/codec"
)

// A ledger lists the frames that are sealed for a peer and that it has not said
// to have received (PROTOCOL.md section 5.2): what nobody can tell the fate of if
// the connection ends now. It has the order in which the peer gets them.
//
//	1 … covered │ covered+1 … head │ head+1 … sealed
//	            │ forgotten        │ listed
//
// Bound: ledgerMax frames, and for all ledgers together a part of the cap on
// memory (ledgersPart). A peer that is asked has to answer for what it has
// received long before that, see due; one that reads and does not answer has its
// oldest frames forgotten: they are counted at the end, and no sender is told.
type ledger struct {
	isLink  bool            // frames are for many recipients
	ring    []onTheWay      // a power of two, or nil; the frame n is at n-1 of it
	to      []codec.Address // of a link: the recipients of those in ring
	head    uint64
	sealed  uint64
	covered uint64 // what the peer has said to have received
	word    uint64 // sealed when the last question or answer was
	bytes   int    // of frames sealed since then
	asked   uint64 // up to where the last question's answer will cover
	since   time.Time
}

// onTheWay is one frame; the zero value is one of this router's own.
type onTheWay struct {
	sender codec.Address // zero: of whose frames nobody is told
	sent   uint64        // send time; of a frame that was forwarded never 0
}

const (
	ledgerMin = 32
	ledgerMax = 1 << 16 // 1.5 MiB, of a link 2.5 MiB

	ledgersPart = 16 // of the cap on memory for the ledgers of all peers

	// A question costs this router two signatures' worth, one made and one
	// checked, about 75 us: at most 2% of what it costs to forward so many
	// frames or bytes without checking any.
	askFrames = 16_384
	askBytes  = 4 << 20
	// askAfter is when it asks about fewer. A neighbour is asked at each look, once a
	// second: so few frames are in doubt when a link breaks, and links are few.
	askAfter = 5 * time.Second

	onTheWaySize = 24
	linkWaySize  = onTheWaySize + codec.AddressSize
)

var _ [0]struct{} = [ledgerMax & (ledgerMax - 1)]struct{}{} // a power of two

// size returns the memory of so many places, in bytes.
func (l *ledger) size(places int) int {
	if l.isLink {
		return places * linkWaySize
	}
	return places * onTheWaySize
}

// add notes a frame of so many bytes. The ledger may grow by as much as room, in
// bytes of memory; it returns by how many it has grown.
func (l *ledger) add(f onTheWay, to codec.Address, bytes int, room int64) (grown int) {
	if n := len(l.ring); l.sealed-l.head == uint64(n) {
		more := max(ledgerMin, 2*n) - n
		if n < ledgerMax && int64(l.size(more)) <= room {
			grown = l.resize(n + more)
		} else {
			l.head++ // forgotten: the oldest, or this one
		}
	}
	if len(l.ring) > 0 {
		at := l.sealed & uint64(len(l.ring)-1)
		l.ring[at] = f
		if l.isLink {
			l.to[at] = to
		}
	}
	l.sealed++
	l.bytes += bytes
	return grown
}

// resize gives the ring n places, which hold all that is on the way.
func (l *ledger) resize(n int) (grown int) {
	old, to := l.ring, l.to
	l.ring, l.to = nil, nil
	if n > 0 {
		l.ring = make([]onTheWay, n)
		if l.isLink {
			l.to = make([]codec.Address, n)
		}
	}
	for i := l.head; i < l.sealed; i++ {
		l.ring[i&uint64(n-1)] = old[i&uint64(len(old)-1)]
		if l.isLink {
			l.to[i&uint64(n-1)] = to[i&uint64(len(old)-1)]
		}
	}
	return l.size(n - len(old))
}

// cover notes that the peer has received n frames; n is at most sealed.
func (l *ledger) cover(n uint64) {
	if n > l.covered {
		l.covered, l.word, l.bytes, l.since = n, l.sealed, 0, time.Time{}
		l.head = max(l.head, n)
	}
}

// release gives memory back that an idle connection does not need. It returns by
// how many bytes the ledger's memory has grown, which is not above 0.
func (l *ledger) release() (grown int) {
	if l.head == l.sealed && l.ring != nil {
		return l.resize(0)
	}
	return 0
}

// due tells whether the peer is to be asked now, for the number of frames or
// bytes that are on the way. At most one question is outstanding.
func (l *ledger) due() bool {
	return !l.waits() && (l.sealed-l.word >= askFrames || l.bytes >= askBytes)
}

// waits tells whether a question is outstanding.
func (l *ledger) waits() bool { return l.asked > l.covered }

// dueAt is due for time: some frame has been on the way for askAfter, or to a
// neighbour at all. It is called from time to time.
func (l *ledger) dueAt(now time.Time) bool {
	switch {
	case l.covered == l.sealed || l.waits():
		l.since = time.Time{}
	case l.isLink:
		return true
	case l.since.IsZero():
		l.since = now
	default:
		return now.Sub(l.since) >= askAfter
	}
	return false
}

// ask notes that a question follows the frames sealed so far.
func (l *ledger) ask() { l.asked, l.word, l.bytes, l.since = l.sealed, l.sealed, 0, time.Time{} }

// end goes through what is on the way when the connection ends, from the newest
// frame on. Of the frames that were forwarded, the first `lost` were not handed
// to the kernel; fn is told, of a link also the recipient.
func (l *ledger) end(lost int, fn func(f onTheWay, to codec.Address, lost bool)) {
	for i := l.sealed; i > l.head; i-- {
		at := (i - 1) & uint64(len(l.ring)-1)
		f := l.ring[at]
		if f.sent == 0 {
			continue
		}
		var to codec.Address
		if l.isLink {
			to = l.to[at]
		}
		fn(f, to, lost > 0)
		lost--
	}
	l.head = l.sealed
}
