package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// fleet is a router and many nodes of one domain, made without a process for
// each.
type fleet struct {
	ca     *caDir
	router *routerProcess
	grant  *pki.Peer
	made   int   // nodes
	site   *site // where nodes are
}

func startFleet(t *testing.T, args ...string) *fleet {
	t.Helper()
	const domain = "prod.example"
	dir := makeDomains(t, []string{domain}, nil)
	ca, err := openCA(filepath.Join(dir, domain, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.close)
	id, err := pki.LoadIdentity(os.DirFS(filepath.Join(dir, "router")))
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{ca: ca, router: startServe(t, dir, args...), grant: id.Grants[domain], site: &site{}}
}

// recruit is a node that does what a test tells it to.
type recruit struct {
	conn    *tls.Conn
	address codec.Address
	certID  codec.CertID
	signer  *sign.Signer
	last    uint64
}

// enlist makes a node, connects it, and exchanges hellos.
func (f *fleet) enlist(t *testing.T) *recruit {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f.made++
	key, err := pki.NewKey(pki.KeyEd25519, rand.Reader)
	must(err)
	address, err := pki.NewAddress(f.ca.Domain, pki.RoleNode.Kind(), rand.Reader)
	must(err)
	subject := pki.Subject{Role: pki.RoleNode, Name: fmt.Sprint("node-", f.made), Public: key.Public(), Address: address}
	leaf, err := f.ca.Issue(subject, time.Now(), time.Hour, rand.Reader)
	must(err)
	r := &recruit{address: address, certID: pki.CertID(leaf)}
	r.signer, err = sign.NewSigner(key)
	must(err)
	roots := x509.NewCertPool()
	roots.AddCert(f.ca.Root)
	raw, err := f.site.dial(t.Context(), f.router.addr)
	must(err)
	t.Cleanup(func() { raw.Close() })
	must(raw.(*net.TCPConn).SetReadBuffer(16 << 10)) // what the kernel takes is not in the router's queues
	must(raw.SetDeadline(time.Now().Add(patience)))
	r.conn = tls.Client(raw, &tls.Config{
		ServerName: f.ca.Domain, RootCAs: roots, NextProtos: []string{"dbw/1"},
		Certificates: []tls.Certificate{{Certificate: f.ca.Chain(leaf), PrivateKey: key}},
	})
	_, err = r.conn.Write(r.frame(t, f.grant.Address, codec.CategoryControl, controlBody(t, &codec.Hello{
		Version: codec.ProtocolVersion, Kind: "recruit", Software: "recruit/1.0.0",
		KeepAlive: codec.KeepAliveDefault, DeadAfter: codec.DeadAfterMax, BodyMax: codec.BodyMaxDefault,
	})))
	must(err)
	var got []byte
	for b := make([]byte, 4<<10); countFrames(t, got) == 0; {
		n, err := r.conn.Read(b)
		must(err)
		got = append(got, b[:n]...)
	}
	return r
}

func controlBody(t *testing.T, m codec.Control) []byte {
	t.Helper()
	body, err := codec.AppendControl(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// frame makes a frame and signs it.
func (r *recruit) frame(t *testing.T, to codec.Address, category codec.Category, body []byte) []byte {
	t.Helper()
	r.last = max(r.last+1, uint64(time.Now().UnixNano()))
	f := codec.Frame{
		TTL: codec.TTLDefault, Recipient: to, Sender: r.address, Category: category, SendTime: r.last, CertID: r.certID, Body: body,
	}
	var err error
	if f.Signature, err = r.signer.Sign(nil, f.AppendSigned(nil)); err != nil {
		t.Fatal(err)
	}
	wire, err := f.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}
