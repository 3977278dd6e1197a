package sign

import (
	"crypto/ed25519"
	"crypto/sha512"
	"math/big"
	"math/rand/v2"
	"slices"
)

// signedCase is one input of a verification, and what crypto/ed25519 says to it,
// or for a burst to its head.
type signedCase struct {
	class     string
	key       []byte // 32 bytes
	message   []byte
	signature []byte
	want      bool
}

func newCase(class string, key, message, signature []byte) signedCase {
	c := signedCase{class: class, key: slices.Clone(key), message: slices.Clone(message), signature: slices.Clone(signature)}
	if len(signature) <= ed25519.SignatureSize {
		c.want = ed25519.Verify(key, message, signature)
		return c
	}
	if size, root, ok := burstRoot(message, signature); ok {
		c.want = ed25519.Verify(key, appendHead(nil, size, &root), signature[:ed25519.SignatureSize])
	}
	return c
}

// caseMaker makes cases from a seed. It knows its secret scalars, so that it can
// sign with points that no honest signer would have.
type caseMaker struct {
	rand  *rand.Rand
	cases []signedCase

	// bursts has every case signed as a frame of a burst: message returns the
	// burst's head.
	bursts bool
	frames map[string]burstFrame // by head
}

// burstFrame is a frame of a burst: what is signed in it, and what comes behind
// the Ed25519 signature of the head.
type burstFrame struct{ signed, way []byte }

// message returns what the Ed25519 signature of a frame with these signed bytes
// is over.
func (m *caseMaker) message(signed []byte) []byte {
	if !m.bursts {
		return signed
	}
	size := 2 + m.rand.IntN(15)
	if m.rand.IntN(4) == 0 {
		size = 2 + m.rand.IntN(burstSizeMax-1)
	}
	index := m.rand.IntN(size)
	path := m.bytes(pathSteps(uint(index), uint(size)) * 32)
	root := rootFromPath(leafHash(signed), uint(index), uint(size), path)
	head := appendHead(nil, uint(size), &root)
	if m.frames == nil {
		m.frames = map[string]burstFrame{}
	}
	m.frames[string(head)] = burstFrame{signed, append([]byte{byte(size >> 8), byte(size), byte(index >> 8), byte(index)}, path...)}
	return head
}

// field returns the signed bytes and the signature field of a frame, of which
// message returned what is given.
func (m *caseMaker) field(message, signature []byte) (signed, field []byte) {
	if !m.bursts {
		return message, signature
	}
	f := m.frames[string(message)]
	return f.signed, slices.Concat(signature, f.way)
}

func (m *caseMaker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rand.Uint32())
	}
	return b
}

func (m *caseMaker) scalar() *big.Int {
	n := refNumber(m.bytes(32))
	return n.Mod(n, refL)
}

func (m *caseMaker) add(class string, key, message, signature []byte) {
	message, signature = m.field(message, signature)
	m.cases = append(m.cases, newCase(class, key, message, signature))
}

// refHash is k of RFC 8032 section 5.1.7.
func refHash(r, key, message []byte) *big.Int {
	sum := sha512.Sum512(slices.Concat(r, key, message))
	k := refNumber(sum[:])
	return k.Mod(k, refL)
}

// refSign returns the signature R | r + k a for R, key and message as encoded.
func refSign(r, a *big.Int, encodedR, key, message []byte) []byte {
	s := new(big.Int).Mul(refHash(encodedR, key, message), a)
	s.Add(s, r).Mod(s, refL)
	return slices.Concat(encodedR, refBytes(s))
}

// encodings returns every encoding of p that crypto/ed25519 decodes: y and y + p
// where that fits, and both signs where x is zero; and for others the wrong sign
// too, which is -p.
func encodings(p refPoint) (all [][]byte) {
	for _, y := range []*big.Int{p.y, new(big.Int).Add(p.y, refP)} {
		if y.BitLen() <= 255 {
			all = append(all, refEncode(y, 0), refEncode(y, 1))
		}
	}
	return all
}

// edgeCases returns the classes in which implementations of Ed25519 are known
// to differ, as plain signatures or as bursts. They are made once.
func edgeCases(seed uint64, bursts bool) []signedCase {
	of := edgeCasesOf{seed, bursts}
	if madeEdgeCases[of] == nil {
		m := &caseMaker{rand: rand.New(rand.NewPCG(seed, 1)), bursts: bursts}
		m.lengths()
		m.scalars()
		m.mixedOrder()
		m.smallOrder()
		m.nonCanonical()
		m.reencoded()
		m.garbage()
		madeEdgeCases[of] = m.cases
	}
	return slices.Clone(madeEdgeCases[of])
}

type edgeCasesOf struct {
	seed   uint64
	bursts bool
}

var madeEdgeCases = map[edgeCasesOf][]signedCase{}

// lengths: messages at the boundaries of SHA-512 blocks, and signatures that
// are too short or too long for a plain one.
func (m *caseMaker) lengths() {
	pub, priv, _ := ed25519.GenerateKey(reader{m})
	for _, n := range []int{0, 1, 46, 47, 48, 49, 63, 64, 65, 174, 175, 176, 177, 255, 256, 257, 1000, 4096} {
		message := m.message(m.bytes(n))
		signature := ed25519.Sign(priv, message)
		m.add("good", pub, message, signature)
		for range 4 {
			m.mutated("bit flip", pub, message, signature)
		}
		signature[31] ^= 0x80
		m.add("sign of R", pub, message, signature)
	}
	message := m.message(m.bytes(40))
	signature := ed25519.Sign(priv, message)
	for n := range ed25519.SignatureSize {
		m.add("short", pub, message, signature[:n])
	}
	m.add("long", pub, message, append(signature, 0))
}

// mutated adds the case with one bit changed somewhere.
func (m *caseMaker) mutated(class string, key, message, signature []byte) {
	message, signature = m.field(message, signature)
	parts := [][]byte{slices.Clone(key), slices.Clone(message), slices.Clone(signature)}
	part := parts[m.rand.IntN(3)]
	if len(part) > 0 {
		part[m.rand.IntN(len(part))] ^= 1 << m.rand.IntN(8)
	}
	m.cases = append(m.cases, newCase(class, parts[0], parts[1], parts[2]))
}

// scalars: s of L and more, and s that no signer would get.
func (m *caseMaker) scalars() {
	pub, priv, _ := ed25519.GenerateKey(reader{m})
	for range 3 {
		message := m.message(m.bytes(m.rand.IntN(300)))
		signature := ed25519.Sign(priv, message)
		s := refNumber(signature[32:])
		for range 15 {
			s.Add(s, refL)
			if s.BitLen() <= 256 {
				m.add("s + jL", pub, message, slices.Concat(signature[:32], refBytes(s)))
			}
		}
		one, top := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 256)
		for _, s := range []*big.Int{
			new(big.Int), one, big.NewInt(2), new(big.Int).Sub(refL, one), refL, new(big.Int).Add(refL, one),
			new(big.Int).Lsh(one, 252), new(big.Int).Lsh(one, 253), new(big.Int).Lsh(one, 255), new(big.Int).Sub(top, one),
		} {
			// With R = sB - kA the verdict turns on whether s is in range alone.
			a := m.scalar()
			key := refB.mul(a).encode()
			r := new(big.Int).Sub(s, one)
			encodedR := refB.mul(r.Mod(r, refL)).encode()
			m.add("chosen s", pub, message, slices.Concat(signature[:32], refBytes(s)))
			m.add("chosen s", key, message, slices.Concat(encodedR, refBytes(s)))
		}
	}
	// s so that sB = kA: R is the identity, in each of its encodings.
	a := m.scalar()
	key := refB.mul(a).encode()
	for _, encodedR := range encodings(refO) {
		message := m.message([]byte("m"))
		m.add("R is the identity", key, message, refSign(new(big.Int), a, encodedR, key, message))
	}
	// A = B, -B, the identity and other multiples that have tables of their own.
	for _, a := range []int64{0, 1, 2, 3, 8, -1, -2} {
		secret := new(big.Int).Mod(big.NewInt(a), refL)
		key := refB.mul(secret).encode()
		for range 3 {
			r, message := m.scalar(), m.message(m.bytes(32))
			m.add("small multiple as A", key, message, refSign(r, secret, refB.mul(r).encode(), key, message))
		}
	}
}

// mixedOrder: A, R or both are a multiple of B plus a point of small order. A
// verdict without cofactor depends on k modulo 8.
func (m *caseMaker) mixedOrder() {
	for i := range 8 {
		a := m.scalar()
		key := refB.mul(a).add(ref8T[i]).encode()
		for j := range 8 {
			r, message := m.scalar(), m.message(m.bytes(m.rand.IntN(300)))
			encodedR := refB.mul(r).add(ref8T[j]).encode()
			m.add("mixed order", key, message, refSign(r, a, encodedR, key, message))
			// R such that it is right for one of the eight values of k mod 8.
			fit := refB.mul(r).add(ref8T[(8-i*j%8)%8]).encode()
			m.add("mixed order, fitting", key, message, refSign(r, a, fit, key, message))
		}
	}
}

// smallOrder: every encoding of a point of small order as A and as R, with s
// zero, tiny and random. With A of order 8 one in eight fits.
func (m *caseMaker) smallOrder() {
	var all [][]byte
	for _, p := range ref8T {
		all = append(all, encodings(p)...)
	}
	for _, key := range all {
		for _, encodedR := range all {
			m.add("small A and R", key, m.message(m.bytes(16)), slices.Concat(encodedR, make([]byte, 32)))
		}
		for range 16 {
			s := m.scalar()
			if m.rand.IntN(2) == 0 {
				s.SetUint64(uint64(m.rand.IntN(3)))
			}
			encodedR := refB.mul(s).add(ref8T[m.rand.IntN(8)]).encode()
			m.add("small A", key, m.message(m.bytes(16)), slices.Concat(encodedR, refBytes(s)))
		}
	}
	a := m.scalar()
	key := refB.mul(a).encode()
	for _, encodedR := range all {
		message := m.message([]byte("m"))
		m.add("small R", key, message, refSign(new(big.Int), a, encodedR, key, message))
		m.add("small R", key, message, slices.Concat(encodedR, make([]byte, 32)))
	}
}

// nonCanonical: every y of p or more, with both signs, as A and as R; and R
// that no point has.
func (m *caseMaker) nonCanonical() {
	a := m.scalar()
	good := refB.mul(a).encode()
	for y := range int64(19) {
		for sign := range uint(2) {
			encoded := refEncode(new(big.Int).Add(refP, big.NewInt(y)), sign)
			s, message := m.scalar(), m.message([]byte("m"))
			m.add("non-canonical A", encoded, message, slices.Concat(refB.mul(s).encode(), refBytes(s)))
			m.add("non-canonical A and R", encoded, message, slices.Concat(encoded, refBytes(s)))
			m.add("non-canonical R", good, message, refSign(s, a, encoded, good, message))
		}
	}
}

// reencoded: A of small order has an encoding that is not what it would be
// encoded as again, and the verdict is another when that is hashed.
func (m *caseMaker) reencoded() {
	for _, p := range ref8T {
		for _, key := range encodings(p) {
			if decoded, _ := refDecode(key); !decoded.equal(p) || slices.Equal(key, p.encode()) {
				continue
			}
			for range 32 {
				s, message := m.scalar(), m.message(m.bytes(8))
				t := ref8T[m.rand.IntN(8)]
				encodedR := refB.mul(s).add(t).encode()
				fits := func(key []byte) bool { // R = sB - kA, if t = -kA
					k := refHash(encodedR, key, message)
					return p.mul(k.Mod(k, big.NewInt(8))).add(t).equal(refO)
				}
				if fits(key) != fits(p.encode()) {
					m.add("re-encoded A", key, message, slices.Concat(encodedR, refBytes(s)))
				}
			}
		}
	}
}

func (m *caseMaker) garbage() {
	for range 60 {
		m.add("garbage", m.bytes(32), m.message(m.bytes(m.rand.IntN(200))), m.bytes(64))
	}
	pub, priv, _ := ed25519.GenerateKey(reader{m})
	for _, fill := range []byte{0x00, 0xff, 0x80, 0x7f} {
		b, message := slices.Repeat([]byte{fill}, 64), m.message([]byte("m"))
		m.add("filled", pub, message, b)
		m.add("filled", b[:32], message, ed25519.Sign(priv, message))
		m.add("filled", b[:32], message, b)
	}
}

// reader is m as io.Reader.
type reader struct{ m *caseMaker }

func (r reader) Read(b []byte) (int, error) { return copy(b, r.m.bytes(len(b))), nil }

// randomSigner returns a key to make random cases with; one in eight has
// torsion, so that it has no table.
func (m *caseMaker) randomSigner() (signer caseSigner) {
	a := m.scalar()
	signer.a = a
	signer.point = refB.mul(a)
	if m.rand.IntN(8) == 0 {
		signer.point = signer.point.add(ref8T[m.rand.IntN(8)])
	}
	signer.key = signer.point.encode()
	for range 16 {
		r := m.scalar()
		signer.rs = append(signer.rs, r)
		encodedR := refB.mul(r)
		if m.rand.IntN(8) == 0 {
			encodedR = encodedR.add(ref8T[m.rand.IntN(8)])
		}
		signer.encodedRs = append(signer.encodedRs, encodedR.encode())
	}
	return signer
}

// caseSigner has some nonces prepared: random cases need to be made quickly, and
// no secret is to be kept.
type caseSigner struct {
	a         *big.Int
	point     refPoint
	key       []byte
	rs        []*big.Int
	encodedRs [][]byte
}

// random adds a random case by one of signers: good, or changed somewhere.
func (m *caseMaker) random(signers []caseSigner) {
	s := &signers[m.rand.IntN(len(signers))]
	message := m.message(m.bytes(m.rand.IntN(300)))
	i := m.rand.IntN(len(s.rs))
	signature := refSign(s.rs[i], s.a, s.encodedRs[i], s.key, message)
	switch m.rand.IntN(8) {
	case 0:
		m.mutated("random, bit flip", s.key, message, signature)
	case 1:
		signature[31] ^= 0x80
		m.add("random, sign of R", s.key, message, signature)
	case 2:
		n := refNumber(signature[32:])
		n.Add(n, new(big.Int).Mul(refL, big.NewInt(int64(m.rand.IntN(15)))))
		m.add("random, s + jL", s.key, message, slices.Concat(signature[:32], refBytes(n)))
	case 3:
		m.add("random, any s", s.key, message, slices.Concat(signature[:32], m.bytes(31), []byte{byte(m.rand.IntN(17))}))
	default:
		m.add("random", s.key, message, signature)
	}
}
