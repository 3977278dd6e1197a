package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine/node"
)

const (
	pingTimeoutDefault  = 5 * time.Second
	pingCountDefault    = 4
	pingIntervalDefault = time.Second
	pingSizeDefault     = 56 // bytes, as of ping(8)
)

// pinging is one run of ping.
type pinging struct {
	nodeFlags
	to       string
	count    int
	size     int
	interval time.Duration
	each     time.Duration // longest wait for one answer
	stdout   io.Writer

	times     roundTrips
	noticed   uint64 // of those sent, how many a notice came for
	lastWords error  // the last notice
}

func nodePingCommand() *cobra.Command {
	f := &pinging{}
	cmd := &cobra.Command{
		Use:   "ping --identity DIR --connect URL|--direct URL [--to NAME|ADDRESS|router]",
		Short: "Measure the time to another node or the router, and back",
		Long: `Measure the time to another node and back, or to the router when there is no
--to. Nodes answer by themselves, whatever they do otherwise.

  causeway node ping --identity alice --connect dbw://127.0.0.1:7100 --to bob

At the end, also by SIGINT, it says how many were sent and answered, and the
least, mean and greatest time and their standard deviation (mdev). It ends with
0 when all answers came, with 3 when a notice said of one that it could not be
delivered, with 4 when an answer did not come in time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.ping(cmd) },
	}
	f.add(cmd, "error", "longest wait for each answer", pingTimeoutDefault)
	f.addDirect(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", nodeRouter, "`NAME` of a connected node, router/NAME, an address, or router for the one connected to (with --direct: that node)")
	fl.IntVar(&f.count, "count", pingCountDefault, "how many times; 0: until SIGINT")
	fl.DurationVar(&f.interval, "interval", pingIntervalDefault, "time from one to the next")
	fl.IntVar(&f.size, "size", pingSizeDefault, fmt.Sprintf("`BYTES` sent and answered each time, at most %d", codec.EchoPayloadMax))
	return cmd
}

func (f *pinging) ping(cmd *cobra.Command) error {
	if err := checkMember("--to", f.to); err != nil {
		return err
	}
	if f.count < 0 || f.interval < 0 || f.timeout <= 0 {
		return usageError{errors.New("--count and --interval must not be negative, and --timeout must be positive")}
	}
	if f.size < 0 || f.size > codec.EchoPayloadMax {
		return usageError{fmt.Errorf("--size %d: must be from 0 to %d bytes", f.size, codec.EchoPayloadMax)}
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
	for f.count == 0 || f.times.sent < uint64(f.count) {
		if err = f.once(ctx, n, to); err != nil {
			break
		}
		if f.times.sent == uint64(f.count) {
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
	if f.times.sent == 0 {
		return err
	}
	if sumErr := f.showSum(to); err == nil {
		err = sumErr
	}
	switch lost := f.times.sent - f.times.answered; {
	case err != nil || lost == 0:
		return err
	case f.noticed > 0:
		return exitWith(exitNotice, fmt.Errorf("%d of %d were not delivered: %w", f.noticed, f.times.sent, f.lastWords))
	default:
		return exitWith(exitTimeout, fmt.Errorf("%d of %d answers did not come within --timeout %v", lost, f.times.sent, f.each))
	}
}

// once asks once. An answer that does not come is no error here, nor a notice.
func (f *pinging) once(ctx context.Context, n *node.Node, to member) error {
	one, cancel := context.WithTimeout(ctx, f.each)
	defer cancel()
	payload := make([]byte, max(f.size, 8))
	binary.BigEndian.PutUint64(payload, f.times.sent+1)
	took, err := n.Ping(one, to.address, payload[:f.size])
	var notice *node.NoticeError
	switch {
	case ctx.Err() != nil:
		return nil // a signal: this one does not count
	case errors.As(err, &notice):
		f.noticed++
		f.lastWords = notice
	case err != nil && one.Err() == nil:
		return err
	}
	f.times.sent++
	if err != nil {
		return f.showOne(to, nil, notice)
	}
	f.times.add(took)
	return f.showOne(to, &took, nil)
}

// roundTrips are the statistics of times to somebody and back.
type roundTrips struct {
	sent, answered uint64
	least, most    time.Duration
	sum            time.Duration
	mean, squares  float64 // seconds: of those answered, the mean, and the sum of squared distances from it
}

// add counts an answer (Welford's method: no difference of two large sums).
func (r *roundTrips) add(took time.Duration) {
	if r.answered == 0 || took < r.least {
		r.least = took
	}
	r.answered++
	r.most = max(r.most, took)
	r.sum += took
	delta := took.Seconds() - r.mean
	r.mean += delta / float64(r.answered)
	r.squares += delta * (took.Seconds() - r.mean)
}

// avg returns the mean, 0 without answers.
func (r *roundTrips) avg() time.Duration {
	if r.answered == 0 {
		return 0
	}
	return r.sum / time.Duration(r.answered)
}

// mdev returns the standard deviation, 0 without answers.
func (r *roundTrips) mdev() time.Duration {
	if r.answered == 0 {
		return 0
	}
	return time.Duration(math.Sqrt(r.squares/float64(r.answered)) * float64(time.Second))
}

// lost returns how much of what was sent was not answered, in percent.
func (r *roundTrips) lost() float64 {
	return 100 * float64(r.sent-r.answered) / float64(r.sent)
}

// pingAnswer is what --json prints of one answer or its absence.
type pingAnswer struct {
	To           codec.Address `json:"to"`
	ToName       string        `json:"toName,omitempty"`
	Number       uint64        `json:"number"`
	Milliseconds *float64      `json:"milliseconds,omitempty"` // absent: no answer came
	Notice       string        `json:"notice,omitempty"`       // the reason, when a notice came
}

// pingSum is the last line that --json prints.
type pingSum struct {
	Asked    uint64  `json:"asked"`
	Answered uint64  `json:"answered"`
	Lost     float64 `json:"lostPercent"`
	Min      float64 `json:"minMilliseconds"`
	Avg      float64 `json:"avgMilliseconds"`
	Max      float64 `json:"maxMilliseconds"`
	Mdev     float64 `json:"mdevMilliseconds"`
}

func (f *pinging) showOne(to member, took *time.Duration, notice *node.NoticeError) (err error) {
	number := f.times.sent
	switch {
	case f.json:
		out := pingAnswer{To: to.address, ToName: to.name, Number: number}
		if took != nil {
			ms := milliseconds(*took)
			out.Milliseconds = &ms
		}
		if notice != nil {
			out.Notice = notice.Reason.String()
		}
		return printJSON(f.stdout, out)
	case notice != nil:
		_, err = fmt.Fprintf(f.stdout, "%d: %v\n", number, notice)
	case took == nil:
		_, err = fmt.Fprintf(f.stdout, "%d: no answer from %s within %v\n", number, to, f.each)
	default:
		_, err = fmt.Fprintf(f.stdout, "%d: answer from %s after %.3f ms\n", number, to, milliseconds(*took))
	}
	return err
}

func (f *pinging) showSum(to member) (err error) {
	r := &f.times
	out := pingSum{
		Asked: r.sent, Answered: r.answered, Lost: math.Round(r.lost()*10) / 10,
		Min: milliseconds(r.least), Avg: milliseconds(r.avg()), Max: milliseconds(r.most), Mdev: milliseconds(r.mdev()),
	}
	if f.json {
		return printJSON(f.stdout, out)
	}
	_, err = fmt.Fprintf(f.stdout, "%s: %d asked, %d answered, %g %% lost", to, out.Asked, out.Answered, out.Lost)
	if err == nil && out.Answered > 0 {
		_, err = fmt.Fprintf(f.stdout, "; min %.3f ms, avg %.3f ms, max %.3f ms, mdev %.3f ms", out.Min, out.Avg, out.Max, out.Mdev)
	}
	if err == nil {
		_, err = fmt.Fprintln(f.stdout)
	}
	return err
}
