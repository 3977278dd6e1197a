package buf

import "sync/atomic"

// Part is one of the holders of memory that a Budget counts.
type Part uint8

// The parts. A further holder is one more part, among the first if recipients'
// thresholds bound it, else before PartPartial: its owner tells Use what it takes
// and gives back, and all the rest follows.
const (
	PartQueues     Part = iota // frames in queues of recipients
	PartCiphertext             // sealed, not yet taken by the kernel
	PartParked                 // the same, in memory of its size, for peers that do not read
	PartLists                  // places in queues and rings

	PartNotices      // owed to senders
	PartCertificates // of members that have left or are elsewhere
	PartHandshakes   // under way, and who waits for one
	PartHeld         // frames for who has just left, and those that wait for a certificate
	PartLedgers      // of frames that recipients have not confirmed
	PartTables       // to check known signers' signatures
	PartRoutes       // to other routers, and who is attached to them
	PartFetched      // revocation lists on their way here, what loops remember of certificates

	PartPartial  // frames received in part
	PartReceived // frames received that wait for a verdict or for room: what else is out

	Parts   = iota
	sides   = PartNotices  // the first of those that have bounds of their own
	counted = PartReceived // parts that are told to Use
)

// String returns the part's name, as metrics label it.
func (p Part) String() string {
	return [Parts]string{
		"queues", "ciphertext", "parked", "lists", "notices", "certificates", "handshakes", "held", "ledgers", "tables", "routes", "fetched", "partial", "received",
	}[p]
}

// overhead is what a buffer takes beside its capacity, in bytes: its header.
const overhead = 32

// SizeOf returns the memory that b takes, in bytes.
func SizeOf(b *Buffer) int64 { return int64(cap(b.B)) + overhead }

// A Budget is how much memory there may be for traffic, and who has it. Beside
// what it counts there are the connections themselves (about 28 KB each), and
// what the process takes without any.
//
// Of the limit M,
//
//	all that is kept, but for partial frames      at most 3/4 M
//	of these, what is for no recipient            1/16 M is reserved for it
//	all that is kept, and partial frames          at most 7/8 M
//	partial frames                                at most 1/2 M
//	that, and what waits for a verdict or room    at most M
//
// The lines before the last bound what others have to end (recipients that read,
// senders that go on), the rest is what this process ends by itself: workers
// check a frame, and then it is in a queue or dropped. So when all stands at its
// bound, at least M/8 still moves, and who has to wait for memory waits only
// for that. Nothing that holds memory of the last kind waits for memory: a frame
// that finds no room in a queue for want of memory is dropped at once. So
// waiting ends.
//
// A destination may have a fraction, queuePart, of what is free (dynamic
// thresholds; Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998):
// n that all want more get q/(n+8) each of a budget of q and leave 8q/(n+8).
// So the largest are refused first, short queues go on, and nobody looks for the
// largest. Where queues stand still, their loops are told to give some up
// (Account.Wanting).
type Budget struct {
	limit int64
	step  int64 // bytes that one Account may have taken before it looks again

	parts [counted]struct {
		n atomic.Int64
		_ [56]byte // no part's line is another's
	}
}

const (
	// queuePart is the part of the free memory that one destination may have: an
	// eighth. The more, the less is left for others; with a half, a hundred
	// stalled destinations would leave a fiftieth of the budget.
	queuePart = 8

	// sureMax is what a destination may have, in bytes, while what is kept exceeds
	// its bound by less than a surePart of the limit: for a while, until Wanting has
	// its effect.
	sureMax  = 16 << 10
	surePart = 64

	// An Account's view is at most so many bytes of its own doing old: a part of
	// what is free, of the limit over all loops, and at most stepMax, so what N
	// loops do at one time exceeds the limit by a 512th of it, or by N·stepMin.
	stepMin      = 8 << 10
	stepMax      = 256 << 10
	stepPart     = 512 // of the limit
	stepRoomPart = 32  // of what is free
)

// NewBudget returns a budget of limit bytes for so many Accounts; 0: no limit.
func NewBudget(limit int64, accounts int) *Budget {
	if limit <= 0 {
		limit = 1 << 60
	}
	return &Budget{limit: limit, step: min(max(limit/stepPart/int64(max(accounts, 1)), stepMin), stepMax)}
}

// Limit returns the limit, in bytes.
func (b *Budget) Limit() int64 { return b.limit }

// Use tells that a part has taken n more bytes, or, negative, has given them
// back, and returns what it then has. Any goroutine; for what is rare, since all
// write one place. Loops have an Account.
func (b *Budget) Use(p Part, n int64) int64 { return b.parts[p].n.Add(n) }

// Usage returns the bytes of each part. Under traffic they are near; they are
// exact when every Account has looked since the last change.
func (b *Budget) Usage() (u [Parts]int64) {
	for p := range b.parts {
		u[p] = b.parts[p].n.Load()
	}
	out := Out()
	u[PartReceived] = max(0, out.Bytes+out.Buffers*overhead-u[PartQueues]-u[PartParked]-u[PartHeld]-u[PartPartial])
	return u
}

// Account is one loop's access to a Budget: it counts what the loop does, and
// decides by what it saw when it last looked and has counted since. It is not
// safe for concurrent use. A nil Account counts nothing.
type Account struct {
	budget   *Budget
	unfolded [counted]int64 // not yet in the budget
	grown    int64          // taken since it looked
	step     int64          // when it looks again

	room    int64 // for what is kept
	left    int64 // for everything
	partial int64 // most of partial frames

	stock stock
}

// Account returns a new one.
func (b *Budget) Account() *Account {
	a := &Account{budget: b}
	a.Look()
	return a
}

// Look tells the budget what the account has counted, and sees what others have.
func (a *Account) Look() {
	b := a.budget
	a.Tell()
	for p, n := range a.unfolded {
		if n != 0 {
			b.parts[p].n.Add(n)
			a.unfolded[p] = 0
		}
	}
	u := b.Usage()
	queues, side, partial := sum(u[:sides]), sum(u[sides:PartPartial]), u[PartPartial]
	a.room = min(b.limit/4*3, b.limit/8*7-partial) - queues - max(side, b.limit/sidePart)
	a.left = b.limit - queues - side - max(partial, b.limit/partialSure) - u[PartReceived]
	a.partial = min(b.limit/2, b.limit/8*7-queues-side)
	if a.Scarce() {
		a.stock.shed()
	}
	a.grown, a.step = 0, min(max(min(a.room, a.left)/stepRoomPart, stepMin), b.step)
}

const (
	// sidePart is the part of the limit that is reserved for what is no
	// recipient's, so that queues that are full already leave room for it.
	sidePart = 16

	// partialSure is the part that is kept free of frames that wait for a verdict,
	// so that partial frames can grow.
	partialSure = 16
)

func sum(parts []int64) (all int64) {
	for _, n := range parts {
		all += n
	}
	return all
}

// Use is Budget.Use for the account's loop. For PartQueues n bytes of received
// frames become kept ones, or are given back.
func (a *Account) Use(p Part, n int64) {
	if a == nil {
		return
	}
	a.unfolded[p] += n
	if p < sides {
		a.room -= n
	}
	if p != PartQueues || n < 0 {
		a.left -= n
	}
	a.grow(n)
}

// Took tells that n more bytes of buffers are out.
func (a *Account) Took(n int64) {
	if a == nil {
		return
	}
	a.left -= n
	a.grow(n)
}

func (a *Account) grow(n int64) {
	if n > 0 {
		if a.grown += n; a.grown >= a.step {
			a.Look()
		}
	}
}

// QueueMax returns how much one destination may have in its queue, in bytes; 0
// or less: nothing.
func (a *Account) QueueMax() int64 {
	return max(a.room/queuePart, min(sureMax, (a.room+a.budget.limit/surePart)/queuePart))
}

// Wanting returns how much of what is kept should be given up, in bytes. Queues
// that never become shorter are never refused anything again, and each further
// one takes its fraction of what they have left; in the end there would be
// nothing even for short ones.
func (a *Account) Wanting() int64 {
	if a.room >= sureMax*queuePart {
		return 0
	}
	return a.budget.limit/surePart - a.room
}

// OwnMax is QueueMax for what did not take memory before: frames of the router's
// own, ciphertext.
func (a *Account) OwnMax() int64 { return min(a.QueueMax(), a.left/queuePart) }

// Parts of the limit: when less is left memory is scarce, short, or for those only
// who have little.
const (
	scarcePart = 8
	shortPart  = 16
	sparedPart = 64
)

// PartialMax returns how much partial frames may take in all, in bytes.
func (a *Account) PartialMax() int64 { return a.partial }

// Scarce tells that so little is left that no memory should be kept just in
// case.
func (a *Account) Scarce() bool { return a != nil && min(a.room, a.left) < a.budget.limit/scarcePart }

// Short tells that so little is left that who sends much should not be read.
func (a *Account) Short() bool { return a.Spare() < 0 }

// Spare returns how much may be taken until memory is short, in bytes.
func (a *Account) Spare() int64 { return a.left - a.budget.limit/shortPart }

// Met tells that nothing is left for who has taken much already: the cap is met.
func (a *Account) Met() bool { return a.left < a.budget.limit/sparedPart }

// Exhausted tells that nothing is left for anybody.
func (a *Account) Exhausted() bool { return a.left <= 0 }
