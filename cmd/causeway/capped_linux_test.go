package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// residentPeak returns the most that a process has had resident, in bytes
// (proc(5): VmHWM).
func residentPeak(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if c := strings.Fields(line); len(c) == 3 && c[0] == "VmHWM:" {
			kb, err := strconv.ParseInt(c[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmHWM in /proc/PID/status")
}

// soakCores are those that this process may use before it leaves some.
var soakCores = sync.OnceValues(allowedCores)

// startOnFirstCore starts a process; in long forms on the first core alone.
func startOnFirstCore(cmd *exec.Cmd) error {
	if !soaking() {
		return cmd.Start()
	}
	runtime.LockOSThread() // the child has the cores of the thread that starts it
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	cores, err := soakCores()
	if err != nil {
		return err
	}
	if err := setCores(0, cores[0]); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &before))
}

// leaveFirstCore has this process, and those that it starts, in long forms on the
// last core alone, until the test ends. What it returns tells which share of that
// core's time was used since.
func leaveFirstCore(t *testing.T) (busy func() float64) {
	t.Helper()
	if !soaking() {
		return func() float64 { return 0 }
	}
	cores, err := soakCores()
	if err != nil || len(cores) < 2 {
		t.Fatalf("long forms need two cores: %v, %v", cores, err)
	}
	last := cores[len(cores)-1]
	everyThread(t, last)
	t.Cleanup(func() { everyThread(t, cores...) })
	idle, all := coreTimes(t, last)
	return func() float64 {
		idleNow, allNow := coreTimes(t, last)
		return 1 - (idleNow-idle)/max(allNow-all, 1)
	}
}

// everyThread gives all threads of this process the cores, and so those that they
// start.
func everyThread(t *testing.T, cores ...int) {
	t.Helper()
	for range 2 { // one may have been started meanwhile
		files, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			id, err := strconv.Atoi(filepath.Base(file))
			if err != nil {
				t.Fatal(err)
			}
			if err := setCores(id, cores...); err != nil && err != unix.ESRCH { // it has ended
				t.Fatal(err)
			}
		}
	}
}

func setCores(thread int, cores ...int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	return unix.SchedSetaffinity(thread, &set)
}

// coreTimes reads how long a core was idle, and how long there was any time, in
// ticks (proc_stat(5)).
func coreTimes(t *testing.T, core int) (idle, all float64) {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, fmt.Sprintf("cpu%d ", core))
		if !ok {
			continue
		}
		const idleAt, iowaitAt, parts = 3, 4, 8 // user nice system idle iowait irq softirq steal
		for i, field := range strings.Fields(rest)[:parts] {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				t.Fatal(err)
			}
			if all += n; i == idleAt || i == iowaitAt {
				idle += n
			}
		}
		return idle, all
	}
	t.Fatalf("no core %d in /proc/stat", core)
	return 0, 0
}
