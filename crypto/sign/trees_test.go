package sign

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// burstVerifiers returns a Verifier of each path, with tables for signers.
func burstVerifiers(t testing.TB, signers []testSigner) (all []*Verifier) {
	t.Helper()
	for _, path := range Paths() {
		tables := sharedTables(t, path)
		for _, s := range signers {
			if again := tables.Build(edKey(t, s.key.ed), tables.nextAt); again != 0 {
				t.Fatal("no table")
			}
		}
		all = append(all, tables.NewVerifier())
	}
	return all
}

// mutate returns c with something changed that a hostile sender may change.
func mutateBurst(r *rand.Rand, c Check, others []Check, signers []testSigner) Check {
	field := slices.Clone(c.Signature)
	other := others[r.IntN(len(others))]
	switch r.IntN(8) {
	case 0: // the message
		c.Signed = append(slices.Clone(c.Signed), 0)
	case 1: // the tree head's signature
		field[r.IntN(burstSizeOffset)] ^= 1 << r.IntN(8)
	case 2: // size or index
		field[burstSizeOffset+r.IntN(4)] ^= 1 << r.IntN(8)
	case 3, 4: // the path
		at := burstPathOffset + r.IntN(len(field)-burstPathOffset)
		field[at] ^= 1 << r.IntN(8)
	case 5: // another key: a root replayed under another signer
		c.Key = signers[r.IntN(len(signers))].key
	case 6: // another frame's field
		field = slices.Clone(other.Signature)
	case 7: // another frame's way, cut or filled up
		field = append(field[:burstPathOffset], other.Signature[burstPathOffset:]...)
	}
	c.Signature = field
	return c
}

// Whatever a Verifier remembers, its verdicts are those of Key.Verify, which
// remembers nothing.
func TestRememberedTreesChangeNoVerdict(t *testing.T) {
	signers := testSigners(t, 4)
	r := rand.New(rand.NewPCG(28, 29))
	var pool []Check
	for _, size := range []int{2, 3, 4, 5, 6, 7, 8, 9, 31, 33, 64, 64, 65, 100, 1024} {
		for range 1 + 6/size {
			pool = append(pool, burstOf(t, &signers[r.IntN(len(signers))], size)...)
		}
	}
	verdicts := map[bool]int{}
	for _, v := range burstVerifiers(t, signers) {
		before := v.tables.Stats()
		for range rounds(150) {
			var checks []Check
			at := r.IntN(len(pool))
			for range 1 + r.IntN(batchMax) {
				if at = (at + 1) % len(pool); r.IntN(10) == 0 {
					at = r.IntN(len(pool))
				}
				c := pool[at]
				if r.IntN(6) == 0 {
					c = mutateBurst(r, c, pool, signers)
				}
				checks = append(checks, c)
			}
			v.Verify(checks)
			for i, c := range checks {
				want := c.Key.Verify(c.Signed, c.Signature)
				if verdicts[want]++; c.Good != want {
					t.Fatalf("%v: frame %d of %d: %v, want %v\nsigned %x\nfield %x", v.tables.Path(), i, len(checks), c.Good, want, c.Signed, c.Signature)
				}
			}
		}
		after := v.tables.Stats()
		if heads := after.ByTable + after.ByStdlib - before.ByTable - before.ByStdlib; heads == 0 || after.ByTree-before.ByTree < heads || after.Differences != 0 {
			t.Errorf("%v: of trees %d, of heads %d: nothing is remembered", v.tables.Path(), after.ByTree-before.ByTree, heads)
		}
	}
	if verdicts[true] < rounds(3000) || verdicts[false] < rounds(300) {
		t.Errorf("verdicts %v", verdicts)
	}
}

// The heads of a burst's frames cost one check together, and later ones none.
func TestABurstCostsOneCheck(t *testing.T) {
	signers := testSigners(t, 1)
	for _, v := range burstVerifiers(t, signers) {
		before := v.tables.Stats()
		checks := burstOf(t, &signers[0], 64)
		v.Verify(checks[:40])
		v.Verify(checks[20:])
		for i, c := range checks {
			if !c.Good {
				t.Errorf("%v: frame %d refused", v.tables.Path(), i)
			}
		}
		after := v.tables.Stats()
		if heads, trees := after.ByTable+after.ByStdlib-before.ByTable-before.ByStdlib, after.ByTree-before.ByTree; heads != 1 || trees != 83 {
			t.Errorf("%v: %d heads checked, %d frames by them", v.tables.Path(), heads, trees)
		}
	}
}

func TestABadHeadIsNotRemembered(t *testing.T) {
	signers := testSigners(t, 1)
	for _, v := range burstVerifiers(t, signers) {
		checks := burstOf(t, &signers[0], 8)
		for i := range checks {
			checks[i].Signature[3] ^= 1
		}
		for range 2 {
			v.Verify(checks)
			for i, c := range checks {
				if c.Good {
					t.Errorf("%v: frame %d accepted", v.tables.Path(), i)
				}
			}
			if s := v.trees.find(signers[0].key.ed, checks[0].Signature[:64], 8); s != nil {
				t.Errorf("%v: a bad head is remembered", v.tables.Path())
			}
		}
	}
}

func TestVectorsOfBurstsWithTrees(t *testing.T) {
	vectors := load(t)
	for _, path := range Paths() {
		v := sharedTables(t, path).NewVerifier()
		for _, b := range vectors.Bursts {
			k := key(t, b.Key)
			var checks []Check
			for _, w := range b.Wires {
				signed, sig := split(t, w)
				checks = append(checks, Check{Key: k, Signed: signed, Signature: sig})
			}
			v.Verify(checks)
			for i, c := range checks {
				if !c.Good {
					t.Errorf("%v: burst of %d: frame %d refused", path, len(b.Wires), i)
				}
			}
		}
		k := key(t, vectors.Bursts[0].Key)
		for _, b := range vectors.BadBursts {
			signed, sig := split(t, b.Wire)
			if verifyOne(v, Check{Key: k, Signed: signed, Signature: sig}) {
				t.Errorf("%v: %s: accepted", path, b.Name)
			}
		}
	}
}

// All places of all trees are numbered apart, and where rootFromPath goes.
func TestPositionsOfATreeDiffer(t *testing.T) {
	for size := uint(2); size <= 130; size++ {
		places := map[uint32]place{}
		for leaf := range size {
			p := place{0, leaf, size - 1}
			n := 0
			for p.settle(); p.last > 0; p.settle() {
				for _, at := range []place{p, p.sibling()} {
					if was, ok := places[at.position()]; ok && was != at {
						t.Fatalf("size %d: %v and %v have the same number", size, was, at)
					}
					places[at.position()] = at
				}
				p.rise()
				n++
			}
			if n != pathSteps(leaf, size) {
				t.Fatalf("size %d leaf %d: %d steps, want %d", size, leaf, n, pathSteps(leaf, size))
			}
		}
	}
	if n := pathSteps(0, burstSizeMax); n != pathStepsMax {
		t.Errorf("the longest path has %d steps", n)
	}
}

func TestNumbersOfTreesComeAgain(t *testing.T) {
	signers := testSigners(t, 1)
	v := sharedTables(t, PathPortable).NewVerifier()
	for n, id := range []uint32{^uint32(0) - 1, ^uint32(0)} {
		v.trees.ids, v.trees.base = id, ^uint32(0)-10
		checks := burstOfBytes(t, &signers[0], 9, 8, n)
		v.Verify(checks)
		for i, c := range checks {
			if !c.Good {
				t.Errorf("frame %d refused", i)
			}
		}
	}
	if v.trees.ids != 1 {
		t.Errorf("id %d", v.trees.ids)
	}
}

// What remembers bursts takes what it is given, between its bounds.
func TestTreesKeepToTheirMemory(t *testing.T) {
	for _, c := range []struct{ bytes, nodes int }{
		{0, nodesMin}, {treesBytes(nodesMin), nodesMin}, {treesBytes(2*nodesMin) - 1, nodesMin},
		{treesBytes(2 * nodesMin), 2 * nodesMin}, {treesBytes(nodesMax), nodesMax}, {1 << 30, nodesMax},
	} {
		tables, err := NewTables(TablesConfig{Path: PathStdlib, TreeMemory: c.bytes})
		if err != nil {
			t.Fatal(err)
		}
		v := tables.NewVerifier()
		tables.NewVerifier()
		if n, all := len(v.trees.nodes), tables.Stats().TreeBytes; n != c.nodes || all != 2*treesBytes(c.nodes) || n&(n-1) != 0 || len(v.trees.slots) != n/nodesPerTree {
			t.Errorf("%d bytes: %d nodes and %d trees, want %d; %d bytes for two", c.bytes, n, len(v.trees.slots), c.nodes, all)
		}
	}
}
