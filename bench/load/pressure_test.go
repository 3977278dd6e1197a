package main

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/codec"
)

// testWriter writes to a test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// A scenario that was void is tried again: at the same rate when others used the
// router's core, at a lower one when the load had no room, or it is the last try.
func TestVoidScenariosAreTriedAgain(t *testing.T) {
	o := &pressureOptions{tries: 3, limits: strictLimits}
	p := &pressure{o: o, log: testWriter{t}, saturated: 1000}
	check := func(want string, voids ...openTry) {
		t.Helper()
		n := 0
		out, err := p.tryWith(func(rate float64, last bool) (*outcome, error) {
			n++
			out := &outcome{Name: "connects", Title: "strangers", Rate: rate, Share: rate / p.saturated, Reference: &facts{}, Attack: &facts{}}
			if n <= len(voids) {
				out.Void, out.LoadBusy = voids[n-1].Why, voids[n-1].Rate > 0
			}
			if last != (n == o.tries) {
				t.Errorf("try %d of %d is the last: %v", n, o.tries, last)
			}
			return out, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if out.write(&text); !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	busy, others := openTry{1, "the load was busy"}, openTry{0, "others were there"}
	check("strangers. 500 frames/s, 50% of what is sustained.\n")
	check("strangers. 350 frames/s, 35% of what is sustained. Tried at 500 before: the load was busy.\n", busy)
	check("strangers. 500 frames/s, 50% of what is sustained. Tried at 500 before: others were there.\n", others)
	check("350 frames/s, 35% of what is sustained. Tried at 500 before: others were there. Tried at 500 before: others were there.\n", others, others)
	check("245 frames/s, 24% of what is sustained. Tried at 500 before: the load was busy. Tried at 350 before: others were there. **Void**: the load was busy.\n", busy, others, busy)
}

// Whatever one peer does, the others lose nothing, memory stays bounded, and
// nodes get in: the short form of every scenario. Rates and times count only
// when the machine had nothing else to do, and never under the race detector.
func TestOnePeersTroubleIsNobodyElses(t *testing.T) {
	program, err := routerProgram()
	if err != nil {
		t.Fatal(err)
	}
	o, err := parsePressureOptions([]string{"--short", "--router", program}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if raceEnabled {
		o.tries = 1
	}
	p, err := newPressure(t.Context(), o, t.TempDir(), testWriter{t})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range o.scenarios {
		t.Run(s.name, func(t *testing.T) {
			p.log = testWriter{t}
			out, err := p.try(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			out.write(testWriter{t})
			if out.broken(false) || !raceEnabled && !out.kept() {
				t.Error("bounds were broken")
			}
			if left := children(t); left != "" {
				t.Errorf("children outlive the scenario: %s", left)
			}
		})
	}
}

// A bound that is broken and a scenario that fails are told, and end in an error;
// the others are run all the same.
func TestABrokenBoundIsTold(t *testing.T) {
	program, err := routerProgram()
	if err != nil {
		t.Fatal(err)
	}
	o, err := parsePressureOptions([]string{"--short", "--router", program}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	course := func(kept bool, err error) func(context.Context, *stage) error {
		return func(_ context.Context, st *stage) error {
			st.out.Reference, st.out.Attack = &facts{Length: second}, &facts{Length: second}
			st.verdict(kept, "the router stays", "it left")
			return err
		}
	}
	o.scenarios = []*scenario{
		{name: "fails", title: "a course that fails", course: course(true, io.ErrUnexpectedEOF)},
		{name: "breaks", title: "a bound is broken", course: course(false, nil)},
		{name: "keeps", title: "all is well", course: course(true, nil)},
	}
	var out bytes.Buffer
	err = withstand(t.Context(), o, &out, testWriter{t})
	if err == nil || !strings.HasSuffix(err.Error(), ": fails, breaks") {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"unexpected EOF", "| the router stays | it left | **broken** |", "| the router stays | it left | kept |", "`bench/load pressure --short"} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("not once: %q in\n%s", want, &out)
		}
	}
	if left := children(t); left != "" {
		t.Errorf("children outlive the scenarios: %s", left)
	}
}

// A router that does legitimate nodes wrong is no result.
func TestLegitimateTrafficThatIsHarmedIsNoResult(t *testing.T) {
	code, out, log := runs(t, "pressure", "--short", "--router-arg", "--max-body=100", "connects")
	if code == 0 || out != "" || !strings.Contains(log, "the router closed its connection") {
		t.Errorf("exit code %d, %s\n%s", code, log, out)
	}
}

func TestOutcomesAreKeptBrokenOrVoid(t *testing.T) {
	check := func(void, loose, timedKept, restKept, want bool) {
		t.Helper()
		o := &outcome{limits: limits{loose: loose}, Verdicts: []verdict{{Kept: true}, {Kept: timedKept, Timed: true}, {Kept: restKept}}}
		if void {
			o.Void = "somebody compiles"
		}
		if got := o.kept(); got != want {
			t.Errorf("void %v, loose %v, timed kept %v, rest kept %v: kept %v", void, loose, timedKept, restKept, got)
		}
	}
	check(false, false, true, true, true)
	check(false, false, false, true, false)
	check(false, false, true, false, false)
	check(true, false, true, true, false)
	check(true, true, true, true, true)
	check(true, true, false, true, true)
	check(true, true, true, false, false)
	check(false, true, false, true, false)
	failed := &outcome{Name: "connects", Failed: "the router is gone"}
	var text bytes.Buffer
	if failed.write(&text); failed.kept() || !strings.Contains(text.String(), "the router is gone") {
		t.Errorf("kept %v: %s", failed.kept(), &text)
	}
}

func TestAScenarioIsTriedAgainWhileThatMayShowMore(t *testing.T) {
	check := func(void, loose, timedKept, restKept, want bool) {
		t.Helper()
		o := &outcome{limits: limits{loose: loose}, Verdicts: []verdict{{Kept: timedKept, Timed: true}, {Kept: restKept}}}
		if void {
			o.Void = "somebody compiles"
		}
		if got := o.open(); got != want {
			t.Errorf("void %v, loose %v, timed kept %v, rest kept %v: open %v", void, loose, timedKept, restKept, got)
		}
	}
	check(false, false, true, true, false)
	check(false, false, false, true, false)
	check(true, false, true, true, true)
	check(false, true, true, true, false)
	check(false, true, false, true, true)
	check(false, true, true, false, false)
	check(false, true, false, false, false)
	check(true, true, true, true, false)
	check(true, true, false, true, true)
}

func TestStallsAreAccountedFor(t *testing.T) {
	s := &stallStatus{Sent: 100, Delivered: 10, Noticed: map[codec.NoticeReason]uint64{codec.NoticeQueueFull: 50, codec.NoticeRecipientGone: 20, codec.NoticeUnconfirmed: 15}}
	if undelivered, unconfirmed := s.told(); undelivered != 70 || unconfirmed != 15 || s.unaccounted() != 5 {
		t.Errorf("%d undelivered, %d unconfirmed, %d unaccounted for", undelivered, unconfirmed, s.unaccounted())
	}
}

func TestChangesOfCounters(t *testing.T) {
	before := metrics{`causeway_frames_dropped_total{reason="late"}`: 3, "causeway_pauses_total": 1, "causeway_connections": 2}
	now := metrics{`causeway_frames_dropped_total{reason="late"}`: 5, "causeway_pauses_total": 1, "causeway_connections": 9, "causeway_stalled_total": 1}
	if got := changes(before, now); got != "frames_dropped late 2, stalled 1" {
		t.Error(got)
	}
}

func TestScenariosHaveNamesAndForms(t *testing.T) {
	var names []string
	for _, s := range scenarios {
		for _, f := range []form{s.full, s.short} {
			if s.title == "" || s.course == nil || f.reference <= 0 || f.length <= 0 || f.nodes() == 0 || f.attack != nil && (len(f.felt.metrics) == 0 || raids[f.attack.Kind] == nil) {
				t.Errorf("%s: %+v", s.name, f)
			}
		}
		if slices.Contains(names, s.name) {
			t.Errorf("two scenarios %s", s.name)
		}
		names = append(names, s.name)
	}
	var usage bytes.Buffer
	if code := run([]string{"pressure", "--help"}, strings.NewReader(""), &usage, &usage); code != 0 || !strings.Contains(usage.String(), scenarios[0].title) {
		t.Errorf("exit code %d: %s", code, &usage)
	}
}

func TestAPaceIsKeptByAllWhoShareIt(t *testing.T) {
	l := newLife()
	defer l.end()
	const perSecond, each, sharers = 1000, 20, 5
	p := newPace(l, perSecond)
	begin := time.Now()
	done := make(chan struct{}, sharers)
	for range sharers {
		l.all.Go(func() {
			for range each {
				p.wait()
			}
			done <- struct{}{}
		})
	}
	for range sharers {
		<-done
	}
	if took, least := time.Since(begin), time.Second*(sharers*each-1)/perSecond; took < least {
		t.Errorf("%d turns at %d a second took %v", sharers*each, perSecond, took)
	}
	l.cancel()
	if p.wait() {
		t.Error("a turn after the end")
	}
}

func TestRoundsTellWhoUsedTheCores(t *testing.T) {
	check := func(load, others float64, void string) {
		t.Helper()
		f := &facts{Others: others}
		f.Usage.LoadCore = load
		if got := f.void(); got != void {
			t.Errorf("load %v, others %v: %q", load, others, got)
		}
	}
	check(0.5, 0.05, "")
	check(0.95, 0, "the load's core was 95% busy")
	check(0.1, 0.2, "others used 20% of the router's core")
}

func TestATapTurnsReadingDown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	far, near := tcpPair(t)
	tap := newTap(ctx, near)
	write := func(s string) {
		t.Helper()
		if _, err := io.WriteString(far, s); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		b := make([]byte, 10)
		if n, err := tap.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("read %q and %v, want %q", b[:n], err, want)
		}
	}
	write("open")
	check("open")
	tap.turn(tapOff)
	write("abcd") // all of it would come at once if the tap were open
	tap.turn(200)
	check("a")
	check("b")
	tap.turn(tapOff)
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		for range 20 { // whatever the read waits for
			tap.turn(1)
			tap.turn(tapOff)
		}
		tap.turn(tapOpen)
	}()
	check("cd")
	<-opened
	tap.turn(10_000)
	go func() { // while a read waits for a byte that has not come
		for range 20 {
			tap.turn(tapOff)
			tap.turn(10_000)
		}
		write("e")
	}()
	check("e")
	tap.turn(tapOff)
	cancel()
	if n, err := tap.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes after the end", n)
	}
}
