package engine

import (
	"time"
	"unsafe"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// Bounds of what one loop remembers to tell one sender.
const (
	noticesBurst     = 20  // notices that may go at once
	noticesPerSecond = 20  // and then so many a second; what waits becomes a count
	noticeKindsMax   = 512 // kinds of trouble (reason and recipient) that wait per sender: a hub that has lost so many recipients
	noticeSendersMax = 65_536

	// What is remembered takes memory (book.max). Lists of frames leave half of it
	// to counts, and a sender gets a part of what is left of theirs.
	noticeListsPart  = 2
	noticeSenderPart = 4
)

// Sizes in memory, in bytes: what is allocated, and its places in maps and lists.
const (
	debtBytes    = 256
	noticedBytes = 160
	listedBytes  = int64(unsafe.Sizeof(codec.NoticeFrame{}))
)

// Sizes in a notice's body, at most, in bytes (PROTOCOL.md section 6): of a listed
// frame, and of all else.
const (
	noticeListed   = 1 + 1 + codec.DigestSize + 9
	noticeOverhead = 1 + 2 + 2 + codec.AddressSize + 4 + 3*(1+9)
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

// add appends a frame, or counts it when the notice is full, or its list may not
// take so many bytes more. It returns how many it has taken.
func (n *noticed) add(f codec.Raw, most int64) (taken int64) {
	if len(n.frames) == cap(n.frames) {
		room := min(max(1, 2*cap(n.frames)), codec.NoticeFramesMax)
		if taken = int64(room-cap(n.frames)) * listedBytes; taken == 0 || taken > most {
			n.count(f.SendTime())
			return 0
		}
		n.frames = append(make([]codec.NoticeFrame, 0, room), n.frames...)
	}
	n.frames = append(n.frames, codec.NoticeFrame{Digest: f.Digest(), SendTime: f.SendTime()})
	return taken
}

// count counts one more frame that is not listed, sent at the time given.
func (n *noticed) count(t uint64) {
	if n.more++; n.more == 1 {
		n.first, n.last = t, t
	}
	n.first, n.last = min(n.first, t), max(n.last, t)
}

// countAll makes the list a count.
func (n *noticed) countAll() { n.list(0) }

// list lists so many frames at most, and counts the others.
func (n *noticed) list(most int) {
	if len(n.frames) <= most {
		return
	}
	for _, f := range n.frames[most:] {
		n.count(f.SendTime)
	}
	if n.frames = n.frames[:most]; most == 0 {
		n.frames = nil
	}
}

// size returns what n takes in memory, in bytes.
func (n *noticed) size() int64 { return noticedBytes + int64(cap(n.frames))*listedBytes }

// debt is what one sender has not been told yet, and how often it may be told.
type debt struct {
	domain *domain
	waits  []*noticed
	size   int64     // of waits, bytes of memory
	since  time.Time // the first of waits came
	tokens float64   // below 0: overdrawn
	filled time.Time
}

// book is what one loop owes to senders. It belongs to the loop.
type book struct {
	debts map[codec.Address]*debt
	fresh []codec.Address // whose debts grew this turn

	max, size int64 // bytes of memory
	most      int   // that debts had at a time: what the map takes
	account   *buf.Account
}

// newBook returns a book that may take so many bytes.
func newBook(max int64) book { return book{debts: make(map[codec.Address]*debt), max: max} }

// takes counts n more bytes, of a sender's debt if that is given.
func (b *book) takes(owed *debt, n int64) {
	b.size += n
	b.account.Use(buf.PartNotices, n)
	if owed != nil {
		owed.size += n
	}
}

// owe notes that f was not delivered, for the given reason. It returns false
// when there is no room to remember it.
func (b *book) owe(d *domain, reason codec.NoticeReason, f codec.Raw, now time.Time) bool {
	owed, n := b.noticed(d, trouble{reason, f.Recipient()}, f.Sender(), now)
	if n == nil {
		return false
	}
	b.takes(owed, n.add(f, b.forList(owed)))
	return true
}

// oweCount is owe for a frame of which only sender and send time are left: the
// notice counts it.
func (b *book) oweCount(d *domain, what trouble, sender codec.Address, sent uint64, now time.Time) bool {
	_, n := b.noticed(d, what, sender, now)
	if n == nil {
		return false
	}
	n.count(sent)
	return true
}

// noticed returns what collects the sender's frames of one trouble, and the debt
// that it is of; nil: there is no room for it.
func (b *book) noticed(d *domain, what trouble, sender codec.Address, now time.Time) (*debt, *noticed) {
	owed := b.debts[sender]
	if owed == nil {
		if len(b.debts) >= noticeSendersMax || b.size+debtBytes+noticedBytes > b.max {
			return nil, nil
		}
		owed = &debt{domain: d, tokens: noticesBurst, filled: now}
		b.debts[sender] = owed
		b.most = max(b.most, len(b.debts))
		b.takes(nil, debtBytes)
	}
	for i := len(owed.waits) - 1; i >= 0; i-- { // mostly the newest
		if n := owed.waits[i]; n.trouble == what {
			return owed, n
		}
	}
	if len(owed.waits) >= noticeKindsMax || b.size+noticedBytes > b.max {
		return nil, nil
	}
	if len(owed.waits) == 0 {
		owed.since = now
	}
	n := &noticed{trouble: what}
	b.takes(owed, noticedBytes)
	owed.waits = append(owed.waits, n)
	b.fresh = append(b.fresh, sender)
	return owed, n
}

// forList returns how much more a sender's lists of frames may take, in bytes.
func (b *book) forList(owed *debt) int64 {
	return (b.max/noticeListsPart-b.size)/noticeSenderPart - owed.size
}

// payFresh sends what was added this turn, as far as the buckets allow.
func (b *book) payFresh(now time.Time, to teller) {
	for _, sender := range b.fresh {
		if owed := b.debts[sender]; owed != nil {
			b.pay(owed, sender, now, to)
		}
	}
	b.fresh = b.fresh[:0]
	if cap(b.fresh) > freshKeptMax {
		b.fresh = nil
	}
}

// payAll sends what has waited for a bucket to fill, and forgets senders that
// are owed nothing and whose bucket is full.
func (b *book) payAll(now time.Time, to teller) {
	for sender, owed := range b.debts {
		b.pay(owed, sender, now, to)
		if len(owed.waits) == 0 && owed.tokens == noticesBurst {
			delete(b.debts, sender)
			b.takes(nil, -debtBytes)
		}
	}
	if len(b.debts) == 0 && b.most > debtsKeptMax { // a map keeps its memory
		b.debts, b.most = make(map[codec.Address]*debt), 0
	}
}

// What is kept in memory for nobody: a map's and a list's places.
const (
	debtsKeptMax = 1 << 10
	freshKeptMax = 1 << 12
)

// teller sends notices. A sender that does not read is not ready for more.
type teller interface {
	ready(sender codec.Address) bool
	reached(sender codec.Address) bool // or nothing helps to wait
	tell(sender codec.Address, d *domain, n *noticed)
}

func (b *book) pay(o *debt, sender codec.Address, now time.Time, to teller) {
	o.fill(now)
	if len(o.waits) > 0 && now.Sub(o.since) < noticePatience && !to.reached(sender) {
		return
	}
	for len(o.waits) > 0 && o.tokens >= 1 && to.ready(sender) {
		b.payOne(o, sender, to)
	}
}

func (o *debt) fill(now time.Time) {
	o.tokens = min(noticesBurst, o.tokens+noticesPerSecond*now.Sub(o.filled).Seconds())
	o.filled = now
}

func (b *book) payOne(o *debt, sender codec.Address, to teller) {
	n := o.waits[0]
	b.takes(o, -n.size())
	to.tell(sender, o.domain, n)
	o.waits[0] = nil
	o.waits = o.waits[1:]
	o.tokens--
}

// payOff sends a sender who leaves what it is owed, in at most so many notices,
// and tells whether there is more. Its bucket is overdrawn for that: who leaves
// and comes back, again and again, gets no more notices than who stays.
func (b *book) payOff(sender codec.Address, now time.Time, to teller, most int) (more bool) {
	o := b.debts[sender]
	if o == nil {
		return false
	}
	o.fill(now)
	for n := 0; len(o.waits) > 0 && o.tokens > -noticeKindsMax && to.ready(sender); n++ {
		if n == most {
			return true
		}
		b.payOne(o, sender, to)
	}
	return false
}

// leaver tells a sender that has said goodbye on the connection `to`, and that the
// table has no more.
type leaver struct {
	l  *loop
	to link.Ref
}

func (v leaver) ready(codec.Address) bool { return v.l.noticeRoom(v.to, false) > 0 }

func (v leaver) reached(codec.Address) bool { return true }

func (v leaver) tell(sender codec.Address, d *domain, n *noticed) {
	v.l.tellAt(v.to, false, sender, d, n)
}

// payOffPerTurn is how many notices a loop makes at a time for who leaves: each is
// signed, so that is about a millisecond.
const payOffPerTurn = 32

// payOff tells the sender, who leaves its connection `to`, what this loop owes it,
// and then calls done, on this loop, when the notices are on their way.
func (l *loop) payOff(sender codec.Address, to link.Ref, done func()) {
	more := l.link.Alive(to) && l.book.payOff(sender, l.link.Now(), leaver{l, to}, payOffPerTurn)
	l.link.Post(func() { // a turn later
		if more {
			l.payOff(sender, to, done)
		} else {
			done()
		}
	})
}

// payOff has all loops tell the peer, which has said goodbye and still reads, what
// they owe it.
func (p *peer) payOff() {
	sender, to := p.address(), p.conn.Ref()
	paid := func() {
		if p.owing--; p.owing == 0 && p.phase == phaseParting {
			p.part()
		}
	}
	for _, l := range p.router.loops {
		if l.link.Post(func() { l.payOff(sender, to, func() { p.loop.link.Post(paid) }) }) {
			p.owing++
		}
	}
}

// ready tells whether sender, or the link that leads to it, reads, or is gone.
func (l *loop) ready(sender codec.Address) bool {
	ref, remote := l.router.lookup(sender)
	return ref == 0 || l.noticeRoom(ref, remote) > 0
}

// noticePatience is how long notices wait for a sender who is not reached: one that
// has just connected to another router, or changes routers.
const noticePatience = 2 * time.Second

// reached tells whether there is a way to the sender, or there won't be: it could
// only be at another router.
func (l *loop) reached(sender codec.Address) bool {
	to, _ := l.router.lookup(sender)
	return to != 0 || l.router.routing.links.Load() == 0
}

// noticeRoom returns how large a notice may be for the connection given, in bytes.
// A link has the queues of many recipients, so more may wait for it.
func (l *loop) noticeRoom(to link.Ref, remote bool) int64 {
	high := int64(l.router.config.QueueHigh)
	if remote {
		high *= noticeLinkQueues
	}
	return min(high+answersMax, max(l.link.Account().OwnMax(), ownSure)) - int64(l.link.Backlog(to))
}

// noticeLinkQueues is how many full queues of recipients may wait for a link until
// senders behind it are told no more; notices overtake what waits.
const noticeLinkQueues = 4

// noticeFarMax bounds the body of a notice to a sender that is connected to another
// router, in bytes: what that node takes is not known here (PROTOCOL.md section 6).
const noticeFarMax = 16 << 10

// listedMemory is more than a listed frame takes in a notice: 28 bytes of its
// body, and as much where a buffer is twice as large.
const listedMemory = 64

// tell makes the notice n and sends it to sender, or towards it.
func (l *loop) tell(sender codec.Address, d *domain, n *noticed) {
	ref, remote := l.router.lookup(sender)
	l.tellAt(ref, remote, sender, d, n)
}

// tellAt makes the notice n and sends it to sender's connection ref; 0: it has
// none. Where memory is short a long list is sent as a count, and where the sender
// takes small bodies only, some of it. remote: the connection is the way to it.
func (l *loop) tellAt(ref link.Ref, remote bool, sender codec.Address, d *domain, n *noticed) {
	count := uint64(len(n.frames)) + n.more
	if ref == 0 {
		l.count.unnoticed.Add(count)
		return
	}
	most := l.link.FrameMax(ref)
	if remote && (most == 0 || most > noticeFarMax) {
		most = noticeFarMax
	}
	switch {
	case int64(len(n.frames))*listedMemory > l.noticeRoom(ref, remote):
		n.countAll()
	case most > 0:
		n.list(max(0, most-noticeOverhead) / noticeListed)
	}
	body, err := codec.AppendNotice(nil, &codec.Notice{
		Reason: n.reason, Recipient: n.recipient, Frames: n.frames, More: n.more, First: n.first, Last: n.last,
	})
	if err != nil {
		panic("engine: a notice that the codec refuses: " + err.Error())
	}
	if most > 0 && len(body) > most {
		l.count.unnoticed.Add(count)
		return
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
