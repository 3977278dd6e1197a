package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// A node's name request, when there are other routers of its domain
// (PROTOCOL.md section 5.16):
//
//  1. names      on the node's loop: what is known here, and a question to each
//     other router that is reached
//  2. question   at the router that is asked: its answer, or on to the next hop
//  3. answer     at the router that asked: kept until all have come, or time is
//     over; anywhere else on to the next hop
//  4. told       on the node's loop again: all together, as one answer
const (
	askingPatience = 2 * time.Second        // for the answers of all
	foundPatience  = 250 * time.Millisecond // for better ones, once a name is found

	askingPerNodeMax = 4       // requests of a node that others are asked about at a time
	askingQueuedMax  = 64      // and that wait for their turn: as many as the library has outstanding
	askingMax        = 1 << 12 // requests of all nodes
	askingPart       = 64      // what answers may take until they are told, of the cap on memory
	askingHops       = 64      // of a question, and of its answer

	questionsPerSecond = 1000 // of a neighbour, and as many answers to other routers
)

// Fates of name questions and answers, labels of causeway_name_messages_total.
const (
	nameAsked    = iota // a question of this router
	nameAnswered        // a question to this router
	nameTaken           // an answer to this router
	namePassed          // on to another router
	nameUnproven        // dropped: about a domain that the link has not proven
	nameNoRoute         // dropped: where it goes is not reached
	nameSpent           // dropped: no hop was left
	nameRate            // dropped: beyond the neighbour's rate
	nameBusy            // dropped: the next link has too much to send, or memory is short
	nameLate            // dropped: an answer that nobody waits for
	nameFates
)

var nameFateNames = [nameFates]string{"asked", "answered", "taken", "passed", "not-proven", "no-route", "hops", "rate", "busy", "late"}

// asking is what a router has asked others for its nodes.
type asking struct {
	fates [nameFates]atomic.Uint64

	mu    sync.Mutex
	last  uint64              // number
	open  map[uint64]*inquiry // by number
	bytes int64               // of their answers
	ended bool
}

func newAsking() *asking { return &asking{open: make(map[uint64]*inquiry)} }

// nameAsks are a node's name requests that other routers are asked about. They
// belong to the home loop.
type nameAsks struct {
	underway int
	queue    []*codec.NameRequest // that wait for their turn
}

// inquiry is a name request that other routers are asked about.
type inquiry struct {
	by      link.Ref // the node's connection
	request *codec.NameRequest

	// guarded by asking.mu
	waits map[codec.Address]struct{} // routers that have not answered
	parts []namesOf
	bytes int64
	found bool
	over  *time.Timer
}

// namesHere returns what this router says of itself to a name request.
func (d *domain) namesHere(name, after string, most int) namesOf {
	entry := func(name string, chain [][]byte, kind string) codec.NamedEntry {
		return codec.NamedEntry{Name: name, NameEntry: codec.NameEntry{Chain: chain, Kind: kind}}
	}
	switch {
	case name == routerPrefix+d.grant.Name:
		return namesOf{entries: []codec.NamedEntry{entry(name, d.grant.Chain, "router")}}
	case name != "":
		if m := d.members.named(name); m != nil {
			return namesOf{entries: []codec.NamedEntry{entry(name, m.id.Chain, m.kind)}}
		}
		return namesOf{}
	}
	found, more := d.members.page(after, most)
	var p namesOf
	for _, m := range found {
		p.entries = append(p.entries, entry(m.id.Name, m.id.Chain, m.kind))
	}
	if n := codec.FitNamed(p.entries); n < len(p.entries) {
		p.entries, more = p.entries[:n], true
	}
	if n := len(p.entries); n > 0 && more {
		p.next = p.entries[n-1].Name
	}
	return p
}

// names answers a name request of a node (PROTOCOL.md section 5.7), when the other
// routers of the domain have been asked.
func (p *peer) names(q *codec.NameRequest) {
	routers := p.router.otherRouters(p.domain)
	switch {
	case len(routers) == 0:
		p.tellNames(q, nil)
	case p.asks.underway < askingPerNodeMax:
		p.inquire(q, routers)
	case p.answered(len(p.asks.queue) < askingQueuedMax):
		p.asks.queue = append(p.asks.queue, q)
	}
}

// inquire asks the routers given.
func (p *peer) inquire(q *codec.NameRequest, routers []codec.Address) {
	r := p.router
	found := q.Name != "" && len(p.domain.namesHere(q.Name, "", 1).entries) > 0
	number, ok := r.asking.begin(r, p.conn.Ref(), q, found, routers)
	if !p.answered(ok) {
		return
	}
	p.asks.underway++
	for _, to := range routers {
		r.asking.fates[nameAsked].Add(1)
		r.passOn(to, &codec.NameQuestion{
			Asked: to, Asker: p.domain.address, Number: number, Hops: askingHops, Name: q.Name, After: q.After, Max: q.Max,
		}, answerSmall)
	}
}

// begin notes that routers are asked about a request of the node that is connected
// by the connection given, and whether the name is known here; false: there is too
// much of that already.
func (a *asking) begin(r *Router, by link.Ref, q *codec.NameRequest, found bool, routers []codec.Address) (number uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || len(a.open) >= askingMax {
		return 0, false
	}
	a.last++
	number = a.last
	i := &inquiry{by: by, request: q, found: found, waits: make(map[codec.Address]struct{}, len(routers))}
	for _, router := range routers {
		i.waits[router] = struct{}{}
	}
	patience := askingPatience
	if found {
		patience = foundPatience
	}
	i.over = time.AfterFunc(patience, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.finishLocked(r, number)
	})
	a.open[number] = i
	return number, true
}

// take takes the answer of another router.
func (a *asking) take(r *Router, m *codec.NameAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.open[m.Number]
	if i == nil {
		a.fates[nameLate].Add(1)
		return
	}
	if _, waits := i.waits[m.Asked]; !waits {
		a.fates[nameLate].Add(1)
		return
	}
	delete(i.waits, m.Asked)
	size := int64(0)
	for _, e := range m.Entries {
		size += int64(chainSize(e.Chain))
	}
	if a.bytes+size > r.budget.Limit()/askingPart {
		a.fates[nameBusy].Add(1)
	} else {
		a.fates[nameTaken].Add(1)
		a.takesLocked(r, i, size)
		i.parts = append(i.parts, namesOf{m.Entries, m.Next})
	}
	switch {
	case len(i.waits) == 0:
		a.finishLocked(r, m.Number)
	case i.request.Name != "" && len(m.Entries) > 0 && !i.found:
		i.found = true
		i.over.Reset(foundPatience)
	}
}

func (a *asking) takesLocked(r *Router, i *inquiry, bytes int64) {
	i.bytes += bytes
	a.bytes += bytes
	r.budget.Use(buf.PartCertificates, bytes)
}

// finishLocked has the node told what has come.
func (a *asking) finishLocked(r *Router, number uint64) {
	i := a.open[number]
	if i == nil {
		return
	}
	delete(a.open, number)
	i.over.Stop()
	a.takesLocked(r, i, -i.bytes)
	r.onPeer(i.by, func(p *peer) { p.told(i) })
}

// close forgets all that was asked.
func (a *asking) close(r *Router) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	for number := range a.open {
		a.finishLocked(r, number)
	}
}

// told answers the node's request with what others have said, and goes on with the
// next.
func (p *peer) told(i *inquiry) {
	p.asks.underway--
	p.tellNames(i.request, i.parts)
	for len(p.asks.queue) > 0 && p.asks.underway < askingPerNodeMax {
		q := p.asks.queue[0]
		if p.asks.queue = p.asks.queue[1:]; len(p.asks.queue) == 0 {
			p.asks.queue = nil
		}
		p.names(q)
	}
}

// tellNames answers a name request with what is known here and what others have
// said.
func (p *peer) tellNames(q *codec.NameRequest, others []namesOf) {
	if !p.isOpen() {
		return
	}
	here := p.domain.namesHere(q.Name, q.After, int(q.Max))
	answer := mergeNames(q.Number, append([]namesOf{here}, others...), int(q.Max))
	if q.Name != "" {
		answer.Next = ""
	}
	size := 0
	for _, e := range answer.Entries {
		size += chainSize(e.Chain)
	}
	if p.mayHave(size) {
		p.say(answer)
	}
}
