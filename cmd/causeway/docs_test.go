package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"causeway/crypto/pki"
	"causeway/engine/gate"
)

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
		"causeway_config_changes_total", "causeway_firewall_connections", "causeway_grants_refused"} {
		known[name] = true
	}
	for _, name := range regexp.MustCompile(`causeway_[a-z_]+`).FindAllString(manual, -1) {
		if !known[name] {
			t.Errorf("deploy/README.md names %s, which is not on /metrics", name)
		}
	}
}
