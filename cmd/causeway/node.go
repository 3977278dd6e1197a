package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/node"
)

// Exit codes of the verbs of `causeway node`, beside those of main.go.
const (
	exitNotice  = 3 // a notice said that the message was not delivered, or perhaps not
	exitTimeout = 4 // the answer did not come in time
)

const (
	nodeTimeoutDefault = 15 * time.Second
	nodeLockFile       = "node.lock" // in the identity directory
	nodeLockOff        = "off"
	nodeSocketFile     = "node.sock" // in the identity directory
	nodeRouter         = "router"    // as --to: the router that this node is connected to; with --direct that node
	nodeRouterPrefix   = "router/"
)

// nodeClock is what nodes go by; a test shifts it.
var nodeClock = time.Now

func nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Be a node: send messages, listen for them, ping, trace, list who is there, show sessions",
		Long: `Be a node of a domain, connected to a router.

  causeway node listen --identity bob --connect dbw://127.0.0.1:7100
  causeway node send --identity alice --connect dbw://127.0.0.1:7100 --to bob --wait hello
  causeway node ping --identity alice --connect dbw://127.0.0.1:7100 --to bob
  causeway node trace --identity alice --connect dbw://127.0.0.1:7100 bob
  causeway node list --identity alice --connect dbw://127.0.0.1:7100
  causeway node sessions --identity bob

Two nodes need no router: one listens for the other, and they reach nobody else.

  causeway node listen --identity bob --accept-on dbw://127.0.0.1:7101
  causeway node send --identity alice --direct dbw://127.0.0.1:7101 --to bob --wait hello

Messages are sealed from node to node: no router can read them. --plain and
--accept-plain are for those that routers may read; nothing falls back to that by
itself.

An identity is a directory with node.key, node.crt and root.crt (causeway pki
request and issue). One process at a time uses it.

Exit codes: 0 done; 1 failed; 2 the command line makes no sense; 3 a notice
said that the message was not delivered, or perhaps not; 4 time is over.`,
		Args: cobra.NoArgs,
		RunE: needVerb,
	}
	cmd.AddCommand(nodeListenCommand(), nodeSendCommand(), nodePingCommand(), nodeTraceCommand(), nodeListCommand(), nodeSessionsCommand())
	return cmd
}

// nodeFlags are those that all verbs of `causeway node` have.
type nodeFlags struct {
	identity, lockFile, kind string
	connect                  []string
	direct                   string   // of the verbs that have addDirect
	acceptOn                 []string // of listen
	timeout                  time.Duration
	json                     bool
	log                      logFlags
	connected                *atomic.Bool // opens the log; nil: it is open
	read                     fingerprint  // snapshot of the identity's files before they were read
}

// quietUntil logs nothing until ready: what is wrong before the first
// connection is the verb's error, and need not be said twice.
type quietUntil struct {
	ready *atomic.Bool
	slog.Handler
}

func (h quietUntil) Enabled(ctx context.Context, l slog.Level) bool {
	return h.ready.Load() && h.Handler.Enabled(ctx, l)
}

func (h quietUntil) WithAttrs(a []slog.Attr) slog.Handler {
	return quietUntil{h.ready, h.Handler.WithAttrs(a)}
}

func (h quietUntil) WithGroup(name string) slog.Handler {
	return quietUntil{h.ready, h.Handler.WithGroup(name)}
}

// add declares the flags. Lines from logLevel on are logged unless the user
// says otherwise; timeoutOf says what --timeout is for.
func (f *nodeFlags) add(cmd *cobra.Command, logLevel, timeoutOf string, timeout time.Duration) {
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.identity, "identity", "", "identity `DIR` with node.key, node.crt and root.crt (required)")
	fl.StringArrayVar(&f.connect, "connect", nil, "router's `URL`, such as dbw://127.0.0.1:7100; if repeated, the next is tried when one fails (required, where the verb has no other way)")
	fl.BoolVar(&f.json, "json", false, "print one JSON object a line")
	fl.DurationVar(&f.timeout, "timeout", timeout, timeoutOf)
	fl.StringVar(&f.kind, "kind", "", "free `TEXT` of at most 32 bytes that operators see in lists: server, monitor, hub")
	fl.StringVar(&f.lockFile, "lock-file", "", "`FILE` that keeps two processes of this machine from using one identity; default "+nodeLockFile+" in the identity directory; off: none")
	f.log.add(fl)
	fl.Lookup("log-level").DefValue = logLevel
	f.log.level = logLevel
}

// addDirect declares the flag of the verbs that need no router.
func (f *nodeFlags) addDirect(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.direct, "direct", "", "`URL` of a node that listens (listen --accept-on), in place of --connect: no router is needed, and that node alone is reached")
}

// config turns the flags into the library's configuration.
func (f *nodeFlags) config(cmd *cobra.Command) (c node.Config, err error) {
	if f.identity == "" || len(f.connect)+len(f.direct)+len(f.acceptOn) == 0 {
		or := ""
		if cmd.Flags().Lookup("direct") != nil {
			or = " (or --direct)"
		}
		if cmd.Flags().Lookup("accept-on") != nil {
			or = " (or --accept-on)"
		}
		return c, usageError{fmt.Errorf("%s needs --identity DIR and --connect dbw://host:port%s; run %s --help", cmd.CommandPath(), or, cmd.CommandPath())}
	}
	if f.timeout < 0 {
		return c, usageError{fmt.Errorf("--timeout %v: must not be negative", f.timeout)}
	}
	if c.Logger, err = f.log.logger(cmd.ErrOrStderr()); err != nil {
		return c, usageError{err}
	}
	if !cmd.Flags().Changed("log-level") && len(f.acceptOn) == 0 { // who listens is connected as soon as it does
		f.connected = new(atomic.Bool)
		c.Logger = slog.New(quietUntil{f.connected, c.Logger.Handler()})
	}
	f.read = f.snapshot()
	if c.Identity, err = pki.LoadIdentity(os.DirFS(f.identity)); err != nil {
		return c, pki.WithDir(err, f.identity)
	}
	switch f.lockFile {
	case "":
		c.LockFile = filepath.Join(f.identity, nodeLockFile)
	case nodeLockOff:
	default:
		c.LockFile = f.lockFile
	}
	c.Routers, c.Direct, c.Listen = f.connect, f.direct, f.acceptOn
	c.Kind, c.Software, c.Now = f.kind, software, nodeClock
	return c, nil
}

// nodeConfigFlags are the flags behind the library's configuration.
var nodeConfigFlags = map[string]string{
	"Identity": "identity", "Trust": "identity", "Routers": "connect", "Direct": "direct", "Listen": "accept-on", "Kind": "kind", "LockFile": "lock-file",
}

// connectNode connects. A configuration that can't be used is reported by the name
// of its flag.
func (f *nodeFlags) connectNode(ctx context.Context, c node.Config) (*node.Node, error) {
	n, err := node.Connect(ctx, c)
	var bad *node.ConfigError
	if errors.As(err, &bad) && nodeConfigFlags[bad.Field] != "" {
		err = fmt.Errorf("--%s: %s: %s", nodeConfigFlags[bad.Field], bad.Problem, bad.Remedy)
		if bad.Field == "Routers" || bad.Field == "Direct" || bad.Field == "Listen" || bad.Field == "Kind" {
			err = usageError{err}
		}
		return nil, err
	}
	return n, err
}

// run connects, does the work with the node, and leaves; all of it until a
// signal comes, and within --timeout unless that is 0.
func (f *nodeFlags) run(cmd *cobra.Command, c node.Config, work func(context.Context, *node.Node) error) error {
	ctx, end := untilSignal(cmd.Context())
	defer end()
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	n, err := f.connectNode(ctx, c)
	if err == nil {
		if f.connected != nil {
			f.connected.Store(true)
		}
		err = work(ctx, n)
		closeErr := n.Close()
		if err == nil {
			err = closeErr
		}
	}
	return f.coded(ctx, err)
}

// coded gives err its exit code.
func (f *nodeFlags) coded(ctx context.Context, err error) error {
	var notice *node.NoticeError
	var wait *node.WaitError
	var lost *node.NotConnectedError
	ended := ctx.Err() != nil && errors.Is(err, ctx.Err())
	switch {
	case err == nil:
		return nil
	case ended && errors.Is(ctx.Err(), context.Canceled):
		return exitWith(exitInterrupted, errors.New("interrupted"))
	case ended && err == ctx.Err():
		return exitWith(exitTimeout, fmt.Errorf("--timeout %v is over", f.timeout))
	case ended:
		return exitWith(exitTimeout, fmt.Errorf("--timeout %v is over: %w", f.timeout, err))
	case errors.As(err, &wait), errors.As(err, &lost):
		return exitWith(exitTimeout, err)
	case errors.As(err, &notice):
		return exitWith(exitNotice, err)
	}
	return err
}

// signalTwice is how far apart two signals are for the second one to mean
// something: who runs this may pass one signal on both to the process and to
// its group, as timeout(1) does.
const signalTwice = time.Second

// untilSignal returns a context that SIGINT, SIGTERM and what more there is
// end. From signalTwice after the first one signals have their usual effect, so
// that a second one always helps.
func untilSignal(parent context.Context, more ...os.Signal) (context.Context, func()) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, append(more, os.Interrupt, syscall.SIGTERM)...)
	context.AfterFunc(ctx, func() { time.AfterFunc(signalTwice, stop) })
	return ctx, stop
}

// member is who a message or echo goes to.
type member struct {
	address codec.Address
	name    string // empty when an address was given
}

func (m member) String() string {
	if m.name == "" {
		return m.address.String()
	}
	return m.name + " (" + m.address.String() + ")"
}

// checkMember reports an argument, called what, that can be neither an address
// nor a name.
func checkMember(what, to string) error {
	if _, err := codec.ParseAddress(to); err == nil {
		return nil
	}
	if err := pki.CheckName(strings.TrimPrefix(to, nodeRouterPrefix)); err != nil {
		return usageError{fmt.Errorf("%s %q is neither an address such as fde1:4b0f:2020:0:1234:5678:9abc:def0 nor a name: %w", what, to, err)}
	}
	return nil
}

// findMember finds an address by name.
func findMember(ctx context.Context, n *node.Node, to string) (member, error) {
	if a, err := codec.ParseAddress(to); err == nil {
		return member{address: a}, nil
	}
	if to == nodeRouter {
		r, ok := n.Router()
		if peers := n.Peers(); !ok && len(peers) > 0 {
			return member{peers[0].Address, peers[0].Name}, nil
		}
		if !ok {
			return member{}, errors.New("the connection to the router has just ended; try again")
		}
		return member{r.Address, nodeRouterPrefix + r.Name}, nil
	}
	e, err := n.Lookup(ctx, to)
	return member{e.Address, e.Name}, err
}

// printJSON prints v on a line.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// milliseconds is a duration as shown to people and in JSON.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
