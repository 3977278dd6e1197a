package sign

import "math/bits"

// Inversion by divsteps (Bernstein and Yang, "Fast constant-time gcd computation
// and modular inversion", 2019), 62 steps at a time, in variable time: all that
// is verified is public. A fifth of the time of a power of p - 2.

// signed62 is the sum of v[i] 2^(62 i), with v[0] to v[3] in [0, 2^62) and the
// sign in v[4].
type signed62 [5]int64

const (
	mask62 = 1<<62 - 1

	// p = 128·2^248 - 19.
	p62low, p62high = -19, 128
	// 1/p modulo 2^62: p is -19 there.
	p62inverse = 0x39435e50d79435e5
)

// int128 is a sum of products, in two's complement.
type int128 struct {
	hi int64
	lo uint64
}

func (c int128) plus(a, b int64) int128 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	h := int64(hi) - a>>63&b - b>>63&a
	lo, carry := bits.Add64(c.lo, lo, 0)
	return int128{c.hi + h + int64(carry), lo}
}

func (c int128) shift62() int128 { return int128{c.hi >> 62, uint64(c.hi)<<2 | c.lo>>62} }
func (c int128) low62() int64    { return int64(c.lo & mask62) }

// steps62 is 62 divsteps as a matrix, scaled by 2^62.
type steps62 struct{ u, v, q, r int64 }

// divsteps does 62 steps on the low words of f (odd) and g.
func divsteps(eta int64, f0, g0 uint64) (int64, steps62) {
	var u, v, q, r uint64 = 1, 0, 0, 1
	f, g := f0, g0
	for left := 62; ; {
		zeros := bits.TrailingZeros64(g | ^uint64(0)<<left)
		g >>= zeros
		u <<= zeros
		v <<= zeros
		eta -= int64(zeros)
		left -= zeros
		if left == 0 {
			return eta, steps62{int64(u), int64(v), int64(q), int64(r)}
		}
		if eta < 0 {
			eta = -eta
			f, g = g, -f
			u, q = q, -u
			v, r = r, -v
		}
		// Cancel as many low bits of g as may be before the next swap, six at
		// most: w = -g/f there, for f(2 - f^2) is 1/f modulo 64.
		bitsLeft := min(int(eta)+1, left)
		w := f * g * (f*f - 2) & (^uint64(0) >> (64 - min(bitsLeft, 6)))
		g += f * w
		q += u * w
		r += v * w
	}
}

// apply sets f, g to the matrix times f, g, divided by 2^62: exact.
func (t *steps62) apply(f, g *signed62) {
	cf := int128{}.plus(t.u, f[0]).plus(t.v, g[0]).shift62()
	cg := int128{}.plus(t.q, f[0]).plus(t.r, g[0]).shift62()
	for i := 1; i < 5; i++ {
		cf = cf.plus(t.u, f[i]).plus(t.v, g[i])
		cg = cg.plus(t.q, f[i]).plus(t.r, g[i])
		f[i-1], g[i-1] = cf.low62(), cg.low62()
		cf, cg = cf.shift62(), cg.shift62()
	}
	f[4], g[4] = int64(cf.lo), int64(cg.lo)
}

// applyModulo is apply modulo p: a multiple of p makes the division exact. d and
// e are and stay in (-2p, p).
func (t *steps62) applyModulo(d, e *signed62) {
	dNegative, eNegative := d[4]>>63, e[4]>>63
	md := t.u&dNegative + t.v&eNegative
	me := t.q&dNegative + t.r&eNegative
	cd := int128{}.plus(t.u, d[0]).plus(t.v, e[0])
	ce := int128{}.plus(t.q, d[0]).plus(t.r, e[0])
	md -= (int64(p62inverse*cd.lo) + md) & mask62
	me -= (int64(p62inverse*ce.lo) + me) & mask62
	cd = cd.plus(p62low, md).shift62()
	ce = ce.plus(p62low, me).shift62()
	for i := 1; i < 5; i++ {
		cd = cd.plus(t.u, d[i]).plus(t.v, e[i])
		ce = ce.plus(t.q, d[i]).plus(t.r, e[i])
		if i == 4 {
			cd, ce = cd.plus(p62high, md), ce.plus(p62high, me)
		}
		d[i-1], e[i-1] = cd.low62(), ce.low62()
		cd, ce = cd.shift62(), ce.shift62()
	}
	d[4], e[4] = int64(cd.lo), int64(ce.lo)
}

// plusP adds p where v is negative, and carries.
func (v *signed62) plusP() {
	if v[4] < 0 {
		v[0] += p62low
		v[4] += p62high
	}
	v.carry()
}

func (v *signed62) carry() {
	for i := range 4 {
		v[i+1] += v[i] >> 62
		v[i] &= mask62
	}
}

// invert sets v to 1/a; 0 to 0.
func (v *fe) invert(a *fe) {
	w := a.words()
	f := signed62{p62low, 0, 0, 0, p62high}
	f.carry()
	g := signed62{
		int64(w[0] & mask62),
		int64((w[0]>>62 | w[1]<<2) & mask62),
		int64((w[1]>>60 | w[2]<<4) & mask62),
		int64((w[2]>>58 | w[3]<<6) & mask62),
		int64(w[3] >> 56),
	}
	d, e := signed62{}, signed62{1}
	for eta := int64(-1); g != (signed62{}); {
		var t steps62
		eta, t = divsteps(eta, uint64(f[0])|uint64(f[1])<<62, uint64(g[0])|uint64(g[1])<<62)
		t.applyModulo(&d, &e)
		t.apply(&f, &g)
	}
	// d is in (-2p, p): p is added before d is negated with f, which is 1 or -1.
	d.plusP()
	if f[4] < 0 {
		for i := range d {
			d[i] = -d[i]
		}
		d.carry()
	}
	d.plusP()
	*v = feFromWords(&[4]uint64{
		uint64(d[0]) | uint64(d[1])<<62,
		uint64(d[1])>>2 | uint64(d[2])<<60,
		uint64(d[2])>>4 | uint64(d[3])<<58,
		uint64(d[3])>>6 | uint64(d[4])<<56,
	})
}
