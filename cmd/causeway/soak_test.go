package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// soakFile is where make soak wants results: then the long forms of scenarios
// run.
var soakFile = os.Getenv("CAUSEWAY_SOAK")

// soaking tells whether the long forms are to be run.
func soaking() bool { return soakFile != "" }

// soakRow is one thing that a scenario shows.
type soakRow struct{ bound, found string }

// reportSoak appends what a scenario has shown to the file of make soak, as a
// table.
func reportSoak(t *testing.T, name, title string, rows ...soakRow) {
	t.Helper()
	if !soaking() {
		return
	}
	verdict := "kept"
	if t.Failed() {
		verdict = "**broken**, here or in another row"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "\n**%s**: %s. `%s`.\n\n| bound | found | |\n|---|---|---|\n", name, title, t.Name())
	for _, r := range rows {
		fmt.Fprintf(&text, "| %s | %s | %s |\n", r.bound, r.found, verdict)
	}
	f, err := os.OpenFile(soakFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text.String()); err != nil {
		t.Fatal(err)
	}
}

// soakLoad is how much nodes of the library sent in a long form, which sign and
// check each message themselves on a core of their own.
type soakLoad struct {
	busy     func() float64 // of that core
	begun    time.Time
	messages uint64
	took     time.Duration
	used     float64 // share of the core's time
}

// startSoakLoad begins one, with the processes apart.
func startSoakLoad(t *testing.T) *soakLoad {
	t.Helper()
	return &soakLoad{busy: leaveFirstCore(t), begun: time.Now()}
}

// end notes what was sent so far.
func (l *soakLoad) end(messages uint64) {
	l.messages, l.took, l.used = messages, time.Since(l.begun), l.busy()
}

func (l *soakLoad) String() string {
	return fmt.Sprintf("%.0f messages/s in all, by nodes of the library that sign and check each one, which had their core %.0f%% busy", float64(l.messages)/l.took.Seconds(), 100*l.used)
}

// movedBy sums up what flows have sent and received.
func movedBy(flows []*flow) (sent, received uint64) {
	for _, f := range flows {
		sent += f.sent.Load()
		received += f.received.Load()
	}
	return sent, received
}
