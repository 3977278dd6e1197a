package engine

import (
	"math"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
)

// Frames that come over a link under a certificate that is not known here wait for
// it (PROTOCOL.md section 8), on the link's home loop:
//
//  1. await        the frame goes into its sender's room, behind the earlier ones;
//     the certificate of the first is asked for, of so many rooms at a time
//  2. roomFetched  it is here, or not to be had
//  3. settleRoom   frames go on into the ring, in order, until one has to wait for
//     another certificate, or for room in the ring; those without are dropped
//  4. tickRooms    so are those that have waited for too long
//
// What is dropped here has no notice: nobody has verified who sent it.

// Bounds of what waits. At them frames are dropped as unknown-certificate.
const (
	awaitBytesMax  = 32 << 20 // in all; buffers count with their capacity, and what is around them
	awaitPart      = 16       // of the cap on memory, in all
	senderBytesMax = 1 << 20  // of one sender on one link; one frame is always taken
	awaitAsksMax   = 512      // certificates that are asked for because of one link's frames
)

// awaitedBytes is what a frame takes beside its buffer, if it is alone in its room,
// in bytes of memory.
const awaitedBytes = 256

func awaitedSize(b *buf.Buffer) int64 { return int64(cap(b.B)) + awaitedBytes }

// awaiting counts what waits for certificates on all links.
type awaiting struct {
	max    int64 // bytes
	bytes  atomic.Int64
	frames atomic.Int64
}

func newAwaiting(memory int64) *awaiting {
	return &awaiting{max: min(awaitBytesMax, memory/awaitPart)}
}

// rooms are the waiting rooms of one link. They belong to its home loop.
type rooms struct {
	of      map[codec.Address]*senderRoom // none is empty; nil at first
	unasked []codec.Address               // whose certificate is to be asked for yet, in order; some rooms may be gone
	ready   []codec.Address               // that wait for room in the ring alone; some may be gone
	asked   int                           // rooms whose certificate is being asked for
	bytes   int64
	floor   uint64 // no frame that waits came before so many others
}

// senderRoom is where the frames of one sender wait, in order.
type senderRoom struct {
	frames []awaitedFrame
	bytes  int64
	state  roomState
}

// roomState is what the first frame of a room waits for.
type roomState uint8

const (
	roomNew    roomState = iota // nobody has looked yet
	roomQueued                  // in rooms.unasked
	roomAsked                   // its certificate is being asked for
	roomReady                   // in rooms.ready
)

type awaitedFrame struct {
	b      *buf.Buffer
	at     time.Time
	before uint64 // as Ring.Push is told
}

// waits tells whether frames of the sender wait, so that later ones have to go
// behind them.
func (rs *rooms) waits(sender codec.Address) bool { return len(rs.of) > 0 && rs.of[sender] != nil }

// least returns before, or a lower number where a frame of the link waits that came
// earlier: only what came before that has been decided on.
func (p *peer) least(before uint64) uint64 {
	if p.far == nil || len(p.far.rooms.of) == 0 {
		return before
	}
	return min(before, p.far.rooms.floor)
}

// await takes b, a frame that came over p's link as the one after `before` others,
// whose certificate is not known here or whose sender has frames that wait.
func (p *peer) await(b *buf.Buffer, before uint64) {
	l, rs := p.loop, &p.far.rooms
	f := codec.Raw(b.B)
	now := l.link.Now()
	room := rs.of[f.Sender()]
	if room == nil && l.keys.isAbsent(f.CertKey(), now) || !p.takesAwaited(room, awaitedSize(b)) {
		l.drop(dropUnknownCertificate, b)
		return
	}
	isNew := room == nil
	if isNew {
		if room = new(senderRoom); rs.of == nil {
			rs.of = make(map[codec.Address]*senderRoom)
		}
		if len(rs.of) == 0 {
			rs.floor = before
		}
		rs.of[f.Sender()] = room
		l.awaits[p] = struct{}{}
	}
	room.frames = append(room.frames, awaitedFrame{b, now, before})
	room.bytes += awaitedSize(b)
	l.link.Account().Use(buf.PartHeld, buf.SizeOf(b))
	l.link.Account().Use(buf.PartLists, awaitedBytes)
	if isNew {
		p.settleRoom(f.Sender())
		p.askForRooms()
	}
}

// takesAwaited counts n more bytes in a sender's room, nil: a new one; false: there
// are too many already. One link may have as much as is free.
func (p *peer) takesAwaited(room *senderRoom, n int64) bool {
	all, rs := p.router.awaiting, &p.far.rooms
	if room != nil && room.bytes+n > senderBytesMax || rs.bytes+n > all.max-all.bytes.Load() {
		return false
	}
	rs.bytes += n
	all.bytes.Add(n)
	all.frames.Add(1)
	return true
}

// leaves takes the first frame out of a sender's room, and closes the room when it
// was the last.
func (p *peer) leaves(sender codec.Address, room *senderRoom) awaitedFrame {
	rs, all := &p.far.rooms, p.router.awaiting
	first := room.frames[0]
	room.frames[0] = awaitedFrame{}
	room.frames = room.frames[1:]
	n := awaitedSize(first.b)
	room.bytes -= n
	rs.bytes -= n
	all.bytes.Add(-n)
	all.frames.Add(-1)
	p.loop.link.Account().Use(buf.PartHeld, -buf.SizeOf(first.b))
	p.loop.link.Account().Use(buf.PartLists, -awaitedBytes)
	if room.state == roomAsked {
		room.state = roomNew
		rs.asked--
	}
	if len(room.frames) == 0 {
		delete(rs.of, sender)
		if len(rs.of) == 0 {
			rs.unasked, rs.ready = nil, nil
			delete(p.loop.awaits, p)
		}
	}
	return first
}

// askForRooms asks for the certificates of rooms, as many as may be asked for.
func (p *peer) askForRooms() {
	rs := &p.far.rooms
	for len(rs.unasked) > 0 && rs.asked < awaitAsksMax {
		sender := rs.unasked[0]
		rs.unasked = rs.unasked[1:]
		room := rs.of[sender]
		if room == nil || room.state != roomQueued {
			continue
		}
		room.state = roomAsked
		rs.asked++
		if key := room.key(); !p.router.fetcher.want(asker{p.conn.Ref(), askerFrames}, key) {
			p.roomFetched(key, fetchRefused)
		}
	}
}

// roomFetched is told that a certificate is here, or not to be had, for which the
// room of its address has asked.
func (p *peer) roomFetched(key codec.CertKey, verdict fetchVerdict) {
	sender := key.Address
	room := p.far.rooms.of[sender]
	if room == nil || room.state != roomAsked || room.key() != key {
		return // its first frame has waited for too long
	}
	room.state = roomNew
	p.far.rooms.asked--
	for verdict != fetchFound && p.far.rooms.of[sender] == room && room.key() == key {
		p.loop.drop(dropUnknownCertificate, p.leaves(sender, room).b)
	}
	p.settleRoom(sender)
}

func (r *senderRoom) key() codec.CertKey { return codec.Raw(r.frames[0].b.B).CertKey() }

// settleRoom has the sender's frames go on as far as they can. Who calls it calls
// askForRooms afterwards.
func (p *peer) settleRoom(sender codec.Address) {
	rs := &p.far.rooms
	for room := rs.of[sender]; room != nil && room.state == roomNew; room = rs.of[sender] {
		d := p.domainOf(room.frames[0].b.B)
		if d == nil || p.isOpen() && p.far.proven[sender.Prefix()] == nil { // it has been withdrawn meanwhile
			p.loop.drop(dropForeignDomain, p.leaves(sender, room).b)
			continue
		}
		p.settleFirst(sender, room, d)
	}
}

// settleFirst has the first frame of a room go on, or says what it waits for.
func (p *peer) settleFirst(sender codec.Address, room *senderRoom, d *domain) {
	l, rs := p.loop, &p.far.rooms
	switch c := l.keyOf(d, room.frames[0].b.B); {
	case c != nil && p.ringIsFull():
		room.state = roomReady
		rs.ready = append(rs.ready, sender)
	case c != nil:
		first := p.leaves(sender, room)
		p.push(first.b, c.key, first.before)
	case l.keys.isAbsent(room.key(), l.link.Now()):
		l.drop(dropUnknownCertificate, p.leaves(sender, room).b)
	default:
		room.state = roomQueued
		rs.unasked = append(rs.unasked, sender)
	}
}

// ringIsFull tells whether the ring takes no more frames that have waited.
func (p *peer) ringIsFull() bool { return p.ring.Full() || p.ring.Bytes() >= ringBytesMax }

// settleReady goes on with rooms that have waited for room in the ring alone.
func (p *peer) settleReady() {
	rs := &p.far.rooms
	for len(rs.ready) > 0 && !p.ringIsFull() {
		sender := rs.ready[0]
		rs.ready = rs.ready[1:]
		if room := rs.of[sender]; room != nil && room.state == roomReady {
			room.state = roomNew
			p.settleRoom(sender)
		}
	}
	p.askForRooms()
}

// tickRooms drops what has waited for too long for a certificate, and finds out
// since when the others wait.
func (p *peer) tickRooms(now time.Time) {
	rs := &p.far.rooms
	floor := uint64(math.MaxUint64)
	for sender, room := range rs.of {
		for rs.of[sender] == room && room.state != roomReady && now.Sub(room.frames[0].at) >= p.router.config.fetchTime {
			p.loop.drop(dropUnknownCertificate, p.leaves(sender, room).b)
		}
		if rs.of[sender] == room {
			p.settleRoom(sender)
		}
		if rs.of[sender] == room {
			floor = min(floor, room.frames[0].before)
		}
	}
	rs.floor = floor
	p.askForRooms()
}

// emptyRooms drops all that waits: the link has ended, or the router.
func (p *peer) emptyRooms(reason dropReason) {
	for sender, room := range p.far.rooms.of {
		for p.far.rooms.of[sender] == room {
			p.loop.drop(reason, p.leaves(sender, room).b)
		}
	}
}
