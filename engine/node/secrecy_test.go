package node

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"io"
	"sync"
	"testing"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/session"
)

// What passes both TLS links, decrypted, has no 16 bytes of any body.
func TestRoutersSeeNothingOfABody(t *testing.T) {
	const run = 16
	inWorld(t, func(w *world) {
		var mu sync.Mutex
		var seen [][]byte
		w.r.record = func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, bytes.Clone(b))
		}
		nodes := []*Node{w.connect("a", sealing), w.connect("b", sealing)}
		runs := map[string]bool{}
		for i, size := range []int{16, 64, 1000, 70000, 300, 17} {
			body := make([]byte, size)
			rand.Read(body)
			if size == 300 {
				copy(body, bytes.Repeat([]byte("the same words again and again "), 10))
			}
			for at := 0; at+run <= len(body); at++ {
				runs[string(body[at:at+run])] = true
			}
			category := []codec.Category{app, codec.CategoryData, codec.CategoryDevice}[i%3]
			from, to := nodes[i%2], nodes[1-i%2]
			s := must(from.Send(w.ctx(), to.Address(), category, body))
			w.receives(to, string(body))
			if err := s.Seen(w.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		total := 0
		for _, b := range seen {
			total += len(b)
			for at := 0; at+run <= len(b); at++ {
				if runs[string(b[at:at+run])] {
					t.Fatalf("16 bytes of a body at %d of a frame of category %v", at, codec.Raw(b).Category())
				}
			}
		}
		if total < 2*71000 {
			t.Errorf("only %d bytes were recorded: not both links", total)
		}
	})
}

// keptRandom keeps what it gives.
type keptRandom struct {
	mu   sync.Mutex
	gave [][]byte
}

func (k *keptRandom) Read(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, err := rand.Read(b)
	k.gave = append(k.gave, bytes.Clone(b[:n]))
	return n, err
}

var _ io.Reader = (*keptRandom)(nil)

// conversation is a recorded one.
type conversation struct {
	m1, m2 []byte   // signed bytes
	sealed [][]byte // signed bytes of all that is sealed, category 1 too
}

// Offsets of handshakes, PROTOCOL.md section 15.2, behind the header.
const (
	publicAt = 10
	aeadAt   = 42
	kemAt    = 79 // of M2: length, ciphertext
)

// opened is how many of the sealed bodies open with keys from X25519 private keys,
// each in the place of either end's, and from seeds of ML-KEM keys.
func (c *conversation) opened(private, seeds [][]byte) (opened int) {
	m1, m2 := c.m1[session.HeaderSize:], c.m2[session.HeaderSize:]
	h := sha256.New()
	h.Write([]byte("causeway session 1"))
	h.Write(c.m1)
	h.Write(c.m2)
	salt := h.Sum(nil)
	kem := [][]byte{nil, make([]byte, mlkem.SharedKeySize)}
	ciphertext := m2[kemAt+2:][:binary.BigEndian.Uint16(m2[kemAt:])]
	for _, seed := range seeds {
		if k, err := mlkem.NewDecapsulationKey768(seed); err == nil {
			if secret, err := k.Decapsulate(ciphertext); err == nil {
				kem = append(kem, secret)
			}
		}
	}
	for _, p := range private {
		key := must(ecdh.X25519().NewPrivateKey(p))
		for _, public := range [][]byte{m1[publicAt : publicAt+32], m2[publicAt : publicAt+32]} {
			secret := must(key.ECDH(must(ecdh.X25519().NewPublicKey(public))))
			for _, k := range kem {
				opened += c.openedWith(append(bytes.Clone(secret), k...), salt, session.AEAD(m2[aeadAt]))
			}
		}
	}
	return opened
}

func (c *conversation) openedWith(ikm, salt []byte, aead session.AEAD) (opened int) {
	for _, label := range []string{"i2r", "r2i"} {
		key := must(hkdf.Key(sha256.New, ikm, salt, label, session.KeySize))
		for _, signed := range c.sealed {
			body := signed[session.HeaderSize:]
			if signed[32] == byte(codec.CategorySession) {
				body = body[1:]
			}
			nonce := append(make([]byte, 4), body[8:16]...)
			if _, err := aead.New(key).Open(nil, nonce, body[16:], signed[:session.HeaderSize]); err == nil {
				opened++
			}
		}
	}
	return opened
}

// Who has recorded all, and steals the keys of both certificates later, can't read
// it. The keys of the handshake could: that shows that the attempt is a real one.
func TestStolenKeysOpenNothingThatWasRecorded(t *testing.T) {
	inWorld(t, func(w *world) {
		tap := w.tap()
		random := &keptRandom{}
		ids := []*pki.Identity{w.d.node("a"), w.d.node("b")}
		a := w.connect("spare", sealing, func(c *Config) { c.Identity, c.Rand = ids[0], random })
		b := w.connect("spare", sealing, func(c *Config) { c.Identity = ids[1] })
		for range 5 {
			w.send(a, b.Address(), "to b")
			w.receives(b, "to b")
			w.send(b, a.Address(), "to a")
			w.receives(a, "to a")
		}
		var c conversation
		for _, f := range tap.all() {
			switch {
			case f.Category() == app:
				c.sealed = append(c.sealed, f.Signed())
			case f.Category() != codec.CategorySession:
			case f.Body()[0] == 1:
				c.m1 = f.Signed()
			case f.Body()[0] == 2:
				c.m2 = f.Signed()
			case f.Body()[0] == 4:
				c.sealed = append(c.sealed, f.Signed())
			}
		}
		var stolen [][]byte
		for _, id := range ids {
			seed := id.Key.(crypto.Signer).(ed25519.PrivateKey).Seed()
			hashed := sha512.Sum512(seed)
			stolen = append(stolen, seed, hashed[:32])
		}
		if got := c.opened(stolen, nil); got != 0 {
			t.Errorf("%d of %d sealed bodies open with the certificates' keys", got, len(c.sealed))
		}
		var private, seeds [][]byte
		for _, b := range random.gave {
			switch len(b) {
			case 32:
				private = append(private, b)
			case mlkem.SeedSize:
				seeds = append(seeds, b)
			}
		}
		if got := c.opened(private, nil); got != 0 {
			t.Errorf("%d of %d sealed bodies open without ML-KEM's keys", got, len(c.sealed))
		}
		if got := c.opened(append(private, stolen...), seeds); got != len(c.sealed) || got < 12 {
			t.Errorf("%d of %d sealed bodies open with the handshake's own keys: the attempt is none", got, len(c.sealed))
		}
	})
}
