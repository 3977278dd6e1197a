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

// linkCostMax is the largest cost of a link (PROTOCOL.md section 14.2).
const linkCostMax = 65_534

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
		if cost == 0 || cost > linkCostMax {
			return fmt.Errorf("engine: link cost %d of %q is outside 1 to %d", cost, target, linkCostMax)
		}
		if target != "" && !slices.Contains(c.Connect, target) {
			return fmt.Errorf("engine: a link cost for %s, which is none of the routers to connect to", target)
		}
	}
	for _, target := range c.Connect {
		if _, port, err := net.SplitHostPort(target); err != nil || port == "0" {
			return fmt.Errorf("engine: %q is no place to connect to; write host:port", target)
		}
	}
	if c.LinkDomain != "" && c.Identity.Grants[c.LinkDomain] == nil {
		return fmt.Errorf("engine: links are to be opened in %s, and there is no grant of that domain", c.LinkDomain)
	}
	return nil
}

// dialer keeps a link to one target.
type dialer struct {
	router *Router
	target string // host:port
	cancel context.CancelFunc
	done   chan struct{}

	// its goroutine's
	pause   time.Duration
	domains []string
	next    int // of domains

	failure atomic.Pointer[string] // why there is no link; nil: there is, or nobody knows yet
}

// attempt is one link of a dialer, from before it is dialed to its end. The
// channels are closed, in this order if at all, by the loop of the connection.
type attempt struct {
	domain  string
	cost    uint16
	ref     func() link.Ref // set when the handshake is done
	opened  chan struct{}   // the neighbour's hello was accepted
	settled chan struct{}   // and a domain was proven
	ended   chan struct{}
	why     error // set before ended
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

func (a *attempt) isOpen()    { closeOnce(a.opened) }
func (a *attempt) isSettled() { closeOnce(a.settled) }

// linkEnded tells the dialer of a link why it is gone.
func (p *peer) linkEnded(why error) {
	if p.far == nil || p.far.attempt == nil {
		return
	}
	if p.far.farewell != nil {
		why = p.far.farewell
	}
	p.far.attempt.why = why
	close(p.far.attempt.ended)
}

// dialAll dials the targets of a state, and leaves those that are none any more
// to themselves.
func (r *Router) dialAll(s *state) {
	ls := r.links
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.stopped {
		return
	}
	for _, target := range s.config.Connect {
		if ls.dialers[target] == nil {
			ctx, cancel := context.WithCancel(context.Background())
			d := &dialer{router: r, target: target, cancel: cancel, done: make(chan struct{})}
			ls.dialers[target] = d
			go d.run(ctx)
		}
	}
}

// stop ends all dialers; their links stay.
func (ls *links) stop() {
	ls.mu.Lock()
	ls.stopped = true
	all := slices.Collect(maps.Values(ls.dialers))
	ls.mu.Unlock()
	for _, d := range all {
		d.cancel()
	}
	for _, d := range all {
		<-d.done
	}
}

// run keeps the link until ctx ends.
func (d *dialer) run(ctx context.Context) {
	defer close(d.done)
	for ctx.Err() == nil {
		err := d.round(ctx)
		if ctx.Err() != nil {
			return
		}
		d.tell(err)
		d.pause = min(max(2*d.pause, redialMin), redialMax)
		select {
		case <-ctx.Done():
		case <-time.After(d.pause/2 + rand.N(d.pause/2+1)):
		}
	}
}

// round tries the domains in turn until the target takes one, and then waits for
// the end of that link. It returns why there is none any more.
func (d *dialer) round(ctx context.Context) (err error) {
	d.domains = d.router.linkDomains()
	for range d.domains {
		var a *attempt
		if a, err = d.dial(ctx, d.domains[d.next%len(d.domains)]); err == nil {
			opened := false
			if opened, err = d.attend(ctx, a); opened {
				return err
			}
		}
		var unreachable *net.OpError
		if ctx.Err() != nil || errors.As(err, &unreachable) && unreachable.Op == "dial" || errors.Is(err, errSelf) {
			return err
		}
		d.next++
	}
	return err
}

// linkDomains returns the domains to open links in.
func (r *Router) linkDomains() []string {
	s := r.state()
	if s.config.LinkDomain != "" {
		return []string{s.config.LinkDomain}
	}
	return slices.Sorted(maps.Keys(s.domains))
}

// dial connects in one domain.
func (d *dialer) dial(ctx context.Context, domain string) (*attempt, error) {
	r := d.router
	s := r.state()
	own := s.domains[domain]
	if own == nil {
		return nil, fmt.Errorf("this router does not serve %s now", domain)
	}
	a := &attempt{
		domain: domain, cost: s.config.linkCost(d.target),
		opened: make(chan struct{}), settled: make(chan struct{}), ended: make(chan struct{}),
	}
	return a, r.link.Dial(ctx, d.target, own.dialTLS(r), a)
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

// attend waits for the end of a link, and tells whether it was ever open.
func (d *dialer) attend(ctx context.Context, a *attempt) (opened bool, err error) {
	select {
	case <-a.opened:
	case <-a.ended:
		return false, a.why
	case <-ctx.Done():
		return false, ctx.Err()
	}
	d.pause = 0
	d.failure.Store(nil)
	d.router.log.Info("linked", "to", codec.URLScheme+d.target, "domain", a.domain, "cost", a.cost)
	select {
	case <-a.ended:
		return true, a.why
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// tell logs why there is no link, once for each reason.
func (d *dialer) tell(err error) {
	text := fmt.Sprint(err)
	if before := d.failure.Swap(&text); before == nil || *before != text {
		d.router.log.Warn("no link; trying again", "to", codec.URLScheme+d.target, "error", text)
	}
}
