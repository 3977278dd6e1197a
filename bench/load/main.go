package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// First arguments: what to measure, and those that make this program one of its
// own children.
const (
	verbIdle      = "idle"
	verbPressure  = "pressure"
	verbFlood     = "flood"
	verbChain     = "chain"
	verbPeers     = "peers"
	verbClient    = "child-client"    // the load
	verbReference = "child-reference" // a variant that is not the router
	verbCrowd     = "child-crowd"     // clients that are not the load
	verbSink      = "child-sink"      // what attackers are aimed at for comparison
	verbAttackers = "child-attackers" // of flood
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run carries out a command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := dispatch(ctx, args, stdin, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	default:
		fmt.Fprintln(stderr, "load:", err)
		return 1
	}
}

func dispatch(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	switch verb {
	case verbClient:
		return serveClient(stdin, stdout)
	case verbReference:
		return serveReference(ctx, args[1:], stderr)
	case verbCrowd:
		return serveCrowd(stdin, stdout)
	case verbSink:
		return serveSink(ctx, stderr)
	case verbPressure:
		o, err := parsePressureOptions(args[1:], stderr)
		if err != nil {
			return err
		}
		return withstand(ctx, o, stdout, stderr)
	case verbAttackers:
		return serveAttackers(stdin)
	case verbFlood:
		o, err := parseFloodOptions(args[1:], stderr)
		if err != nil {
			return err
		}
		return measureFlood(ctx, o, stdout, stderr)
	case verbChain:
		o, err := parseChainOptions(args[1:], stderr)
		if err != nil {
			return err
		}
		return measureChain(ctx, o, stdout, stderr)
	case verbPeers:
		o, err := parsePeersOptions(args[1:], stderr)
		if err != nil {
			return err
		}
		return measurePeers(ctx, o, stdout, stderr)
	case verbIdle:
		o, err := parseIdleOptions(args[1:], stderr)
		if err != nil {
			return err
		}
		return measureIdle(ctx, o, stdout, stderr)
	default:
		o, err := parseOptions(args, stderr)
		if err != nil {
			return err
		}
		return measure(ctx, o, stdout, stderr)
	}
}
