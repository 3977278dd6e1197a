package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"causeway/codec"
)

const (
	traceWaitDefault = 2 * time.Second
	traceAsks        = 2 // traces to each hop: the first may have its certificate fetched, so the quicker answer counts
	traceSilentMax   = 4 // hops in a row from which nothing comes end a trace
	traceHopsMax     = math.MaxUint8
	traceLookEvery   = 50 * time.Millisecond
)

// Hop is one step on the way to a member.
type Hop struct {
	Number    int           // of routers up to it; 1 is the one this node is connected to
	Address   codec.Address // zero: nobody has answered in time
	Name      string        // of its certificate, of a router "router/NAME"
	RoundTrip time.Duration
	Time      time.Time     // its clock when it answered; zero when it said so by a notice
	Software  string        // its own word
	Next      codec.Address // where it sends what is for the member; zero: it knows no way, is the member, or has not said
	Arrived   bool          // it is the member
}

// TraceEnd is why a trace ended.
type TraceEnd uint8

// What ends a trace.
const (
	TraceArrived TraceEnd = iota // the member has answered
	TraceNoticed                 // a notice says that it can't be reached: Trace.Notice
	TraceSilent                  // nothing came from several hops in a row
	TraceHopsMax                 // there are more hops than were asked for
)

// Trace is the way to a member as far as it is known.
type Trace struct {
	Hops   []Hop // in order
	End    TraceEnd
	Notice *NoticeError // of TraceNoticed
}

// TraceConfig says how far and how patiently to trace. The zero value will do.
type TraceConfig struct {
	HopsMax int           // 1 to 255; 0: 32
	Wait    time.Duration // longest for the answer of one hop; 0: 2 s
	OnHop   func(Hop)     // called with each hop as it is known; nil: nobody
}

func (c *TraceConfig) prepare() error {
	if c.HopsMax < 0 || c.HopsMax > traceHopsMax || c.Wait < 0 {
		return fmt.Errorf("a trace over %d hops, %v for each: must be of at most %d hops, and the time not negative", c.HopsMax, c.Wait, traceHopsMax)
	}
	if c.HopsMax == 0 {
		c.HopsMax = codec.TTLDefault
	}
	if c.Wait == 0 {
		c.Wait = traceWaitDefault
	}
	return nil
}

// Trace asks each router on the way to a member, one after the other, and in the
// end the member. Every hop is who its certificate says; none but routers of
// the domain and the member itself are believed. Routers that do not know traces
// are seen by their notices. It fails with *WaitError or *NotConnectedError when
// ctx ends, and with what ended the node; the trace has the hops up to then.
func (n *Node) Trace(ctx context.Context, to codec.Address, c TraceConfig) (Trace, error) {
	t := tracing{n: n, to: to, c: c}
	if err := t.c.prepare(); err != nil {
		return Trace{}, err
	}
	if to.IsZero() {
		return Trace{}, errNoRecipient
	}
	silent := 0
	for number := 1; number <= t.c.HopsMax; number++ {
		hop, err := t.ask(ctx, number)
		if err != nil {
			return t.found, err
		}
		if t.found.Notice != nil {
			t.found.End = TraceNoticed
			return t.found, nil
		}
		t.found.Hops = append(t.found.Hops, hop)
		if t.c.OnHop != nil {
			t.c.OnHop(hop)
		}
		if hop.Arrived {
			t.found.End = TraceArrived
			return t.found, nil
		}
		if silent++; !hop.Address.IsZero() {
			silent = 0
		}
		if silent == traceSilentMax {
			t.found.End = TraceSilent
			return t.found, nil
		}
	}
	t.found.End = TraceHopsMax
	return t.found, nil
}

// tracing is a trace under way.
type tracing struct {
	n     *Node
	to    codec.Address
	c     TraceConfig
	found Trace
	open  []*Sent // traces that nobody has answered yet: a notice may still come
}

// ask finds out about one hop; its address is zero when nothing has come in
// time. A notice that ends the trace is in t.found.Notice.
func (t *tracing) ask(ctx context.Context, number int) (best Hop, err error) {
	best.Number = number
	for range traceAsks {
		hop, err := t.askOnce(ctx, number)
		if err != nil || t.found.Notice != nil {
			return hop, err
		}
		switch {
		case hop.Address.IsZero():
			return best, nil // who is silent is not asked again
		case best.Address.IsZero() || hop.RoundTrip < best.RoundTrip:
			best = hop
		}
	}
	return best, nil
}

func (t *tracing) askOnce(ctx context.Context, number int) (hop Hop, err error) {
	hop.Number = number
	n := t.n
	id, hops, err := n.echoes.openAs(n, &echoWait{from: t.to, trace: true})
	if err != nil {
		return hop, err
	}
	defer n.echoes.close(id)
	body, err := codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoTrace, ID: id})
	if err != nil {
		return hop, err
	}
	asked, err := n.sendTTL(ctx, t.to, uint8(number), codec.CategoryEcho, body, true)
	if err != nil {
		return hop, err
	}
	over := time.NewTimer(t.c.Wait)
	defer over.Stop()
	look := time.NewTicker(traceLookEvery)
	defer look.Stop()
	for {
		changed, err := asked.lost()
		var notice *NoticeError
		switch {
		case errors.As(err, &notice) && notice.Reason == codec.NoticeTTLSpent:
			hop.Address, hop.Name, hop.RoundTrip = notice.From, notice.FromName, time.Since(asked.queuedAt)
			return hop, nil
		case errors.As(err, &notice):
			t.found.Notice = notice
			return hop, nil
		case err != nil:
			return hop, err
		}
		if t.noticed() {
			return hop, nil
		}
		select {
		case e := <-hops:
			if e.Type == codec.EchoHop {
				return Hop{
					Number: number, Address: e.from, Name: e.name, RoundTrip: time.Since(asked.queuedAt),
					Time: frameTime(e.Hop.Time), Software: e.Hop.Software, Next: e.Hop.Next, Arrived: e.from == t.to,
				}, nil
			}
		case <-changed:
		case <-look.C: // for notices about those before
		case <-over.C:
			t.open = append(t.open, asked)
			return hop, nil
		case <-n.done:
			return hop, n.Err()
		case <-ctx.Done():
			return hop, n.waitError(ctx, fmt.Sprintf("answer of hop %d", number), nil)
		}
	}
}

// noticed looks for a notice about a trace that was given up, and tells whether
// there is one.
func (t *tracing) noticed() bool {
	for _, s := range t.open {
		_, err := s.lost()
		var notice *NoticeError
		if errors.As(err, &notice) && notice.Reason != codec.NoticeTTLSpent {
			t.found.Notice = notice
			return true
		}
	}
	return false
}
