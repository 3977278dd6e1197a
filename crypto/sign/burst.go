package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// The burst signature field (PROTOCOL.md section 2):
//
//	offset  0: Ed25519 signature of the tree head, 64
//	offset 64: tree size, u16
//	offset 66: leaf index, u16
//	offset 68: inclusion path, 32 a step
const (
	burstSizeOffset  = ed25519.SignatureSize
	burstIndexOffset = burstSizeOffset + 2
	burstPathOffset  = burstIndexOffset + 2

	burstSizeMin = 2
	burstSizeMax = 1024

	// pathStepsMax is the longest inclusion path, that of the largest tree.
	pathStepsMax = 10

	burstContext = "causeway burst signature 1\x00"
	burstHeadLen = len(burstContext) + 2 + sha256.Size

	leafPrefix = 0x00 // RFC 9162 section 2.1.1
	nodePrefix = 0x01
)

// verifyBurst checks one frame's burst signature by itself.
func (k *Key) verifyBurst(signed, field []byte) bool {
	size, root, ok := burstRoot(signed, field)
	if !ok {
		return false
	}
	var head [burstHeadLen]byte
	return ed25519.Verify(k.ed, appendHead(head[:0], size, &root), field[:ed25519.SignatureSize])
}

// burstRoot returns the size and root of the tree that field leads to from
// signed; false if field is malformed.
func burstRoot(signed, field []byte) (size uint, root [sha256.Size]byte, ok bool) {
	var p path
	if !p.readField(field) {
		return 0, root, false
	}
	return p.size, rootFromPath(leafHash(signed), p.index, p.size, p.steps), true
}

// readField takes field apart; false if it is malformed.
func (p *path) readField(field []byte) bool {
	if len(field) < burstPathOffset {
		return false
	}
	p.size = uint(binary.BigEndian.Uint16(field[burstSizeOffset:]))
	p.index = uint(binary.BigEndian.Uint16(field[burstIndexOffset:]))
	p.steps = field[burstPathOffset:]
	return p.size >= burstSizeMin && p.size <= burstSizeMax && p.index < p.size &&
		len(p.steps) == sha256.Size*pathSteps(p.index, p.size)
}

// pathSteps returns how many steps the inclusion path of RFC 9162 section
// 2.1.3 has for the leaf at index in a tree of size leaves: on the levels where
// the leaf's node still has a right neighbour inside the tree every level
// counts, above them only those where the node is a right child.
func pathSteps(index, size uint) int {
	inner := bits.Len(index ^ (size - 1))
	return inner + bits.OnesCount(index>>inner)
}

// rootFromPath computes the root that path leads to from leaf (RFC 9162
// section 2.1.3.2). path has pathSteps(index, size) steps.
func rootFromPath(leaf [sha256.Size]byte, index, size uint, path []byte) [sha256.Size]byte {
	node, last := leaf, size-1
	for len(path) > 0 {
		var step [sha256.Size]byte
		copy(step[:], path)
		if index&1 == 1 || index == last {
			node = nodeHash(&step, &node)
			for index&1 == 0 && index != 0 {
				index, last = index>>1, last>>1
			}
		} else {
			node = nodeHash(&node, &step)
		}
		index, last = index>>1, last>>1
		path = path[sha256.Size:]
	}
	return node
}

// leafHash is SHA-256(0x00 | signed), without copying signed.
func leafHash(signed []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte{leafPrefix})
	h.Write(signed)
	h.Sum(sum[:0])
	return sum
}

// nodeHash is SHA-256(0x01 | left | right).
func nodeHash(left, right *[sha256.Size]byte) [sha256.Size]byte {
	var b [1 + 2*sha256.Size]byte
	b[0] = nodePrefix
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// appendHead appends what the Ed25519 signature of a burst is over.
func appendHead(dst []byte, size uint, root *[sha256.Size]byte) []byte {
	dst = append(dst, burstContext...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(size))
	return append(dst, root[:]...)
}
