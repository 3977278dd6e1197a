package gate

// ranking is a heap of sources: the first of an order is at hand, and a source
// whose rank has changed finds its new place in logarithmic time.
type ranking struct {
	before func(a, b *source) bool   // fixed
	at     func(s *source) *position // fixed; where a source keeps its place here
	heap   []*source
}

// position is a place in a ranking: index + 1; 0 is none.
type position int

// first returns the first source, or nil.
func (r *ranking) first() *source {
	if len(r.heap) == 0 {
		return nil
	}
	return r.heap[0]
}

// place puts s where it belongs now, or takes it out unless it is in.
func (r *ranking) place(s *source, in bool) {
	at := r.at(s)
	switch {
	case in && *at == 0:
		r.heap = append(r.heap, nil)
		r.put(len(r.heap)-1, s)
	case !in && *at == 0:
		return
	case !in:
		i, last := int(*at)-1, len(r.heap)-1
		moved := r.heap[last]
		r.heap[last] = nil
		r.heap = r.heap[:last]
		*at = 0
		if moved == s {
			return
		}
		r.put(i, moved)
		s, at = moved, r.at(moved)
	}
	if i := int(*at) - 1; !r.up(i) {
		r.down(i)
	}
}

func (r *ranking) put(i int, s *source) {
	r.heap[i] = s
	*r.at(s) = position(i + 1)
}

func (r *ranking) up(i int) (moved bool) {
	for s := r.heap[i]; i > 0; moved = true {
		parent := (i - 1) / 2
		if !r.before(s, r.heap[parent]) {
			break
		}
		r.put(i, r.heap[parent])
		r.put(parent, s)
		i = parent
	}
	return moved
}

func (r *ranking) down(i int) {
	for s := r.heap[i]; ; {
		child := 2*i + 1
		if child+1 < len(r.heap) && r.before(r.heap[child+1], r.heap[child]) {
			child++
		}
		if child >= len(r.heap) || !r.before(r.heap[child], s) {
			return
		}
		r.put(i, r.heap[child])
		r.put(child, s)
		i = child
	}
}

// check returns a description of a broken invariant, or "".
func (r *ranking) check() string {
	for i, s := range r.heap {
		if *r.at(s) != position(i+1) {
			return "a source does not know its place"
		}
		if i > 0 && r.before(s, r.heap[(i-1)/2]) {
			return "a source is before its parent"
		}
	}
	return ""
}
