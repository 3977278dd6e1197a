package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be the children that it starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{verbClient, verbReference, verbCrowd, verbSink, verbAttackers}, os.Args[1]) {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(programDir)
		os.Exit(code)
	}))
}

// programDir holds the router's program, once it is built.
var programDir string

var routerProgram = sync.OnceValues(func() (string, error) {
	var err error
	if programDir, err = os.MkdirTemp("", "causeway-load-test-"); err != nil {
		return "", err
	}
	program := filepath.Join(programDir, "causeway")
	out, err := exec.Command("go", "build", "-o", program, "causeway/cmd/causeway").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return program, err
})

// runs runs the benchmark with a router built from this tree; no child may
// outlive it.
func runs(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	program, err := routerProgram()
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	verbs := 0 // the flag comes after the verb, if there is one
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verbs = 1
	}
	code = run(slices.Insert(slices.Clone(args), verbs, "--router", program), strings.NewReader(""), &out, &log)
	if left := children(t); left != "" {
		t.Errorf("children outlive the benchmark: %s", left)
	}
	return code, out.String(), log.String()
}

// children returns the PIDs of this process's children, zombies too.
func children(t *testing.T) (pids string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil { // else the thread has ended
			pids += string(text)
		}
	}
	return pids
}

func TestQuickFormMeasuresEveryVariant(t *testing.T) {
	code, out, log := runs(t, "--quick", "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, log)
	}
	var r result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Cells) != 2 || r.Lone == nil {
		t.Fatalf("%d cells, lone frames %v", len(r.Cells), r.Lone)
	}
	for _, v := range variants {
		for _, c := range r.Cells {
			if s := c.Samples[v]; len(s) != 1 || s[0].Frames <= 0 || s[0].CPU <= 0 {
				t.Errorf("%d bytes, %s: %+v", c.Body, v, s)
			}
		}
		if n := len(r.Lone.Times[v]); n < 20 && v != variantBursts || n > 0 && v == variantBursts {
			t.Errorf("%s: %d lone frames", v, n)
		}
	}
	for _, c := range r.Cells {
		if c.Tables[variantAll] != c.Senders || c.Tables[variantBursts] != c.Senders || len(c.Tables) != 2 {
			t.Errorf("%d bytes: tables %v of %d signers", c.Body, c.Tables, c.Senders)
		}
	}
	if r.Lone.Tables[variantAll] != 1 || r.Lone.Verify <= 0 || r.Lone.Stdlib <= 0 {
		t.Errorf("lone frames: %+v", r.Lone.Tables)
	}
}

func TestTableHasARowForEachVariant(t *testing.T) {
	code, out, log := runs(t, "--quick", "--bodies", "256", "--variants", "echo,all")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, log)
	}
	for _, want := range []string{"| 2+2 | 256 B | TLS echo |", "| 2+2 | 256 B | router, verify all |", "| router, verify all | 20 |", "Linux "} {
		if strings.Count(out, want) != 1 {
			t.Errorf("not once: %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "goroutine per connection |\n") || strings.Contains(out, "verify none") {
		t.Errorf("a variant that was not asked for:\n%s", out)
	}
}

// More and fewer signers than receivers; bursts and plain signatures.
func TestSignersAreAsManyAsAskedFor(t *testing.T) {
	code, out, log := runs(t, "--quick", "--signers", "1,5", "--bodies", "256,2048", "--variants", "all,bursts", "--latency", "0")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, log)
	}
	for _, conns := range []string{"1+2", "5+2"} {
		for _, body := range []string{"256 B", "2 KiB"} {
			for _, variant := range []string{"router, verify all", "router, verify all, bursts"} {
				if want := fmt.Sprintf("| %s | %s | %s |", conns, body, variant); strings.Count(out, want) != 1 {
					t.Errorf("not once: %q in\n%s", want, out)
				}
			}
		}
	}
	if strings.Contains(out, "had a table") {
		t.Errorf("not all signers had a table:\n%s", out)
	}
}

func TestSignersWithoutTablesAreTold(t *testing.T) {
	code, out, log := runs(t, "--quick", "--variants", "all", "--router-arg", "--verify-path=stdlib", "--bodies", "64")
	if code != 0 || !strings.Contains(out, "only 0 of 2 signers had a table") || !strings.Contains(out, "only 0 of 1 signers had a table") {
		t.Errorf("exit code %d: %s%s", code, out, log)
	}
}

func TestARouterThatDoesNotStartIsTold(t *testing.T) {
	code, _, log := runs(t, "--quick", "--variants", "echo,none", "--router-arg", "--no-such-flag")
	if code == 0 || !strings.Contains(log, "no-such-flag") {
		t.Errorf("exit code %d: %s", code, log)
	}
}

// A router that takes no such frames closes the connection.
func TestARouterThatRefusesFramesIsNoResult(t *testing.T) {
	code, out, log := runs(t, "--quick", "--latency", "0", "--bodies", "4096", "--variants", "none", "--router-arg", "--max-body=1KiB")
	if code == 0 || !strings.Contains(log, "none: ") || out != "" {
		t.Errorf("exit code %d: %s%s", code, out, log)
	}
}

func TestCountsThatDisagreeAreNoResult(t *testing.T) {
	check := func(forwarded, dropped int, ok bool) {
		t.Helper()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "# HELP x\ncauseway_frames_forwarded_total %d\ncauseway_frames_dropped_total{reason=\"late\"} 0\n"+
				"causeway_frames_dropped_total{reason=\"queue-full\"} %d\n", forwarded, dropped)
		}))
		defer server.Close()
		b := &bench{under: map[string]row{variantNone: {{admin: server.Listener.Addr().String()}}, variantEcho: {{}}}, sent: map[string]uint64{variantNone: 10}}
		if err := b.balance(); (err == nil) != ok {
			t.Errorf("%d forwarded, %d dropped of 10: %v", forwarded, dropped, err)
		}
	}
	check(10, 0, true)
	check(9, 0, false)
	check(11, 0, false)
	check(10, 1, false)
}

func TestIdleConnectionsAreCounted(t *testing.T) {
	const connections = 200 // they make the router grow by more than its garbage collector gives back
	code, out, log := runs(t, "idle", "--connections", fmt.Sprint(connections), "--settle=false", "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, log)
	}
	var r idleResult
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Connections != connections || r.Empty.RSS <= 0 || r.Fresh.RSS <= r.Empty.RSS || r.Carried.Live <= 0 {
		t.Errorf("%+v", r)
	}
	var table bytes.Buffer
	r.write(&table)
	if !strings.Contains(table.String(), "| **RSS** |") {
		t.Error(table.String())
	}
}

func TestNewcomersAreTimedDuringAnAttack(t *testing.T) {
	for _, worst := range worsts {
		// All from one address, which may have 64 handshakes: the rest is refused.
		code, out, log := runs(t, "flood", "--worst", worst, "--attackers", "100", "--sources", "1", "--pause", "100ms", "--tries", "2", "--json")
		if code != 0 {
			t.Fatalf("%s: exit code %d: %s", worst, code, log)
		}
		var r floodResult
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Times) != 2 || r.Times[0] <= 0 || r.Refusals <= 0 || r.Refused["max-handshakes-per-source"] <= 0 {
			t.Errorf("%s: %+v", worst, r)
		}
		var table bytes.Buffer
		r.write(&table)
		if !strings.Contains(table.String(), "| 2 | ") {
			t.Error(table.String())
		}
	}
}

func TestMoreConnectionsThanFilesAreRefusedFirst(t *testing.T) {
	code, _, log := runs(t, "idle", "--connections", "2000000000")
	if code == 0 || !strings.Contains(log, "ulimit -n") {
		t.Errorf("exit code %d: %s", code, log)
	}
}

func TestCommandLinesThatMakeNoSense(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--rounds 0", "--rounds"},
		{"--slice 1ms", "--slice"},
		{"--bodies 64,x", `"x"`},
		{"--bodies 0", "--bodies"},
		{"--bodies 1000000", "--bodies"},
		{"--conns 0", "--conns"},
		{"--signers 8,-1", "--signers"},
		{"--signers 2001", "--signers"},
		{"--variants echo,udp", `"udp"`},
		{"--latency -1", "--latency"},
		{"--window 100", "--window"},
		{"idel", `"idel"`},
		{"--no-such", "no-such"},
		{"idle --connections 0", "--connections"},
		{"idle now", `"now"`},
		{"pressure never", `"never"`},
		{"pressure --tries 0", "--tries"},
		{"flood --worst quiet", `"quiet"`},
		{"flood --attackers 10 --sources 11", "--sources"},
		{"flood --attackers -1", "--attackers"},
		{"flood --tries 0", "--tries"},
		{"flood --pause 1h", "--pause"},
		{"flood now", `"now"`},
		{"chain --cells 8", `"8"`},
		{"chain --cells 8:256,0:256", "--cells"},
		{"chain --cells 8:1000000", "--cells"},
		{"chain --verify bursts", `"bursts"`},
		{"chain --rounds 0", "--rounds"},
		{"chain now", `"now"`},
	} {
		var log bytes.Buffer
		if code := run(strings.Fields(c.args), strings.NewReader(""), &log, &log); code == 0 || !strings.Contains(log.String(), c.want) {
			t.Errorf("%s: exit code %d, %s", c.args, code, &log)
		}
	}
}

func TestExplicitFlagsWinOverQuick(t *testing.T) {
	o, err := parseOptions([]string{"--bodies", "100", "--quick"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(o.bodies, o.conns, o.rounds) != "[100] [2] 1" {
		t.Errorf("%+v", o)
	}
}
