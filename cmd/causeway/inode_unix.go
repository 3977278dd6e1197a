//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// inode returns the number of the file itself, which another file in its place
// does not have.
func inode(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Ino)
	}
	return 0
}
