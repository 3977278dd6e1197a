package sign

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mapMemory returns memory outside the heap, in huge pages where there are some.
func mapMemory(b *testing.B, size int) []byte {
	b.Helper()
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		b.Fatal(err)
	}
	_ = unix.Madvise(m, unix.MADV_HUGEPAGE) // advice
	b.Cleanup(func() {
		if err := unix.Munmap(m); err != nil {
			b.Error(err)
		}
	})
	return m
}

// threadTime is the CPU time of the thread: others on the machine take less part
// in it than in the time of day.
func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}
