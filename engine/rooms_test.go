package engine

import (
	"fmt"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// author makes frames of a node that others send.
func author(t *testing.T, id *pki.Identity) *client {
	return &client{t: t, id: id, signer: must(sign.NewSigner(id.Key))}
}

// reaches waits until r has a way to the address.
func reaches(t *testing.T, r *Router, a codec.Address) {
	t.Helper()
	waitFor(t, "a route", func() bool { to, _ := r.lookup(a); return to != 0 })
}

// patient has certificates waited for as long as a loaded machine may take.
func patient(_ int, c *Config) { c.fetchTime = patience }

// receives reads frames until so many of the sender have come, and checks their
// order.
func (c *client) receives(from codec.Address, n int) {
	c.t.Helper()
	for i := range n {
		f := c.next()
		for f.Category() == codec.CategoryControl || f.Sender() != from {
			f = c.next()
		}
		if got := string(f.Body()); got != fmt.Sprint(i) {
			c.t.Fatalf("frame %s came as number %d", got, i)
		}
	}
}

// sendNumbered sends n frames to the address.
func (c *client) sendNumbered(to codec.Address, n int) {
	for i := range n {
		if _, err := c.conn.Write(c.wire(c.frame(to, codec.CategoryApplication, fmt.Append(nil, i)))); err != nil {
			c.t.Error(err)
			return
		}
	}
}

func TestFramesOverLinksWaitForTheirCertificates(t *testing.T) {
	d := newAuthority("prod.example")
	routers, addrs := line(t, 3, patient, d)
	a, b := connect(t, addrs[0], d.node("a")), connect(t, addrs[2], d.node("b"))
	reaches(t, routers[0], b.id.Peer.Address)
	const frames = 100
	a.sendNumbered(b.id.Peer.Address, frames)
	b.receives(a.id.Peer.Address, frames)
	for i, r := range routers {
		if n := r.droppedFor(dropUnknownCertificate); n != 0 || r.fetcher.endsOf(fetchFound) != uint64(min(i, 1)) {
			t.Errorf("router %d: %d dropped, %d fetched", i, n, r.fetcher.endsOf(fetchFound))
		}
	}
}

// While frames wait they are not said to be received; then they go on, in order,
// and others have not waited.
func TestWaitingFramesAreNotDecidedOn(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.fetchTime = 2 * patience }, d)
	to := connect(t, addr, d.node("to"))
	h := connectRouter(t, addr, routerOf("edge-2", d), d)
	waitProven(t, r, 1, d.Domain)
	slow, quick := author(t, d.node("slow")), author(t, d.node("quick"))
	answer := func(q *codec.CertificateRequest, who *client) {
		h.say(&codec.Certificates{Number: q.Number, Parts: 1, Entries: []codec.CertificateEntry{{CertKey: q.Wanted[0], Chain: who.id.Peer.Chain}}})
	}
	send := func(who *client, i int) {
		h.write(who.wire(who.frame(to.id.Peer.Address, codec.CategoryApplication, fmt.Append(nil, i))))
	}
	send(quick, 0)
	answer(messageOf[*codec.CertificateRequest](h.client), quick)
	to.receives(quick.id.Peer.Address, 1)
	send(slow, 0)
	request := messageOf[*codec.CertificateRequest](h.client)
	send(slow, 1)
	for i := range 5 {
		send(quick, i)
	}
	to.receives(quick.id.Peer.Address, 5) // they do not wait for the slow one
	h.say(&codec.KeepAlive{Answer: true})
	if k := messageOf[*codec.KeepAlive](h.client); k.Received != 1 {
		t.Errorf("said to be received: %d, want the one before those that wait", k.Received)
	}
	answer(request, slow)
	to.receives(slow.id.Peer.Address, 2)
	waitFor(t, "nothing waits", func() bool { return r.awaiting.frames.Load() == 0 && r.awaiting.bytes.Load() == 0 })
	h.say(&codec.KeepAlive{Answer: true})
	if k := messageOf[*codec.KeepAlive](h.client); k.Received != 8 {
		t.Errorf("said to be received: %d, want all 8", k.Received)
	}
}

// A certificate of another, or of nobody, is none; what waits for it is dropped,
// and later frames at once.
func TestFramesWithoutACertificateAreDropped(t *testing.T) {
	t.Parallel() // it waits for the end of fetchTime
	d, other := newAuthority("prod.example"), newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.fetchTime = 10 * time.Second }, d)
	to := connect(t, addr, d.node("to"))
	h := connectRouter(t, addr, routerOf("edge-2", d), d)
	waitProven(t, r, 1, d.Domain)
	thief, stranger, silent := author(t, d.node("thief")), author(t, other.node("stranger")), author(t, d.node("silent"))
	victim := d.node("victim")
	var dropped uint64
	for _, who := range []*client{thief, stranger, silent} {
		f := who.frame(to.id.Peer.Address, codec.CategoryApplication, nil)
		if who == thief {
			f.Sender = victim.Peer.Address
		}
		h.write(who.wire(f))
		q := messageOf[*codec.CertificateRequest](h.client)
		if who != silent {
			h.say(&codec.Certificates{Number: q.Number, Parts: 1, Entries: []codec.CertificateEntry{{CertKey: q.Wanted[0], Chain: who.id.Peer.Chain}}})
		}
		dropped++
		waitFor(t, "the frame dropped", func() bool { return r.droppedFor(dropUnknownCertificate) == dropped })
		asked := r.fetcher.asked.Load()
		f.SendTime++
		h.write(who.wire(f))
		dropped++
		waitFor(t, "the next one dropped", func() bool { return r.droppedFor(dropUnknownCertificate) == dropped })
		if r.fetcher.asked.Load() != asked {
			t.Error("asked for again")
		}
	}
	if n := r.fetcher.bad.Load(); n != 2 {
		t.Errorf("%d bad chains", n)
	}
	// What waits when its link ends is dropped, too.
	last := author(t, d.node("last"))
	h.write(last.wire(last.frame(to.id.Peer.Address, codec.CategoryApplication, nil)))
	messageOf[*codec.CertificateRequest](h.client)
	h.conn.Close()
	waitFor(t, "the last one dropped", func() bool { return r.droppedFor(dropUnknownCertificate) == dropped+1 && r.awaiting.frames.Load() == 0 })
}

// A node's certificate that was not to be had, since the node was nowhere, is asked
// for as soon as the node is attached to another router.
func TestWhoConnectsElsewhereIsHeardAtOnce(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.fetchTime = patience }, d)
	to := connect(t, addr, d.node("to"))
	h := neighbourOf(t, addr, d)
	waitProven(t, r, 1, d.Domain)
	who := author(t, d.node("who"))
	answer := func(chain [][]byte) {
		t.Helper()
		q := messageOf[*codec.CertificateRequest](h)
		h.say(&codec.Certificates{Number: q.Number, Parts: 1, Entries: []codec.CertificateEntry{{CertKey: q.Wanted[0], Chain: chain}}})
	}
	for range 2 {
		h.write(who.wire(who.frame(to.id.Peer.Address, codec.CategoryApplication, []byte("too early"))))
	}
	answer(nil)
	waitFor(t, "what came too early dropped", func() bool { return r.droppedFor(dropUnknownCertificate) == 2 })
	h.announces(r, sentNow(), who.id.Peer.Address)
	r.quietFetcher()
	h.write(who.wire(who.frame(to.id.Peer.Address, codec.CategoryApplication, []byte("0"))))
	answer(who.id.Peer.Chain)
	to.receives(who.id.Peer.Address, 1)
	if n := r.droppedFor(dropUnknownCertificate); n != 2 {
		t.Errorf("%d dropped", n)
	}
}

// quietFetcher waits until the fetcher and what it has posted to loops is done.
func (r *Router) quietFetcher() {
	for range 2 { // what follows from a turn is done before the next one
		done := make(chan struct{})
		r.fetcher.post(true, func(time.Time) { close(done) })
		<-done
	}
	for _, l := range r.loops {
		done := make(chan struct{})
		l.link.Post(func() { close(done) })
		<-done
	}
}

// A neighbour that forwards frames of made-up senders, as fast as it can, fills no
// memory and keeps nobody else's frames.
func TestAFloodOfMadeUpSendersIsBounded(t *testing.T) {
	t.Parallel() // it waits for the end of fetchTime
	d := newAuthority("prod.example")
	routers, addrs := line(t, 2, func(_ int, c *Config) { c.Memory, c.fetchTime = 64<<20, 15*time.Second }, d)
	r := routers[0]
	a, b := connect(t, addrs[1], d.node("a")), connect(t, addrs[0], d.node("b"))
	reaches(t, routers[1], b.id.Peer.Address)
	h := connectRouter(t, addrs[0], routerOf("edge-9", d), d)
	waitProven(t, r, 2, d.Domain)
	const made, honest = 1500, 100
	done := make(chan struct{})
	go func() {
		defer close(done)
		liar := author(t, d.node("liar"))
		one := liar.id.Peer.Address
		for i, key := range madeUp(d, made) {
			f := liar.frame(b.id.Peer.Address, codec.CategoryApplication, make([]byte, 4<<10))
			if f.CertID = key.CertID; i%2 == 0 {
				f.Sender = key.Address
			} else {
				f.Sender = one
			}
			f.Signature = make([]byte, 64)
			if _, err := h.conn.Write(must(f.Append(nil))); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	a.sendNumbered(b.id.Peer.Address, honest)
	b.receives(a.id.Peer.Address, honest)
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		if n := r.awaiting.bytes.Load(); n > r.awaiting.max {
			t.Fatalf("%d bytes wait, at most %d may", n, r.awaiting.max)
		}
	}
	waitFor(t, "all of the flood dropped", func() bool { return r.droppedFor(dropUnknownCertificate)+r.droppedFor(dropQueueFull) == made })
	if n := r.droppedFor(dropUnknownCertificate); n < made/2 {
		t.Errorf("only %d dropped for their certificates", n)
	}
	if r.awaiting.bytes.Load() != 0 || r.awaiting.frames.Load() != 0 {
		t.Error("something is left in memory")
	}
}

// With --verify edge what a neighbour forwards is not checked here, and causes no
// notice; what nodes send is.
func TestVerifyEdgeChecksNodesAlone(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.VerifyEdge = true }, d)
	node, to := connect(t, addr, d.node("node")), connect(t, addr, d.node("to"))
	h := connectRouter(t, addr, routerOf("edge-2", d), d)
	waitProven(t, r, 1, d.Domain)
	nobody := madeUp(d, 1)[0].Address
	forged := author(t, d.node("forged"))
	forge := func(from, to codec.Address) {
		f := forged.frame(to, codec.CategoryApplication, []byte("0"))
		f.Sender, f.Signature = from, make([]byte, 64)
		h.write(must(f.Append(nil)))
	}
	forge(forged.id.Peer.Address, to.id.Peer.Address)
	to.receives(forged.id.Peer.Address, 1)
	forge(node.id.Peer.Address, nobody)
	waitFor(t, "the forged one dropped", func() bool { return r.droppedFor(dropNoRoute) == 1 })
	if n := r.fetcher.asked.Load(); n != 0 {
		t.Errorf("asked for %d certificates", n)
	}
	bad := node.frame(to.id.Peer.Address, codec.CategoryApplication, nil)
	bad.Signature = make([]byte, 64)
	node.write(must(bad.Append(nil)))
	node.sendNumbered(nobody, 1)
	told := node.next()
	if told.Category() != codec.CategoryNotice {
		t.Fatalf("category %v came", told.Category())
	}
	if n := must(codec.DecodeNotice(told.Body())); n.Reason != codec.NoticeNoRoute || len(n.Frames) != 1 || n.More != 0 {
		t.Errorf("noticed %+v, want the node's own frame alone", n)
	}
	if n := r.droppedFor(dropBadSignature); n != 1 {
		t.Errorf("%d bad signatures, want the node's", n)
	}
	h.say(&codec.KeepAlive{Received: h.received + 1_000_000}) // link control is checked and believed as ever
	if g := h.ended(); g == nil || g.Reason != codec.GoodbyeProtocol {
		t.Errorf("goodbye %+v", g)
	}
}
