package buf

import (
	"bytes"
	"testing"
)

func TestGetReturnsTheLengthAskedFor(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 1 << 14, 1<<20 + 123, SizeMax} {
		b := Get(n)
		if len(b.B) != n {
			t.Errorf("Get(%d): length %d", n, len(b.B))
		}
		if got := cap(b.B); got < n || (n > 256 && got >= 2*n) {
			t.Errorf("Get(%d): capacity %d", n, got)
		}
		Put(b)
	}
}

func TestOutCountsWhatIsHandedOut(t *testing.T) {
	before := Out()
	a, b := Get(100), Get(5000)
	if u := Out(); u.Buffers != before.Buffers+2 || u.Bytes != before.Bytes+256+8192 {
		t.Errorf("Out() = %+v, before %+v", u, before)
	}
	Put(a)
	Put(b)
	if u := Out(); u != before {
		t.Errorf("Out() = %+v after all Puts, want %+v", u, before)
	}
}

func TestGrowKeepsTheContent(t *testing.T) {
	b := Get(300)
	for i := range b.B {
		b.B[i] = byte(i)
	}
	want := bytes.Clone(b.B)
	b = Grow(b, 40_000)
	if len(b.B) != 40_000 || !bytes.Equal(b.B[:300], want) {
		t.Error("content changed or length wrong")
	}
	Put(b)
}

func TestPutRefusesForeignMemory(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Put took memory that Get did not hand out")
		}
	}()
	Put(&Buffer{B: make([]byte, 300)})
}

func TestDebugBuildPoisonsAndRefusesASecondPut(t *testing.T) {
	if !Debug {
		t.Log("built without the debug tag: poisoning is off; make check runs this test with it")
		return
	}
	b := Get(64)
	mem := b.B
	Put(b)
	for _, v := range mem {
		if v != 0xdb {
			t.Fatal("memory not poisoned")
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("second Put did not panic")
		}
	}()
	Put(b)
}

func TestGetAndPutAllocateNothing(t *testing.T) {
	if Debug {
		t.Log("the debug build records every buffer and allocates")
		return
	}
	if n := testing.AllocsPerRun(10_000, func() { Put(Get(500)) }); n > 0.01 {
		t.Errorf("%v allocations per Get and Put", n)
	}
}

func BenchmarkGetPut(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Put(Get(323))
		}
	})
}
