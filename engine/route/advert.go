package route

import (
	"bytes"
	"cmp"

	"causeway/codec"
)

const infinity = codec.MetricInfinity

// stamp orders what a router says of its own address: by source, then by
// sequence number.
type stamp struct {
	codec.Source
	seqno uint16
}

// advert is a route as it is announced.
type advert struct {
	stamp
	metric uint16
}

var retracted = advert{metric: infinity}

// isNewerSeqno compares modulo 2^16 (RFC 8966 section 3.2.1).
func isNewerSeqno(a, b uint16) bool { return int16(a-b) > 0 }

// compareSources is negative when a is the older of two sources of one router.
func compareSources(a, b codec.Source) int {
	if c := cmp.Compare(a.Epoch, b.Epoch); c != 0 {
		return c
	}
	return bytes.Compare(a.ID[:], b.ID[:])
}

func (s stamp) isNewer(than stamp) bool {
	if c := compareSources(s.Source, than.Source); c != 0 {
		return c > 0
	}
	return isNewerSeqno(s.seqno, than.seqno)
}

// next is the stamp to ask for when s is not enough.
func (s stamp) next() stamp {
	s.seqno++
	return s
}

// isBetter is the order of the feasibility condition (RFC 8966 section 3.5.1),
// with source and sequence number in the place of the sequence number.
func (a advert) isBetter(than advert) bool {
	return a.stamp.isNewer(than.stamp) || a.stamp == than.stamp && a.metric < than.metric
}

// sum adds costs to a metric; the result is at most infinity (RFC 8966 section
// 3.5.2).
func sum(metric uint16, cost ...uint16) uint16 {
	total := uint32(metric)
	for _, c := range cost {
		total += uint32(c)
	}
	return uint16(min(total, infinity))
}
