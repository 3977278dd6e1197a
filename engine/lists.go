package engine

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// Revocation lists travel over links, both ways (PROTOCOL.md section 5.8):
//
//  1. tellLink        a neighbour is sent the lists of the domains proven on its link
//     that it is not known to have
//  2. revocationList  the parts of one of its lists come together
//  3. take            it is one of a domain proven there, and newer: it takes the other's
//     place by a reload; with its file, if the operator's store can be written
//  4. adopt           the reload has everybody who has not got it told
const (
	receivedListMax   = 16 << 20 // of one list, in bytes
	receivedListsMax  = 64 << 20 // of all that are being received or looked at
	receivedListsPart = 32       // of the cap on memory, the same

	listsPerSecond = 1 // that are looked at, of one neighbour,
	listsAtOnce    = 16
	listsPerDomain = 4 // and so many more at once for each domain

	listTime = 5 * time.Minute // for one to come whole

	// listRetry is when a link is renewed by which a list has come that there was no
	// room for: a list crosses a link once.
	listRetry = time.Minute
)

// Results of a list that came over a link, labels of
// causeway_revocation_lists_received_total.
const (
	listTaken   = iota
	listOld     // not newer than what is here
	listRefused // malformed, or of no authority of a domain proven on the link
	listSkipped // too many, or no memory now
	listLarge   // larger than there can be room for
	listResults
)

var listNames = [listResults]string{listTaken: "taken", listOld: "old", listRefused: "refused", listSkipped: "skipped", listLarge: "large"}

// linkLists is what goes on with lists on one link. It belongs to the home loop.
type linkLists struct {
	in      incomingList
	missed  missedList
	rate    bucket
	out     map[prefix]*outline // what the neighbour was told of each domain
	sending *outline            // of which a list is half sent
	number  uint64              // of the last list on this connection
}

// incomingList collects the parts of a list.
type incomingList struct {
	number uint64
	parts  uint16
	next   uint16
	data   []byte
	size   int64 // bytes of all parts that have come
	skip   bool
	began  time.Time
}

// missedList is the largest list that was skipped for want of room or as one too
// many, and may be taken later.
type missedList struct {
	at   time.Time // when the last one was skipped; zero: none was
	size int64     // bytes
}

// receivedLists are those that wait to be looked at, by a goroutine that there is
// while some do.
type receivedLists struct {
	bytes  atomic.Int64 // of these, and of those that are being received
	counts [listResults]atomic.Uint64

	mu      sync.Mutex
	waits   []receivedList
	running sync.WaitGroup
	busy    bool
	closed  bool
	told    bool // that a list can't be saved

	large lines // of lists there can be no room for
}

type receivedList struct {
	from    link.Ref
	domains []string
	der     []byte
}

// revocationList takes a part of a list from a neighbour.
func (p *peer) revocationList(m *codec.RevocationList) {
	in := &p.far.lists.in
	if in.next == 0 && m.Part == 0 {
		now, burst := p.loop.link.Now(), float64(listsAtOnce+listsPerDomain*len(p.far.proven))
		*in = incomingList{number: m.Number, parts: m.Parts, began: now, skip: !p.far.lists.rate.take(now, listsPerSecond, burst)}
	}
	if m.Number != in.number || m.Parts != in.parts || m.Part != in.next {
		p.leave(codec.GoodbyeProtocol, "parts of a revocation list came out of order")
		return
	}
	r := p.router
	in.size += int64(len(m.Data))
	if !in.skip && (in.size > min(r.listMax(), r.listRoom()) || !r.takesList(int64(len(m.Data)))) {
		in.skip = true
		p.dropList()
	}
	if !in.skip {
		in.data = append(in.data, m.Data...)
	}
	if in.next++; in.next < in.parts {
		return
	}
	whole, skipped, size := in.data, in.skip, in.size
	*in = incomingList{}
	switch {
	case !skipped:
		r.receive(receivedList{p.conn.Ref(), p.provenNames(), whole})
	case size > r.listMax():
		p.listTooLarge(size)
	default:
		r.lists.counts[listSkipped].Add(1)
		p.far.lists.missed = missedList{p.loop.link.Now(), max(p.far.lists.missed.size, size)}
	}
}

// listTooLarge counts a list that would not be taken if it came again, and tells the
// operator once in a while: what it revokes is good here.
func (p *peer) listTooLarge(size int64) {
	r := p.router
	r.lists.counts[listLarge].Add(1)
	if speak, unlogged := r.lists.large.now(p.loop.link.Now()); speak {
		remedy := "put it into this router's trust store"
		if size <= receivedListMax {
			remedy = fmt.Sprintf("raise --memory to %d MiB, or %s", (2*receivedListsPart*size+1<<20-1)>>20, remedy)
		}
		r.log.Error("a revocation list that another router sends is too large to be received here, and not in force; "+remedy,
			"peer", describe(p.id), "bytes", size, "max", r.listMax(), "more_since_last_line", unlogged)
	}
}

func (p *peer) provenNames() (names []string) {
	for _, up := range p.far.proven {
		names = append(names, up.domain.name)
	}
	return names
}

// dropList forgets a list that is being received.
func (p *peer) dropList() {
	p.router.takesList(-int64(len(p.far.lists.in.data)))
	p.far.lists.in.data = nil
}

// listRoom returns how much of one list there may be, in bytes: as much as is free,
// so that who never ends a list leaves room for the others.
func (r *Router) listRoom() int64 { return r.listsMax() - r.lists.bytes.Load() }

// listMax returns how large a list may be, in bytes: there is room for it when nothing
// else is being received.
func (r *Router) listMax() int64 { return min(receivedListMax, r.listsMax()/2) }

func (r *Router) listsMax() int64 { return min(receivedListsMax, r.budget.Limit()/receivedListsPart) }

// takesList counts n more bytes of lists that are being received; false: there is
// no room.
func (r *Router) takesList(n int64) bool {
	if all := r.lists.bytes.Add(n); n > 0 && all > r.listsMax() {
		r.lists.bytes.Add(-n)
		return false
	}
	r.budget.Use(buf.PartFetched, n)
	return true
}

// lookList ends a link by which a list has come in part and does not come whole,
// and has one renewed by which a list has come that there is room for now.
func (p *peer) lookList(now time.Time) {
	if p.far.lists.in.next > 0 && now.Sub(p.far.lists.in.began) >= listTime && p.isOpen() {
		p.leave(codec.GoodbyeLimit, fmt.Sprintf("a revocation list has not come whole within %v", listTime))
	}
	if m := p.far.lists.missed; !m.at.IsZero() && now.Sub(m.at) >= listRetry && p.far.lists.in.next == 0 && p.router.listRoom() >= 2*m.size {
		p.retire("there was no room for a revocation list; connect again")
	}
}

// receive has a list looked at, soon. It takes the list.
func (r *Router) receive(list receivedList) {
	ls := &r.lists
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		r.takesList(-int64(len(list.der)))
		return
	}
	ls.waits = append(ls.waits, list)
	if !ls.busy {
		ls.busy = true
		ls.running.Go(r.takeLists)
	}
}

// closeLists waits until no list is being looked at; further ones are not.
func (r *Router) closeLists() {
	r.lists.mu.Lock()
	r.lists.closed = true
	r.lists.mu.Unlock()
	r.lists.running.Wait()
}

// takeLists looks at the lists that wait, until there are none.
func (r *Router) takeLists() {
	for {
		r.lists.mu.Lock()
		all := r.lists.waits
		r.lists.waits = nil
		if r.lists.busy = len(all) > 0; !r.lists.busy {
			r.lists.mu.Unlock()
			return
		}
		r.lists.mu.Unlock()
		r.take(all)
	}
}

// take puts the lists in force that are newer than what is here, by one reload,
// and saves them.
func (r *Router) take(all []receivedList) {
	store := r.state().config.Store
	var taken []receivedList
	domains := make([]string, len(all))
	for i, list := range all {
		next, domain, err := store.WithCRLOf(list.domains, list.der)
		switch domains[i] = domain; {
		case err != nil:
			r.lists.counts[listRefused].Add(1)
		case next == store:
			r.lists.counts[listOld].Add(1)
		default:
			r.lists.counts[listTaken].Add(1)
			list.domains = []string{domain}
			taken = append(taken, list)
			store = next
		}
	}
	r.heard(all, domains) // before a reload has everybody told: who has sent a list needs none
	if len(taken) > 0 {
		if _, err := r.Reload(func(c Config) (Config, error) {
			for _, l := range taken {
				next, err := c.Store.WithCRL(l.domains[0], l.der)
				if err == nil { // else the domain has left the store meanwhile
					c.Store = next
				}
			}
			return c, nil
		}); err != nil {
			r.log.Error("revocation lists that came from another router are not in force", "error", err)
		}
		r.save(taken)
	}
	for _, list := range all {
		r.takesList(-int64(len(list.der)))
	}
}

// heard notes who has sent which lists.
func (r *Router) heard(all []receivedList, domains []string) {
	for i, list := range all {
		if domains[i] == "" {
			continue
		}
		at, sum := pki.Prefix(domains[i]), listSum(list.der)
		r.fetcher.tell(list.from, func(p *peer) { p.outline(at).heard(sum) })
	}
}

// save writes lists to where the operator keeps them. An operator is told once of
// what goes wrong: lists are in force all the same, until a restart.
func (r *Router) save(taken []receivedList) {
	if r.config.SaveList == nil {
		return
	}
	var errs []error
	for _, l := range taken {
		errs = append(errs, r.config.SaveList(l.domains[0], l.der))
	}
	if err := errors.Join(errs...); err != nil && !r.lists.told {
		r.lists.told = true
		r.log.Warn("a revocation list that came from another router is in force, but can't be written into the trust store; after a restart it has to come again", "error", err)
	}
}

// outline returns what the neighbour was told of a domain.
func (p *peer) outline(at prefix) *outline {
	if p.far.lists.out == nil {
		p.far.lists.out = make(map[prefix]*outline)
	}
	t := p.far.lists.out[at]
	if t == nil {
		t = &outline{}
		p.far.lists.out[at] = t
	}
	return t
}

// tellLink tells a neighbour what it has not got of the lists of the domains proven
// on its link, and whether that was all.
func (p *peer) tellLink() bool {
	for p.conn.AheadOnLoop() < tellAheadMax && p.takes(codec.RevocationPartMax) {
		if !p.tellLinkPart() {
			return true
		}
	}
	return false
}

func (p *peer) tellLinkPart() bool {
	if t := p.far.lists.sending; t != nil { // whole, whatever has happened to its domain
		p.tellPart(t, t.lists, &p.far.lists.number)
		p.far.lists.setSending(t)
		return true
	}
	s := p.router.state()
	for at, up := range p.far.proven {
		d := s.domains[up.domain.name]
		if d == nil {
			continue
		}
		if t := p.outline(at); p.tellPart(t, d.lists, &p.far.lists.number) {
			p.far.lists.setSending(t)
			return true
		}
	}
	return false
}

func (ls *linkLists) setSending(t *outline) {
	if ls.sending = t; t.part == 0 {
		ls.sending = nil
	}
}

// listSum names a list that was heard.
func listSum(der []byte) [sha256.Size]byte { return sha256.Sum256(der) }

// sameList tells whether two lists of one domain are one; their texts may have been
// read at different times.
func sameList(a, b pki.List) bool {
	const end = 64 // of the signature
	return a.Issuer == b.Issuer && a.Number == b.Number && len(a.DER) == len(b.DER) &&
		bytes.Equal(a.DER[max(0, len(a.DER)-end):], b.DER[max(0, len(b.DER)-end):])
}

// provenUp is told that a domain is proven on the link, or under another grant than
// before; provenDown that it no longer is.
func (p *peer) provenUp(up *proven, isNew bool) {
	if isNew {
		p.router.fetcher.up(up.domain, p.conn.Ref())
		p.loop.tellLater(p)
	}
	up.domain.members.keep(up.grant.id, func() bool { // so that others find it here
		return p.router.state().config.Store.Recheck(up.grant.id, p.loop.link.Now()) == nil
	})
}

func (p *peer) provenDown(up *proven) { p.router.fetcher.down(up.domain, p.conn.Ref()) }
