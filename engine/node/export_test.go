package node

import (
	"crypto/rand"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// TestDomain is a domain with one router, for the examples.
type TestDomain struct{ w *world }

// NewTestDomain makes a domain in memory.
func NewTestDomain() *TestDomain {
	w := &world{d: newDomain("prod.example"), net: newMemNet()}
	w.r = newFakeRouter(w.d, "r1")
	w.url = w.net.listen(routerHost, w.r)
	return &TestDomain{w}
}

// Close stops the router.
func (d *TestDomain) Close() { d.w.r.stop() }

// Config returns what a node of that name needs to connect; the rest is the
// application's.
func (d *TestDomain) Config(name string) Config {
	return Config{Identity: d.w.d.node(name), Routers: []string{d.w.url}, Dial: d.w.net.dial}
}

// Nobody returns the address of a node that is not connected.
func (d *TestDomain) Nobody() codec.Address {
	return must(pki.NewAddress(d.w.d.name, pki.KindNode, rand.Reader))
}

// Settle returns when the router knows so many nodes.
func (d *TestDomain) Settle(nodes int) {
	for {
		d.w.r.mu.Lock()
		n := len(d.w.r.live)
		d.w.r.mu.Unlock()
		if n == nodes {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
