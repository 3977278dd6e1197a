package link

import (
	"bytes"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"causeway/engine/buf"
)

// lookEvery is how often a busy loop's account looks at what others take,
// besides whenever the loop itself has taken much, in nanoseconds.
const lookEvery = int64(time.Millisecond)

// Loop is one thread that owns connections. Its methods may be called on the
// loop itself only, unless they say otherwise.
type Loop struct {
	// fixed after start
	engine  *Engine
	index   int
	port    *port
	account *buf.Account

	// home loop: time and work of the turn
	now            time.Time
	elapsedNow     int64 // now as nanoseconds since the engine's start; never 0
	inTurn         bool
	armed          bool // a turn is coming for what this loop itself has to do
	ended          bool
	cut            uint64 // frames cut since start
	dirty          []*Conn
	hot            []*Conn // have a record's worth of frames
	goingOn        []*Conn
	dying          []*Conn
	finishing      []*Conn
	dead           []parcel // frames to give back; not in any backlog
	resumes        []waiter
	outbox         [][]parcel // by loop
	parcels        []parcel   // being handled
	posts          []func()
	ticked         bool
	whenEmpty      func() // Close waits for the last connection
	whenDone       func() // Close waits for the loop's end
	lookedAt       int64  // when account last saw what others take, as Loop.elapsedNow
	sharesLookedAt time.Time
	listBytes      int64 // of lists of parcels, as account knows

	// home loop: connections
	conns []*Conn // by slot
	free  []int   // slots
	open  int     // connections that are not closed

	// home loop: memory shared by its connections
	spareConns   []*Conn // lists swapped with those above
	spareDead    []parcel
	freed        []waiter // being told that they may go on
	spareQueued  segments[queued]
	spareMarks   segments[mark]
	spareChunks  *chunk
	spareChunksN int
	raw          bytes.Buffer    // a record, being decrypted
	plain        [recordMax]byte // decrypted, being cut
	record       [recordMax]byte // being sealed
	iov          [partsMax]unix.Iovec
	orphans      []byte // input of orphans

	// any goroutine
	slots    slotTable
	inbox    inbox
	notified atomic.Pointer[Conn]
	count    atomic.Int64 // connections enrolled or about to be
	stat     loopStat
}

func newLoop(e *Engine, i int) *Loop {
	l := &Loop{engine: e, index: i, now: e.start, elapsedNow: 1, outbox: make([][]parcel, e.cfg.Loops), account: e.cfg.Budget.Account()}
	l.spareQueued.account, l.spareMarks.account = l.account, l.account
	return l
}

// Account returns the loop's access to Config.Budget, which is for the loop only.
func (l *Loop) Account() *buf.Account { return l.account }

// Index returns the loop's place in Engine.Loops. Any goroutine.
func (l *Loop) Index() int { return l.index }

// Now returns the time, read once per turn.
func (l *Loop) Now() time.Time { return l.now }

// Conn returns the connection that ref names, nil when it is gone or not on
// this loop.
func (l *Loop) Conn(ref Ref) *Conn {
	if ref.Loop() != l.index || ref.slot() >= len(l.conns) {
		return nil
	}
	if c := l.conns[ref.slot()]; c != nil && c.Ref() == ref {
		return c
	}
	return nil
}

// Range calls fn for each connection of the loop.
func (l *Loop) Range(fn func(*Conn)) {
	for _, c := range l.conns {
		if c != nil {
			fn(c)
		}
	}
}

// Post runs fn on the loop, soon, in the order of the calls. Any goroutine; it
// takes a lock. It returns false, and fn never runs, when the engine is closed.
func (l *Loop) Post(fn func()) bool {
	if !l.inbox.post(fn) {
		return false
	}
	l.wake()
	return true
}

// wake makes the loop turn soon. Any goroutine.
func (l *Loop) wake() {
	if l.port.wake() {
		l.stat.wakes.Add(1)
	}
}

// arm asks for a turn from the loop itself.
func (l *Loop) arm() {
	if !l.inTurn && !l.armed {
		l.armed = true
		l.wake()
	}
}

// refresh reads the clock unless that was done since the last turn.
func (l *Loop) refresh() {
	if !l.armed && !l.inTurn {
		l.readClock()
	}
}

func (l *Loop) readClock() {
	l.now = time.Now()
	l.elapsedNow = max(int64(l.now.Sub(l.engine.start)), 1)
}

// opened puts c, whose socket gnet has just registered, on the loop; false
// closes it.
func (l *Loop) opened(c *Conn, s socket, fd int) bool {
	i := len(l.conns)
	if n := len(l.free); n > 0 {
		i, l.free = l.free[n-1], l.free[:n-1]
	} else if i == 1<<slotBits {
		return false
	} else {
		l.conns = append(l.conns, nil)
	}
	if !c.enrolled.CompareAndSwap(enrollPending, enrollOpened) {
		l.free = append(l.free, i)
		return false
	}
	l.refresh()
	c.slot = l.slots.addOnLoop(i)
	if c.slot.generation.Load() == 0 {
		c.slot.generation.Store(1)
	}
	c.ref.Store(uint64(newRef(l.index, i, c.slot.generation.Load())))
	l.conns[i] = c
	l.open++
	c.socket, c.fd, c.phase = s, fd, phaseOpen
	l.stat.opened.Add(1)
	l.arm()
	l.engine.handler.Opened(c)
	if c.readyOwed {
		c.Notify()
	}
	return true
}

// turn is one turn of the loop. gnet calls it, between reads of sockets, when
// the port was woken; never more than once per epoll_wait, so that wakes do not
// starve sockets.
func (l *Loop) turn() {
	l.inTurn = true
	l.takeEvents(l.port.collect())
	l.readClock()
	l.armed = false
	l.stat.turns.Add(1)
	if at := l.elapsedNow; at-l.lookedAt >= lookEvery {
		l.lookedAt = at
		l.account.Look()
	}
	l.takeInbox()
	l.takeNotified()
	l.takeResumes()
	if l.ticked {
		l.tick()
	}
	l.readOn()
	l.bury()
	if l.engine.live.Load() && !l.ended {
		l.engine.handler.TurnEnd(l)
	}
	l.flush()
	l.spliceOutboxes()
	l.endTurn()
	l.inTurn = false
	if l.hasWork() {
		l.arm()
	}
}

// takeEvents handles what was ready in W.
func (l *Loop) takeEvents(events []unix.EpollEvent) {
	for i := range events {
		switch key := events[i].Fd; key {
		case keyEvent:
		case keyTimer:
			l.ticked = true
			l.port.readTimer()
		case keyProbe:
			l.engine.probe.writable.Store(true)
		default:
			c := l.Conn(newRef(l.index, int(key), uint32(events[i].Pad)))
			if c != nil {
				c.blocked = false
				c.markDirty()
			}
		}
	}
}

// hasWork tells whether anything is left for another turn.
func (l *Loop) hasWork() bool {
	if len(l.dirty)+len(l.goingOn)+len(l.dying)+len(l.dead)+len(l.resumes) > 0 {
		return true
	}
	for _, parcels := range l.outbox {
		if len(parcels) > 0 {
			return true
		}
	}
	return false
}

func (l *Loop) tick() {
	l.ticked = false
	l.account.Look() // also what a quiet loop has counted becomes known
	l.shed()
	l.endOldShares()
	l.checkDeadlines()
	if l.engine.live.Load() && !l.ended {
		l.engine.handler.Tick(l, l.now)
	}
}

// takeResumes ends the waits for destinations of this loop.
func (l *Loop) takeResumes() {
	for i := 0; i < len(l.resumes); i++ { // endWait may append
		l.endWait(l.resumes[i].ref, l.resumes[i].seq)
	}
	l.resumes = emptied(l, l.resumes)
}

// takeConns returns *list and leaves an empty one in its place.
func (l *Loop) takeConns(list *[]*Conn) []*Conn {
	conns := *list
	*list, l.spareConns = l.spareConns, nil
	return conns
}

// putConns keeps the memory of a list from takeConns for the next one.
func (l *Loop) putConns(conns []*Conn) { l.spareConns = emptied(l, conns) }

// readOn continues connections that were resumed.
func (l *Loop) readOn() {
	if len(l.goingOn) == 0 {
		return
	}
	conns := l.takeConns(&l.goingOn)
	for _, c := range conns {
		c.goingOn = false
		c.continueReading()
	}
	l.putConns(conns)
}

// bury tears down what is dying and gives back what cannot be delivered.
func (l *Loop) bury() {
	if len(l.dying) > 0 {
		conns := l.takeConns(&l.dying)
		for _, c := range conns {
			l.teardown(c)
		}
		l.putConns(conns)
	}
	if len(l.dead) > 0 {
		dead := l.dead
		l.dead, l.spareDead = l.spareDead, nil
		for _, p := range dead {
			l.undeliverable(p.to, p.b)
		}
		l.spareDead = emptied(l, dead)
	}
}

// flush writes what the turn has queued.
func (l *Loop) flush() {
	if len(l.dirty) == 0 {
		return
	}
	conns := l.takeConns(&l.dirty)
	for _, c := range conns {
		c.dirty = false
		c.flush()
	}
	l.putConns(conns)
	for _, c := range l.hot {
		c.hot = false // all of them were dirty
	}
	l.hot = emptied(l, l.hot)
}

// orphanInput returns the loop's buffer for reading orphans.
func (l *Loop) orphanInput() []byte {
	if l.orphans == nil {
		l.orphans = make([]byte, readBytesMax)
	}
	return l.orphans
}
