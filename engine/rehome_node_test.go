package engine

import (
	"context"
	"errors"
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
	b.silent, b.received = true, confirmed
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
