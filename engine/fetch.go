package engine

import (
	"slices"
	"time"

	"causeway/codec"
	"causeway/engine/link"
)

// Bounds of what this router asks other routers for (PROTOCOL.md section 5.4).
const (
	fetchesMax    = 8192            // certificates times who wants them, at a time
	fetchPart     = 4               // one who asks may have a part of what the others leave,
	fetchSure     = 8               // and so many beyond that, as long as there are not twice as many in all
	fetchWindow   = 16              // requests that one link has not answered
	fetchRate     = 100             // requests to one link in a second: half of what it answers
	fetchTries    = 2               // links that are asked for one certificate, one after another
	fetchTryPart  = 2               // a link has so much of the time in all
	fetchFailTime = 5 * time.Second // what was not to be had is not asked for again
	fetchFailsMax = 16_384          // of those; beyond it any is forgotten
	fetchBadRate  = 16              // chains of one link that were no good in a second: it is believed so long as there are no more,
	fetchBadMax   = 64              // and so many at once
	fetchLateMax  = 64              // requests of one link that are answered too late, if ever, and remembered
)

// fetches decides which certificates to ask for, and of whom. It is pure: what
// happens and the time go in, what to do comes out (asks, ends). fetcher runs it.
//
//	want         its key goes into a link's queue, with those who want it
//	requests     a link that may be asked takes keys of its queue, of each who waits
//	             in turn
//	answer       the certificate is there: ended; or not: another link's queue, once
//	down, tick   as if the answer were: not there
//	appeared     all are asked again; failures are forgotten (failed.go)
//
// Any event leaves it in a state that check takes.
type fetches struct {
	// fixed after start
	within time.Duration                                                              // for one certificate, in all
	ways   func(codec.Address) (next link.Ref, others []link.Ref)                     // links that may know, the best first; 0: none
	verify func(key codec.CertKey, chain [][]byte, from link.Ref, now time.Time) bool // and keep it

	of     map[codec.CertKey]*fetch
	links  map[link.Ref]*fetchLink // that are asked, or have a queue
	shares map[asker]int           // certificates that each wants
	pairs  int                     // sum of shares
	failed map[codec.CertKey]time.Time
	known  map[codec.Address]map[codec.CertID]struct{} // the keys of `of` and of failed
	number uint64                                      // of the last request

	asks      []fetchAsk
	ends      []fetchEnd
	forgotten []codec.CertKey // failures, before their time
}

// asker is who wants certificates: frames that have come over a link, or who has
// asked on a connection.
type asker struct {
	conn link.Ref
	kind askerKind
}

type askerKind uint8

const (
	askerFrames askerKind = iota
	askerNode
	askerNeighbour
	askerKinds
)

// fetch is one certificate that somebody wants.
type fetch struct {
	key    codec.CertKey
	askers []asker
	since  time.Time
	at     link.Ref   // in whose queue it is, or who is asked
	tried  []link.Ref // who was asked, the last is asked now
	number uint64     // of the request under way; 0: it is in a queue
	until  time.Time  // of the request
	again  bool       // its address has appeared since: when it ends in vain, all may be asked anew
}

// fetchLink is one link that is asked.
type fetchLink struct {
	turns    []*fetchTurn // who waits for it
	of       map[asker]*fetchTurn
	rate     bucket
	bad      bucket          // chains that were no good: verifying costs far more than making them up
	requests []*fetchRequest // without a whole answer, in order
	late     int             // of these, which nobody waits for
}

// fetchTurn is what one asker has in the queue of a link. Keys that are no longer
// in the queue may be among them.
type fetchTurn struct {
	who  asker
	keys []codec.CertKey
}

// fetchRequest is one that has no whole answer yet.
type fetchRequest struct {
	number      uint64
	keys        map[codec.CertKey]bool // true: answered
	live        int                    // keys that are under way by it
	part, parts uint8                  // the next one; 0 parts: none has come
}

// fetchAsk is a request to send.
type fetchAsk struct {
	to link.Ref
	codec.CertificateRequest
}

// fetchVerdict is how a fetch ends for who wanted it.
type fetchVerdict uint8

const (
	fetchFound   fetchVerdict = iota
	fetchAbsent               // nobody has it; it is not asked for again for fetchFailTime
	fetchRefused              // there was no room, or no time, to ask for it, or not for this asker
)

// fetchEnd is what to tell those who wanted a certificate.
type fetchEnd struct {
	key     codec.CertKey
	verdict fetchVerdict
	askers  []asker
	until   time.Time // of fetchAbsent: when it is asked for again
}

func newFetches(within time.Duration, ways func(codec.Address) (link.Ref, []link.Ref), verify func(codec.CertKey, [][]byte, link.Ref, time.Time) bool) *fetches {
	return &fetches{
		within: within, ways: ways, verify: verify, of: make(map[codec.CertKey]*fetch), links: make(map[link.Ref]*fetchLink),
		shares: make(map[asker]int), failed: make(map[codec.CertKey]time.Time), known: make(map[codec.Address]map[codec.CertID]struct{}),
	}
}

// busy tells whether tick has something to do.
func (f *fetches) busy() bool { return len(f.of) > 0 || len(f.failed) > 0 }

// want has who told about the certificate, soon or later, once. Who wants it
// already is told once for all.
func (f *fetches) want(key codec.CertKey, who asker, now time.Time) {
	one := f.of[key]
	switch until, failed := f.failed[key]; {
	case one != nil && slices.Contains(one.askers, who):
		return
	case one == nil && failed && now.Before(until):
		f.ends = append(f.ends, fetchEnd{key, fetchAbsent, []asker{who}, until})
		return
	case one != nil && who.kind == askerNeighbour && one.number != 0 && one.at == who.conn: // it is being asked itself
		f.ends = append(f.ends, fetchEnd{key: key, verdict: fetchRefused, askers: []asker{who}})
		return
	case f.shares[who] >= (fetchesMax-f.pairs)/fetchPart && (f.shares[who] >= fetchSure || f.pairs >= 2*fetchesMax):
		f.ends = append(f.ends, fetchEnd{key: key, verdict: fetchRefused, askers: []asker{who}})
		return
	}
	f.shares[who]++
	f.pairs++
	if one == nil {
		one = &fetch{key: key, askers: []asker{who}, since: now}
		f.of[key] = one
		f.note(key)
		f.queue(one, now)
		return
	}
	one.askers = append(one.askers, who)
	if one.number == 0 {
		f.link(one.at).add(who, key)
	}
}

// link returns what is known of a link.
func (f *fetches) link(ref link.Ref) *fetchLink {
	l := f.links[ref]
	if l == nil {
		l = &fetchLink{of: make(map[asker]*fetchTurn)}
		f.links[ref] = l
	}
	return l
}

// holds returns how much of a bucket is used, which fills at the rate given.
func (b *bucket) holds(now time.Time, perSecond float64) float64 {
	return max(0, b.used-perSecond*now.Sub(b.at).Seconds())
}

// add puts a key behind the others that who has in the link's queue.
func (l *fetchLink) add(who asker, key codec.CertKey) {
	t := l.of[who]
	if t == nil {
		t = &fetchTurn{who: who}
		l.of[who] = t
		l.turns = append(l.turns, t)
	}
	t.keys = append(t.keys, key)
}

// queue puts one into the queue of the link that is to be asked next, or ends it
// when there is none, or nobody wants it any more.
func (f *fetches) queue(one *fetch, now time.Time) {
	one.number = 0
	if one.at = f.way(one); one.at == 0 || len(one.tried) >= fetchTries || len(one.askers) == 0 {
		f.end(one, f.failure(one, now))
		return
	}
	l := f.link(one.at)
	for _, who := range one.askers {
		l.add(who, one.key)
	}
}

// way returns the best link that was not asked and does not wait for one itself;
// 0: there is none. Links that frames came by are better than any but the route.
func (f *fetches) way(one *fetch) link.Ref {
	next, others := f.ways(one.key.Address)
	good := func(ref link.Ref) bool { return ref != 0 && !slices.Contains(one.tried, ref) && !one.waits(ref) }
	if good(next) {
		return next
	}
	for _, who := range one.askers {
		if who.kind == askerFrames && good(who.conn) && slices.Contains(others, who.conn) {
			return who.conn
		}
	}
	if i := slices.IndexFunc(others, good); i >= 0 {
		return others[i]
	}
	return 0
}

// waits tells whether the neighbour at that link wants the certificate.
func (one *fetch) waits(ref link.Ref) bool {
	return slices.Contains(one.askers, asker{ref, askerNeighbour})
}

// end ends one, which is in a queue or nowhere.
func (f *fetches) end(one *fetch, verdict fetchVerdict) {
	delete(f.of, one.key)
	f.unnote(one.key)
	for _, who := range one.askers {
		f.release(who)
	}
	if len(one.askers) > 0 {
		f.ends = append(f.ends, fetchEnd{one.key, verdict, one.askers, f.failed[one.key]})
	}
}

func (f *fetches) release(who asker) {
	f.pairs--
	if f.shares[who]--; f.shares[who] == 0 {
		delete(f.shares, who)
	}
}

// requests makes the requests that may go to links now.
func (f *fetches) requests(now time.Time) {
	for moved := true; moved; {
		moved = false
		for ref, l := range f.links {
			for len(l.turns) > 0 && len(l.requests)-l.late < fetchWindow && l.rate.take(now, fetchRate, fetchWindow) {
				keys, some := f.batch(ref, l, now)
				moved = moved || some
				f.request(ref, l, keys, now)
			}
			if len(l.turns) == 0 && len(l.requests) == 0 && l.bad.holds(now, fetchBadRate) == 0 {
				delete(f.links, ref)
			}
		}
	}
}

// request asks a link for certificates; for none, nothing.
func (f *fetches) request(ref link.Ref, l *fetchLink, keys []codec.CertKey, now time.Time) {
	if len(keys) == 0 {
		return
	}
	f.number++
	r := &fetchRequest{number: f.number, keys: make(map[codec.CertKey]bool, len(keys)), live: len(keys)}
	for _, key := range keys {
		one := f.of[key]
		one.number, one.until, one.tried = r.number, now.Add(f.within/fetchTryPart), append(one.tried, ref)
		r.keys[key] = false
	}
	l.requests = append(l.requests, r)
	f.asks = append(f.asks, fetchAsk{ref, codec.CertificateRequest{Number: r.number, Wanted: keys}})
}

// batch takes as many keys as one request has out of the link's queue: one of each
// who waits, in turn. moved: some went into other queues.
func (f *fetches) batch(ref link.Ref, l *fetchLink, now time.Time) (keys []codec.CertKey, moved bool) {
	for len(l.turns) > 0 && len(keys) < codec.CertificatesWantedMax {
		t := l.turns[0]
		key := t.keys[0]
		t.keys = t.keys[1:]
		if l.turns = l.turns[1:]; len(t.keys) > 0 {
			l.turns = append(l.turns, t)
		} else {
			delete(l.of, t.who)
		}
		one := f.of[key]
		switch {
		case one == nil || one.at != ref || one.number != 0 || slices.Contains(keys, key): // it has left the queue
		case one.waits(ref):
			f.queue(one, now)
			moved = true
		default:
			keys = append(keys, key)
		}
	}
	return keys, moved
}

// answer takes one part of what a link has answered. ok is false when it breaks
// the protocol; an answer that nobody waits for is left alone.
func (f *fetches) answer(from link.Ref, m *codec.Certificates, now time.Time) (ok bool) {
	l := f.links[from]
	if l == nil {
		return true
	}
	i := slices.IndexFunc(l.requests, func(r *fetchRequest) bool { return r.number == m.Number })
	if i < 0 {
		return true
	}
	r := l.requests[i]
	if r.parts == 0 {
		r.parts = m.Parts
	}
	if m.Parts != r.parts || m.Part != r.part {
		return false
	}
	for _, e := range m.Entries {
		if answered, asked := r.keys[e.CertKey]; !asked || answered {
			return false
		}
		r.keys[e.CertKey] = true
		f.entry(from, r, e, now)
	}
	if r.part++; r.part < r.parts {
		return true
	}
	for key, answered := range r.keys {
		if !answered {
			f.entry(from, r, codec.CertificateEntry{CertKey: key}, now)
		}
	}
	if i = slices.Index(l.requests, r); i >= 0 { // else it was one too many that were late
		l.requests = slices.Delete(l.requests, i, i+1)
		l.late--
	}
	return true
}

// entry takes what a link knows of one certificate.
func (f *fetches) entry(from link.Ref, r *fetchRequest, e codec.CertificateEntry, now time.Time) {
	one := f.of[e.CertKey]
	if one == nil {
		return
	}
	found, l := false, f.links[from]
	if len(e.Chain) > 0 && l.bad.holds(now, fetchBadRate) <= fetchBadMax-1 { // else as if it were not known there
		if found = f.verify(e.CertKey, e.Chain, from, now); !found {
			l.bad.take(now, fetchBadRate, fetchBadMax)
		}
	}
	if !found && one.number != r.number {
		return // another is being asked, or will be
	}
	f.asked(one)
	if found {
		f.end(one, fetchFound)
		return
	}
	f.queue(one, now)
}

// asked ends the request that is under way for one, if there is one.
func (f *fetches) asked(one *fetch) {
	if one.number == 0 {
		return
	}
	l := f.links[one.at]
	i := slices.IndexFunc(l.requests, func(r *fetchRequest) bool { return r.number == one.number })
	one.number = 0
	if one.again {
		one.again, one.tried = false, nil
	}
	if l.requests[i].live--; l.requests[i].live > 0 {
		return
	}
	if l.late++; l.late > fetchLateMax {
		i := slices.IndexFunc(l.requests, func(r *fetchRequest) bool { return r.live == 0 })
		l.requests = slices.Delete(l.requests, i, i+1)
		l.late--
	}
}

// down is told that a connection has ended. What it wanted is wanted no more; what
// it was asked for is asked elsewhere.
func (f *fetches) down(ref link.Ref, now time.Time) {
	if l := f.links[ref]; l != nil {
		for _, one := range f.of {
			if one.at == ref {
				f.asked(one)
				one.at = 0
			}
		}
		delete(f.links, ref)
	}
	f.forget(ref)
	for _, one := range f.of {
		if one.at == 0 {
			f.queue(one, now)
		}
	}
}

// forget ends what the connection wanted.
func (f *fetches) forget(ref link.Ref) {
	wanted := 0
	for kind := range askerKinds {
		wanted += f.shares[asker{ref, kind}]
	}
	if wanted == 0 {
		return
	}
	for _, one := range f.of {
		one.askers = slices.DeleteFunc(one.askers, func(who asker) bool {
			if who.conn == ref {
				f.release(who)
			}
			return who.conn == ref
		})
		if len(one.askers) == 0 && one.number == 0 {
			delete(f.of, one.key)
			f.unnote(one.key)
		}
	}
}

// tick ends what has had its time.
func (f *fetches) tick(now time.Time) {
	for _, one := range f.of {
		switch over := now.Sub(one.since) >= f.within; {
		case over:
			f.asked(one)
			f.end(one, f.failure(one, now))
		case one.number != 0 && !now.Before(one.until):
			f.asked(one)
			f.queue(one, now)
		}
	}
	f.tickFailed(now)
}

// take returns what is to be done, and forgets it.
func (f *fetches) take() (asks []fetchAsk, ends []fetchEnd) {
	asks, ends = f.asks, f.ends
	f.asks, f.ends = nil, nil
	return asks, ends
}
