package link

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"causeway/engine/buf"
)

const (
	recordMax = 16 << 10 // bytes of plaintext in one TLS record (RFC 8446 section 5.1)
	chunkSize = 32 << 10 // bytes

	// sealedMax: nothing more is sealed while this much ciphertext waits, in
	// bytes. Frames that are not sealed can still be given back.
	sealedMax = 128 << 10

	// sealedMin is the least that sealedMax and a record's plaintext become when
	// memory is short: a record's overhead is then 2%.
	sealedMin = 1 << 10

	// flushMax is what one connection may write in one turn, in bytes.
	flushMax = 256 << 10

	// answersMax bounds ciphertext that crypto/tls makes by itself (answers to
	// key updates) for a peer that does not read, in bytes beyond sealedMax.
	answersMax = 64 << 10

	chunksKeptMax = 256 // spare chunks per loop: 8 MiB
	chunksKeptMin = 8   // of these when memory is scarce

	// partsMax is how many parts one writev can have: all that is sealed at a
	// time, and two more for chunks that begin or end in the middle.
	partsMax = (sealedMax+recordMax+answersMax)/chunkSize + 2
)

// chunk holds ciphertext on its way to the kernel.
type chunk struct {
	next   *chunk
	n      int // bytes in b
	b      []byte
	parked *buf.Buffer // whose memory b is; nil: the chunk's own
}

// chunkBytes is what a chunk takes, in bytes.
const chunkBytes = chunkSize + 64

func (l *Loop) getChunk() *chunk {
	if k := l.spareChunks; k != nil {
		l.spareChunks, k.next, k.n = k.next, nil, 0
		l.spareChunksN--
		return k
	}
	l.account.Use(buf.PartCiphertext, chunkBytes)
	return &chunk{b: make([]byte, chunkSize)}
}

func (l *Loop) putChunk(k *chunk) {
	switch {
	case k.parked != nil:
		l.account.Use(buf.PartParked, -buf.SizeOf(k.parked))
		buf.Put(k.parked)
	case l.spareChunksN < chunksKeptMin || l.spareChunksN < chunksKeptMax && !l.account.Scarce():
		k.next = l.spareChunks
		l.spareChunks = k
		l.spareChunksN++
	default:
		l.account.Use(buf.PartCiphertext, -chunkBytes)
	}
}

// shed gives back what is spare, but for a little, while memory is scarce.
func (l *Loop) shed() {
	for l.account.Scarce() && l.spareChunksN > chunksKeptMin {
		l.account.Use(buf.PartCiphertext, -chunkBytes)
		l.spareChunks = l.spareChunks.next
		l.spareChunksN--
	}
	l.spareQueued.shed()
	l.spareMarks.shed()
}

// ciphertext is what a connection has sealed and the kernel has not taken.
type ciphertext struct {
	first, last *chunk
	skip        int    // bytes of first that the kernel has taken
	waiting     int    // bytes in all
	end         uint64 // bytes appended since the connection began
}

// write appends p, which is borrowed.
func (o *ciphertext) write(l *Loop, p []byte) {
	o.waiting += len(p)
	o.end += uint64(len(p))
	for len(p) > 0 {
		if o.last == nil || o.last.n == len(o.last.b) {
			k := l.getChunk()
			if o.last == nil {
				o.first, o.skip = k, 0
			} else {
				o.last.next = k
			}
			o.last = k
		}
		n := copy(o.last.b[o.last.n:], p)
		o.last.n += n
		p = p[n:]
	}
}

// parts fills iov with what waits, from the beginning, and returns how many.
func (o *ciphertext) parts(iov *[partsMax]unix.Iovec) (n, bytes int) {
	skip := o.skip
	for k := o.first; k != nil && n < partsMax; k = k.next {
		iov[n].Base = &k.b[skip]
		iov[n].SetLen(k.n - skip)
		bytes += k.n - skip
		n++
		skip = 0
	}
	return n, bytes
}

// taken removes n bytes from the beginning.
func (o *ciphertext) taken(l *Loop, n int) {
	o.waiting -= n
	for n > 0 {
		k := o.first
		have := k.n - o.skip
		if n < have {
			o.skip += n
			return
		}
		n -= have
		o.first, o.skip = k.next, 0
		if k.next == nil {
			o.last = nil
		}
		l.putChunk(k)
	}
}

// hotMin is how many bytes of frames are sealed at once, without waiting for the
// turn's end: a whole record's worth. They were copied a moment ago and are still
// in the core's cache, and so are the buffers that the next frames get.
const hotMin = recordMax

// sealHot seals whole records of what one read of a socket has queued. They are
// written at the turn's end, or here when they have become many.
func (l *Loop) sealHot() {
	for _, c := range l.hot {
		c.hot = false
		if c.noWrite || c.fd < 0 || c.blocked || l.account.Scarce() {
			continue
		}
		for c.phase <= phaseFlushing && c.unsealed >= hotMin && c.out.waiting < sealedMax {
			c.sealRecord(recordMax)
		}
		if c.out.waiting >= hotWrite && !c.blocked && c.phase <= phaseFlushing {
			c.writeOut()
		}
	}
	l.hot = emptied(l, l.hot)
}

// hotWrite is how much ciphertext is written before the turn's end, in bytes.
const hotWrite = sealedMax / 2

// park moves what waits into memory of its size, if it fits a chunk, and if a
// chunk or more becomes free by that. For the connections of peers that do not
// read: 10,000 of them would otherwise have 320 MB for a few bytes each.
func (o *ciphertext) park(l *Loop) {
	if o.waiting == 0 || o.waiting > chunkSize/2 || o.first == o.last && o.first.parked != nil {
		return
	}
	b := buf.Get(o.waiting)
	n := 0
	for k := o.first; k != nil; {
		n += copy(b.B[n:], k.b[o.skip:k.n])
		next := k.next
		l.putChunk(k)
		k, o.skip = next, 0
	}
	l.account.Use(buf.PartParked, buf.SizeOf(b))
	o.first = &chunk{n: n, b: b.B[:cap(b.B)], parked: b}
	o.last = o.first
}

// flush seals and writes what c has queued, as far as the kernel takes it and
// c's share of a turn goes.
func (c *Conn) flush() {
	if c.noWrite || c.fd < 0 || c.phase > phaseShut {
		return
	}
	for budget := flushMax; !c.blocked; {
		c.seal()
		if c.phase > phaseShut {
			break
		}
		if c.out.waiting == 0 {
			c.settle()
			if !c.finishStep() {
				break
			}
			continue
		}
		if budget <= 0 {
			c.markDirty()
			break
		}
		n := c.writeOut()
		if n < 0 {
			break
		}
		budget -= n
	}
	if c.blocked && c.loop.account.Scarce() {
		c.out.park(c.loop)
	}
	c.noteOldest()
}

// seal makes records of queued frames while little ciphertext waits. When memory
// is short that is less, and goes out before there is more: what the kernel does
// not take of it stays here.
func (c *Conn) seal() {
	most := int(min(max(c.loop.account.OwnMax(), sealedMin), sealedMax))
	for c.phase <= phaseFlushing && !c.queuesEmpty() && c.out.waiting < most {
		if most < sealedMax && c.out.waiting > 0 {
			return
		}
		c.sealRecord(min(most, recordMax))
	}
}

// sealRecord makes one TLS record of as many frames as fit into so many bytes, or
// of a piece of one.
func (c *Conn) sealRecord(most int) {
	l := c.loop
	q := c.nextQueue()
	m := mark{at: q.front().at}
	var err error
	if rest := q.front().b.B[c.sealed:]; len(rest) >= most {
		// A piece of a large frame goes without the copy. Its buffer ends only
		// after it has been sealed.
		_, err = c.tls.Write(rest[:most])
		m.bytes = int32(most)
		c.sealedPiece(q, most, &m)
	} else {
		n := 0
		for n < most && !c.queuesEmpty() {
			q = c.nextQueue()
			k := copy(l.record[n:most], q.front().b.B[c.sealed:])
			n += k
			c.sealedPiece(q, k, &m)
		}
		m.bytes = int32(n)
		_, err = c.tls.Write(l.record[:n])
	}
	m.end = c.out.end
	c.marks.push(&l.spareMarks, m)
	l.stat.records.Add(1)
	if err != nil {
		c.die(err)
	}
}

// sealedPiece notes that n more bytes of q's first frame are in record m; the
// whole frame leaves the queue.
func (c *Conn) sealedPiece(q *fifo[queued], n int, m *mark) {
	c.sealed += n
	c.unsealed -= n
	c.sealing = q
	first := q.front()
	m.at = min(m.at, first.at)
	if c.sealed == len(first.b.B) {
		m.frames++
		if first.own {
			m.own++
		}
		if q == &c.ahead {
			c.aheadN -= len(first.b.B)
		}
		c.loop.engine.handler.Sealed(c, first.b, first.own)
		c.leaves(*first)
		c.loop.account.Put(q.pop(&c.loop.spareQueued).b)
		c.sealed = 0
	}
}

// writeOut makes one writev. It returns how many bytes the kernel took; < 0
// when it takes no more for now, or the connection is at its end.
func (c *Conn) writeOut() int {
	l := c.loop
	parts, _ := c.out.parts(&l.iov)
	got, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(c.fd), uintptr(unsafe.Pointer(&l.iov[0])), uintptr(parts))
	l.stat.writes.Add(1)
	switch {
	case errno == unix.EINTR:
		return 0
	case errno == unix.EAGAIN:
		c.blocked = true
		if c.watched {
			return -1
		}
		if err := l.port.watch(c.fd, int32(c.Ref().slot()), c.Ref().generation()); err != nil {
			c.die(err)
			return -1
		}
		c.watched = true
		return -1
	case errno != 0:
		c.noWrite = true
		c.die(os.NewSyscallError("writev", errno))
		return -1
	}
	n := int(got)
	c.bytesOut.Add(uint64(n))
	l.stat.bytesOut.Add(uint64(n))
	c.out.taken(l, n)
	c.settle()
	return n
}

// settle accounts for the records that the kernel has taken whole.
func (c *Conn) settle() {
	sent := c.out.end - uint64(c.out.waiting)
	frames, own, bytes := 0, 0, 0
	for !c.marks.empty() && c.marks.front().end <= sent {
		m := c.marks.pop(&c.loop.spareMarks)
		frames += int(m.frames)
		own += int(m.own)
		bytes += int(m.bytes)
	}
	if frames > 0 {
		c.framesOut.Add(uint64(frames))
		c.loop.stat.framesWritten.Add(uint64(frames))
		c.loop.stat.ownWritten.Add(uint64(own))
	}
	if bytes > 0 {
		c.loop.release(c.slot, bytes)
	}
}
