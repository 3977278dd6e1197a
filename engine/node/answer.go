package node

import (
	"sync"
	"time"

	"causeway/codec"
)

// What the node says of itself to other members: replies to echoes, and notices
// about frames it refused. The reader only takes note of them here; a goroutine
// of the node makes and queues them, so that reading goes on.

const (
	answersMax        = 256                    // echoes waiting; beyond that they are dropped
	noticeKeysMax     = 1024                   // senders and reasons with frames waiting; beyond that AnswersLost
	noticeFramesMax   = 256                    // frames listed in one notice; beyond that counted
	noticeInterval    = 100 * time.Millisecond // between notices to one sender for one reason
	answerRetry       = 100 * time.Millisecond // when the queue is full or no router is connected
	housekeepingEvery = 250 * time.Millisecond // for requests that ran out of time
)

type echoAnswer struct {
	to   codec.Address
	echo codec.Echo
}

type noticeKey struct {
	to     codec.Address
	reason codec.NoticeReason
}

// noticeDue collects frames for one notice.
type noticeDue struct {
	frames      []codec.NoticeFrame
	more        uint64
	first, last uint64
	next        time.Time // not before
}

type answers struct {
	mu      sync.Mutex
	echoes  []echoAnswer
	notices map[noticeKey]*noticeDue

	wake chan struct{} // capacity 1
}

func newAnswers() *answers {
	return &answers{notices: make(map[noticeKey]*noticeDue), wake: make(chan struct{}, 1)}
}

// echo takes note of a reply, and reports whether there was room.
func (a *answers) echo(to codec.Address, e codec.Echo) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.echoes) >= answersMax {
		return false
	}
	a.echoes = append(a.echoes, echoAnswer{to, e})
	signal(a.wake)
	return true
}

// notice takes note of a refused frame.
func (a *answers) notice(n *Node, to codec.Address, reason codec.NoticeReason, f codec.NoticeFrame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := noticeKey{to, reason}
	due := a.notices[key]
	if due == nil {
		if len(a.notices) >= noticeKeysMax {
			n.counters.answersLost.Add(1)
			return
		}
		due = &noticeDue{}
		a.notices[key] = due
	}
	due.add(f)
	signal(a.wake)
}

func (d *noticeDue) add(f codec.NoticeFrame) {
	if len(d.frames) < noticeFramesMax {
		d.frames = append(d.frames, f)
		return
	}
	if d.more == 0 {
		d.first, d.last = f.SendTime, f.SendTime
	}
	d.more++
	d.first, d.last = min(d.first, f.SendTime), max(d.last, f.SendTime)
}

func (d *noticeDue) empty() bool { return len(d.frames) == 0 }

// due returns what may be sent now, and when to look again (zero: at the next
// wake). What it returns is no longer waiting.
func (a *answers) due(now time.Time) (echoes []echoAnswer, notices map[noticeKey]*noticeDue, next time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	echoes, a.echoes = a.echoes, nil
	notices = make(map[noticeKey]*noticeDue)
	for key, d := range a.notices {
		switch {
		case d.next.After(now):
			if next.IsZero() || d.next.Before(next) {
				next = d.next
			}
		case d.empty():
			delete(a.notices, key)
		default:
			notices[key] = d
			a.notices[key] = &noticeDue{next: now.Add(noticeInterval)}
			if soon := now.Add(noticeInterval); next.IsZero() || soon.Before(next) {
				next = soon
			}
		}
	}
	return echoes, notices, next
}

// putBack returns a notice that could not be sent; what came since is added.
func (a *answers) putBack(key noticeKey, d *noticeDue, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d.next = now.Add(answerRetry)
	if since := a.notices[key]; since != nil {
		for _, f := range since.frames {
			d.add(f)
		}
		if since.more > 0 {
			if d.more == 0 {
				d.first, d.last = since.first, since.last
			}
			d.more += since.more
			d.first, d.last = min(d.first, since.first), max(d.last, since.last)
		}
	}
	a.notices[key] = d
}

// answer is the goroutine that makes and queues answers. It also gives up
// requests that ran out of time.
func (n *Node) answer() {
	housekeeping := time.NewTicker(housekeepingEvery)
	defer housekeeping.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-n.answers.wake:
		case <-again.C:
		case <-housekeeping.C:
			n.expireCertificates(n.cfg.Now())
			n.checkPeers(n.cfg.Now())
			n.out.expire(time.Now())
			n.tell()
			continue
		case <-n.done:
			return
		}
		now := time.Now()
		echoes, notices, next := n.answers.due(now)
		for i := range echoes {
			if !n.sendEcho(&echoes[i]) {
				n.counters.drop(dropAnswer)
			} else {
				n.counters.consumed.Add(1)
			}
		}
		for key, d := range notices {
			if !n.sendNotice(key, d) {
				n.answers.putBack(key, d, now)
			}
		}
		if !next.IsZero() {
			again.Reset(time.Until(next))
		}
	}
}

func (n *Node) sendEcho(a *echoAnswer) bool {
	body, err := codec.AppendEcho(nil, &a.echo)
	return err == nil && n.queueAnswer(a.to, codec.CategoryEcho, body)
}

func (n *Node) sendNotice(key noticeKey, d *noticeDue) bool {
	body, err := codec.AppendNotice(nil, &codec.Notice{
		Reason: key.reason, Recipient: n.address, Frames: d.frames, More: d.more, First: d.first, Last: d.last,
	})
	return err == nil && n.queueAnswer(key.to, codec.CategoryNotice, body)
}

// queueAnswer makes and queues a frame if there is room and a connection.
func (n *Node) queueAnswer(to codec.Address, category codec.Category, body []byte) bool {
	o := n.outTo(to)
	s := o.reserveAnswer(len(body))
	if s == nil {
		return false
	}
	by := n.self.Load()
	frame, state, err := by.compose(n.address, to, category, s.sendTime, body)
	if err != nil {
		o.void(s)
		return false
	}
	var sent *Sent
	if category != codec.CategoryNotice { // notices about it come, and are counted
		sent = &Sent{To: to, Category: category, SendTime: s.sendTime, Digest: codec.Raw(frame).Digest(), node: n, out: o, internal: true}
	}
	o.publish(s, state, by, frame, sent)
	return true
}
