package node

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"causeway/codec"
)

// slowDedup says the rules of dedup as plainly as possible.
type slowDedup struct {
	framesMax, framesLeast, sendersMax, totalMax int

	floor   uint64
	floors  map[codec.Address]uint64
	seen    map[codec.Address][]uint64
	highest map[codec.Address]uint64
}

func (d *slowDedup) total() (sum int) {
	for _, times := range d.seen {
		sum += len(times)
	}
	return sum
}

func (d *slowDedup) admit(from codec.Address, at uint64) verdict {
	floor, known := d.floors[from]
	if !known {
		floor = d.floor
	}
	if at <= floor {
		return verdictLate
	}
	if d.total() >= d.totalMax || !known && len(d.floors) >= d.sendersMax {
		d.forget()
		if floor, still := d.floors[from]; still && at <= floor || known && !still && at <= d.floor {
			return verdictLate
		}
	}
	if _, still := d.floors[from]; !still {
		d.floors[from] = min(d.floor, at-1)
	}
	if slices.Contains(d.seen[from], at) {
		return verdictDuplicate
	}
	d.seen[from] = append(d.seen[from], at)
	d.highest[from] = max(d.highest[from], at)
	if len(d.seen[from]) > d.framesMax {
		d.halve(from)
	}
	return verdictNew
}

func (d *slowDedup) halve(from codec.Address) {
	slices.Sort(d.seen[from])
	half := len(d.seen[from]) / 2
	d.floors[from] = d.seen[from][half-1]
	d.seen[from] = d.seen[from][half:]
}

func (d *slowDedup) forget() {
	if d.total() >= d.totalMax {
		for from, times := range d.seen {
			if len(times) > 2*d.framesLeast {
				d.halve(from)
			}
		}
		if d.total() <= d.totalMax-(d.totalMax+dedupEvictShare-1)/dedupEvictShare && len(d.floors) < d.sendersMax {
			return
		}
	}
	count := (len(d.floors) + dedupEvictShare - 1) / dedupEvictShare
	for range count {
		var oldest codec.Address
		found := false
		for a := range d.floors {
			h, o := d.highest[a], d.highest[oldest]
			if !found || h < o || h == o && bytes.Compare(a[:], oldest[:]) < 0 {
				oldest, found = a, true
			}
		}
		d.floor = max(d.floor, d.highest[oldest])
		delete(d.floors, oldest)
		delete(d.seen, oldest)
		delete(d.highest, oldest)
	}
}

func TestDedupAgreesWithTheSlowOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frames := rapid.IntRange(2, 12).Draw(t, "framesMax")
		senders := rapid.IntRange(1, 6).Draw(t, "sendersMax")
		total := rapid.IntRange(frames+1, 40).Draw(t, "totalMax")
		least := rapid.IntRange(1, frames).Draw(t, "framesLeast")
		fast := newDedup(frames, least, senders, total)
		slow := &slowDedup{
			framesMax: frames, framesLeast: least, sendersMax: senders, totalMax: total,
			floors: map[codec.Address]uint64{}, seen: map[codec.Address][]uint64{}, highest: map[codec.Address]uint64{},
		}
		type frame struct {
			from codec.Address
			at   uint64
		}
		accepted := map[frame]bool{}
		base := uint64(1)
		for range rapid.IntRange(1, 300).Draw(t, "count") {
			base += uint64(rapid.IntRange(0, 2).Draw(t, "step"))
			f := frame{
				from: codec.Address{byte(rapid.IntRange(1, 9).Draw(t, "sender"))},
				at:   base + uint64(rapid.IntRange(0, 20).Draw(t, "ahead")),
			}
			got, want := fast.admit(f.from, f.at, codec.Digest{byte(f.at)}), slow.admit(f.from, f.at)
			if got != want {
				t.Fatalf("sender %d at %d: verdict %d, want %d", f.from[0], f.at, got, want)
			}
			if got == verdictNew && accepted[f] {
				t.Fatalf("sender %d at %d was accepted twice", f.from[0], f.at)
			}
			if got == verdictDuplicate && !accepted[f] {
				t.Fatalf("sender %d at %d is called a duplicate and is none", f.from[0], f.at)
			}
			accepted[f] = accepted[f] || got == verdictNew
			fast.check(t)
		}
	})
}

// check is the self-check: sums and order.
func (d *dedup) check(t interface{ Fatalf(string, ...any) }) {
	total := 0
	for a, s := range d.senders {
		total += len(s.frames)
		last := s.floor
		for _, f := range s.frames {
			if f.sendTime <= last {
				t.Fatalf("%s: %d does not come after %d", a, f.sendTime, last)
			}
			last = f.sendTime
		}
		if len(s.frames) > d.framesMax || s.highest < last {
			t.Fatalf("%s: %d frames, highest %d, last %d", a, len(s.frames), s.highest, last)
		}
	}
	if total != d.total || total > d.totalMax || len(d.senders) > d.sendersMax {
		t.Fatalf("%d frames of %d senders, counted %d", total, len(d.senders), d.total)
	}
}

func TestDedupKeepsTheLastFrames(t *testing.T) {
	d := newDedup(dedupFramesMax, dedupFramesLeast, dedupSendersMax, dedupTotalMax)
	from := codec.Address{1}
	const count = 100_000
	for at := uint64(1); at <= count; at++ {
		if v := d.admit(from, at*2, codec.Digest{}); v != verdictNew {
			t.Fatalf("%d: %d", at, v)
		}
		for _, back := range []uint64{0, 1, 500, 16383} {
			if back >= at {
				continue
			}
			if v := d.admit(from, (at-back)*2, codec.Digest{}); v != verdictDuplicate {
				t.Fatalf("%d frames back from %d: verdict %d", back, at, v)
			}
		}
	}
	if v := d.admit(from, (count-16000)*2-1, codec.Digest{}); v != verdictNew {
		t.Errorf("a frame out of order, above the floor: %d", v)
	}
	if v := d.admit(from, 3, codec.Digest{}); v != verdictLate {
		t.Errorf("a frame below the floor: %d", v)
	}
}

// Many busy senders share the memory; none of them is forgotten for it.
func TestDedupKeepsFewerFramesOfEachWhenTheyAreTooManyInAll(t *testing.T) {
	const framesMax, least, senders, total = 1000, 10, 100, 5000
	d := newDedup(framesMax, least, senders, total)
	for at := uint64(1); at <= 100_000; at++ {
		for _, back := range []uint64{0, least} {
			from := codec.Address{byte(at % 50)}
			want := verdictNew
			if back > 0 {
				want = verdictDuplicate
			}
			if at > 50*back {
				if v := d.admit(from, at-50*back, codec.Digest{}); v != want {
					t.Fatalf("%d frames back from %d: verdict %d", back, at, v)
				}
			}
		}
	}
	d.check(t)
	if len(d.senders) != 50 || d.floor != 0 {
		t.Errorf("%d senders, floor %d", len(d.senders), d.floor)
	}
}

func TestSeenIsOnlyWhatWasDelivered(t *testing.T) {
	d := newDedup(4, 2, 4, 16)
	from, digest := codec.Address{1}, codec.Digest{1}
	d.admit(from, 5, digest)
	if d.seen(from, 5, digest) {
		t.Error("seen before it was delivered")
	}
	d.delivered(from, 5)
	if !d.seen(from, 5, digest) {
		t.Error("not seen after it was delivered")
	}
	if d.seen(from, 5, codec.Digest{2}) || d.seen(from, 6, digest) || d.seen(codec.Address{2}, 5, digest) {
		t.Error("another frame is seen")
	}
}
