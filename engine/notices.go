package engine

import (
	"time"

	"causeway/codec"
	"causeway/engine/link"
)

// Bounds of what one loop remembers to tell one sender.
const (
	noticesBurst     = 20 // notices that may go at once
	noticesPerSecond = 20 // and then so many a second; what waits becomes a count
	noticeKindsMax   = 64 // kinds of trouble (reason and recipient) that wait per sender
	noticeSendersMax = 65_536
)

// trouble is what one notice tells of.
type trouble struct {
	reason    codec.NoticeReason
	recipient codec.Address
}

// noticed collects the frames of one trouble until the notice goes.
type noticed struct {
	trouble
	frames      []codec.NoticeFrame
	more        uint64
	first, last uint64 // send times of those
}

// add appends a frame, or counts it when the notice is full.
func (n *noticed) add(f codec.Raw) {
	if len(n.frames) < codec.NoticeFramesMax {
		n.frames = append(n.frames, codec.NoticeFrame{Digest: f.Digest(), SendTime: f.SendTime()})
		return
	}
	n.count(f.SendTime())
}

// count counts a frame with the send time t.
func (n *noticed) count(t uint64) {
	if n.more++; n.more == 1 {
		n.first, n.last = t, t
	}
	n.first, n.last = min(n.first, t), max(n.last, t)
}

// debt is what one sender has not been told yet, and how often it may be told.
type debt struct {
	domain *domain
	waits  []*noticed
	tokens float64
	filled time.Time
}

// book is what one loop owes to senders. It belongs to the loop.
type book struct {
	debts map[codec.Address]*debt
	fresh []codec.Address // whose debts grew this turn
}

// owe notes that f was not delivered, for the given reason. It returns false
// when there is no room to remember it.
func (b *book) owe(d *domain, reason codec.NoticeReason, f codec.Raw, now time.Time) bool {
	n := b.noticed(d, trouble{reason, f.Recipient()}, f.Sender(), now)
	if n == nil {
		return false
	}
	n.add(f)
	return true
}

// oweCount is owe for a frame of which only sender and send time are left: the
// notice counts it.
func (b *book) oweCount(d *domain, what trouble, sender codec.Address, sent uint64, now time.Time) bool {
	n := b.noticed(d, what, sender, now)
	if n == nil {
		return false
	}
	n.count(sent)
	return true
}

// noticed returns what collects the sender's frames of one trouble; nil: there
// is no room for it.
func (b *book) noticed(d *domain, what trouble, sender codec.Address, now time.Time) *noticed {
	owed := b.debts[sender]
	if owed == nil {
		if len(b.debts) >= noticeSendersMax {
			return nil
		}
		owed = &debt{domain: d, tokens: noticesBurst, filled: now}
		b.debts[sender] = owed
	}
	for _, n := range owed.waits {
		if n.trouble == what {
			return n
		}
	}
	if len(owed.waits) >= noticeKindsMax {
		return nil
	}
	n := &noticed{trouble: what}
	owed.waits = append(owed.waits, n)
	b.fresh = append(b.fresh, sender)
	return n
}

// payFresh sends what was added this turn, as far as the buckets allow.
func (b *book) payFresh(now time.Time, to teller) {
	for _, sender := range b.fresh {
		if owed := b.debts[sender]; owed != nil {
			owed.pay(sender, now, to)
		}
	}
	b.fresh = b.fresh[:0]
}

// payAll sends what has waited for a bucket to fill, and forgets senders that
// are owed nothing and whose bucket is full.
func (b *book) payAll(now time.Time, to teller) {
	for sender, owed := range b.debts {
		owed.pay(sender, now, to)
		if len(owed.waits) == 0 && owed.tokens == noticesBurst {
			delete(b.debts, sender)
		}
	}
}

// teller sends notices. A sender that does not read is not ready for more.
type teller interface {
	ready(sender codec.Address) bool
	tell(sender codec.Address, d *domain, n *noticed)
}

func (o *debt) pay(sender codec.Address, now time.Time, to teller) {
	o.tokens = min(noticesBurst, o.tokens+noticesPerSecond*now.Sub(o.filled).Seconds())
	o.filled = now
	for len(o.waits) > 0 && o.tokens >= 1 && to.ready(sender) {
		to.tell(sender, o.domain, o.waits[0])
		o.waits = o.waits[1:]
		o.tokens--
	}
}

// ready tells whether who is connected as sender reads, or is gone.
func (l *loop) ready(sender codec.Address) bool {
	ref := link.Ref(l.router.table.Lookup(sender))
	return ref == 0 || l.link.Backlog(ref) < l.router.config.QueueHigh+answersMax
}

// tell makes the notice n and sends it to who is connected as sender.
func (l *loop) tell(sender codec.Address, d *domain, n *noticed) {
	count := uint64(len(n.frames)) + n.more
	ref := link.Ref(l.router.table.Lookup(sender))
	if ref == 0 {
		l.count.unnoticed.Add(count)
		return
	}
	body, err := codec.AppendNotice(nil, &codec.Notice{
		Reason: n.reason, Recipient: n.recipient, Frames: n.frames, More: n.more, First: n.first, Last: n.last,
	})
	if err != nil {
		panic("engine: a notice that the codec refuses: " + err.Error())
	}
	if now := l.router.state().domains[d.name]; now != nil {
		d = now // under the grant of today
	}
	l.sendOwn(ref, d, sender, codec.CategoryNotice, body, link.OwnAhead)
	l.count.noticed.Add(count)
}

// ownTime gives send times to the frames that this router makes: the clock's,
// or the last one plus one (PROTOCOL.md section 1).
func (r *Router) ownTime(now time.Time) uint64 {
	t := uint64(now.UnixNano())
	for {
		last := r.lastTime.Load()
		if t <= last {
			t = last + 1
		}
		if r.lastTime.CompareAndSwap(last, t) {
			return t
		}
	}
}

// ownFrame makes a frame of this router, signed under its grant in d.
func ownFrame(d *domain, to codec.Address, category codec.Category, ttl uint8, at uint64, body []byte) (codec.Frame, error) {
	f := codec.Frame{
		TTL: ttl, Recipient: to, Sender: d.address, Category: category,
		SendTime: at, CertID: d.certID, Body: body,
	}
	var err error
	f.Signature, err = d.signer.Sign(nil, f.AppendSigned(nil))
	return f, err
}
