package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine/node"
)

const (
	pingTimeoutDefault  = 5 * time.Second
	pingCountDefault    = 4
	pingIntervalDefault = time.Second
)

// pinging is one run of ping.
type pinging struct {
	nodeFlags
	to       string
	count    int
	interval time.Duration
	each     time.Duration // longest wait for one answer
	stdout   io.Writer

	asked, answered uint64
	least, most     time.Duration
	sum             time.Duration
}

func nodePingCommand() *cobra.Command {
	f := &pinging{}
	cmd := &cobra.Command{
		Use:   "ping --identity DIR --connect URL [--to NAME|ADDRESS|router]",
		Short: "Measure the time to another node or the router, and back",
		Long: `Measure the time to another node and back, or to the router when there is no
--to. Nodes answer by themselves, whatever they do otherwise.

  causeway node ping --identity alice --connect dbw://127.0.0.1:7100 --to bob

It ends with 0 when all answers came, with 3 when a notice said that the node
can't be reached, with 4 when an answer did not come in time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.ping(cmd) },
	}
	f.add(cmd, "error", "longest wait for each answer", pingTimeoutDefault)
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", nodeRouter, "`NAME` of a connected node, router/NAME, an address, or router for the one connected to")
	fl.IntVar(&f.count, "count", pingCountDefault, "how many times; 0: until SIGINT")
	fl.DurationVar(&f.interval, "interval", pingIntervalDefault, "time from one to the next")
	return cmd
}

func (f *pinging) ping(cmd *cobra.Command) error {
	if err := checkMember(f.to); err != nil {
		return err
	}
	if f.count < 0 || f.interval < 0 || f.timeout <= 0 {
		return usageError{errors.New("--count and --interval must not be negative, and --timeout must be positive")}
	}
	c, err := f.config(cmd)
	if err != nil {
		return err
	}
	f.stdout = cmd.OutOrStdout()
	f.each, f.timeout = f.timeout, 0 // not for all of it
	return f.run(cmd, c, f.echo)
}

// echo asks count times and sums up.
func (f *pinging) echo(ctx context.Context, n *node.Node) error {
	to, err := findMember(ctx, n, f.to)
	if err != nil {
		return err
	}
	tick := time.NewTicker(max(f.interval, 1)) // a ticker takes no 0
	defer tick.Stop()
	for f.count == 0 || f.asked < uint64(f.count) {
		if err = f.once(ctx, n, to); err != nil {
			break
		}
		if f.asked == uint64(f.count) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		case <-n.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	if f.asked == 0 {
		return err
	}
	if sumErr := f.showSum(to); err == nil {
		err = sumErr
	}
	if err == nil && f.answered < f.asked {
		err = exitWith(exitTimeout, fmt.Errorf("%d of %d answers did not come within --timeout %v", f.asked-f.answered, f.asked, f.each))
	}
	return err
}

// once asks once. An answer that does not come is no error here.
func (f *pinging) once(ctx context.Context, n *node.Node, to member) error {
	one, cancel := context.WithTimeout(ctx, f.each)
	defer cancel()
	took, err := n.Ping(one, to.address, binary.BigEndian.AppendUint64(nil, f.asked+1))
	switch {
	case ctx.Err() != nil:
		return nil // a signal: this one does not count
	case err != nil && one.Err() == nil:
		return err
	}
	f.asked++
	if err != nil {
		return f.showOne(to, nil)
	}
	if f.answered == 0 || took < f.least {
		f.least = took
	}
	f.answered++
	f.most = max(f.most, took)
	f.sum += took
	return f.showOne(to, &took)
}

// pingAnswer is what --json prints of one answer or its absence.
type pingAnswer struct {
	To           codec.Address `json:"to"`
	ToName       string        `json:"toName,omitempty"`
	Number       uint64        `json:"number"`
	Milliseconds *float64      `json:"milliseconds,omitempty"` // absent: no answer came
}

// pingSum is the last line that --json prints.
type pingSum struct {
	Asked    uint64  `json:"asked"`
	Answered uint64  `json:"answered"`
	Min      float64 `json:"minMilliseconds"`
	Avg      float64 `json:"avgMilliseconds"`
	Max      float64 `json:"maxMilliseconds"`
}

func (f *pinging) showOne(to member, took *time.Duration) (err error) {
	switch {
	case f.json:
		out := pingAnswer{To: to.address, ToName: to.name, Number: f.asked}
		if took != nil {
			ms := milliseconds(*took)
			out.Milliseconds = &ms
		}
		return printJSON(f.stdout, out)
	case took == nil:
		_, err = fmt.Fprintf(f.stdout, "%d: no answer from %s within %v\n", f.asked, to, f.each)
	default:
		_, err = fmt.Fprintf(f.stdout, "%d: answer from %s after %.3f ms\n", f.asked, to, milliseconds(*took))
	}
	return err
}

func (f *pinging) showSum(to member) (err error) {
	out := pingSum{Asked: f.asked, Answered: f.answered, Min: milliseconds(f.least), Max: milliseconds(f.most)}
	if f.answered > 0 {
		out.Avg = milliseconds(f.sum / time.Duration(f.answered))
	}
	switch {
	case f.json:
		return printJSON(f.stdout, out)
	case f.answered == 0:
		_, err = fmt.Fprintf(f.stdout, "%s: %d asked, none answered\n", to, f.asked)
	default:
		_, err = fmt.Fprintf(f.stdout, "%s: %d asked, %d answered; min %.3f ms, avg %.3f ms, max %.3f ms\n", to, f.asked, f.answered, out.Min, out.Avg, out.Max)
	}
	return err
}
