package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the node was closed")

	// ErrReplaced: a newer connection with the same address took this one's
	// place; the Node has ended and does not reconnect.
	ErrReplaced = errors.New("replaced by a newer connection with this node's address: two processes run with one identity; " +
		"stop one, or give each its own (causeway pki request); a lock file (Config.LockFile) keeps two on one machine apart")

	errNoRecipient = errors.New("the recipient is the zero address: look it up by name (Lookup)")
	errToSelf      = errors.New("the recipient is this node itself, which has no session with itself: give another node's address")
	errToRouter    = errors.New("the recipient is a router, which opens no sessions and takes no messages: give a node's address")

	errPeerLeft    = errors.New("the node that was connected to this one has left, or has connected anew")
	errDialsItself = errors.New("the other end has this node's own certificate: give another node's URL")

	// errSessionMembers: no more sessions.
	errSessionMembers = errors.New("there are sessions with as many members as there may be; " +
		"wait until some of them have been idle for half an hour, or raise Config.SessionMembers")

	// ErrNoSuchName: no connected member of the domain has the name.
	// errors.Is holds for the *NameError that Lookup returns.
	ErrNoSuchName = errors.New("no such name")
)

// ConfigError is a field of Config that can't be used.
type ConfigError struct {
	Field   string
	Problem string
	Remedy  string
}

func (e *ConfigError) Error() string { return "Config." + e.Field + ": " + e.Problem + ": " + e.Remedy }

// LockError: another process runs with this identity.
type LockError struct {
	Path string
	PID  int // 0: it could not be read
}

func (e *LockError) Error() string {
	holder := "another process"
	if e.PID != 0 {
		holder = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s has locked %s: it runs with this identity; stop it, or use another identity", holder, e.Path)
}

// Attempt is one router that was tried and why it did not work.
type Attempt struct {
	URL string
	Err error
}

// ConnectError: none of the routers has accepted this node.
type ConnectError struct{ Attempts []Attempt }

func (e *ConnectError) Error() string {
	var b strings.Builder
	b.WriteString("no router has accepted this node")
	for i, a := range e.Attempts {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		fmt.Fprintf(&b, "%s: %v", a.URL, a.Err)
	}
	return b.String()
}

// Unwrap returns the error of each attempt.
func (e *ConnectError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}

// UnreachableError: there is no TCP connection to the router.
type UnreachableError struct {
	Address string // host:port
	Err     error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("can't reach %s (%v): check that the router runs, its address, and firewalls between", e.Address, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// RefusedError: the other end ended the connection before it had accepted the
// node.
type RefusedError struct {
	Alert  string // the TLS alert, as RFC 8446 section 6 names it; empty without one
	What   string
	Remedy string
	Err    error // the cause; may be nil
}

func (e *RefusedError) Error() string {
	what := e.What
	if e.Alert != "" {
		what += " (TLS alert: " + e.Alert + ")"
	}
	return what + ": " + e.Remedy
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// RouterCertificateError: the other end is not a router of this node's domain; or,
// where a node is wanted, no node of it.
type RouterCertificateError struct {
	Domain string
	Node   bool  // a node was wanted
	Err    error // usually a *pki.Error
}

func (e *RouterCertificateError) Error() string {
	err := e.Err
	var refused *pki.Error
	if errors.As(err, &refused) && refused.Reason == pki.ReasonUnknownRoot {
		of := *refused // pki's remedy is a router's: a trust store
		of.Remedy = "a node trusts only root.crt of its identity: see that it is the domain's present one, and that the URL is that domain's router"
		err = &of
	}
	what := "grant"
	if e.Node {
		what = "node certificate"
	}
	return fmt.Sprintf("the other end did not show a %s of %s: %v", what, e.Domain, err)
}

// Unwrap returns the cause.
func (e *RouterCertificateError) Unwrap() error { return e.Err }

// ClockError: this machine's clock and the router's are too far apart.
type ClockError struct {
	Local, Router time.Time
	SkewMax       time.Duration // this node's limit; 0 when the router refused
	Text          string        // the router's words, if it refused
}

func (e *ClockError) Error() string {
	s := fmt.Sprintf("clocks apart by %v: here it is %s, at the router %s",
		e.Router.Sub(e.Local).Abs().Round(time.Second), clockText(e.Local), clockText(e.Router))
	if e.Text != "" {
		s += fmt.Sprintf(" (the router says: %s)", e.Text)
	}
	return s + "; set the clock that is wrong (timedatectl set-ntp true)"
}

func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// ProtocolError: the router broke a rule of the protocol; the connection was
// closed.
type ProtocolError struct {
	What string
	Err  error // the cause; may be nil

	role       bool // it is about the role in its hello
	signatures bool // it is about too many bad ones
}

func (e *ProtocolError) Error() string {
	if e.Err != nil {
		return "the router broke the protocol: " + e.What + ": " + e.Err.Error()
	}
	return "the router broke the protocol: " + e.What
}

// Unwrap returns the cause.
func (e *ProtocolError) Unwrap() error { return e.Err }

// GoodbyeError: the router ended the connection and said why.
type GoodbyeError struct {
	Reason codec.GoodbyeReason
	Text   string
	Others []string // URLs of routers it recommends
}

func (e *GoodbyeError) Error() string {
	s := "the router said goodbye: " + e.Reason.String()
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	if remedy := goodbyeRemedy[e.Reason]; remedy != "" {
		s += ": " + remedy
	}
	return s
}

// Is makes errors.Is(err, ErrReplaced) true for that reason.
func (e *GoodbyeError) Is(target error) bool {
	return target == ErrReplaced && e.Reason == codec.GoodbyeReplaced
}

var goodbyeRemedy = map[codec.GoodbyeReason]string{
	codec.GoodbyeReplaced:      "two processes run with one identity; stop one, or give each its own (causeway pki request)",
	codec.GoodbyeVersion:       "update this software or the router's",
	codec.GoodbyeRole:          "connect with a node's certificate, to a router",
	codec.GoodbyeExpired:       "renew the certificate: causeway pki renew",
	codec.GoodbyeRevoked:       "have the domain's authority issue a new certificate for a new key: causeway pki request",
	codec.GoodbyeBadSignatures: "node.key and node.crt do not fit, or something alters frames",
	codec.GoodbyeLimit:         "the router is full; try another, or raise its limits",
}

// DirectError: the node is connected to another node (Config.Direct), which
// forwards nothing and knows no names.
type DirectError struct {
	Peer codec.Address
	Name string // of its certificate
}

func (e *DirectError) Error() string {
	return fmt.Sprintf("this node is connected to the node %s (%s) alone, which forwards nothing and answers no questions about names: "+
		"send to that node, or connect to a router (Config.Routers, --connect)", e.Name, e.Peer)
}

// ListenError: this node can't listen where Config.Listen says.
type ListenError struct {
	URL string
	Err error
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("can't listen on %s (%v): give an address of this machine and a free port", e.URL, e.Err)
}

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

// ExpiredError: this node's own certificate has ended, so no router accepts it.
type ExpiredError struct {
	NotAfter, Now time.Time
}

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("this node's certificate expired at %s (here it is %s): renew it (causeway pki renew) and connect again, or set the clock",
		clockText(e.NotAfter), clockText(e.Now))
}

// NotConnectedError: the context ended while no router was connected.
type NotConnectedError struct {
	Last error // why the last connection or attempt ended; may be nil
	Err  error // the context's
}

func (e *NotConnectedError) Error() string {
	if e.Last != nil {
		return fmt.Sprintf("not connected to a router (%v): %v", e.Last, e.Err)
	}
	return fmt.Sprintf("not connected to a router: %v", e.Err)
}

// Unwrap returns the context's error and the last connection's.
func (e *NotConnectedError) Unwrap() []error {
	if e.Last == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Last}
}

// WaitError: the context ended while an answer was waited for.
type WaitError struct {
	For  string // what did not come
	Last error  // what came instead; may be nil
	Err  error  // the context's
}

func (e *WaitError) Error() string {
	if e.Last != nil {
		return fmt.Sprintf("no %s: %v (last: %v)", e.For, e.Err, e.Last)
	}
	return fmt.Sprintf("no %s: %v", e.For, e.Err)
}

// Unwrap returns the context's error and what came instead.
func (e *WaitError) Unwrap() []error {
	if e.Last == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Last}
}

// RevokedError: the recipient's certificate is revoked, as this node knows by its trust
// store, a list of a router or a refused handshake, and it has shown no other.
type RevokedError struct {
	Recipient codec.Address
	Err       error // a *pki.Error
}

func (e *RevokedError) Error() string {
	return fmt.Sprintf("no session with %s: %v", e.Recipient, e.Err)
}

// Unwrap returns what is wrong with the certificate.
func (e *RevokedError) Unwrap() error { return e.Err }

// UnconfirmedError: the connection died after the message was written to it
// and before the router had confirmed it: perhaps it was delivered.
type UnconfirmedError struct{ Err error }

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("perhaps delivered, perhaps not: the connection ended before the router confirmed the message: %v; Seen asks the recipient", e.Err)
}

// Unwrap returns why the connection ended.
func (e *UnconfirmedError) Unwrap() error { return e.Err }

// UnsentError: the message was accepted by Send and never written.
type UnsentError struct{ Err error }

func (e *UnsentError) Error() string { return fmt.Sprintf("not sent: %v", e.Err) }

// Unwrap returns why.
func (e *UnsentError) Unwrap() error { return e.Err }

// BodySizeError: the body is larger than can be sent.
type BodySizeError struct {
	Size, Max int  // bytes
	Router    bool // whether it is the connected router's limit, else the protocol's
}

func (e *BodySizeError) Error() string {
	who := "the protocol takes"
	if e.Router {
		who = "the router takes (--max-body)"
	}
	return fmt.Sprintf("the body has %d bytes, more than the %d that %s: send it in parts", e.Size, e.Max, who)
}

// CategoryError: applications may not send frames of this category.
type CategoryError struct{ Category codec.Category }

func (e *CategoryError) Error() string {
	return fmt.Sprintf("category %d (%s) is not for applications: use 0, 5, or one from %d on", uint8(e.Category), e.Category, codec.CategoryApplication)
}

// NameError: a lookup by name without a result; errors.Is(err, ErrNoSuchName).
type NameError struct{ Name, Domain string }

func (e *NameError) Error() string {
	return fmt.Sprintf("no connected member of %s has the name %q: check its spelling, and that it is connected (causeway node list)", e.Domain, e.Name)
}

// Is makes errors.Is(err, ErrNoSuchName) true.
func (e *NameError) Is(target error) bool { return target == ErrNoSuchName }

// NoticeError: a router, or the recipient itself, says why messages were not
// delivered.
type NoticeError struct {
	Reason    codec.NoticeReason
	From      codec.Address // who says so
	FromName  string        // of its certificate, of a router "router/NAME"; empty: not remembered
	Recipient codec.Address
	Frames    []codec.NoticeFrame // of the notice, those that this node remembers to have sent
	More      uint64              // so many besides, not listed
	// Ambiguous is More when nobody can tell which they are: more were sent at
	// that time than the notice counts. Their Sent do not know of it. Else 0.
	Ambiguous uint64
}

func (e *NoticeError) Error() string {
	who := "the router"
	if e.From == e.Recipient && e.From.Kind() != codec.KindRouter {
		who = "the recipient"
	}
	if e.FromName != "" {
		who += " " + strings.TrimPrefix(e.FromName, routerPrefix)
	}
	s := fmt.Sprintf("%s %s says: %s", who, e.From, e.Reason)
	if what := NoticeMeaning(e.Reason); what != "" {
		s += ": " + what
	}
	if e.Ambiguous > 0 {
		s += fmt.Sprintf("; it does not say which %d of those sent to it lately", e.Ambiguous)
	}
	return s
}

// NoticeMeaning returns what a notice's reason means, and what helps, for people;
// empty for reasons that there are not.
func NoticeMeaning(r codec.NoticeReason) string { return noticeMeaning[r] }

var noticeMeaning = map[codec.NoticeReason]string{
	codec.NoticeNoRoute:       "the recipient is not connected; check the address, and that it runs",
	codec.NoticeTTLSpent:      "too many routers on the way, or a loop",
	codec.NoticeNotPermitted:  "the recipient is of another domain, or does not take this category, or no plain bodies: send without --plain (Config.Plain), or have it accept them (Config.AcceptPlain, --accept-plain)",
	codec.NoticeQueueFull:     "the recipient reads too slowly; send again later",
	codec.NoticeRecipientGone: "the recipient's connection ended first; send again when it is back",
	codec.NoticeUnconfirmed:   "perhaps delivered, perhaps not: the recipient's connection ended meanwhile; Seen asks it when it is back",
	codec.NoticeTooLarge:      "the body is larger than the recipient takes; send less at a time, or have it take more (node.Config.BodyMax)",
	codec.NoticeLate:          "the send time is too far from the router's clock; check both clocks, and how long the message waited",
}

// waitError turns the end of ctx into an error that says what was missing.
func waitError(ctx context.Context, what string, last error) error {
	return &WaitError{For: what, Last: last, Err: ctx.Err()}
}

// CloseError: Close could not get rid of all that Send had accepted.
type CloseError struct {
	Unsent      int   // never written; their Sent have an *UnsentError
	Unconfirmed int   // written and not confirmed; their Sent have an *UnconfirmedError
	Err         error // why; may be nil
}

func (e *CloseError) Error() string {
	s := fmt.Sprintf("closed with %d messages not sent and %d not confirmed", e.Unsent, e.Unconfirmed)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns why.
func (e *CloseError) Unwrap() error { return e.Err }

// VersionError: the router speaks another version of the protocol.
type VersionError struct{ Here, Router uint64 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the router speaks version %d of the protocol, this node version %d: update the older one", e.Router, e.Here)
}
