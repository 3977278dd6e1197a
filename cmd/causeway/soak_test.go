package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/cpuid/v2"
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
	fmt.Fprintf(&text, "\n**%s**: %s. %s, %s, %d cores, %s, `make soak` (`%s`).\n\n| bound | found | |\n|---|---|---|\n",
		name, title, time.Now().UTC().Format(time.DateOnly), cpuid.CPU.BrandName, runtime.NumCPU(), runtime.Version(), t.Name())
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

// movedBy sums up what flows have sent and received.
func movedBy(flows []*flow) (sent, received uint64) {
	for _, f := range flows {
		sent += f.sent.Load()
		received += f.received.Load()
	}
	return sent, received
}
