package node

import (
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"causeway/codec"
)

// resendScript drives the core with a scripted clock.
type resendScript struct {
	t   interface{ Fatalf(string, ...any) }
	r   resends
	now time.Time
	way map[*Sent]bool // under way: sent again, without an outcome
	off bool           // nothing can be sent
}

func newResendScript(t interface{ Fatalf(string, ...any) }) *resendScript {
	return &resendScript{t: t, r: newResends(5*time.Second, rand.Reader), now: time.Unix(1_700_000_000, 0), way: map[*Sent]bool{}}
}

func (c *resendScript) notice(s *Sent) bool {
	delete(c.way, s)
	return c.r.noticed(s, codec.NoticeNoRoute, codec.Address{9}, c.now)
}

func (c *resendScript) confirm(s *Sent) {
	delete(c.way, s)
	c.r.settled(s, true)
}

// run returns what was sent, and how long until more may go.
func (c *resendScript) run() (sent []*Sent, wait time.Duration) {
	next := c.r.run(c.now, func(s *Sent) progress {
		if c.off {
			return progressNone
		}
		if c.way[s] {
			c.t.Fatalf("frame %d is sent while it is under way", s.SendTime)
		}
		c.way[s] = true
		sent = append(sent, s)
		return progressSent
	})
	if next.IsZero() {
		return sent, -1
	}
	return sent, next.Sub(c.now)
}

// sends checks what may go now.
func (c *resendScript) sends(t *testing.T, want ...*Sent) {
	t.Helper()
	if sent, _ := c.run(); !slices.Equal(sent, want) {
		t.Fatalf("sent %v, want %v", times(sent), times(want))
	}
}

func times(frames []*Sent) (out []uint64) {
	for _, s := range frames {
		out = append(out, s.SendTime)
	}
	return out
}

func framesTo(to byte, n int) (all []*Sent) {
	for i := range n {
		all = append(all, &Sent{To: codec.Address{to}, SendTime: uint64(i + 1)})
	}
	return all
}

func TestFirstFrameGoesAheadAndTheOthersFollow(t *testing.T) {
	c := newResendScript(t)
	f := framesTo(1, 4)
	for _, i := range []int{2, 0, 1} { // notices in any order
		if !c.notice(f[i]) {
			t.Fatal("not taken")
		}
	}
	behind := &slot{sent: f[3]}
	c.r.lanes[f[0].To].behind.push(behind)
	sent, wait := c.run()
	if len(sent) > 0 || wait < resendPauseMin/2 || wait > resendPauseMin {
		t.Fatalf("sent %v, wait %v", times(sent), wait)
	}
	c.now = c.now.Add(wait)
	c.off = true
	if _, wait := c.run(); wait >= 0 {
		t.Fatalf("is to be called again after %v, and there is no room", wait)
	}
	c.off = false
	c.sends(t, f[0])
	c.now = c.now.Add(time.Second)
	c.sends(t) // its outcome is waited for
	c.notice(f[0])
	c.sends(t)
	c.now = c.now.Add(2 * resendPauseMin)
	c.sends(t, f[0])
	c.confirm(f[0])
	c.sends(t, f[1], f[2])
	c.confirm(f[2])
	if c.r.released.len() > 0 {
		t.Fatal("what is behind goes before all are confirmed")
	}
	c.confirm(f[1])
	if len(c.r.lanes) > 0 || c.r.released.len() != 1 || c.r.released.pop() != behind {
		t.Errorf("%d lanes, %d released", len(c.r.lanes), c.r.released.len())
	}
}

func TestPausesGrowToHalfASecondAndEndAfterFive(t *testing.T) {
	c := newResendScript(t)
	f := framesTo(1, 1)[0]
	began, sends := c.now, 0
	var longest time.Duration
	for c.notice(f) {
		_, wait := c.run()
		longest = max(longest, wait)
		c.now = c.now.Add(wait)
		c.sends(t, f)
		sends++
	}
	if took := c.now.Sub(began); took < 5*time.Second || took > 5500*time.Millisecond {
		t.Errorf("given up after %v", took)
	}
	if longest > resendPauseMax || longest < resendPauseMax/2 || sends < 10 || sends > 25 {
		t.Errorf("sent %d times, longest pause %v", sends, longest)
	}
	if len(c.r.lanes) > 0 {
		t.Error("the lane is left")
	}
	if c.notice(f) {
		t.Error("its time begins anew")
	}
}

func TestFramesThatWaitExpireByThemselves(t *testing.T) {
	c := newResendScript(t)
	f := framesTo(1, 2)
	c.notice(f[0])
	c.now = c.now.Add(2 * time.Second)
	c.notice(f[1])
	for _, want := range [][]*Sent{{f[0]}, {f[1]}} {
		c.now = c.now.Add(3*time.Second - 1)
		if over := c.r.expire(c.now); len(over) > 0 {
			t.Fatalf("%v expire too early", times(over))
		}
		c.now = c.now.Add(1)
		if over := c.r.expire(c.now); !slices.Equal(over, want) {
			t.Fatalf("%v expire, want %v", times(over), times(want))
		}
		c.now = c.now.Add(-time.Second)
	}
	if len(c.r.lanes) > 0 {
		t.Error("the lane is left")
	}
}

// Outcomes on a connection that is not in use any more are not waited for.
func TestNextConnectionBeginsAnew(t *testing.T) {
	c := newResendScript(t)
	f := framesTo(1, 2)
	c.notice(f[0])
	c.notice(f[1])
	c.now = c.now.Add(time.Second)
	c.sends(t, f[0])
	c.sends(t)
	c.r.moved()
	delete(c.way, f[0])
	c.sends(t, f[1])
	c.r.settled(f[0], false) // late, from the connection before
	if c.r.lanes[f[0].To].underway != 1 {
		t.Error("the outcome of an earlier run counts")
	}
	c.notice(f[0]) // the same: it may come back
	c.confirm(f[1])
	c.sends(t, f[0])
}

// With many recipients gone, no more go ahead than the router tells of.
func TestFewGoAheadInVain(t *testing.T) {
	c := newResendScript(t)
	const recipients = 1000
	for to := range recipients {
		c.notice(&Sent{To: codec.Address{byte(to), byte(to >> 8)}, SendTime: uint64(to)})
	}
	began, sends := c.now, 0
	for c.now.Sub(began) < 4*time.Second {
		sent, wait := c.run()
		for _, s := range sent {
			c.notice(s)
		}
		sends += len(sent)
		c.now = c.now.Add(max(wait, time.Millisecond))
	}
	if sends < 3*resendAheadMax || sends > 5*resendAheadMax {
		t.Errorf("%d went ahead in vain in 4 s, want about %d", sends, 4*resendAheadMax)
	}
	began, confirmed := c.now, 0
	for confirmed < recipients && c.now.Sub(began) < time.Minute {
		sent, wait := c.run()
		for _, s := range sent {
			c.confirm(s)
			confirmed++
		}
		c.now = c.now.Add(max(wait, time.Millisecond))
	}
	if took := c.now.Sub(began); confirmed != recipients || took > 4*time.Second {
		t.Errorf("%d recipients reached in %v", confirmed, took)
	}
}

// Every frame is in one place, and what is behind keeps its place behind.
func TestResendsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newResendScript(t)
		var all []*Sent // by send time; written once, and then whatever happens
		waiting := map[*Sent]bool{}
		var held []*slot
		clock := uint64(0)
		pick := func(from map[*Sent]bool) *Sent {
			frames := []*Sent{}
			for s := range from {
				frames = append(frames, s)
			}
			slices.SortFunc(frames, func(a, b *Sent) int { return int(a.SendTime) - int(b.SendTime) })
			if len(frames) == 0 {
				return nil
			}
			return rapid.SampledFrom(frames).Draw(t, "frame")
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch step := rapid.SampledFrom([]string{"send", "notice", "again", "confirm", "lose", "run", "run", "pass", "move"}).Draw(t, "step"); step {
			case "send":
				clock++
				s := &Sent{To: codec.Address{byte(rapid.IntRange(1, 3).Draw(t, "to"))}, SendTime: clock}
				if l := c.r.lanes[s.To]; l != nil {
					l.behind.push(&slot{sent: s})
					held = append(held, l.behind.rest()[l.behind.len()-1])
				} else {
					all = append(all, s)
				}
			case "notice": // of a frame that went out once
				if len(all) == 0 {
					break
				}
				s := rapid.SampledFrom(all).Draw(t, "first notice")
				if !waiting[s] && !c.way[s] {
					waiting[s] = c.notice(s)
				}
			case "again", "confirm", "lose":
				s := pick(c.way)
				switch {
				case s == nil:
				case step == "again":
					waiting[s] = c.notice(s)
				case step == "confirm":
					c.confirm(s)
				default:
					delete(c.way, s)
					c.r.settled(s, false)
				}
			case "run":
				c.off = rapid.Bool().Draw(t, "off")
				sent, _ := c.run()
				for _, s := range sent {
					delete(waiting, s)
				}
			case "pass":
				c.now = c.now.Add(time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond)
				for _, s := range c.r.expire(c.now) {
					if c.now.Sub(s.resend.since) < 5*time.Second {
						t.Fatalf("frame %d expires after %v", s.SendTime, c.now.Sub(s.resend.since))
					}
					delete(waiting, s)
				}
			case "move":
				c.r.moved()
				clear(c.way) // the outcome may still come, or not
			}
			for s, is := range waiting {
				if !is {
					delete(waiting, s)
				}
			}
			checkResends(t, c, waiting)
		}
		released := c.r.released.rest()
		_, behind := c.r.clear()
		for to := range byte(4) {
			var want, got []*slot
			for _, s := range held {
				if s.sent.To[0] == to {
					want = append(want, s)
				}
			}
			for _, s := range slices.Concat(released, behind[:len(behind)-len(released)]) {
				if s.sent.To[0] == to {
					got = append(got, s)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("recipient %d: what was behind changed its order", to)
			}
		}
	})
}

func checkResends(t *rapid.T, c *resendScript, waiting map[*Sent]bool) {
	found := 0
	for to, l := range c.r.lanes {
		underway := 0
		for s := range c.way {
			if s.To == to {
				underway++
			}
		}
		if l.underway != underway {
			t.Fatalf("%d under way, want %d", l.underway, underway)
		}
		if len(l.waiting)+l.underway == 0 {
			t.Fatalf("a lane that nothing waits in")
		}
		if !slices.IsSortedFunc(l.waiting, func(a, b *Sent) int { return int(a.SendTime) - int(b.SendTime) }) {
			t.Fatalf("waiting: %v", times(l.waiting))
		}
		for _, s := range l.waiting {
			if !waiting[s] || s.To != to {
				t.Fatalf("frame %d waits", s.SendTime)
			}
			found++
		}
	}
	if found != len(waiting) || c.r.waiting() != found {
		t.Fatalf("%d wait, want %d", found, len(waiting))
	}
}

func TestKeptBytesAreBounded(t *testing.T) {
	k := kept{max: 1000}
	now := time.Unix(1_700_000_000, 0)
	var all []*Sent
	write := func(size int) *Sent {
		s := &Sent{SendTime: uint64(len(all))}
		all = append(all, s)
		k.add(s, make([]byte, size), now)
		sum := 0
		for _, s := range all {
			sum += cap(s.frame)
		}
		if sum != k.bytes || sum > k.max {
			t.Fatalf("%d bytes, counted %d", sum, k.bytes)
		}
		return s
	}
	keptNow := func(want ...int) {
		t.Helper()
		var got []int
		for i, s := range all {
			if s.frame != nil {
				got = append(got, i)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("kept %v, want %v", got, want)
		}
	}
	for range 6 {
		write(250)
	}
	keptNow(2, 3, 4, 5)
	k.hold(all[2])
	k.hold(all[4])
	write(500)
	keptNow(2, 4, 6)
	write(2000) // larger than all: not kept, nor is what was before
	keptNow(2, 4)
	now = now.Add(keptFor - 1)
	k.add(all[2], all[2].frame, now) // sent again
	k.trim(now.Add(keptFor - 1))
	keptNow(2, 4)
	k.trim(now.Add(keptFor))
	keptNow(4)
	k.free(all[4])
	if keptNow(); k.bytes != 0 || k.entries.len() != 0 {
		t.Errorf("%d bytes, %d entries are left", k.bytes, k.entries.len())
	}
}

// The index of what was sent agrees with looking at all of it.
func TestRecentAgreesWithASlowSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		max := rapid.IntRange(1, 20).Draw(t, "max")
		r := newRecent(max)
		var all []*Sent
		for at := range rapid.IntRange(0, 60).Draw(t, "count") {
			s := &Sent{
				To: codec.Address{byte(rapid.IntRange(1, 3).Draw(t, "to"))}, SendTime: uint64(at * 2), Digest: codec.Digest{byte(at)},
				written: rapid.Bool().Draw(t, "written"), seen: rapid.Bool().Draw(t, "seen"),
			}
			r.add(s)
			all = append(all, s)
		}
		all = all[len(all)-min(len(all), max):]
		to := codec.Address{byte(rapid.IntRange(1, 4).Draw(t, "recipient"))}
		first, last := uint64(rapid.IntRange(0, 130).Draw(t, "first")), uint64(rapid.IntRange(0, 130).Draw(t, "last"))
		var want []*Sent
		var found *Sent
		for _, s := range all {
			if s.To == to && s.SendTime >= first && s.SendTime <= last && s.written && !s.seen {
				want = append(want, s)
			}
			if s.To == to && s.SendTime == first {
				found = s
			}
		}
		if got := r.between(to, first, last); !slices.Equal(got, want) {
			t.Fatalf("between: %v, want %v", times(got), times(want))
		}
		if got := r.find(codec.NoticeFrame{Digest: codec.Digest{byte(first / 2)}, SendTime: first}, to); got != found {
			t.Fatalf("find: %v, want %v", got, found)
		}
		if r.find(codec.NoticeFrame{Digest: codec.Digest{0xff}, SendTime: first}, to) != nil {
			t.Fatalf("found by time alone")
		}
		if len(all) == 0 && len(r.to) > 0 || r.all.len() != len(all) {
			t.Fatalf("%d remembered", r.all.len())
		}
	})
}
