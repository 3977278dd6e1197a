package codec

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// filled draws an array of a fixed size.
func filled(dst []byte, t *rapid.T, label string) {
	copy(dst, rapid.SliceOfN(rapid.Byte(), len(dst), len(dst)).Draw(t, label))
}

func addresses() *rapid.Generator[Address] {
	return rapid.Custom(func(t *rapid.T) (a Address) {
		filled(a[:], t, "address")
		return a
	})
}

// frames draws frames with bodies of at most bodyMax bytes.
func frames(bodyMax int) *rapid.Generator[Frame] {
	return rapid.Custom(func(t *rapid.T) Frame {
		f := Frame{
			TTL:       rapid.Byte().Draw(t, "ttl"),
			Recipient: addresses().Draw(t, "recipient"),
			Sender:    addresses().Draw(t, "sender"),
			Category:  Category(rapid.Byte().Draw(t, "category")),
			SendTime:  rapid.Uint64().Draw(t, "send time"),
			Encrypted: rapid.Bool().Draw(t, "encrypted"),
			Body:      rapid.SliceOfN(rapid.Byte(), 0, bodyMax).Draw(t, "body"),
			Signature: rapid.SliceOfN(rapid.Byte(), 1, SignatureMax).Draw(t, "signature"),
		}
		filled(f.CertID[:], t, "certificate ID")
		return f
	})
}

func TestFramesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := frames(2000).Draw(t, "frame")
		prefix := []byte("already there")
		b, err := want.Append(slices.Clone(prefix))
		if err != nil || !slices.Equal(b[:len(prefix)], prefix) {
			t.Fatalf("Append = %x, %v", b, err)
		}
		b = b[len(prefix):]
		if len(b) != want.Size() {
			t.Fatalf("Size = %d, encoded %d", want.Size(), len(b))
		}
		var got Frame
		if err := got.Decode(b, BodyMaxDefault); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("Decode = %+v, %v, want %+v", got, err, want)
		}
		if signed := want.AppendSigned(nil); !slices.Equal(signed, Raw(b).Signed()) {
			t.Fatalf("AppendSigned = %x, Signed = %x", signed, Raw(b).Signed())
		}
	})
}

func TestDecodeTakesExactlyOneFrame(t *testing.T) {
	whole := mustAppend(t, &Frame{TTL: 9, Body: []byte("body"), Signature: []byte("signature")})
	f := Frame{TTL: 77}
	for end := range len(whole) {
		if err := f.Decode(whole[:end], BodyMaxDefault); err != ErrLength {
			t.Fatalf("first %d bytes: %v, want ErrLength", end, err)
		}
	}
	if err := f.Decode(append(slices.Clone(whole), 0), BodyMaxDefault); err != ErrLength {
		t.Errorf("one byte more: %v, want ErrLength", err)
	}
	if err := f.Decode(whole, 3); err != ErrBodyLength {
		t.Errorf("body above the limit: %v, want ErrBodyLength", err)
	}
	if f.TTL != 77 || f.Body != nil {
		t.Errorf("a failed Decode has changed the frame: %+v", f)
	}
}

func TestDecodedSlicesAliasTheirInput(t *testing.T) {
	b := mustAppend(t, &Frame{Body: []byte("body"), Signature: []byte("signature")})
	var f Frame
	if err := f.Decode(b, BodyMaxDefault); err != nil {
		t.Fatal(err)
	}
	b[HeaderSize] = 'B'
	if string(f.Body) != "Body" {
		t.Error("Body is a copy")
	}
	if cap(f.Body) != len(f.Body) || cap(Raw(b).Signed()) != len(Raw(b).Signed()) {
		t.Error("an append to Body or Signed would overwrite the signature")
	}
}

func TestAppendRefusesWhatDecodeWould(t *testing.T) {
	check := func(body, signature int, want error) {
		t.Helper()
		f := Frame{Body: make([]byte, body), Signature: make([]byte, signature)}
		b, err := f.Append([]byte{1})
		if err != want {
			t.Errorf("body of %d, signature of %d: %v, want %v", body, signature, err, want)
		}
		if want != nil && len(b) != 1 {
			t.Errorf("body of %d, signature of %d: %d bytes appended in spite of the error", body, signature, len(b)-1)
		}
	}
	check(0, 1, nil)
	check(0, SignatureMax, nil)
	check(0, 0, ErrSignatureLength)
	check(0, SignatureMax+1, ErrSignatureLength)
	check(BodyMaxLimit, 64, nil)
	check(BodyMaxLimit+1, 64, ErrBodyLength)
}

func TestFrameBuiltInPiecesIsTheSame(t *testing.T) {
	f := Frame{TTL: 4, Category: CategoryEcho, Body: []byte("body"), Signature: []byte("signature")}
	b := append([]byte(nil), f.TTL)
	b = f.AppendSigned(b)
	b, err := AppendSignature(b, f.Signature)
	if want := mustAppend(t, &f); err != nil || !slices.Equal(b, want) {
		t.Errorf("%x, %v, want %x", b, err, want)
	}
}

func TestFrameFunctionsAllocateNothing(t *testing.T) {
	f := Frame{Body: make([]byte, 1000), Signature: make([]byte, 64)}
	b := mustAppend(t, &f)
	burst := burstField(1000, 500)
	dst := make([]byte, 0, f.Size())
	var decoded Frame
	var decodedBurst Burst
	var failed error
	check := func(name string, do func()) {
		t.Helper()
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	check("Append", func() { dst, failed = f.Append(dst[:0]) })
	check("AppendSigned", func() { dst = f.AppendSigned(dst[:0]) })
	check("Decode", func() { failed = decoded.Decode(b, BodyMaxDefault) })
	check("Cut", func() { _, failed = Cut(b, BodyMaxDefault) })
	check("Burst.Decode", func() { failed = decodedBurst.Decode(burst) })
	check("Raw.Digest", func() { _ = Raw(b).Digest() })
	check("Raw fields", func() { Raw(b).SetTTL(Raw(b).TTL()); _ = Raw(b).CertKey() })
	if failed != nil {
		t.Fatal(failed)
	}
	b[encryptedAt] = 7
	check("Cut of malformed input", func() { _, failed = Cut(b, BodyMaxDefault) })
	check("Decode of malformed input", func() { failed = decoded.Decode(b, BodyMaxDefault) })
	check("errors.Is", func() { _ = errors.Is(failed, ErrMalformed) })
}

func TestSentinelsAreMalformedAndLabelled(t *testing.T) {
	seen := map[string]bool{}
	for _, err := range []error{
		ErrEncryptedFlag, ErrBodyLength, ErrSignatureLength, ErrLength,
		ErrControlLength, ErrControlEncoding, ErrControlType, ErrControlKeys, ErrControlValue,
	} {
		label := MalformedLabel(err)
		if !errors.Is(err, ErrMalformed) || label == "malformed" || seen[label] {
			t.Errorf("%v: label %q, malformed %v", err, label, errors.Is(err, ErrMalformed))
		}
		seen[label] = true
	}
	if errors.Is(ErrBurstSize, ErrMalformed) || errors.Is(ErrMalformed, ErrBodyLength) {
		t.Error("a bad burst counts as malformed, or malformed as a body length")
	}
	if got := MalformedLabel(errors.New("other")); got != "malformed" {
		t.Errorf("label of another error: %q", got)
	}
}
