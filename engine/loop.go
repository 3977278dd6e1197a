package engine

import (
	"fmt"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
	"causeway/engine/verify"
)

// A loop looks at each of its connections once a second, or as often as short
// keep-alives ask for; ticks are no closer than 100 ms.
const (
	lookEveryMax = time.Second
	lookEveryMin = 100 * time.Millisecond
)

// loop is what belongs to one event loop.
type loop struct {
	// fixed after start
	router *Router
	link   *link.Loop

	// home loop
	batch       verify.Batch
	book        book
	waiting     map[*peer]struct{} // their ring's head waits for room
	leftovers   map[*peer]struct{} // gone, and their ring still has frames
	resting     []*peer            // not read since memory was short, in turn; some may be gone
	ledgersMax  int64              // bytes of memory
	letGo       int                // turns until more of them may go on
	noPause     map[destination]time.Time
	keys        keys
	awaits      map[*peer]struct{} // links with frames that wait for certificates
	stranded    stranding
	rooms       map[codec.Address]*room // frames for who has just left; none is empty
	draining    bool                    // the router stops
	leavesLinks bool                    // and neighbours are asked to leave, too
	last        bool                    // and nobody is read any more
	lateEchoes  []lateEcho
	telling     []*peer // whom something is to be told
	saying      []*peer // to whom routing has something to say
	looked      time.Time
	expires     time.Time // when the first certificate of a connection ends; zero: none

	count counters // atomic
}

func newLoop(r *Router) *loop {
	return &loop{
		router:     r,
		ledgersMax: r.budget.Limit() / ledgersPart / int64(r.config.Loops),
		book:       newBook(r.budget.Limit() / noticesPart / int64(r.config.Loops)),
		waiting:    make(map[*peer]struct{}),
		leftovers:  make(map[*peer]struct{}),
		noPause:    make(map[destination]time.Time),
		rooms:      make(map[codec.Address]*room),
		keys:       newKeys(),
		awaits:     make(map[*peer]struct{}),
	}
}

// drop ends the life of b, a frame, for the reason given.
func (l *loop) drop(reason dropReason, b *buf.Buffer) {
	l.count.dropped[reason].Add(1)
	l.link.Account().Put(b)
}

// consume ends the life of b, a frame that was for this router.
func (l *loop) consume(b *buf.Buffer) {
	l.count.consumed.Add(1)
	l.link.Account().Put(b)
}

// sendOwn makes, signs and sends a frame of this router. It goes before the
// frames that wait for the same connection, unless it must be its last. It returns the
// frame's send time, which no other frame of the router has; 0: there is none.
func (l *loop) sendOwn(to link.Ref, d *domain, address codec.Address, category codec.Category, body []byte, kind link.Kind) (sendTime uint64) {
	r := l.router
	f, err := ownFrame(d, address, category, r.state().config.TTLMax, r.ownTime(l.link.Now()), body)
	if err != nil {
		r.log.Error("can't sign with the router's own key", "error", err)
		return 0
	}
	b := l.link.Account().Get(f.Size())
	wire, err := f.Append(b.B[:0])
	if err != nil {
		panic("engine: own frame breaks a bound of the protocol: " + err.Error())
	}
	b.B = wire
	sendTime = f.SendTime
	l.link.SendKind(to, b, kind)
	return sendTime
}

// owe has f's sender told, if this drop is one that senders are told of.
func (l *loop) owe(d *domain, reason dropReason, f codec.Raw) {
	what := noticeReasons[reason]
	if what == 0 || f.Category() == codec.CategoryControl || f.Category() == codec.CategoryNotice || f.Sender().Kind() != codec.KindNode {
		return
	}
	if d == nil || !l.isSure(f.Sender()) {
		l.count.unnoticed.Add(1)
		return
	}
	if !l.book.owe(d, what, f, l.link.Now()) {
		l.count.unnoticed.Add(1)
	}
}

// isSure tells whether frames that say they are the sender's are: with --verify none
// or edge only who is connected here can't be made up.
func (l *loop) isSure(sender codec.Address) bool {
	return l.router.config.verifiesLinks() || isHere(l.router.table.Lookup(sender))
}

// undeliverable takes b, which no longer reaches the connection `to`. When the
// recipient has connected anew it goes there; when it may still do so it waits.
func (l *loop) undeliverable(to link.Ref, b *buf.Buffer) {
	r := l.router
	f := codec.Raw(b.B)
	if _, own := r.state().own[f.Sender()]; own { // made here
		buf.Put(b)
		return
	}
	a := f.Recipient()
	now, remote := r.lookup(a)
	if c := l.link.Conn(to); c != nil && peerOf(c).far != nil {
		remote = true // routing knows it already, or will
	} else if c != nil && now == to { // it takes no more, and is about to be closed
		peerOf(c).unregister(true)
		now, remote = r.lookup(a)
	}
	of := l.awaited(a, now != 0)
	switch {
	case remote && (now == 0 || now == to || !l.stranded.empty()):
		l.strand(b)
	case of != nil && l.hold(a, of, b):
	case of != nil:
		l.giveUp(dropQueueFull, b)
	case remote && now != 0 && now != to:
		l.goOn(now, b)
	case now != 0 && now != to && !l.link.Full(now) && !tooLarge(f, l.link.FrameMax(now)):
		l.link.Send(now, b)
	default:
		l.giveUp(dropRecipientGone, b)
	}
}

// turnEnd pays per batch what the frames of this turn have caused.
func (l *loop) turnEnd() {
	l.router.pool.Submit(&l.batch)
	l.endWaits()
	l.payNotices()
	l.sayRoutes()
	l.endRests()
}

// payNotices sends the notices that this turn's drops have caused.
func (l *loop) payNotices() {
	if len(l.book.fresh) > 0 {
		l.book.payFresh(l.link.Now(), l)
	}
}

// tick looks at what time alone changes.
func (l *loop) tick(now time.Time) {
	for p := range l.waiting {
		if now.Sub(p.waitsAt) >= l.router.state().config.PauseMax {
			p.waitedInVain()
		}
	}
	for p := range l.leftovers {
		if p.ring.Len() == 0 {
			delete(l.leftovers, p)
		}
	}
	l.settleRooms(now)
	l.sayLate(now)
	l.reroute()
	for p := range l.awaits {
		p.tickRooms(now)
	}
	l.reclaim(now)
	l.tellSome()
	if !l.expires.IsZero() && now.After(l.expires) {
		l.expire(now)
	}
	if now.Sub(l.looked) < l.router.lookEvery {
		return
	}
	l.looked = now
	l.lookAll(now)
}

// lookAll looks at each connection, and at what else has had its time.
func (l *loop) lookAll(now time.Time) {
	l.book.payAll(now, l)
	l.keys.sweep(now)
	if l.link.Index() == 0 {
		l.router.withdrawn.forget(now)
		l.router.lookAtTables()
	}
	for to, until := range l.noPause {
		if now.After(until) {
			delete(l.noPause, to)
		}
	}
	l.link.Range(func(c *link.Conn) { peerOf(c).look(now) })
}

// endsAt has the loop look for certificates that have ended, at that time.
func (l *loop) endsAt(t time.Time) {
	if l.expires.IsZero() || t.Before(l.expires) {
		l.expires = t
	}
}

// expire ends connections whose certificate has ended, their own or this
// router's.
func (l *loop) expire(now time.Time) {
	l.expires = time.Time{}
	l.link.Range(func(c *link.Conn) {
		p := peerOf(c)
		theirs, ours := p.id.NotAfter, p.domain.grant.NotAfter
		switch {
		case p.phase >= phaseLeaving:
		case p.far != nil:
			p.expireLink(now)
		case now.After(theirs):
			p.expel(codec.GoodbyeExpired, "your certificate was valid until "+clock(theirs)+"; this router's clock says "+clock(now))
		case now.After(ours):
			p.expel(codec.GoodbyeExpired, "this router's grant of "+p.domain.name+" was valid until "+clock(ours))
		default:
			l.endsAt(theirs)
			l.endsAt(ours)
		}
	})
}

// stalled tells whether the oldest frame that waits for the peer has waited for
// too long.
func (p *peer) stalled(now time.Time) bool {
	oldest := p.conn.OldestQueued()
	if p.far != nil && !oldest.IsZero() && p.spokeAt.After(oldest) {
		oldest = p.spokeAt // the link is slow, and what it holds is bounded for each recipient
	}
	return !oldest.IsZero() && now.Sub(oldest) >= p.router.state().config.StallTimeout
}

// look acts on what has not happened on a connection.
func (p *peer) look(now time.Time) {
	c := &p.router.state().config
	n := p.conn.Counters()
	p.rates.note(now, n)
	if n.BytesIn != p.heard || p.conn.Paused() {
		p.heard, p.heardAt = n.BytesIn, now
	}
	if n.BytesOut != p.spoken {
		p.spoken, p.spokeAt = n.BytesOut, now
	}
	p.answerOwed()
	if p.isOpen() && p.ledger.dueAt(now) {
		p.ask()
	}
	if grown := p.ledger.release(); grown != 0 {
		p.loop.ledgerGrew(grown)
	}
	if p.far != nil {
		p.lookLink(now)
	}
	switch {
	case p.phase >= phaseLeaving:
	case p.phase == phaseParting:
		p.part()
	case p.phase == phaseHello:
		if now.Sub(p.opened) >= c.HelloTimeout {
			p.leave(codec.GoodbyeProtocol, "no hello came in time")
		}
	case p.stalled(now):
		l := p.loop
		l.count.stalled.Add(1)
		if speak, unlogged := l.router.stalled.now(now); speak {
			l.router.log.Warn("a node does not read and is disconnected", "peer", describe(p.id), "remote", p.conn.Remote(),
				"queued_bytes", p.conn.QueuedBytes(), "oldest", now.Sub(p.conn.OldestQueued()).Round(time.Second), "more_since_last_line", unlogged)
		}
		p.leave(codec.GoodbyeStalled, fmt.Sprintf("nothing was read for %v", c.StallTimeout))
		p.conn.CloseOnLoop(&leftError{codec.GoodbyeStalled}) // what waits goes back to its senders
	case now.Sub(p.heardAt) >= c.DeadAfter:
		p.leave(codec.GoodbyeIdle, fmt.Sprintf("nothing came for %v", c.DeadAfter))
		if p.far != nil { // what is queued goes on by other links, before what comes
			p.conn.CloseOnLoop(&leftError{codec.GoodbyeIdle})
		}
	case p.idle(now):
		p.leave(codec.GoodbyeIdle, fmt.Sprintf("you have sent no message for %v, and this router keeps nobody longer", c.IdleTimeout))
	case now.Sub(p.spokeAt) >= c.KeepAlive-2*p.router.lookEvery && p.takes(answerSmall):
		p.say(&codec.KeepAlive{Received: p.decidedAhead()})
	}
}
