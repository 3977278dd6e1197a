//go:build amd64 && !purego

package sign

import "unsafe"

// laneJobsMin is from how many signatures on lanes are used, some of them idle. On
// Zen 4 four take half the time that they take one after the other with IFMA, two
// thirds with doubles, and two a tenth less with IFMA only; other CPUs lower their
// clock for some time after vectors.
const laneJobsMin = 3

const groupsMax = batchMax / lanes

// elements are eight field elements, a limb of each in a vector of the CPU, as
// fe otherwise: v[i][lane].
type elements [5][lanes]uint64

// laneWork is the memory of evaluateLanes, best aligned to 64 bytes. Its first
// three elements are the result.
type laneWork [11]elements

// evaluateLanes sets work[0], work[1] and work[2] to X, Y and Z of the sums of
// steps, lane by lane, of which the first ones have jobs. Limbs are below 2^59.
func (p Path) evaluateLanes(work *laneWork, arena []entry, steps *group, jobs int) {
	switch p {
	case PathAVX2:
		evaluateHalves(work, arena, steps, jobs)
	case PathFMA:
		evaluateFMA(work, arenaStart(arena), steps)
	default:
		evaluateIFMA(work, arenaStart(arena), steps)
	}
}

// multiplyLanes sets out to a b. Limbs may be up to 2^62, and are below 2^52 in
// the result.
func (p Path) multiplyLanes(out, a, b *elements) {
	switch p {
	case PathAVX2:
		multiplyAVX2(out, a, b)
	case PathFMA:
		multiplyFMA(out, a, b)
	default:
		multiplyIFMA(out, a, b)
	}
}

// laneState is what decideLanes works in. The result of a group, X, Y and Z,
// takes the place of the first three elements of its work; the rest of that lies
// over the results of later groups, which come after it.
type laneState struct {
	memory  *[groupsMax*resultElements + workElements - resultElements]elements
	product [groupsMax]elements // of Z, up to and with each group
	hash    hashLanes
}

const (
	workElements   = len(laneWork{})
	resultElements = 3
)

// init allocates memory at a line of the cache.
func (s *laneState) init() {
	const line = 64
	size := unsafe.Sizeof(*s.memory)
	at := unsafe.Pointer(unsafe.SliceData(make([]byte, size+line)))
	s.memory = (*[groupsMax*resultElements + workElements - resultElements]elements)(unsafe.Add(at, -uintptr(at)%line))
}

// result returns X, Y and Z of group g.
func (s *laneState) result(g int) *[resultElements]elements {
	return (*[resultElements]elements)(s.memory[g*resultElements:])
}

// decideLanes hashes and adds up eight at a time, and divides by their Z together.
func (v *Verifier) decideLanes() {
	s, path := &v.lanes, v.tables.path
	groups := (v.n + lanes - 1) / lanes
	for g := range groups {
		jobs := v.jobs[g*lanes : min((g+1)*lanes, v.n)]
		if path == PathAVX2 {
			v.hashOnes(&v.groups[g], jobs)
		} else {
			v.hashLanes(&v.groups[g], jobs)
		}
		path.evaluateLanes((*laneWork)(s.memory[g*resultElements:]), v.tables.arena, &v.groups[g], len(jobs))
	}
	s.product[0] = s.result(0)[2]
	for g := 1; g < groups; g++ {
		path.multiplyLanes(&s.product[g], &s.product[g-1], &s.result(g)[2])
	}
	inverse := path.invertLanes(&s.product[groups-1])
	for g := groups - 1; g >= 0; g-- {
		r := s.result(g)
		mine := inverse
		if g > 0 {
			path.multiplyLanes(&mine, &inverse, &s.product[g-1])
			path.multiplyLanes(&inverse, &inverse, &r[2])
		}
		path.multiplyLanes(&r[0], &r[0], &mine)
		path.multiplyLanes(&r[1], &r[1], &mine)
		for i := g * lanes; i < min((g+1)*lanes, v.n); i++ {
			x, y := r[0].lane(i%lanes), r[1].lane(i%lanes)
			v.jobs[i].compare(&x, &y)
		}
	}
}

func (e *elements) lane(i int) fe { return fe{e[0][i], e[1][i], e[2][i], e[3][i], e[4][i]} }

// rotated is e with every lane moved by n.
func (e *elements) rotated(n int) (r elements) {
	for i := range e {
		for lane := range lanes {
			r[i][lane] = e[i][(lane+n)%lanes]
		}
	}
	return r
}

// invertLanes returns the inverses of all lanes, by one inversion: the product
// of all lanes is put together by three rotations, and in others that of all but
// a lane's own.
func (p Path) invertLanes(e *elements) (inverse elements) {
	all, others := *e, elements{{1, 1, 1, 1, 1, 1, 1, 1}}
	for n := lanes / 2; n > 0; n /= 2 {
		rotated := all.rotated(n)
		p.multiplyLanes(&others, &others, &rotated)
		p.multiplyLanes(&all, &all, &rotated)
	}
	one := all.lane(0)
	one.invert(&one)
	for i := range inverse {
		for lane := range lanes {
			inverse[i][lane] = one[i]
		}
	}
	p.multiplyLanes(&inverse, &inverse, &others)
	return inverse
}
