//go:build !linux

package sign

import (
	"testing"
	"time"
)

var started = time.Now()

func mapMemory(_ *testing.B, size int) []byte { return make([]byte, size) }

func threadTime() time.Duration { return time.Since(started) }
