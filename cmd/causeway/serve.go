package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"causeway/codec"
	"causeway/crypto/sign"
	"causeway/engine"
	"causeway/engine/admin"
)

// Defaults that are the command line's own.
const (
	connectionsDefault = "config/node/node.connections"
	adminDefault       = "127.0.0.1:7180"
	adminOff           = "off"
	drainDefault       = 10 * time.Second
)

// reloadEndMax is how long a stop waits for a reload that is under way: that may
// hang, as a file system can that is somewhere else.
const reloadEndMax = 2 * time.Second

// serveFlags is what `causeway serve` is told.
type serveFlags struct {
	identity, trust, connections string
	listen                       []string
	links                        linkFlags
	admin                        string
	pin, verifyPin               string
	verify, verifyPath           string
	tables                       sizeFlag
	firewall, dumpDir            string
	pprof                        bool
	limits                       admissionLimits
	log                          logFlags
	drain, hold                  time.Duration
	drainTo                      []string
	bodyMax, high, low, receive  sizeFlag
	partial                      sizeFlag
	memory                       memoryFlag
	engine                       engine.Config
	read                         fingerprint // snapshot of the files before they were read
}

func serveCommand() *cobra.Command {
	f := serveFlags{
		bodyMax: codec.BodyMaxDefault, high: engine.QueueHighDefault, low: engine.QueueHighDefault / 4,
		receive: engine.ReceiveBufferDefault, partial: engine.PartialMaxDefault, limits: defaultLimits(),
	}
	cmd := &cobra.Command{
		Use:   "serve --identity DIR --trust DIR (--listen URL... | --connections FILE)",
		Short: "Run the router",
		Long: `Run the router: accept nodes of the domains it holds grants for, and carry
frames between them.

  causeway serve --identity router --trust trust --listen dbw://0.0.0.0:7100

Changed files of the identity and the trust store are read when they are
noticed, within two seconds, and at a SIGHUP; what changed is logged. Nobody is
disconnected by that but those whose certificate is no longer good.

SIGTERM or SIGINT ends it: nodes are told, and served until they have left for
another router, --drain-timeout at most. A SIGINT during that ends it at once.
SIGUSR1 writes what it is doing into a file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.identity, "identity", "", "identity `DIR` with node.key and grants/ (required)")
	fl.StringVar(&f.trust, "trust", "", "trust store `DIR`: a directory per domain (required)")
	fl.StringVar(&f.connections, "connections", "", "connections `FILE`; default "+connectionsDefault+" when there is no --listen")
	fl.StringArrayVar(&f.listen, "listen", nil, "`URL` to listen on, such as dbw://0.0.0.0:7100; may be repeated")
	f.links.add(fl)
	fl.StringVar(&f.admin, "admin", adminDefault, "`HOST:PORT` of /metrics, /healthz, /readyz, /debug; off: none")
	fl.IntVar(&f.engine.Loops, "loops", 0, "event loops; 0: one per core that this process may use")
	fl.StringVar(&f.pin, "pin", pinAuto, "cores of the loops: auto, off, or a list such as 0,2,4")
	fl.StringVar(&f.verify, "verify", verifyAll, "signatures to check: all, edge (not of what other routers have forwarded), none")
	fl.StringVar(&f.verifyPath, "verify-path", "auto", "how Ed25519 signatures are checked: "+"auto, "+strings.Join(verifyPaths(sign.Paths()), ", "))
	fl.Var(&f.tables, "verify-table-memory", "memory for tables that make known signers' signatures quick to check, 64 KiB each; default an eighth of --memory, 12MiB to 256MiB")
	fl.IntVar(&f.engine.VerifyWorkers, "verify-workers", -1, "goroutines that check signatures; 0: the loops do; -1: one per core")
	fl.StringVar(&f.verifyPin, "verify-pin", pinOff, "cores of these goroutines: off, auto (those that no loop is pinned to), or a list such as 1,3 that they take in turn")
	fl.Var(&f.bodyMax, "max-body", "largest body of a frame")
	fl.DurationVar(&f.engine.SkewMax, "max-skew", engine.SkewMaxDefault, "largest difference between a frame's send time and this clock")
	fl.Uint8Var(&f.engine.TTLMax, "max-ttl", codec.TTLDefault, "frames with a larger time to live are lowered to it")
	fl.Var(&f.memory, "memory", "cap on what is kept for traffic: queues, frames being received, lists, handshakes; 28KiB a connection come to that; default a quarter of this machine's memory")
	fl.Var(&f.high, "queue-high", "bytes that may wait for one recipient before its senders are paused; at most a 16th of --memory")
	fl.Var(&f.low, "queue-low", "bytes at which they are read again")
	fl.DurationVar(&f.engine.PauseMax, "pause-max", engine.PauseMaxDefault, "longest pause of a sender before its frames are dropped instead; 0: they are dropped at once")
	fl.DurationVar(&f.engine.StallTimeout, "stall-timeout", engine.StallTimeoutDefault, "a recipient that has read nothing for so long is disconnected")
	fl.Var(&f.partial, "max-partial", "half-received frames in all; beyond it the slowest connection is ended")
	fl.DurationVar(&f.engine.KeepAlive, "keep-alive", codec.KeepAliveDefault, "something is sent on every connection so often")
	fl.DurationVar(&f.engine.DeadAfter, "dead-after", codec.DeadAfterDefault, "a connection on which nothing comes for so long is ended")
	fl.DurationVar(&f.engine.HelloTimeout, "hello-timeout", engine.HelloTimeoutDefault, "longest wait for a node's hello after TLS")
	fl.DurationVar(&f.engine.HandshakeTimeout, "handshake-timeout", engine.HandshakeTimeoutDefault, "longest TLS handshake")
	fl.IntVar(&f.limits.Handshakes, "max-handshakes", f.limits.Handshakes, "TLS handshakes at one time; beyond it sources with many, and slow ones, yield")
	fl.IntVar(&f.limits.Waiting, "max-waiting", f.limits.Waiting, "connections that wait for their handshake; beyond it sources with many, and those that failed, yield; 0: no limit")
	fl.Var(&f.receive, "receive-buffer", "kernel receive buffer of a node's connection; links to other routers have what the kernel finds useful")
	fl.IntVar(&f.limits.badSignatures, "max-bad-signatures", f.limits.badSignatures, "bad signatures on one connection before it is ended; the budget is whole again after 10 minutes")
	fl.StringVar(&f.firewall, "firewall", "", "`FILE` of lines \"allow|deny CIDR [max N]\": who may connect; the first that matches decides; and of lines \"limit NAME VALUE\", which go before the flags of these names")
	fl.IntVar(&f.limits.Connections, "max-connections", f.limits.Connections, "open connections; 0: no limit")
	fl.IntVar(&f.limits.ConnectionsPerSource, "max-connections-per-source", f.limits.ConnectionsPerSource, "connections of one IPv4 address or IPv6 /64; 0: no limit")
	fl.IntVar(&f.limits.HandshakesPerSource, "max-handshakes-per-source", f.limits.HandshakesPerSource, "TLS handshakes of one source at one time; 0: no limit")
	fl.IntVar(&f.limits.HandshakeRate, "max-handshake-rate", f.limits.HandshakeRate, "TLS handshakes a second that one source may begin, and five times as many at once; 0: no limit")
	fl.DurationVar(&f.limits.idle, "idle-timeout", 0, "a node that sends nothing but link control for so long is left; 0: never")
	fl.IntVar(&f.engine.AddressesMax, "max-addresses", engine.AddressesMaxDefault, "nodes of one router, this or another, that are known in one domain")
	fl.BoolVar(&f.pprof, "pprof", false, "serve /debug/pprof on the admin port")
	fl.StringVar(&f.dumpDir, "dump-dir", os.TempDir(), "`DIR` for the file that SIGUSR1 writes; log: the log instead")
	fl.BoolVar(&f.engine.RequireAESGCM, "require-aes-gcm", false, "refuse other TLS cipher suites")
	fl.DurationVar(&f.hold, "hold-timeout", engine.HoldTimeoutDefault, "frames for a node that has just left wait so long for it to come back; 0: they don't")
	fl.DurationVar(&f.drain, "drain-timeout", drainDefault, "when stopped: longest time for nodes to leave, and to hand over what is queued")
	fl.StringSliceVar(&f.drainTo, "drain-to", nil, "when stopped: other routers' `URL`s that nodes are told of, at most 16; default: connectTo of the connections file")
	f.log.add(fl)
	return cmd
}

// Values of --verify.
const (
	verifyAll  = "all"
	verifyEdge = "edge"
	verifyNone = "none"
)

func (f *serveFlags) run(cmd *cobra.Command) error {
	hup := make(chan os.Signal, 1) // one waits; what it is about is the same for more
	signal.Notify(hup, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // who reads the log may end first
	lines := newLogQueue(cmd.ErrOrStderr())
	defer lines.close()
	listen, err := f.complete(cmd, lines)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt) // before anybody can know that it runs
	router, err := engine.Start(f.engine)
	if err != nil {
		return err
	}
	log := f.engine.Logger
	lines.tellBy(log)
	metrics := admin.NewMetrics()
	router.AddMetrics(metrics)
	lines.addMetrics(metrics)
	addMemoryMetrics(metrics, router)
	defer keepMemory(router, log)()
	dumps := &dumper{router: router, metrics: metrics, dir: f.dumpDir, log: log}
	defer dumps.watch()()
	var server *admin.Server
	if f.admin != adminOff {
		server, err = admin.Serve(admin.Config{
			Listen: f.admin, Metrics: metrics, Ready: router.Ready,
			About: aboutDump(), Peers: dumps.peers, Routes: dumps.routes, Pprof: f.pprof,
		})
		if err != nil {
			return errors.Join(portError(f.admin, "--admin", err), stop(router, nil, 0))
		}
		log.Info("admin listens", "address", server.Addr().String())
	}
	f.logStart(log)
	for _, hostPort := range listen {
		addr, err := router.Listen(hostPort)
		if err != nil {
			return errors.Join(portError(hostPort, "--listen", err), stop(router, server, 0))
		}
		log.Info("listening", "address", addr.String())
	}
	files := reloader{flags: f, router: router, log: log, listen: listen}
	ctx, end := context.WithCancel(context.Background())
	reloading := make(chan struct{})
	files.tellAlarms()
	go func() { defer close(reloading); files.run(ctx, hup) }()
	waitForSignal(cmd.Context(), signals, log, lines)
	end()
	select {
	case <-reloading:
	case <-time.After(reloadEndMax): // files that can't be read now don't keep nodes from being told
	}
	return stop(router, server, f.drain)
}

// complete turns flags into the engine's configuration, which logs to the writer
// given, and returns where to listen.
func (f *serveFlags) complete(cmd *cobra.Command, logTo io.Writer) (listen []string, err error) {
	c := &f.engine
	if f.identity == "" || f.trust == "" {
		return nil, usageError{errors.New("serve needs --identity DIR and --trust DIR")}
	}
	if c.Logger, err = f.log.logger(logTo); err != nil {
		return nil, usageError{err}
	}
	switch f.verify {
	case verifyAll, verifyEdge, verifyNone:
		c.VerifyNone, c.VerifyEdge = f.verify == verifyNone, f.verify == verifyEdge
	default:
		return nil, usageError{fmt.Errorf("--verify %q: must be all, edge or none", f.verify)}
	}
	if c.VerifyPath, err = sign.ParsePath(f.verifyPath); err != nil {
		return nil, usageError{fmt.Errorf("--verify-path: %w", err)}
	}
	if cmd.Flags().Changed("verify-table-memory") && f.tables < sign.TablesMemoryMin {
		return nil, usageError{fmt.Errorf("--verify-table-memory %v: too little; tables need 9MiB or more, or choose --verify-path stdlib", f.tables)}
	}
	c.VerifyTables = int(f.tables)
	if f.bodyMax > codec.BodyMaxLimit {
		return nil, usageError{fmt.Errorf("--max-body %v: at most %v", f.bodyMax, sizeFlag(codec.BodyMaxLimit))}
	}
	if c.Loops < 0 || c.VerifyWorkers < -1 {
		return nil, usageError{errors.New("--loops and --verify-workers must not be negative (but -1 for the default of the latter)")}
	}
	if err := f.setMemory(cmd.Flags().Changed("queue-high")); err != nil {
		return nil, err
	}
	c.BodyMax, c.QueueHigh, c.QueueLow, c.ReceiveBuffer = uint32(f.bodyMax), int(f.high), int(f.low), int(f.receive)
	c.PartialMax = int(f.partial)
	if err := errors.Join(f.aboveZero(cmd.Flags()), f.ending()); err != nil {
		return nil, usageError{err}
	}
	if !cmd.Flags().Changed("queue-low") {
		c.QueueLow = c.QueueHigh / 4
	}
	cores, err := allowedCores()
	if err != nil {
		return nil, err
	}
	if c.Loops == 0 {
		c.Loops = len(cores)
	}
	if c.CPUs, err = pinning(f.pin, c.Loops, cores); err != nil {
		return nil, usageError{err}
	}
	if c.VerifyCPUs, err = verifyPinning(f.verifyPin, c, cores); err != nil {
		return nil, usageError{err}
	}
	if err := f.links.complete(c); err != nil {
		return nil, usageError{err}
	}
	f.read = f.snapshot()
	if err = f.loadFiles(nil); err != nil {
		return nil, err
	}
	c.Software, c.SaveList = software, f.saveList
	if err := f.limits.check(); err != nil {
		return nil, usageError{err}
	}
	if err = f.admission(); err != nil {
		return nil, err
	}
	return f.whereToListen()
}

// aboveZero checks the flags for which 0 means nothing: it would silently be the
// default.
func (f *serveFlags) aboveZero(given *pflag.FlagSet) error {
	c := &f.engine
	for _, flag := range []struct {
		name  string
		value int64
	}{
		{"max-body", int64(f.bodyMax)}, {"max-skew", int64(c.SkewMax)}, {"max-ttl", int64(c.TTLMax)},
		{"queue-high", int64(f.high)}, {"queue-low", int64(f.low)}, {"stall-timeout", int64(c.StallTimeout)},
		{"max-partial", int64(f.partial)}, {"keep-alive", int64(c.KeepAlive)}, {"dead-after", int64(c.DeadAfter)},
		{"hello-timeout", int64(c.HelloTimeout)}, {"handshake-timeout", int64(c.HandshakeTimeout)}, {"receive-buffer", int64(f.receive)},
	} {
		if given.Changed(flag.name) && flag.value <= 0 {
			return fmt.Errorf("--%s must be above 0", flag.name)
		}
	}
	return nil
}

// ending checks the flags about the end, of connections and of the router.
func (f *serveFlags) ending() error {
	c := &f.engine
	if f.hold < 0 || f.drain < 0 || c.PauseMax < 0 {
		return errors.New("--hold-timeout, --drain-timeout and --pause-max must not be negative")
	}
	if c.HoldTimeout = f.hold; f.hold == 0 {
		c.HoldTimeout = -1
	}
	if c.PauseMax == 0 {
		c.PauseMax = -1 // 0 would be the default
	}
	if err := engine.CheckRouters(f.drainTo); err != nil {
		return fmt.Errorf("--drain-to: %w", err)
	}
	c.DrainTo = f.drainTo
	return nil
}

// connectionsFile returns the connections file's name; empty when none is used.
func (f *serveFlags) connectionsFile() string {
	switch {
	case len(f.listen) > 0:
		return ""
	case f.connections == "":
		return connectionsDefault
	}
	return f.connections
}

// whereToListen returns host:port of --listen or of the connections file.
func (f *serveFlags) whereToListen() (listen []string, err error) {
	if len(f.listen) > 0 {
		if f.connections != "" {
			return nil, usageError{errors.New("--listen and --connections: give one of them")}
		}
		for _, u := range f.listen {
			hostPort, err := engine.ParseURL(u)
			if err != nil {
				return nil, usageError{fmt.Errorf("--listen: %w", err)}
			}
			listen = append(listen, hostPort)
		}
		f.engine.Connect = f.links.targets
		return listen, nil
	}
	name := f.connectionsFile()
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && f.connections == "" {
		return nil, usageError{errors.New("nowhere to listen: give --listen dbw://0.0.0.0:7100, or --connections FILE")}
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	c, err := engine.ParseConnections(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(c.Listen) == 0 {
		return nil, fmt.Errorf("%s: listenTo is empty: nobody could connect; write for example \"listenTo\": [\"dbw://0.0.0.0:7100\"]", name)
	}
	f.engine.NodeCost, f.engine.VersionCutoff = c.NodeCost, c.VersionCutoff
	f.engine.Connect = withTargets(c.Connect, f.links.targets)
	if len(f.drainTo) == 0 {
		if f.engine.DrainTo, err = otherRouters(c.Connect); err != nil {
			return nil, fmt.Errorf("%s: connectTo: %w", name, err)
		}
	}
	return c.Listen, nil
}

// otherRouters returns the URLs of host:ports, if they can be named to nodes.
func otherRouters(hostPorts []string) (urls []string, err error) {
	for _, hostPort := range hostPorts {
		urls = append(urls, codec.URLScheme+hostPort)
	}
	return urls, engine.CheckRouters(urls)
}

func (f *serveFlags) logStart(log *slog.Logger) {
	c := &f.engine
	domains := make([]string, 0, len(c.Identity.Grants))
	for name, grant := range c.Identity.Grants {
		domains = append(domains, name)
		log.Info("grant", "domain", name, "name", grant.Name, "address", codec.Address(grant.Address).String(), "until", grant.NotAfter.UTC().Format(time.RFC3339))
	}
	slices.Sort(domains)
	if f.firewall != "" {
		log.Info("firewall", "file", f.firewall, "lines", ruleCount(c.Firewall), "everybody", c.Firewall == nil)
	}
	path := c.VerifyPath
	if c.VerifyNone {
		path = sign.PathStdlib // of link control
	}
	log.Info("starting", "version", version, "domains", strings.Join(domains, ","), "loops", c.Loops, "cores", c.CPUs,
		"memory", f.memory.String(), "verify", f.verify, "verify_workers", c.Workers(), "verify_cores", c.VerifyCPUs,
		"paths", pathsText(path), "go", runtime.Version())
}

// waitForSignal returns at a signal or the end of ctx. After that a SIGINT ends
// the process at once.
func waitForSignal(ctx context.Context, signals <-chan os.Signal, log *slog.Logger, lines *logQueue) {
	select {
	case s := <-signals:
		log.Info("stopping", "signal", s.String())
	case <-ctx.Done():
	}
	go func() {
		for s := range signals {
			if s == os.Interrupt {
				log.Warn("stopped at once")
				lines.close()
				os.Exit(exitInterrupted)
			}
		}
	}()
}

// exitInterrupted is a shell's code for a process that SIGINT has ended.
const exitInterrupted = 130

// stop ends router and server within the time given.
func stop(router *engine.Router, server *admin.Server, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	err := router.Close(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; --drain-timeout %v was too short for who did not read", err, within)
	}
	if server != nil {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = errors.Join(err, server.Close(end))
	}
	return err
}

// portError tells who has a port that is in use, and what to do.
func portError(hostPort, flag string, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s %s: %w", flag, hostPort, err)
	}
	_, port, splitErr := net.SplitHostPort(hostPort)
	if splitErr != nil {
		return fmt.Errorf("%s %s: %w", flag, hostPort, err)
	}
	owner := portOwner(port)
	if owner == "" {
		owner = "another process (it can't be seen from here; as root: ss -ltnp)"
	}
	return fmt.Errorf("%s %s: the port is taken by %s; stop that, or choose another port with %s", flag, hostPort, owner, flag)
}
