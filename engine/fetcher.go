package engine

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/admin"
	"causeway/engine/link"
)

// fetcher asks other routers for certificates (PROTOCOL.md section 5.4): one
// goroutine runs fetches. Loops post to it what happens; it posts to them what
// is to be sent, and to peer.fetched how it has ended.
type fetcher struct {
	// fixed after start
	router *Router
	wake   chan struct{} // capacity 1
	ended  chan struct{} // closed when the goroutine has ended

	// its goroutine
	core     *fetches
	serving  map[[pki.PrefixSize]byte][]link.Ref // links that have proven a domain
	swept    time.Time
	lastTick time.Time

	// atomic
	links  atomic.Int32 // domains times links: 0: there is nobody to ask
	wanted atomic.Int64 // certificates
	asked  atomic.Uint64
	ends   [fetchRefused + 1]atomic.Uint64 // by fetchVerdict
	bad    atomic.Uint64                   // chains that did not verify
	busy   atomic.Bool                     // something is wanted, or has failed: false only if core is not busy

	mu     sync.Mutex
	waits  []func(now time.Time)
	news   []codec.Address // that have appeared
	closed bool
}

const (
	// fetchWaitsMax bounds what is posted and waits; beyond it requests are refused.
	// Each connection has a few at most, so that is not met before thousands flood.
	fetchWaitsMax = 1 << 16

	fetchTimeDefault = 2 * time.Second

	// answeringMax bounds the messages with certificates of one neighbour that wait to
	// be looked at: as many as the largest chains there can be, for all that it may be
	// asked at a time, come in.
	answeringMax = fetchWindow * 25

	fetchEvery    = 10 * time.Millisecond // a link that has been asked too often is asked again
	fetchTurnMax  = 64                    // of what waits is done before requests and ends go out
	fetchTickTime = 100 * time.Millisecond
	fetchSweep    = time.Minute // certificates whose time is over are forgotten
)

var fetchNames = [...]string{fetchFound: "found", fetchAbsent: "absent", fetchRefused: "refused"}

func newFetcher(r *Router) *fetcher {
	f := &fetcher{
		router: r, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		serving: make(map[[pki.PrefixSize]byte][]link.Ref),
	}
	f.core = newFetches(r.config.fetchTime, f.ways, f.verify)
	return f
}

// start starts the goroutine; the loops are there.
func (f *fetcher) start() { go f.run() }

// close ends the goroutine and waits for it.
func (f *fetcher) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wakeUp()
	<-f.ended
}

func (f *fetcher) wakeUp() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// post has do called by the goroutine. must: also when too much waits; else it
// returns false then.
func (f *fetcher) post(must bool, do func(now time.Time)) bool {
	f.mu.Lock()
	ok := !f.closed && (must || len(f.waits) < fetchWaitsMax)
	if ok {
		f.waits = append(f.waits, do)
	}
	f.mu.Unlock()
	if ok {
		f.wakeUp()
	}
	return ok
}

// want has who told by peer.fetched, later, about each of the certificates; false:
// there is no room.
func (f *fetcher) want(who asker, keys ...codec.CertKey) bool {
	return f.post(false, func(now time.Time) {
		for _, key := range keys {
			if d := f.router.state().byPrefix[key.Address.Prefix()]; d != nil && d.members.chain(key) != nil { // it has come meanwhile
				f.core.ends = append(f.core.ends, fetchEnd{key: key, verdict: fetchFound, askers: []asker{who}})
				continue
			}
			f.busy.Store(true) // before the core looks for a way: who appears later than that tells it
			f.core.want(key, who, now)
		}
	})
}

// up is told that a link has proven a domain; down that it no longer does.
func (f *fetcher) up(d *domain, ref link.Ref) {
	f.links.Add(1)
	f.post(true, func(time.Time) { f.serving[d.prefix] = append(f.serving[d.prefix], ref) })
}

func (f *fetcher) down(d *domain, ref link.Ref) {
	f.links.Add(-1)
	f.post(true, func(time.Time) {
		f.serving[d.prefix] = slices.DeleteFunc(slices.Clone(f.serving[d.prefix]), func(r link.Ref) bool { return r == ref })
		if len(f.serving[d.prefix]) == 0 {
			delete(f.serving, d.prefix)
		}
	})
}

// gone is told that a connection has ended.
func (f *fetcher) gone(ref link.Ref) {
	f.post(true, func(now time.Time) { f.core.down(ref, now) })
}

// appeared is told that an address is attached to another router since a moment ago.
// It comes before what is posted later.
func (f *fetcher) appeared(a codec.Address) {
	if !f.busy.Load() {
		return
	}
	f.mu.Lock()
	if !f.closed {
		f.news = append(f.news, a)
	}
	f.mu.Unlock()
	f.wakeUp()
}

// answer takes what a neighbour has answered; false: there is no room.
func (f *fetcher) answer(p *peer, m *codec.Certificates) bool {
	from := p.conn.Ref()
	if p.answering.Add(1) > answeringMax {
		p.answering.Add(-1)
		return false
	}
	return f.post(true, func(now time.Time) {
		defer p.answering.Add(-1)
		if !f.core.answer(from, m, now) {
			f.tell(from, func(p *peer) { p.leave(codec.GoodbyeProtocol, "certificates that were not asked for, or out of order") })
		}
	})
}

func (f *fetcher) run() {
	defer close(f.ended)
	timer := time.NewTimer(fetchEvery)
	defer timer.Stop()
	for {
		select {
		case <-f.wake:
		case <-timer.C:
		}
		f.mu.Lock()
		all, news, closed := f.waits, f.news, f.closed
		f.waits, f.news = nil, nil
		f.mu.Unlock()
		if closed {
			return
		}
		for _, a := range news {
			f.core.appeared(a)
		}
		now := time.Now()
		for some := range slices.Chunk(all, fetchTurnMax) {
			for _, do := range some {
				do(now)
			}
			f.turn(now)
			now = time.Now()
		}
		f.turn(now)
		if f.core.busy() {
			timer.Reset(fetchEvery)
		} else {
			timer.Reset(fetchSweep)
		}
	}
}

// turn does what follows from what has happened.
func (f *fetcher) turn(now time.Time) {
	if now.Sub(f.lastTick) >= fetchTickTime {
		f.lastTick = now
		f.core.tick(now)
	}
	if now.Sub(f.swept) >= fetchSweep {
		f.swept = now
		s := f.router.state()
		for _, d := range s.domains {
			d.members.forgetEnded(now.Add(-s.config.SkewMax))
		}
	}
	f.core.requests(now)
	asks, ends := f.core.take()
	for _, q := range asks {
		f.asked.Add(uint64(len(q.Wanted)))
		f.tell(q.to, func(p *peer) {
			if p.isOpen() {
				p.say(&q.CertificateRequest)
			}
		})
	}
	told := make(map[asker][]fetchEnd)
	for _, e := range ends {
		f.ends[e.verdict].Add(1)
		for _, who := range e.askers {
			told[who] = append(told[who], fetchEnd{key: e.key, verdict: e.verdict, until: e.until})
		}
	}
	for who, all := range told {
		f.tell(who.conn, func(p *peer) { p.fetched(who.kind, all) })
	}
	f.forget(f.core.takeForgotten())
	f.wanted.Store(int64(len(f.core.of)))
	f.busy.Store(f.core.busy())
}

// forget has all loops ask again for what was not to be had.
func (f *fetcher) forget(failed []codec.CertKey) {
	if len(failed) == 0 {
		return
	}
	for _, l := range f.router.loops {
		l.link.Post(func() { l.keys.forgetAbsent(failed) })
	}
}

// tell has do called on the home loop of a connection, if it is still there.
func (f *fetcher) tell(ref link.Ref, do func(p *peer)) {
	l := f.router.loops[ref.Loop()]
	l.link.Post(func() {
		if c := l.link.Conn(ref); c != nil {
			do(peerOf(c))
		}
	})
}

// ways returns the links by which a certificate of an address may be asked for.
func (f *fetcher) ways(a codec.Address) (next link.Ref, others []link.Ref) {
	others = f.serving[a.Prefix()]
	if next, _ = f.router.lookup(a); !slices.Contains(others, next) {
		next = 0
	}
	return next, others
}

// verify verifies what a neighbour has sent, and keeps it.
func (f *fetcher) verify(key codec.CertKey, chain [][]byte, _ link.Ref, now time.Time) bool {
	r := f.router
	s := r.state()
	d := s.byPrefix[key.Address.Prefix()]
	if d == nil {
		return false
	}
	if pki.CertID(chain[0]) != key.CertID { // before what costs more
		f.bad.Add(1)
		return false
	}
	at := now
	id, err := s.config.Store.VerifyDER(chain, d.name, at)
	if reason, _ := pki.ReasonOf(err); err != nil && reason == pki.ReasonExpired { // frames from before may be under way
		at = now.Add(-s.config.SkewMax)
		id, err = s.config.Store.VerifyDER(chain, d.name, at)
	}
	if err != nil || id.Address != key.Address {
		f.bad.Add(1)
		return false
	}
	id = id.Compact()
	return d.members.keep(id, func() bool { return r.state().config.Store.Recheck(id, at) == nil })
}

func (r *Router) addFetchMetrics(m *admin.Metrics) {
	counter(m, "causeway_certificates_asked_total", "Certificates that other routers were asked for.",
		func() float64 { return float64(r.fetcher.asked.Load()) })
	m.Add(admin.Family{
		Name: "causeway_certificates_fetched_total", Counter: true, Labels: []string{"result"},
		Help: "Certificates that were wanted from other routers: found; absent: nobody has them; refused: too many were wanted, or there was nobody to ask.",
		Read: func() (s []admin.Sample) {
			for verdict, name := range fetchNames {
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(r.fetcher.ends[verdict].Load())})
			}
			return s
		},
	})
	counter(m, "causeway_certificates_bad_total", "Certificates that other routers have sent and that are no good.",
		func() float64 { return float64(r.fetcher.bad.Load()) })
	gauge(m, "causeway_certificates_wanted", "Certificates that other routers are being asked for.",
		func() float64 { return float64(r.fetcher.wanted.Load()) })
	m.Add(admin.Family{
		Name: "causeway_certificates_kept", Help: "Certificates remembered that other routers have sent, by domain.", Labels: []string{"domain"},
		Read: func() (s []admin.Sample) {
			for name, d := range r.state().domains {
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(d.members.fetchedCount())})
			}
			return s
		},
	})
	gauge(m, "causeway_certificate_waiting_frames", "Frames in flight that wait for their sender's certificate.",
		func() float64 { return float64(r.awaiting.frames.Load()) })
	gauge(m, "causeway_certificate_waiting_bytes", "Memory of those frames.",
		func() float64 { return float64(r.awaiting.bytes.Load()) })
	m.Add(admin.Family{
		Name: "causeway_revocation_lists_received_total", Counter: true, Labels: []string{"result"},
		Help: "Revocation lists that came from other routers: taken; old: not newer than what is here; refused: of no authority of theirs; skipped: too many now, or no room; large: larger than there can be room for.",
		Read: func() (s []admin.Sample) {
			for result, name := range listNames {
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(r.lists.counts[result].Load())})
			}
			return s
		},
	})
}
