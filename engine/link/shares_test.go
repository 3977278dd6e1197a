package link

import (
	"io"
	"math/rand/v2"
	"testing"

	"causeway/engine/buf"
)

// rowSums returns what both rows of lanes count in all.
func (s *shares) rowSums() (sums [2]int64) {
	for i := range s.lanes {
		sums[i/lanesPerRow] += s.lanes[i].Load()
	}
	return sums
}

// Whatever is charged and discharged, in whatever order, lanes count at least
// what each sender has, and both rows count what all have.
func TestLanesCountWhatIsCharged(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	l := newLoop(&Engine{cfg: Config{Loops: 1, Budget: buf.NewBudget(0, 1)}}, 0)
	var s slot
	type frame struct {
		of   share
		from Ref
		b    *buf.Buffer
	}
	var queue, over []frame // charged now; charged in an earlier epoch
	has := map[Ref]int64{}
	var sum int64
	t.Cleanup(func() {
		for _, f := range append(queue, over...) {
			buf.Put(f.b)
		}
	})
	for round := range 200_000 {
		switch from := Ref(1 + rng.IntN(300)); {
		case round%20_000 == 0: // the queue has been short; frames of then may still be under way
			over, queue, sum = append(over, queue...), nil, 0
			clear(has)
			l.endShares(&s)
			l.congested(&s)
		case rng.IntN(2) == 0:
			n := 1 + rng.IntN(2000)
			b := buf.Get(n)
			queue = append(queue, frame{s.charge(Forwarded, from, b), from, b})
			has[from] += int64(n)
			sum += int64(n)
		case len(queue) > 0:
			f := queue[0]
			queue = queue[1:]
			s.discharge(f.of, f.b)
			has[f.from] -= int64(len(f.b.B))
			sum -= int64(len(f.b.B))
			buf.Put(f.b)
		}
		if len(over) > 0 && rng.IntN(3) == 0 {
			s.discharge(over[0].of, over[0].b)
			buf.Put(over[0].b)
			over = over[1:]
		}
		if round%1000 == 0 {
			now := s.shares.Load()
			if got := now.rowSums(); got != [2]int64{sum, sum} {
				t.Fatalf("rows count %v, the queue has %d", got, sum)
			}
			for from, n := range has {
				if got := now.has(from); got < n {
					t.Fatalf("a sender has %d bytes, its lanes count %d", n, got)
				}
			}
		}
	}
}

func TestSendersMeetInOtherLanesNextTime(t *testing.T) {
	l := newLoop(&Engine{cfg: Config{Loops: 1, Budget: buf.NewBudget(0, 1)}}, 0)
	var s slot
	met := func() (pairs map[[2]Ref]bool) {
		l.endShares(&s)
		now := l.congested(&s)
		pairs = map[[2]Ref]bool{}
		for a := Ref(1); a < 200; a++ {
			for b := a + 1; b < 200; b++ {
				if now.of(a)&0xff == now.of(b)&0xff {
					pairs[[2]Ref{a, b}] = true
				}
			}
		}
		return pairs
	}
	first, second := met(), met()
	again := 0
	for pair := range first {
		if second[pair] {
			again++
		}
	}
	if len(first) == 0 || again*4 > len(first) {
		t.Errorf("%d of %d pairs meet again", again, len(first))
	}
}

// queuedOf returns, by sender, the bytes that wait unsealed for c, and how many
// of them are charged.
func queuedOf(c *Conn, sender func(*buf.Buffer) int) (of map[int]int, charged int64) {
	of = map[int]int{}
	for q := range c.queue.all() {
		of[sender(q.b)] += len(q.b.B)
		if q.share != 0 {
			charged += int64(len(q.b.B))
		}
	}
	return of, charged
}

// 300 send to one that does not read, one of them a hundred times as much as
// each other: all but that one find room for all they send, the queue stays at
// its high mark, and nothing of the shares is left when it has drained.
func TestOneGreedySenderLeavesTheOthersTheirPart(t *testing.T) {
	const (
		senders, greedy = 300, 7
		each, size      = 6, 1000 // frames of the others, bytes
		high, low       = 4 << 20, 1 << 20
	)
	r := (&rig{}).start(t, Config{QueueHigh: high, QueueLow: low})
	reader, conn := r.dialOn(0)
	stall(t, conn)
	to := conn.Ref()
	refused, bytes := map[int]int{}, 0
	send := func(l *Loop, sender int) {
		b := frameBuf(sender, size)
		from := newRef(3, sender, 1)
		if l.RoomFor(from, to, b) != RoomYes {
			refused[sender]++
			buf.Put(b)
			return
		}
		l.SendFrom(from, to, b)
		bytes += size
	}
	for _, l := range []*Loop{r.engine.Loops()[1], r.engine.Loops()[0]} { // through an outbox, and directly
		on(t, l, func() {
			for range each / 2 {
				for sender := range senders {
					send(l, sender)
				}
				for range 99 * each {
					send(l, greedy)
				}
			}
		})
	}
	eventually(t, "all to come from the other loop", func() (all bool) {
		on(t, conn.Loop(), func() { all = conn.unsealed == bytes })
		return all
	})
	on(t, conn.Loop(), func() {
		of, charged := queuedOf(conn, func(b *buf.Buffer) int { return frameNumber(b.B) })
		for sender := range senders {
			of1, of2 := conn.slot.shares.Load().of(newRef(3, sender, 1)), conn.slot.shares.Load().of(newRef(3, greedy, 1))
			if of1 == of2 { // once in 4,096: both its lanes are the greedy one's
				continue
			}
			if sender != greedy && (refused[sender] > 0 || of[sender] != each*size) {
				t.Errorf("sender %d: %d frames refused, %d bytes queued of %d", sender, refused[sender], of[sender], each*size)
			}
		}
		if refused[greedy] < 99*each*each/2 || of[greedy] < low || of[greedy] > high*5/8 {
			t.Errorf("the greedy one: %d frames refused, %d bytes queued", refused[greedy], of[greedy])
		}
		if n := conn.QueuedBytes(); n > high+2*size {
			t.Errorf("%d bytes queued", n)
		}
		if got := conn.slot.shares.Load().rowSums(); got != [2]int64{charged, charged} || charged < high/4 {
			t.Errorf("lanes count %v, the queue has %d bytes charged", got, charged)
		}
		unstall(conn)
	})
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	eventually(t, "the queue to drain", func() bool { return conn.QueuedBytes() == 0 })
	eventually(t, "the shares to end with it", func() bool { return conn.slot.shares.Load() == nil })
	eventually(t, "the queues to be counted empty", func() bool { return r.engine.cfg.Budget.Usage()[buf.PartQueues] == 0 })
}

// Alone a sender gets half of the queue, but for what came before it was counted;
// another one finds room after that.
func TestALoneSenderGetsHalfAndLeavesRoomForANewcomer(t *testing.T) {
	const high, low, size = 1 << 20, 256 << 10, 1000
	r := (&rig{}).start(t, Config{QueueHigh: high, QueueLow: low, Loops: 1})
	_, conn := r.dial()
	stall(t, conn)
	to, l := conn.Ref(), conn.Loop()
	on(t, l, func() {
		fill := func(sender int) (n int) {
			for from := newRef(3, sender, 1); ; n += size {
				b := frameBuf(sender, size)
				if l.RoomFor(from, to, b) != RoomYes {
					buf.Put(b)
					return n
				}
				l.SendFrom(from, to, b)
			}
		}
		first := fill(1)
		if want := low/sharesFrom + (high-low/sharesFrom)/2; first < want-2*size || first > want+2*size {
			t.Errorf("alone a sender gets %d bytes, want %d", first, want)
		}
		if second := fill(2); second < (high-first)/2-2*size {
			t.Errorf("the next one gets %d bytes of the %d that were free", second, high-first)
		}
		if n := conn.QueuedBytes(); n >= high {
			t.Errorf("%d bytes queued: a third one finds no room", n)
		}
		conn.CloseOnLoop(errDone)
	})
	receive(t, r.ends)
	eventually(t, "no shares left of a connection that is gone", func() bool { return conn.slot.shares.Load() == nil })
}

// When memory is short nobody waits for room, large queues are refused first,
// and what a queue that stands still holds can be taken back, the oldest first.
func TestMemoryRefusesTheLargestQueuesFirst(t *testing.T) {
	const limit, size = 32 << 20, 1000
	r := (&rig{}).start(t, Config{Loops: 1, QueueHigh: 2 << 20, Budget: buf.NewBudget(limit, 1)})
	_, long := r.dial()
	_, short := r.dial()
	stall(t, long)
	stall(t, short)
	l := long.Loop()
	on(t, l, func() {
		send := func(to Ref, n int) {
			for i := range n {
				l.SendFrom(1, to, frameBuf(i, size))
			}
		}
		room := func(to Ref) Room {
			b := frameBuf(0, size)
			defer buf.Put(b)
			return l.RoomFor(1, to, b)
		}
		send(long.Ref(), 500)
		send(short.Ref(), 5)
		if room(long.Ref()) != RoomYes || room(short.Ref()) != RoomYes {
			t.Error("refused with much free")
		}
		other := l.account.QueueMax()*8 - 8*200<<10 // what somebody else takes: each may have 200 KiB
		l.account.Use(buf.PartQueues, other)
		if room(long.Ref()) != RoomNone || room(short.Ref()) != RoomYes || !l.Full(long.Ref()) || l.Full(short.Ref()) {
			t.Errorf("a long queue: %v, a short one: %v", room(long.Ref()), room(short.Ref()))
		}
		before := long.WaitingOnLoop()
		var first []int
		freed := long.TrimOnLoop(50<<10, func(b *buf.Buffer) {
			first = append(first, frameNumber(b.B))
			buf.Put(b)
		})
		if freed < 50<<10 || freed > 52<<10 || before-long.WaitingOnLoop() != len(first)*size {
			t.Errorf("%d bytes of memory freed, the queue is %d bytes shorter by %d frames", freed, before-long.WaitingOnLoop(), len(first))
		}
		for i, n := range first {
			if n != i {
				t.Fatalf("frame %d was taken out as number %d", n, i)
			}
		}
		if n := long.TrimOnLoop(1, func(b *buf.Buffer) { buf.Put(b) }); n < size {
			t.Errorf("%d bytes freed", n)
		}
		l.account.Use(buf.PartQueues, -other)
		long.CloseOnLoop(errDone)
		short.CloseOnLoop(errDone)
	})
	receive(t, r.ends)
	receive(t, r.ends)
}
