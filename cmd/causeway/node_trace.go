package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine/node"
)

const (
	traceTimeoutDefault = time.Minute
	traceWaitDefault    = 2 * time.Second
	traceHopsLimit      = 255
)

// tracing is one run of trace.
type tracing struct {
	nodeFlags
	hopsMax int
	wait    time.Duration
	stdout  io.Writer
}

func nodeTraceCommand() *cobra.Command {
	f := &tracing{}
	cmd := &cobra.Command{
		Use:   "trace --identity DIR --connect URL NAME|ADDRESS",
		Short: "Show each router on the way to a node, and what stops messages there",
		Long: `Show each router on the way to a node or another router, one a line, and in
the end the node itself: its name, as its certificate says, its address, the
time to it and back, its clock, and its software, in its own words.

  causeway node trace --identity alice --connect dbw://127.0.0.1:7100 bob

A line * is of a router that has not answered within --wait: it may be too busy
for that and forward messages all the same. After four of them in a row the
trace ends. The last line says why it ended: the node has answered, or what
the notice of a router means, or where nothing more was heard.

It ends with 0 when the node has answered, with 3 when a notice said that it
can't be reached, with 4 when its answer did not come.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("trace needs one name or address to trace")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.trace(cmd, args[0]) },
	}
	f.add(cmd, "error", "longest time for all of it", traceTimeoutDefault)
	fl := cmd.Flags()
	fl.IntVar(&f.hopsMax, "max-hops", codec.TTLDefault, fmt.Sprintf("go so many hops at most, from 1 to %d", traceHopsLimit))
	fl.DurationVar(&f.wait, "wait", traceWaitDefault, "longest wait for the answer of one hop")
	return cmd
}

func (f *tracing) trace(cmd *cobra.Command, name string) error {
	if err := checkMember("the argument", name); err != nil {
		return err
	}
	if f.hopsMax < 1 || f.hopsMax > traceHopsLimit || f.wait <= 0 {
		return usageError{fmt.Errorf("--max-hops must be from 1 to %d, and --wait must be positive", traceHopsLimit)}
	}
	c, err := f.config(cmd)
	if err != nil {
		return err
	}
	f.stdout = cmd.OutOrStdout()
	return f.run(cmd, c, func(ctx context.Context, n *node.Node) error {
		to, err := findMember(ctx, n, name)
		if err != nil {
			return err
		}
		return f.show(ctx, n, to)
	})
}

// tracedHop is what --json prints of a hop.
type tracedHop struct {
	Hop          int            `json:"hop"`
	Name         string         `json:"name,omitempty"` // absent, like what follows: no answer came
	Address      *codec.Address `json:"address,omitempty"`
	Milliseconds *float64       `json:"milliseconds,omitempty"`
	Time         string         `json:"time,omitempty"` // RFC 3339; absent: it has not said
	Software     string         `json:"software,omitempty"`
	Next         *codec.Address `json:"next,omitempty"` // absent: it knows no way, is the end, or has not said
}

// tracedEnd is the last line that --json prints.
type tracedEnd struct {
	To     codec.Address `json:"to"`
	ToName string        `json:"toName,omitempty"`
	End    string        `json:"end"`              // arrived, notice, silent, max-hops, timeout
	Notice string        `json:"notice,omitempty"` // its reason
	From   string        `json:"from,omitempty"`   // who has said so
	Text   string        `json:"text"`
}

func (f *tracing) show(ctx context.Context, n *node.Node, to member) error {
	if !f.json {
		fmt.Fprintf(f.stdout, "trace to %s from %s, %d hops at most\n", to, n.Name(), f.hopsMax)
	}
	var printed error
	got, err := n.Trace(ctx, to.address, node.TraceConfig{HopsMax: f.hopsMax, Wait: f.wait, OnHop: func(h node.Hop) {
		printed = errors.Join(printed, f.showHop(h))
	}})
	end := tracedEnd{To: to.address, ToName: to.name}
	var wait *node.WaitError
	switch {
	case printed != nil:
		return printed
	case errors.As(err, &wait):
		end.End, end.Text = "timeout", fmt.Sprintf("--timeout %v was over after %s", f.timeout, several(len(got.Hops), "hop"))
	case err != nil:
		return err
	default:
		end.End, end.Text = f.ended(got, to)
	}
	if got.Notice != nil {
		end.Notice, end.From = got.Notice.Reason.String(), got.Notice.From.String()
	}
	if f.json {
		printed = printJSON(f.stdout, end)
	} else {
		_, printed = fmt.Fprintln(f.stdout, end.Text)
	}
	switch {
	case err != nil:
		return err
	case printed != nil:
		return printed
	case got.End == node.TraceNoticed:
		return got.Notice
	case got.End != node.TraceArrived:
		return exitWith(exitTimeout, errors.New("no answer from "+to.String()))
	}
	return nil
}

// ended says why a trace has ended, in a word and for people.
func (f *tracing) ended(got node.Trace, to member) (word, text string) {
	heard := "not even from the router that this node is connected to"
	for _, h := range got.Hops {
		if !h.Address.IsZero() {
			heard = fmt.Sprintf("the last that answered is hop %d, %s", h.Number, h.Name)
			if !h.Next.IsZero() {
				heard += ", which sends on to " + h.Next.String()
			}
		}
	}
	switch got.End {
	case node.TraceArrived:
		last := got.Hops[len(got.Hops)-1]
		return "arrived", fmt.Sprintf("%s has answered, after %s", to, several(last.Number-1, "router"))
	case node.TraceNoticed:
		return "notice", "stopped: " + got.Notice.Error()
	case node.TraceSilent:
		return "silent", "nothing more was heard: " + heard
	}
	return "max-hops", fmt.Sprintf("%s is not within %s (--max-hops): %s", to, several(f.hopsMax, "hop"), heard)
}

// several is n of a thing, in words.
func several(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func (f *tracing) showHop(h node.Hop) error {
	silent := h.Address.IsZero()
	if f.json {
		out := tracedHop{Hop: h.Number, Name: h.Name, Software: h.Software}
		if !silent {
			ms := milliseconds(h.RoundTrip)
			out.Address, out.Milliseconds = &h.Address, &ms
		}
		if !h.Time.IsZero() {
			out.Time = h.Time.UTC().Format(timeShown)
		}
		if !h.Next.IsZero() {
			out.Next = &h.Next
		}
		return printJSON(f.stdout, out)
	}
	if silent {
		_, err := fmt.Fprintf(f.stdout, "%3d  *\n", h.Number)
		return err
	}
	line := fmt.Sprintf("%3d  %-20s  %s  %.3f ms", h.Number, word(h.Name), h.Address, milliseconds(h.RoundTrip))
	if !h.Time.IsZero() {
		line += "  " + h.Time.UTC().Format(timeShown) + "  " + word(h.Software)
	}
	_, err := fmt.Fprintln(f.stdout, line)
	return err
}
