package engine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/engine/buf"
	"causeway/engine/link"
	"causeway/engine/route"
	"causeway/engine/table"
)

// routing knows how other routers are reached, and who is attached to them: one
// route.Instance for each domain, and what it takes to act on what they say.
//
//  1. Loops post what happens to links, and who attaches and leaves (mailbox).
//  2. One goroutine tells the instances, and calls them when time has come.
//  3. enter puts their routes and owners into the recipient table and hops;
//     messages and questions to nodes go to the loops (hands).
//
// The recipient table has two writers. Loops enter and clear who is connected
// here, whatever is there; routing enters what is elsewhere, and leaves alone
// who is connected here. When such a one leaves, its loop clears the entry and
// then posts that, so that routing looks again. A loop that finds a router's
// number in its way tells routing, which counts them.
type routing struct {
	// fixed after start
	hands     hands
	table     *table.Table
	hops      *hops
	withdrawn *withdrawals
	budget    *buf.Budget
	mailbox   *mailbox
	stopping  chan struct{}
	stopped   chan struct{}

	// its goroutine
	instances map[codec.Address]*instance // by this router's address
	prefixes  map[[codec.PrefixSize]byte]*instance
	changed   bool // some router is reached, or is so no more, since publish
	back      bool // somebody is reached again, or by another link, for whom frames may wait
	limits    routingLimits
	yields    bool  // limits.nodeCost is yieldCost, whatever a reload says
	memory    int64 // bytes, as the budget knows

	// any goroutine
	reached atomic.Pointer[map[codec.Address][]codec.Address] // other routers, by this router's address
	counts  routingCounts
	links   atomic.Int64 // in all instances
}

// hands is what routing has done by others. The calls must not block.
type hands interface {
	// say sends messages by a link, in their order.
	say(by link.Ref, messages []codec.Control)
	// leave ends a link that breaks the protocol or a limit.
	leave(by link.Ref, reason codec.GoodbyeReason, text string)
	// probe asks a node for an answer; peer.probed.
	probe(node link.Ref)
	// replaced ends the connection of a node that has attached to another router.
	replaced(node link.Ref, by codec.Address)
	// linksOf has stillUp called for the links that have proven the domain.
	linksOf(self codec.Address)
	// alarm tells the operator, once in a while, what is wrong in a domain.
	alarm(domain, what string)
	// appeared is told of an address that another router has since now.
	appeared(a codec.Address)
	// comeBack hands over what waits for who is reached again, or by another link.
	comeBack()
}

// routingLimits are what a reload can change.
type routingLimits struct {
	nodeCost     uint16
	maxAddresses int // of one router, for domains that are new
	maxTotal     int // of all other routers in one domain, the same; 0: the default
	skewMax      time.Duration
	hold         time.Duration // for addresses that nobody has any more; 0: nothing waits
}

// served is a domain of this router.
type served struct {
	name string
	self codec.Address
}

// instance is the routing of one domain.
type instance struct {
	served
	core     *route.Instance
	links    map[route.LinkID]link.Ref
	attached map[codec.Address][]attachment
	unlisted map[codec.Address]struct{}    // of attached: refused, since there were too many
	numbers  map[codec.Address]table.Value // of the routers that are reached
	deadline time.Time
	refused  route.Refused // as counted
}

// attachment is a node's connection. A node has several while a newer one takes
// the place of an older one.
type attachment struct {
	ref  link.Ref
	sent uint64 // its hello, nanoseconds since the Unix epoch
}

// newRouting starts routing; close ends it.
func newRouting(h hands, t *table.Table, hops *hops, w *withdrawals, budget *buf.Budget) *routing {
	rt := &routing{
		hands: h, table: t, hops: hops, withdrawn: w, budget: budget, mailbox: newMailbox(budget),
		stopping: make(chan struct{}), stopped: make(chan struct{}),
		instances: make(map[codec.Address]*instance), prefixes: make(map[[codec.PrefixSize]byte]*instance),
	}
	rt.reached.Store(new(map[codec.Address][]codec.Address))
	go rt.run()
	return rt
}

// close ends the goroutine, after what was posted before, and takes everything
// out of the table. What is posted later is not done.
func (rt *routing) close() {
	close(rt.stopping)
	<-rt.stopped
}

func (rt *routing) run() {
	defer close(rt.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var mails []mail
	for {
		select {
		case <-rt.mailbox.wake:
		case <-timer.C:
		case <-rt.stopping:
			rt.handle(rt.mailbox.close())
			rt.limits.hold = 0
			for _, in := range rt.instances {
				rt.end(in)
			}
			rt.publish()
			return
		}
		mails = rt.mailbox.take(mails)
		rt.handle(mails)
		rt.tick(time.Now())
		rt.publish()
		timer.Reset(time.Until(rt.deadline()))
	}
}

func (rt *routing) handle(mails []mail) {
	for _, m := range mails {
		m.do(time.Now())
		rt.mailbox.handled(m)
	}
	rt.comeBack()
}

// tick calls the instances whose time has come.
func (rt *routing) tick(now time.Time) {
	for _, in := range rt.instances {
		if !now.Before(in.deadline) {
			rt.act(in, in.core.Tick(now))
		}
	}
	rt.comeBack()
}

func (rt *routing) deadline() time.Time {
	at := time.Now().Add(time.Hour)
	for _, in := range rt.instances {
		if in.deadline.Before(at) {
			at = in.deadline
		}
	}
	return at
}

// comeBack has frames handed over that wait for who is reached again.
func (rt *routing) comeBack() {
	if rt.back {
		rt.back = false
		rt.hands.comeBack()
	}
}

// post has the goroutine do something, after what was posted before; false: it
// has ended, or is about to. Any goroutine.
func (rt *routing) post(do func(now time.Time)) bool { return rt.mailbox.put(mail{do: do}) }

// serve has routing serve exactly the domains given, with these limits from now
// on. An instance stays as it is while its domain and this router's address in
// it do.
func (rt *routing) serve(all []served, limits routingLimits) {
	rt.post(func(now time.Time) {
		if rt.yields {
			limits.nodeCost = yieldCost
		}
		rt.limits = limits
		for _, in := range rt.instances {
			if !slices.Contains(all, in.served) {
				rt.end(in)
			}
		}
		for _, s := range all {
			if in := rt.instances[s.self]; in != nil {
				rt.act(in, in.core.Set(now, limits.nodeCost, limits.skewMax))
			} else {
				rt.begin(now, s)
			}
		}
	})
}

// begin is serve for one more domain, that may have been served already.
func (rt *routing) begin(now time.Time, s served) {
	core, err := route.New(route.Config{
		Self: s.self, NodeCost: rt.limits.nodeCost, MaxAddresses: rt.limits.maxAddresses, MaxTotal: rt.limits.maxTotal, MaxSkew: rt.limits.skewMax, Random: rand.Reader,
	}, now)
	if err != nil {
		panic("engine: the system has no randomness: " + err.Error())
	}
	in := &instance{
		served: s, core: core, links: make(map[route.LinkID]link.Ref), attached: make(map[codec.Address][]attachment), unlisted: make(map[codec.Address]struct{}),
		numbers: make(map[codec.Address]table.Value), deadline: now.Add(route.UpdateInterval),
	}
	rt.instances[s.self], rt.prefixes[s.self.Prefix()] = in, in
	rt.hands.linksOf(s.self)
}

// end ends a domain: nothing of it stays in the table, but for who is connected
// here.
func (rt *routing) end(in *instance) {
	for _, o := range in.core.Owners() {
		rt.set(o.Node, 0)
	}
	for router := range in.numbers {
		rt.lose(in, router)
	}
	delete(rt.instances, in.self)
	if rt.prefixes[in.self.Prefix()] == in {
		delete(rt.prefixes, in.self.Prefix())
	}
}

// linkUp says that a link has proven the domain in which this router is self and
// the neighbour has the address given.
func (rt *routing) linkUp(self codec.Address, id route.LinkID, by link.Ref, neighbour codec.Address, cost uint16) {
	rt.post(func(now time.Time) {
		in := rt.instances[self]
		if in == nil {
			return // it is no longer served
		}
		in.links[id] = by
		actions, err := in.core.LinkUp(now, id, neighbour, cost)
		if err != nil {
			delete(in.links, id)
			rt.hands.leave(by, codec.GoodbyeLimit, err.Error())
			return
		}
		rt.act(in, actions)
	})
}

// stillUp says that a domain is proven by a link. If the instance has not heard of
// that, the domain was gone and is back before the loop has noticed: what the
// neighbour has told the instance before is lost, so the link has to begin anew.
func (rt *routing) stillUp(self codec.Address, id route.LinkID, by link.Ref) {
	rt.post(func(time.Time) {
		if in := rt.instances[self]; in != nil {
			if _, known := in.links[id]; !known {
				rt.hands.leave(by, codec.GoodbyeDone, "a domain has come back; connect again")
			}
		}
	})
}

// linkDown says that a domain is not proven any more by a link, or that the link
// has ended.
func (rt *routing) linkDown(self codec.Address, id route.LinkID) {
	rt.post(func(now time.Time) {
		if in := rt.instances[self]; in != nil {
			actions := in.core.LinkDown(now, id)
			rt.act(in, actions)
			delete(in.links, id)
		}
	})
}

// message takes what a neighbour says of routes and lists; false: more waits of
// it already than may.
func (rt *routing) message(id route.LinkID, by link.Ref, m codec.Control) bool {
	return rt.mailbox.put(mail{link: id, size: memoryOf(m), do: func(now time.Time) { rt.receive(now, id, by, m) }})
}

func (rt *routing) receive(now time.Time, id route.LinkID, by link.Ref, m codec.Control) {
	in := rt.prefixes[m.(interface{ Domain() [codec.PrefixSize]byte }).Domain()]
	if in == nil {
		rt.counts.refuse(refusedDomain, 1)
		return
	}
	actions, err := in.core.Receive(now, id, m)
	switch {
	case errors.Is(err, route.ErrLink):
		rt.counts.refuse(refusedLink, 1)
	case errors.Is(err, route.ErrParts):
		rt.counts.refuse(refusedParts, 1)
		rt.hands.leave(by, codec.GoodbyeProtocol, err.Error())
	case err != nil:
		panic(fmt.Sprintf("engine: a message for %v: %v", in.self, err))
	default:
		rt.act(in, actions)
	}
}

// attach says that a node is connected here, since a hello that it sent at that
// time, and is in the table in the place of old. Each attach is followed by one
// detach.
func (rt *routing) attach(self, node codec.Address, ref link.Ref, sent uint64, old table.Value) {
	rt.post(func(now time.Time) {
		rt.hops.count(old, -1)
		in := rt.instances[self]
		if in == nil {
			return
		}
		all := append(in.attached[node], attachment{ref, sent})
		in.attached[node] = all
		actions, err := in.core.Attach(now, node, latestOf(all).sent)
		if err != nil {
			in.unlisted[node] = struct{}{}
			rt.counts.refuse(refusedAttached, 1)
			rt.hands.alarm(in.name, fmt.Sprintf("nodes of other routers can't reach all nodes here: more than %d are connected; raise --max-addresses on all routers", rt.limits.maxAddresses))
			return
		}
		delete(in.unlisted, node)
		rt.act(in, actions)
	})
}

// latestOf returns the attachment by which others know the node.
func latestOf(all []attachment) (last attachment) {
	for _, a := range all {
		if a.sent >= last.sent {
			last = a
		}
	}
	return last
}

// detach says that a node's connection is no longer in the table, if it was.
func (rt *routing) detach(self, node codec.Address, ref link.Ref) {
	rt.post(func(now time.Time) {
		in := rt.instances[self]
		if in == nil {
			return
		}
		all := slices.DeleteFunc(in.attached[node], func(a attachment) bool { return a.ref == ref })
		if len(all) > 0 {
			in.attached[node] = all
			return
		}
		delete(in.attached, node)
		delete(in.unlisted, node)
		rt.act(in, in.core.Detach(now, node))
		rt.list(now, in)
		rt.place(in, node, in.core.Owner(node)) // which may have been another router before
	})
}

// list has a node announced that was refused before, if there is room now.
func (rt *routing) list(now time.Time, in *instance) {
	for node := range in.unlisted {
		if actions, err := in.core.Attach(now, node, latestOf(in.attached[node]).sent); err == nil {
			delete(in.unlisted, node)
			rt.act(in, actions)
		}
		return
	}
}

// answered says that a node that was to be probed has answered.
func (rt *routing) answered(self, node codec.Address) {
	rt.post(func(now time.Time) {
		if in := rt.instances[self]; in != nil {
			rt.act(in, in.core.Answered(now, node))
		}
	})
}

// yield makes other routers go around this one where they can: it is about to
// stop.
func (rt *routing) yield() {
	rt.post(func(now time.Time) {
		rt.yields, rt.limits.nodeCost = true, yieldCost
		for _, in := range rt.instances {
			rt.act(in, in.core.Set(now, yieldCost, rt.limits.skewMax))
		}
	})
}

// yieldCost is the node cost of a router that stops: a way through one is still
// one, through two is none.
const yieldCost = codec.MetricInfinity / 2
