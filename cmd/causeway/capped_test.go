package main

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"causeway/engine/buf"
)

const (
	cappedMemory  = "512MiB"
	cappedBytes   = 512 << 20
	capProcess    = 64 << 20 // what the manual promises beside the cap and connections
	capConnection = 28 << 10
	cappedEvery   = 20 * time.Millisecond // the peak is read so often, since it ends with the process
)

// cappedRouter is a router with --memory 512MiB, whose peak of memory is noted as
// long as it runs. In long forms it is on the first core alone.
type cappedRouter struct {
	*routerProcess
	peak atomic.Int64 // bytes resident
}

// startCapped starts one, as startServe does.
func startCapped(t *testing.T, dir string, args ...string) *cappedRouter {
	t.Helper()
	args = append([]string{"--identity", filepath.Join(dir, "router"), "--trust", filepath.Join(dir, "trust"),
		"--listen", "dbw://127.0.0.1:0", "--memory", cappedMemory}, args...)
	r := &cappedRouter{routerProcess: startServeAt(t, startOnFirstCore, args)}
	r.look()
	go func() {
		for r.look() {
			time.Sleep(cappedEvery)
		}
	}()
	return r
}

// look notes the peak; false when the process has ended.
func (r *cappedRouter) look() bool {
	peak, err := residentPeak(r.cmd.Process.Pid)
	if err == nil {
		r.peak.Store(peak)
	}
	return err == nil
}

// withinCap checks the peak, with so many connections at most, and reports it.
func withinCap(t *testing.T, connections int, routers ...*cappedRouter) soakRow {
	t.Helper()
	most := int64(cappedBytes + connections*capConnection + capProcess)
	peak := int64(0)
	for _, r := range routers {
		one := r.peak.Load()
		if one == 0 {
			t.Error("a router's memory was never seen")
		}
		if one > most && !raceEnabled && !buf.Debug {
			t.Errorf("a router has had %d bytes, %d too many", one, one-most)
		}
		peak = max(peak, one)
	}
	return soakRow{fmt.Sprintf("RSS stays below 512 MiB + %d connections × 28 KiB + 64 MiB", connections),
		fmt.Sprintf("%.1f MiB of %.1f MiB", float64(peak)/(1<<20), float64(most)/(1<<20))}
}
