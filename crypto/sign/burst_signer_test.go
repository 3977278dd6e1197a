package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func mustSigner(t testing.TB, key crypto.Signer) *Signer {
	t.Helper()
	s, err := NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// burstFields signs a burst of messages, and returns its fields.
func burstFields(t interface{ Fatal(...any) }, b *Burst, s *Signer, messages [][]byte) (fields [][]byte) {
	b.Reset()
	for _, m := range messages {
		b.Add(m)
	}
	if err := b.Sign(s); err != nil {
		t.Fatal(err)
	}
	for i := range b.Len() {
		fields = append(fields, b.AppendField(nil, i))
	}
	return fields
}

// Every field is what the recursive definition of RFC 9162 gives, in every size up
// to 70 and around powers of two.
func TestBurstFieldsAgreeWithTheRecursiveDefinition(t *testing.T) {
	s := &testSigners(t, 1)[0]
	signer := mustSigner(t, s.private)
	sizes := []int{127, 128, 129, 255, 257, 1000, 1023, 1024}
	for size := 2; size <= 70; size++ {
		sizes = append(sizes, size)
	}
	var b Burst // used again and again, larger and smaller
	for _, size := range sizes {
		checks := burstOf(t, s, size)
		var messages [][]byte
		for _, c := range checks {
			messages = append(messages, c.Signed)
		}
		for i, field := range burstFields(t, &b, signer, messages) {
			if !bytes.Equal(field, checks[i].Signature) {
				t.Fatalf("size %d, frame %d: %x, want %x", size, i, field, checks[i].Signature)
			}
		}
	}
}

// vectorSigner gives the signature of a golden vector, whose key nobody has.
type vectorSigner struct {
	public    ed25519.PublicKey
	head      []byte // what was signed
	signature []byte
}

func (v *vectorSigner) Public() crypto.PublicKey { return v.public }
func (v *vectorSigner) Sign(_ io.Reader, head []byte, _ crypto.SignerOpts) ([]byte, error) {
	v.head = slices.Clone(head)
	return v.signature, nil
}

func TestGoldenBurstsAreMadeAgain(t *testing.T) {
	for _, vector := range load(t).Bursts {
		v := &vectorSigner{public: key(t, vector.Key).ed}
		var messages, want [][]byte
		for _, w := range vector.Wires {
			signed, field := split(t, w)
			messages, want = append(messages, signed), append(want, field)
			v.signature = field[:ed25519.SignatureSize]
		}
		for i, got := range burstFields(t, new(Burst), mustSigner(t, v), messages) {
			if !bytes.Equal(got, want[i]) {
				t.Errorf("burst of %d, frame %d: %x, want %x", len(want), i, got, want[i])
			}
		}
		if !ed25519.Verify(v.public, v.head, v.signature) {
			t.Errorf("burst of %d: another tree head than that of the vector", len(want))
		}
	}
}

// Any frames make a burst in which each verifies by itself, and no other message
// under its field.
func TestFramesOfAnyBurstVerifyByThemselves(t *testing.T) {
	s := &testSigners(t, 1)[0]
	signer := mustSigner(t, s.private)
	var b Burst
	rapid.Check(t, func(t *rapid.T) {
		messages := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 200), 2, 100).Draw(t, "messages")
		fields := burstFields(t, &b, signer, messages)
		for i, m := range messages {
			if !s.key.Verify(m, fields[i]) {
				t.Fatalf("frame %d of %d is refused", i, len(messages))
			}
		}
		i, j := rapid.IntRange(0, len(messages)-1).Draw(t, "frame"), rapid.IntRange(0, len(messages)-1).Draw(t, "field")
		if good := s.key.Verify(messages[i], fields[j]); good != (i == j) && !bytes.Equal(messages[i], messages[j]) {
			t.Fatalf("frame %d with the field of frame %d: %v", i, j, good)
		}
	})
}

// brokenSigner fails so many times.
type brokenSigner struct {
	ed25519.PrivateKey
	failures int
}

var errBroken = errors.New("no key today")

func (s *brokenSigner) Sign(r io.Reader, m []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.failures--; s.failures >= 0 {
		return nil, errBroken
	}
	return s.PrivateKey.Sign(r, m, o)
}

func TestABurstSurvivesAKeyThatFails(t *testing.T) {
	s := &testSigners(t, 1)[0]
	signer := mustSigner(t, &brokenSigner{s.private, 2})
	checks := burstOf(t, s, 3)
	var b Burst
	for i, c := range checks {
		b.Add(c.Signed)
		if i > 0 && b.Len() < len(checks) {
			if err := b.Sign(signer); err != errBroken {
				t.Fatal(err)
			}
		}
	}
	if err := b.Sign(signer); err != errBroken {
		t.Fatal(err)
	}
	if err := b.Sign(signer); err != nil {
		t.Fatal(err)
	}
	for i, c := range checks {
		if got := b.AppendField(nil, i); !bytes.Equal(got, c.Signature) {
			t.Errorf("frame %d: %x, want %x", i, got, c.Signature)
		}
	}
}

func TestBurstsOfTheWrongSizeOrKeyAreAFault(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := mustSigner(t, testSigners(t, 1)[0].private)
	of := func(size int) *Burst {
		b := new(Burst)
		for range size {
			b.Add(nil)
		}
		return b
	}
	signed := of(2)
	if err := signed.Sign(signer); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"one frame":         func() { of(1).Sign(signer) },
		"1,025 frames":      func() { of(burstSizeMax + 1) },
		"P-256":             func() { of(2).Sign(mustSigner(t, ec)) },
		"added after Sign":  func() { signed.Add(nil) },
		"field before Sign": func() { of(2).AppendField(nil, 0) },
		"field beyond":      func() { signed.AppendField(nil, 2) },
		"field before all":  func() { signed.AppendField(nil, -1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	if mustSigner(t, ec).Bursts() || !signer.Bursts() {
		t.Error("Ed25519 keys sign bursts, and no others")
	}
}

// What a burst allocates is crypto/ed25519's signature alone.
func TestBurstsAllocateOnce(t *testing.T) {
	signer := mustSigner(t, testSigners(t, 1)[0].private)
	message := make([]byte, 300)
	field := make([]byte, 0, burstPathOffset+32*pathStepsMax)
	var b Burst
	sign := func() {
		b.Reset()
		for range 64 {
			b.Add(message)
		}
		if err := b.Sign(signer); err != nil {
			t.Fatal(err)
		}
		for i := range b.Len() {
			field = b.AppendField(field[:0], i)
		}
	}
	alone := testing.AllocsPerRun(10, func() {
		if _, err := signer.Sign(field[:0], message); err != nil {
			t.Fatal(err)
		}
	})
	sign()
	if got := testing.AllocsPerRun(10, sign); got > alone {
		t.Errorf("%v allocations for a burst of 64, %v for one signature", got, alone)
	}
}

// BenchmarkSignBurst is the time of a frame with 256 bytes of body.
func BenchmarkSignBurst(b *testing.B) {
	signer := mustSigner(b, testSigners(b, 1)[0].private)
	message := make([]byte, 54+256)
	for _, size := range []int{2, 8, 64, 256, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var burst Burst
			var field []byte
			for i := 0; b.Loop(); i++ {
				if burst.Add(message); burst.Len() < size {
					continue
				}
				if err := burst.Sign(signer); err != nil {
					b.Fatal(err)
				}
				for i := range size {
					field = burst.AppendField(field[:0], i)
				}
				burst.Reset()
			}
		})
	}
}
