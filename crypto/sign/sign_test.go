package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// Offsets of the frame header that the vectors need (PROTOCOL.md section 1).
const (
	testBodyLengthOffset = 51
	testBodyOffset       = 55
)

type vectors struct {
	Cases []struct {
		Name string
		Key  string `json:"public_key_spki"`
		Wire string
	}
	Bursts []struct {
		Key   string `json:"public_key_spki"`
		Wires []string
	}
	BadBursts []struct{ Name, Wire string } `json:"bad_bursts"`
	Mutations []struct{ Name, Verdict, Wire string }
}

func load(t *testing.T) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/frame.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func key(t *testing.T, spki string) *Key {
	t.Helper()
	der, err := hex.DecodeString(spki)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func split(t *testing.T, wire string) (signed, signature []byte) {
	t.Helper()
	b, err := hex.DecodeString(wire)
	if err != nil {
		t.Fatal(err)
	}
	end := testBodyOffset + int(binary.BigEndian.Uint32(b[testBodyLengthOffset:]))
	return b[1:end], b[end+4:]
}

func TestVectorsVerifyAndNoNeighbourDoes(t *testing.T) {
	v := load(t)
	for _, c := range v.Cases {
		k := key(t, c.Key)
		signed, sig := split(t, c.Wire)
		if !k.Verify(signed, sig) {
			t.Errorf("%s: refused", c.Name)
		}
		signed[0] ^= 1
		if k.Verify(signed, sig) {
			t.Errorf("%s: accepted with a bit of the recipient changed", c.Name)
		}
	}
}

func TestMutationsHaveTheirVerdicts(t *testing.T) {
	v := load(t)
	var k *Key
	for _, c := range v.Cases {
		if c.Name == "text" {
			k = key(t, c.Key)
		}
	}
	seen := 0
	for _, m := range v.Mutations {
		if m.Verdict != "bad signature" && m.Verdict != "good signature" {
			continue
		}
		seen++
		signed, sig := split(t, m.Wire)
		if got, want := k.Verify(signed, sig), m.Verdict == "good signature"; got != want {
			t.Errorf("%s: verified %v, want %v", m.Name, got, want)
		}
	}
	if seen < 5 {
		t.Errorf("only %d mutations looked at", seen)
	}
}

func TestEveryFrameOfEveryBurstVerifiesAlone(t *testing.T) {
	for _, b := range load(t).Bursts {
		k := key(t, b.Key)
		for i, w := range b.Wires {
			signed, sig := split(t, w)
			if !k.Verify(signed, sig) {
				t.Errorf("burst of %d: frame %d refused", len(b.Wires), i)
			}
		}
	}
}

func TestBadBurstsAreRefused(t *testing.T) {
	v := load(t)
	k := key(t, v.Bursts[0].Key)
	if len(v.BadBursts) == 0 {
		t.Fatal("no bad bursts in the vectors")
	}
	for _, b := range v.BadBursts {
		signed, sig := split(t, b.Wire)
		if k.Verify(signed, sig) {
			t.Errorf("%s: accepted", b.Name)
		}
	}
}

// slowRoot and slowPath follow the recursive definitions of RFC 9162 sections
// 2.1.1 and 2.1.3.1 word for word.
func slowRoot(leaves [][sha256.Size]byte) [sha256.Size]byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := splitPoint(len(leaves))
	l, r := slowRoot(leaves[:k]), slowRoot(leaves[k:])
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

func slowPath(m int, leaves [][sha256.Size]byte) (path [][sha256.Size]byte) {
	if len(leaves) == 1 {
		return nil
	}
	k := splitPoint(len(leaves))
	if m < k {
		return append(slowPath(m, leaves[:k]), slowRoot(leaves[k:]))
	}
	return append(slowPath(m-k, leaves[k:]), slowRoot(leaves[:k]))
}

func splitPoint(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func TestPathsAgreeWithTheRecursiveDefinition(t *testing.T) {
	for size := 2; size <= 70; size++ {
		leaves := make([][sha256.Size]byte, size)
		for i := range leaves {
			leaves[i] = sha256.Sum256([]byte{byte(size), byte(i)})
		}
		want := slowRoot(leaves)
		for m := range leaves {
			var path []byte
			for _, step := range slowPath(m, leaves) {
				path = append(path, step[:]...)
			}
			if got := pathSteps(uint(m), uint(size)) * sha256.Size; got != len(path) {
				t.Fatalf("size %d leaf %d: %d bytes of path, want %d", size, m, got, len(path))
			}
			if rootFromPath(leaves[m], uint(m), uint(size), path) != want {
				t.Fatalf("size %d leaf %d: another root", size, m)
			}
		}
	}
}

func TestSignerAndKeyAgree(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, priv := range []crypto.Signer{ed, ec} {
		s, err := NewSigner(priv)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKey(priv.Public())
		if err != nil {
			t.Fatal(err)
		}
		sig, err := s.Sign([]byte("x"), []byte("message"))
		if err != nil || sig[0] != 'x' {
			t.Fatalf("%v: %v", k.Algorithm(), err)
		}
		if !k.Verify([]byte("message"), sig[1:]) || k.Verify([]byte("massage"), sig[1:]) {
			t.Errorf("%v: wrong verdict", k.Algorithm())
		}
	}
}

func TestOtherKeysAreRefused(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, priv := range []crypto.Signer{r, p384} {
		if _, err := NewSigner(priv); !errors.Is(err, ErrKeyType) {
			t.Errorf("%T: %v", priv, err)
		}
	}
}

func FuzzVerifyBurst(f *testing.F) {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	k, err := NewKey(pub)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("signed"), make([]byte, 100))
	f.Add([]byte("signed"), make([]byte, burstPathOffset+32*10))
	f.Fuzz(func(t *testing.T, signed, field []byte) {
		if k.Verify(signed, field) {
			t.Error("a signature that nobody made was accepted")
		}
	})
}

func TestVerifyAllocatesNothing(t *testing.T) {
	pub, priv, _ := ed25519.GenerateKey(rand.Reader)
	k, _ := NewKey(pub)
	msg := make([]byte, 300)
	sig := ed25519.Sign(priv, msg)
	if n := testing.AllocsPerRun(100, func() {
		if !k.Verify(msg, sig) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
