package sign

import (
	"flag"
	"math/big"
	"math/rand/v2"
	"testing"
)

var inversesFlag = flag.Int("verify.inverses", 20_000, "random inverses to compare")

func (v *fe) big() *big.Int {
	n := new(big.Int)
	for i := 4; i >= 0; i-- {
		n.Lsh(n, 51).Add(n, new(big.Int).SetUint64(v[i]))
	}
	return n.Mod(n, refP)
}

// randomLimbs gives limbs up to most, extreme ones often.
func randomLimbs(r *rand.Rand, most uint64) (v fe) {
	for i := range v {
		switch r.IntN(6) {
		case 0:
			v[i] = 0
		case 1:
			v[i] = most
		case 2:
			v[i] = mask51
		default:
			v[i] = r.Uint64N(most + 1)
		}
	}
	return v
}

func checkFe(t *testing.T, what string, got *fe, want *big.Int, bound uint64) {
	t.Helper()
	if want.Mod(want, refP); got.big().Cmp(want) != 0 {
		t.Fatalf("%s: %x, want %x", what, got.big(), want)
	}
	for i := range got {
		if got[i] > bound {
			t.Fatalf("%s: limb %d is %x, above %x", what, i, got[i], bound)
		}
	}
}

func TestFieldAgainstIntegers(t *testing.T) {
	const reduced, operand = 1<<51 + 1<<15, 1 << 54
	r := rand.New(rand.NewPCG(1, 2))
	for range rounds(20_000) {
		a, b := randomLimbs(r, operand), randomLimbs(r, operand)
		low := randomLimbs(r, 1<<53-76)
		var v fe
		v.mul(&a, &b)
		checkFe(t, "mul", &v, new(big.Int).Mul(a.big(), b.big()), reduced)
		v.square(&a)
		checkFe(t, "square", &v, new(big.Int).Mul(a.big(), a.big()), reduced)
		v.sub(&a, &low)
		checkFe(t, "sub", &v, new(big.Int).Sub(a.big(), low.big()), operand+1<<53)
		v.add(&a, &b)
		checkFe(t, "add", &v, new(big.Int).Add(a.big(), b.big()), 2*operand)
		v.negate(&low)
		checkFe(t, "negate", &v, new(big.Int).Neg(low.big()), reduced)
		half := a.half()
		if n := refNumber(wordBytes(half)); n.Cmp(refP) >= 0 || refMul(n, big.NewInt(2)).Cmp(a.big()) != 0 {
			t.Fatalf("half of %x: %x", a, half)
		}
		w := a.words()
		if v = feFromWords(&w); v.big().Cmp(a.big()) != 0 || refNumber(wordBytes(w)).Cmp(a.big()) != 0 {
			t.Fatalf("words of %x: %x", a, w)
		}
	}
}

func wordBytes(w [4]uint64) (b []byte) {
	for _, n := range w {
		for i := range 8 {
			b = append(b, byte(n>>(8*i)))
		}
	}
	return b
}

func TestInverseAgainstIntegers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	check := func(a *fe) {
		t.Helper()
		var v fe
		v.invert(a)
		want := new(big.Int).ModInverse(a.big(), refP)
		if want == nil {
			want = new(big.Int)
		}
		checkFe(t, "invert", &v, want, mask51)
	}
	for n := range int64(100) {
		for _, c := range []*big.Int{big.NewInt(n), new(big.Int).Sub(refP, big.NewInt(n)), new(big.Int).Rsh(refP, uint(n)), new(big.Int).Lsh(big.NewInt(1), uint(3*n)%255)} {
			w := wordsOf((*[32]byte)(refBytes(c)))
			a := feFromWords(&w)
			check(&a)
		}
	}
	for range rounds(*inversesFlag) {
		a := randomLimbs(r, mask51)
		check(&a)
	}
}

func TestPowerAgainstIntegers(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	exponent := new(big.Int).Rsh(refP, 3)
	for range 20 {
		a := randomLimbs(r, mask51)
		var v fe
		v.pow22523(&a)
		checkFe(t, "power", &v, new(big.Int).Exp(a.big(), exponent, refP), 1<<52)
	}
}

func BenchmarkFieldMul(b *testing.B) {
	v, w := feD, feSqrtM1
	for b.Loop() {
		v.mul(&v, &w)
	}
}

func BenchmarkFieldInvert(b *testing.B) {
	v := feD
	for b.Loop() {
		v.invert(&v)
	}
}
