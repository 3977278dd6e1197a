package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
	"causeway/engine/gate"
	"causeway/engine/route"
	"causeway/engine/verify"
)

// Defaults and bounds of Config.
const (
	SkewMaxDefault       = 5 * time.Minute
	HelloTimeoutDefault  = 5 * time.Second
	PauseMaxDefault      = 250 * time.Millisecond
	StallTimeoutDefault  = 20 * time.Second
	HoldTimeoutDefault   = 5 * time.Second
	PartialMaxDefault    = 256 << 20
	QueueHighDefault     = 4 << 20
	BadSignaturesDefault = 100
	AddressesMaxDefault  = route.MaxAddressesDefault

	AddressesMaxLimit = codec.AddressListEntriesMax * codec.AddressListPartsMax

	holdTimeoutMax = time.Minute // frames must not be late when they go on

	HandshakeTimeoutDefault = 10 * time.Second
	HandshakesMaxDefault    = 256
	ReceiveBufferDefault    = 256 << 10
)

// Config of a Router. The zero value of a field takes its default, but for
// Identity, Store and Software, which are required.
type Config struct {
	Identity *pki.Identity // with at least one grant
	Store    *pki.Store    // roots and CRLs of the domains
	Software string        // name/semantic version, for hello

	Loops         int       // event loops; 0: one per CPU
	CPUs          []int     // CPUs[i] is the core that loop i is pinned to; nil: not pinned
	VerifyEdge    bool      // don't check signatures of frames that neighbours have forwarded
	VerifyNone    bool      // forward without checking signatures; recipients check all the same
	VerifyWorkers int       // goroutines that check signatures; 0: the loops do; default: one per CPU when negative
	VerifyCPUs    []int     // the cores that they are pinned to, in turn; nil: not pinned
	VerifyPath    sign.Path // how Ed25519 signatures are checked; 0: the fastest way there is
	VerifyTables  int       // bytes of memory for signers' tables, at least sign.TablesMemoryMin; an eighth of Memory, 12 to 256 MiB

	BodyMax          uint32        // largest body, bytes; 1 MiB
	SkewMax          time.Duration // send times further from now are dropped; 5 min
	TTLMax           uint8         // TTLs above are lowered; 32
	QueueHigh        int           // bytes a recipient's queue may hold before its senders are paused; 4 MiB, but at most a 16th of Memory
	QueueLow         int           // bytes at which they are read again; a quarter of QueueHigh
	PauseMax         time.Duration // longest pause before frames are dropped instead; negative: nobody is paused; 250 ms
	StallTimeout     time.Duration // a recipient whose oldest queued frame is older is disconnected; 20 s
	HoldTimeout      time.Duration // frames for an address that has just left wait so long for it to come back, at most 1 min; negative: they don't; 5 s
	PartialMax       int           // bytes of half-received frames in all; beyond it the slowest connection is ended; 256 MiB
	Memory           int64         // cap on what is kept for traffic, bytes; 1 GiB. Connections take about 28 KB each beside it
	KeepAlive        time.Duration // 10 s
	DeadAfter        time.Duration // 25 s
	HelloTimeout     time.Duration // 5 s
	HandshakeTimeout time.Duration // 10 s
	HandshakesMax    int           // concurrent TLS handshakes; 256
	ReceiveBuffer    int           // SO_RCVBUF of nodes' connections, bytes; 256 KiB
	BadSignatures    int           // of one connection before it is closed, whole again after 10 min; 100
	IdleTimeout      time.Duration // nodes that send nothing but link control for so long are left; 0: never
	Firewall         *gate.List    // who may connect; nil: everybody
	Limits           *gate.Limits  // of connections; nil: gate.DefaultLimits. HandshakesMax is its Handshakes
	DrainTo          []string      // URLs of other routers, at most 16, that peers are told of when this one stops; its own listeners are left out
	RequireAESGCM    bool
	VersionCutoff    string // nodes with an older semantic version are refused; "": none
	NodeCost         uint16
	AddressesMax     int // nodes of one router, this or another, that are known in one domain; at most 1,048,576; 100,000

	Connect     []string          // host:port of other routers that this one keeps links to
	LinkCosts   map[string]uint16 // cost of the link to a host:port of Connect, 1 to 65,534; "": of all others; 1
	LinkDomain  string            // links are opened in this domain; "": in each that there is a grant of, until one is accepted
	LinkRenewal time.Duration     // another link takes the place of one that is so old; 12 h
	NoDiscovery bool              // a link serves the domain alone that it was opened in

	// SaveList, if not nil, writes a revocation list, DER, that came from another
	// router into the trust store that Store was read from. It must not take the
	// place of a newer one. It is called from a goroutine of the router's.
	SaveList func(domain string, der []byte) error

	ForwardDomains []string // of the domains with grants, those to serve; nil: all

	Logger *slog.Logger

	fetchTime time.Duration // what waits for a certificate does so for so long; 2 s but in tests
}

// withDefaults returns c with defaults filled in, or an error that names the
// first field that is out of range.
func (c Config) withDefaults() (Config, error) {
	if c.Identity == nil || c.Store == nil || c.Software == "" {
		return c, errors.New("engine: Config needs Identity, Store and Software")
	}
	if len(c.Identity.Grants) == 0 {
		return c, errors.New("engine: the identity has no grant, so it may route for no domain")
	}
	setDefault(&c.Loops, runtime.NumCPU())
	c.VerifyWorkers = c.Workers()
	setDefault(&c.BodyMax, codec.BodyMaxDefault)
	setDefault(&c.SkewMax, SkewMaxDefault)
	setDefault(&c.TTLMax, codec.TTLDefault)
	setDefault(&c.Memory, memoryDefault)
	setDefault(&c.VerifyTables, int(min(max(c.Memory/8, 12<<20), verify.TableMemoryDefault)))
	if c.VerifyNone {
		c.VerifyPath = sign.PathStdlib // for link control alone tables are not worth their memory
	}
	setDefault(&c.QueueHigh, int(min(QueueHighDefault, max(c.Memory/QueueHighPart, 2))))
	setDefault(&c.QueueLow, c.QueueHigh/4)
	setDefault(&c.PauseMax, PauseMaxDefault)
	setDefault(&c.StallTimeout, StallTimeoutDefault)
	setDefault(&c.HoldTimeout, HoldTimeoutDefault)
	setDefault(&c.PartialMax, PartialMaxDefault)
	setDefault(&c.KeepAlive, codec.KeepAliveDefault)
	setDefault(&c.DeadAfter, codec.DeadAfterDefault)
	setDefault(&c.HelloTimeout, HelloTimeoutDefault)
	setDefault(&c.LinkRenewal, LinkRenewalDefault)
	setDefault(&c.BadSignatures, BadSignaturesDefault)
	setDefault(&c.AddressesMax, AddressesMaxDefault)
	setDefault(&c.HandshakeTimeout, HandshakeTimeoutDefault)
	setDefault(&c.fetchTime, fetchTimeDefault)
	setDefault(&c.HandshakesMax, HandshakesMaxDefault)
	setDefault(&c.ReceiveBuffer, ReceiveBufferDefault)
	limits := gate.DefaultLimits()
	if c.Limits != nil {
		limits = *c.Limits
	}
	c.bound(&limits)
	c.Limits = &limits
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.check()
}

// Workers returns how many goroutines check signatures for a router with this
// Config.
func (c *Config) Workers() int {
	switch {
	case c.VerifyNone:
		return 1 // link control is verified all the same
	case c.VerifyWorkers < 0:
		return runtime.NumCPU()
	}
	return c.VerifyWorkers
}

func (c *Config) check() error {
	switch {
	case len(c.Software) > codec.HelloSoftwareMax:
		return fmt.Errorf("engine: Software has %d bytes and may have %d", len(c.Software), codec.HelloSoftwareMax)
	case len(c.VersionCutoff) > codec.HelloSoftwareMax:
		return fmt.Errorf("engine: the version cutoff has %d bytes and may have %d", len(c.VersionCutoff), codec.HelloSoftwareMax)
	case c.VerifyNone && c.VerifyEdge:
		return errors.New("engine: VerifyNone and VerifyEdge: one of them")
	case c.SkewMax < 0 || c.HelloTimeout < 0 || c.StallTimeout < 0 || c.PartialMax < 0 || c.BadSignatures < 0 || c.LinkRenewal < 0:
		return errors.New("engine: times and limits must not be negative")
	case c.HoldTimeout > holdTimeoutMax:
		return fmt.Errorf("engine: hold timeout %v is above %v", c.HoldTimeout, holdTimeoutMax)
	case c.BodyMax > codec.BodyMaxLimit:
		return fmt.Errorf("engine: largest body %d is above %d bytes", c.BodyMax, codec.BodyMaxLimit)
	case c.KeepAlive < codec.KeepAliveMin || c.KeepAlive > codec.KeepAliveMax:
		return fmt.Errorf("engine: keep-alive %v is outside %v to %v", c.KeepAlive, codec.KeepAliveMin, codec.KeepAliveMax)
	case c.DeadAfter < 2*c.KeepAlive || c.DeadAfter > codec.DeadAfterMax:
		return fmt.Errorf("engine: dead-after %v is outside twice the keep-alive (%v) to %v", c.DeadAfter, 2*c.KeepAlive, codec.DeadAfterMax)
	case c.QueueLow >= c.QueueHigh || c.QueueLow < 0:
		return fmt.Errorf("engine: low mark %d is not below high mark %d", c.QueueLow, c.QueueHigh)
	case c.VerifyTables < sign.TablesMemoryMin:
		return fmt.Errorf("engine: %d bytes for verification tables; they need at least %d", c.VerifyTables, sign.TablesMemoryMin)
	case c.Memory < MemoryLeast(c.BodyMax):
		return fmt.Errorf("engine: %d bytes of memory are too few: frames with bodies of %d bytes need at least %d", c.Memory, c.BodyMax, MemoryLeast(c.BodyMax))
	case int64(c.QueueHigh) > c.Memory/QueueHighPart:
		return fmt.Errorf("engine: high mark %d is above %d, a %dth of the memory: queues would drop before they pause", c.QueueHigh, c.Memory/QueueHighPart, QueueHighPart)
	case c.AddressesMax < 1 || c.AddressesMax > AddressesMaxLimit:
		return fmt.Errorf("engine: %d addresses are outside 1 to %d", c.AddressesMax, AddressesMaxLimit)
	case c.TTLMax < 2:
		return errors.New("engine: a maximal TTL below 2 forwards nothing")
	case CheckRouters(c.DrainTo) != nil:
		return fmt.Errorf("engine: routers to drain to: %w", CheckRouters(c.DrainTo))
	case c.checkLinks() != nil:
		return c.checkLinks()
	case c.IdleTimeout < 0:
		return fmt.Errorf("engine: idle timeout %v is negative", c.IdleTimeout)
	case c.HandshakesMax < 0 || c.BadSignatures < 0:
		return errors.New("engine: the bounds of handshakes and bad signatures must not be negative")
	case c.Limits.Check() != nil:
		return c.Limits.Check()
	case len(c.CPUs) != 0 && len(c.CPUs) != c.Loops:
		return fmt.Errorf("engine: %d cores named for %d loops", len(c.CPUs), c.Loops)
	}
	return nil
}

// bound sets the limits that the operator has no say in, or another flag for.
func (c *Config) bound(l *gate.Limits) {
	l.Handshakes, l.Starting = c.HandshakesMax, runtime.GOMAXPROCS(0)
}

func setDefault[T int | int64 | uint8 | uint32 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// verifies returns which signatures are checked, as --verify says it.
func (c *Config) verifies() string {
	switch {
	case c.VerifyNone:
		return "none"
	case c.VerifyEdge:
		return "edge"
	}
	return "all"
}

// verifiesLinks tells whether frames that neighbours forward are checked.
func (c *Config) verifiesLinks() bool { return !c.VerifyNone && !c.VerifyEdge }
