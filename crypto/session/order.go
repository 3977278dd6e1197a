package session

import "time"

// Order (PROTOCOL.md section 15.9). Each session has a stream of what the peer
// sent in it; the streams follow each other:
//
//	old:    delivered … done ┊ gap ┊ held … end        (end: from confirm)
//	in use:                                 1 … held
//
// The head is the first stream that is not closed; only what is next in it is
// delivered. All that is held has waited since it came, in any stream; when the
// oldest has waited for gapWait, whatever it waits for is given up.
const (
	gapWait = 200 * time.Millisecond
	// heldMax bounds what is held, contents of category 1 too, which have no charge.
	// With more, what the oldest waits for has left the replay window.
	heldMax = replayWindow
)

// held is a counter that came before its turn.
type held struct {
	counter uint64
	message *Message // nil: a content of category 1
}

// stream is the receiving side of a session.
type stream struct {
	done   uint64 // delivered or given up: every counter up to here
	held   []held // a heap by counter, all above done
	ended  bool   // nothing will come above end
	end    uint64
	closed bool // what comes is late
}

// arrival is when something was held.
type arrival struct {
	at      time.Time
	session *session
	counter uint64
}

// push holds a counter.
func (st *stream) push(h held) {
	st.held = append(st.held, h)
	for i := len(st.held) - 1; i > 0; {
		up := (i - 1) / 2
		if st.held[up].counter <= st.held[i].counter {
			return
		}
		st.held[up], st.held[i] = st.held[i], st.held[up]
		i = up
	}
}

// pop takes the lowest of at least one.
func (st *stream) pop() held {
	lowest, last := st.held[0], len(st.held)-1
	st.held[0] = st.held[last]
	st.held[last] = held{}
	st.held = st.held[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down+1 < last && st.held[down+1].counter < st.held[down].counter {
			down++
		}
		if down >= last || st.held[i].counter <= st.held[down].counter {
			break
		}
		st.held[i], st.held[down] = st.held[down], st.held[i]
		i = down
	}
	if last == 0 && cap(st.held) > queueKeep {
		st.held = nil
	}
	return lowest
}

// finish says that nothing comes above end.
func (st *stream) finish(end uint64) {
	if !st.ended {
		st.ended, st.end = true, end
	}
}

// head is the session whose stream is delivered from; nil for none.
func (p *Peer) head() *session {
	for _, s := range p.sessions {
		if s.state != pending && !s.stream.closed {
			return s
		}
	}
	return nil
}

// place delivers what came under a counter, or holds it until its turn; m is nil
// for what has no message. It reports false when it is late.
func (p *Peer) place(now time.Time, s *session, counter uint64, m *Message, out *Actions) bool {
	st := &s.stream
	if st.closed || counter <= st.done {
		return false
	}
	if counter == st.done+1 && p.head() == s {
		st.done = counter
		deliver(m, out)
		if len(st.held) == 0 && !st.ended {
			return true
		}
	} else {
		var kept *Message
		if m != nil {
			kept = new(Message)
			*kept = *m
			p.held++
		}
		st.push(held{counter, kept})
		p.arrivals.push(arrival{now, s, counter})
	}
	p.advance(out)
	for p.arrivals.len() > heldMax {
		if _, ok := p.oldestHeld(); ok && p.arrivals.len() > heldMax {
			p.skip(out)
		}
	}
	return true
}

func deliver(m *Message, out *Actions) {
	if m != nil {
		out.Messages = append(out.Messages, *m)
	}
}

// advance delivers all whose turn it is.
func (p *Peer) advance(out *Actions) {
	for s := p.head(); s != nil; s = p.head() {
		st := &s.stream
		for len(st.held) > 0 && st.held[0].counter == st.done+1 {
			st.done++
			h := st.pop()
			if h.message != nil {
				p.held--
			}
			deliver(h.message, out)
		}
		if !st.ended || st.done < st.end {
			return
		}
		p.closeStream(st)
	}
}

// closeStream drops what is held in a stream, and from now on what comes.
func (p *Peer) closeStream(st *stream) {
	for _, h := range st.held {
		if h.message != nil {
			p.waiting -= h.message.Charge
			p.held--
		}
	}
	st.held, st.closed = nil, true
}

// skip gives up what the head waits for: its gap, or when nothing of it is held
// all that may still come.
func (p *Peer) skip(out *Actions) {
	st := &p.head().stream
	if len(st.held) > 0 {
		st.done = st.held[0].counter - 1
	} else {
		p.closeStream(st)
	}
	p.advance(out)
}

// oldestHeld returns since when something is held; false when nothing is.
func (p *Peer) oldestHeld() (time.Time, bool) {
	for p.arrivals.len() > 0 {
		a := p.arrivals.front()
		if st := &a.session.stream; !st.closed && a.counter > st.done {
			return a.at, true
		}
		p.arrivals.pop()
	}
	return time.Time{}, false
}

// giveUpGaps gives up what has been waited for long enough.
func (p *Peer) giveUpGaps(now time.Time, out *Actions) {
	for {
		at, ok := p.oldestHeld()
		if !ok || now.Before(at.Add(gapWait)) {
			return
		}
		p.skip(out)
	}
}

// finishThrough delivers all that is held in s and before it, and closes it.
func (p *Peer) finishThrough(s *session, out *Actions) {
	for h := p.head(); h != nil && h.order <= s.order && !s.stream.closed; h = p.head() {
		p.skip(out)
	}
}

// overtaken closes the stream of s, in which the first frame has come, when
// delivery has gone on to a later one.
func (p *Peer) overtaken(s *session) {
	for _, t := range p.sessions {
		if t.order > s.order && t.stream.done > 0 {
			p.closeStream(&s.stream)
		}
	}
}

// follow takes a confirm: before s the peer sent in the session with that ID, and
// there last under that counter. Sessions between the two it has never sent in. One
// that is not known, or none, ends all before s where they are.
func (p *Peer) follow(now time.Time, s *session, before ID, last uint64, out *Actions) {
	known := p.find(before)
	if known != nil && known.order >= s.order {
		return
	}
	for _, t := range p.sessions {
		switch {
		case t.order >= s.order:
		case t == known:
			if t.state == pending {
				p.local.halfOpen--
				p.retire(now, t)
				p.overtaken(t)
			}
			t.stream.finish(last)
		case t.state != pending && (known == nil || t.order > known.order):
			t.stream.finish(t.replay.Highest())
		}
	}
	p.endOldest(out)
	p.advance(out)
}
