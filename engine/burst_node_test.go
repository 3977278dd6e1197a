package engine

import (
	"context"
	"encoding/binary"
	"testing"

	"causeway/codec"
	"causeway/crypto/sign"
	"causeway/engine/node"
)

// A node that sends as fast as it can makes bursts, which the router verifies by
// their trees; the recipient gets all of them in order.
func TestBurstsOfNodesAreVerifiedByTheirTrees(t *testing.T) {
	t.Run("sealed", func(t *testing.T) { burstsAreVerified(t, false) })
	t.Run("plain", func(t *testing.T) { burstsAreVerified(t, true) })
}

func burstsAreVerified(t *testing.T, plain bool) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.VerifyPath = sign.BestPath() }, d)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	join := func(name string) *node.Node {
		n, err := node.Connect(ctx, node.Config{Identity: d.node(name), Routers: []string{"dbw://" + addr}, Plain: plain, AcceptPlain: plain})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	a, b := join("a"), join("b")
	next := uint64(0)
	for a.Stats().BurstFrames == 0 || r.pool.Stats().ByTree == 0 {
		const together = 100
		for i := range uint64(together) {
			if _, err := a.Send(ctx, b.Address(), codec.CategoryApplication, binary.BigEndian.AppendUint64(nil, next+i)); err != nil {
				t.Fatal(err)
			}
		}
		for range together {
			m, err := b.Receive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint64(m.Body); got != next || m.Sealed == plain {
				t.Fatalf("message %d came in the place of %d", got, next)
			}
			next++
		}
	}
	if st := r.pool.Stats(); st.Differences != 0 {
		t.Errorf("%+v", st)
	}
}
