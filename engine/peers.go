package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"causeway/codec"
	"causeway/engine/link"
)

// What an operator is told of connections. Each loop describes its own, some
// per turn, so that frames wait for no more than a moment.
const (
	peersPerTurn = 256             // about 0.3 ms
	peersWait    = 3 * time.Second // for a loop's answer
)

// Peer is one connection as an operator sees it. Names, kinds and software are
// the peer's own words where they are not in its certificate.
type Peer struct {
	Name           string    `json:"name"` // of a router "router/NAME"
	Address        string    `json:"address"`
	Domain         string    `json:"domain"`
	Remote         string    `json:"remote"`
	State          string    `json:"state"` // hello, open, draining, parting, leaving
	Role           string    `json:"role"`  // node, router
	Kind           string    `json:"kind"`
	Software       string    `json:"software"`
	CertificateEnd time.Time `json:"certificateEnd"`
	Loop           int       `json:"loop"`
	AgeSeconds     float64   `json:"ageSeconds"`

	Domains  []string `json:"domains,omitempty"`  // of a router: those that the link has proven
	LinkCost uint16   `json:"linkCost,omitempty"` // of a router: of the link
	NodeCost uint16   `json:"nodeCost,omitempty"` // of a router: its own word
	Dialed   bool     `json:"dialed,omitempty"`   // this router has made the connection

	QueueBytes    int     `json:"queueBytes"`        // of frames that wait for it
	OldestSeconds float64 `json:"oldestSeconds"`     // how long the first of them has waited
	UncheckedIn   int     `json:"uncheckedBytes"`    // of frames from it that wait for a verdict or for room
	PausedBy      string  `json:"pausedBy"`          // why it is not read: "", "verification", "memory", "router", or the recipient whose queue is full
	FramesIn      uint64  `json:"framesIn"`          // since it connected
	FramesOut     uint64  `json:"framesOut"`         //
	BytesIn       uint64  `json:"bytesIn"`           //
	BytesOut      uint64  `json:"bytesOut"`          //
	FramesInRate  float64 `json:"framesInPerSecond"` // over the last seconds
	FramesOutRate float64 `json:"framesOutPerSecond"`
	BytesInRate   float64 `json:"bytesInPerSecond"`
	BytesOutRate  float64 `json:"bytesOutPerSecond"`
}

// Peers is all of them.
type Peers struct {
	Time   time.Time `json:"time"`
	Silent []int     `json:"silentLoops"` // loops that have not answered in time; their peers are missing
	Peers  []Peer    `json:"peers"`       // by domain, name, remote address
}

// Peers describes all connections. It waits a few seconds at most, and not
// beyond the end of ctx.
func (r *Router) Peers(ctx context.Context) Peers {
	ctx, cancel := context.WithTimeout(ctx, peersWait)
	defer cancel()
	answers := make([]chan []Peer, len(r.loops))
	for i, l := range r.loops {
		answers[i] = make(chan []Peer, 1)
		l.describe(ctx, answers[i])
	}
	all := Peers{Time: time.Now().UTC(), Silent: []int{}, Peers: []Peer{}}
	for i, answer := range answers {
		select {
		case peers := <-answer:
			all.Peers = append(all.Peers, peers...)
		case <-ctx.Done():
			select { // it may have answered while another kept silent
			case peers := <-answer:
				all.Peers = append(all.Peers, peers...)
			default:
				all.Silent = append(all.Silent, i)
			}
		}
	}
	slices.SortFunc(all.Peers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Remote, b.Remote))
	})
	return all
}

// describe sends what the loop's peers are doing, unless ctx ends first. A loop
// that has ended has none.
func (l *loop) describe(ctx context.Context, to chan<- []Peer) {
	var refs []link.Ref
	var peers []Peer
	var some func()
	some = func() {
		if ctx.Err() != nil {
			return // nobody waits any more
		}
		n := min(len(refs), peersPerTurn)
		for _, ref := range refs[:n] {
			if c := l.link.Conn(ref); c != nil {
				peers = append(peers, peerOf(c).describe())
			}
		}
		if refs = refs[n:]; len(refs) == 0 || !l.link.Post(some) {
			to <- peers
		}
	}
	if !l.link.Post(func() {
		l.link.Range(func(c *link.Conn) { refs = append(refs, c.Ref()) })
		some()
	}) {
		to <- nil
	}
}

// phaseNames are the values of Peer.State.
var phaseNames = [...]string{phaseHello: "hello", phaseOpen: "open", phaseDraining: "draining", phaseParting: "parting", phaseLeaving: "leaving", phaseClosed: "closed"}

func (p *peer) describe() Peer {
	now := p.loop.link.Now()
	n := p.conn.Counters()
	d := Peer{
		Name: p.id.Name, Address: p.address().String(), Domain: p.id.Domain, Remote: p.conn.Remote().String(),
		State: phaseNames[p.phase], Role: p.role().String(), Kind: p.kind, Software: p.software, CertificateEnd: p.id.NotAfter.UTC(),
		Loop: p.loop.link.Index(), AgeSeconds: seconds(now.Sub(p.opened)),
		QueueBytes: p.conn.QueuedBytes(), UncheckedIn: p.ring.Bytes(), PausedBy: p.pausedBy(),
		FramesIn: n.FramesIn, FramesOut: n.FramesOut, BytesIn: n.BytesIn, BytesOut: n.BytesOut,
	}
	if oldest := p.conn.OldestQueued(); !oldest.IsZero() {
		d.OldestSeconds = seconds(now.Sub(oldest))
	}
	if far := p.far; far != nil {
		d.Name, d.LinkCost, d.NodeCost, d.Dialed = routerPrefix+d.Name, far.cost, far.nodeCost, p.conn.Dialed()
		for _, up := range far.proven {
			d.Domains = append(d.Domains, up.domain.name)
		}
		slices.Sort(d.Domains)
	}
	d.FramesInRate, d.FramesOutRate, d.BytesInRate, d.BytesOutRate = p.rates.per(now, n)
	return d
}

// pausedBy says why the peer is not read, "" when it is.
func (p *peer) pausedBy() string {
	switch {
	case p.waitsFor.to != 0:
		if b, _ := p.ring.Head(); b != nil {
			return codec.Raw(b.B).Recipient().String()
		}
		return "router"
	case p.resting:
		return "memory"
	case p.full:
		return "verification"
	case p.conn.Paused():
		return "router"
	}
	return ""
}

// seconds is d to the millisecond, not below 0: a loop's clock stands still
// within a turn.
func seconds(d time.Duration) float64 { return float64(max(d, 0).Milliseconds()) / 1000 }

// ratesOver is how old the counters are, at least, with which rates compare.
const ratesOver = 5 * time.Second

// rates remembers a connection's counters of between one and two times
// ratesOver ago.
type rates struct{ past, recent sample }

type sample struct {
	at time.Time
	n  link.Counters
}

func (r *rates) begin(now time.Time) { r.past.at, r.recent.at = now, now }

// note takes the counters of now, about every second.
func (r *rates) note(now time.Time, n link.Counters) {
	if now.Sub(r.recent.at) >= ratesOver {
		r.past, r.recent = r.recent, sample{now, n}
	}
}

// per returns frames in and out and bytes in and out, per second.
func (r *rates) per(now time.Time, n link.Counters) (framesIn, framesOut, bytesIn, bytesOut float64) {
	took := now.Sub(r.past.at).Seconds()
	if took <= 0 {
		return
	}
	rate := func(now, then uint64) float64 { return float64(int64(float64(now-then)/took*10)) / 10 }
	return rate(n.FramesIn, r.past.n.FramesIn), rate(n.FramesOut, r.past.n.FramesOut),
		rate(n.BytesIn, r.past.n.BytesIn), rate(n.BytesOut, r.past.n.BytesOut)
}
