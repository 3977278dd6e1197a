//go:build !linux

package sign

import "testing"

func mapMemory(_ *testing.B, size int) []byte { return make([]byte, size) }
