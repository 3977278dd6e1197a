package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// about is on which machine and how a result came about.
type about struct {
	Date, Command, CPU, Kernel, Go, Router string
	Cores                                  string
}

// result of the forwarding benchmark.
type result struct {
	About  about
	Rounds int
	Slice  time.Duration
	Cells  []*cell
	Lone   *lone `json:",omitempty"`
}

func aboutMachine(ctx context.Context, m *machine, command string) about {
	a := about{
		Date: time.Now().UTC().Format(time.DateOnly), Command: command, CPU: cpuModel(), Go: runtime.Version(),
		Cores: fmt.Sprintf("%d cores; under test on core %d, load on core %d", runtime.NumCPU(), m.core, m.loadCore),
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		a.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if version, err := exec.CommandContext(ctx, m.router, "version").Output(); err == nil {
		a.Router = strings.TrimSpace(string(version))
	}
	return a
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	var family, model string
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "cpu family":
			family = value
		case "model":
			model = value
		case "model name":
			return fmt.Sprintf("%s (family %s, model %s)", value, family, model)
		}
	}
	return ""
}

// spread is a median with its quartiles.
type spread struct{ Q1, Median, Q3 float64 }

// spreadOf sorts values.
func spreadOf(values []float64) spread {
	slices.Sort(values)
	return spread{quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75)}
}

// quantile of sorted values, between neighbours by proportion; NaN of none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// counted returns the rounds in which all the samples given count, and whether
// there are any; when there are none, all rounds.
func counted(rounds int, samples ...[]sample) (which []int, ok bool) {
	for i := range rounds {
		if !slices.ContainsFunc(samples, func(s []sample) bool { return s[i].void() }) {
			which = append(which, i)
		}
	}
	if len(which) > 0 {
		return which, true
	}
	for i := range rounds {
		which = append(which, i)
	}
	return which, false
}

// rates of a variant.
func (c *cell) rates(v string) spread {
	s := c.Samples[v]
	rounds, _ := counted(len(s), s)
	var values []float64
	for _, i := range rounds {
		values = append(values, s[i].rate())
	}
	return spreadOf(values)
}

// ratios of a variant to another, round by round; void when in every round one
// of the two was; ok when there are any.
func (c *cell) ratios(v, to string) (s spread, void, ok bool) {
	a, b := c.Samples[v], c.Samples[to]
	if len(b) == 0 || v == to {
		return s, false, false
	}
	rounds, valid := counted(len(a), a, b)
	var values []float64
	for _, i := range rounds {
		if b[i].rate() > 0 {
			values = append(values, a[i].rate()/b[i].rate())
		}
	}
	return spreadOf(values), !valid, len(values) > 0
}

func (c *cell) median(v string, of func(sample) float64) float64 {
	var values []float64
	for _, s := range c.Samples[v] {
		values = append(values, of(s))
	}
	return spreadOf(values).Median
}

// names of variants in reports.
var variantNames = map[string]string{
	variantEcho: "TLS echo", variantForwarder: "goroutine per connection",
	variantNone: "router, verify none", variantAll: "router, verify all",
	variantBursts: "router, verify all, bursts",
	variantNATS:   "nats-server", variantDERP: "DERP server",
}

func (a about) write(w io.Writer) {
	fmt.Fprintf(w, "%s. %s; %s. Linux %s, %s. Router: %s.\n`%s`\n\n", a.Date, a.CPU, a.Cores, a.Kernel, a.Go, a.Router, a.Command)
}

// write prints the result as markdown.
func (r *result) write(w io.Writer) {
	r.About.write(w)
	fmt.Fprintf(w, "%d rounds of %v slices that take turns. Median (quartiles); ratios are of one round. Busy: share of its core that the process under test used. "+
		"Kernel: share of its time in system calls. Load: share of its core that the load used, and that was used at all; a slice with more than %.0f%% of the latter is void. "+
		"Under way: 64 KiB a sender, or 2 MiB if that is more, unless --window says otherwise; with signatures checked %d frames at most. Connections: senders, each with a key of its own, + receivers. "+
		"Bursts: %d frames share a signature, and each is %d bytes longer; elsewhere each has its own.\n\n",
		r.Rounds, r.Slice, 100*voidFrom, verifyMax, burstFrames, burstFrameSize(0)-frameSize(0))
	fmt.Fprintln(w, "| connections | body | variant | messages / CPU-s | to TLS echo | to goroutine per connection | busy | kernel | load | void |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
	for _, c := range r.Cells {
		for _, v := range variants {
			if len(c.Samples[v]) > 0 {
				c.writeRow(w, v)
			}
		}
	}
	for _, c := range r.Cells {
		writeCold(w, fmt.Sprintf("%d+%d, %s", c.Senders, c.Receivers, sizeText(c.Body)), c.Tables, c.Senders)
	}
	if r.Lone != nil {
		r.Lone.write(w)
	}
}

// writeCold says where not all signers had a table.
func writeCold(w io.Writer, where string, tables map[string]int, signers int) {
	for _, v := range variants {
		if n, checked := tables[v]; checked && n < signers {
			fmt.Fprintf(w, "\n%s, %s: only %d of %d signers had a table.\n", where, variantNames[v], n, signers)
		}
	}
}

func (c *cell) writeRow(w io.Writer, v string) {
	rate := c.rates(v)
	fmt.Fprintf(w, "| %d+%d | %s | %s | %s (%s–%s) | %s | %s | %s |\n", c.Senders, c.Receivers, sizeText(c.Body), variantNames[v],
		count(rate.Median), count(rate.Q1), count(rate.Q3), c.ratioText(v, variantEcho), c.ratioText(v, variantForwarder), c.usageText(v))
}

// usageText is the columns on what was busy, and how many rounds do not count.
func (c *cell) usageText(v string) string {
	s := c.Samples[v]
	void := "none"
	n := 0
	for _, one := range s {
		if one.void() {
			n++
		}
	}
	switch {
	case n == len(s):
		void = "all: no valid figure"
	case n > 0:
		void = fmt.Sprintf("%d of %d, left out", n, len(s))
	}
	return fmt.Sprintf("%.0f%% | %.0f%% | %.0f%% of %.0f%% | %s",
		100*c.median(v, func(s sample) float64 { return s.CPU.Seconds() / s.Wall.Seconds() }),
		100*c.median(v, func(s sample) float64 { return float64(s.System) / float64(max(1, s.User+s.System)) }),
		100*c.median(v, func(s sample) float64 { return s.LoadOwn }),
		100*c.median(v, func(s sample) float64 { return s.LoadCore }), void)
}

func (c *cell) ratioText(v, to string) string {
	s, void, ok := c.ratios(v, to)
	switch {
	case !ok:
		return ""
	case void:
		return "void: " + ratio(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", ratio(s.Median), ratio(s.Q1), ratio(s.Q3))
}

// ratio writes a ratio with two places, or more when it is small.
func ratio(v float64) string {
	if v < 0.1 {
		return fmt.Sprintf("%.2g", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func sizeText(n int) string {
	if n >= 1<<10 && n%(1<<10) == 0 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// count writes a number with three digits that matter, in groups.
func count(v float64) string {
	if v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	unit := math.Pow(10, math.Max(0, math.Floor(math.Log10(v))-2))
	digits := fmt.Sprintf("%.0f", math.Round(v/unit)*unit)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// write prints the times of lone frames.
func (l *lone) write(w io.Writer) {
	quantiles := func(v string) (n int, p50, p99 float64) {
		var us []float64
		for _, d := range l.Times[v] {
			us = append(us, float64(d.Nanoseconds())/1e3)
		}
		slices.Sort(us)
		return len(us), quantile(us, 0.5), quantile(us, 0.99)
	}
	verify, stdlib := float64(l.Verify.Nanoseconds())/1e3, float64(l.Stdlib.Nanoseconds())/1e3
	_, echo50, echo99 := quantiles(variantEcho)
	fmt.Fprintf(w, "\nA lone frame, %d bytes of body, one every %v through an idle process, from write to whole arrival. The router has the signer's table; by it one signature check takes %.1f us (V), by crypto/ed25519 %.1f us.\n\n",
		latencyBody, loneEvery, verify, stdlib)
	fmt.Fprintln(w, "| variant | frames | p50 | p99 | p50 to 1.3 × echo + V | p99 to 1.3 × echo + V |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, v := range variants {
		n, p50, p99 := quantiles(v)
		if n == 0 {
			continue
		}
		bound := func(p, echo float64) string {
			if v != variantAll || math.IsNaN(echo) {
				return ""
			}
			return fmt.Sprintf("%.2f", p/(1.3*echo+verify))
		}
		fmt.Fprintf(w, "| %s | %d | %.0f us | %.0f us | %s | %s |\n", variantNames[v], n, p50, p99, bound(p50, echo50), bound(p99, echo99))
	}
	writeCold(w, "Lone frames", l.Tables, 1)
}
