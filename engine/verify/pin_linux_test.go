package verify

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"causeway/crypto/sign"
)

// threadsOn returns how many threads of this process may run on that core alone.
func threadsOn(t *testing.T, core int) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok && strings.TrimSpace(list) == strconv.Itoa(core) {
				n++
			}
		}
	}
	return n
}

func TestWorkersArePinnedInTurn(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	var cores []int
	for core := 0; len(cores) < allowed.Count(); core++ {
		if allowed.IsSet(core) {
			cores = append(cores, core)
		}
	}
	if len(cores) < 2 {
		t.Fatal("this test needs two cores: on one every thread is pinned")
	}
	p := newPool(t, Config{Workers: 3, CPUs: cores[:2], Path: sign.PathStdlib})
	if first, second := threadsOn(t, cores[0]), threadsOn(t, cores[1]); first != 2 || second != 1 {
		t.Errorf("%d workers on core %d, %d on core %d", first, cores[0], second, cores[1])
	}
	p.Close()
	const nowhere = 1023
	p, err := NewPool(Config{Workers: 2, CPUs: []int{cores[0], nowhere}, Path: sign.PathStdlib})
	if p != nil || !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "core "+strconv.Itoa(nowhere)) {
		t.Errorf("a core that is not there: %v", err)
	}
}
