package route

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"causeway/codec"
)

const (
	askTimeout = 5 * time.Second // without an answer, or its next part, another neighbour is asked
	askLongest = time.Minute     // and when not all parts have come by then
	// answerPause: a neighbour is sent the same list once in this time; less than
	// askTimeout.
	answerPause = time.Second
	// A neighbour is sent whole lists of answersPerSecond addresses in the long run;
	// as many as that makes in answersAhead at once.
	answersPerSecond = 100_000
	answersAhead     = 10 * time.Second
)

// version is a list's number; a newer source begins anew.
type version struct {
	codec.Source
	number uint64
}

func (v version) isNewer(than version) bool {
	return cmp.Or(compareSources(v.Source, than.Source), cmp.Compare(v.number, than.number)) > 0
}

// list is what a router announces as attached to it.
type list struct {
	version
	nodes map[codec.Address]uint64 // attached times
}

func newList(v version) *list { return &list{v, map[codec.Address]uint64{}} }

// sorted returns the list by address.
func (s *list) sorted() []codec.Attached {
	all := make([]codec.Attached, 0, len(s.nodes))
	for a, sent := range s.nodes {
		all = append(all, codec.Attached{Node: a, Sent: sent})
	}
	slices.SortFunc(all, func(a, b codec.Attached) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	return all
}

// asked is a list request that is under way.
type asked struct {
	link   *link // nil: none is under way
	until  time.Time
	latest time.Time // until is not after
}

// answered is a list request that was answered.
type answered struct {
	version
	at time.Time
}

// partialList is a whole list of which parts are missing.
type partialList struct {
	version
	parts uint16
	list  *list
	next  uint16
}

// newest returns the version that d has.
func (d *destination) newest() version {
	if d.list == nil {
		return version{}
	}
	return d.list.version
}

// noteVersion notes that l has that version of a router's list.
func (l *link) noteVersion(router codec.Address, v version) {
	if v.isNewer(l.lists[router]) {
		l.lists[router] = v
	}
}

// tell sends a list message to l, which then has that version.
func (i *Instance) tell(l *link, m *codec.AddressList) {
	i.send(l, m)
	l.noteVersion(m.Router, version{m.Source, m.To})
}

// others calls f for every neighbour that lists are sent to: by one link to each
// router.
func (i *Instance) others(f func(l *link)) {
	for _, l := range i.links {
		if i.newestLinkTo(l.router) == l {
			f(l)
		}
	}
}

// changeOwnList announces the own nodes that have come and gone since the last
// flush, in as many changes as they fill.
func (i *Instance) changeOwnList() {
	if len(i.pending) == 0 {
		return
	}
	own := i.self.list
	nodes := slices.SortedFunc(maps.Keys(i.pending), func(a, b codec.Address) int { return bytes.Compare(a[:], b[:]) })
	clear(i.pending)
	for chunk := range slices.Chunk(nodes, codec.AddressListEntriesMax) {
		m := &codec.AddressList{Router: i.config.Self, Source: own.Source, From: own.number, To: own.number + 1, Parts: 1}
		for _, a := range chunk {
			sent, isAttached := i.attached[a]
			was, wasAttached := own.nodes[a]
			switch {
			case isAttached && (!wasAttached || was != sent):
				m.Added = append(m.Added, codec.Attached{Node: a, Sent: sent})
				own.nodes[a] = sent
			case !isAttached && wasAttached:
				m.Removed = append(m.Removed, a)
				delete(own.nodes, a)
			}
		}
		if len(m.Added)+len(m.Removed) == 0 {
			continue
		}
		own.number++
		i.others(func(l *link) {
			if l.lists[i.config.Self] == (version{m.Source, m.From}) {
				i.tell(l, m) // others are about to be told the number
			}
		})
	}
}

// tellLists tells the numbers of all lists to those neighbours that are to know
// them. Of several links to a router the first speaks for all.
func (i *Instance) tellLists() {
	i.others(func(l *link) {
		if l.tellLists {
			i.tellNumbers(l, append([]*destination{&i.self}, i.order...)) // l's own too: it may have begun anew
		}
	})
	for _, l := range i.links {
		l.tellLists = false
	}
}

// tellNumbers tells l the numbers of those lists that there are.
func (i *Instance) tellNumbers(l *link, of []*destination) {
	var lists []codec.ListNumber
	for _, d := range of {
		if d.list != nil {
			lists = append(lists, codec.ListNumber{Router: d.address, Source: d.list.Source, Number: d.list.number})
			l.noteVersion(d.address, d.list.version)
		}
	}
	for chunk := range slices.Chunk(lists, codec.ListNumbersMax) {
		i.send(l, &codec.ListNumbers{Lists: chunk})
	}
}

func (i *Instance) receiveNumbers(now time.Time, l *link, m *codec.ListNumbers) {
	for n := range m.Lists {
		at := &m.Lists[n]
		if d := i.hearVersion(now, l, at.Router, version{at.Source, at.Number}); d != nil {
			i.catchUp(d, now)
		}
	}
}

// hearVersion notes that l has that version of router's list. It returns nil when
// that is refused, or the list is this router's own.
func (i *Instance) hearVersion(now time.Time, l *link, router codec.Address, v version) *destination {
	if i.isAhead(v.Epoch, now) {
		i.refused.Future++
		return nil
	}
	if router == i.config.Self {
		if v.isNewer(i.self.list.version) {
			i.renew(now, v.Epoch+1)
		}
		return nil
	}
	d := i.destination(router, now)
	if d != nil {
		l.noteVersion(router, v)
	}
	return d
}

func (i *Instance) receiveList(now time.Time, l *link, m *codec.AddressList) error {
	d := i.hearVersion(now, l, m.Router, version{m.Source, m.To})
	if d == nil {
		return nil
	}
	if m.From == 0 {
		return i.receivePart(now, l, d, m)
	}
	if d.list != nil && d.list.version == (version{m.Source, m.From}) {
		i.change(now, l, d, m)
	}
	i.catchUp(d, now)
	return nil
}

// accept puts an entry into a list of a neighbour's telling, which has room for so
// many and is counted there, or refuses it: what it would replace stays.
func (i *Instance) accept(s *list, a codec.Attached, room int, count *int, now time.Time) bool {
	if i.isAhead(a.Sent, now) {
		i.refused.Future++
		return false
	}
	if _, ok := s.nodes[a.Node]; !ok {
		if len(s.nodes) >= room {
			i.refused.Limit++
			return false
		}
		*count++
	}
	s.nodes[a.Node] = a.Sent
	return true
}

// room is how many addresses d's list may have beside the others.
func (i *Instance) room(d *destination) int {
	others := i.listed
	if d.list != nil {
		others -= len(d.list.nodes)
	}
	return min(i.config.MaxAddresses, i.config.MaxTotal-others)
}

// dropPartial forgets what has come of a list.
func (i *Instance) dropPartial(l *link, router codec.Address) {
	if p := l.partial[router]; p != nil {
		i.coming -= len(p.list.nodes)
		delete(l.partial, router)
	}
}

// change applies a change to d's list, and passes on what it has taken.
func (i *Instance) change(now time.Time, from *link, d *destination, m *codec.AddressList) {
	taken := *m
	taken.Added = nil
	for _, a := range m.Removed {
		if _, ok := d.list.nodes[a]; ok {
			delete(d.list.nodes, a)
			i.listed--
			i.leave(d, a)
		}
	}
	room := i.room(d)
	for _, a := range m.Added {
		if i.accept(d.list, a, room, &i.listed, now) {
			taken.Added = append(taken.Added, a)
			i.settle(d, a.Node, a.Sent)
		}
	}
	d.list.version = version{m.Source, m.To}
	i.others(func(l *link) {
		had := l.lists[d.address]
		if l.router == from.router || !d.list.isNewer(had) {
			return
		}
		if had == (version{m.Source, m.From}) || !l.tellLists {
			i.tell(l, &taken)
		}
	})
}

// receivePart takes a part of a whole list that l was asked for, and the list
// with its last part.
func (i *Instance) receivePart(now time.Time, l *link, d *destination, m *codec.AddressList) error {
	p := l.partial[d.address]
	v := version{m.Source, m.To}
	switch {
	case m.Part == 0 && p == nil:
		if !l.awaited[d.address] {
			i.refused.Stray++
			return nil
		}
		p = &partialList{version: v, parts: m.Parts, list: newList(v)}
		l.partial[d.address] = p
	case p == nil:
		i.refused.Stray++
		return nil
	case m.Part != p.next || m.Parts != p.parts || v != p.version:
		i.dropPartial(l, d.address)
		return ErrParts
	}
	if i.coming+len(m.Added) > i.config.MaxTotal {
		i.refused.Limit += uint64(len(m.Added))
		i.giveUpPart(d, l, now)
		return nil
	}
	room := i.room(d)
	for _, a := range m.Added {
		i.accept(p.list, a, room, &i.coming, now)
	}
	p.next++
	if d.asked.link == l {
		d.asked.until = earlier(now.Add(askTimeout), d.asked.latest)
		i.wake(d.asked.until)
	}
	if p.next < p.parts {
		return nil
	}
	i.dropPartial(l, d.address)
	delete(l.awaited, d.address)
	if d.asked.link == l {
		d.asked.link = nil
	}
	if v.isNewer(d.newest()) {
		i.replace(l, d, p.list)
	}
	i.catchUp(d, now)
	return nil
}

// replace gives d another list, and tells neighbours its number.
func (i *Instance) replace(from *link, d *destination, to *list) {
	i.shorten(to, i.room(d))
	if d.list != nil {
		for a := range d.list.nodes {
			if _, ok := to.nodes[a]; !ok {
				i.leave(d, a)
			}
		}
		i.listed -= len(d.list.nodes)
	}
	d.list = to
	i.listed += len(to.nodes)
	for a, sent := range to.nodes {
		i.settle(d, a, sent)
	}
	i.others(func(l *link) {
		if l.router != from.router && !l.tellLists && to.isNewer(l.lists[d.address]) {
			i.tellNumbers(l, []*destination{d})
		}
	})
}

// shorten refuses what a list has beyond its room, because others have grown since
// its parts came.
func (i *Instance) shorten(s *list, room int) {
	if len(s.nodes) <= room {
		return
	}
	for _, a := range s.sorted()[room:] {
		delete(s.nodes, a.Node)
		i.refused.Limit++
	}
}

// catchUp asks a neighbour that has a newer list of d, if none is being asked;
// the one after the last that was, if there is another.
func (i *Instance) catchUp(d *destination, now time.Time) {
	if d.asked.link != nil {
		return
	}
	i.catchUpAfter(d, 0, now)
}

func (i *Instance) catchUpAfter(d *destination, last LinkID, now time.Time) {
	var first, next *link
	for _, l := range i.links {
		if !l.lists[d.address].isNewer(d.newest()) {
			continue
		}
		if first == nil {
			first = l
		}
		if next == nil && l.id > last {
			next = l
		}
	}
	if next == nil {
		next = first
	}
	if next == nil {
		return
	}
	d.asked = asked{next, now.Add(askTimeout), now.Add(askLongest)}
	next.awaited[d.address] = true
	i.dropPartial(next, d.address) // the answer begins anew
	i.wake(d.asked.until)
	i.send(next, &codec.ListRequest{Router: d.address})
}

// giveUp is for a neighbour that has not answered: it may have forgotten the
// list, so that another is asked, and it only when it has told its number again.
func (i *Instance) giveUp(d *destination, now time.Time) {
	silent := d.asked.link
	d.asked.link = nil
	delete(silent.lists, d.address)
	i.dropPartial(silent, d.address)
	i.catchUpAfter(d, silent.id, now)
}

// giveUpPart gives up a list for which there is no room while others are coming,
// until its number is told again: taken in part it would seem whole.
func (i *Instance) giveUpPart(d *destination, l *link, now time.Time) {
	delete(l.awaited, d.address)
	i.dropPartial(l, d.address)
	if d.asked.link == l {
		i.giveUp(d, now)
	}
}

// remind tells neighbours the number of d's list: who had no route to d for long
// has forgotten it.
func (i *Instance) remind(d *destination) {
	if d.list == nil {
		return
	}
	i.others(func(l *link) { i.tellNumbers(l, []*destination{d}) })
}

// answerListRequest sends the whole list, if there is one, and the neighbour has not
// asked for too much.
func (i *Instance) answerListRequest(now time.Time, l *link, m *codec.ListRequest) {
	d := i.routers[m.Router]
	if m.Router == i.config.Self {
		d = &i.self
	}
	if d == nil || d.list == nil {
		return
	}
	if last, ok := l.answered[m.Router]; ok && last.version == d.list.version && now.Before(last.at.Add(answerPause)) {
		return
	}
	if l.servedTo.Before(now) {
		l.servedTo = now
	}
	if l.servedTo.After(now.Add(answersAhead)) {
		return
	}
	l.servedTo = l.servedTo.Add(time.Duration(len(d.list.nodes)) * time.Second / answersPerSecond)
	l.answered[m.Router] = answered{d.list.version, now}
	parts, err := codec.SplitAddressList(d.address, d.list.Source, d.list.number, d.list.sorted())
	if err != nil {
		panic("route: a list longer than its limit: " + err.Error())
	}
	for _, p := range parts {
		i.tell(l, p)
	}
}
