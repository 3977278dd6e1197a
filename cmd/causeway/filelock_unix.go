//go:build unix

package main

import (
	"os"
	"syscall"
)

// lockFile waits until this process alone holds f's lock; it ends when f is
// closed.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }
