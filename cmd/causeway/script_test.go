package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptPatience bounds every wait of a script.
const scriptPatience = 2 * time.Minute

// scriptPrograms are the commands that scripts run as processes.
var scriptPrograms = map[string]func(){
	"causeway": main,
	// The same with a clock that is ten minutes fast.
	"causeway-ahead": func() {
		nodeClock = func() time.Time { return time.Now().Add(10 * time.Minute) }
		main()
	},
	flowNodeProgram: flowNodeMain,
}

// scriptCommands are what scripts can do beside testscript's own commands:
//
//	domain NAME NODE...       make a domain's authority, in NAME/ca, and nodes, in NAME/NODE; the first domain's
//	                          grant goes to router, and all are put into trust
//	router [FLAG...]          start `causeway serve` as the process router; set ROUTER and ADMIN, host:port each
//	launch NAME PROGRAM...    start a process
//	await NAME stdout|stderr REGEXP [VAR...]   wait until it has printed that; groups become variables
//	signal NAME|PID SIGNAL    INT, TERM, KILL, STOP (and wait until it has), CONT, USR1
//	finish NAME [CODE]        wait for its end with that exit code; stdout and stderr are then its output
//	exits CODE PROGRAM...     run to the end, which must have that exit code
//	until REGEXP PROGRAM...   run to the end, again until that is in order and stdout matches
//	get URL [STATUS]          fetch by HTTP; stdout is the answer
//	metric NAME REGEXP        wait until that is its value on the router's /metrics; NAME with its labels as written
//	gone PID...               wait until there are no such processes
//	empty DIR                 fail unless the directory is empty
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"domain": scriptDomain,
	"router": scriptRouter,
	"launch": scriptLaunch,
	"await":  scriptAwait,
	"signal": scriptSignal,
	"finish": scriptFinish,
	"exits":  scriptExits,
	"until":  scriptUntil,
	"get":    scriptGet,
	"metric": scriptMetric,
	"gone":   scriptGone,
	"empty":  scriptEmpty,
}

// scriptProcesses is the key of a script's processes by name.
type scriptProcesses struct{}

func scriptSetup(env *testscript.Env) error {
	env.Values[scriptProcesses{}] = map[string]*scriptProcess{}
	env.Setenv("GORACE", "atexit_sleep_ms=0")                                                // with the race detector every process would take a second to end
	return os.WriteFile(filepath.Join(env.WorkDir, "binary"), []byte("\xff\x00\xfe"), 0o600) // a script can't hold it
}

// scriptProcess is a process that a script has launched.
type scriptProcess struct {
	cmd            *exec.Cmd
	stdout, stderr watched
	ended          chan struct{} // closed at its end
	err            error         // of Wait, from then on
}

// watched is output that can be waited for.
type watched struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed at the next change
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
	return len(b), nil
}

func (w *watched) read() (text string, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return string(w.text), w.changed
}

// use fails the script unless there is a right number of arguments and no "!".
func use(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

func processes(ts *testscript.TestScript) map[string]*scriptProcess {
	return ts.Value(scriptProcesses{}).(map[string]*scriptProcess)
}

func process(ts *testscript.TestScript, name string) *scriptProcess {
	p := processes(ts)[name]
	if p == nil {
		ts.Fatalf("no process %s was launched", name)
	}
	return p
}

func scriptDomain(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 1, "domain NAME NODE...")
	domain, ca := args[0], filepath.Join(args[0], "ca")
	pki := func(args ...string) {
		if err := ts.Exec("causeway", append([]string{"pki"}, args...)...); err != nil {
			ts.Fatalf("pki %s: %v", args[0], err)
		}
	}
	pki("init", "--domain", domain, "--out", ca)
	pki("trust", "--store", "trust", "--ca", ca)
	if !fileExists(ts.MkAbs("router")) {
		pki("grant", "--ca", ca, "--name", "edge-1", "--out", "router")
	}
	for _, node := range args[1:] {
		pki("issue", "--ca", ca, "--name", node, "--out", filepath.Join(domain, node))
	}
}

func scriptRouter(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 0, "router [FLAG...]")
	scriptLaunch(ts, false, append([]string{"router", "causeway", "serve", "--identity", "router", "--trust", "trust",
		"--listen", "dbw://127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"}, args...))
	scriptAwait(ts, false, []string{"router", "stderr", `"admin listens","address":"([^"]+)"`, "ADMIN"})
	scriptAwait(ts, false, []string{"router", "stderr", `"listening","address":"([^"]+)"`, "ROUTER"})
}

func scriptLaunch(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 2, "launch NAME PROGRAM ARGUMENT...")
	name := args[0]
	if processes(ts)[name] != nil {
		ts.Fatalf("a process %s was launched already", name)
	}
	program, err := exec.LookPath(args[1]) // the test binary has put its programs into PATH
	ts.Check(err)
	p := &scriptProcess{cmd: exec.Command(program, args[2:]...), ended: make(chan struct{})}
	p.cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "GORACE"} {
		p.cmd.Env = append(p.cmd.Env, v+"="+ts.Getenv(v))
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	ts.Check(p.cmd.Start())
	processes(ts)[name] = p
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	ts.Defer(func() {
		p.cmd.Process.Kill()
		<-p.ended
	})
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 3, "await NAME stdout|stderr REGEXP [VAR...]")
	p, vars := process(ts, args[0]), args[3:]
	out, ok := map[string]*watched{"stdout": &p.stdout, "stderr": &p.stderr}[args[1]]
	re, err := regexp.Compile(`(?m)` + args[2])
	if err != nil || !ok || len(vars) > re.NumSubexp() {
		ts.Fatalf("await %s: %v", strings.Join(args, " "), err)
	}
	patience := time.After(scriptPatience)
	for {
		var ended bool
		select {
		case <-p.ended:
			ended = true
		default:
		}
		text, changed := out.read()
		if m := re.FindStringSubmatch(text); m != nil {
			for i, v := range vars {
				ts.Setenv(v, m[i+1])
			}
			return
		}
		if ended {
			ts.Fatalf("%s has ended (%v) without printing %s; it printed\n%s", args[0], p.err, args[2], p.all())
		}
		select {
		case <-changed:
		case <-p.ended:
		case <-patience:
			ts.Fatalf("%s has not printed %s; it printed\n%s", args[0], args[2], p.all())
		}
	}
}

// all returns what the process has printed.
func (p *scriptProcess) all() string {
	stdout, _ := p.stdout.read()
	stderr, _ := p.stderr.read()
	return "[stdout]\n" + stdout + "[stderr]\n" + stderr
}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 2, "signal NAME SIGNAL")
	s, ok := map[string]syscall.Signal{
		"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "USR1": syscall.SIGUSR1,
	}[args[1]]
	if !ok {
		ts.Fatalf("no signal %s", args[1])
	}
	pid, err := strconv.Atoi(args[0])
	if err == nil {
		ts.Check(syscall.Kill(pid, s))
	} else {
		p := process(ts, args[0]).cmd.Process
		ts.Check(p.Signal(s))
		pid = p.Pid
	}
	for end := time.Now().Add(scriptPatience); s == syscall.SIGSTOP && isRunning(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s does not stop", args[0])
		}
	}
}

// isRunning tells whether a thread of the process is not stopped; false where the
// system does not tell.
func isRunning(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return slices.ContainsFunc(stats, func(path string) bool {
		stat, err := os.ReadFile(path) // pid (name) state …
		_, state, _ := strings.Cut(string(stat), ") ")
		return err == nil && !strings.HasPrefix(state, "T")
	})
}

func scriptFinish(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 1, "finish NAME [CODE]")
	p, want := process(ts, args[0]), "0"
	if len(args) > 1 {
		want = args[1]
	}
	select {
	case <-p.ended:
	case <-time.After(scriptPatience):
		ts.Fatalf("%s does not end; it printed\n%s", args[0], p.all())
	}
	stdout, _ := p.stdout.read()
	stderr, _ := p.stderr.read()
	io.WriteString(ts.Stdout(), stdout)
	io.WriteString(ts.Stderr(), stderr)
	delete(processes(ts), args[0])
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != want {
		ts.Fatalf("%s has ended with %v; want exit code %s", args[0], p.err, want)
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 2, "exits CODE PROGRAM ARGUMENT...")
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 2, "until REGEXP PROGRAM ARGUMENT...")
	want, err := regexp.Compile(`(?m)` + args[0])
	ts.Check(err)
	for end := time.Now().Add(scriptPatience); ; time.Sleep(20 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s has not printed %s (%v)", args[1], args[0], err)
		}
	}
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: get URL [STATUS]")
	}
	client := http.Client{Timeout: scriptPatience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(args[0])
	if neg {
		if err == nil {
			answer.Body.Close()
			ts.Fatalf("%s answers %s", args[0], answer.Status)
		}
		fmt.Fprintln(ts.Stderr(), err)
		return
	}
	ts.Check(err)
	defer answer.Body.Close()
	_, err = io.Copy(ts.Stdout(), answer.Body)
	ts.Check(err)
	want := "200"
	if len(args) > 1 {
		want = args[1]
	}
	if strconv.Itoa(answer.StatusCode) != want {
		ts.Fatalf("%s answers %s, want %s", args[0], answer.Status, want)
	}
}

func scriptMetric(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 2, "metric NAME REGEXP")
	want, err := regexp.Compile("^(" + args[1] + ")$")
	ts.Check(err)
	client := http.Client{Timeout: scriptPatience, Transport: &http.Transport{DisableKeepAlives: true}}
	got := "not there"
	for end := time.Now().Add(scriptPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		answer, err := client.Get("http://" + ts.Getenv("ADMIN") + "/metrics")
		ts.Check(err)
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		ts.Check(err)
		if _, rest, ok := strings.Cut("\n"+string(text), "\n"+args[0]+" "); ok {
			if got, _, _ = strings.Cut(rest, "\n"); want.MatchString(got) {
				return
			}
		}
	}
	ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
}

func scriptGone(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 1, "gone PID...")
	var pids []int
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		ts.Check(err)
		pids = append(pids, pid)
	}
	for end := time.Now().Add(scriptPatience); ; time.Sleep(5 * time.Millisecond) {
		pids = slices.DeleteFunc(pids, func(pid int) bool { return !isAlive(pid) })
		if len(pids) == 0 {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("processes %v are still there", pids)
		}
	}
}

func scriptEmpty(ts *testscript.TestScript, neg bool, args []string) {
	use(ts, neg, args, 1, "empty DIR")
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s has %v", args[0], entries)
	}
}

// isAlive reports whether there is such a process that has not ended. One that
// its parent has not asked for yet has ended.
func isAlive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	_, state, ok := strings.Cut(string(stat), ") ") // proc_pid_stat(5)
	return !ok || !strings.HasPrefix(state, "Z")
}

// What a script says of processes must be able to fail.
func TestWatchedOutputWakesWhoWaits(t *testing.T) {
	var w watched
	if text, _ := w.read(); text != "" {
		t.Errorf("new output reads %q", text)
	}
	_, changed := w.read()
	select {
	case <-changed:
		t.Error("a change is told that was none")
	default:
	}
	io.WriteString(&w, "a")
	io.WriteString(&w, "b")
	<-changed
	if text, _ := w.read(); text != "ab" {
		t.Errorf("output reads %q, want ab", text)
	}
}
