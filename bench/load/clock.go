package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns utime + stime of all threads of a process, dead ones too: the
// sum of /proc/PID/stat, which has ticks of 10 ms, as finely as the kernel
// knows it.
func cpuTime(pid int) (time.Duration, error) {
	const perProcessSum = 2 // CPUCLOCK_SCHED of the clock that names a process
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|perProcessSum), &t); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// ticks are a process's utime and stime, in ticks.
type ticks struct{ user, system uint64 }

// cpuTicks reads utime and stime of /proc/PID/stat.
func cpuTicks(pid int) (t ticks, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return t, err
	}
	// The second field is the name in brackets, with any byte in it; utime and
	// stime are the 14th and 15th.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const utimeAt = 14 - 3
	if len(fields) < utimeAt+2 {
		return t, errors.New("/proc/PID/stat has too few fields")
	}
	if t.user, err = strconv.ParseUint(fields[utimeAt], 10, 64); err != nil {
		return t, err
	}
	t.system, err = strconv.ParseUint(fields[utimeAt+1], 10, 64)
	return t, err
}

// coreTicks returns a core's ticks since the start: all, and those idle.
func coreTicks(core int) (all, idle uint64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	name := fmt.Sprintf("cpu%d ", core)
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		// user nice system idle iowait irq softirq steal; what follows is in these
		const idleAt, iowaitAt, parts = 3, 4, 8
		for i, field := range strings.Fields(rest) {
			if i >= parts {
				break
			}
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				return 0, 0, err
			}
			all += n
			if i == idleAt || i == iowaitAt {
				idle += n
			}
		}
		return all, idle, nil
	}
	return 0, 0, fmt.Errorf("/proc/stat has no core %d", core)
}

// reading is all clocks at one moment.
type reading struct {
	at        time.Time
	cpu       []time.Duration // of each process under test
	own       time.Duration   // of this process
	split     ticks           // of all processes under test
	all, idle uint64          // of the load's core
}

func readClocks(under []int, loadCore int) (r reading, err error) {
	if r.all, r.idle, err = coreTicks(loadCore); err != nil {
		return r, err
	}
	for _, pid := range under {
		t, err := cpuTicks(pid)
		if err != nil {
			return r, err
		}
		r.split.user += t.user
		r.split.system += t.system
	}
	if r.own, err = cpuTime(os.Getpid()); err != nil {
		return r, err
	}
	for _, pid := range under {
		t, err := cpuTime(pid)
		if err != nil {
			return r, err
		}
		r.cpu = append(r.cpu, t)
	}
	r.at = time.Now()
	return r, nil
}

// usage is what happened between two readings.
type usage struct {
	Wall, CPU    time.Duration   // CPU: of all processes under test
	Each         []time.Duration // of it, by process
	User, System uint64          // ticks of it
	LoadOwn      float64         // share of a core that the load used
	LoadCore     float64         // share of time in which the load's core was busy
}

func (r reading) since(before reading) usage {
	u := usage{
		Wall: r.at.Sub(before.at),
		User: r.split.user - before.split.user, System: r.split.system - before.split.system,
	}
	for i, cpu := range r.cpu {
		u.Each = append(u.Each, cpu-before.cpu[i])
		u.CPU += u.Each[i]
	}
	u.LoadOwn = (r.own - before.own).Seconds() / u.Wall.Seconds()
	if all := r.all - before.all; all > 0 && r.all > before.all {
		u.LoadCore = 1 - float64(r.idle-before.idle)/float64(all)
	}
	return u
}
