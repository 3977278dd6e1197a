package buf

import "testing"

func TestAnAccountGivesOutWhatItWasGivenBack(t *testing.T) {
	before := Out()
	a := NewBudget(0, 1).Account()
	first := a.Get(300)
	if len(first.B) != 300 || cap(first.B) != 512 {
		t.Errorf("Get(300): length %d, capacity %d", len(first.B), cap(first.B))
	}
	a.Put(first)
	if b := a.Get(512); b != first || len(b.B) != 512 {
		t.Errorf("Get(512) after Put: another buffer, or of length %d", len(b.B))
	}
	if b := a.Get(512); b == first {
		t.Error("a buffer was handed out twice")
	} else {
		Put(b) // either Put does
	}
	a.Tell()
	if u := Out(); u.Buffers != before.Buffers+1 || u.Bytes != before.Bytes+512 {
		t.Errorf("Out() = %+v, before %+v", u, before)
	}
	a.Put(first)
	a.Close()
	if u := Out(); u != before {
		t.Errorf("Out() = %+v after all Puts, want %+v", u, before)
	}
}

func TestAnAccountKeepsLittle(t *testing.T) {
	before := Out()
	a := NewBudget(0, 1).Account()
	kept := func() (n int) {
		for c, free := range a.stock.free {
			n += len(free) << (c + classMinBits)
		}
		return n
	}
	put := func() {
		var all []*Buffer
		for n := 1; n <= 1<<16; n *= 2 {
			for range 1000 {
				all = append(all, a.Get(n))
			}
		}
		for _, b := range all {
			a.Put(b)
		}
	}
	put()
	if n := kept(); n != stockClasses*stockBytes {
		t.Errorf("%d bytes are kept, want %d", n, stockClasses*stockBytes)
	}
	a.Close()
	put()
	if n := kept(); n != 0 {
		t.Errorf("%d bytes are kept after Close", n)
	}
	a.Tell()
	if u := Out(); u != before {
		t.Errorf("Out() = %+v after all Puts, want %+v", u, before)
	}
}

func TestAnAccountKeepsNothingWhileMemoryIsScarce(t *testing.T) {
	budget := NewBudget(1<<20, 1)
	a := budget.Account()
	a.Put(a.Get(100))
	a.Use(PartQueues, 900<<10)
	a.Look()
	for c, free := range a.stock.free {
		if len(free) > 0 {
			t.Errorf("%d buffers of class %d are kept", len(free), c)
		}
	}
	b := a.Get(100)
	a.Put(b)
	if a.keeps(100) != nil {
		t.Error("a buffer is kept")
	}
	a.Use(PartQueues, -900<<10)
	a.Look()
	a.Put(a.Get(100))
	if len(a.keeps(100)) != 1 {
		t.Error("nothing is kept when memory is there again")
	}
	a.Close()
}

func TestANilAccountUsesThePools(t *testing.T) {
	before := Out()
	var a *Account
	a.Put(a.Get(100))
	if u := Out(); u != before {
		t.Errorf("Out() = %+v, want %+v", u, before)
	}
}

func TestPutOfAnAccountRefusesForeignMemory(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Put took memory that Get did not hand out")
		}
	}()
	NewBudget(0, 1).Account().Put(&Buffer{B: make([]byte, 300)})
}

func BenchmarkAccountGetPut(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		a := NewBudget(0, 1).Account()
		defer a.Close()
		for pb.Next() {
			a.Put(a.Get(200))
		}
	})
}
