package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"causeway/crypto/pki"
	"causeway/engine/gate"
)

// The session of the README works as it stands, pasted as a whole; but for the
// address, which is this test's own, and for waits, which are as long as it takes.
func TestTheReadmesSessionWorks(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, session, _ := strings.Cut(string(text), "## One session")
	_, session, _ = strings.Cut(session, "```console\n")
	session, _, _ = strings.Cut(session, "```")
	const asAlice = " --identity alice --connect dbw://127.0.0.1:7100 2>/dev/null"
	session = strings.Replace(session, "sleep 1 ", "until causeway node ping --count 1"+asAlice+"; do :; done ", 1)
	session = strings.Replace(session, "sleep 1\n", "until causeway node list"+asAlice+" | grep bob; do :; done\n", 1)
	session = strings.Replace(session, "causeway serve", "causeway serve --admin off", 1)
	session = strings.ReplaceAll(session, "127.0.0.1", fmt.Sprintf("127.1.%d.%d", os.Getpid()>>8&0xff, os.Getpid()&0xff|1))
	var script strings.Builder
	script.WriteString("trap 'kill $(jobs -p)' EXIT\n")
	for line := range strings.Lines(session) {
		if command, ok := strings.CutPrefix(line, "$ "); ok && !strings.Contains(command, "make build") {
			script.WriteString(command)
		}
	}
	path := program(t)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(path)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "hello bob") {
		t.Errorf("%v\n%s\n%s", err, script.String(), out)
	}
}

// The operator's manual has every flag, metric, drop reason and certificate
// reason there is, and no metric that is not.
func TestTheManualIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(text)
	has := func(what, as string) {
		if !strings.Contains(manual, as) {
			t.Errorf("deploy/README.md lacks %s %s", what, as)
		}
	}
	serveCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			has("the flag", "`--"+f.Name)
		}
	})
	for _, r := range pki.Reasons() {
		has("the reason", "`"+r.String()+"`")
	}
	for _, r := range gate.Refusals() {
		has("the reason", "`"+r.Reason()+"`")
	}
	r := startServe(t, makeDomains(t, []string{"prod.example"}, nil))
	defer r.stop()
	known := map[string]bool{}
	for sample := range r.metrics() {
		name, labels, _ := strings.Cut(sample, "{")
		name = regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
		if !strings.HasPrefix(name, "causeway_") {
			continue
		}
		known[name] = true
		has("the metric", name)
		if name == "causeway_frames_dropped_total" {
			has("the drop reason", "`"+strings.Split(labels, `"`)[1]+"`")
		}
	}
	// These have samples only once something has happened.
	for _, name := range []string{"causeway_handshakes_refused_total", "causeway_accept_errors_total", "causeway_trust_alarms",
		"causeway_config_changes_total", "causeway_firewall_connections", "causeway_grants_refused", "causeway_link_ignored_total"} {
		known[name] = true
	}
	for _, name := range regexp.MustCompile(`causeway_[a-z_]+`).FindAllString(manual, -1) {
		if !known[name] {
			t.Errorf("deploy/README.md names %s, which is not on /metrics", name)
		}
	}
}
