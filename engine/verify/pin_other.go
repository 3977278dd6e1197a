//go:build !linux

package verify

import "errors"

// pin returns an error: no thread can be bound to a core here.
func pin(int) error { return errors.New("verify: workers can be pinned on Linux only") }
