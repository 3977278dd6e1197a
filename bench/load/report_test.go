package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestQuartiles(t *testing.T) {
	check := func(want string, values ...float64) {
		t.Helper()
		if got := fmt.Sprint(spreadOf(values)); got != want {
			t.Errorf("%v: %s, want %s", values, got, want)
		}
	}
	check("{NaN NaN NaN}")
	check("{7 7 7}", 7)
	check("{1.25 1.5 1.75}", 2, 1)
	check("{2 3 4}", 5, 1, 4, 2, 3)
}

func TestCountsHaveThreeDigits(t *testing.T) {
	check := func(v float64, want string) {
		t.Helper()
		if got := count(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	check(0, "–")
	check(7, "7")
	check(999, "999")
	check(1234, "1,230")
	check(34_567, "34,600")
	check(999_999, "1,000,000")
	check(3_987_654, "3,990,000")
}

// testCell has three rounds; in the second the load's core was too busy with
// the router.
func testCell(voids ...int) *cell {
	c := &cell{Senders: 8, Receivers: 8, Body: 1024, Samples: map[string][]sample{}}
	for i, frames := range []float64{1000, 9000, 2000} {
		for _, v := range []string{variantEcho, variantNone} {
			s := sample{Frames: frames, usage: usage{CPU: time.Second, Wall: time.Second, LoadCore: 0.5}}
			if v == variantNone {
				s.CPU *= 2
				for _, void := range voids {
					if void == i {
						s.LoadCore = 0.95
					}
				}
			}
			c.Samples[v] = append(c.Samples[v], s)
		}
	}
	return c
}

func TestVoidSlicesDoNotCount(t *testing.T) {
	check := func(c *cell, rate, ratio, void string) {
		t.Helper()
		var b strings.Builder
		c.writeRow(&b, variantNone)
		for _, want := range []string{rate, ratio, void} {
			if !strings.Contains(b.String(), "| "+want+" |") {
				t.Errorf("no %q in %s", want, &b)
			}
		}
	}
	check(testCell(), "1,000 (750–2,750)", "0.50 (0.50–0.50)", "none")
	check(testCell(1), "750 (625–875)", "0.50 (0.50–0.50)", "1 of 3, left out")
	check(testCell(0, 1, 2), "1,000 (750–2,750)", "void: 0.50", "all: no valid figure")
}

// Whatever CPU time a process has used, both sources say the same of it.
func TestCPUTimeIsThatOfProcStat(t *testing.T) {
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
	}
	const tick, slack = 10 * time.Millisecond, 10
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	split, err := cpuTicks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := time.Duration(split.user+split.system) * tick
	if before < 50*time.Millisecond || sum < before-2*tick || sum > after+2*tick {
		t.Errorf("/proc/self/stat says %v, the clock %v to %v", sum, before, after)
	}
}

func TestAProcessThatIsGoneHasNoClock(t *testing.T) {
	const nobody = 1 << 22 // above the kernel's largest PID
	if d, err := cpuTime(nobody); err == nil {
		t.Errorf("%v", d)
	}
	if _, _, err := coreTicks(1 << 20); err == nil {
		t.Error("a core that does not exist")
	}
}
