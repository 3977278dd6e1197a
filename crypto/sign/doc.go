// Package sign makes and checks the signature field of frames: Ed25519,
// ECDSA P-256, and burst signatures over Merkle trees (PROTOCOL.md section 2).
//
// It is pure. A Key is prepared once per public key and shared by all who
// verify; per-signer precomputation belongs behind Key, so callers need not
// change when it comes.
package sign
