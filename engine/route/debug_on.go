//go:build debug

package route

// debug has the invariants of a destination checked when its next hop changes.
const debug = true
