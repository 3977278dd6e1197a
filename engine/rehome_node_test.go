package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"causeway/codec"
	"causeway/engine/node"
)

// A node learns, message by message, what a recipient had not confirmed when its
// connection ended: the router's notice only counts.
func TestNodesAreToldWhichMessagesAreInDoubt(t *testing.T) {
	d := newAuthority("prod.example")
	_, addr := startRouter(t, nil, d)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	notices := make(chan *node.NoticeError, 10)
	a, err := node.Connect(ctx, node.Config{
		Identity: d.node("a"), Routers: []string{"dbw://" + addr}, Plain: true,
		OnNotice: func(e *node.NoticeError) { notices <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b := connect(t, addr, d.node("b"))
	b.silent = true // it is asked after a while, and says what it has received below
	const count, confirmed = 100, 40
	var all []*node.Sent
	for range count {
		s, err := a.Send(ctx, b.id.Peer.Address, codec.CategoryApplication, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for range count {
		b.next()
	}
	b.received = confirmed
	b.sync()
	b.conn.NetConn().Close()

	var e *node.NoticeError
	select {
	case e = <-notices:
	case <-ctx.Done():
		t.Fatal("no notice")
	}
	if e.Reason != codec.NoticeUnconfirmed || e.More != count-confirmed || e.Ambiguous != 0 {
		t.Errorf("%+v", e)
	}
	for i, s := range all {
		err := s.Confirmed(ctx)
		if inDoubt := errors.As(err, new(*node.NoticeError)); inDoubt != (i >= confirmed) || !inDoubt && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
}

// moving is a sender's or recipient's view of a flow of numbered messages.
type moving struct {
	from, to *node.Node
	sent     []*node.Sent // the number is the place

	mu   sync.Mutex
	came map[uint64]int // times, by number
}

// Routers stop one after the other under load. Every message is delivered exactly
// once, or its sender is told that it was not; nothing is left in doubt.
func TestNodesMoveFromRouterToRouterWithoutLoss(t *testing.T) {
	t.Run("sealed", func(t *testing.T) { nodesMove(t, false) })
	t.Run("plain", func(t *testing.T) { nodesMove(t, true) })
}

func nodesMove(t *testing.T, plain bool) {
	const routers, nodes, batch = 4, 6, 20
	d := newAuthority("prod.example")
	var chain []*Router // the last one first
	next := ""
	for i := range routers {
		r, addr := startRouter(t, func(c *Config) {
			c.Identity = routerOf(fmt.Sprint("edge-", i), d)
			if next != "" {
				c.DrainTo = []string{next}
			}
		}, d)
		chain, next = append(chain, r), "dbw://"+addr
	}
	ctx, end := context.WithTimeout(t.Context(), 6*patience)
	defer end()
	var flows []*moving
	for i := range nodes {
		n, err := node.Connect(ctx, node.Config{
			Identity: d.node(fmt.Sprint("n", i)), Routers: []string{next}, Plain: plain, AcceptPlain: plain,
			DialTimeout: patience, HelloTimeout: patience, Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)).With("node", i),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		flows = append(flows, &moving{from: n, came: map[uint64]int{}})
	}
	receive, stopReceiving := context.WithCancel(ctx)
	stop := make(chan struct{})
	var sending, receiving sync.WaitGroup
	for i, f := range flows {
		f.to = flows[(i+1)%nodes].from
		receiving.Go(func() { f.receive(receive) })
		sending.Go(func() { f.send(t, ctx, stop, batch) })
	}
	for i := routers - 1; i > 0; i-- {
		waitFor(t, "traffic", func() bool { return chain[i].Counts().Forwarded > 300 })
		if err := chain[i].Close(ctx); err != nil {
			t.Errorf("router %d: %v", i, err)
		}
	}
	waitFor(t, "traffic at the last one", func() bool { return chain[0].Counts().Forwarded > 300 })
	close(stop)
	sending.Wait()
	var confirmed, noticed uint64
	for _, f := range flows {
		// On a slow machine a frame that was sent again may come after its gap was given up.
		late, excused := func() int { return int(f.to.Stats().Dropped["session-late"]) }, 0
		for number, s := range f.sent {
			err := s.Confirmed(ctx)
			var notice *node.NoticeError
			want := 1
			switch {
			case err == nil:
				confirmed++
			case errors.As(err, &notice) && notice.Reason == codec.NoticeNoRoute:
				want = 0
				noticed++
			default:
				t.Fatalf("message %d from %s: %v", number, f.from.Name(), err)
			}
			times := func() int { f.mu.Lock(); defer f.mu.Unlock(); return f.came[uint64(number)] }
			waitFor(t, "a message that was confirmed", func() bool { return times() >= want || late() > excused })
			if times() < want {
				excused++
			} else if times() != want {
				t.Errorf("message %d from %s came %d times: %v", number, f.from.Name(), times(), err)
			}
		}
	}
	stopReceiving()
	receiving.Wait()
	var resent uint64
	for _, f := range flows {
		s := f.from.Stats()
		if s.Connections != routers || s.Unconfirmed != 0 || s.ProtocolErrors != 0 || len(s.Dropped) > 1 || len(s.Dropped) == 1 && (plain || s.Dropped["session-late"] == 0) {
			t.Errorf("%s: %+v", f.from.Name(), s)
		}
		resent += s.Resent
	}
	t.Logf("%d delivered, %d noticed; %d sent again", confirmed, noticed, resent)
}

// send sends until stop, some messages at a time, each of which the router has
// confirmed before the next.
func (f *moving) send(t *testing.T, ctx context.Context, stop <-chan struct{}, batch int) {
	for {
		for range batch {
			s, err := f.from.Send(ctx, f.to.Address(), codec.CategoryApplication, binary.BigEndian.AppendUint64(nil, uint64(len(f.sent))))
			if err != nil {
				t.Errorf("%s: %v", f.from.Name(), err)
				return
			}
			f.sent = append(f.sent, s)
		}
		_ = f.sent[len(f.sent)-1].Confirmed(ctx) // its outcome is looked at in the end
		select {
		case <-stop:
			return
		default:
		}
	}
}

func (f *moving) receive(ctx context.Context) {
	for {
		m, err := f.to.Receive(ctx)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.came[binary.BigEndian.Uint64(m.Body)]++
		f.mu.Unlock()
	}
}
