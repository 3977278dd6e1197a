package engine

import (
	"bytes"
	"crypto/sha256"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// neighbourOf connects to a router as another one, with grants of the domains
// given, and proves these; the control address is in the first. It can misbehave.
func neighbourOf(t *testing.T, addr string, domains ...*authority) *client {
	t.Helper()
	first, id := domains[0], routerOf("edge-x", domains...)
	as := &pki.Identity{Peer: id.Grants[first.Domain], Key: id.Key, Roots: storeOf(first).Roots(first.Domain)}
	config := clientTLS(as)
	config.Certificates[0] = id.TLSCertificate(first.Domain)
	c, err := dial(t, addr, as, config)
	if err != nil {
		t.Fatal(err)
	}
	hello := testHello()
	hello.Role = codec.RoleRouter
	c.say(hello)
	if _, ok := c.control().(*codec.Hello); !ok {
		t.Fatal("no hello came back")
	}
	state := c.conn.ConnectionState()
	exporter := must(state.ExportKeyingMaterial(codec.DomainsExporter, nil, codec.DomainsExporterSize))
	var values []codec.DomainProof
	chains := [][][]byte{}
	for i, d := range domains {
		values = append(values, codec.NewDomainProof(exporter, true, d.Domain, sha256.Sum256(d.Root.Raw)))
		if i > 0 {
			chains = append(chains, id.Grants[d.Domain].Chain)
		}
	}
	c.proofs = slices.Clone(values)
	slices.SortFunc(values, func(a, b codec.DomainProof) int { return bytes.Compare(a[:], b[:]) })
	for _, part := range must(codec.SplitDomainProofs(values)) {
		c.say(part)
	}
	if len(chains) > 0 {
		c.say(&codec.Grants{Chains: chains})
	}
	c.sync()
	return c
}

// sent is a frame of id, not signed yet.
func sent(id *pki.Identity, to codec.Address, category codec.Category, body string) *codec.Frame {
	c := client{id: id}
	return c.frame(to, category, []byte(body))
}

// signed signs f with id's key.
func signed(id *pki.Identity, f *codec.Frame) *codec.Frame {
	f.Signature = must(must(sign.NewSigner(id.Key)).Sign(nil, f.AppendSigned(nil)))
	return f
}

// pass sends frames as they are, which somebody else has signed.
func (c *client) pass(frames ...*codec.Frame) {
	c.t.Helper()
	var b []byte
	for _, f := range frames {
		b = must(f.Append(b))
	}
	c.write(b)
}

// denyCertificates answers requests for certificates among the frames: not known.
func (c *client) denyCertificates(frames []codec.Raw) {
	c.t.Helper()
	for _, f := range frames {
		if f.Category() != codec.CategoryControl {
			continue
		}
		if q, ok := must(codec.DecodeControl(f.Body())).(*codec.CertificateRequest); ok {
			answer := &codec.Certificates{Number: q.Number, Parts: 1}
			for _, key := range q.Wanted {
				answer.Entries = append(answer.Entries, codec.CertificateEntry{CertKey: key})
			}
			c.say(answer)
		}
	}
}

// takesLittle has c's kernel take little that c does not read.
func (c *client) takesLittle() {
	c.t.Helper()
	if err := c.conn.NetConn().(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		c.t.Fatal(err)
	}
}

// knows makes known to r the certificates of nodes that are not connected to it.
func knows(t *testing.T, r *Router, ids ...*pki.Identity) {
	t.Helper()
	for _, id := range ids {
		if !r.state().domains[id.Peer.Domain].members.keep(id.Peer, good) {
			t.Fatal("not kept")
		}
	}
}

// Every rule for frames from another router drops what breaks it, for its reason,
// and tells the sender where that is due; nothing of that ends the link.
func TestFramesOfAHostileNeighbour(t *testing.T) {
	d, other := newAuthority("prod.example"), newAuthority("test.example")
	r, addr := startRouter(t, func(c *Config) { c.Loops = 1 }, d, other)
	a, b, stranger := d.node("a"), d.node("b"), other.node("s")
	knows(t, r, a, stranger)
	sender, recipient := connect(t, addr, a), connect(t, addr, b)
	tiny := d.node("small")
	small, err := dial(t, addr, tiny, clientTLS(tiny))
	if err != nil {
		t.Fatal(err)
	}
	hello := testHello()
	hello.BodyMax = 10
	small.say(hello)
	small.control()
	x := neighbourOf(t, addr, d)
	const data = codec.CategoryApplication
	to, self := b.Peer.Address, x.router
	unknown := must(pki.NewAddress(d.Domain, 0, bytes.NewReader(make([]byte, 8))))
	for _, c := range []struct {
		name   string
		frame  *codec.Frame
		change func(*codec.Frame)
		reason dropReason
		notice codec.NoticeReason
	}{
		{"sender's domain is not proven on the link", sent(stranger, stranger.Peer.Address, data, ""), nil, dropForeignDomain, 0},
		{"recipient of another domain", sent(a, stranger.Peer.Address, data, ""), nil, dropForeignDomain, 0},
		{"sender of another domain", sent(stranger, to, data, ""), nil, dropForeignDomain, 0},
		{"domain that nobody has", sent(a, to, data, ""), func(f *codec.Frame) { f.Sender[3], f.Recipient[3] = 1, 1 }, dropForeignDomain, 0},
		{"encrypted session", sent(a, to, codec.CategorySession, ""), func(f *codec.Frame) { f.Encrypted = true }, dropCategory, 0},
		{"plain device traffic", sent(a, to, codec.CategoryDevice, ""), nil, dropCategory, 0},
		{"data of a router", x.frame(to, data, nil), nil, dropCategory, 0},
		{"session of a router", x.frame(to, codec.CategorySession, nil), nil, dropCategory, 0},
		{"certificate that nobody has", sent(a, to, data, ""), func(f *codec.Frame) { f.CertID[0]++ }, dropUnknownCertificate, 0},
		{"certificate of another", sent(a, to, data, ""), func(f *codec.Frame) { f.CertID = b.Peer.CertID }, dropUnknownCertificate, 0},
		{"bad signature", sent(a, to, data, ""), func(f *codec.Frame) { f.Signature[0] ^= 1 }, dropBadSignature, 0},
		{"other body than signed", sent(a, to, data, "x"), func(f *codec.Frame) { f.Body = []byte("y") }, dropBadSignature, 0},
		{"late", sent(a, to, data, ""), func(f *codec.Frame) { f.SendTime -= uint64(time.Hour); signed(a, f) }, dropLate, codec.NoticeLate},
		{"early", sent(a, to, data, ""), func(f *codec.Frame) { f.SendTime += uint64(time.Hour); signed(a, f) }, dropLate, codec.NoticeLate},
		{"TTL of 1", sent(a, to, data, ""), func(f *codec.Frame) { f.TTL = 1 }, dropTTL, codec.NoticeTTLSpent},
		{"TTL of 0", sent(a, to, data, ""), func(f *codec.Frame) { f.TTL = 0 }, dropTTL, codec.NoticeTTLSpent},
		{"data for this router", sent(a, self, data, ""), nil, dropCategory, codec.NoticeNotPermitted},
		{"notice for this router", sent(a, self, codec.CategoryNotice, ""), nil, dropCategory, 0},
		{"nobody there", sent(a, unknown, data, ""), nil, dropNoRoute, codec.NoticeNoRoute},
		{"larger than its recipient takes", sent(a, tiny.Peer.Address, data, "more than ten bytes"), nil, dropTooLarge, codec.NoticeTooLarge},
	} {
		signed(a, c.frame)
		if c.change != nil {
			c.change(c.frame)
		}
		before := r.Counts()
		x.pass(c.frame)
		waitFor(t, c.name+" is dropped", func() bool { x.denyCertificates(x.sync()); return r.Counts().DroppedSum() > before.DroppedSum() })
		if now := r.Counts(); now.Dropped[c.reason.String()] != before.Dropped[c.reason.String()]+1 || now.DroppedSum() != before.DroppedSum()+1 {
			t.Errorf("%s: dropped %v, before %v", c.name, now.Dropped, before.Dropped)
		}
		var told codec.NoticeReason
		for _, f := range sender.sync() {
			if f.Category() == codec.CategoryNotice {
				told = must(codec.DecodeNotice(f.Body())).Reason
			}
		}
		if told != c.notice {
			t.Errorf("%s: notice %v, want %v", c.name, told, c.notice)
		}
	}
	f := signed(a, sent(a, to, data, "good"))
	x.pass(f)
	if got := recipient.next(); string(got.Body()) != "good" || got.TTL() != f.TTL-1 || got.Sender() != f.Sender {
		t.Errorf("the good frame comes as %v, TTL %d", got.Body(), got.TTL())
	}
}

// A frame whose time to live ends here is for this router all the same, and the
// answer goes to where its sender is.
func TestEchoesByALinkAreAnswered(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, nil, d)
	a := d.node("a")
	knows(t, r, a)
	sender, x := connect(t, addr, a), neighbourOf(t, addr, d)
	e := &codec.Echo{Type: codec.EchoRequest, ID: [8]byte{7}, Payload: []byte("p")}
	f := sent(a, x.router, codec.CategoryEcho, string(must(codec.AppendEcho(nil, e))))
	f.TTL = 0
	x.pass(signed(a, f))
	if got := sender.next(); got.Category() != codec.CategoryEcho || must(codec.DecodeEcho(got.Body())).Type != codec.EchoReply || got.Sender() != x.router {
		t.Errorf("%v from %v", got.Category(), got.Sender())
	}
}

// Past its budget of bad signatures a sender is blocked on the link by which they
// came, and on no other; the neighbour is told; the link and other senders stay.
func TestASenderIsBlockedOnTheLinkAlone(t *testing.T) {
	const most = 5
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.BadSignatures = most }, d)
	a, b, victim := d.node("a"), d.node("b"), d.node("victim")
	knows(t, r, a, victim)
	recipient := connect(t, addr, b)
	x, y := neighbourOf(t, addr, d), neighbourOf(t, addr, d)
	for n := range most + 1 {
		f := signed(victim, sent(victim, b.Peer.Address, codec.CategoryApplication, ""))
		f.Signature[n] ^= 1
		x.pass(f)
	}
	var blocked *codec.SenderBlocked
	for blocked == nil {
		blocked, _ = x.control().(*codec.SenderBlocked)
	}
	if *blocked != (codec.SenderBlocked{Sender: victim.Peer.Address, For: blockTime}) {
		t.Errorf("told %+v", blocked)
	}
	x.pass(signed(victim, sent(victim, b.Peer.Address, codec.CategoryApplication, "blocked")),
		signed(a, sent(a, b.Peer.Address, codec.CategoryApplication, "other sender")))
	if got := string(recipient.next().Body()); got != "other sender" {
		t.Errorf("%q comes", got)
	}
	y.pass(signed(victim, sent(victim, b.Peer.Address, codec.CategoryApplication, "other link")))
	if got := string(recipient.next().Body()); got != "other link" {
		t.Errorf("%q comes", got)
	}
	if n, m := r.droppedFor(dropBadSignature), r.droppedFor(dropBlockedSender); n != most+1 || m != 1 {
		t.Errorf("%d dropped for bad signatures, %d blocked", n, m)
	}
	x.say(&codec.SenderBlocked{Sender: a.Peer.Address, For: time.Minute})
	x.sync()
	var here, there uint64
	for _, l := range r.loops {
		here, there = here+l.count.blocked.Load(), there+l.count.blockedThere.Load()
	}
	if here != 1 || there != 1 {
		t.Errorf("counted %d blocked here, %d there", here, there)
	}
}

func TestSuspectsAreBoundedAndForgotten(t *testing.T) {
	s, now := make(suspects), time.Now()
	who := codec.Address{1}
	for n := range 3 {
		if s.bad(who, now, 3) || s.blocks(who, now) {
			t.Fatalf("blocked after %d", n+1)
		}
	}
	if !s.bad(who, now, 3) || !s.blocks(who, now) || s.bad(who, now, 3) {
		t.Error("not blocked, or twice")
	}
	if s.forget(now, 3); len(s) != 1 {
		t.Error("forgotten while blocked")
	}
	if now = now.Add(blockTime); s.blocks(who, now) {
		t.Error("blocked for longer than said")
	}
	if s.forget(now, 3); len(s) != 1 || !s.bad(who, now, 3) {
		t.Error("the budget is whole at once")
	}
	for n := range 2 * suspectsMax {
		s.bad(codec.Address{2, byte(n), byte(n >> 8)}, now, 3)
	}
	if len(s) != suspectsMax {
		t.Errorf("%d are remembered", len(s))
	}
	if s.forget(now.Add(badSignaturesRefill), 3); len(s) != 0 {
		t.Errorf("%d are still remembered", len(s))
	}
}

// A recipient that does not read loses frames; others whose frames come by the same
// link get all of theirs, in order, and the link is read on.
func TestAStalledRecipientDoesNotHoldUpALink(t *testing.T) {
	const frames, size = 500, 16 << 10
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) {
		c.QueueHigh, c.QueueLow, c.PauseMax, c.StallTimeout = 128<<10, 32<<10, patience, 2*patience
	}, d)
	a, b, deaf := d.node("a"), d.node("b"), d.node("deaf")
	knows(t, r, a)
	connect(t, addr, deaf).takesLittle() // and reads nothing any more
	recipient, x := connect(t, addr, b), neighbourOf(t, addr, d)
	body := strings.Repeat("x", size)
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := range frames {
			x.pass(signed(a, sent(a, deaf.Peer.Address, codec.CategoryApplication, body)),
				signed(a, sent(a, b.Peer.Address, codec.CategoryApplication, string(rune(n)))))
		}
	})
	defer sending.Wait()
	for n := range frames {
		if got := string(recipient.next().Body()); got != string(rune(n)) {
			t.Fatalf("frame %d is %q", n, got)
		}
	}
	if n := r.droppedFor(dropQueueFull); n < frames/4 {
		t.Errorf("%d frames dropped for the deaf node", n)
	}
	if n := r.droppedFor(dropQueueFull); n != r.Counts().DroppedSum() {
		t.Errorf("dropped %v", r.Counts().Dropped)
	}
	for _, l := range r.loops {
		if n := l.count.paused.Load(); n != 0 {
			t.Errorf("%d pauses", n)
		}
	}
}

// A node that is flooded and reads slowly still hears what became of its own
// frames elsewhere: notices on their way have room beyond the mark.
func TestNoticesReachWhoIsFlooded(t *testing.T) {
	d := newAuthority("prod.example")
	r, addr := startRouter(t, func(c *Config) { c.QueueHigh, c.QueueLow, c.StallTimeout = 128<<10, 32<<10, 2*patience }, d)
	a, b := d.node("a"), d.node("b")
	knows(t, r, a)
	flooded, x := connect(t, addr, b), neighbourOf(t, addr, d)
	flooded.takesLittle()
	for body := strings.Repeat("x", 64<<10); r.droppedFor(dropQueueFull) < 10; {
		x.pass(signed(a, sent(a, b.Peer.Address, codec.CategoryApplication, body)))
		x.sync()
	}
	full := r.droppedFor(dropQueueFull)
	const notices = 20
	for n := range notices {
		x.send(x.frame(b.Peer.Address, codec.CategoryNotice, must(codec.AppendNotice(nil, &codec.Notice{
			Reason: codec.NoticeNoRoute, Recipient: a.Peer.Address, More: 1, First: uint64(n + 1), Last: uint64(n + 1),
		}))))
	}
	x.sync()
	if n := r.droppedFor(dropQueueFull); n != full {
		t.Errorf("%d notices dropped", n-full)
	}
	for n := 0; n < notices; {
		if f := flooded.next(); f.Category() == codec.CategoryNotice {
			n++
		}
	}
}

// What is remembered of the last frame's domain is what the maps say.
func TestTheCurrentDomainOfALink(t *testing.T) {
	a, b, c := prefix{1}, prefix{2}, prefix{3}
	n := &neighbour{settlement: settlement{proven: map[prefix]*proven{a: {}, b: {}}}}
	check := func(at prefix, want *proven) {
		t.Helper()
		if n.provenIn(at) != want {
			t.Errorf("domain %v: not what is proven", at)
		}
	}
	upA, upB := n.proven[a], n.proven[b]
	for range 2 {
		check(a, upA)
		check(a, upA)
		check(b, upB)
		check(c, nil)
	}
	upC := &proven{}
	n.proven[c] = upC
	check(c, upC)
	before, after := &state{byPrefix: map[prefix]*domain{a: {}, b: {}}}, &state{byPrefix: map[prefix]*domain{a: {}}}
	for _, s := range []*state{before, after, before} {
		for _, at := range []prefix{a, a, b, b, c, a} {
			if n.domainIn(s, at) != s.byPrefix[at] {
				t.Errorf("domain %v: not what is served", at)
			}
		}
	}
}
