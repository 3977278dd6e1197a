package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	slashed "path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"causeway/engine"
	"causeway/engine/admin"
)

const (
	// memoryPart is the part of this machine's memory that --memory is by default.
	memoryPart = 4

	// What the process may take beside --memory, for the garbage collector to keep
	// to: for each connection, and once. The program's own text, which the
	// collector does not know of, is about 15 MB; the manual promises 64 MiB.
	connectionBytes = 28 << 10
	processBytes    = 40 << 20

	// The collector's limit is looked at so often, and set when it should differ
	// by more than limitStep bytes, since setting it stops the world for a moment.
	limitEvery = time.Second
	limitStep  = 4 << 20
)

// memory completes --memory and what depends on it.
func (f *serveFlags) setMemory(queueHighGiven bool) error {
	c := &f.engine
	least := engine.MemoryLeast(uint32(f.bodyMax))
	machine := machineMemory(os.DirFS("/"))
	if f.memory == 0 {
		f.memory = memoryFlag(max(machine/memoryPart, least))
	}
	if int64(f.memory) < least {
		return usageError{fmt.Errorf("--memory %v: too little for frames with bodies of --max-body %v; give at least %v", f.memory, f.bodyMax, memoryFlag(least))}
	}
	if machine > 0 && int64(f.memory) > machine {
		c.Logger.Warn("--memory is more than there is", "memory", f.memory.String(), "machine_bytes", machine)
	}
	most := sizeFlag(min(int64(f.memory)/engine.QueueHighPart, math.MaxInt32))
	if f.high > most {
		if queueHighGiven {
			return usageError{fmt.Errorf("--queue-high %v: at most a %dth of --memory, which is %v: senders are to be paused before memory is short", f.high, engine.QueueHighPart, most)}
		}
		f.high = most
	}
	c.Memory = int64(f.memory)
	return nil
}

// machineMemory returns how much memory this process can have, in bytes: that of
// the machine, or of the control group that it is in; 0 when it can't be seen.
// fsys is the root of the file system.
func machineMemory(fsys fs.FS) int64 {
	least := int64(math.MaxInt64)
	if text, err := fs.ReadFile(fsys, "proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if c := strings.Fields(line); len(c) == 3 && c[0] == "MemTotal:" {
				if kb, err := strconv.ParseInt(c[1], 10, 64); err == nil {
					least = kb << 10
				}
			}
		}
	}
	groups, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if err != nil {
		groups = nil
	}
	for line := range strings.Lines(string(groups)) { // hierarchy:controllers:path (cgroups(7))
		c := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(c) != 3 {
			continue
		}
		switch {
		case c[1] == "": // version 2
			least = min(least, groupLimit(fsys, "sys/fs/cgroup", c[2], "memory.max"))
		case strings.Contains(","+c[1]+",", ",memory,"):
			least = min(least, groupLimit(fsys, "sys/fs/cgroup/memory", c[2], "memory.limit_in_bytes"))
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// groupLimit returns the least limit of the group and those that it is in. In a
// container the group's path may be the host's, and only the mount's root be seen.
func groupLimit(fsys fs.FS, mount, group, file string) int64 {
	least := int64(math.MaxInt64)
	for dir := slashed.Clean("/" + group); ; dir = slashed.Dir(dir) {
		text, err := fs.ReadFile(fsys, slashed.Join(mount, dir, file))
		if err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // else it is "max"
				least = min(least, n)
			}
		}
		if dir == "/" {
			return least
		}
	}
}

// collectorLimit keeps the Go runtime within what --memory promises: garbage and
// memory that is kept for reuse go back to the system instead of doubling it.
type collectorLimit struct {
	router *engine.Router
	set    int64
}

// keepMemory keeps the runtime's limit up to date until the function that it
// returns is called. An operator's GOMEMLIMIT stays.
func keepMemory(router *engine.Router, log *slog.Logger) (end func()) {
	if text, given := os.LookupEnv("GOMEMLIMIT"); given && text != "" {
		if now := debug.SetMemoryLimit(-1); now < router.MemoryLimit()+processBytes {
			log.Warn("GOMEMLIMIT is less than --memory needs; the garbage collector may take much of the CPU",
				"GOMEMLIMIT", text, "needed_bytes", router.MemoryLimit()+processBytes)
		}
		return func() {}
	}
	l := &collectorLimit{router: router}
	l.look()
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		every := time.NewTicker(limitEvery)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				l.look()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// look sets the limit for the connections that there are now.
func (l *collectorLimit) look() {
	want := l.router.MemoryLimit() + processBytes + int64(l.router.Connections())*connectionBytes
	if diff := want - l.set; diff > limitStep || diff < -limitStep {
		debug.SetMemoryLimit(want)
		l.set = want
	}
}

// addMemoryMetrics adds what the operating system sees of the process.
func addMemoryMetrics(m *admin.Metrics, router *engine.Router) {
	m.Add(admin.Family{
		Name: "causeway_resident_bytes_per_connection",
		Help: "Resident memory of the process, divided by the open connections; all of it when there are none.",
		Read: func() []admin.Sample {
			n, err := residentBytes(os.DirFS("/"))
			if err != nil {
				return nil
			}
			return []admin.Sample{{Value: float64(n) / float64(max(1, router.Connections()))}}
		},
	})
}

var errStatm = errors.New("/proc/self/statm: not as proc(5) says")

// residentBytes returns the resident memory of this process.
func residentBytes(fsys fs.FS) (int64, error) {
	text, err := fs.ReadFile(fsys, "proc/self/statm")
	if err != nil {
		return 0, err
	}
	if c := strings.Fields(string(text)); len(c) > 1 { // pages: size resident …
		if pages, err := strconv.ParseInt(c[1], 10, 64); err == nil {
			return pages * int64(os.Getpagesize()), nil
		}
	}
	return 0, errStatm
}
