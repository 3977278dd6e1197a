package verify

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pin binds the calling thread to a core.
func pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("verify: pinning a worker to core %d: %w (is it among the cores of `taskset -p %d`?)",
			core, os.NewSyscallError("sched_setaffinity", err), os.Getpid())
	}
	return nil
}
