package codec

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"
)

// octets is a byte string written in hexadecimal in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type frameVector struct {
	Name          string
	Algorithm     string
	PublicKeySPKI octets `json:"public_key_spki"`
	TTL           uint8
	Recipient     octets
	Sender        octets
	Category      Category
	SendTimeNs    uint64 `json:"send_time_ns"`
	CertID        octets `json:"cert_id"`
	Encrypted     int
	Body          octets
	SignedSHA256  octets `json:"signed_bytes_sha256"`
	Wire          octets
	AfterOneHop   *octets `json:"wire_after_one_hop"`
}

// frameVectors is testdata/frame.json, which no code of this project has made.
type frameVectors struct {
	Cases  []frameVector
	Bursts []struct {
		TreeSize      int `json:"tree_size"`
		Root          octets
		PublicKeySPKI octets `json:"public_key_spki"`
		Wires         []octets
	}
	BadBursts []struct {
		Name string
		Wire octets
	} `json:"bad_bursts"`
	Mutations []struct {
		Name    string
		Verdict string
		Wire    octets
	}
	MutationsOf string `json:"mutations_of"`
}

func loadFrameVectors(t testing.TB) *frameVectors {
	t.Helper()
	data, err := os.ReadFile("testdata/frame.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(frameVectors)
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
	if len(v.Cases) == 0 || len(v.Bursts) == 0 || len(v.BadBursts) == 0 || len(v.Mutations) == 0 {
		t.Fatal("testdata/frame.json lacks cases, bursts, bad bursts or mutations")
	}
	return v
}

// slowVerify reports whether sig is a good signature of any kind by the key
// over signed, with the standard library and the definitions alone.
func slowVerify(t *testing.T, spki, signed, sig []byte) bool {
	t.Helper()
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(signed)
		return ecdsa.VerifyASN1(pub, sum[:], sig)
	case ed25519.PublicKey:
		if len(sig) == ed25519.SignatureSize {
			return ed25519.Verify(pub, signed, sig)
		}
		var b Burst
		if b.Decode(sig) != nil {
			return false
		}
		root := slowRootFromPath(slowLeaf(signed), int(b.Index), int(b.Size), b.Path)
		return root != nil && ed25519.Verify(pub, burstSigned(int(b.Size), root), b.RootSignature)
	}
	t.Fatalf("unexpected key %T", pub)
	return false
}

func TestVectorFramesEncodeToTheSameBytes(t *testing.T) {
	for _, c := range loadFrameVectors(t).Cases {
		raw := Raw(c.Wire)
		f := Frame{
			TTL: c.TTL, Recipient: Address(c.Recipient), Sender: Address(c.Sender), Category: c.Category,
			SendTime: c.SendTimeNs, CertID: CertID(c.CertID), Encrypted: c.Encrypted == 1, Body: c.Body,
			Signature: c.Wire[HeaderSize+len(c.Body)+SignatureLengthSize:],
		}
		got, err := f.Append(nil)
		if err != nil || !slices.Equal(got, c.Wire) {
			t.Errorf("%s: Append = %x, %v, want %x", c.Name, got, err, []byte(c.Wire))
		}
		signed := f.AppendSigned(nil)
		if sum := sha256.Sum256(signed); !slices.Equal(sum[:], c.SignedSHA256) {
			t.Errorf("%s: SHA-256 of AppendSigned = %x, want %x", c.Name, sum, []byte(c.SignedSHA256))
		}
		if want := Digest(c.SignedSHA256[:DigestSize]); DigestOf(signed) != want || raw.Digest() != want {
			t.Errorf("%s: digest = %v and %v, want %v", c.Name, DigestOf(signed), raw.Digest(), want)
		}
		if !slowVerify(t, c.PublicKeySPKI, signed, f.Signature) {
			t.Errorf("%s: signature does not verify over AppendSigned", c.Name)
		}
	}
}

func TestVectorFramesDecodeToTheSameFields(t *testing.T) {
	for _, c := range loadFrameVectors(t).Cases {
		var f Frame
		if err := f.Decode(c.Wire, BodyMaxDefault); err != nil {
			t.Errorf("%s: Decode: %v", c.Name, err)
			continue
		}
		raw := Raw(c.Wire)
		if raw.TTL() != f.TTL || raw.Recipient() != f.Recipient || raw.Sender() != f.Sender ||
			raw.Category() != f.Category || raw.SendTime() != f.SendTime || raw.CertID() != f.CertID ||
			raw.Encrypted() != f.Encrypted || !slices.Equal(raw.Body(), f.Body) || !slices.Equal(raw.Signature(), f.Signature) {
			t.Errorf("%s: Raw and Frame differ: %+v", c.Name, f)
		}
		if f.TTL != c.TTL || f.Recipient != Address(c.Recipient) || f.Sender != Address(c.Sender) ||
			f.Category != c.Category || f.SendTime != c.SendTimeNs || f.CertID != CertID(c.CertID) ||
			f.Encrypted != (c.Encrypted == 1) || !slices.Equal(f.Body, c.Body) {
			t.Errorf("%s: Decode = %+v, want %+v", c.Name, f, c)
		}
		if !slowVerify(t, c.PublicKeySPKI, raw.Signed(), f.Signature) {
			t.Errorf("%s: signature does not verify over Signed", c.Name)
		}
		if c.AfterOneHop == nil {
			continue
		}
		raw.SetTTL(raw.TTL() - 1)
		if !slices.Equal([]byte(raw), *c.AfterOneHop) {
			t.Errorf("%s: after one hop %x, want %x", c.Name, raw, []byte(*c.AfterOneHop))
		}
	}
}

func TestVectorMutationsMeetTheirVerdicts(t *testing.T) {
	v := loadFrameVectors(t)
	at := slices.IndexFunc(v.Cases, func(c frameVector) bool {
		return c.Name == v.MutationsOf
	})
	spki := v.Cases[at].PublicKeySPKI
	for _, m := range v.Mutations {
		if got := verdict(t, spki, m.Wire); got != m.Verdict {
			t.Errorf("%s: %s, want %s", m.Name, got, m.Verdict)
		}
	}
}

// verdict says of bytes what the vectors say of them.
func verdict(t *testing.T, spki, wire []byte) string {
	need, err := Cut(wire, BodyMaxLimit)
	switch {
	case errors.Is(err, ErrMalformed):
		return "malformed"
	case err != nil:
		return err.Error()
	case need > len(wire):
		return "incomplete"
	}
	raw := Raw(wire[:need])
	if slowVerify(t, spki, raw.Signed(), raw.Signature()) {
		return "good signature"
	}
	return "bad signature"
}

func TestVectorBurstsParseAndVerify(t *testing.T) {
	for _, v := range loadFrameVectors(t).Bursts {
		leaves := make([][]byte, v.TreeSize)
		bursts := make([]Burst, v.TreeSize)
		for i, wire := range v.Wires {
			var f Frame
			if err := f.Decode(wire, BodyMaxDefault); err != nil {
				t.Fatal(err)
			}
			if err := bursts[i].Decode(f.Signature); err != nil {
				t.Fatalf("tree of %d, leaf %d: %v", v.TreeSize, i, err)
			}
			if int(bursts[i].Size) != v.TreeSize || int(bursts[i].Index) != i {
				t.Fatalf("tree of %d, leaf %d: size %d, index %d", v.TreeSize, i, bursts[i].Size, bursts[i].Index)
			}
			leaves[i] = slowLeaf(Raw(wire).Signed())
			if !slowVerify(t, v.PublicKeySPKI, Raw(wire).Signed(), f.Signature) {
				t.Errorf("tree of %d, leaf %d: bad signature", v.TreeSize, i)
			}
		}
		if root := slowRoot(leaves); !slices.Equal(root, v.Root) {
			t.Errorf("tree of %d: root %x, want %x", v.TreeSize, root, []byte(v.Root))
		}
		for i, b := range bursts {
			if want := slices.Concat(slowPath(i, leaves)...); !slices.Equal(b.Path, want) {
				t.Errorf("tree of %d, leaf %d: path %x, want %x", v.TreeSize, i, b.Path, want)
			}
		}
	}
}

func TestVectorBadBurstsAreRefused(t *testing.T) {
	// Those that parsing must refuse already; the others fail in verification.
	parse := map[string]error{
		"index not below size": ErrBurstIndex,
		"size 1":               ErrBurstSize,
		"size 1025":            ErrBurstSize,
		"path one step short":  ErrBurstLength,
		"path one step long":   ErrBurstLength,
	}
	v := loadFrameVectors(t)
	spki := v.Bursts[0].PublicKeySPKI
	for _, bad := range v.BadBursts {
		var f Frame
		if err := f.Decode(bad.Wire, BodyMaxDefault); err != nil {
			t.Errorf("%s: the frame is well-formed, but Decode: %v", bad.Name, err)
			continue
		}
		var b Burst
		if err := b.Decode(f.Signature); err != parse[bad.Name] {
			t.Errorf("%s: Burst.Decode = %v, want %v", bad.Name, err, parse[bad.Name])
		}
		if slowVerify(t, spki, Raw(bad.Wire).Signed(), f.Signature) {
			t.Errorf("%s: verifies", bad.Name)
		}
	}
}

// The tree of RFC 9162 section 2.1 as it is defined there.

func slowHash(parts ...[]byte) []byte {
	sum := sha256.Sum256(slices.Concat(parts...))
	return sum[:]
}

func slowLeaf(signed []byte) []byte { return slowHash([]byte{0}, signed) }

// slowSplit returns the largest power of two below n.
func slowSplit(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

func slowRoot(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := slowSplit(len(leaves))
	return slowHash([]byte{1}, slowRoot(leaves[:k]), slowRoot(leaves[k:]))
}

// slowPath is PATH(m, D[n]) of section 2.1.3.1.
func slowPath(m int, leaves [][]byte) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := slowSplit(len(leaves))
	if m < k {
		return append(slowPath(m, leaves[:k]), slowRoot(leaves[k:]))
	}
	return append(slowPath(m-k, leaves[k:]), slowRoot(leaves[:k]))
}

// slowRootFromPath undoes slowPath; nil when the path has another length.
func slowRootFromPath(leaf []byte, m, n int, path []byte) []byte {
	if n == 1 {
		if len(path) != 0 {
			return nil
		}
		return leaf
	}
	if len(path) < BurstStepSize {
		return nil
	}
	sibling, path := path[len(path)-BurstStepSize:], path[:len(path)-BurstStepSize]
	k := slowSplit(n)
	if m < k {
		if left := slowRootFromPath(leaf, m, k, path); left != nil {
			return slowHash([]byte{1}, left, sibling)
		}
		return nil
	}
	if right := slowRootFromPath(leaf, m-k, n-k, path); right != nil {
		return slowHash([]byte{1}, sibling, right)
	}
	return nil
}

func burstSigned(size int, root []byte) []byte {
	b := append([]byte("causeway burst signature 1"), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	return append(b, root...)
}
