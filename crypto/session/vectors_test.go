package session

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// hexBytes is written as hexadecimal in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	raw, err := hex.DecodeString(text)
	*h = raw
	return err
}

type keyCase struct {
	Name             string
	InitiatorPrivate hexBytes `json:"initiator_private"`
	InitiatorPublic  hexBytes `json:"initiator_public"`
	ResponderPrivate hexBytes `json:"responder_private"`
	ResponderPublic  hexBytes `json:"responder_public"`
	KEMSecret        hexBytes `json:"mlkem_secret"`
	M1               hexBytes `json:"m1_signed_bytes"`
	M2               hexBytes `json:"m2_signed_bytes"`
	KeyI2R           hexBytes `json:"key_i2r"`
	KeyR2I           hexBytes `json:"key_r2i"`
	SessionID        hexBytes `json:"session_id"`
	Counter          uint64
	AssociatedData   hexBytes `json:"associated_data"`
	Plaintext        hexBytes
	BodyAES          hexBytes `json:"body_i2r_aes256gcm"`
	BodyChaCha       hexBytes `json:"body_i2r_chacha20poly1305"`
}

func load(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func keyCases(t *testing.T) []keyCase {
	t.Helper()
	var v struct{ Cases []keyCase }
	load(t, "session.json", &v)
	if len(v.Cases) == 0 {
		t.Fatal("no cases")
	}
	return v.Cases
}

func TestKeysAndBodiesAreThoseOfTheVectors(t *testing.T) {
	same := func(what string, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) {
			t.Errorf("%s is %x, want %x", what, got, want)
		}
	}
	for _, c := range keyCases(t) {
		for _, side := range []struct {
			name                    string
			private, public, theirs hexBytes
		}{
			{"initiator", c.InitiatorPrivate, c.InitiatorPublic, c.ResponderPublic},
			{"responder", c.ResponderPrivate, c.ResponderPublic, c.InitiatorPublic},
		} {
			private, err := ecdh.X25519().NewPrivateKey(side.private)
			if err != nil {
				t.Fatal(err)
			}
			same(c.Name+": public key of the "+side.name, private.PublicKey().Bytes(), side.public)
			secret, err := exchange(private, side.theirs)
			if err != nil {
				t.Fatal(err)
			}
			k := deriveKeys(secret, bytes.Clone(c.KEMSecret), c.M1, c.M2)
			same(c.Name+": i2r of the "+side.name, k.i2r, c.KeyI2R)
			same(c.Name+": r2i of the "+side.name, k.r2i, c.KeyR2I)
			same(c.Name+": secret, cleared", secret, make([]byte, len(secret)))
		}
		for aead, body := range map[AEAD]hexBytes{AES256GCM: c.BodyAES, ChaCha20Poly1305: c.BodyChaCha} {
			s := &session{peerID: ID(c.SessionID), last: c.Counter - 1, seal: aead.New(c.KeyI2R), open: aead.New(c.KeyI2R)}
			same(c.Name+": body under "+aead.String(), s.sealBody(nil, c.Plaintext, c.AssociatedData), body)
			var b sealed
			if err := b.decode(bytes.Clone(body)); err != nil || b.id != s.peerID || b.counter != c.Counter {
				t.Fatalf("%s: decoded as %x, %d, %v", c.Name, b.id, b.counter, err)
			}
			plain, err := s.openBody(&b, c.AssociatedData)
			if err != nil {
				t.Errorf("%s: %s: %v", c.Name, aead, err)
			}
			same(c.Name+": opened", plain, c.Plaintext)
		}
	}
}

type messageVectors struct {
	Good []struct {
		Name   string
		Body   hexBytes
		Fields struct {
			Type           string
			ID, Public, M1 hexBytes
			AEADs          AEADs
			AEAD           AEAD
			Credit         uint32
			MLKEM, Sealed  hexBytes
			Chain          []hexBytes
		}
	}
	Bad []struct {
		Name, Verdict string
		Body          hexBytes
	}
	Contents []struct {
		Name    string
		Content hexBytes
		Fields  struct {
			Type          string
			Old           hexBytes
			Last, Counter uint64
			Bytes         uint32
		}
	}
	BadContents []struct {
		Name    string
		Content hexBytes
	} `json:"bad_contents"`
}

func messages(t testing.TB) (v messageVectors) {
	t.Helper()
	load(t, "messages.json", &v)
	if len(v.Good) == 0 || len(v.Bad) == 0 || len(v.Contents) == 0 || len(v.BadContents) == 0 {
		t.Fatal("vectors are missing")
	}
	return v
}

func TestBodiesEncodeAsTheVectorsAndBack(t *testing.T) {
	for _, g := range messages(t).Good {
		f := g.Fields
		var chain [][]byte
		for _, c := range f.Chain {
			chain = append(chain, c)
		}
		var made, again []byte
		var err error
		switch f.Type {
		case "m1":
			made = (&m1{ID(f.ID), [32]byte(f.Public), f.AEADs, f.Credit, f.MLKEM, chain}).append(nil)
			var m m1
			err = m.decode(g.Body)
			again = m.append(nil)
		case "m2":
			made = (&m2{ID(f.ID), [32]byte(f.Public), f.AEAD, f.Credit, [32]byte(f.M1), f.MLKEM, chain}).append(nil)
			var m m2
			err = m.decode(g.Body)
			again = m.append(nil)
		case "reset":
			made = appendReset(nil, ID(f.ID))
			var id ID
			id, err = decodeReset(g.Body)
			again = appendReset(nil, id)
		case "sealed":
			made = append([]byte{bodySealed}, f.Sealed...)
			var b sealed
			err = b.decode(g.Body[typeSize:])
			again = append(append(append([]byte{bodySealed}, b.id[:]...), 0, 0, 0, 0, 0, 0, 0, byte(b.counter)), b.box...)
		default:
			t.Fatalf("%s: type %q", g.Name, f.Type)
		}
		if err != nil || !bytes.Equal(made, g.Body) || !bytes.Equal(again, g.Body) {
			t.Errorf("%s: %v: is %x, made %x, decoded %x", g.Name, err, []byte(g.Body), made, again)
		}
		if got, err := Chain(g.Body); err != nil || len(got) != len(chain) || len(got) > 0 && !bytes.Equal(got[0], chain[0]) {
			t.Errorf("%s: chain %x, %v", g.Name, got, err)
		}
	}
	for _, g := range messages(t).Contents {
		f := g.Fields
		want := map[string]content{
			"confirm": {kind: contentConfirm, counter: f.Last}, "grant": {kind: contentGrant, counter: f.Counter, bytes: f.Bytes}, "probe": {kind: contentProbe},
		}[f.Type]
		copy(want.id[:], f.Old)
		var c content
		if err := c.decode(g.Content); err != nil || c != want || !bytes.Equal(want.append(nil), g.Content) {
			t.Errorf("%s: %v: %+v, want %+v", g.Name, err, c, want)
		}
	}
}

func TestBadBodiesAreDropped(t *testing.T) {
	n := newNetwork(t, 1)
	try := func(name string, body []byte, want Drop) {
		t.Helper()
		h := n.ends[1].stamp(n.ends[0].address, categorySession, false, len(body))
		if got := n.ends[0].receive(append(h[:], body...)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	v := messages(t)
	for _, b := range v.Bad {
		try(b.Name, b.Body, map[string]Drop{"malformed": DropMalformed, "version": DropVersion}[b.Verdict])
	}
	try("65,537 bytes", append(bytes.Clone(v.Good[0].Body), make([]byte, 65537)...), DropMalformed)
	if n.ends[0].frames != 0 {
		t.Error("a bad body was answered")
	}
	for _, b := range v.BadContents {
		var c content
		if err := c.decode(b.Content); err != ErrMalformed {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
	h := n.ends[1].stamp(n.ends[0].address, 64, false, 100)
	if got := n.ends[0].receive(append(h[:], make([]byte, 100)...)); got != DropMalformed {
		t.Errorf("plain body: %v", got)
	}
	if got := n.ends[0].receive(h[:10]); got != DropMalformed {
		t.Errorf("part of a header: %v", got)
	}
}

func TestExamplesOfTheProtocolAreVectors(t *testing.T) {
	text, err := os.ReadFile("../../codec/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	c := keyCases(t)[0]
	private, err := ecdh.X25519().NewPrivateKey(c.InitiatorPrivate)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := exchange(private, c.ResponderPublic)
	if err != nil {
		t.Fatal(err)
	}
	m1, m2 := sha256.Sum256(c.M1), sha256.Sum256(c.M2)
	salt := sha256.Sum256(bytes.Join([][]byte{[]byte("causeway session 1"), c.M1, c.M2}, nil))
	v := messages(t)
	want := [][]byte{
		bytes.Join([][]byte{c.InitiatorPrivate, c.ResponderPublic, secret, m1[:], m2[:], salt[:], c.KeyI2R, c.KeyR2I}, nil),
		c.BodyAES, v.Good[0].Body, v.Contents[2].Content,
	}
	_, section, _ := strings.Cut(string(text), "\n## 15 ")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := strings.Split(section, "```")
	if len(blocks) != 2*len(want)+1 {
		t.Fatalf("section 15 has %d blocks, want %d", len(blocks)/2, len(want))
	}
	for i := range want {
		var example strings.Builder
		for line := range strings.Lines(blocks[2*i+1]) {
			line, _, _ = strings.Cut(line, "#")
			for field := range strings.FieldsSeq(line) {
				example.WriteString(field)
			}
		}
		if example.String() != hex.EncodeToString(want[i]) {
			t.Errorf("example %d is %s, the vector %x", i+1, example.String(), want[i])
		}
	}
}

func TestDropsHaveLabels(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Drops() {
		if d.String() == "" || seen[d.String()] {
			t.Errorf("drop %d has label %q", d, d)
		}
		seen[d.String()] = true
	}
	if DropNone.String() != "none" || dropEnd.String() != "unknown" || len(seen) != int(dropEnd)-1 {
		t.Error("labels of none or unknown, or number of reasons")
	}
}
