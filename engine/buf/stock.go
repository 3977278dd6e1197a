package buf

// A loop keeps small buffers that it was given back for the next frames: they are
// still in its core's cache, and it needs no atomic operation for each. Of one
// size it keeps stockBytes at most, 320 KB of all sizes.
const (
	stockClasses = 5 // buffers of 256 B to 4 KiB
	stockBytes   = 64 << 10
)

// stock is what an Account keeps.
type stock struct {
	free   [stockClasses][]*Buffer
	out    [stockClasses]int64 // handed out from it less taken back, and not yet told to the pools
	closed bool
}

// Get is the package's Get for the account's loop, and counts as Took. The caller
// owns the Buffer, and may end its life by either Put.
func (a *Account) Get(n int) *Buffer {
	var b *Buffer
	if k := len(a.keeps(n)); k == 0 {
		b = Get(n)
	} else {
		c := classOf(n)
		b = a.stock.free[c][k-1]
		a.stock.free[c] = a.stock.free[c][:k-1]
		a.stock.out[c]++
		b.B = b.B[:n]
		debugGet(b)
	}
	a.Took(SizeOf(b))
	return b
}

// keeps returns the stock of buffers that hold n bytes.
func (a *Account) keeps(n int) []*Buffer {
	if a == nil || n < 0 || n > 1<<(classMinBits+stockClasses-1) {
		return nil
	}
	return a.stock.free[classOf(n)]
}

// Put is the package's Put for the account's loop.
func (a *Account) Put(b *Buffer) {
	size := cap(b.B)
	c := classOf(size)
	if a == nil || a.stock.closed || c >= stockClasses || size != 1<<(c+classMinBits) ||
		len(a.stock.free[c]) >= stockBytes>>(c+classMinBits) || a.Scarce() {
		Put(b)
		return
	}
	b.B = b.B[:size]
	debugPut(b)
	a.stock.out[c]--
	a.stock.free[c] = append(a.stock.free[c], b)
}

// Tell has the package's Out know what the account has handed out and taken back.
func (a *Account) Tell() {
	s := &a.stock
	for c, n := range s.out {
		if n != 0 {
			pools[c].out.Add(n)
			s.out[c] = 0
		}
	}
}

// shed gives the stock back to the pools.
func (s *stock) shed() {
	for c, free := range s.free {
		for _, b := range free {
			pools[c].pool.Put(b)
		}
		s.free[c] = nil
	}
}

// Close is Look for the last time: from here on the account keeps no buffers.
func (a *Account) Close() {
	a.stock.closed = true
	a.stock.shed()
	a.Look()
}
