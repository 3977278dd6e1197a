package node

import (
	"causeway/codec"
)

// callbacksMax is how many notices wait for Config.OnNotice.
const callbacksMax = 256

// hearNotice takes a verified frame of category 3 (PROTOCOL.md section 6).
func (n *Node) hearNotice(raw codec.Raw) fate {
	m, err := codec.DecodeNotice(raw.Body())
	if err != nil {
		return dropped(dropMalformedBody)
	}
	from := raw.Sender()
	if from.Kind() != codec.KindRouter && from != m.Recipient {
		return dropped(dropForgedNotice)
	}
	n.out.mu.Lock()
	e, ignored := n.out.notedLocked(from, m)
	n.out.mu.Unlock()
	n.counters.noticesIgnored.Add(ignored)
	if e == nil || n.notices == nil {
		return consumed
	}
	select {
	case n.notices <- e:
	default:
		n.counters.callbacksLost.Add(1)
	}
	return consumed
}

// notedLocked tells the Sent of the notice's frames. The result is nil when
// none of them is the application's and remembered; ignored counts those that
// are not remembered at all.
//
// Frames that a notice counts without listing them are known by recipient and
// time only. When no more frames than it counts fit, it must mean all of them;
// otherwise nobody can tell which, and only OnNotice learns of it.
func (o *outgoing) notedLocked(from codec.Address, m *codec.Notice) (e *NoticeError, ignored uint64) {
	e = &NoticeError{Reason: m.Reason, From: from, Recipient: m.Recipient, More: m.More}
	own := false
	for _, f := range m.Frames {
		s := o.recent.find(f, m.Recipient)
		if s == nil {
			ignored++
			continue
		}
		s.noticedLocked(e)
		if !s.internal {
			e.Frames = append(e.Frames, f)
			own = true
		}
	}
	if m.More > 0 {
		counted := o.recent.between(m.Recipient, m.First, m.Last)
		for _, s := range counted {
			if uint64(len(counted)) <= m.More {
				s.noticedLocked(e)
			}
			own = own || !s.internal
		}
		ignored += m.More - min(m.More, uint64(len(counted)))
	}
	if !own {
		return nil, ignored
	}
	return e, ignored
}

// callBack is the goroutine that calls Config.OnNotice.
func (n *Node) callBack() {
	for {
		select {
		case e := <-n.notices:
			n.cfg.OnNotice(e)
		case <-n.done:
			return
		}
	}
}
