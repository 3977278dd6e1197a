package main

import (
	"bytes"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"
)

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// However frames are put into records, and records come, the same frames come
// out.
func TestStreamsCutWhatWasSealed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	_, members, _ := testWorld(t, 1)
	m := members[0]
	for range 20 {
		out, in := testHalves(t)
		var wire, plain []byte
		var want [][]byte
		for range 30 {
			frame, err := m.frame(nil, m.address, category, make([]byte, random.IntN(1+random.IntN(40_000))))
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, frame)
			plain = append(plain, frame...)
		}
		for left := plain; len(left) > 0; {
			n := min(1+random.IntN(20_000), len(left))
			wire = out.seal(wire, left[:n])
			left = left[n:]
		}
		s := stream{half: in}
		var got [][]byte
		for left := wire; len(left) > 0; {
			n := min(1+random.IntN(50_000), len(left))
			if random.IntN(3) == 0 {
				n = min(n, 1+random.IntN(6))
			}
			err := s.take(left[:n], func(f []byte) error { got = append(got, bytes.Clone(f)); return nil })
			if err != nil {
				t.Fatal(err)
			}
			left = left[n:]
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("%d frames came out of %d, or they are others", len(got), len(want))
		}
	}
}

func TestStreamsRefuseWhatIsNone(t *testing.T) {
	out, in := testHalves(t)
	nothing := func([]byte) error { return nil }
	if err := (&stream{half: in}).take([]byte("HTTP/1.1 400 Bad Request"), nothing); err == nil {
		t.Error("text is no record")
	}
	wire := out.seal(nil, bytes.Repeat([]byte{0xff}, 100))
	if err := (&stream{half: in}).take(bytes.Clone(wire), nothing); err == nil {
		t.Error("ones are no frame")
	}
	wire[len(wire)-1] ^= 1
	if err := (&stream{half: in}).take(wire, nothing); err == nil {
		t.Error("a harmed record was opened")
	}
}

func TestQuantilesOfTimes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var all []time.Duration
	var counted times
	for range 10_000 {
		d := time.Duration(random.Int64N(1 << (10 + random.IntN(25))))
		all = append(all, d)
		counted.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 0.999} {
		exact := all[int(q*float64(len(all)))]
		if got := counted.quantile(q); (got - exact).Abs() > exact/64+time.Microsecond {
			t.Errorf("quantile %v: %v, exactly %v", q, got, exact)
		}
	}
	if got := counted.quantile(1); got != all[len(all)-1] {
		t.Errorf("the most: %v, want %v", got, all[len(all)-1])
	}
	if got := (&times{}).quantile(0.5); got != 0 {
		t.Errorf("of none: %v", got)
	}
}

func TestEveryTimeHasItsBucket(t *testing.T) {
	for us := range uint64(1 << 16) {
		b := timesBucket(us)
		if low, high := timesFloor(b), timesFloor(b+1); time.Duration(us)*time.Microsecond < low || time.Duration(us)*time.Microsecond >= high {
			t.Fatalf("%d us are in the bucket from %v to %v", us, low, high)
		}
	}
	if b := timesBucket(1 << 60); b != timesBuckets-1 {
		t.Errorf("a time beyond all is in bucket %d", b)
	}
}

// Frames of a round are due at the rate asked for, and each when its number is.
func TestFramesAreDueAtTheirRate(t *testing.T) {
	p := &pair{rate: 1234.5}
	for _, passed := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond, time.Second, 20 * time.Second} {
		n := p.due(passed)
		if want := uint64(passed.Seconds() * p.rate); n != want {
			t.Errorf("%d frames are due after %v, want %d", n, passed, want)
		}
		if n > 0 && p.dueAt(n-1) > passed {
			t.Errorf("frame %d is due at %v, not after %v", n-1, p.dueAt(n-1), passed)
		}
		if at := p.dueAt(n); at <= passed {
			t.Errorf("frame %d is due at %v, so %v is too late", n, at, passed)
		}
	}
}
