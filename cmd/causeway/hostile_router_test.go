package main

import (
	"crypto/sha256"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// hostileRouter is a router with a grant of one domain that does what a test tells
// it to: it speaks what PROTOCOL.md sections 4.1, 5 and 14 say, and lies. It
// forwards nothing.
type hostileRouter struct {
	t        *testing.T
	grant    *pki.Peer // its own
	far      *pki.Peer // the router's that it is linked to
	conn     *tls.Conn
	signer   *sign.Signer
	exporter []byte
	source   codec.Source
	ended    chan struct{} // closed when the connection is

	writing sync.Mutex
	last    uint64 // send time

	mu       sync.Mutex
	claims   *codec.AddressList // its list
	received uint64
	control  []codec.Control
	frames   []codec.Raw // of other categories
}

// makeHostile makes a router's identity with a grant of one of the mesh's domains.
func (m *mesh) makeHostile(domain string) (dir string) {
	m.t.Helper()
	dir = filepath.Join(m.dir, "hostile")
	verb(m.t, "pki", "grant", "--ca", m.ca(domain), "--name", "hostile", "--out", dir)
	return dir
}

// linkHostile links the identity in dir to a router of the mesh, and waits until the
// domain is proven at both ends. Its proofs are of the domains named, the first of
// which it has a grant of.
func (m *mesh) linkHostile(dir string, to int, domains ...string) *hostileRouter {
	t := m.t
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id, err := pki.LoadIdentity(os.DirFS(dir))
	must(err)
	other, err := pki.LoadIdentity(os.DirFS(filepath.Join(m.dir, m.routers[to].name)))
	must(err)
	h := &hostileRouter{
		t: t, grant: id.Grants[domains[0]], far: other.Grants[domains[0]], ended: make(chan struct{}),
		source: codec.Source{Epoch: uint64(time.Now().UnixNano()), ID: codec.RouterID{6, 6, 6}},
	}
	h.signer, err = sign.NewSigner(id.Key)
	must(err)
	raw, err := m.sites.hub.dial(t.Context(), m.routers[to].listens())
	must(err)
	t.Cleanup(func() { raw.Close() })
	h.conn = tls.Client(raw, &tls.Config{
		ServerName: domains[0], NextProtos: []string{"dbw/1"}, InsecureSkipVerify: true, // it trusts whom it attacks
		Certificates: []tls.Certificate{{Certificate: h.grant.Chain, PrivateKey: id.Key}},
	})
	must(h.conn.HandshakeContext(t.Context()))
	state := h.conn.ConnectionState()
	h.exporter, err = state.ExportKeyingMaterial(codec.DomainsExporter, nil, codec.DomainsExporterSize)
	must(err)
	h.say(&codec.Hello{
		Version: codec.ProtocolVersion, Role: codec.RoleRouter, Kind: "hostile", Software: "hostile/6.6.6",
		KeepAlive: codec.KeepAliveDefault, DeadAfter: codec.DeadAfterMax, BodyMax: codec.BodyMaxDefault,
	})
	go h.read()
	proofs := &codec.DomainProofs{Parts: 1}
	for _, d := range domains {
		ca, err := openCA(m.ca(d))
		must(err)
		proofs.Values = append(proofs.Values, codec.NewDomainProof(h.exporter, true, d, sha256.Sum256(ca.Root.Raw)))
		ca.close()
	}
	slices.SortFunc(proofs.Values, func(a, b codec.DomainProof) int { return slices.Compare(a[:], b[:]) })
	h.await("the router's hello", func() bool { return heard[*codec.Hello](h) > 0 })
	h.say(proofs)
	h.say(h.routes(h.grant.Address, 0))
	h.await("the router's routes", func() bool { return heard[*codec.RouteUpdate](h) > 0 })
	return h
}

// heard counts the messages of one type that have come.
func heard[M codec.Control](h *hostileRouter) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.control {
		if _, ok := m.(M); ok {
			n++
		}
	}
	return n
}

func (h *hostileRouter) await(what string, ok func() bool) {
	h.t.Helper()
	waitUntil(h.t, "the hostile router: "+what, ok)
}

// read takes what comes, and answers keep-alives, as who wants to stay.
func (h *hostileRouter) read() {
	defer close(h.ended)
	var got []byte
	for b := make([]byte, 64<<10); ; {
		n, err := h.conn.Read(b)
		got = append(got, b[:n]...)
		for {
			need, cutErr := codec.Cut(got, codec.BodyMaxDefault)
			if cutErr != nil || need > len(got) {
				break
			}
			h.take(codec.Raw(slices.Clone(got[:need])))
			got = got[need:]
		}
		if err != nil {
			return
		}
	}
}

func (h *hostileRouter) take(raw codec.Raw) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if raw.Category() != codec.CategoryControl {
		h.received++
		h.frames = append(h.frames, raw)
		return
	}
	m, err := codec.DecodeControl(raw.Body())
	if err != nil {
		h.t.Errorf("the router sends link control that is malformed: %v", err)
		return
	}
	h.control = append(h.control, m)
	switch m := m.(type) {
	case *codec.KeepAlive:
		if m.Answer {
			go h.say(&codec.KeepAlive{Received: h.received})
		}
	case *codec.ListRequest:
		if h.claims != nil && m.Router == h.claims.Router {
			go h.say(h.claims)
		}
	}
}

// say sends link control.
func (h *hostileRouter) say(m codec.Control) {
	h.t.Helper()
	body, err := codec.AppendControl(nil, m)
	if err != nil {
		h.t.Errorf("%T: %v", m, err)
		return
	}
	h.send(h.make(h.grant.Address, h.far.Address, codec.CategoryControl, body))
}

// send writes frames; that may fail, since the router may have left.
func (h *hostileRouter) send(frames ...codec.Raw) {
	h.writing.Lock()
	defer h.writing.Unlock()
	for _, raw := range frames {
		if _, err := h.conn.Write(raw); err != nil {
			return
		}
	}
}

// make makes a frame in anybody's name, signed with the only key it has.
func (h *hostileRouter) make(from, to codec.Address, category codec.Category, body []byte) codec.Raw {
	h.writing.Lock()
	defer h.writing.Unlock()
	h.last = max(h.last+1, uint64(time.Now().UnixNano()))
	f := codec.Frame{
		TTL: codec.TTLDefault, Recipient: to, Sender: from, Category: category, SendTime: h.last, CertID: codec.CertID(h.grant.CertID), Body: body,
	}
	var err error
	if f.Signature, err = h.signer.Sign(nil, f.AppendSigned(nil)); err != nil {
		h.t.Errorf("signing: %v", err)
	}
	wire, err := f.Append(nil)
	if err != nil {
		h.t.Errorf("a frame: %v", err)
	}
	return wire
}

// notice makes a notice about a frame.
func (h *hostileRouter) notice(from, to, recipient codec.Address, digest codec.Digest, sendTime uint64) codec.Raw {
	h.t.Helper()
	body, err := codec.AppendNotice(nil, &codec.Notice{
		Reason: codec.NoticeNoRoute, Recipient: recipient, Frames: []codec.NoticeFrame{{Digest: digest, SendTime: sendTime}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.make(from, to, codec.CategoryNotice, body)
}

// routes says that it reaches a router with that metric.
func (h *hostileRouter) routes(router codec.Address, metric uint16) *codec.RouteUpdate {
	return &codec.RouteUpdate{Interval: time.Minute, Routes: []codec.Route{{Router: router, Source: h.source, Seqno: 1, Metric: metric}}}
}

// claim says that nodes are attached to it, and later than they are anywhere, with
// a list that takes the place of the one before.
func (h *hostileRouter) claim(nodes ...codec.Address) {
	h.t.Helper()
	h.mu.Lock()
	number := uint64(1)
	if h.claims != nil {
		number = h.claims.To + 1
	}
	h.claims = h.list(h.grant.Address, number, nodes...)
	h.mu.Unlock()
	h.say(&codec.ListNumbers{Lists: []codec.ListNumber{{Router: h.grant.Address, Source: h.source, Number: number}}})
}

// list is a router's list in which nodes are attached in a minute.
func (h *hostileRouter) list(router codec.Address, number uint64, nodes ...codec.Address) *codec.AddressList {
	l := &codec.AddressList{Router: router, Source: h.source, To: number, Parts: 1}
	for _, n := range nodes {
		l.Added = append(l.Added, codec.Attached{Node: n, Sent: uint64(time.Now().Add(time.Minute).UnixNano())})
	}
	return l
}

// carried returns the frames with payload that came by the link.
func (h *hostileRouter) carried() (all []codec.Raw) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, raw := range h.frames {
		if raw.Category().IsPayload() {
			all = append(all, raw)
		}
	}
	return all
}

// learned asserts that nothing came by the link but of its own domain: no frame,
// and no message that names a router or a node of another.
func (h *hostileRouter) learned() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	own := codec.Address(h.grant.Address).Prefix()
	check := func(what string, a codec.Address) {
		h.t.Helper()
		if a.Prefix() != own {
			h.t.Errorf("a router with a grant of %s learns %s of another domain: %v", h.grant.Domain, what, a)
		}
	}
	for _, raw := range h.frames {
		check("a frame's sender", raw.Sender())
		check("a frame's recipient", raw.Recipient())
	}
	for _, m := range h.control {
		switch m := m.(type) {
		case *codec.RouteUpdate:
			for _, r := range m.Routes {
				check("a router", r.Router)
			}
		case *codec.AddressList:
			check("a router's list", m.Router)
			for _, a := range m.Added {
				check("a node", a.Node)
			}
		case *codec.ListNumbers:
			for _, l := range m.Lists {
				check("a router's list number", l.Router)
			}
		case *codec.SeqnoRequest:
			for _, w := range m.Wanted {
				check("a router asked for", w.Router)
			}
		case *codec.ListRequest:
			check("a list asked for", m.Router)
		case *codec.CertificateRequest:
			for _, k := range m.Wanted {
				check("a certificate asked for", k.Address)
			}
		}
	}
}

func (h *hostileRouter) close() {
	if c, ok := h.conn.NetConn().(*net.TCPConn); ok {
		c.Close()
	}
	<-h.ended
}
