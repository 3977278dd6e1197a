package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

func TestConnectedNodeKnowsItsRouter(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a")
		r, ok := a.Router()
		want := Router{URL: w.url, Name: "r1", Address: w.r.grant.Address, Kind: "test", Software: "fake/1.0.0", BodyMax: codec.BodyMaxDefault}
		if !ok || r != want {
			t.Errorf("Router: %+v, %v; want %+v", r, ok, want)
		}
		if a.Domain() != "prod.example" || a.Name() != "a" {
			t.Errorf("%s in %s", a.Name(), a.Domain())
		}
	})
}

func TestNextRouterIsTriedWhenOneDoesNotAnswer(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.connect("a", func(c *Config) { c.Routers = []string{"dbw://gone.test:1", w.url} })
		if r, ok := a.Router(); !ok || r.URL != w.url {
			t.Errorf("Router: %+v, %v", r, ok)
		}
		if s := a.Stats(); s.ConnectFailed != 1 || s.Connections != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestWaitGoesOnUntilARouterIsThere(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.config(w.d.node("a"))
		c.Routers, c.Wait = []string{"dbw://later.test:1"}, true
		_, err := Connect(w.within(time.Second), c)
		checkError[*ConnectError](t, err, "dbw://later.test:1", "connection refused")
		time.AfterFunc(40*time.Second, func() { w.net.listen("later.test:1", w.r) })
		n, err := Connect(w.within(2*time.Minute), c)
		if err != nil {
			t.Fatal(err)
		}
		n.Close()
	})
}

type refusal struct {
	name    string
	prepare func(w *world, c *Config) // before dialling
	script  func(*routerConn)         // after TLS
	want    any                       // the error's type
	words   []string
}

// Scripts for a session after TLS.

func says(m codec.Control) func(*routerConn) {
	return func(s *routerConn) { _ = s.control(m); s.awaitEnd() }
}

func saysHello(change func(*codec.Hello)) func(*routerConn) {
	return func(s *routerConn) {
		h := s.r.hello
		change(&h)
		says(&h)(s)
	}
}

func helloFrame(s *routerConn) *codec.Frame {
	return &codec.Frame{
		Recipient: s.node.Address, Sender: s.peer.Address, Category: codec.CategoryControl,
		SendTime: s.now(), CertID: s.peer.CertID, Body: must(codec.AppendControl(nil, &s.r.hello)),
	}
}

func saysGoodbye(reason codec.GoodbyeReason) func(*routerConn) {
	return says(&codec.Goodbye{Reason: reason, Text: "said the test"})
}

// refusals are what keeps a node from being connected; each says what, and what
// to do.
var refusals = []refusal{
	{"unreachable", func(w *world, c *Config) { c.Routers = []string{"dbw://gone.test:7199"} }, nil,
		new(*UnreachableError), []string{"gone.test:7199", "connection refused", "check that the router runs"}},
	{"plain text on the port", func(w *world, c *Config) {
		c.Dial = serving(func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1))
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		})
	}, nil, new(*RefusedError), []string{"does not speak TLS"}},
	{"closes at once", func(w *world, c *Config) { c.Dial = serving(func(net.Conn) {}) }, nil,
		new(*RefusedError), []string{"closed the connection during the TLS handshake"}},
	{"handshake never ends", func(w *world, c *Config) {
		c.Dial = serving(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	}, nil, new(*RefusedError), []string{"no TLS handshake within 10s"}},
	{"TLS 1.2", func(w *world, c *Config) { w.r.tls.MinVersion, w.r.tls.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, nil,
		new(*RefusedError), []string{"does not speak TLS 1.3", "protocol version"}},
	{"another ALPN", func(w *world, c *Config) { w.r.tls.NextProtos = []string{"h2"} }, nil,
		new(*RefusedError), []string{"dbw/1", "no application protocol"}},
	{"no ALPN", func(w *world, c *Config) { w.r.tls.NextProtos = nil }, nil,
		new(*RefusedError), []string{"dbw/1"}},
	{"domain not served", func(w *world, c *Config) { w.r.tls.Certificates = nil }, nil,
		new(*RefusedError), []string{"does not serve the domain prod.example", "unrecognized name"}},
	{"router of another domain", func(w *world, c *Config) {
		other := newFakeRouter(newDomain("other.example"), "r1")
		w.r.tls.Certificates = other.tls.Certificates
	}, nil, new(*RouterCertificateError), []string{"prod.example"}},
	{"router of a false domain with the right name", func(w *world, c *Config) {
		other := newFakeRouter(newDomain("prod.example"), "r1")
		w.r.tls.Certificates = other.tls.Certificates
	}, nil, new(*RouterCertificateError), []string{"prod.example"}},
	{"node as router", func(w *world, c *Config) {
		w.r.tls.Certificates = []tls.Certificate{w.d.node("impostor").TLSCertificate("")}
	}, nil, new(*RouterCertificateError), []string{"node"}},
	{"grant expired", func(w *world, c *Config) {
		expired := w.d.member("r1", pki.RoleRouter, w.r.key, 30*time.Minute, 10*time.Minute)
		w.r.tls.Certificates = []tls.Certificate{{Certificate: expired.Chain, PrivateKey: w.r.key}}
	}, nil, new(*RouterCertificateError), []string{"expired"}},
	{"router refuses the certificate", func(w *world, c *Config) {
		w.r.tls.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") }
	}, nil, new(*RefusedError), []string{"does not accept this node's certificate", "bad certificate", "prod.example", "causeway pki show"}},
	{"closes after the handshake", nil, func(*routerConn) {},
		new(*RefusedError), []string{"right after the TLS handshake", "causeway pki show"}},
	{"says nothing", nil, (*routerConn).awaitEnd,
		new(*RefusedError), []string{"no hello from the router within 5s"}},
	{"half a hello", nil, func(s *routerConn) { _ = s.write(s.sign(helloFrame(s))[:70]); s.awaitEnd() },
		new(*RefusedError), []string{"no hello from the router within 5s"}},
	{"goodbye clock", nil, func(s *routerConn) {
		s.last = uint64(time.Now().Add(time.Hour).UnixNano())
		saysGoodbye(codec.GoodbyeClock)(s)
	}, new(*ClockError), []string{"1h0m0s", "2000-01-01 00:00:", "2000-01-01 01:00:", "said the test", "timedatectl"}},
	{"hello of another time", nil, func(s *routerConn) {
		s.last = uint64(time.Now().Add(6 * time.Minute).UnixNano())
		saysHello(func(*codec.Hello) {})(s)
	}, new(*ClockError), []string{"6m0s", "2000-01-01 00:0"}},
	{"goodbye version", nil, saysGoodbye(codec.GoodbyeVersion),
		new(*GoodbyeError), []string{"version", "said the test", "update"}},
	{"hello of another version", nil, saysHello(func(h *codec.Hello) { h.Version = 2 }),
		new(*VersionError), []string{"version 2", "version 1"}},
	{"hello of a node", nil, saysHello(func(h *codec.Hello) { h.Role = codec.RoleNode }),
		new(*ProtocolError), []string{"role", "router", "node"}[1:]},
	{"goodbye revoked", nil, saysGoodbye(codec.GoodbyeRevoked), new(*GoodbyeError), []string{"revoked", "causeway pki request"}},
	{"goodbye limit", nil, saysGoodbye(codec.GoodbyeLimit), new(*GoodbyeError), []string{"limit"}},
	{"keep-alive before hello", nil, says(&codec.KeepAlive{}), new(*ProtocolError), []string{"before its hello"}},
	{"message before hello", nil, func(s *routerConn) {
		_ = s.write(s.frame(s.node.Address, codec.CategoryEcho, nil))
		s.awaitEnd()
	}, new(*ProtocolError), []string{"before its hello", "echo"}},
	{"bad signature", nil, func(s *routerConn) {
		f := s.sign(helloFrame(s))
		f[len(f)-1] ^= 1
		_ = s.write(f)
		s.awaitEnd()
	}, new(*ProtocolError), []string{"bad signature"}},
	{"another recipient", nil, func(s *routerConn) {
		f := helloFrame(s)
		f.Recipient[15]++
		_ = s.write(s.sign(f))
		s.awaitEnd()
	}, new(*ProtocolError), []string{"another recipient"}},
	{"another sender", nil, func(s *routerConn) {
		f := helloFrame(s)
		f.Sender[15]++
		_ = s.write(s.sign(f))
		s.awaitEnd()
	}, new(*ProtocolError), []string{"another sender"}},
	{"malformed frame", nil, func(s *routerConn) {
		f := s.sign(helloFrame(s))
		f[50] = 2
		_ = s.write(f)
		s.awaitEnd()
	}, new(*ProtocolError), []string{"malformed"}},
	{"malformed hello", nil, func(s *routerConn) {
		f := helloFrame(s)
		f.Body = []byte{0xa1, 0, 1}
		_ = s.write(s.sign(f))
		s.awaitEnd()
	}, new(*ProtocolError), []string{"codec"}},
}

func TestRefusals(t *testing.T) {
	for _, test := range refusals {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				c := w.config(w.d.node("a"))
				if test.prepare != nil {
					test.prepare(w, &c)
				}
				w.r.scripted = true
				scripted := make(chan struct{})
				go func() {
					defer close(scripted)
					if s := <-w.r.sessions; s != nil {
						if test.script != nil {
							_, _ = s.next()
							test.script(s)
						}
						s.raw.Close()
					}
				}()
				_, err := Connect(w.ctx(), c)
				w.r.sessions <- nil
				<-scripted
				t.Log(err)
				checkError[*ConnectError](t, err, append(test.words, c.Routers[0])...)
				if !errors.As(err, test.want) {
					t.Errorf("error %v has no %T", err, test.want)
				}
			})
		})
	}
}

// serving dials to somebody who does f with each connection, then closes.
func serving(f func(net.Conn)) func(context.Context, string) (net.Conn, error) {
	return func(context.Context, string) (net.Conn, error) {
		client, server := newPipe()
		go func() { f(server); server.Close() }()
		return client, nil
	}
}

func TestWrongHelloIsToldToTheRouter(t *testing.T) {
	for _, test := range []struct {
		change func(*codec.Hello)
		want   codec.GoodbyeReason
	}{
		{func(h *codec.Hello) { h.Version = 9 }, codec.GoodbyeVersion},
		{func(h *codec.Hello) { h.Role = codec.RoleNode }, codec.GoodbyeRole},
	} {
		inWorld(t, func(w *world) {
			w.r.scripted = true
			got := make(chan codec.GoodbyeReason, 1)
			go func() {
				s := <-w.r.sessions
				test.change(&s.r.hello)
				s.greet()
				if m, err := expect[*codec.Goodbye](s); err == nil {
					got <- m.Reason
				}
				close(got)
				s.raw.Close()
			}()
			if _, err := Connect(w.ctx(), w.config(w.d.node("a"))); err == nil {
				t.Fatal("connected")
			}
			if reason := <-got; reason != test.want {
				t.Errorf("goodbye %v, want %v", reason, test.want)
			}
		})
	}
}

func TestConfigIsCheckedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		tests := []struct {
			field  string
			change func(*Config)
			words  []string
		}{
			{"Identity", func(c *Config) { c.Identity = nil }, []string{"missing", "causeway pki request"}},
			{"Identity", func(c *Config) { c.Identity = &pki.Identity{Key: c.Identity.Key} }, []string{"node.crt"}},
			{"Trust", func(c *Config) { c.Trust = newDomain("other.example").store }, []string{"prod.example"}},
			{"Routers", func(c *Config) { c.Routers = nil }, []string{"dbw://host:port"}},
			{"Routers", func(c *Config) { c.Routers = []string{"http://x"} }, []string{"http://x", "dbw://"}},
			{"Routers", func(c *Config) { c.Routers = []string{"dbw://x:0"} }, []string{"port 0"}},
			{"Routers", func(c *Config) { c.Routers = make([]string, 65) }, []string{"65"}},
			{"BodyMax", func(c *Config) { c.BodyMax = codec.BodyMaxLimit + 1 }, []string{"16777216"}},
			{"BodyMax", func(c *Config) { c.BodyMax = -1 }, []string{"-1"}},
			{"SendQueue", func(c *Config) { c.SendQueue = -1 }, nil},
			{"ReceiveQueue", func(c *Config) { c.ReceiveQueue = -1 }, nil},
			{"ReceiveQueuePerSender", func(c *Config) { c.ReceiveQueuePerSender = 100 }, []string{"1048832"}},
			{"Kind", func(c *Config) { c.Kind = strings.Repeat("k", 33) }, []string{"33", "32"}},
			{"Software", func(c *Config) { c.Software = strings.Repeat("k", 65) }, nil},
			{"KeepAlive", func(c *Config) { c.KeepAlive = time.Millisecond }, []string{"100ms"}},
			{"DeadAfter", func(c *Config) { c.DeadAfter = 2 * time.Hour }, []string{"1h0m0s"}},
			{"SkewMax", func(c *Config) { c.SkewMax = -1 }, nil},
			{"DialTimeout", func(c *Config) { c.DialTimeout = -1 }, nil},
			{"HelloTimeout", func(c *Config) { c.HelloTimeout = -1 }, nil},
			{"AnswerTimeout", func(c *Config) { c.AnswerTimeout = -1 }, nil},
			{"CloseTimeout", func(c *Config) { c.CloseTimeout = -1 }, nil},
			{"BackoffMin", func(c *Config) { c.BackoffMin = time.Hour }, []string{"30s"}},
			{"BackoffMax", func(c *Config) { c.BackoffMax = -1 }, nil},
			{"LockFile", func(c *Config) { c.LockFile = "/nonexistent/lock" }, []string{"/nonexistent/lock"}},
		}
		for _, test := range tests {
			c := w.config(w.d.node("a"))
			test.change(&c)
			_, err := Connect(w.ctx(), c)
			e := checkError[*ConfigError](t, err, append(test.words, "Config."+test.field)...)
			if e.Field != test.field {
				t.Errorf("field %s, want %s", e.Field, test.field)
			}
		}
		if len(w.net.dialed) != 0 {
			t.Errorf("dialed %v", w.net.dialed)
		}
	})
}

func TestOwnExpiredCertificateIsToldBeforeDialling(t *testing.T) {
	inWorld(t, func(w *world) {
		_, err := Connect(w.ctx(), w.config(w.d.nodeOf("a", pki.KeyEd25519, 30*time.Minute, 10*time.Minute)))
		e := checkError[*pki.Error](t, err, "this node's own certificate", "expired")
		if e.Reason != pki.ReasonExpired {
			t.Errorf("reason %v", e.Reason)
		}
	})
}

func TestNodeEndsWhenItsCertificateHasEnded(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.d.nodeOf("a", pki.KeyEd25519, time.Minute, 10*time.Minute)
		a := w.connect("a", func(c *Config) { c.Identity = id })
		time.Sleep(10 * time.Minute)
		w.r.stop()
		<-a.Done()
		checkError[*ExpiredError](t, a.Err(), "causeway pki renew")
		checkError[*ExpiredError](t, a.Close())
	})
}

func TestLockKeepsTwoNodesApart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	inWorld(t, func(w *world) {
		a := w.connect("a", func(c *Config) { c.LockFile = file })
		c := w.config(w.d.node("a"))
		c.LockFile = file
		_, err := Connect(w.ctx(), c)
		e := checkError[*LockError](t, err, file, fmt.Sprint(os.Getpid()))
		if e.PID != os.Getpid() {
			t.Errorf("PID %d, want %d", e.PID, os.Getpid())
		}
		a.Close()
		w.connect("a", func(c *Config) { c.LockFile = file }).Close()
		c.LockFile, c.Routers = file, []string{"dbw://gone.test:1"}
		for range 2 { // a failed Connect releases it
			_, err := Connect(w.ctx(), c)
			checkError[*ConnectError](t, err)
		}
	})
}

func TestErrorsOverTCP(t *testing.T) {
	d := newDomain("prod.example")
	closed := must(net.Listen("tcp", "127.0.0.1:0"))
	address := closed.Addr().String()
	closed.Close()
	_, err := Connect(t.Context(), Config{Identity: d.node("a"), Routers: []string{"dbw://" + address}})
	checkError[*UnreachableError](t, err, address, "refused")

	// A router that refuses the certificate: the alert must come through.
	r := newFakeRouter(d, "r1")
	r.tls.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") }
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			_ = tls.Server(raw, r.tls).Handshake()
			raw.Close()
		}
	}()
	for range 20 {
		_, err = Connect(t.Context(), Config{Identity: d.node("a"), Routers: []string{"dbw://" + l.Addr().String()}})
		checkError[*RefusedError](t, err, "certificate")
	}
	l.Close()
	<-done
}
