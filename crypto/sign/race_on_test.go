//go:build race

package sign

// rounds is a tenth of n: the race detector makes arithmetic ten times as slow.
func rounds(n int) int { return n / 10 }

const raceDetector = true
