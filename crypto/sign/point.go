package sign

// point is a point of the curve in extended coordinates: x = X/Z, y = Y/Z,
// xy = T/Z. Bounds: every coordinate is reduced or once added.
type point struct{ x, y, z, t fe }

// cached is a point prepared to be added: Y+X, Y-X, 2Z, 2dT.
type cached struct{ plus, minus, z2, t2d fe }

// decode sets v to the point that b encodes as crypto/ed25519 understands it: y
// may be p or more, and x = 0 may have the sign bit. False if there is none.
func (v *point) decode(b *[32]byte) bool {
	// x² = (y² - 1) / (d y² + 1) = u/w; the candidate root is u w³ (u w⁷)^((p-5)/8).
	y := feFromBytes(b)
	var yy, u, w, w3, w7, x, check, other fe
	yy.square(&y)
	u.sub(&yy, &feOne)
	u.carry()
	w.mul(&yy, &feD)
	w.add(&w, &feOne)
	w3.square(&w)
	w3.mul(&w3, &w)
	w7.square(&w3)
	w7.mul(&w7, &w)
	x.mul(&u, &w7)
	x.pow22523(&x)
	x.mul(&x, &w3)
	x.mul(&x, &u)
	check.square(&x)
	check.mul(&check, &w)
	if other.sub(&check, &u); !other.isZero() {
		if other.add(&check, &u); !other.isZero() {
			return false
		}
		x.mul(&x, &feSqrtM1)
	}
	if x.words()[0]&1 != uint64(b[31]>>7) {
		x.negate(&x)
	}
	v.x, v.y, v.z = x, y, feOne
	v.t.mul(&x, &y)
	return true
}

func (v *point) negate() {
	v.x.negate(&v.x)
	v.t.negate(&v.t)
}

func (v *point) isIdentity() bool {
	var difference fe
	difference.sub(&v.y, &v.z)
	return v.x.isZero() && difference.isZero()
}

func (v *cached) set(p *point) {
	v.plus.add(&p.y, &p.x)
	v.minus.sub(&p.y, &p.x)
	v.z2.add(&p.z, &p.z)
	v.t2d.mul(&p.t, &feD)
	v.t2d.add(&v.t2d, &v.t2d)
}

// negate sets v to -v.
func (v *cached) negate() {
	v.plus, v.minus = v.minus, v.plus
	v.t2d.negate(&v.t2d)
}

// add sets v to v + q: 8M, complete (RFC 8032 section 5.1.4).
func (v *point) add(q *cached) {
	var a, b, c, d fe
	a.sub(&v.y, &v.x)
	a.mul(&a, &q.minus)
	b.add(&v.y, &v.x)
	b.mul(&b, &q.plus)
	c.mul(&v.t, &q.t2d)
	d.mul(&v.z, &q.z2)
	v.finish(&a, &b, &c, &d, true)
}

// finish is the second half of an addition: E = b-a, F = d-c, G = d+c, H = b+a,
// then X = EF, Y = GH, Z = FG, and T = EH if asked for.
func (v *point) finish(a, b, c, d *fe, withT bool) {
	var e, f, g, h fe
	e.sub(b, a)
	f.sub(d, c)
	g.add(d, c)
	h.add(b, a)
	v.x.mul(&e, &f)
	v.y.mul(&g, &h)
	v.z.mul(&f, &g)
	if withT {
		v.t.mul(&e, &h)
	}
}

// addEntry sets v to v + q, or v - q: 7M, or 6M without T.
func (v *point) addEntry(q *entry, negative, withT bool) {
	plus, minus, t := feFromWords((*[4]uint64)(q[entryPlus:])), feFromWords((*[4]uint64)(q[entryMinus:])), entryT
	if negative {
		plus, minus, t = minus, plus, entryMinusT
	}
	dxy := feFromWords((*[4]uint64)(q[t:]))
	var a, b, c fe
	a.sub(&v.y, &v.x)
	a.mul(&a, &minus)
	b.add(&v.y, &v.x)
	b.mul(&b, &plus)
	c.mul(&v.t, &dxy)
	v.finish(&a, &b, &c, &v.z, withT)
}

// setEntry sets v to q, or -q.
func (v *point) setEntry(q *entry, negative bool) {
	plus, minus := feFromWords((*[4]uint64)(q[entryPlus:])), feFromWords((*[4]uint64)(q[entryMinus:]))
	if negative {
		plus, minus = minus, plus
	}
	v.x.sub(&plus, &minus)
	v.x.carry()
	v.y.add(&plus, &minus)
	v.z = feOne
	v.t.mul(&v.x, &v.y)
}

// double sets v to 2v, 4M + 4S, or 3M + 4S without T.
func (v *point) double(withT bool) {
	var a, b, c, e, f, g, h fe
	a.square(&v.x)
	b.square(&v.y)
	c.square(&v.z)
	c.add(&c, &c)
	h.add(&a, &b)
	e.add(&v.x, &v.y)
	e.square(&e)
	e.sub(&h, &e)
	g.sub(&a, &b)
	f.add(&c, &g)
	v.x.mul(&e, &f)
	v.y.mul(&g, &h)
	v.z.mul(&f, &g)
	if withT {
		v.t.mul(&e, &h)
	}
}
