package route

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"causeway/codec"
)

// Times and limits of PROTOCOL.md section 14.
const (
	UpdateInterval = time.Minute           // all routes are repeated so often
	BatchDelay     = 50 * time.Millisecond // at least this between two batches of updates
	ForgetAfter    = 180 * time.Second     // after its last route is gone, a router's distance and list are forgotten
	ProbeTimeout   = 2 * time.Second       // a node that is probed answers within this
	LinksMax       = 4                     // to one router

	MaxAddressesDefault = 100_000
	MaxTotalDefault     = 1_000_000
	MaxRoutersDefault   = 4096
	MaxSkewDefault      = 300 * time.Second
)

// Errors of events. After ErrLink and ErrDomain the message is dropped and
// counted, after ErrParts the link is closed.
var (
	// ErrLink: the message came by a link that has not proven the domain.
	ErrLink = errors.New("route: the link has not proven the domain")
	// ErrDomain: the message is about another domain.
	ErrDomain = errors.New("route: a message about another domain")
	// ErrParts: parts of an address list came out of order.
	ErrParts = errors.New("route: parts of an address list out of order")
	// ErrLinks: there are LinksMax links to that router already.
	ErrLinks = fmt.Errorf("route: more than %d links to one router", LinksMax)
	// ErrAddresses: as many nodes are attached as a list can have.
	ErrAddresses = errors.New("route: as many nodes are attached as a list may have")
)

// LinkID names a link for its life. No two links of an Instance ever have the
// same, and none is 0.
type LinkID uint64

// Config is an Instance's. Zero values of numbers other than NodeCost mean the
// defaults.
type Config struct {
	Self         codec.Address // this router's in the domain
	NodeCost     uint16        // added to the metric of every route through this router
	MaxAddresses int           // of one list; at most 1,048,576
	MaxTotal     int           // addresses of all other routers' lists; besides, as many in lists that are coming
	MaxRouters   int           // other routers known at one time
	MaxSkew      time.Duration // how far epochs and attached times may be ahead of the clock
	Random       io.Reader     // New reads the router ID from it
}

// Message is to be sent by a link.
type Message struct {
	Link LinkID
	Body codec.Control
}

// RouteChange says by which link a router is reached from now on.
type RouteChange struct {
	Router codec.Address
	Via    LinkID // 0: it is not reached any more
}

// OwnerChange says to which router frames for a node go from now on.
type OwnerChange struct {
	Node   codec.Address
	Router codec.Address // this router's own address: attached here; zero: nobody has it
}

// Actions is what an event asks of the caller, who owns it. Changes are to be
// applied all together.
type Actions struct {
	Messages  []Message       // to be sent in this order
	Routes    []RouteChange   // at most one for each router
	Owners    []OwnerChange   // at most one for each node
	Probes    []codec.Address // attached nodes to be asked for an answer; see Answered
	Withdrawn []codec.Address // attached nodes that have not answered; they are detached already
	Deadline  time.Time       // call Tick then, if nothing else was called before
}

// Refused counts what was left out of messages.
type Refused struct {
	Future uint64 // routes, lists and entries from further ahead of the clock than the maximal skew
	Limit  uint64 // routers and addresses beyond their limits
	Stray  uint64 // parts of lists that were not asked for
	Twin   uint64 // newer sources of this router's own address, after it has outdone many: another router has the address
}

// link is a neighbour in the sense of RFC 8966 section 3.2.4.
type link struct {
	id     LinkID
	router codec.Address
	cost   uint16

	told     map[codec.Address]advert // sent and not retracted since; infinite: to be told again
	isFresh  bool                     // nothing has been sent yet
	requests []codec.SeqnoWanted      // to be sent at the end of the event

	lists     map[codec.Address]version      // numbers the neighbour is known to have
	tellLists bool                           // the next flush tells the numbers of all lists
	awaited   map[codec.Address]bool         // whole lists asked for that have not come
	partial   map[codec.Address]*partialList // of these
	answered  map[codec.Address]answered     // list requests
	servedTo  time.Time                      // by then what was sent in answer is paid for; see answerListRequest
}

// Instance is the routing of one domain. Its methods must not be called
// concurrently.
type Instance struct {
	config  Config
	source  codec.Source
	seqno   uint16
	raised  bool // seqno has grown since the last flush
	refused Refused

	renewals  int // since renewedAt
	renewedAt time.Time

	links   []*link                        // by ID
	routers map[codec.Address]*destination // not this one
	order   []*destination                 // of routers, by address

	// What the next flush tells the neighbours.
	dirty      map[*destination]struct{}
	dirtySelf  bool
	refreshing bool
	flushedAt  time.Time
	flushDue   bool

	attached map[codec.Address]uint64   // own nodes: attached times
	pending  map[codec.Address]struct{} // own nodes that changed since the last flush
	self     destination                // list: what was announced
	places   map[codec.Address]*place
	touched  map[codec.Address]struct{} // nodes whose owner may have changed in this event
	rerouted map[*destination]struct{}  // routers whose link may have changed in this event
	probes   map[codec.Address]*probe

	returns map[codec.Address]time.Time // by neighbour: by then what came back is paid for; see mayReturn

	listed int // addresses of all lists in routers
	coming int // addresses of all partial lists

	refreshAt time.Time
	wakeAt    time.Time // nothing but flush and refresh is due before; zero: nothing at all
	lookedAt  time.Time // Tick has looked at everything
	out       Actions
}

// New starts an instance; its epoch is now. It fails when Random does. It panics
// when Self is no router's address or a limit is out of its range.
func New(config Config, now time.Time) (*Instance, error) {
	if config.Self.Kind() != codec.KindRouter {
		panic(fmt.Sprintf("route: own address %v is no router's", config.Self))
	}
	if config.MaxAddresses == 0 {
		config.MaxAddresses = MaxAddressesDefault
	}
	if config.MaxTotal == 0 {
		config.MaxTotal = MaxTotalDefault
	}
	if config.MaxRouters == 0 {
		config.MaxRouters = MaxRoutersDefault
	}
	if config.MaxSkew == 0 {
		config.MaxSkew = MaxSkewDefault
	}
	if config.MaxAddresses < 0 || config.MaxAddresses > codec.AddressListEntriesMax*codec.AddressListPartsMax || config.MaxTotal < 0 || config.MaxRouters < 0 {
		panic(fmt.Sprintf("route: limits of %d addresses, %d in all, %d routers", config.MaxAddresses, config.MaxTotal, config.MaxRouters))
	}
	i := &Instance{
		config:    config,
		source:    codec.Source{Epoch: uint64(now.UnixNano())},
		routers:   map[codec.Address]*destination{},
		dirty:     map[*destination]struct{}{},
		attached:  map[codec.Address]uint64{},
		pending:   map[codec.Address]struct{}{},
		places:    map[codec.Address]*place{},
		touched:   map[codec.Address]struct{}{},
		rerouted:  map[*destination]struct{}{},
		probes:    map[codec.Address]*probe{},
		returns:   map[codec.Address]time.Time{},
		refreshAt: now.Add(UpdateInterval),
	}
	if _, err := io.ReadFull(config.Random, i.source.ID[:]); err != nil {
		return nil, fmt.Errorf("router ID: %w", err)
	}
	i.self = destination{address: config.Self, list: newList(version{i.source, 1})}
	return i, nil
}

// LinkUp adds a link to router, which has proven the domain, of that cost
// (1–65,534). This router's own grant has been sent by it before. It fails with
// ErrLinks, and panics when the link is there already or the cost is out of its
// range.
func (i *Instance) LinkUp(now time.Time, id LinkID, router codec.Address, cost uint16) (Actions, error) {
	if cost == 0 || cost == infinity || id == 0 {
		panic(fmt.Sprintf("route: link %d of cost %d", id, cost))
	}
	at, found := i.findLink(id)
	if found {
		panic(fmt.Sprintf("route: link %d is up twice", id))
	}
	same := 0
	for _, l := range i.links {
		if l.router == router {
			same++
		}
	}
	if same == LinksMax {
		return Actions{}, ErrLinks
	}
	l := &link{
		id: id, router: router, cost: cost,
		isFresh:   true,
		told:      map[codec.Address]advert{},
		lists:     map[codec.Address]version{},
		tellLists: true,
		awaited:   map[codec.Address]bool{},
		partial:   map[codec.Address]*partialList{},
		answered:  map[codec.Address]answered{},
	}
	i.links = slices.Insert(i.links, at, l)
	i.flushDue = true
	return i.finish(now), nil
}

// LinkDown removes a link that has ended, or on which the domain is not proven
// any more. One that is not up is left alone.
func (i *Instance) LinkDown(now time.Time, id LinkID) Actions {
	at, found := i.findLink(id)
	if !found {
		return i.finish(now)
	}
	l := i.links[at]
	i.links = slices.Delete(i.links, at, at+1)
	for router := range l.partial {
		i.dropPartial(l, router)
	}
	for _, d := range i.order {
		if d.remove(l) {
			i.choose(d, now)
		}
		if d.asked.link == l {
			d.asked.link = nil
			i.catchUp(d, now)
		}
	}
	if next := i.newestLinkTo(l.router); next != nil && next.id < l.id {
		next.tellLists = true // what was under way on l is lost
		i.flushDue = true
	}
	return i.finish(now)
}

// Receive takes a message from a neighbour: *codec.RouteUpdate, SeqnoRequest,
// AddressList, ListRequest or ListNumbers; it panics on any other. A message that meets an
// error has no effect.
func (i *Instance) Receive(now time.Time, id LinkID, m codec.Control) (Actions, error) {
	about, ok := m.(interface{ Domain() [codec.PrefixSize]byte })
	if !ok {
		panic(fmt.Sprintf("route: a message of type %T", m))
	}
	at, found := i.findLink(id)
	if !found {
		return Actions{}, ErrLink
	}
	if about.Domain() != i.config.Self.Prefix() {
		return Actions{}, ErrDomain
	}
	l := i.links[at]
	switch m := m.(type) {
	case *codec.RouteUpdate:
		i.receiveUpdate(now, l, m)
	case *codec.SeqnoRequest:
		i.receiveRequest(now, l, m)
	case *codec.AddressList:
		if err := i.receiveList(now, l, m); err != nil {
			return Actions{}, err
		}
	case *codec.ListRequest:
		i.answerListRequest(now, l, m)
	case *codec.ListNumbers:
		i.receiveNumbers(now, l, m)
	}
	return i.finish(now), nil
}

// Source returns the router's source in this domain.
func (i *Instance) Source() codec.Source { return i.source }

// Refused returns the counts so far.
func (i *Instance) Refused() Refused { return i.refused }

// Route is a selected route.
type Route struct {
	Router codec.Address
	Via    LinkID
	Metric uint16
}

// Routes returns the selected routes, by address.
func (i *Instance) Routes() (all []Route) {
	for _, d := range i.order {
		if d.selected != nil {
			all = append(all, Route{d.address, d.selected.link.id, d.selected.metric()})
		}
	}
	return all
}

// finish ends an event: what is due is sent, and the actions go to the caller.
func (i *Instance) finish(now time.Time) Actions {
	i.reroute(now)
	if i.flushDue && !now.Before(i.flushedAt.Add(BatchDelay)) {
		i.flush(now)
	}
	i.sendRequests()
	i.resolve(now)
	out := i.out
	i.out = Actions{}
	out.Deadline = i.refreshAt
	if i.flushDue {
		out.Deadline = earlier(out.Deadline, i.flushedAt.Add(BatchDelay))
	}
	if !i.wakeAt.IsZero() {
		out.Deadline = earlier(out.Deadline, i.wakeAt)
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (i *Instance) send(l *link, m codec.Control) {
	i.out.Messages = append(i.out.Messages, Message{l.id, m})
}

func (i *Instance) findLink(id LinkID) (at int, found bool) {
	return slices.BinarySearchFunc(i.links, id, func(l *link, id LinkID) int { return cmp.Compare(l.id, id) })
}

// newestLinkTo returns the link to router by which lists travel, or nil: the one of
// several that is not about to be left because another has taken its place.
func (i *Instance) newestLinkTo(router codec.Address) *link {
	for _, l := range slices.Backward(i.links) {
		if l.router == router {
			return l
		}
	}
	return nil
}

// isAhead tells whether a time in nanoseconds is further ahead than the maximal
// skew.
func (i *Instance) isAhead(t uint64, now time.Time) bool {
	return t > uint64(now.Add(i.config.MaxSkew).UnixNano())
}
