package engine

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
	"causeway/engine/buf"
)

// patience bounds every wait of these tests for something that must happen.
const patience = 40 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The worker pool that gnet keeps for the whole process; its workers end
		// by themselves when idle.
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authority is a domain made for a test.
type authority struct {
	*pki.Authority
	key crypto.Signer
	now time.Time
}

func newAuthority(name string) *authority {
	now := time.Now()
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	root := must(x509.ParseCertificate(must(pki.CreateRoot(name, key, now, time.Hour, rand.Reader))))
	return &authority{must(pki.NewAuthority(name, root, nil, key)), key, now}
}

// chain issues a certificate valid from -5 min to validity from now.
func (a *authority) chain(role pki.Role, name string, pub crypto.PublicKey, validity time.Duration) [][]byte {
	s := pki.Subject{Role: role, Name: name, Public: pub, Address: must(pki.NewAddress(a.Domain, role.Kind(), rand.Reader))}
	return a.Chain(must(a.Issue(s, a.now, validity, rand.Reader)))
}

func (a *authority) verified(chain [][]byte) *pki.Peer {
	store := must(pki.NewStore(a.Domain, []*x509.Certificate{a.Root}))
	return must(store.VerifyDER(chain, a.Domain, a.now))
}

// node enrols a node.
func (a *authority) node(name string) *pki.Identity {
	return a.nodeWith(name, pki.KeyEd25519)
}

func (a *authority) nodeWith(name string, keyType pki.KeyType) *pki.Identity {
	key := must(pki.NewKey(keyType, rand.Reader))
	peer := a.verified(a.chain(pki.RoleNode, name, key.Public(), time.Hour))
	return &pki.Identity{Peer: peer, Key: key, Roots: []*x509.Certificate{a.Root}}
}

// routerOf makes a router's identity with grants of all domains given.
func routerOf(name string, domains ...*authority) *pki.Identity {
	id := &pki.Identity{Key: must(pki.NewKey(pki.KeyEd25519, rand.Reader)), Grants: map[string]*pki.Peer{}}
	for _, a := range domains {
		id.Grants[a.Domain] = a.verified(a.chain(pki.RoleRouter, name, id.Key.Public(), time.Hour))
	}
	return id
}

func storeOf(domains ...*authority) *pki.Store {
	files := fstest.MapFS{}
	for _, a := range domains {
		files[a.Domain+"/root.crt"] = &fstest.MapFile{Data: pki.EncodeCertificates(a.Root.Raw), Mode: 0o644}
	}
	return must(pki.LoadStore(files))
}

// startRouter runs a router for the domains and ends it with the test, which
// then must have left no buffer and no frame.
func startRouter(t *testing.T, change func(*Config), domains ...*authority) (*Router, string) {
	t.Helper()
	c := Config{
		Identity: routerOf("edge-1", domains...), Store: storeOf(domains...), Software: "causeway/0.0.1",
		Loops: 2, VerifyWorkers: 2, VerifyPath: sign.PathStdlib, Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	if change != nil {
		change(&c)
	}
	r, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	running.Add(1)
	t.Cleanup(func() {
		defer running.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		checkBalance(t, r)
		if bad := r.table.Check(); bad != "" || r.table.Len() != 0 {
			t.Errorf("table at the end: %q, %d addresses", bad, r.table.Len())
		}
	})
	addr, err := r.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return r, addr.String()
}

// running counts a test's routers, whose buffers are counted together.
var running atomic.Int32

// checkBalance asserts doc.go's equation for a quiet router.
func checkBalance(t *testing.T, r *Router) {
	t.Helper()
	c := r.Counts()
	if c.InFlight != 0 || c.Cut != c.Forwarded+c.Consumed+c.DroppedSum() {
		t.Errorf("frames: cut %d, forwarded %d, consumed %d, dropped %v, in flight %d", c.Cut, c.Forwarded, c.Consumed, c.Dropped, c.InFlight)
	}
	u := buf.Out()
	for end := time.Now().Add(patience); u.Buffers != 0 && time.Now().Before(end); u = buf.Out() {
		time.Sleep(time.Millisecond) // other routers of the test may have some
	}
	if u.Buffers != 0 && running.Load() <= 1 {
		t.Errorf("%+v of frame memory not put back", u)
	}
}

// testLog sends log lines to the test's output.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	if os.Getenv("CAUSEWAY_TEST_LOG") != "" {
		l.t.Logf("%s", p)
	}
	return len(p), nil
}

// waitFor waits until ok holds.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (r *Router) droppedFor(reason dropReason) uint64 { return r.Counts().Dropped[reason.String()] }

// client is a node written from PROTOCOL.md alone, that can misbehave.
type client struct {
	t      *testing.T
	id     *pki.Identity
	conn   *tls.Conn
	router codec.Address
	signer *sign.Signer
	rest   []byte
	last   atomic.Uint64 // send time of the newest frame; a reader answers while its test sends

	received uint64 // frames other than link control
	silent   bool   // does not answer when it is asked what it has received

	proofs []codec.DomainProof // as a router, of its domains in their order
}

// clientTLS is what a well-behaved client asks for.
func clientTLS(id *pki.Identity) *tls.Config {
	roots := x509.NewCertPool()
	for _, root := range id.Roots {
		roots.AddCert(root)
	}
	return &tls.Config{
		ServerName: id.Peer.Domain, RootCAs: roots, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS12,
		Certificates: []tls.Certificate{id.TLSCertificate("")},
	}
}

// dial connects and does not yet say hello.
func dial(t *testing.T, addr string, id *pki.Identity, c *tls.Config) (*client, error) {
	t.Helper()
	raw, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(patience))
	return handshake(t, raw, id, c)
}

// handshake is dial from TLS on.
func handshake(t *testing.T, raw net.Conn, id *pki.Identity, c *tls.Config) (*client, error) {
	conn := tls.Client(raw, c)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	grant := conn.ConnectionState().PeerCertificates[0]
	cl := &client{t: t, id: id, conn: conn, router: codec.Address(grant.IPAddresses[0].To16())}
	cl.signer = must(sign.NewSigner(id.Key))
	return cl, nil
}

// connect dials and says hello.
func connect(t *testing.T, addr string, id *pki.Identity) *client {
	t.Helper()
	c, err := dial(t, addr, id, clientTLS(id))
	if err != nil {
		t.Fatal(err)
	}
	c.say(testHello())
	if _, ok := c.control().(*codec.Hello); !ok {
		t.Fatal("no hello came back")
	}
	return c
}

func testHello() *codec.Hello {
	return &codec.Hello{
		Version: codec.ProtocolVersion, Kind: "test", Software: "test/1.0.0",
		KeepAlive: 10 * time.Second, DeadAfter: time.Minute, BodyMax: codec.BodyMaxDefault,
	}
}

// frame makes a well-formed frame from c to the address given.
func (c *client) frame(to codec.Address, category codec.Category, body []byte) *codec.Frame {
	return &codec.Frame{
		TTL: 32, Recipient: to, Sender: c.id.Peer.Address, Category: category,
		SendTime: c.sendTime(), CertID: c.id.Peer.CertID, Body: body,
	}
}

// sendTime is now, or just after the newest, since no two frames share one.
func (c *client) sendTime() uint64 {
	for {
		last := c.last.Load()
		if now := max(uint64(time.Now().UnixNano()), last+1); c.last.CompareAndSwap(last, now) {
			return now
		}
	}
}

// wire signs f and encodes it.
func (c *client) wire(f *codec.Frame) []byte {
	f.Signature = must(c.signer.Sign(nil, f.AppendSigned(nil)))
	return must(f.Append(nil))
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *client) send(f *codec.Frame) *codec.Frame {
	c.t.Helper()
	c.write(c.wire(f))
	return f
}

func (c *client) say(m codec.Control) {
	c.t.Helper()
	c.send(c.controlFrame(m))
}

func (c *client) controlFrame(m codec.Control) *codec.Frame {
	return c.frame(c.router, codec.CategoryControl, must(codec.AppendControl(nil, m)))
}

// read returns the next frame, or the error that ends the connection.
func (c *client) read() (codec.Raw, error) {
	for {
		need, err := codec.Cut(c.rest, codec.BodyMaxDefault)
		if err != nil {
			return nil, err
		}
		if need <= len(c.rest) {
			f := codec.Raw(slices.Clone(c.rest[:need]))
			c.rest = c.rest[need:]
			if c.answered(f) {
				continue
			}
			return f, nil
		}
		b := make([]byte, 32<<10)
		n, err := c.conn.Read(b)
		c.rest = append(c.rest, b[:n]...)
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// answered counts f, and answers it if it asks how many there were.
func (c *client) answered(f codec.Raw) bool {
	if f.Category() != codec.CategoryControl {
		c.received++
		return false
	}
	m, err := codec.DecodeControl(f.Body())
	k, ok := m.(*codec.KeepAlive)
	if err != nil || !ok || !k.Answer || c.silent {
		return false
	}
	c.write(c.wire(c.controlFrame(&codec.KeepAlive{Received: c.received})))
	return true
}

// next returns the next frame that is not link control of the kinds that come
// unasked.
func (c *client) next() codec.Raw {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if f.Category() == codec.CategoryControl {
			if m, err := codec.DecodeControl(f.Body()); err == nil {
				switch m.(type) {
				case *codec.KeepAlive, *codec.RevocationList, *codec.Renewal:
					continue
				}
			}
		}
		return f
	}
}

// control returns the next link-control message.
func (c *client) control() codec.Control {
	c.t.Helper()
	f, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	if f.Category() != codec.CategoryControl {
		c.t.Fatalf("category %v came", f.Category())
	}
	return must(codec.DecodeControl(f.Body()))
}

// ended waits for the connection's end and returns the goodbye before it, if
// one came.
func (c *client) ended() (g *codec.Goodbye) {
	c.t.Helper()
	for {
		f, err := c.read()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			c.t.Fatal("the connection stays open")
		case err != nil:
			return g
		}
		if f.Category() == codec.CategoryControl {
			if m, ok := must(codec.DecodeControl(f.Body())).(*codec.Goodbye); ok {
				g = m
			}
		}
	}
}

// sync waits until the router has handled all that c has sent.
func (c *client) sync() (others []codec.Raw) {
	c.t.Helper()
	c.say(&codec.KeepAlive{Answer: true, Received: c.received})
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if f.Category() == codec.CategoryControl {
			if k, ok := must(codec.DecodeControl(f.Body())).(*codec.KeepAlive); ok && !k.Answer {
				return others
			}
		}
		others = append(others, f)
	}
}

var _ io.Writer = testLog{}

// forge makes a certificate of a's root that pki would not issue: a node's,
// changed.
func forge(a *authority, change func(leaf *x509.Certificate)) tls.Certificate {
	key := must(pki.NewKey(pki.KeyEd25519, rand.Reader))
	leaf := must(x509.ParseCertificate(a.chain(pki.RoleNode, "x", key.Public(), time.Hour)[0]))
	change(leaf)
	der := must(x509.CreateCertificate(rand.Reader, leaf, a.Root, key.Public(), a.key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
