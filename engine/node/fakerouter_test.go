package node

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// domain is an authority in memory.
type domain struct {
	name  string
	auth  *pki.Authority
	store *pki.Store
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newDomain(name string) *domain {
	now := time.Now()
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	der := must(pki.CreateRoot(name, key, now.Add(-time.Hour), 100*24*time.Hour, rand.Reader))
	root := must(pki.DecodeCertificates(pki.EncodeCertificates(der)))[0]
	return &domain{
		name:  name,
		auth:  must(pki.NewAuthority(name, root, nil, key)),
		store: must(pki.NewStore(name, must(pki.DecodeCertificates(pki.EncodeCertificates(der))))),
	}
}

// member issues a certificate that is valid from so long ago for so long.
func (d *domain) member(name string, role pki.Role, key crypto.Signer, ago, validity time.Duration) *pki.Peer {
	issued := time.Now().Add(-ago)
	if issued.Before(time.Now().Add(-time.Hour)) {
		panic("before the root")
	}
	address := must(pki.NewAddress(d.name, role.Kind(), rand.Reader))
	der := must(d.auth.Issue(pki.Subject{Role: role, Name: name, Address: address, Public: key.Public()}, issued, validity, rand.Reader))
	return must(d.store.VerifyDER(d.auth.Chain(der), d.name, issued))
}

// node makes an identity.
func (d *domain) node(name string) *pki.Identity {
	return d.nodeOf(name, pki.KeyEd25519, time.Minute, 24*time.Hour)
}

func (d *domain) nodeOf(name string, keyType pki.KeyType, ago, validity time.Duration) *pki.Identity {
	key := must(pki.NewKey(keyType, rand.Reader))
	return &pki.Identity{Key: key, Peer: d.member(name, pki.RoleNode, key, ago, validity), Roots: d.store.Roots(d.name)}
}

// sender makes signed frames as any identity: a node's or a router's.
type sender struct {
	peer   *pki.Peer
	signer *sign.Signer
	last   uint64
}

func newSender(peer *pki.Peer, key crypto.Signer) *sender {
	return &sender{peer: peer, signer: must(sign.NewSigner(key))}
}

func (s *sender) now() uint64 {
	s.last = max(s.last+1, uint64(time.Now().UnixNano()))
	return s.last
}

func (s *sender) address() codec.Address { return s.peer.Address }

func (s *sender) frame(to codec.Address, category codec.Category, body []byte) codec.Raw {
	return s.frameAt(to, category, s.now(), body)
}

func (s *sender) frameAt(to codec.Address, category codec.Category, at uint64, body []byte) codec.Raw {
	return s.sign(&codec.Frame{
		TTL: 31, Recipient: to, Sender: s.peer.Address, Category: category, SendTime: at,
		CertID: s.peer.CertID, Encrypted: category == codec.CategoryDevice, Body: body,
	})
}

func (s *sender) sign(f *codec.Frame) codec.Raw {
	f.Signature = must(s.signer.Sign(nil, f.AppendSigned(nil)))
	return must(f.Append(nil))
}

// fakeRouter is a small router on an in-memory network, which can misbehave.
type fakeRouter struct {
	d     *domain
	grant *pki.Peer
	key   crypto.Signer

	// How it behaves; set before the first connection.
	tls       *tls.Config
	scripted  bool                                  // accepted connections wait in sessions for the test to drive them
	hello     codec.Hello                           // what it says
	bodyMax   uint32                                // of its cutting
	alive     bool                                  // it sends keep-alives that confirm what it has decided
	intercept func(s *routerConn, f codec.Raw) bool // of routed frames: true: it has dealt with it
	record    func(b []byte)                        // what it reads and writes, link control too, as TLS decrypts it

	sessions chan *routerConn

	mu    sync.Mutex
	live  map[codec.Address]*routerConn
	peers map[codec.CertKey]*pki.Peer // whose chains it gives out
	conns []net.Conn
	wg    sync.WaitGroup
}

func newFakeRouter(d *domain, name string) *fakeRouter {
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	r := &fakeRouter{
		d: d, key: key, grant: d.member(name, pki.RoleRouter, key, time.Minute, 24*time.Hour),
		hello: codec.Hello{
			Version: codec.ProtocolVersion, Role: codec.RoleRouter, Kind: "test", Software: "fake/1.0.0",
			KeepAlive: codec.KeepAliveDefault, DeadAfter: codec.DeadAfterDefault, BodyMax: codec.BodyMaxDefault,
		},
		bodyMax:  codec.BodyMaxDefault,
		sessions: make(chan *routerConn, 64),
		live:     make(map[codec.Address]*routerConn),
		peers:    make(map[codec.CertKey]*pki.Peer),
	}
	r.tls = &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{{Certificate: r.grant.Chain, PrivateKey: key, Leaf: r.grant.Leaf}},
		ClientAuth:   tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := d.store.Verify(s.PeerCertificates, s.ServerName, time.Now())
			return err
		},
	}
	return r
}

// knows makes the router answer for a peer's certificate.
func (r *fakeRouter) knows(p *pki.Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers[codec.CertKey{Address: p.Address, CertID: p.CertID}] = p
}

// routerConn is one connection of a node to the fake router.
type routerConn struct {
	*sender
	r    *fakeRouter
	raw  net.Conn
	conn *tls.Conn
	node *pki.Peer

	reader   *frameReader
	after    *sender       // who the router is after a renewal
	received atomic.Uint64 // frames other than link control
	decided  atomic.Uint64 // of those; serve counts them
	mu       sync.Mutex    // of writing

	confirming sync.Mutex // so that no count is overtaken by a lower one
}

// accept serves a connection; it runs until the connection ends.
func (r *fakeRouter) accept(raw net.Conn) {
	defer raw.Close()
	t := tls.Server(raw, r.tls)
	if t.Handshake() != nil {
		return
	}
	state := t.ConnectionState()
	s := &routerConn{sender: newSender(r.grant, r.key), r: r, raw: raw, conn: t, reader: newFrameReader(t, r.bodyMax, new(atomic.Uint64))}
	if len(state.PeerCertificates) > 0 {
		s.node, _ = r.d.store.Verify(state.PeerCertificates, r.d.name, time.Now())
	}
	if r.scripted {
		r.sessions <- s
		<-raw.(*pipeEnd).closed // by who drives it
		return
	}
	s.serve()
}

// awaitEnd reads until the node has left.
func (s *routerConn) awaitEnd() {
	for {
		if _, err := s.next(); err != nil {
			return
		}
	}
}

// serve is the honest router.
func (s *routerConn) serve() {
	if !s.greet() {
		return
	}
	s.r.mu.Lock()
	old := s.r.live[s.node.Address]
	s.r.live[s.node.Address] = s
	s.r.mu.Unlock()
	if old != nil {
		old.bye(codec.GoodbyeReplaced, 0)
	}
	s.r.knows(s.node)
	if s.r.alive {
		s.keepAlive(s.confirms)
	}
	defer func() {
		s.r.mu.Lock()
		if s.r.live[s.node.Address] == s {
			delete(s.r.live, s.node.Address)
		}
		s.r.mu.Unlock()
	}()
	select {
	case s.r.sessions <- s:
	default:
	}
	for {
		f, err := s.next()
		if err != nil || !s.handle(f) {
			return
		}
		s.decided.Store(s.received.Load())
	}
}

// greet reads the node's hello and answers it.
func (s *routerConn) greet() bool {
	f, err := s.next()
	if err != nil || f.Category() != codec.CategoryControl {
		return false
	}
	if m, err := codec.DecodeControl(f.Body()); err != nil || m.(*codec.Hello).Role != codec.RoleNode {
		return false
	}
	return s.control(&s.r.hello) == nil
}

// next returns a copy of the node's next frame.
func (s *routerConn) next() (codec.Raw, error) {
	f, err := s.reader.next()
	if err != nil {
		return nil, err
	}
	if f.Category() != codec.CategoryControl {
		s.received.Add(1)
	}
	if s.r.record != nil {
		s.r.record(f)
	}
	return slices.Clone(f), nil
}

// handle does what a router does with a frame; false: the connection ends.
func (s *routerConn) handle(f codec.Raw) bool {
	if f.Category() != codec.CategoryControl {
		s.route(f)
		return true
	}
	switch m := must(codec.DecodeControl(f.Body())).(type) {
	case *codec.KeepAlive:
		if m.Answer {
			s.decided.Store(s.received.Load())
			return s.confirms() == nil
		}
	case *codec.Goodbye:
		return false
	case *codec.CertificateRequest:
		answer := &codec.Certificates{Number: m.Number, Parts: 1}
		for _, key := range m.Wanted {
			answer.Entries = append(answer.Entries, s.r.entry(key))
		}
		return s.control(answer) == nil
	case *codec.NameRequest:
		return s.control(s.r.names(m)) == nil
	}
	return true
}

func (r *fakeRouter) entry(key codec.CertKey) codec.CertificateEntry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := codec.CertificateEntry{CertKey: key}
	if p := r.peers[key]; p != nil {
		e.Chain = p.Chain
	}
	return e
}

func (r *fakeRouter) names(m *codec.NameRequest) *codec.Names {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := &codec.Names{Number: m.Number}
	if name, ok := strings.CutPrefix(m.Name, routerPrefix); ok {
		if name == r.grant.Name {
			answer.Entries = []codec.NameEntry{{Chain: r.grant.Chain, Kind: "test"}}
		}
		return answer
	}
	var found []*pki.Peer
	for _, s := range r.live {
		if m.Name == "" && s.node.Name > m.After || s.node.Name == m.Name {
			found = append(found, s.node)
		}
	}
	slices.SortFunc(found, func(a, b *pki.Peer) int { return cmp.Compare(a.Name, b.Name) })
	for i, p := range found {
		if i == int(m.Max) || i == 2 { // short pages, so that they are tried
			answer.Next = found[i-1].Name
			break
		}
		answer.Entries = append(answer.Entries, codec.NameEntry{Chain: p.Chain, Kind: "test"})
	}
	return answer
}

func (s *routerConn) route(f codec.Raw) {
	if s.r.intercept != nil && s.r.intercept(s, f) {
		return
	}
	s.r.mu.Lock()
	to := s.r.live[f.Recipient()]
	s.r.mu.Unlock()
	if to == nil {
		s.notice(f, codec.NoticeNoRoute)
		return
	}
	f.SetTTL(f.TTL() - 1)
	_ = to.write(f)
}

// notice tells the node that its frame was not delivered.
func (s *routerConn) notice(f codec.Raw, reason codec.NoticeReason) {
	body := must(codec.AppendNotice(nil, &codec.Notice{
		Reason: reason, Recipient: f.Recipient(), Frames: []codec.NoticeFrame{{Digest: f.Digest(), SendTime: f.SendTime()}},
	}))
	s.mu.Lock()
	frame := s.frame(f.Sender(), codec.CategoryNotice, body)
	s.mu.Unlock()
	_ = s.write(frame)
}

// control signs and writes a message of link control.
func (s *routerConn) control(m codec.Control) error {
	body := must(codec.AppendControl(nil, m))
	s.mu.Lock()
	frame := s.frame(s.node.Address, codec.CategoryControl, body)
	s.mu.Unlock()
	return s.write(frame)
}

func (s *routerConn) bye(reason codec.GoodbyeReason, readFor time.Duration, others ...string) {
	_ = s.control(&codec.Goodbye{Reason: reason, Text: "said the test", Routers: others, ReadFor: readFor, Received: s.received.Load()})
	if readFor == 0 {
		s.raw.Close()
	}
}

func (s *routerConn) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r.record != nil {
		s.r.record(b)
	}
	_, err := s.conn.Write(b)
	return err
}

// stayAlive sends keep-alives that confirm nothing until the session is closed.
func (s *routerConn) stayAlive() {
	s.keepAlive(func() error { return s.control(&codec.KeepAlive{}) })
}

// confirms tells the node what was decided on.
func (s *routerConn) confirms() error {
	s.confirming.Lock()
	defer s.confirming.Unlock()
	return s.control(&codec.KeepAlive{Received: s.decided.Load()})
}

func (s *routerConn) keepAlive(send func() error) {
	go func() {
		for {
			select {
			case <-time.After(10 * time.Second):
				_ = send()
			case <-s.raw.(*pipeEnd).closed:
				return
			}
		}
	}()
}

// expect reads until a message of link control of that type comes, and counts
// what else comes.
func expect[M codec.Control](s *routerConn) (M, error) {
	for {
		f, err := s.next()
		if err != nil {
			var none M
			return none, err
		}
		if f.Category() != codec.CategoryControl {
			continue
		}
		if m, ok := must(codec.DecodeControl(f.Body())).(M); ok {
			return m, nil
		}
	}
}

// stop cuts all connections of the router and waits for it.
func (r *fakeRouter) stop() {
	r.mu.Lock()
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}
