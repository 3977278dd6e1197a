//go:build !race

package sign

// rounds is n.
func rounds(n int) int { return n }

const raceDetector = false
