//go:build !unix

package main

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock two processes could spoil an authority.
func lockFile(*os.File) error { return errors.ErrUnsupported }
