package node

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// alpn must be negotiated, PROTOCOL.md section 4.
const alpn = "dbw/1"

// dial makes one connection to a router: TCP and TLS within the time given and
// Config.DialTimeout, then hellos within Config.HelloTimeout, and all of it before
// ctx ends. The connection's goroutines are not started.
func (n *Node) dial(ctx context.Context, url string, within time.Duration) (*conn, error) {
	address, err := dialAddress(url)
	if err != nil {
		return nil, err
	}
	within = min(within, n.cfg.DialTimeout)
	dialCtx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	raw, err := n.cfg.Dial(dialCtx, address)
	if err != nil {
		return nil, &UnreachableError{Address: address, Err: err}
	}
	c, err := n.greet(dialCtx, ctx, raw, url, within)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// greet makes a connection of a raw one. On error the caller closes that.
func (n *Node) greet(dialCtx, ctx context.Context, raw net.Conn, url string, within time.Duration) (*conn, error) {
	own := n.self.Load()
	x := explainer{self: own.id.Peer, now: n.cfg.Now(), wait: within, node: n.cfg.Direct != ""}
	var router *pki.Peer
	t := tls.Client(raw, n.tlsConfig(own.id, &router))
	if err := t.HandshakeContext(dialCtx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, x.handshake(err)
	}
	key, err := sign.NewKey(router.Public)
	if err != nil {
		return nil, &RouterCertificateError{Domain: router.Domain, Node: n.cfg.Direct != "", Err: err}
	}
	c := newConn(n, url, raw, t, newLink(n.address, router, key), own)

	stop := context.AfterFunc(ctx, func() { raw.Close() }) // ends what waits below
	defer stop()
	x.wait = n.cfg.HelloTimeout
	if err := c.exchangeHellos(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, x.beforeHello(err)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return c, nil
}

// tlsConfig returns the client's side of PROTOCOL.md section 4. The verified
// router is put into *router.
func (n *Node) tlsConfig(id *pki.Identity, router **pki.Peer) *tls.Config {
	own := id.TLSCertificate("")
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		MaxVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		ServerName: id.Peer.Domain,
		Time:       n.cfg.Now,
		// Frames are written in batches, so full records are right from the start.
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      true, // they would outlive revocation
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &own, nil
		},
		// The rules for a grant are stricter than those for a TLS server, and
		// revocation is among them: VerifyConnection checks the whole chain.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			peer, err := n.trust.Load().Verify(s.PeerCertificates, id.Peer.Domain, n.cfg.Now())
			if err != nil {
				return err
			}
			if err := peer.RequireRole(n.wantedRole()); err != nil {
				return err
			}
			if peer.Address == n.address {
				return errDialsItself
			}
			if s.NegotiatedProtocol != alpn {
				return &RefusedError{What: "the other end has not agreed to speak " + alpn, Remedy: "check the address: another service listens there"}
			}
			*router = peer
			return nil
		},
	}
}

// wantedRole is the one of whom this node dials.
func (n *Node) wantedRole() pki.Role {
	if n.cfg.Direct != "" {
		return pki.RoleNode
	}
	return pki.RoleRouter
}

// exchangeHellos sends this node's hello and checks the router's.
func (c *conn) exchangeHellos() error {
	n := c.n
	if err := c.tls.SetDeadline(time.Now().Add(n.cfg.HelloTimeout)); err != nil {
		return err
	}
	writeErr := c.sayHello()
	if err := c.hearHello(); err != nil { // also when writing failed: an alert says more
		return errors.Join(err, writeErr)
	}
	return c.tls.SetDeadline(time.Time{})
}

func (c *conn) sayHello() error {
	n := c.n
	hello, err := c.sealControl(&codec.Hello{
		Version: codec.ProtocolVersion, Role: codec.RoleNode, Kind: n.cfg.Kind, Software: n.cfg.Software,
		KeepAlive: n.cfg.KeepAlive, DeadAfter: n.cfg.DeadAfter, BodyMax: uint32(n.cfg.BodyMax),
	})
	if err != nil {
		return err
	}
	_, err = c.tls.Write(hello)
	return err
}

// hearHello reads and checks the other end's hello; what is wrong with it it is
// told.
func (c *conn) hearHello() error {
	n := c.n
	raw, err := c.reader.next()
	if err != nil {
		return err
	}
	c.hello, err = c.link.hello(raw, n.cfg.Now(), n.cfg.SkewMax)
	if err == nil {
		return nil
	}
	if reason, ok := goodbyeFor(err); ok {
		var protocol *ProtocolError
		if errors.As(err, &protocol) {
			n.counters.protocolErrors.Add(1)
		}
		c.refuseHello(reason, err.Error())
	}
	return err
}
