package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine/node"
)

// sending is one run of send.
type sending struct {
	nodeFlags
	to, file    string
	category    uint8
	plain, wait bool
	body        []byte
	stdout      io.Writer
	unclear     atomic.Pointer[node.NoticeError] // it may mean the message, or another
}

func nodeSendCommand() *cobra.Command {
	f := &sending{}
	cmd := &cobra.Command{
		Use:   "send --identity DIR --connect URL|--direct URL --to NAME|ADDRESS [BODY]",
		Short: "Send a message",
		Long: `Send a message. Its body is the argument, or --file, or stdin when neither is
there or the argument is -.

  causeway node send --identity alice --connect dbw://127.0.0.1:7100 --to bob hello

The message is sealed, so that the recipient alone can read it; for that it has
to be connected. With --plain the routers of the domain can read it, too, and the
recipient takes it only if it has been told so (listen --accept-plain).

It ends with 0 when the router has confirmed the message: from then on it is
the network's to deliver it. With --wait it ends with 0 only when the recipient
itself says that it has seen the message. It ends with 3 when a notice says
that the message was not delivered, or perhaps not (the reason is on stderr),
with 4 when nothing came in time.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.send(cmd, args) },
	}
	f.add(cmd, "error", "longest time for all of it", nodeTimeoutDefault)
	f.addDirect(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", "", "recipient: `NAME` of a connected node, or an address (required)")
	fl.BoolVar(&f.plain, "plain", false, "send a body that the routers of the domain could read; category 5 is sealed all the same")
	fl.BoolVar(&f.wait, "wait", false, "wait until the recipient has seen it")
	fl.Uint8Var(&f.category, "category", uint8(codec.CategoryData), "what kind of message: 0 for data, 5 for device traffic, or an application's own from 64 to 255")
	fl.StringVar(&f.file, "file", "", "`FILE` with the body")
	return cmd
}

func (f *sending) send(cmd *cobra.Command, args []string) error {
	if f.to == "" {
		return usageError{errors.New("send needs --to NAME or --to ADDRESS; causeway node list shows who is connected")}
	}
	if err := checkMember("--to", f.to); err != nil {
		return err
	}
	if c := codec.Category(f.category); c != codec.CategoryData && c != codec.CategoryDevice && c < codec.CategoryApplication {
		return usageError{fmt.Errorf("--category: %w", &node.CategoryError{Category: c})}
	}
	c, err := f.config(cmd)
	if err != nil {
		return err
	}
	if f.body, err = f.readBody(cmd.InOrStdin(), args); err != nil {
		return err
	}
	c.Plain = f.plain
	c.OnNotice = func(e *node.NoticeError) {
		if e.Ambiguous > 0 {
			f.unclear.Store(e)
		}
	}
	f.stdout = cmd.OutOrStdout()
	return f.run(cmd, c, f.deliver)
}

// readBody reads the body from where the command line says.
func (f *sending) readBody(stdin io.Reader, args []string) ([]byte, error) {
	from, what := stdin, "stdin"
	switch {
	case f.file != "" && len(args) > 0:
		return nil, usageError{errors.New("the body is in --file and on the command line: give one of them")}
	case f.file != "":
		file, err := os.Open(f.file)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer file.Close()
		from, what = file, f.file
	case len(args) > 0 && args[0] != "-":
		return []byte(args[0]), nil
	}
	body, err := io.ReadAll(io.LimitReader(from, codec.BodyMaxLimit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(body) > codec.BodyMaxLimit {
		return nil, fmt.Errorf("%s has more than the %d bytes that a message can have: send it in parts", what, codec.BodyMaxLimit)
	}
	return body, nil
}

// What became of a message, as printed.
const (
	statusConfirmed = "confirmed" // by the router
	statusSeen      = "seen"      // by the recipient
	statusNotice    = "notice"    // not delivered
	statusPerhaps   = "perhaps"   // delivered, or not: the recipient's connection ended, or this node's
	statusTimeout   = "timeout"
	statusFailed    = "failed"
)

// sentMessage is what --json prints of a message.
type sentMessage struct {
	To           codec.Address `json:"to"`
	ToName       string        `json:"toName,omitempty"`
	Category     uint8         `json:"category"`
	SendTime     string        `json:"sendTime,omitempty"` // RFC 3339, with nanoseconds; it and Digest are empty when nothing was sent
	Digest       string        `json:"digest,omitempty"`
	Bytes        int           `json:"bytes"`
	Status       string        `json:"status"`
	Reason       string        `json:"reason,omitempty"` // of "notice" and "perhaps"
	Milliseconds float64       `json:"milliseconds"`     // until the status was known
}

func (f *sending) deliver(ctx context.Context, n *node.Node) error {
	to, err := findMember(ctx, n, f.to)
	if err != nil {
		return err
	}
	start := time.Now()
	sent, err := n.Send(ctx, to.address, codec.Category(f.category), f.body)
	if err != nil {
		coded := f.coded(ctx, err)
		if code := exitCodeOf(coded); code == exitNotice || code == exitTimeout {
			err = errors.Join(err, f.show(&node.Sent{}, to, statusFailed, time.Since(start), coded))
		}
		return err
	}
	outcome := statusConfirmed
	if f.wait {
		outcome = statusSeen
		err = sent.Seen(ctx)
	} else {
		err = sent.Confirmed(ctx)
	}
	err = f.doubt(sent, err)
	if showErr := f.show(sent, to, outcome, time.Since(start), f.coded(ctx, err)); err == nil {
		err = showErr
	}
	return err
}

// doubt returns what to say instead of err when a notice leaves open what became
// of the message, and nothing else tells.
func (f *sending) doubt(sent *node.Sent, err error) error {
	var wait *node.WaitError
	if err == nil && f.wait || err != nil && !errors.As(err, &wait) {
		return err
	}
	ended, end := context.WithCancel(context.Background())
	end()
	notice := f.unclear.Load()
	errors.As(sent.Confirmed(ended), &notice)
	switch {
	case notice == nil:
		return err
	case err == nil:
		return notice
	}
	return &node.WaitError{For: wait.For, Last: notice, Err: wait.Err}
}

// outcomeOf returns the status for an error, and a notice's reason.
func outcomeOf(err error) (status, reason string) {
	var notice *node.NoticeError
	var unconfirmed *node.UnconfirmedError
	code := exitCodeOf(err)
	switch {
	case errors.As(err, &unconfirmed):
		return statusPerhaps, codec.NoticeUnconfirmed.String()
	case errors.As(err, &notice) && (notice.Reason == codec.NoticeUnconfirmed || notice.Ambiguous > 0):
		return statusPerhaps, notice.Reason.String()
	case code == exitNotice:
		return statusNotice, notice.Reason.String()
	case code == exitTimeout:
		return statusTimeout, ""
	}
	return statusFailed, ""
}

// show prints what became of the message; err is nil if all went well.
func (f *sending) show(sent *node.Sent, to member, outcome string, took time.Duration, err error) error {
	var reason string
	if err != nil {
		outcome, reason = outcomeOf(err)
	}
	sendTime, digest := "", ""
	if sent.SendTime > 0 {
		sendTime, digest = time.Unix(0, int64(sent.SendTime)).UTC().Format(time.RFC3339Nano), sent.Digest.String()
	}
	if f.json {
		return printJSON(f.stdout, sentMessage{
			To: to.address, ToName: to.name, Category: f.category, SendTime: sendTime, Digest: digest,
			Bytes: len(f.body), Status: outcome, Reason: reason, Milliseconds: milliseconds(took),
		})
	}
	text := map[string]string{
		statusConfirmed: "confirmed by the router", statusSeen: "seen by the recipient", statusNotice: "not delivered: " + reason,
		statusPerhaps: "perhaps delivered, perhaps not: " + reason, statusTimeout: "no answer", statusFailed: "failed",
	}[outcome]
	_, err = fmt.Fprintf(f.stdout, "%s to %s, %s, %s: %s after %.1f ms\n",
		word(digest), to, categoryText(codec.Category(f.category)), bytesText(len(f.body)), text, milliseconds(took))
	return err
}
