package engine

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// Frames for an address that has just left wait for it to come back
// (PROTOCOL.md section 8 rule 14):
//
//  1. unregister  the address is noted as withdrawn, then leaves the table
//  2. hold        frames that find no route, or that come back from the ended
//     connection, go into a room of the loop that has them
//  3. register    the loop that had the ended connection, whose frames are the
//     oldest, empties its room; then the address is in the table again, and the
//     other loops do the same
//  4. settle      a room's frames go to their recipient, or back to their
//     senders as notices when the time is over
//
// A loop's room goes before the table: what is routed between 3 and 4 goes
// behind what waits. Rooms of different loops need no order between them, since
// a sender has one loop.

// Bounds of what waits. At them frames are dropped as queue-full.
const (
	heldBytesMax = 32 << 20 // in all; buffers count with their capacity
	heldPart     = 16       // of the cap on memory, in all
	roomBytesMax = 1 << 20  // of one address, on all loops; one frame is always taken

	// withdrawnMax bounds the addresses that are noted; for more nothing waits. What
	// other routers say leaves half of that to nodes that were connected here.
	withdrawnMax       = 1 << 17
	withdrawnRemoteMax = withdrawnMax / 2
)

// withdrawal is an address that has left, and may come back.
type withdrawal struct {
	until atomic.Int64 // withdrawals.elapsed
	loop  atomic.Int32 // that had its last connection
	bytes atomic.Int64 // of frames that wait for it
}

// withdrawals are the addresses that have left lately. A loop asks only for
// addresses that are not in the table.
type withdrawals struct {
	start  time.Time
	max    int64         // bytes of frames in all rooms
	count  atomic.Int32  // len(of): while it is 0 nobody needs the lock
	bytes  atomic.Int64  // of frames in all rooms
	frames atomic.Int64  // in all rooms
	missed atomic.Uint64 // addresses that there was no room to note

	mu    sync.RWMutex
	of    map[codec.Address]*withdrawal // guarded by mu, like all below
	order []due                         // in order of time
}

// due is when a withdrawal may have had its time.
type due struct {
	address codec.Address
	until   int64
}

// newWithdrawals is for a router whose memory has the cap given.
func newWithdrawals(now time.Time, memory int64) *withdrawals {
	return &withdrawals{start: now, max: min(heldBytesMax, memory/heldPart), of: make(map[codec.Address]*withdrawal)}
}

// elapsed is a time as withdrawals count it, in nanoseconds.
func (w *withdrawals) elapsed(now time.Time) int64 { return int64(now.Sub(w.start)) }

func (w *withdrawals) over(x *withdrawal, now time.Time) bool {
	return w.elapsed(now) >= x.until.Load()
}

// add notes that the address leaves, on the loop given, for the time given, unless
// most are noted.
func (w *withdrawals) add(a codec.Address, loop int, now time.Time, hold time.Duration, most int) {
	until := w.elapsed(now.Add(hold))
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.of[a]
	if x == nil {
		if len(w.of) >= most {
			w.missed.Add(1)
			return
		}
		x = &withdrawal{}
		w.of[a] = x
		w.count.Store(int32(len(w.of)))
	}
	x.until.Store(until)
	x.loop.Store(int32(loop))
	w.order = append(w.order, due{a, until})
}

// remove forgets an address that may not come back: what waits for it has had
// its time.
func (w *withdrawals) remove(a codec.Address) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if x := w.of[a]; x != nil {
		x.until.Store(0)
		delete(w.of, a)
		w.count.Store(int32(len(w.of)))
	}
}

// find returns the withdrawal of an address, or nil. It allocates nothing.
func (w *withdrawals) find(a codec.Address) *withdrawal {
	if w.count.Load() == 0 {
		return nil
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.of[a]
}

// forget drops the withdrawals that have had their time.
func (w *withdrawals) forget(now time.Time) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for ; n < len(w.order) && w.order[n].until <= w.elapsed(now); n++ {
		a := w.order[n].address
		if x := w.of[a]; x != nil && w.over(x, now) { // it has not left again since
			delete(w.of, a)
		}
	}
	w.count.Store(int32(len(w.of)))
	if w.order = slices.Delete(w.order, 0, n); len(w.order) == 0 {
		w.order = nil
	}
}

// take adds n bytes of one frame to what waits for x, unless that is too much.
func (w *withdrawals) take(x *withdrawal, n int64) bool {
	if mine := x.bytes.Add(n); mine > n && mine > roomBytesMax {
		x.bytes.Add(-n)
		return false
	}
	if !w.takeAny(n) {
		x.bytes.Add(-n)
		return false
	}
	return true
}

// takeAny adds n bytes of one frame to all that waits, unless that is too much.
func (w *withdrawals) takeAny(n int64) bool {
	if w.bytes.Add(n) > w.max {
		w.bytes.Add(-n)
		return false
	}
	w.frames.Add(1)
	return true
}

// giveBack ends take.
func (w *withdrawals) giveBack(x *withdrawal, n int64) {
	x.bytes.Add(-n)
	w.giveBackAny(n)
}

// giveBackAny ends takeAny.
func (w *withdrawals) giveBackAny(n int64) {
	w.bytes.Add(-n)
	w.frames.Add(-1)
}

// room is where a loop's frames for one address wait, in order.
type room struct {
	of     *withdrawal
	frames []*buf.Buffer
}

// withdraw takes the peer's address out of the table, if it is the peer's. hold:
// frames for it wait for it to come back.
func (p *peer) withdraw(hold bool) {
	r, l, a, ref := p.router, p.loop, p.address(), tableValue(p.conn.Ref())
	if r.table.Lookup(a) == ref {
		if most := r.state().config.HoldTimeout; hold && most > 0 && !l.nobodyReturns() {
			r.withdrawn.add(a, l.link.Index(), l.link.Now(), most, withdrawnMax)
		} else {
			r.withdrawn.remove(a)
		}
	}
	r.table.Clear(a, ref)
	r.routing.detach(p.domain.address, a, p.conn.Ref())
}

// nobodyReturns tells that frames wait for nobody any more: this router stops,
// and has no link by which it could hear of where nodes have gone.
func (l *loop) nobodyReturns() bool {
	return l.draining && (l.last || l.router.routing.links.Load() == 0)
}

// enterAfter makes the peer a recipient when what came back from its address's
// last connection is on the way to it: that is the oldest of what waits.
func (p *peer) enterAfter(last *withdrawal) {
	l, a, ref := p.router.loops[last.loop.Load()], p.address(), p.conn.Ref()
	l.link.Post(func() {
		l.settleTo(a, ref)
		l.link.Post(func() { // a turn later, so after those frames
			p.loop.link.Post(func() {
				if p.member != nil {
					p.enter()
				}
			})
		})
	})
}

// comesBack has all loops hand over what waits for an address that is in the
// table again.
func (r *Router) comesBack(a codec.Address) {
	if r.withdrawn.find(a) == nil && r.withdrawn.frames.Load() == 0 {
		return
	}
	for _, l := range r.loops {
		l.link.Post(func() {
			if !l.stranded.empty() { // which are older
				l.comeBack()
			}
			l.settle(a)
		})
	}
}

// awaited returns the withdrawal that a frame for the address has to wait for
// the end of; nil: none. routed says that the table has a route to it.
func (l *loop) awaited(a codec.Address, routed bool) *withdrawal {
	withdrawn, now := l.router.withdrawn, l.link.Now()
	if len(l.rooms) > 0 {
		if room := l.rooms[a]; room != nil {
			if !withdrawn.over(room.of, now) {
				return room.of
			}
			l.settle(a)
		}
	}
	if routed || l.nobodyReturns() {
		return nil
	}
	if of := withdrawn.find(a); of != nil && !withdrawn.over(of, now) {
		return of
	}
	return nil
}

// hold puts b behind the frames that wait for the address, which was withdrawn.
// It takes b unless it returns false: there is no room.
func (l *loop) hold(a codec.Address, of *withdrawal, b *buf.Buffer) bool {
	if !l.router.withdrawn.take(of, int64(cap(b.B))) {
		return false
	}
	in := l.rooms[a]
	if in == nil {
		in = &room{of: of}
		l.rooms[a] = in
	}
	in.frames = append(in.frames, b)
	l.link.Account().Use(buf.PartHeld, buf.SizeOf(b))
	return true
}

// settle hands over what waits for the address, if it is back, and gives it up
// when its time is over.
func (l *loop) settle(a codec.Address) {
	room := l.rooms[a]
	if room == nil {
		return
	}
	if to, _ := l.router.lookup(a); to != 0 || l.nobodyReturns() || l.router.withdrawn.over(room.of, l.link.Now()) {
		l.settleTo(a, to)
	}
}

// settleTo hands over what waits for the address to its connection `to`; 0: to
// nobody.
func (l *loop) settleTo(a codec.Address, to link.Ref) {
	room := l.rooms[a]
	if room == nil {
		return
	}
	delete(l.rooms, a)
	for _, b := range room.frames {
		l.router.withdrawn.giveBack(room.of, int64(cap(b.B)))
		l.link.Account().Use(buf.PartHeld, -buf.SizeOf(b))
		switch {
		case to == 0:
			l.giveUp(dropNoRoute, b)
		case tooLarge(codec.Raw(b.B), l.link.FrameMax(to)):
			l.giveUp(dropTooLarge, b)
		default: // also beyond the high mark: it is little
			l.link.Send(to, b)
		}
	}
}

// settleRooms ends the rooms whose time is over, and does what comeBack has left.
func (l *loop) settleRooms(now time.Time) {
	if s := &l.stranded; s.left {
		s.rests = time.Time{}
		l.comeBack()
	}
	for a, room := range l.rooms {
		if l.nobodyReturns() || l.router.withdrawn.over(room.of, now) {
			l.settle(a)
		}
	}
}

// settleReached hands over what waits for who is reached again.
func (l *loop) settleReached() {
	for a := range l.rooms {
		l.settle(a)
	}
}

// giveUp drops b, a frame that a peer has sent some time ago, and owes its
// sender a notice.
func (l *loop) giveUp(reason dropReason, b *buf.Buffer) {
	f := codec.Raw(b.B)
	l.owe(l.router.state().byPrefix[f.Sender().Prefix()], reason, f)
	l.drop(reason, b)
}
