package link

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestFifoIsAQueueAndKeepsNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var f fifo[int]
	var spare segments[int]
	var slow []int
	next := 0
	for range 100_000 {
		if rng.IntN(100) < 50+(next/1000)%3-1 || len(slow) == 0 {
			f.push(&spare, next)
			slow = append(slow, next)
			next++
		} else {
			if got := *f.front(); got != slow[0] {
				t.Fatalf("front %d, want %d", got, slow[0])
			}
			if got := f.pop(&spare); got != slow[0] {
				t.Fatalf("pop %d, want %d", got, slow[0])
			}
			slow = slow[1:]
		}
		if f.empty() != (len(slow) == 0) {
			t.Fatalf("empty %v with %d items", f.empty(), len(slow))
		}
	}
	for len(slow) > 0 {
		f.pop(&spare)
		slow = slow[1:]
	}
	if f != (fifo[int]{}) {
		t.Error("an empty queue holds memory")
	}
	if n := testing.AllocsPerRun(1000, func() {
		for i := range 100 {
			f.push(&spare, i)
		}
		for range 100 {
			f.pop(&spare)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCiphertextComesOutAsItWentIn(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	l := &Loop{}
	var o ciphertext
	var slow []byte
	var iov [partsMax]unix.Iovec
	for range 20_000 {
		if rng.IntN(2) == 0 && o.waiting < sealedMax {
			p := make([]byte, rng.IntN(recordMax+300))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			o.write(l, p)
			slow = append(slow, p...)
		} else {
			parts, n := o.parts(&iov)
			if n != len(slow) || o.waiting != len(slow) {
				t.Fatalf("%d bytes in %d parts, %d waiting, want %d", n, parts, o.waiting, len(slow))
			}
			n = rng.IntN(n + 1)
			var got []byte
			for i := 0; i < parts; i++ {
				got = append(got, unsafeBytes(iov[i])...)
			}
			if !bytes.Equal(got, slow) {
				t.Fatal("the bytes differ")
			}
			o.taken(l, n)
			slow = slow[n:]
		}
	}
	o.taken(l, o.waiting)
	if o.first != nil || o.last != nil {
		t.Error("nothing waits, but a chunk is held")
	}
}

func unsafeBytes(v unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) }
