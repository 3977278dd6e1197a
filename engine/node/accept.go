package node

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// The way of a node that connects to this one (PROTOCOL.md section 4.2):
//
//	1. accept   within the bounds of handshakes
//	2. welcome  TLS within Config.DialTimeout and handshakeTimeMax, its hello within Config.HelloTimeout
//	3. peers    within Config.PeersMax; the newest of one node
//	4. attend   until it has gone

const (
	handshakesMax    = 64 // under way at once; each takes some 50 KB
	handshakesOfOne  = 8  // of them, of one source: an IPv4 address or an IPv6 /64
	handshakeTimeMax = 5 * time.Second
	acceptPauseMin   = 5 * time.Millisecond
	acceptPauseMax   = time.Second
	farewellMax      = 500 * time.Millisecond // a refused node is listened to for so long, so that no reset overtakes the word why
	farewellBytesMax = 64 << 10               // and for so many bytes
)

// listen opens the places of Config.Listen. Nobody is accepted before acceptAll.
func (n *Node) listen() error {
	for _, url := range n.cfg.Listen {
		host, port, err := codec.ParseURL(url)
		if err != nil {
			return &ListenError{url, err}
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return &ListenError{url, err}
		}
		n.listeners = append(n.listeners, l)
	}
	return nil
}

func (n *Node) closeListeners() {
	for _, l := range n.listeners {
		l.Close()
	}
}

// acceptAll accepts nodes until the node ends.
func (n *Node) acceptAll() {
	if len(n.listeners) == 0 {
		return
	}
	for _, l := range n.listeners {
		n.peers.goroutines.Go(func() { n.accept(l) })
	}
	n.peers.goroutines.Go(func() {
		<-n.peers.ctx.Done()
		n.closeListeners()
	})
}

// Listening returns the URLs that nodes can connect to, as Config.Listen has them,
// with the ports there are.
func (n *Node) Listening() []string {
	urls := make([]string, len(n.listeners))
	for i, l := range n.listeners {
		urls[i] = "dbw://" + l.Addr().String()
	}
	return urls
}

func (n *Node) accept(l net.Listener) {
	pause := acceptPauseMin
	for {
		raw, err := l.Accept()
		if n.peers.ctx.Err() != nil {
			if err == nil {
				raw.Close()
			}
			return
		}
		if err != nil { // no descriptors, for example
			n.counters.acceptFailed.Add(1)
			n.cfg.Logger.Warn("cannot accept connections; trying again", "listen", l.Addr().String(), "error", err)
			select {
			case <-time.After(pause):
			case <-n.peers.ctx.Done():
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		pause = acceptPauseMin
		from := sourceOf(raw.RemoteAddr())
		if !n.peers.begin(from) {
			n.counters.acceptFailed.Add(1)
			raw.Close()
			continue
		}
		n.peers.goroutines.Go(func() { n.serve(raw, from) })
	}
}

// sourceOf returns what handshakes are counted by.
func sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip, bits := tcp.AddrPort().Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	source, _ := ip.Prefix(bits)
	return source
}

// begin takes a handshake's place, if there is one for that source.
func (p *peers) begin(from netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handshakes >= handshakesMax || p.handshakesOf[from] >= handshakesOfOne {
		return false
	}
	p.handshakes++
	p.handshakesOf[from]++
	return true
}

// done gives the place back.
func (p *peers) done(from netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handshakes--
	if p.handshakesOf[from]--; p.handshakesOf[from] == 0 {
		delete(p.handshakesOf, from)
	}
}

// serve owns a connection that was accepted.
func (n *Node) serve(raw net.Conn, from netip.Prefix) {
	c, err := n.welcome(raw)
	n.peers.done(from)
	if err != nil {
		n.counters.acceptFailed.Add(1)
		raw.Close()
		return
	}
	n.counters.accepted.Add(1)
	n.cfg.Logger.Info("node connected", "from", c.url, "name", c.link.router.Name, "address", codec.Address(c.link.router.Address).String())
	n.attendPeer(c)
}

// welcome makes a connection of a raw one, which is then in use. On error the
// caller closes that.
func (n *Node) welcome(raw net.Conn) (*conn, error) {
	own := n.self.Load()
	var peer *pki.Peer
	t := tls.Server(raw, n.serverConfig(own.id, &peer))
	ctx, cancel := context.WithTimeout(n.peers.ctx, min(n.cfg.DialTimeout, handshakeTimeMax))
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		farewell(raw)
		return nil, err
	}
	key, err := sign.NewKey(peer.Public)
	if err != nil {
		return nil, err
	}
	c := newConn(n, raw.RemoteAddr().String(), raw, t, newLink(n.address, peer, key), own)
	c.out, c.accepted = n.newPeerOut(), true
	c.reader.bodyMax = codec.ControlBodyMax                        // until its hello is accepted (PROTOCOL.md section 5)
	stop := context.AfterFunc(n.peers.ctx, func() { raw.Close() }) // ends what waits below
	defer stop()
	if err := t.SetDeadline(time.Now().Add(n.cfg.HelloTimeout)); err != nil {
		return nil, err
	}
	if err := c.hearHello(); err != nil {
		_ = t.CloseWrite()
		farewell(raw)
		return nil, err
	}
	if err := n.admit(c); err != nil {
		_ = t.CloseWrite()
		farewell(raw)
		return nil, err
	}
	return c, nil
}

// admit gives c its place among the peers, answers its hello, and starts it.
func (n *Node) admit(c *conn) error {
	older, ok := n.peers.add(c, n.out)
	if !ok {
		c.refuseHello(codec.GoodbyeLimit, "too many nodes are connected")
		return &GoodbyeError{Reason: codec.GoodbyeLimit}
	}
	if older != nil {
		n.peers.goroutines.Go(func() {
			older.sayGoodbye(codec.GoodbyeReplaced, "", 0)
			older.wait(older.ended, goodbyeTimeout)
			older.kill(errSaidGoodbye)
		})
	}
	err := c.checkRevoked(n.trust.Load(), n.cfg.Now()) // a list may have come since TLS; from add on its taker sees c
	if err != nil {
		c.refuseHello(codec.GoodbyeRevoked, "the certificate of this connection is revoked")
	} else if err = c.sayHello(); err == nil {
		err = c.tls.SetDeadline(time.Time{})
	}
	if err != nil {
		n.peers.remove(c)
		n.peers.gone()
		c.out.refuse(errPeerLeft)
		c.out.discard()
		return err
	}
	n.learn(c.link.router)
	c.reader.bodyMax = uint32(n.cfg.BodyMax)
	c.out.attach(c)
	c.start()
	n.sessions.hurry(codec.Address(c.link.router.Address))
	return nil
}

// refuseHello answers a hello by a goodbye. c is not started.
func (c *conn) refuseHello(reason codec.GoodbyeReason, text string) {
	if goodbye, err := c.sealControl(c.goodbye(reason, text)); err == nil {
		_, _ = c.tls.Write(goodbye)
	}
}

// attendPeer waits for the end of c, and settles what it leaves behind. Who leaves
// is sent what waits for it.
func (n *Node) attendPeer(c *conn) {
	defer n.peers.gone()
	select {
	case <-c.ended:
	case goodbye := <-c.draining:
		n.peers.remove(c)
		c.out.refuse(errPeerLeft)
		c.finish(min(goodbye.ReadFor, drainGoodbyeMax), 0)
	case <-n.peers.ctx.Done():
		c.out.refuse(ErrClosed)
		c.finish(n.cfg.CloseTimeout, 0)
	}
	n.peers.remove(c)
	err := c.cause()
	c.out.refuse(errPeerLeft)
	unconfirmed := c.out.abandon(c, err)
	unsent := c.out.discard()
	if n.peers.ctx.Err() != nil {
		n.unconfirmed.Add(int64(unconfirmed))
		n.peers.left.Add(int64(unsent))
	}
	n.tellOf(c.out)
	n.cfg.Logger.Info("node left", "name", c.link.router.Name, "error", err, "unconfirmed", unconfirmed, "unsent", unsent)
}

// serverConfig returns the server's side of PROTOCOL.md section 4.2. The verified
// node is put into *node.
func (n *Node) serverConfig(id *pki.Identity, node **pki.Peer) *tls.Config {
	domain := id.Peer.Domain
	tc := &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		MaxVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{alpn},
		Certificates:                []tls.Certificate{id.TLSCertificate("")},
		ClientAuth:                  tls.RequireAnyClientCert, // VerifyConnection checks it; no authorities are named
		Time:                        n.cfg.Now,
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      true,
		VerifyConnection: func(s tls.ConnectionState) error {
			peer, err := n.trust.Load().Verify(s.PeerCertificates, domain, n.cfg.Now())
			if err != nil {
				return err
			}
			if err := peer.RequireRole(pki.RoleNode); err != nil {
				return err
			}
			switch {
			case peer.Address == n.address:
				return errDialsItself
			case s.NegotiatedProtocol != alpn:
				return &RefusedError{What: "the other end has not agreed to speak " + alpn, Remedy: "another program connects here"}
			}
			*node = peer
			return nil
		},
	}
	nobody := tc.Clone()
	nobody.Certificates = nil // crypto/tls then answers unrecognized_name
	tc.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName != domain {
			return nobody, nil
		}
		return nil, nil
	}
	return tc
}

// farewell has a refused node read why before its connection is closed.
func farewell(raw net.Conn) {
	if half, ok := raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = raw.SetReadDeadline(time.Now().Add(farewellMax))
		_, _ = io.CopyN(io.Discard, raw, farewellBytesMax)
	}
}
