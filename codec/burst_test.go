package codec

import (
	"encoding/binary"
	"testing"
)

// burstField returns a signature field of the right length for size and index.
func burstField(size, index uint16) []byte {
	b := make([]byte, BurstRootSignatureSize)
	b = binary.BigEndian.AppendUint16(b, size)
	b = binary.BigEndian.AppendUint16(b, index)
	return append(b, make([]byte, BurstPathLength(size, index)*BurstStepSize)...)
}

// slowPathLength counts the steps of PATH(m, D[n]) of RFC 9162 section 2.1.3.1.
func slowPathLength(m, n int) int {
	if n == 1 {
		return 0
	}
	k := slowSplit(n)
	if m < k {
		return 1 + slowPathLength(m, k)
	}
	return 1 + slowPathLength(m-k, n-k)
}

func TestBurstPathLengthIsThatOfTheDefinition(t *testing.T) {
	longest := 0
	for size := 1; size <= BurstSizeMax+1; size++ {
		for index := range size {
			want := slowPathLength(index, size)
			if got := BurstPathLength(uint16(size), uint16(index)); got != want {
				t.Fatalf("size %d, index %d: %d steps, want %d", size, index, got, want)
			}
			if size <= BurstSizeMax {
				longest = max(longest, want)
			}
		}
	}
	if longest != BurstPathMax {
		t.Errorf("longest path has %d steps, BurstPathMax is %d", longest, BurstPathMax)
	}
}

func TestBurstDecodeTakesOnlyTheExactLength(t *testing.T) {
	for _, size := range []uint16{2, 3, 5, 13, 1023, 1024} {
		for _, index := range []uint16{0, 1, size / 2, size - 1} {
			field := burstField(size, index)
			var b Burst
			if err := b.Decode(field); err != nil || b.Size != size || b.Index != index ||
				len(b.RootSignature) != BurstRootSignatureSize || len(b.Path) != len(field)-68 {
				t.Fatalf("size %d, index %d: %+v, %v", size, index, b, err)
			}
			for _, n := range []int{-BurstStepSize, -1, 1, BurstStepSize} {
				other := append(field, make([]byte, BurstStepSize)...)[:len(field)+n]
				if err := b.Decode(other); err != ErrBurstLength {
					t.Errorf("size %d, index %d, %+d bytes: %v", size, index, n, err)
				}
			}
		}
	}
}

func TestBurstDecodeBoundsSizeAndIndex(t *testing.T) {
	check := func(size, index uint16, want error) {
		t.Helper()
		var b Burst
		if err := b.Decode(burstField(size, index)); err != want {
			t.Errorf("size %d, index %d: %v, want %v", size, index, err, want)
		}
	}
	check(0, 0, ErrBurstSize)
	check(1, 0, ErrBurstSize)
	check(2, 2, ErrBurstIndex)
	check(2, 65535, ErrBurstIndex)
	check(1024, 1023, nil)
	check(1025, 0, ErrBurstSize)
	check(65535, 0, ErrBurstSize)
	var b Burst
	for n := range burstPathAt {
		if err := b.Decode(make([]byte, n)); err != ErrBurstLength {
			t.Errorf("%d bytes: %v, want ErrBurstLength", n, err)
		}
	}
}
