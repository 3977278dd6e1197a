package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
	"causeway/engine/route"
)

// keyBefore returns the key of id if it was proven on this link, or nil.
func (p *peer) keyBefore(id *pki.Peer) *sign.Key {
	for _, c := range p.certs {
		if pki.SameKey(c.id.Public, id.Public) {
			return c.key
		}
	}
	return nil
}

// linkRenewal takes a newer grant in the domain of the one that its frame was
// signed under (PROTOCOL.md section 5.9).
func (p *peer) linkRenewal(m *codec.Renewal, under *announced) {
	now := p.loop.link.Now()
	id, err := p.router.state().config.Store.VerifyDER(m.Chain, under.id.Domain, now)
	switch {
	case err != nil:
		p.linkRenewalRefused(m, under, err)
		return
	case id.Address != under.id.Address || id.URI() != under.id.URI():
		p.leave(codec.GoodbyeProtocol, "a renewal is for "+id.URI()+", another than its sender's "+under.id.URI())
		return
	case p.cert(id.CertID) != nil:
		return
	}
	id = id.Compact()
	key, err := p.provenKey(id, m.Proof)
	if err != nil {
		p.leave(codec.GoodbyeProtocol, "a renewal: "+err.Error())
		return
	}
	p.take(newAnnounced(id, key))
	p.settle()
}

// linkRenewalRefused takes a renewal whose chain is no good here, such as one under a
// root that this router does not have yet. It costs its domain alone: as with
// grants, this end ceases to prove the domain. Link control goes on under it until
// the neighbour knows that: its key is the neighbour's.
func (p *peer) linkRenewalRefused(m *codec.Renewal, under *announced, refused error) {
	claim, err := leafOf(m.Chain)
	early, _ := pki.ReasonOf(refused) // by a clock that is ahead: another link soon has it
	if err != nil || early == pki.ReasonNotYetValid || claim.Address != under.id.Address || claim.URI() != under.id.URI() {
		p.leave(renewalReason(refused), "a renewal: "+refused.Error())
		return
	}
	if p.cert(claim.CertID) == nil {
		claim.Chain = m.Chain
		key, err := p.provenKey(claim, m.Proof)
		if err != nil {
			p.leave(codec.GoodbyeProtocol, "a renewal: "+err.Error())
			return
		}
		c := newAnnounced(claim.Compact(), key)
		c.isClaim = true
		p.certs = append(p.certs, c)
		p.forgetOld(claim.Domain)
	}
	p.router.links.ignore(reasonOf(refused))
	if at := pki.Prefix(claim.Domain); p.isShared(at) {
		p.far.hidden[at] = struct{}{}
		if reason := renewalReason(refused); reason != codec.GoodbyeProtocol {
			p.far.refused = refused
		}
	}
	p.offer(false)
}

// adoptLink makes the new state that of a link.
func (p *peer) adoptLink(s *state) {
	if p.phase == phaseHello {
		switch d := s.domains[p.domain.name]; {
		case d == nil || d.address != p.domain.address:
			p.leave(codec.GoodbyeDraining, "this router is no longer what it was in "+p.domain.name+"; connect again")
		default:
			if err := s.config.Store.Recheck(p.id, p.loop.link.Now()); err != nil {
				p.expel(refusalReason(err), err.Error())
			}
		}
		return
	}
	clear(p.far.hidden)
	p.far.current = current{} // or a link without frames would keep the old state
	p.recheck(s, p.loop.link.Now())
	p.offer(false)
	p.loop.tellLater(p)
}

// recheck takes the neighbour's grants that are no longer good.
func (p *peer) recheck(s *state, now time.Time) {
	far := p.far
	for at, c := range far.granted {
		if err := s.config.Store.Recheck(c.id, now); err != nil {
			delete(far.granted, at)
			far.refused = err
			if isRevoked(err) {
				far.hidden[at] = struct{}{}
			}
			continue
		}
		p.loop.endsAt(c.id.NotAfter)
	}
}

// expireLink withdraws the domains whose grants, the neighbour's or this
// router's, have ended.
func (p *peer) expireLink(now time.Time) {
	s := p.router.state()
	if p.phase == phaseHello {
		if now.After(p.id.NotAfter) || now.After(p.domain.grant.NotAfter) {
			p.expel(codec.GoodbyeExpired, fmt.Sprintf("a grant of %s was valid until %s", p.domain.name, clock(p.id.NotAfter)))
			return
		}
		p.loop.endsAt(p.id.NotAfter)
		p.loop.endsAt(p.domain.grant.NotAfter)
		return
	}
	for at, d := range p.far.offers {
		if now.After(d.grant.NotAfter) && p.far.proven[at] != nil {
			p.far.refused = &pki.Error{Reason: pki.ReasonExpired, Domain: d.name, What: "this router's grant was valid until " + clock(d.grant.NotAfter)}
		}
	}
	p.recheck(s, now)
	p.offer(false)
}

// LinkRenewalDefault is how old a link becomes before another takes its place. TLS
// 1.3 has a limit of what is sent under one key (RFC 8446 section 5.5), about 400
// GB with AES-GCM, and crypto/tls never changes keys by itself.
const LinkRenewalDefault = 12 * time.Hour

const (
	// renewalRetry is when a link that could not be renewed is tried again, at most.
	renewalRetry = time.Minute

	// retireQuiet is how long a link is kept silent before its goodbye: frames may
	// still be on their way to it when its domains have been withdrawn.
	retireQuiet = 200 * time.Millisecond
	retireMax   = leaveTime // until the goodbye, and from there to the answer
)

const notConfigured = "this router is no longer to have this link"

// keep waits for the end of a link, and has another take its place when it is
// old. It returns why there is none any more.
func (d *dialer) keep(ctx context.Context, a *attempt) error {
	every := d.router.state().config.LinkRenewal
	renew := time.NewTimer(drawn(every))
	defer renew.Stop()
	for makesRoom := false; ; {
		select {
		case <-a.ended:
			if makesRoom {
				return errMakesRoom
			}
			return a.why
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errRemoved) {
				d.router.log.Info("leaving a link", "to", codec.URLScheme+d.target, "why", "it is no longer configured")
				d.router.retire(a, notConfigured)
			}
			return ctx.Err()
		case <-renew.C:
		}
		next, err := d.replace(ctx, a)
		switch {
		case err == nil:
			d.router.retire(a, "a newer link takes its place")
			a = next
			renew.Reset(drawn(every))
		case isLimit(err): // there are others; this one has to make room
			makesRoom = true
			d.router.retire(a, "it is to be replaced")
		default:
			d.router.log.Debug("a link could not be renewed", "to", codec.URLScheme+d.target, "error", err)
			renew.Reset(drawn(min(every, renewalRetry)))
		}
	}
}

// errMakesRoom is the end of a link that another is to follow.
var errMakesRoom = errors.New("engine: the link has made room for a newer one")

func isLimit(err error) bool {
	var farewell *farewellError
	return errors.As(err, &farewell) && farewell.reason == codec.GoodbyeLimit
}

var errNotProven = errors.New("engine: a new link has not proven the domains of the old one in time")

// tellTime is how long the old link goes on beside the one that takes its place, for
// both routers to tell by that what they reach: else frames would wait for a route.
const tellTime = 4 * route.BatchDelay

// replace dials the link that takes the place of a, and waits until as many domains
// are proven on it, and tellTime from then on.
func (d *dialer) replace(ctx context.Context, a *attempt) (*attempt, error) {
	next, err := d.dial(ctx, d.renewalDomain(a))
	if err != nil {
		return nil, err
	}
	end := time.NewTimer(d.router.state().config.HelloTimeout)
	defer end.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for proven := false; ; {
		select {
		case <-next.ended:
			return nil, next.why
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errRemoved) {
				d.router.retire(next, notConfigured)
			}
			return nil, ctx.Err()
		case <-end.C:
			if proven && provesAsMuch(next, a) { // still
				return next, nil
			}
			d.router.retire(next, "it could not take another's place")
			return nil, errNotProven
		case <-look.C:
			if !proven && provesAsMuch(next, a) {
				proven = true
				end.Reset(tellTime)
			}
		}
	}
}

// provesAsMuch tells whether as many domains are proven on next, which has not ended,
// as on a.
func provesAsMuch(next, a *attempt) bool {
	n := next.proven.Load()
	return n > 0 && n >= a.proven.Load()
}

// renewalDomain returns the domain to open the link in that takes the place of a: that
// of a may have been withdrawn since, while others go on.
func (d *dialer) renewalDomain(a *attempt) string {
	if only := d.router.state().config.LinkDomain; only != "" {
		return only
	}
	if control := a.control.Load(); control != nil {
		return *control
	}
	return a.domain
}

// retire has a link end when what is under way on it has arrived. Any goroutine.
func (r *Router) retire(a *attempt, text string) {
	ref := a.ref()
	l := r.loops[ref.Loop()].link
	l.Post(func() {
		if c := l.Conn(ref); c != nil {
			peerOf(c).retire(text)
		}
	})
}

// retire withdraws the domains here, so that traffic takes other links, and says
// goodbye a moment later (lookRetiring). Frames of the neighbour are taken until it
// answers.
func (p *peer) retire(text string) {
	switch p.phase {
	case phaseOpen:
	case phaseDraining: // this router stops too, or leaves the link already
		if p.far.retiring {
			return
		}
	case phaseHello:
		p.leave(codec.GoodbyeDone, text)
		return
	default:
		return
	}
	p.phase = phaseDraining
	p.far.retiring, p.far.retireText, p.far.retireFrom = true, text, p.loop.link.Now()
	p.withdrawAll()
}

// lookRetiring goes on with retire: goodbye when the link is silent, and an end
// when that is not answered.
func (p *peer) lookRetiring(now time.Time) {
	far := p.far
	if p.phase != phaseDraining || !far.retiring {
		return
	}
	age := now.Sub(far.retireFrom)
	switch {
	case !far.retireSaid && age >= retireQuiet && (p.conn.QueuedBytes() == 0 || age >= retireMax):
		far.retireSaid, far.retireFrom = true, now
		received := p.decided()
		p.sayBehind(&codec.Goodbye{Reason: codec.GoodbyeDone, Text: far.retireText, ReadFor: retireMax, Received: received}, received)
	case far.retireSaid && age >= retireMax:
		p.leave(codec.GoodbyeDone, far.retireText)
	}
}
