//go:build debug

package engine

// debug has invariants checked as frames pass.
const debug = true
