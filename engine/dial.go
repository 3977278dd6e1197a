package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/link"
)

// A link that ends, or does not come to be, is dialed again after a pause that
// doubles; each is drawn from its upper half, so that routers that lost one
// together don't come back together.
const (
	redialMin = 100 * time.Millisecond
	redialMax = 30 * time.Second
)

// LinkCostDefault is the cost of a link that none is given for.
const LinkCostDefault = 1

// LinkCostMax is the largest cost of a link (PROTOCOL.md section 14.2).
const LinkCostMax = 65_534

// linkCost returns the cost of links to a target, "" for accepted ones.
func (c *Config) linkCost(target string) uint16 {
	if cost, ok := c.LinkCosts[target]; ok {
		return cost
	}
	if cost, ok := c.LinkCosts[""]; ok {
		return cost
	}
	return LinkCostDefault
}

func (c *Config) checkLinks() error {
	for target, cost := range c.LinkCosts {
		if cost == 0 || cost > LinkCostMax {
			return fmt.Errorf("engine: link cost %d of %q is outside 1 to %d", cost, target, LinkCostMax)
		}
	}
	for _, target := range c.Connect {
		if _, port, err := net.SplitHostPort(target); err != nil || port == "0" {
			return fmt.Errorf("engine: %q is no place to connect to: it must be host:port, and the port not 0", target)
		}
	}
	if c.LinkDomain != "" && !c.forwards(c.LinkDomain) {
		return fmt.Errorf("engine: links are to be opened in %s, which this router does not forward for", c.LinkDomain)
	}
	for _, name := range c.ForwardDomains {
		if c.Identity.Grants[name] == nil {
			return fmt.Errorf("engine: this router is to forward for %s, and has no grant of it", name)
		}
	}
	return nil
}

// forwards tells whether this router is to forward for a domain.
func (c *Config) forwards(domain string) bool {
	return c.Identity.Grants[domain] != nil && (len(c.ForwardDomains) == 0 || slices.Contains(c.ForwardDomains, domain))
}

// dialer keeps a link to one target.
type dialer struct {
	router *Router
	target string // host:port
	cancel context.CancelCauseFunc

	// its goroutine's
	pause time.Duration
	next  int // of the domains, the one to try

	isLinked atomic.Bool
	failure  atomic.Pointer[string] // why there is no link; nil: there is, or nobody knows yet
}

// errRemoved ends a dialer whose target is none any more.
var errRemoved = errors.New("engine: the target is no longer configured")

// attempt is one link of a dialer, from before it is dialed to its end. The
// channels are closed, in this order if at all, by the loop of the connection.
type attempt struct {
	domain  string
	cost    uint16
	ref     func() link.Ref // set when the handshake is done
	opened  chan struct{}   // the neighbour's hello was accepted
	ended   chan struct{}
	why     error                  // set before ended
	proven  atomic.Int32           // domains
	control atomic.Pointer[string] // one of them, which link control goes in; nil: none was proven yet
}

// linkEnded tells the dialer of a link why it is gone.
func (p *peer) linkEnded(why error) {
	if p.far == nil || p.far.attempt == nil {
		return
	}
	p.far.attempt.proven.Store(0)
	if p.far.farewell != nil {
		why = p.far.farewell
	}
	p.far.attempt.why = why
	close(p.far.attempt.ended)
}

// dialAll dials the targets of a state, and leaves those that are none any more.
func (r *Router) dialAll(s *state) {
	ls := r.links
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.stopped {
		return
	}
	for target, d := range ls.dialers {
		if !slices.Contains(s.config.Connect, target) {
			d.cancel(errRemoved)
			delete(ls.dialers, target)
		}
	}
	for _, target := range s.config.Connect {
		if ls.dialers[target] == nil {
			ctx, cancel := context.WithCancelCause(context.Background())
			d := &dialer{router: r, target: target, cancel: cancel}
			ls.dialers[target] = d
			ls.dialing.Go(func() { d.run(ctx) })
		}
	}
}

// stop ends all dialers; their links stay.
func (ls *links) stop() {
	ls.mu.Lock()
	ls.stopped = true
	for _, d := range ls.dialers {
		d.cancel(nil)
	}
	ls.mu.Unlock()
	ls.dialing.Wait()
}

// run keeps the link until ctx ends.
func (d *dialer) run(ctx context.Context) {
	defer d.cancel(nil)
	for ctx.Err() == nil {
		err := d.round(ctx)
		d.isLinked.Store(false)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errMakesRoom) {
			continue
		}
		d.tell(err)
		d.pause = min(max(2*d.pause, redialMin), redialMax)
		select {
		case <-ctx.Done():
		case <-time.After(drawn(d.pause)):
		}
	}
}

// drawn returns a time from the upper half of d.
func drawn(d time.Duration) time.Duration { return d - rand.N(d/2+1) }

// round tries the domains in turn until the target takes one, and then keeps that
// link. It returns why there is none any more.
func (d *dialer) round(ctx context.Context) (err error) {
	domains := d.router.linkDomains()
	if len(domains) == 0 {
		return errNoDomain
	}
	for range domains {
		var a *attempt
		if a, err = d.dial(ctx, domains[d.next%len(domains)]); err == nil {
			d.linked(a)
			return d.keep(ctx, a)
		}
		var tcp *net.OpError
		if ctx.Err() != nil || errors.As(err, &tcp) && tcp.Op == "dial" || errors.Is(err, errSelf) {
			return err
		}
		d.next++
	}
	return err
}

var errNoDomain = errors.New("this router serves no domain that a link could be opened in")

// linkDomains returns the domains to open links in.
func (r *Router) linkDomains() []string {
	s := r.state()
	if s.config.LinkDomain != "" {
		return []string{s.config.LinkDomain}
	}
	return slices.Sorted(maps.Keys(s.domains))
}

// dial opens a link in one domain: the neighbour's hello was accepted.
func (d *dialer) dial(ctx context.Context, domain string) (*attempt, error) {
	r := d.router
	s := r.state()
	own := s.domains[domain]
	if own == nil {
		return nil, fmt.Errorf("this router does not serve %s now", domain)
	}
	a := &attempt{domain: domain, cost: s.config.linkCost(d.target), opened: make(chan struct{}), ended: make(chan struct{})}
	err := r.link.Dial(ctx, d.target, own.dialTLS(r), a)
	if err == nil {
		select {
		case <-a.opened:
		case <-a.ended: // the loop ends it in time if no hello comes
			select {
			case <-a.opened:
			default:
				err = a.why
			}
		case <-ctx.Done():
			if err = ctx.Err(); errors.Is(context.Cause(ctx), errRemoved) {
				r.retire(a, notConfigured)
			}
		}
	}
	r.links.dialed(err)
	return a, err
}

// dialTLS is the client's side of PROTOCOL.md section 4.1.
func (d *domain) dialTLS(r *Router) *tls.Config {
	own := d.tls.Certificates[0]
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ALPN},
		ServerName:             d.name,
		SessionTicketsDisabled: true,
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil },
		// The rules for a grant are stricter than those for a TLS server, and
		// revocation is among them.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := verifyPeer(r.state().config.Store, state, d.name, time.Now())
			if err != nil {
				return err
			}
			return id.RequireRole(pki.RoleRouter)
		},
	}
}

// linked notes that there is a link.
func (d *dialer) linked(a *attempt) {
	d.pause = 0
	d.failure.Store(nil)
	d.isLinked.Store(true)
	d.router.log.Info("linked", "to", codec.URLScheme+d.target, "domain", a.domain, "cost", a.cost)
}

// tell logs why there is no link, once for each reason.
func (d *dialer) tell(err error) {
	text := fmt.Sprint(err)
	if before := d.failure.Swap(&text); before == nil || *before != text {
		d.router.log.Warn("no link; trying again", "to", codec.URLScheme+d.target, "error", text)
	}
}
