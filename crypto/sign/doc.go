// Package sign makes and checks the signature field of frames: Ed25519,
// ECDSA P-256, and burst signatures over Merkle trees (PROTOCOL.md section 2).
//
// It is pure. A Key is prepared once per public key and shared by all who
// verify. Key.Verify checks one signature with the standard library; a Verifier
// checks many, by means of Tables of signers' multiples, with the same verdicts.
//
// Nothing here maps memory, starts goroutines or reads a clock: who makes Tables
// gives them their memory, runs one builder on Tables.Wanted, and a Verifier for each
// worker.
//
//	verifier.go     the stages of a batch
//	tables.go       who has a table, and for how long; stats.go what was done
//	trees.go        what is remembered of bursts; burst.go how they are made up,
//	                burst_signer.go their making
//	comb.go         what is in a table; scalars as steps through it
//	portable.go     the sum of a signature's steps; mulx_amd64.go the same, by assembly
//	lanes_amd64.go  eight signatures at once, hash_amd64.go their SHA-512; the assembly in
//	                avx2_amd64.go (four and four), fma_amd64.go and ifma_amd64.go
//	gen             the program that writes the assembly
//	point.go        the curve
//	scalar.go       integers modulo its order
//	field.go        the field; invert.go its inversion
//	path.go         which of the ways to do all that
package sign
