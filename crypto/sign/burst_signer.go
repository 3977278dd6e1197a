package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

// Bursts reports whether s can sign bursts: its key is Ed25519.
func (s *Signer) Bursts() bool { return s.algorithm == Ed25519 }

// Burst signs 2 to 1,024 frames together: Add each, Sign once, then AppendField
// for each. Which frames may be signed together the caller knows (PROTOCOL.md
// section 2).
//
// The zero value is empty, and Reset makes it so again. It keeps its memory, 64
// bytes a frame, and allocates nothing but what crypto/ed25519 does. It is not
// safe for concurrent use.
//
// The tree's levels stand one after the other. Of an odd number of nodes the last
// one is the last of the level above too, which is how RFC 9162 section 2.1
// splits:
//
//	a b c d e | ab cd e | abcd e | root
type Burst struct {
	leaf      hash.Hash
	nodes     [][sha256.Size]byte
	size      uint // leaves, until Sign the only nodes
	head      []byte
	signature []byte // of head; empty until Sign
}

// Reset forgets all frames.
func (b *Burst) Reset() { b.nodes, b.size, b.signature = b.nodes[:0], 0, b.signature[:0] }

// Len returns how many frames were added.
func (b *Burst) Len() int { return int(b.size) }

// Add adds a frame by its signed bytes, borrowed. The first one has index 0.
func (b *Burst) Add(signed []byte) {
	if b.size == burstSizeMax || len(b.signature) > 0 {
		panic(fmt.Sprintf("sign: a burst takes %d frames, and none after Sign: it has %d", burstSizeMax, b.size))
	}
	if b.leaf == nil {
		b.leaf = sha256.New()
	}
	b.leaf.Reset()
	b.leaf.Write(leafPrefixes[:])
	b.leaf.Write(signed)
	b.nodes = append(b.nodes[:b.size], [sha256.Size]byte{})
	b.leaf.Sum(b.nodes[b.size][:0])
	b.size++
}

// Sign signs all that was added, with an Ed25519 key. After an error of the key
// it may be called again.
func (b *Burst) Sign(s *Signer) (err error) {
	if b.size < burstSizeMin || !s.Bursts() {
		panic(fmt.Sprintf("sign: a burst is of at least %d frames and signed by Ed25519: %d, %v", burstSizeMin, b.size, s.algorithm))
	}
	b.nodes = b.nodes[:b.size]
	for from, width := uint(0), b.size; width > 1; from, width = from+width, (width+1)/2 {
		for i := from; i+1 < from+width; i += 2 {
			b.nodes = append(b.nodes, nodeHash(&b.nodes[i], &b.nodes[i+1]))
		}
		if width%2 == 1 {
			b.nodes = append(b.nodes, b.nodes[from+width-1])
		}
	}
	b.head = appendHead(b.head[:0], b.size, &b.nodes[len(b.nodes)-1])
	b.signature, err = s.Sign(b.signature[:0], b.head)
	return err
}

// AppendField appends the signature field of the frame with that index.
func (b *Burst) AppendField(dst []byte, index int) []byte {
	if len(b.signature) != ed25519.SignatureSize || uint(index) >= b.size {
		panic(fmt.Sprintf("sign: field %d of a burst of %d with a signature of %d bytes", index, b.size, len(b.signature)))
	}
	dst = append(dst, b.signature...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(b.size))
	dst = binary.BigEndian.AppendUint16(dst, uint16(index))
	level, i := b.nodes, uint(index)
	for width := b.size; width > 1; width = (width + 1) / 2 {
		if sibling := i ^ 1; sibling < width {
			dst = append(dst, level[sibling][:]...)
		}
		level, i = level[width:], i/2
	}
	return dst
}
