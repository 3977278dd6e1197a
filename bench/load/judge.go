package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	memoryCap     = 512 << 20 // bytes
	memoryPerConn = 28 << 10
	memorySlack   = 64 << 20

	stallEarly = time.Second // by which the router's count of a stall may begin before ours
	stallTLS   = 150 << 10   // bytes in TLS records that are not yet the kernel's

	// What each of many senders to one recipient may make the router grow by,
	// bytes: 64 KiB, in buffers of up to twice a frame's size, which the garbage
	// collector lets become twice as much.
	stallPerSender = 2 * 2 * 64 << 10
)

// outcome is what a scenario has shown.
type outcome struct {
	Name, Title       string
	Serve             []string
	Rate              float64   // of legitimate traffic, frames a second
	Share             float64   // of what its nodes and the router sustain
	Before            []openTry // earlier tries
	Void              string    // why it says nothing about rates and times
	LoadBusy          bool      // that is why
	Failed            string    // why it did not come to its end
	Reference, Attack *facts
	Counters          string
	Verdicts          []verdict

	limits limits
}

// verdict is whether one bound was kept.
type verdict struct {
	Bound, Found string
	Kept         bool
	Timed        bool // the bound is one of rates or times, which a void round tells nothing about
}

// broken tells whether a bound was: one of rates and times, or another.
func (o *outcome) broken(timed bool) bool {
	return slices.ContainsFunc(o.Verdicts, func(v verdict) bool { return !v.Kept && v.Timed == timed })
}

// kept tells whether all bounds were. Where they are strict a void outcome is
// none; where they are loose it shows all but rates and times.
func (o *outcome) kept() bool {
	if o.Failed != "" || o.broken(false) {
		return false
	}
	if o.Void != "" {
		return o.limits.loose
	}
	return !o.broken(true)
}

// open tells whether another try may show more: strict bounds need rounds that were
// not void. Loose ones are kept or broken, but by what else ran on the load's core,
// too, of which no round knows: what the router does wrong breaks them in each try.
func (o *outcome) open() bool {
	if o.limits.loose {
		return o.broken(true) && (o.Void != "" || !o.broken(false))
	}
	return o.Void != ""
}

// verdict notes one.
func (st *stage) verdict(kept bool, bound, found string, args ...any) {
	st.out.Verdicts = append(st.out.Verdicts, verdict{Bound: bound, Found: fmt.Sprintf(found, args...), Kept: kept})
}

// timed notes one on a rate or a time.
func (st *stage) timed(kept bool, bound, found string, args ...any) {
	st.out.Verdicts = append(st.out.Verdicts, verdict{Bound: bound, Found: fmt.Sprintf(found, args...), Kept: kept, Timed: true})
}

// judgeShared judges what holds in all scenarios.
func (st *stage) judgeShared() {
	o, r, a := st.out, st.out.Reference, st.out.Attack
	st.judgeVoid(r, a)
	share := a.perSecond() / r.perSecond()
	st.timed(share >= o.limits.rate, fmt.Sprintf("legitimate traffic keeps at least %.0f%% of its rate", 100*o.limits.rate), "%.1f%%", 100*share)
	most := a.Newcomers.most()
	st.timed(a.Newcomers.Failed == 0 && len(a.Newcomers.Took) > 0 && most <= o.limits.newcomer, fmt.Sprintf("a new node connects within %v", o.limits.newcomer),
		"%d did, the slowest took %v; %d did not%s", len(a.Newcomers.Took), rounded(most), a.Newcomers.Failed, after(": ", a.Newcomers.Last))
	st.verdict(true, "every legitimate frame arrives, in order", "so it was, the last %v after the end", rounded(a.Late)) // else the load fails
}

// judgeVoid notes why one of the rounds tells nothing about rates and times, if
// that is so.
func (st *stage) judgeVoid(rounds ...*facts) {
	for _, f := range rounds {
		if st.out.Void == "" {
			st.out.Void, st.out.LoadBusy = f.void(), f.loadBusy()
		}
	}
}

// judgeSlower judges the times of legitimate frames.
func (st *stage) judgeSlower() {
	l, r, a := &st.out.limits, st.out.Reference, st.out.Attack
	bound := max(time.Duration(l.slower*float64(r.P99)), l.slack)
	st.timed(a.P99 <= bound, fmt.Sprintf("its p99 grows at most %.0f-fold, or to %v if that is more", l.slower, l.slack), "%v, %.2f-fold", rounded(a.P99), a.P99.Seconds()/r.P99.Seconds())
}

// judgeMemoryCap judges the most memory that the router has had from its start on.
func (st *stage) judgeMemoryCap() error {
	peak, err := residentPeak(st.router.pid())
	if err != nil {
		return err
	}
	n := st.out.Attack.Connections
	bound := memoryCap + n*memoryPerConn + memorySlack
	st.verdict(peak <= bound, fmt.Sprintf("RSS stays below 512 MiB + %.0f connections × 28 KiB + 64 MiB", n), "%s of %s", mib(peak), mib(bound))
	return nil
}

// judgeGrowth judges what a recipient that stalls has made the router grow by.
func (st *stage) judgeGrowth() {
	a, s := st.out.Attack, st.form.stall
	bound, text := st.form.growth, "RSS grows by at most "+mib(st.form.growth)
	if s.Senders > 1 {
		bound += float64(s.Senders * stallPerSender)
		text += fmt.Sprintf(" + %d senders × 256 KiB", s.Senders)
	}
	grown := a.RSSMost - a.RSSStart
	st.verdict(grown <= bound, text, "%s", mib(grown))
}

// judgeFelt judges that the attack took place.
func (st *stage) judgeFelt(before, during metrics) {
	f := st.form
	n := f.felt.since(before, during)
	st.verdict(n >= f.feltLeast, fmt.Sprintf("the attack is felt: %.0f and more %s", f.feltLeast, f.felt.what), "%.0f", n)
}

// judgeDrops judges that nothing was dropped but what had to be.
func (st *stage) judgeDrops(before, after metrics) {
	var other []string
	for name, n := range after {
		label, ok := strings.CutPrefix(name, `causeway_frames_dropped_total{reason="`)
		reason := strings.TrimSuffix(label, `"}`)
		if ok && n > before[name] && !slices.Contains(st.form.drops, reason) {
			other = append(other, fmt.Sprintf("%s %.0f", reason, n-before[name]))
		}
	}
	slices.Sort(other)
	bound := "nothing is dropped"
	if len(st.form.drops) > 0 {
		bound += " but for " + strings.Join(st.form.drops, ", ")
	}
	st.verdict(len(other) == 0, bound, "%s", strings.Join(append(other, "otherwise nothing"), ", "))
}

// judgeDisconnected judges when the recipient was disconnected; at is zero when
// it was not.
func (st *stage) judgeDisconnected(at time.Time) {
	f, most := st.form, st.form.patience+st.out.limits.stalled
	after := at.Sub(st.stalledAt)
	st.timed(after < most, fmt.Sprintf("the recipient is disconnected within %v", most), "after %v", rounded(after))
	st.verdict(!at.IsZero() && after > f.patience-stallEarly, fmt.Sprintf("and not before %v", f.patience-stallEarly), "after %v", rounded(after))
}

// unconfirmedTotal counts frames that are perhaps delivered.
const unconfirmedTotal = "causeway_frames_unconfirmed_total"

// judgeAccounts judges that senders know of every frame what became of it.
func (st *stage) judgeAccounts(s *stallStatus, counted float64) {
	undelivered, unconfirmed := s.told()
	st.verdict(s.unaccounted() == 0 && s.Decided == s.Sent && s.Disordered == 0, "sent = delivered + noticed + unconfirmed",
		"%d = %d + %d + %d", s.Sent, s.Delivered, undelivered, unconfirmed)
	most := uint64(2*st.form.stall.ReceiveBuffer+kernelSendBuffer()+stallTLS) / uint64(s.Frame)
	st.verdict(unconfirmed <= most && counted == float64(unconfirmed), fmt.Sprintf("unconfirmed are at most the %d frames that kernels hold, and as many as the router counts", most),
		"%d, and %.0f counted", unconfirmed, counted)
}

// kernelSendBuffer is the most that the kernel holds for one socket to be sent.
func kernelSendBuffer() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_wmem")
	if fields := strings.Fields(string(text)); err == nil && len(fields) == 3 {
		if n, err := strconv.Atoi(fields[2]); err == nil {
			return n
		}
	}
	return 4 << 20
}

// changes lists the counters that have grown.
func changes(before, after metrics) string {
	var list []string
	for name, n := range after {
		short, ok := strings.CutPrefix(name, "causeway_")
		if !ok || n <= before[name] || !strings.Contains(name, "_total") {
			continue
		}
		for _, of := range []string{"frames_dropped", "frames_noticed", "frames_unnoticed", "frames_unconfirmed", "pauses", "stalled", "handshakes", "partial_ended", "malformed", "replaced", "accept_errors", "memory"} {
			if strings.HasPrefix(short, of) {
				list = append(list, fmt.Sprintf("%s %.0f", plainName(name), n-before[name]))
				break
			}
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// plainName writes a metric's name as readers like it.
func plainName(name string) string {
	return strings.NewReplacer("causeway_", "", `"`, "", "_total", "", "{reason=", " ", "{effect=", " ", "}", "").Replace(name)
}

// after is text behind a separator, if there is one.
func after(sep, text string) string {
	if text == "" {
		return ""
	}
	return sep + text
}

func mib(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }

// rounded is d with three digits that matter.
func rounded(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Microsecond; unit /= 10 {
		if d >= 100*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Microsecond)
}
