package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Bounds of an answer of the admin port.
const (
	adminTimeout    = 30 * time.Second
	adminAnswerMax  = 256 << 20 // bytes
	adminRefusalMax = 1 << 10   // bytes of an error's text
)

// adminFlags say where a running router's admin port is.
type adminFlags struct {
	admin   string
	timeout time.Duration
}

func (f *adminFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.admin, "admin", adminDefault, "`HOST:PORT` of the router's admin port")
	fl.DurationVar(&f.timeout, "timeout", adminTimeout, "longest wait for all of the answer")
}

// get returns the router's answer for a path.
func (f *adminFlags) get(ctx context.Context, path string) ([]byte, error) {
	if _, _, err := net.SplitHostPort(f.admin); err != nil {
		return nil, usageError{fmt.Errorf("--admin %q: must be HOST:PORT", f.admin)}
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.admin+path, nil)
	if err != nil {
		return nil, usageError{fmt.Errorf("--admin %q: %w", f.admin, err)}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is this machine's, or near
	answer, err := client.Do(request)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nothing listens on %s; is the router running, and with --admin %s?", f.admin, f.admin)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("no answer from %s within %v", f.admin, f.timeout)
	case err != nil:
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, adminRefusalMax))
		return nil, fmt.Errorf("%s answers %s for %s: %s; is that a router's admin port?", f.admin, answer.Status, path, printable(text, adminRefusalMax))
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, adminAnswerMax+1))
	if err == nil && len(body) > adminAnswerMax {
		err = fmt.Errorf("the answer of %s is larger than %d bytes", f.admin, adminAnswerMax)
	}
	return body, err
}

func debugCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Look into a running router",
		Args:  cobra.NoArgs,
		RunE:  needVerb,
	}
	cmd.AddCommand(debugDumpCommand())
	return cmd
}

// stdoutName is the --out that means stdout.
const stdoutName = "-"

func debugDumpCommand() *cobra.Command {
	var f adminFlags
	var out string
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Write what a running router is doing into a file",
		Long: `Ask a running router for its connections, metrics and goroutines, and write
them into one file, to look at or to send to who can read it. It holds names,
addresses and numbers, no keys and no messages.

  causeway debug dump --out router.txt

The router writes the same by itself when it gets SIGUSR1 (serve --dump-dir).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				out = "causeway-" + time.Now().UTC().Format(dumpTimeFormat) + ".txt"
			}
			if out != stdoutName {
				if err := absent(out, "choose another with --out"); err != nil {
					return err
				}
			}
			text, err := f.get(cmd.Context(), "/debug/dump")
			if err != nil {
				return err
			}
			if out == stdoutName {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			if err := writeNew(out, text, modeSecret, "choose another with --out"); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), out)
			return nil
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write, which must not be there yet; -: stdout; default causeway-TIME.txt")
	return cmd
}

// dumpTimeFormat stands in names of files.
const dumpTimeFormat = "20060102T150405Z"

// writeDumpFile writes a dump into a new file in dir, readable for its owner
// alone, and returns its name.
func writeDumpFile(dir string, write func(io.Writer) error) (name string, err error) {
	file, err := os.CreateTemp(dir, "causeway-"+time.Now().UTC().Format(dumpTimeFormat)+"-*.txt") // 0600, never another's file
	if err != nil {
		return "", err
	}
	if err = errors.Join(write(file), file.Close()); err != nil {
		os.Remove(file.Name())
		return "", err
	}
	return filepath.Clean(file.Name()), nil
}
