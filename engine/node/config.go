package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/session"
)

// Defaults of Config, where PROTOCOL.md does not name one.
const (
	SendQueueDefault             = 4 << 20  // bytes
	ResendQueueDefault           = 8 << 20  // bytes
	ReceiveQueueDefault          = 64 << 20 // bytes
	ReceiveQueuePerSenderDefault = 4 << 20  // bytes
	SealedQueueDefault           = 64 << 20 // bytes
	SkewMaxDefault               = 5 * time.Minute
	DialTimeoutDefault           = 10 * time.Second
	HelloTimeoutDefault          = 5 * time.Second
	AnswerTimeoutDefault         = 10 * time.Second
	ResendTimeDefault            = 5 * time.Second
	CloseTimeoutDefault          = 5 * time.Second
	BackoffMinDefault            = 200 * time.Millisecond
	BackoffMaxDefault            = 30 * time.Second
	PeersMaxDefault              = 256 // nodes
	SoftwareDefault              = "causeway/0.1.0"

	routersMax        = 64      // in Config.Routers
	listenMax         = 16      // in Config.Listen
	peersMaxMax       = 1 << 16 // in Config.PeersMax
	sessionMembersMax = 1 << 20 // in Config.SessionMembers
)

// Config says who the node is, where its routers are, and how it behaves. Only
// Identity, and Routers, Direct or Listen, have no default. Connect checks it once,
// and copies it.
type Config struct {
	// Identity is what the node is, from pki.LoadIdentity. It trusts its own
	// root certificates and no others.
	Identity *pki.Identity
	// Trust adds revocation lists: a store that has the identity's domain.
	// Nil: the identity's roots alone.
	Trust *pki.Store
	// Routers are URLs, dbw://host:port, tried in this order. There may be none if
	// Direct or Listen is set.
	Routers []string
	// Direct is the URL of a node to connect to in place of a router. Messages then
	// go to that node alone, and come from it alone; Routers must be empty.
	Direct string
	// Listen are URLs of places to listen on: nodes of this node's domain may connect
	// there, and exchange messages with this node alone. Port 0 is any free port. They
	// are answered whether or not a router is: Connect does not wait for any then.
	Listen []string
	// PeersMax bounds how many nodes are connected to this one: 256, at most 65,536.
	PeersMax int
	// Wait lets Connect go on trying until its context ends. Otherwise it
	// gives up when it has tried each router once. With Listen it makes no difference.
	Wait bool

	// Plain has Send send bodies that the routers of the domain can read; without
	// it Send seals them. Category 5 is always sealed.
	Plain bool
	// AcceptPlain accepts such bodies too; without it only sealed ones are taken.
	AcceptPlain bool
	// AcceptOld accepts plain messages that were sent before Connect. A node
	// that has just started can't know whether it had them already.
	AcceptOld bool

	// Kind is free text for operators, of at most 32 bytes: "server", "hub".
	Kind string
	// Software is name/semantic version, of at most 64 bytes.
	Software string
	// LockFile, if set, is locked while the node runs, so that two processes of
	// this machine don't use one identity.
	LockFile string

	// BodyMax is the largest body taken, in bytes: 1 MiB; at most 16 MiB.
	BodyMax int
	// SendQueue bounds what Send has accepted and is not yet written, in
	// bytes, for routers and for each node that has connected: 4 MiB.
	SendQueue int
	// ResendQueue bounds the written frames that are kept in case they have to
	// be sent again, in bytes, for 30 s at most: 8 MiB. What is not kept any
	// more is reported at its first notice.
	ResendQueue int
	// ReceiveQueue and ReceiveQueuePerSender bound what waits for Receive, in
	// bytes, each message charged its body + 256: 64 MiB and 4 MiB.
	// They are for plain messages.
	ReceiveQueue          int
	ReceiveQueuePerSender int
	// Window is how much a sender's sealed messages may take that are under way to
	// this node, or wait for Receive, in bytes, each charged its body + 288: 4 MiB, at
	// least twice the charge of the largest, at most 64 MiB. It is given to each
	// sender as credit, so that a slow reader slows its senders, and loses nothing.
	Window int
	// SealedQueue bounds the sealed messages of all senders that wait for Receive, in
	// bytes, at least Window: 64 MiB, which is 16 windows of 4 MiB. Beyond it they are
	// dropped, and their senders told (queue-full). So a node that has more senders
	// than that, all of which may be faster than it reads, needs more, or a smaller
	// Window, for none of them to lose anything.
	SealedQueue int
	// SessionMembers bounds how many members this node has sessions with: 16,384,
	// at most 1,048,576. The package doc says what each takes.
	SessionMembers int

	SkewMax       time.Duration // between clocks: 5 minutes
	KeepAlive     time.Duration // something is sent at least so often: 10 s
	DeadAfter     time.Duration // a connection without a byte for so long is dead: 25 s
	DialTimeout   time.Duration // for TCP and TLS: 10 s
	HelloTimeout  time.Duration // for the router's hello: 5 s
	AnswerTimeout time.Duration // for a router's answer to a lookup: 10 s
	ResendTime    time.Duration // after a change of routers, in which noticed frames go again; and of each since its first notice: 5 s
	CloseTimeout  time.Duration // for Close to get rid of what waits: 5 s
	BackoffMin    time.Duration // between rounds over Routers, doubled each time: 200 ms
	BackoffMax    time.Duration // up to: 30 s

	// OnNotice is called with every believed notice about messages sent by
	// Send, one at a time. It may be slow (notices beyond 256 are then left
	// out) and must not call Close.
	OnNotice func(*NoticeError)

	Logger *slog.Logger     // of connections coming and going: discarded
	Now    func() time.Time // for send times and validity: time.Now
	// Rand gives the bytes of keys and identifiers, to one goroutine at a time. It
	// must not fail. crypto/rand.Reader.
	Rand io.Reader
	// Dial makes the connection below TLS: a net.Dialer's.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// prepare checks c and sets the defaults. The error is a *ConfigError or tells
// what is wrong with the identity's certificate.
func (c *Config) prepare() error {
	c.setDefaults()
	if err := c.checkIdentity(); err != nil {
		return err
	}
	if err := c.checkRouters(); err != nil {
		return err
	}
	if err := c.checkSizes(); err != nil {
		return err
	}
	return c.checkTimes()
}

func (c *Config) setDefaults() {
	c.Software = or(c.Software, SoftwareDefault)
	c.BodyMax = or(c.BodyMax, codec.BodyMaxDefault)
	c.PeersMax = or(c.PeersMax, PeersMaxDefault)
	c.SendQueue = or(c.SendQueue, SendQueueDefault)
	c.ResendQueue = or(c.ResendQueue, ResendQueueDefault)
	c.ReceiveQueue = or(c.ReceiveQueue, ReceiveQueueDefault)
	c.ReceiveQueuePerSender = or(c.ReceiveQueuePerSender, ReceiveQueuePerSenderDefault)
	c.Window = or(c.Window, max(session.WindowDefault, 2*session.Charge(c.BodyMax)))
	c.SealedQueue = or(c.SealedQueue, SealedQueueDefault)
	c.SessionMembers = or(c.SessionMembers, SessionMembersDefault)
	c.SkewMax = or(c.SkewMax, SkewMaxDefault)
	c.KeepAlive = or(c.KeepAlive, codec.KeepAliveDefault)
	c.DeadAfter = or(c.DeadAfter, codec.DeadAfterDefault)
	c.DialTimeout = or(c.DialTimeout, DialTimeoutDefault)
	c.HelloTimeout = or(c.HelloTimeout, HelloTimeoutDefault)
	c.AnswerTimeout = or(c.AnswerTimeout, AnswerTimeoutDefault)
	c.ResendTime = or(c.ResendTime, ResendTimeDefault)
	c.CloseTimeout = or(c.CloseTimeout, CloseTimeoutDefault)
	c.BackoffMin = or(c.BackoffMin, BackoffMinDefault)
	c.BackoffMax = or(c.BackoffMax, BackoffMaxDefault)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
}

func or[T comparable](v, unset T) T {
	var zero T
	if v == zero {
		return unset
	}
	return v
}

func (c *Config) checkIdentity() error {
	id := c.Identity
	switch {
	case id == nil:
		return &ConfigError{"Identity", "is missing", "load one by pki.LoadIdentity (--identity DIR; causeway pki request makes one)"}
	case id.Peer == nil:
		return &ConfigError{"Identity", "has no node certificate (node.crt)",
			"use a node's identity; a router's grants can't be used to connect as a node"}
	}
	if c.Trust == nil {
		store, err := id.Store()
		if err != nil {
			return &ConfigError{"Identity", err.Error(), "copy root.crt from the domain's authority"}
		}
		c.Trust = store
	}
	if !slices.Contains(c.Trust.Domains(), id.Peer.Domain) {
		return &ConfigError{"Trust", "does not have the identity's domain " + id.Peer.Domain,
			"leave it nil, or add the domain: causeway pki trust"}
	}
	if _, err := c.Trust.VerifyDER(id.Peer.Chain, id.Peer.Domain, c.Now()); err != nil {
		return fmt.Errorf("this node's own certificate: %w", err)
	}
	return nil
}

func (c *Config) checkRouters() error {
	const remedy = "give at least one, dbw://host:port (--connect)"
	if err := c.checkListen(); err != nil {
		return err
	}
	switch {
	case c.Direct != "" && len(c.Routers) > 0:
		return &ConfigError{"Direct", "is set beside Routers", "give one of them: a node (--direct), or routers (--connect)"}
	case c.Direct != "":
		if _, err := dialAddress(c.Direct); err != nil {
			return &ConfigError{"Direct", "is no URL", err.Error()}
		}
		c.Routers = []string{c.Direct}
		return nil
	case len(c.Routers) == 0 && len(c.Listen) == 0:
		return &ConfigError{"Routers", "is empty", remedy}
	}
	if len(c.Routers) > routersMax {
		return &ConfigError{"Routers", fmt.Sprintf("has %d entries", len(c.Routers)), fmt.Sprintf("give at most %d", routersMax)}
	}
	c.Routers = slices.Clone(c.Routers)
	for i, url := range c.Routers {
		if _, err := dialAddress(url); err != nil {
			return &ConfigError{"Routers", fmt.Sprintf("entry %d", i+1), err.Error()}
		}
	}
	return nil
}

func (c *Config) checkListen() error {
	if len(c.Listen) > listenMax {
		return &ConfigError{"Listen", fmt.Sprintf("has %d entries", len(c.Listen)), fmt.Sprintf("give at most %d", listenMax)}
	}
	for i, url := range c.Listen {
		if _, _, err := codec.ParseURL(url); err != nil {
			return &ConfigError{"Listen", fmt.Sprintf("entry %d", i+1), err.Error()}
		}
	}
	c.Listen = slices.Clone(c.Listen)
	if c.PeersMax < 1 || c.PeersMax > peersMaxMax {
		return &ConfigError{"PeersMax", fmt.Sprintf("is %d", c.PeersMax), fmt.Sprintf("give nodes from 1 to %d", peersMaxMax)}
	}
	return nil
}

// dialAddress returns the host:port of a URL to connect to.
func dialAddress(url string) (string, error) {
	host, port, err := codec.ParseURL(url)
	if err != nil {
		return "", err
	}
	if port == "0" {
		return "", fmt.Errorf("URL %q has port 0, which nobody can connect to: %w", url, codec.ErrURL)
	}
	return net.JoinHostPort(host, port), nil
}

func (c *Config) checkSizes() error {
	sizes := []struct {
		field         string
		v, least, max int
	}{
		{"BodyMax", c.BodyMax, 1, codec.BodyMaxLimit},
		{"SendQueue", c.SendQueue, 1, 1 << 40},
		{"ResendQueue", c.ResendQueue, 1, 1 << 40},
		{"ReceiveQueue", c.ReceiveQueue, 1, 1 << 40},
		{"ReceiveQueuePerSender", c.ReceiveQueuePerSender, min(c.BodyMax, codec.BodyMaxDefault) + messageOverhead, c.ReceiveQueue},
		{"Window", c.Window, 2 * session.Charge(c.BodyMax), session.WindowMax},
		{"SealedQueue", c.SealedQueue, c.Window, 1 << 40},
	}
	for _, s := range sizes {
		if s.v < s.least || s.v > s.max {
			return &ConfigError{s.field, fmt.Sprintf("is %d", s.v), fmt.Sprintf("give bytes from %d to %d", s.least, s.max)}
		}
	}
	if c.SessionMembers < 1 || c.SessionMembers > sessionMembersMax {
		return &ConfigError{"SessionMembers", fmt.Sprintf("is %d", c.SessionMembers), fmt.Sprintf("give members from 1 to %d", sessionMembersMax)}
	}
	texts := []struct {
		field, v string
		max      int
	}{
		{"Kind", c.Kind, codec.HelloKindMax},
		{"Software", c.Software, codec.HelloSoftwareMax},
	}
	for _, t := range texts {
		if len(t.v) > t.max {
			return &ConfigError{t.field, fmt.Sprintf("has %d bytes", len(t.v)), fmt.Sprintf("give at most %d", t.max)}
		}
	}
	return nil
}

func (c *Config) checkTimes() error {
	const long = 365 * 24 * time.Hour
	times := []struct {
		field         string
		v, least, max time.Duration
	}{
		{"SkewMax", c.SkewMax, time.Millisecond, 24 * time.Hour},
		{"KeepAlive", c.KeepAlive, codec.KeepAliveMin, codec.KeepAliveMax},
		{"DeadAfter", c.DeadAfter, codec.DeadAfterMin, codec.DeadAfterMax},
		{"DialTimeout", c.DialTimeout, time.Millisecond, long},
		{"HelloTimeout", c.HelloTimeout, time.Millisecond, long},
		{"AnswerTimeout", c.AnswerTimeout, time.Millisecond, long},
		{"ResendTime", c.ResendTime, time.Millisecond, keptFor},
		{"CloseTimeout", c.CloseTimeout, time.Millisecond, long},
		{"BackoffMax", c.BackoffMax, time.Millisecond, long},
		{"BackoffMin", c.BackoffMin, time.Millisecond, c.BackoffMax},
	}
	for _, t := range times {
		if t.v < t.least || t.v > t.max {
			return &ConfigError{t.field, fmt.Sprintf("is %v", t.v), fmt.Sprintf("give a duration from %v to %v", t.least, t.max)}
		}
	}
	return nil
}
