package node

import (
	"cmp"
	"io"
	"slices"
	"time"

	"causeway/codec"
)

// Frames that are sent again (PROTOCOL.md section 6). For each recipient:
//
//	waiting    noticed; by send time. The first goes ahead alone, after a pause;
//	           when it is confirmed without a notice the way is proven, and the
//	           others follow.
//	underway   sent again, neither confirmed nor noticed yet
//	behind     sent later, and not written yet
//
// When nothing is waiting or under way the lane is closed: what is behind goes,
// before what is in the queue. Sending one frame ahead costs a round trip and
// spares the router as many frames and notices as are waiting, time and again;
// and if the recipient comes back while they are on their way, the first ones
// would be noticed and the others delivered before them.

// The pause before a frame goes ahead: doubled each time, jittered (backoff.go).
const (
	resendPauseMin = 50 * time.Millisecond
	resendPauseMax = 500 * time.Millisecond
)

// resendAheadMax bounds how many notices are risked by going ahead: at once, and
// then in a second. A router sends one sender about so many, and what it can
// neither tell nor remember would be taken for delivered.
const resendAheadMax = 24

// resend is what is known of a frame that was noticed and may be sent again.
type resend struct {
	since  time.Time // its first notice
	reason codec.NoticeReason
	from   codec.Address // who gave the last notice
	lane   *lane         // whose waiting or underway it is in; nil: neither
	run    uint64        // of lane, when it went under way
}

type lane struct {
	to       codec.Address
	waiting  []*Sent // ascending by send time; their bytes are held
	underway int
	run      uint64 // frames that went in an earlier run are not under way any more
	behind   fifo[*slot]
	proven   bool
	pause    backoff
	next     time.Time // not before
}

// resends decides when frames are sent again, and which others wait for that. The
// caller has the lock.
type resends struct {
	patience time.Duration // from a frame's first notice
	rand     io.Reader
	lanes    map[codec.Address]*lane
	released fifo[*slot] // was behind; goes before the queue

	ahead    float64   // how many may go ahead, of resendAheadMax
	filledAt time.Time // ahead was
}

func newResends(patience time.Duration, rand io.Reader) resends {
	return resends{patience: patience, rand: rand, lanes: make(map[codec.Address]*lane), ahead: resendAheadMax}
}

// noticed makes s wait to be sent again. It returns false when its time is over.
func (r *resends) noticed(s *Sent, reason codec.NoticeReason, from codec.Address, now time.Time) bool {
	if s.resend == nil {
		s.resend = &resend{since: now}
	}
	s.resend.reason, s.resend.from = reason, from
	r.leave(s)
	if now.Sub(s.resend.since) >= r.patience {
		r.close(s.To)
		return false
	}
	l := r.lanes[s.To]
	if l == nil {
		l = &lane{to: s.To, pause: backoff{min: resendPauseMin, max: resendPauseMax}}
		r.lanes[s.To] = l
	}
	l.proven = false
	if !now.Before(l.next) { // all that are noticed together are one notice, and have one pause
		l.next = now.Add(l.pause.next(r.rand))
		r.ahead = max(0, r.ahead-1)
	}
	s.resend.lane = l
	at, _ := slices.BinarySearchFunc(l.waiting, s.SendTime, func(s *Sent, t uint64) int { return cmp.Compare(s.SendTime, t) })
	l.waiting = slices.Insert(l.waiting, at, s)
	return true
}

// leave takes s out of its lane's underway, if it is there.
func (r *resends) leave(s *Sent) {
	if l := s.resend.lane; l != nil && s.resend.run == l.run {
		l.underway--
	}
	s.resend.lane = nil
}

// settled takes note of the outcome of s: the router has confirmed it without a
// notice, or the connection has ended before.
func (r *resends) settled(s *Sent, confirmed bool) {
	if s.resend == nil || s.resend.lane == nil {
		return
	}
	l := s.resend.lane
	if confirmed && s.resend.run == l.run {
		l.proven = true
		l.pause.reset()
	}
	r.leave(s)
	r.close(l.to)
}

// close closes the recipient's lane if nothing is waiting or under way there.
func (r *resends) close(to codec.Address) {
	l := r.lanes[to]
	if l == nil || len(l.waiting) > 0 || l.underway > 0 {
		return
	}
	delete(r.lanes, to)
	for l.behind.len() > 0 {
		r.released.push(l.behind.pop())
	}
}

// progress is what became of a frame that may go.
type progress uint8

const (
	progressNone    progress = iota // no room: it waits on, until the caller has some
	progressSent                    // under way
	progressRefused                 // it can't be sent any more
)

// run offers to send what may go now. It returns when to call again; zero: when
// something has happened.
func (r *resends) run(now time.Time, send func(*Sent) progress) (next time.Time) {
	if len(r.lanes) == 0 {
		return time.Time{}
	}
	may := r.mayGoAhead(now)
	for _, l := range r.lanes {
		for len(l.waiting) > 0 && (l.proven || l.underway == 0) {
			if !l.proven {
				due := l.next
				if may < 1 && due.Before(now.Add(time.Second/resendAheadMax)) {
					due = now.Add(time.Second / resendAheadMax)
				}
				if now.Before(due) {
					if next.IsZero() || due.Before(next) {
						next = due
					}
					break
				}
				may--
			}
			s := l.waiting[0]
			p := send(s)
			if p == progressNone {
				return time.Time{}
			}
			l.waiting[0] = nil
			l.waiting = l.waiting[1:]
			if p == progressSent {
				l.underway++
				s.resend.run = l.run
			} else {
				s.resend.lane = nil
			}
		}
		r.close(l.to)
	}
	return next
}

// mayGoAhead returns how many more may go ahead now: if all that are on their way
// come back there must be room for them.
func (r *resends) mayGoAhead(now time.Time) float64 {
	if !r.filledAt.IsZero() {
		r.ahead = min(resendAheadMax, r.ahead+resendAheadMax*now.Sub(r.filledAt).Seconds())
	}
	r.filledAt = now
	may := r.ahead
	for _, l := range r.lanes {
		if !l.proven && l.underway > 0 {
			may--
		}
	}
	return may
}

// moved takes note of another connection in use: outcomes on the one before are
// waited for no longer, and the pauses begin anew.
func (r *resends) moved() {
	for to, l := range r.lanes {
		l.run++
		l.underway, l.proven = 0, false
		l.pause.reset()
		r.close(to)
	}
}

// expire returns those whose time is over; they wait no longer.
func (r *resends) expire(now time.Time) (over []*Sent) {
	for to, l := range r.lanes {
		l.waiting = slices.DeleteFunc(l.waiting, func(s *Sent) bool {
			expired := now.Sub(s.resend.since) >= r.patience
			if expired {
				s.resend.lane = nil
				over = append(over, s)
			}
			return expired
		})
		r.close(to)
	}
	return over
}

// waiting returns how many frames are to be sent again.
func (r *resends) waiting() (frames int) {
	for _, l := range r.lanes {
		frames += len(l.waiting)
	}
	return frames
}

// clear returns all that is waiting, and all that is behind.
func (r *resends) clear() (waiting []*Sent, behind []*slot) {
	for _, l := range r.lanes {
		for _, s := range l.waiting {
			s.resend.lane = nil
			waiting = append(waiting, s)
		}
		behind = append(behind, l.behind.rest()...)
	}
	behind = append(behind, r.released.rest()...)
	clear(r.lanes)
	r.released = fifo[*slot]{}
	return waiting, behind
}
