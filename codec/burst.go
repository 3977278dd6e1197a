package codec

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// The signature field of a frame signed in a burst (PROTOCOL.md section 2).
//
//	 0                 64     66     68
//	+-----------------+------+------+----------------+
//	| root signature  | size | index| path, 32 a step|
//	+-----------------+------+------+----------------+
const (
	burstSizeAt  = BurstRootSignatureSize
	burstIndexAt = burstSizeAt + 2
	burstPathAt  = burstIndexAt + 2

	// BurstRootSignatureSize is the size of an Ed25519 signature in bytes.
	BurstRootSignatureSize = 64
	// BurstPathOffset is where the inclusion path begins, in bytes.
	BurstPathOffset = burstPathAt
	// BurstStepSize is the size of one step of an inclusion path in bytes.
	BurstStepSize = 32
	// BurstSizeMin and BurstSizeMax bound the frames under one signature.
	BurstSizeMin = 2
	BurstSizeMax = 1024
	// BurstPathMax is the longest inclusion path, in steps.
	BurstPathMax = 10
)

// Compile-time: the largest tree's paths have BurstPathMax steps, and fit a
// frame's signature field.
var (
	_ [0]struct{} = [1<<BurstPathMax - BurstSizeMax]struct{}{}
	_ [SignatureMax - burstPathAt - BurstPathMax*BurstStepSize]struct{}
)

// Burst fields that break section 2. They are bad signatures, which drop one
// frame, and not malformed input.
var (
	ErrBurstLength = errors.New("codec: burst signature of the wrong length for its size and index")
	ErrBurstSize   = errors.New("codec: burst size outside 2..1024")
	ErrBurstIndex  = errors.New("codec: burst index not below its size")
)

// Burst is the signature field of a frame signed in a burst, taken apart.
type Burst struct {
	RootSignature []byte // 64 bytes, over the tree's size and root
	Size          uint16 // leaves of the tree
	Index         uint16 // this frame's leaf, from 0
	Path          []byte // 32 bytes a step, from the leaf's sibling upwards
}

// Decode sets b from a signature field. RootSignature and Path alias sig. A
// field is a burst's when it is longer than a plain signature; anything that
// is not exactly one is refused with a sentinel, and b is unchanged. It
// allocates nothing.
func (b *Burst) Decode(sig []byte) error {
	if len(sig) < burstPathAt {
		return ErrBurstLength
	}
	size := binary.BigEndian.Uint16(sig[burstSizeAt:burstIndexAt])
	index := binary.BigEndian.Uint16(sig[burstIndexAt:burstPathAt])
	if size < BurstSizeMin || size > BurstSizeMax {
		return ErrBurstSize
	}
	if index >= size {
		return ErrBurstIndex
	}
	if len(sig) != burstPathAt+BurstPathLength(size, index)*BurstStepSize {
		return ErrBurstLength
	}
	b.RootSignature = sig[:burstSizeAt:burstSizeAt]
	b.Size = size
	b.Index = index
	b.Path = sig[burstPathAt:]
	return nil
}

// BurstPathLength returns how many steps the inclusion path of RFC 9162
// section 2.1.3 has for leaf index of a tree with size leaves; index must be
// below size.
//
// Where the way to the root of this leaf and that of the last leaf differ,
// each level has a sibling; from where they have met, only the levels in which
// the leaf's side is the right one have.
func BurstPathLength(size, index uint16) int {
	apart := bits.Len16(index ^ (size - 1))
	return apart + bits.OnesCount16(index>>apart)
}
