package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine/node"
)

const (
	// listenLinger is how long listen --count stays after its last message, to
	// answer senders who ask whether it was seen: they ask at once, and again
	// after a second.
	listenLinger = 1200 * time.Millisecond
	// listenBodyShown bounds what is shown of a body as text, in bytes.
	listenBodyShown = 2048
	timeShown       = "2006-01-02T15:04:05.000Z07:00"
)

// listening is one run of listen.
type listening struct {
	nodeFlags
	acceptPlain, acceptOld bool
	count                  int
	stdout, stderr         io.Writer
	logger                 *slog.Logger
}

func nodeListenCommand() *cobra.Command {
	f := &listening{}
	cmd := &cobra.Command{
		Use:   "listen --identity DIR --connect URL|--accept-on URL",
		Short: "Print the messages that come",
		Long: `Print the messages that come, one a line, until SIGINT or SIGTERM:

  causeway node listen --identity bob --connect dbw://127.0.0.1:7100

When "listening as NAME ADDRESS at ROUTER" stands on stderr, messages can come.
In text, what a terminal could take for something else is escaped as in \x1b,
and long bodies are cut; --json has them whole: as "body", or as "bodyBase64"
when they are not UTF-8.

Messages that the routers of the domain could read are refused, and their senders
told, unless --accept-plain is given; those are shown as plain.

With --accept-on nodes of the domain connect to this one, without a router
(--direct), with or without --connect beside it. They exchange messages with this
node alone: it forwards nothing. It does not wait for a router then: one that can't be
reached, or refuses it, is no error, and tried again until it takes it.

  causeway node listen --identity bob --accept-on dbw://127.0.0.1:7101

While it runs, causeway node sessions --identity DIR shows its sessions; it asks by
the socket node.sock in the identity directory.

A lost connection is made again; without --accept-on a router that can't be reached at
the start is an error. A renewed certificate in the identity directory is noticed, and
taken without closing the connection.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.listen(cmd) },
	}
	f.add(cmd, "info", "end with exit code 4 after so long; 0: never", 0)
	fl := cmd.Flags()
	fl.StringArrayVar(&f.acceptOn, "accept-on", nil, "`URL` to listen on for nodes of the domain, such as dbw://127.0.0.1:7101; may be repeated; port 0 is any free one")
	fl.BoolVar(&f.acceptPlain, "accept-plain", false, "take messages that the routers of the domain could read, too")
	fl.BoolVar(&f.acceptOld, "accept-old", false, "take messages that were sent before this process started")
	fl.IntVar(&f.count, "count", 0, "end after `N` messages; 0: never")
	return cmd
}

func (f *listening) listen(cmd *cobra.Command) error {
	if f.count < 0 {
		return usageError{fmt.Errorf("--count %d: must not be negative", f.count)}
	}
	c, err := f.config(cmd)
	if err != nil {
		return err
	}
	c.AcceptPlain, c.AcceptOld = f.acceptPlain, f.acceptOld
	f.logger = c.Logger
	f.stdout, f.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	err = f.run(cmd, c, f.receive)
	var coded *codedError
	if errors.As(err, &coded) && coded.code == exitInterrupted {
		return nil // a signal is how listening ends
	}
	return err
}

func (f *listening) receive(ctx context.Context, n *node.Node) error {
	at := "no router"
	if len(f.connect) > 0 {
		at = "no router yet"
	}
	if r, ok := n.Router(); ok {
		at = nodeRouterPrefix + r.Name + " (" + r.URL + ")"
	}
	if urls := n.Listening(); len(urls) > 0 {
		at += ", on " + strings.Join(urls, " ")
	}
	fmt.Fprintf(f.stderr, "listening as %s %s at %s\n", n.Name(), n.Address(), at)
	renewing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); f.keepRenewed(renewing, n, f.logger) }()
	defer func() { stop(); <-ended }()
	defer f.showSessions(n, f.logger)()
	for got := 0; f.count == 0 || got < f.count; got++ {
		m, err := n.Receive(ctx)
		if err != nil {
			return err
		}
		if err := f.show(&m); err != nil {
			return err
		}
	}
	linger := time.NewTimer(listenLinger)
	defer linger.Stop()
	select {
	case <-linger.C:
	case <-ctx.Done():
	case <-n.Done():
	}
	return nil
}

// listenedMessage is a message as --json prints it.
type listenedMessage struct {
	From       codec.Address `json:"from"`
	FromName   string        `json:"fromName"`
	To         codec.Address `json:"to"`
	Category   uint8         `json:"category"`
	SendTime   string        `json:"sendTime"` // RFC 3339, with nanoseconds
	Digest     string        `json:"digest"`
	Sealed     bool          `json:"sealed"` // no router could read it
	Body       *string       `json:"body,omitempty"`
	BodyBase64 *string       `json:"bodyBase64,omitempty"` // when the body is not UTF-8
}

func (f *listening) show(m *node.Message) error {
	sent := time.Unix(0, int64(m.SendTime)).UTC()
	if !f.json {
		plain := ""
		if !m.Sealed {
			plain = ", plain"
		}
		_, err := fmt.Fprintf(f.stdout, "%s %s %s %s%s, %s: %s\n",
			sent.Format(timeShown), m.FromName, m.From, categoryText(m.Category), plain, bytesText(len(m.Body)), printable(m.Body, listenBodyShown))
		return err
	}
	out := listenedMessage{
		From: m.From, FromName: m.FromName, To: m.To, Category: uint8(m.Category),
		SendTime: sent.Format(time.RFC3339Nano), Digest: m.Digest.String(), Sealed: m.Sealed,
	}
	if utf8.Valid(m.Body) {
		body := string(m.Body)
		out.Body = &body
	} else {
		body := base64.StdEncoding.EncodeToString(m.Body)
		out.BodyBase64 = &body
	}
	return printJSON(f.stdout, out)
}

func categoryText(c codec.Category) string {
	if c == codec.CategoryData {
		return "data"
	}
	return "category " + strconv.Itoa(int(c))
}

func bytesText(n int) string {
	if n == 1 {
		return "1 byte"
	}
	return strconv.Itoa(n) + " bytes"
}

// printable returns text from elsewhere so that it does nothing to a terminal
// but be shown: on one line, controls, invisible runes and what is not UTF-8
// escaped as in Go. Of more than max bytes the rest is only counted.
func printable(text []byte, max int) string {
	shown := text
	if len(shown) > max {
		shown = shown[:max]
		for i := 1; i < utf8.UTFMax && i < len(shown); i++ { // don't cut a rune
			if last := shown[len(shown)-i:]; utf8.RuneStart(last[0]) {
				if !utf8.FullRune(last) {
					shown = shown[:len(shown)-i]
				}
				break
			}
		}
	}
	var b strings.Builder
	for rest := shown; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, rest[0])
		case r == '\\':
			b.WriteString(`\\`)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		rest = rest[size:]
	}
	if cut := len(text) - len(shown); cut > 0 {
		fmt.Fprintf(&b, " … and %s more", bytesText(cut))
	}
	return b.String()
}
