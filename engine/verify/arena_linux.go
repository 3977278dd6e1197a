package verify

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// newArena maps n bytes outside the Go heap, in huge pages where the kernel has
// them: tables are read at random, and small pages would cost as much again for
// their translation. Memory is used only as it is written.
func newArena(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("verify: map %d bytes for verification tables: %w", n, err)
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a kernel without them does as well, slower
	return b, nil
}

// freeArena gives back what newArena returned.
func freeArena(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic("verify: munmap of what mmap returned: " + err.Error())
	}
}
