package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine/node"
)

// A running node shows its sessions by a socket in its identity directory, which
// only its user may open: who connects is sent a nodeSessions, and nothing is read.
const (
	sessionsPatience = 5 * time.Second // for one who asks, and for the answer
	socketPathMax    = 100             // bytes; the kernel's is 107
	acceptPause      = 100 * time.Millisecond
	// nodeSocketDir, in the identity directory, is where the socket is made: others
	// can't enter it, whatever the umask. Its name is as short as the kernel's limit of
	// a socket's path wants it.
	nodeSocketDir = ".sock"
)

// nodeSessions is what is sent.
type nodeSessions struct {
	Name     string         `json:"name"`
	Address  codec.Address  `json:"address"`
	Sessions []node.Session `json:"sessions"`
}

func nodeSessionsCommand() *cobra.Command {
	var identity string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sessions --identity DIR",
		Short: "Show the sessions of a running node with others",
		Long: `Show the sessions of the node that runs with this identity (causeway node
listen), with each member of the domain:

  causeway node sessions --identity bob
  causeway node sessions --identity bob --json | jq 'select(.senders > 0)'

EPOCH counts the sessions with that member, AGE is that of the one in use, which is
renewed after 10 minutes; SENT and RECEIVED are messages. CREDIT is how many bytes
may still be sent to it, WAITING how many of it wait to be taken here. No keys are
shown: they can't be had from a node.

The node is asked by the socket node.sock in the identity directory, which its
user alone may open.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if identity == "" {
				return usageError{errors.New("causeway node sessions needs --identity DIR, that of a running node")}
			}
			all, err := askSessions(identity)
			if err != nil {
				return err
			}
			if !asJSON {
				return printSessions(cmd.OutOrStdout(), all.Sessions)
			}
			for _, s := range all.Sessions {
				if err := printJSON(cmd.OutOrStdout(), s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&identity, "identity", "", "identity `DIR` of the running node (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line, with more fields")
	return cmd
}

// askSessions asks the node that runs with that identity.
func askSessions(identity string) (all nodeSessions, err error) {
	path, done, err := socketPath(identity, nodeSocketFile)
	if err != nil {
		return all, err
	}
	defer done()
	conn, err := net.DialTimeout("unix", path, sessionsPatience)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return all, fmt.Errorf("no node runs with the identity %s and its lock file: start one (causeway node listen --identity %s)", identity, identity)
	case err != nil:
		return all, fmt.Errorf("asking the node of %s: %w", identity, err)
	}
	defer conn.Close()
	if err = conn.SetDeadline(time.Now().Add(sessionsPatience)); err == nil {
		err = json.NewDecoder(conn).Decode(&all)
	}
	if err != nil {
		return all, fmt.Errorf("the node of %s does not answer as one of this version: %w", identity, err)
	}
	return all, nil
}

// socketPath returns a path to a socket in the identity directory that the kernel
// takes: the directory's own may be too long. It is good until done.
func socketPath(identity, file string) (path string, done func(), err error) {
	path = filepath.Join(identity, file)
	if len(path) <= socketPathMax {
		return path, func() {}, nil
	}
	dir, err := os.Open(identity)
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), file)
	return path, func() { dir.Close() }, nil
}

// showSessions lets others ask for the node's sessions until stop. What hinders
// that is logged: the node goes on. It does nothing without the identity's lock,
// which says whose socket it is.
func (f *nodeFlags) showSessions(n *node.Node, log *slog.Logger) (stop func()) {
	if f.lockFile != "" {
		return func() {}
	}
	l, err := listenAlone(f.identity)
	if err != nil {
		log.Warn("causeway node sessions can't ask this node", "error", err)
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		answerAll(l, func() nodeSessions {
			return nodeSessions{Name: n.Name(), Address: n.Address(), Sessions: n.Sessions()}
		})
	}()
	return func() {
		l.Close()
		<-ended
		_ = os.Remove(filepath.Join(f.identity, nodeSocketFile))
	}
}

// answerAll answers who asks, until l is closed.
func answerAll(l net.Listener, what func() nodeSessions) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors, for example
			time.Sleep(acceptPause)
			continue
		}
		if conn.SetDeadline(time.Now().Add(sessionsPatience)) == nil {
			_ = printJSON(conn, what())
		}
		conn.Close()
	}
}

// listenAlone makes the socket, which its user alone may open, in the place of one
// that a process before has left. A socket is open to whom the umask says until its
// mode is set, so that is done where nobody else gets, and then it is moved.
func listenAlone(identity string) (net.Listener, error) {
	dir := filepath.Join(identity, nodeSocketDir)
	if err := os.RemoveAll(dir); err != nil { // of a process that was killed meanwhile
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, done, err := socketPath(identity, filepath.Join(nodeSocketDir, nodeSocketFile))
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	made := filepath.Join(dir, nodeSocketFile)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, filepath.Join(identity, nodeSocketFile))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func printSessions(to io.Writer, all []node.Session) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tAGE\tEPOCH\tAEAD\tKEY EXCHANGE\tSENT\tRECEIVED\tCREDIT\tWAITING\tHELD\tSENDERS")
	for _, s := range all {
		age := "-"
		if !s.Made.IsZero() {
			age = lasted(s.AgeSeconds, time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n",
			word(s.Name), s.Address, age, s.Epoch, word(s.AEAD), word(s.KeyExchange), s.Sent, s.Received, s.Credit, s.Waiting, s.Held, s.Senders)
	}
	return w.Flush()
}
