package session

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"
	"weak"
)

// recorder is randomness, and keeps what private keys of X25519 are made from.
type recorder struct {
	io.Reader
	keys [][]byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if n == KeySize {
		r.keys = append(r.keys, bytes.Clone(b[:n]))
	}
	return n, err
}

// thief has a recorded conversation and private keys.
type thief struct {
	m1, m2 []byte // signed bytes
	bodies [][]byte
}

// opens reports how many of the recorded sealed bodies some key opens which is
// derived from one of the secrets, in the place of the X25519 secret, and a secret
// of ML-KEM.
func (x *thief) opens(secrets [][]byte, kemSecrets [][]byte) (count int) {
	for _, secret := range secrets {
		for _, kem := range append(kemSecrets, nil) {
			k := deriveKeys(bytes.Clone(secret), bytes.Clone(kem), x.m1, x.m2)
			for _, key := range [][]byte{k.i2r, k.r2i, secret} {
				for _, aead := range []AEAD{AES256GCM, ChaCha20Poly1305} {
					count += x.opensWith(aead.New(key))
				}
			}
		}
	}
	return count
}

func (x *thief) opensWith(aead cipher.AEAD) (count int) {
	for _, signed := range x.bodies {
		body := signed[HeaderSize:]
		if signed[offsetCategory] == categorySession {
			body = body[typeSize:]
		}
		var b sealed
		if b.decode(bytes.Clone(body)) != nil {
			continue
		}
		s := session{open: aead}
		if _, err := s.openBody(&b, signed[:HeaderSize]); err == nil {
			count++
		}
	}
	return count
}

// products are the X25519 secrets of all private keys with all public keys.
func products(t *testing.T, privates [][]byte, publics [][]byte) (all [][]byte) {
	t.Helper()
	var keys []*ecdh.PrivateKey
	for _, p := range privates {
		key, err := ecdh.X25519().NewPrivateKey(p)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		publics = append(publics, key.PublicKey().Bytes())
	}
	for _, key := range keys {
		for _, public := range publics {
			if secret, err := exchange(key, public); err == nil {
				all = append(all, secret)
			}
		}
	}
	return all
}

// Who has recorded everything and later gets the keys of both certificates opens
// nothing. That the attempt is good shows the same with the keys of the handshake.
func TestCertificateKeysDoNotOpenWhatWasRecorded(t *testing.T) {
	n := newNetwork(t, 70)
	var identities [2][]byte // Ed25519 seeds
	random := &recorder{Reader: n.random}
	for i, e := range n.ends {
		identities[i] = make([]byte, ed25519.SeedSize)
		mustRead(n.random, identities[i])
		public := ed25519.NewKeyFromSeed(identities[i]).Public().(ed25519.PublicKey)
		e.cfg.Chain = func() [][]byte { return [][]byte{public} }
		e.cfg.Rand = random
		e.restart()
	}
	m1s, m2s, bodies, tells := n.capture("M1"), n.capture("M2"), n.capture("message"), n.capture("sealed")
	a, b := n.join()
	said := []byte("a body of which no run of sixteen bytes may be seen on the way")
	a.send(string(said))
	b.send(string(said))
	n.run(time.Second)
	if len(b.got) != 1 || len(a.got) != 1 || len(*m1s) != 1 || len(*m2s) != 1 || len(*tells) == 0 {
		t.Fatalf("the conversation is not as meant: %v, %v", a.bodies, b.bodies)
	}
	x := thief{m1: (*m1s)[0], m2: (*m2s)[0], bodies: append(*bodies, *tells...)}
	for _, signed := range x.bodies {
		for i := range len(said) - 16 {
			if bytes.Contains(signed, said[i:i+16]) {
				t.Fatal("a body can be seen on the way")
			}
		}
	}

	var first m1
	var second m2
	if first.decode(x.m1[HeaderSize:]) != nil || second.decode(x.m2[HeaderSize:]) != nil {
		t.Fatal("bodies of the handshake")
	}
	publics := [][]byte{first.public[:], second.public[:]}
	stolen := [][]byte{make([]byte, KeySize)}
	for _, seed := range identities {
		expanded := sha512.Sum512(seed) // the scalar of Ed25519, as one of X25519
		stolen = append(stolen, seed, expanded[:KeySize])
	}
	if got := x.opens(append(products(t, stolen, publics), stolen...), nil); got != 0 {
		t.Errorf("the keys of the certificates open %d of %d bodies", got, len(x.bodies))
	}
	if got := x.opens(products(t, random.keys, publics), nil); got < len(x.bodies) {
		t.Errorf("the keys of the handshake open %d of %d bodies, so that the test tries nothing", got, len(x.bodies))
	}
}

// With ML-KEM, the secret of X25519 alone opens nothing.
func TestBothSecretsAreNeeded(t *testing.T) {
	n := newNetwork(t, 71)
	random := &recorder{Reader: n.random}
	var kemSecrets [][]byte
	for _, e := range n.ends {
		e.cfg.Rand = random
		e.withKEM()
		encapsulate := e.cfg.Encapsulate
		e.cfg.Encapsulate = func(key []byte) ([]byte, []byte, error) {
			secret, ciphertext, err := encapsulate(key)
			kemSecrets = append(kemSecrets, bytes.Clone(secret))
			return secret, ciphertext, err
		}
		e.restart()
	}
	m1s, m2s, bodies := n.capture("M1"), n.capture("M2"), n.capture("message")
	n.join()
	x := thief{m1: (*m1s)[0], m2: (*m2s)[0], bodies: *bodies}
	var second m2
	if second.decode(x.m2[HeaderSize:]) != nil || len(second.ciphertext) == 0 {
		t.Fatal("no ML-KEM")
	}
	secrets := products(t, random.keys, [][]byte{second.public[:]})
	if got := x.opens(secrets, nil); got != 0 {
		t.Errorf("X25519 alone opens %d bodies", got)
	}
	if got := x.opens(secrets, kemSecrets); got == 0 {
		t.Error("both secrets open nothing, so that the test tries nothing")
	}
}

// watched is an AEAD whose end can be seen.
type watched struct {
	cipher.AEAD
	what string
}

// watch is told when what this package keeps of keys is not reachable any more.
type watch struct {
	keys []weak.Pointer[watched]
	x    []weak.Pointer[ecdh.PrivateKey]
}

func (w *watch) sessionsOf(e *end) {
	for _, s := range e.peer.sessions {
		for what, key := range map[string]*cipher.AEAD{"seal": &s.seal, "open": &s.open} {
			if _, is := (*key).(*watched); *key != nil && !is {
				wrapped := &watched{*key, fmt.Sprintf("end %d: %s", e.address[15], what)}
				*key = wrapped
				w.keys = append(w.keys, weak.Make(wrapped))
			}
		}
	}
}

// reachable collects garbage and returns what is still held.
func (w *watch) reachable() (held []string) {
	runtime.GC()
	runtime.GC()
	for _, k := range w.keys {
		if v := k.Value(); v != nil {
			held = append(held, v.what)
		}
	}
	for range w.x {
		if w.x[0].Value() != nil {
			held = append(held, "private key of a handshake")
		}
		w.x = append(w.x[1:], w.x[0])
	}
	return held
}

// A session that was used, held messages for order, was renewed and is 60 s old
// leaves no key that anything holds; nor does a handshake that has ended.
func TestNothingHoldsKeysThatWereErased(t *testing.T) {
	n := newNetwork(t, 72)
	a, b := n.join()
	heal := n.lose(a, "message")
	a.send("lost")
	heal()
	a.send("held for 200 ms", "and this")
	n.run(10 * time.Millisecond)
	if len(b.peer.current.stream.held) != 2 {
		t.Fatal("nothing is held")
	}
	var w watch
	w.sessionsOf(a)
	w.sessionsOf(b)
	a.peer.renewNow(n.now, a.peer.current, &a.out)
	w.x = append(w.x, weak.Make(a.peer.offers[0].keys.x))
	a.act()
	n.run(time.Second)
	held := w.reachable()
	if len(held) != 2 { // what each received under
		t.Errorf("a second after the change %q are held", held)
	}
	a.send("goes on")
	n.run(58 * time.Second)
	if held := w.reachable(); len(held) != 2 {
		t.Errorf("59 s after the change %q are held", held)
	}
	n.run(2 * time.Second)
	if held := w.reachable(); len(held) != 0 {
		t.Errorf("61 s after the change %q are held", held)
	}

	// Revocation does not wait.
	w.sessionsOf(a)
	a.peer.Erase()
	if held := w.reachable(); len(held) != 0 {
		t.Errorf("after Erase %q are held", held)
	}
	runtime.KeepAlive(n)
}

func TestSecretsAreCleared(t *testing.T) {
	secret, kem := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	k := deriveKeys(secret, kem, []byte("m1"), []byte("m2"))
	i2r, r2i := k.i2r, k.r2i
	zero := make([]byte, 32)
	if bytes.Equal(i2r, zero) || bytes.Equal(r2i, zero) || bytes.Equal(i2r, r2i) {
		t.Fatal("keys are not made")
	}
	k.clear()
	for what, b := range map[string][]byte{"X25519 secret": secret, "ML-KEM secret": kem, "i2r": i2r, "r2i": r2i} {
		if !bytes.Equal(b, zero) {
			t.Errorf("%s is not cleared", what)
		}
	}
}
