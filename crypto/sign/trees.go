package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"unsafe"
)

// trees remembers burst trees and what is known to be in them, so that of a
// burst only the first frame costs a public-key operation, and each frame about
// two hashes. What it says never depends on what it remembers: a frame is good if
// it is good by itself.
//
// A node is proven when hashing led from it to its tree's root, and so are then
// the siblings on that way. A frame whose node is proven needs no hash further up,
// if all steps left are the proven siblings. That is about roots, whoever signed
// them; a signature is remembered with the full public key and the root it is of.
//
// Both memories are bounded and overwrite the oldest, or what falls on the same
// place.
type trees struct {
	leaf  hash.Hash
	sum   [sha256.Size]byte
	slots []tree // as many as the nodes are for, by bursts of 32 leaves; a power of two
	nodes []node // a power of two
	ids   uint32 // of the last tree
	base  uint32 // for the next tree's nodes
}

const (
	nodesMin     = 1 << 13
	nodesMax     = 1 << 15 // a burst of 64 has 127: those of 250 senders at one time
	nodesPerTree = 32
)

// treesBytes returns the memory of trees with so many nodes.
func treesBytes(nodes int) int {
	return nodes*int(unsafe.Sizeof(node{})) + nodes/nodesPerTree*int(unsafe.Sizeof(tree{}))
}

// nodesFor returns the number of nodes, nodesMin to nodesMax, of trees that take at
// most so many bytes, if nodesMin do.
func nodesFor(bytes int) (nodes int) {
	for nodes = nodesMax; nodes > nodesMin && treesBytes(nodes) > bytes; {
		nodes /= 2
	}
	return nodes
}

// tree is a signed tree head.
type tree struct {
	id        uint32 // 0: none
	base      uint32 // of its nodes
	size      uint
	public    [ed25519.PublicKeySize]byte
	signature [ed25519.SignatureSize]byte
	root      [sha256.Size]byte
	good      bool // the signature; else it is not known yet
	job       int  // that will tell, in the batch under way
}

// node is a proven node of the tree with that id.
type node struct {
	tree, position uint32
	sum            [sha256.Size]byte
}

// place says where a node is: above 2^height leaves, the index-th of its height,
// the last one being last. Without a sibling at this height it is the same node as
// the one above it, which stands for it.
type place struct {
	height      uint
	index, last uint
}

func (p *place) rise() {
	p.height++
	p.index >>= 1
	p.last >>= 1
}

// settle goes up to where the node has a sibling, or is the root.
func (p *place) settle() {
	for p.index == p.last && p.index&1 == 0 && p.index != 0 {
		p.rise()
	}
}

// sibling returns the other place below the same node.
func (p place) sibling() place { return place{p.height, p.index ^ 1, p.last} }

// position numbers all places of a tree, from left to right.
func (p place) position() uint32 { return uint32(p.index<<(p.height+1) + 1<<p.height - 1) }

// path is a burst's signature field, taken apart, with the leaf it is for.
type path struct {
	size, index uint
	leaf        [sha256.Size]byte
	steps       []byte
}

// init makes room for so many nodes, and the hash that is used again and again.
func (t *trees) init(nodes int) {
	t.leaf = sha256.New()
	t.nodes, t.slots = make([]node, nodes), make([]tree, nodes/nodesPerTree)
}

// read takes field apart; false if it is malformed.
func (t *trees) read(p *path, signed, field []byte) bool {
	if !p.readField(field) {
		return false
	}
	t.leaf.Reset()
	t.leaf.Write(leafPrefixes[:])
	t.leaf.Write(signed)
	t.leaf.Sum(t.sum[:0])
	p.leaf = t.sum
	return true
}

var leafPrefixes = [1]byte{leafPrefix}

// find returns the tree that signature by public over so many leaves is of; nil
// if it is not remembered.
func (t *trees) find(public, signature []byte, size uint) *tree {
	s := t.slot(signature)
	if s.id == 0 || s.size != size || [ed25519.PublicKeySize]byte(public) != s.public || [ed25519.SignatureSize]byte(signature) != s.signature {
		return nil
	}
	return s
}

func (t *trees) slot(signature []byte) *tree {
	return &t.slots[binary.LittleEndian.Uint64(signature)&uint64(len(t.slots)-1)]
}

// add remembers a tree, whose signature is not known to be good.
func (t *trees) add(public, signature []byte, size uint, root *[sha256.Size]byte) *tree {
	if t.ids++; t.ids == 0 { // all numbers were used
		clear(t.slots)
		clear(t.nodes)
		t.ids = 1
	}
	s := t.slot(signature)
	*s = tree{
		id: t.ids, base: t.base, size: size, root: *root,
		public: [ed25519.PublicKeySize]byte(public), signature: [ed25519.SignatureSize]byte(signature),
	}
	t.base += 2 * uint32(size)
	return s
}

// decided keeps the tree with that id, if it is still there, or forgets it.
func (t *trees) decided(signature []byte, id uint32, good bool) {
	if s := t.slot(signature); s.id == id {
		s.good = good
		if !good {
			s.id = 0
		}
	}
}

func (t *trees) node(s *tree, p place) *node {
	return &t.nodes[(s.base+p.position())&uint32(len(t.nodes)-1)]
}

// has tells whether sum is proven to be s's node at p.
func (t *trees) has(s *tree, p place, sum *[sha256.Size]byte) bool {
	n := t.node(s, p)
	return n.tree == s.id && n.position == p.position() && n.sum == *sum
}

func (t *trees) put(s *tree, p place, sum *[sha256.Size]byte) {
	*t.node(s, p) = node{s.id, p.position(), *sum}
}

// leads tells whether p leads to s's root, and remembers what that proves.
func (t *trees) leads(s *tree, p *path) bool {
	var sums [pathStepsMax]struct {
		at  place
		sum [sha256.Size]byte
	}
	at, sum, steps := place{0, p.index, p.size - 1}, p.leaf, p.steps
	n := 0
	for at.settle(); len(steps) > 0; at.settle() {
		if t.has(s, at, &sum) && t.siblings(s, at, steps) {
			break
		}
		sums[n].at, sums[n].sum = at, sum
		n++
		sum = at.parent(&sum, (*[sha256.Size]byte)(steps))
		steps = steps[sha256.Size:]
		at.rise()
	}
	if len(steps) == 0 && sum != s.root {
		return false
	}
	for i := range n {
		t.put(s, sums[i].at, &sums[i].sum)
		t.put(s, sums[i].at.sibling(), (*[sha256.Size]byte)(p.steps[i*sha256.Size:]))
	}
	return true
}

// siblings tells whether all steps are proven siblings on the way up from at.
func (t *trees) siblings(s *tree, at place, steps []byte) bool {
	for at.settle(); len(steps) > 0; at.settle() {
		if !t.has(s, at.sibling(), (*[sha256.Size]byte)(steps)) {
			return false
		}
		steps = steps[sha256.Size:]
		at.rise()
	}
	return true
}

// parent returns the hash of the node above sum, at p, and its sibling.
func (p place) parent(sum, sibling *[sha256.Size]byte) [sha256.Size]byte {
	if p.index&1 == 1 {
		return nodeHash(sibling, sum)
	}
	return nodeHash(sum, sibling)
}
