package sign

// evaluatePortable sets v to the sum of lane's steps in g, without T.
func evaluatePortable(v *point, arena []entry, g *group, lane int) {
	touch(arena, g, lane)
	for i := range steps {
		e, negative := entryOf(arena, g[i][lane])
		if i == 0 {
			v.setEntry(e, negative)
			continue
		}
		if i%stepsPerPass == 0 {
			v.double(true)
		}
		v.addEntry(e, negative, i%stepsPerPass != stepsPerPass-1)
	}
}

func entryOf(arena []entry, s step) (e *entry, negative bool) {
	return &arena[s/entrySize], s&stepNegative != 0
}

// touch reads a word of every line of the cache that the steps need, all at
// once: Go has no prefetch, and the additions would wait for them one by one.
func touch(arena []entry, g *group, lane int) {
	var sink uint64
	for i := range steps {
		e := &arena[g[i][lane]/entrySize]
		sink |= e[entryPlus] | e[entryT]
	}
	touched(sink)
}

//go:noinline
func touched(uint64) {}
