package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// slowCut is the definition of a frame's extent, read from top to bottom: it
// returns the frame at the start of b, or whether b is "incomplete" or
// "malformed". Unlike Cut it looks at a length only when all of it is there.
func slowCut(b []byte, bodyMax uint32) (frame []byte, verdict string) {
	r := bytes.NewReader(b)
	var head struct {
		TTL               uint8
		Recipient, Sender Address
		Category          uint8
		SendTime          uint64
		CertID            CertID
		Encrypted         uint8
	}
	var n, m uint32
	if binary.Read(r, binary.BigEndian, &head) != nil {
		return nil, "incomplete"
	}
	if head.Encrypted != 0 && head.Encrypted != 1 {
		return nil, "malformed"
	}
	if binary.Read(r, binary.BigEndian, &n) != nil {
		return nil, "incomplete"
	}
	if n > bodyMax || n > 16<<20 {
		return nil, "malformed"
	}
	if int64(r.Len()) < int64(n) {
		return nil, "incomplete"
	}
	r.Seek(int64(n), 1)
	if binary.Read(r, binary.BigEndian, &m) != nil {
		return nil, "incomplete"
	}
	if m == 0 || m > 512 {
		return nil, "malformed"
	}
	if int64(r.Len()) < int64(m) {
		return nil, "incomplete"
	}
	return b[:len(b)-r.Len()+int(m)], "frame"
}

// slowDoomed reports whether no continuation of b, with a body of at most
// bodyMax, is a frame: the continuations tried have the least lengths that can
// still follow, at every place where they can be.
func slowDoomed(b []byte, bodyMax uint32) bool {
	room := HeaderSize + int(bodyMax) + SignatureLengthSize
	for zeros := range room + 1 {
		try := slices.Concat(b, make([]byte, zeros), []byte{1}, make([]byte, SignatureMax))
		if _, verdict := slowCut(try, bodyMax); verdict == "frame" {
			return false
		}
	}
	return true
}

// checkCut compares Cut with slowCut on b.
func checkCut(t rapid.TB, b []byte, bodyMax uint32) {
	t.Helper()
	frame, want := slowCut(b, bodyMax)
	need, err := Cut(b, bodyMax)
	switch {
	case err != nil:
		if !errors.Is(err, ErrMalformed) {
			t.Fatalf("Cut(%x): error %v is not ErrMalformed", b, err)
		}
		if want == "frame" {
			t.Fatalf("Cut(%x): %v, want a frame of %d", b, err, len(frame))
		}
	case need <= len(b):
		if want != "frame" || need != len(frame) {
			t.Fatalf("Cut(%x): frame of %d, want %s of %d", b, need, want, len(frame))
		}
	case want != "incomplete":
		t.Fatalf("Cut(%x): needs %d, want %s", b, need, want)
	}
}

// smallFrames draws a stream of small frames, which may be damaged.
func smallFrames(t *rapid.T, bodyMax int) []byte {
	var stream []byte
	for range rapid.IntRange(1, 4).Draw(t, "frames") {
		f := frames(bodyMax).Draw(t, "frame")
		var err error
		if stream, err = f.Append(stream); err != nil {
			t.Fatal(err)
		}
	}
	if rapid.Bool().Draw(t, "damage") {
		at := rapid.IntRange(0, len(stream)-1).Draw(t, "at")
		stream[at] = rapid.Byte().Draw(t, "to")
	}
	return stream
}

func TestCutAgreesWithTheDefinitionOnEveryPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream := smallFrames(t, 40)
		for end := range len(stream) + 1 {
			checkCut(t, stream[:end], 32)
		}
	})
}

func TestCutRefusesAsSoonAsNoContinuationIsAFrame(t *testing.T) {
	const bodyMax = 0x0103 // so that prefixes of the length matter
	header := make([]byte, HeaderSize)
	lengths := []uint32{0, 1, 0x0102, 0x0103, 0x0104, 0x0200, 0x010000, 0x01000000, 0xffffffff}
	signatures := []uint32{0, 1, 512, 513, 0x0300, 0x010000, 0x01000000, 0xffffffff}
	for _, flag := range []byte{0, 1, 2, 255} {
		for _, n := range lengths {
			header[encryptedAt] = flag
			binary.BigEndian.PutUint32(header[bodyLengthAt:], n)
			for _, m := range signatures {
				b := slices.Concat(header, make([]byte, n%0x200))
				b = binary.BigEndian.AppendUint32(b, m)
				for end := encryptedAt; end <= len(b); end++ {
					if end > HeaderSize && end < len(b)-SignatureLengthSize {
						continue // within the body nothing changes
					}
					_, err := Cut(b[:end], bodyMax)
					if doomed := slowDoomed(b[:end], bodyMax); doomed != (err != nil) {
						t.Fatalf("flag %d, n %#x, m %#x: with %d bytes Cut says %v, doomed is %v", flag, n, m, end, err, doomed)
					}
				}
			}
		}
	}
}

func TestCutNamesTheOffendingField(t *testing.T) {
	good := mustAppend(t, &Frame{Body: []byte("body"), Signature: []byte("signature")})
	check := func(at int, value byte, want error) {
		t.Helper()
		b := slices.Clone(good)
		b[at] = value
		if _, err := Cut(b[:at+1], BodyMaxDefault); err != want {
			t.Errorf("byte %d = %d, nothing after it: %v, want %v", at, value, err, want)
		}
		if _, err := Cut(b[:at], BodyMaxDefault); err != nil {
			t.Errorf("without byte %d: %v", at, err)
		}
		if _, err := Cut(b, BodyMaxDefault); err != want {
			t.Errorf("byte %d = %d: %v, want %v", at, value, err, want)
		}
	}
	check(50, 2, ErrEncryptedFlag)
	check(50, 255, ErrEncryptedFlag)
	check(51, 1, ErrBodyLength)
	check(52, 0x11, ErrBodyLength)
	check(55+4, 1, ErrSignatureLength)
	check(55+5, 1, ErrSignatureLength)
	check(55+6, 3, ErrSignatureLength)
	check(55+7, 0, ErrSignatureLength)
}

func TestCutTellsExactlyWhatItNeeds(t *testing.T) {
	const n, m = 300, 70
	frame := mustAppend(t, &Frame{Body: make([]byte, n), Signature: make([]byte, m)})
	b := slices.Concat(frame, frame)
	for end := range len(b) + 1 {
		want := HeaderSize + n + SignatureLengthSize + m
		switch {
		case end < HeaderSize:
			want = HeaderSize
		case end < HeaderSize+n+SignatureLengthSize:
			want = HeaderSize + n + SignatureLengthSize
		}
		if need, err := Cut(b[:end:end], n); need != want || err != nil {
			t.Fatalf("with %d bytes: %d, %v, want %d", end, need, err, want)
		}
	}
}

func TestLinkControlHasALimitOfItsOwn(t *testing.T) {
	check := func(category Category, limit, want uint32) {
		t.Helper()
		header := make([]byte, HeaderSize)
		header[categoryAt] = byte(category)
		for end := range len(header) + 1 {
			from := want
			if end <= categoryAt {
				from = limit // the body's length comes later
			}
			if got := BodyMaxOf(header[:end], limit); got != from {
				t.Fatalf("%s, limit %d, %d bytes: %d, want %d", category, limit, end, got, from)
			}
		}
	}
	check(CategoryControl, 0, ControlBodyMax)
	check(CategoryControl, ControlBodyMax-1, ControlBodyMax)
	check(CategoryControl, BodyMaxDefault, BodyMaxDefault)
	for _, other := range []Category{CategoryData, CategorySession, CategoryNotice, CategoryEcho, CategoryApplication} {
		check(other, 100, 100)
	}
}

func TestCutTakesBodiesUpToTheLimit(t *testing.T) {
	check := func(n, bodyMax uint32, want error) {
		t.Helper()
		header := make([]byte, HeaderSize)
		binary.BigEndian.PutUint32(header[bodyLengthAt:], n)
		if _, err := Cut(header, bodyMax); err != want {
			t.Errorf("body of %d, limit %d: %v, want %v", n, bodyMax, err, want)
		}
	}
	check(0, 0, nil)
	check(1, 0, ErrBodyLength)
	check(BodyMaxDefault, BodyMaxDefault, nil)
	check(BodyMaxDefault+1, BodyMaxDefault, ErrBodyLength)
	check(BodyMaxLimit, BodyMaxLimit, nil)
	check(BodyMaxLimit+1, BodyMaxLimit, ErrBodyLength)
	check(BodyMaxLimit, 1<<32-1, nil)
	check(BodyMaxLimit+1, 1<<32-1, ErrBodyLength)
	check(1<<32-1, 1<<32-1, ErrBodyLength)
}

// cutStream feeds stream in chunks and returns the frames cut from it.
func cutStream(t testing.TB, stream []byte, bodyMax uint32, chunk func() int) [][]byte {
	var cut [][]byte
	var buffer []byte
	need := 1
	for len(stream) > 0 {
		n := min(chunk(), len(stream))
		buffer = append(buffer, stream[:n]...)
		stream = stream[n:]
		for len(buffer) >= need {
			got, err := Cut(buffer, bodyMax)
			if err != nil {
				t.Fatal(err)
			}
			if got <= len(buffer) {
				cut = append(cut, slices.Clone(buffer[:got]))
				buffer = buffer[got:]
				need = 1
				continue
			}
			if got <= need {
				t.Fatalf("Cut needs %d bytes after it was given %d", got, need)
			}
			need = got
		}
	}
	if len(buffer) != 0 {
		t.Fatalf("%d bytes left over", len(buffer))
	}
	return cut
}

func TestCutFindsTheSameFramesInAnyChunks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var want [][]byte
	for i := range 300 {
		size := random.IntN(300)
		if i%50 == 49 {
			size = random.IntN(70_000)
		}
		f := Frame{Body: make([]byte, size), Signature: make([]byte, 1+random.IntN(SignatureMax))}
		for j := range f.Body {
			f.Body[j] = byte(random.Uint32())
		}
		stream = append(stream, mustAppend(t, &f)...)
	}
	for rest := stream; len(rest) > 0; {
		frame, verdict := slowCut(rest, BodyMaxDefault)
		if verdict != "frame" {
			t.Fatal(verdict)
		}
		want = append(want, frame)
		rest = rest[len(frame):]
	}
	check := func(name string, chunk func() int) {
		t.Helper()
		got := cutStream(t, stream, BodyMaxDefault, chunk)
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: %d frames, want %d, or others", name, len(got), len(want))
		}
	}
	check("whole", func() int { return len(stream) })
	check("byte by byte", func() int { return 1 })
	check("random small", func() int { return 1 + random.IntN(100) })
	check("random large", func() int { return 1 + random.IntN(20_000) })
}

func mustAppend(t testing.TB, f *Frame) []byte {
	t.Helper()
	b, err := f.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
