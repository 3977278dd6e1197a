package main

import (
	"math/bits"
	"time"
)

// Buckets of times: exact below 2^timesBits microseconds, then so many for each
// doubling, so a bucket's width is at most 1/64 of what it stands for.
const (
	timesBits    = 6
	timesOctaves = 32
	timesBuckets = timesOctaves << timesBits
)

// times counts durations in buckets. The zero value has none.
type times struct {
	n       uint64
	most    time.Duration
	buckets [timesBuckets]uint64
}

func (t *times) add(d time.Duration) {
	t.n++
	t.most = max(t.most, d)
	t.buckets[timesBucket(uint64(max(d, 0).Microseconds()))]++
}

func timesBucket(us uint64) int {
	octave := max(0, bits.Len64(us)-timesBits-1)
	return min(octave<<timesBits+int(us>>octave), timesBuckets-1)
}

// timesFloor is the least duration of a bucket.
func timesFloor(bucket int) time.Duration {
	octave := max(0, bucket>>timesBits-1)
	return time.Duration(bucket-octave<<timesBits) << octave * time.Microsecond
}

// quantile returns the time below which a share q of all is; 0 of none.
func (t *times) quantile(q float64) time.Duration {
	left := uint64(q * float64(t.n))
	for i, n := range t.buckets {
		if n > left {
			return min((timesFloor(i)+timesFloor(i+1))/2, t.most)
		}
		left -= n
	}
	return t.most
}
