package node

import "time"

// keptFor is how long the bytes of a frame are kept after it was written, so
// that it can be sent again. No notice that would have it sent again comes later:
// routers give a recipient that does not read up after 20 s, and keep frames for
// one that has left for 5 s.
const keptFor = 30 * time.Second

// kept holds the bytes of frames that were written, the newest of them, so that
// they can be sent again. The caller has the lock.
//
// Bound: max bytes, and keptFor. When full the oldest are let go. A frame that
// waits to be sent again (held) counts, and stays.
//
//	Sent.frame  Sent.place
//	nil         0           not kept
//	set         of entry    kept until entry leaves
//	set         0           held
type kept struct {
	max     int
	bytes   int
	place   uint64 // of the last entry
	entries fifo[keptEntry]
}

type keptEntry struct {
	sent  *Sent
	place uint64 // not that of sent: another entry has taken this one's place, or it is held
	at    time.Time
}

// add keeps the frame (taken), which is written now.
func (k *kept) add(s *Sent, frame []byte, now time.Time) {
	if s.frame == nil {
		s.frame = frame
		k.bytes += cap(frame)
	}
	k.place++
	s.place = k.place
	k.entries.push(keptEntry{s, k.place, now})
	for k.bytes > k.max && k.entries.len() > 0 {
		k.pop()
	}
}

func (k *kept) pop() {
	if e := k.entries.pop(); e.place == e.sent.place {
		k.free(e.sent)
	}
}

// trim lets go what was written too long ago.
func (k *kept) trim(now time.Time) {
	for k.entries.len() > 0 && now.Sub(k.entries.rest()[0].at) >= keptFor {
		k.pop()
	}
}

// hold keeps the frame until it is added again or freed.
func (k *kept) hold(s *Sent) { s.place = 0 }

func (k *kept) free(s *Sent) {
	k.bytes -= cap(s.frame)
	s.frame, s.place = nil, 0
}

// clear lets go of all that is not held.
func (k *kept) clear() {
	for k.entries.len() > 0 {
		k.pop()
	}
}
