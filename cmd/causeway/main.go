// Command causeway is the router, its nodes' command line, and the tools of a
// domain's authority.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes; a verb may have more of its own (exitWith).
const (
	exitOK    = 0
	exitError = 1 // the work failed
	exitUsage = 2 // the command line makes no sense
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// verbs returns the sub-commands, in the order of the help text.
func verbs() []*cobra.Command {
	return []*cobra.Command{
		serveCommand(),
		peersCommand(),
		routesCommand(),
		debugCommand(),
		nodeCommand(),
		pkiCommand(),
		demoCommand(),
		cpuCommand(),
		versionCommand(),
	}
}

// rootCommand returns the whole command tree.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "causeway",
		Short:         "Route signed messages between the nodes of a domain",
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          needVerb,
	}
	cobra.EnableCommandSorting = false
	root.AddCommand(verbs()...)
	return root
}

// needVerb is what a command does that only has sub-commands: it shows them.
func needVerb(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(cmd.ErrOrStderr())
	if err := cmd.Help(); err != nil {
		return err
	}
	return exitWith(exitUsage, nil)
}

// run carries out a command line and returns the exit code. Errors go to
// stderr as "causeway: …"; each says what mends it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	markWork(root)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	var coded *codedError
	if errors.As(err, &coded) && coded.err == nil {
		return coded.code // said already
	}
	fmt.Fprintln(stderr, "causeway:", strings.Map(terminalSafe, err.Error()))
	return exitCodeOf(err)
}

// terminalSafe replaces what a terminal could take for a command: errors carry
// words of other programs.
func terminalSafe(r rune) rune {
	if r == '\n' || r == '\t' || strconv.IsPrint(r) {
		return r
	}
	return '\uFFFD'
}

func exitCodeOf(err error) int {
	var coded *codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	var work workError
	var usage usageError
	if errors.As(err, &usage) || !errors.As(err, &work) {
		return exitUsage
	}
	return exitError
}

// workError marks what a verb's own work returned. Errors without the mark
// come from cobra: unknown verbs and flags, wrong arguments.
type workError struct{ error }

func (e workError) Unwrap() error { return e.error }

// markWork wraps the work of all commands below cmd.
func markWork(cmd *cobra.Command) {
	if work := cmd.RunE; work != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := work(cmd, args); err != nil {
				return workError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markWork(sub)
	}
}

// codedError is an error with an exit code of its own.
type codedError struct {
	code int
	err  error // nil: everything was said already
}

func (e *codedError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

// exitWith returns err, which ends the program with code. A nil err prints
// nothing more.
func exitWith(code int, err error) error { return &codedError{code, err} }
