//go:build !linux

package node

import "time"

// processTime returns 0: the CPU time is not known.
func processTime() time.Duration { return 0 }
