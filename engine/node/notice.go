package node

import (
	"time"

	"causeway/codec"
)

// callbacksMax is how many notices wait for Config.OnNotice.
const callbacksMax = 256

// hearNotice takes a verified frame of category 3 (PROTOCOL.md section 6), of a
// sender of that name.
func (n *Node) hearNotice(raw codec.Raw, name string) fate {
	m, err := codec.DecodeNotice(raw.Body())
	if err != nil {
		return dropped(dropMalformedBody)
	}
	from := raw.Sender()
	if from.Kind() != codec.KindRouter && from != m.Recipient {
		return dropped(dropForgedNotice)
	}
	o := n.outOfNotice(m)
	o.mu.Lock()
	e, ignored := o.notedLocked(from, name, m, time.Now())
	o.mu.Unlock()
	n.counters.noticesIgnored.Add(ignored)
	if e != nil {
		n.counters.noticesAmbiguous.Add(e.Ambiguous)
	}
	n.tell()
	return consumed
}

// notedLocked tells the Sent of the notice's frames, or has these sent again. The
// result is nil when none of the rest is the application's and remembered;
// ignored counts those that are not remembered at all.
//
// Frames that a notice counts without listing them are known by recipient and
// time only. When no more frames than it counts fit, it must mean all of them;
// otherwise nobody can tell which, and only OnNotice learns of it.
func (o *outgoing) notedLocked(from codec.Address, name string, m *codec.Notice, now time.Time) (e *NoticeError, ignored uint64) {
	e = &NoticeError{Reason: m.Reason, From: from, FromName: name, Recipient: m.Recipient}
	own := false
	for _, f := range m.Frames {
		s := o.recent.find(f, m.Recipient)
		if s == nil || !s.written {
			ignored++
			continue
		}
		if o.noteLocked(s, e, now) && !s.internal {
			e.Frames = append(e.Frames, f)
			own = true
		}
	}
	if m.More > 0 {
		counted := o.recent.between(m.Recipient, m.First, m.Last)
		ignored += m.More - min(m.More, uint64(len(counted)))
		e.More = m.More
		if uint64(len(counted)) > m.More {
			e.Ambiguous = m.More
		}
		for _, s := range counted {
			switch {
			case e.Ambiguous > 0:
				own = own || !s.internal
			case !o.noteLocked(s, e, now):
				e.More--
			default:
				own = own || !s.internal
			}
		}
	}
	if !own {
		return nil, ignored
	}
	o.untold = append(o.untold, e)
	return e, ignored
}

// noteLocked makes e the outcome of s, unless s is sent again: false.
func (o *outgoing) noteLocked(s *Sent, e *NoticeError, now time.Time) bool {
	if o.againLocked(s, e.Reason, e.From, now) {
		return false
	}
	s.noticedLocked(e)
	o.resends.settled(s, false)
	return true
}

// tell passes on to Config.OnNotice, and to who waits for a session, what they are
// to be told.
func (n *Node) tell() {
	n.tellOf(n.out)
	for _, c := range n.peers.all() {
		n.tellOf(c.out)
	}
}

func (n *Node) tellOf(o *outgoing) {
	o.mu.Lock()
	untold, refusals := o.untold, o.refusals
	o.untold, o.refusals = nil, nil
	o.mu.Unlock()
	n.sessions.refused(refusals)
	if n.notices == nil {
		return
	}
	for _, e := range untold {
		select {
		case n.notices <- e:
		default:
			n.counters.callbacksLost.Add(1)
		}
	}
}

// callBack is the goroutine that calls Config.OnNotice.
func (n *Node) callBack() {
	for {
		select {
		case e := <-n.notices:
			n.cfg.OnNotice(e)
		case <-n.done:
			for len(n.notices) > 0 { // told before the end
				n.cfg.OnNotice(<-n.notices)
			}
			return
		}
	}
}
