package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"causeway/codec"
	"causeway/crypto/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a domain, a router and its network, within a synctest bubble: time
// passes when everybody waits.
type world struct {
	t   *testing.T
	d   *domain
	net *memNet
	r   *fakeRouter
	url string
}

const routerHost = "router.test:7100"

// inWorld runs f in a bubble, and checks that nothing is left behind.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, d: newDomain("prod.example"), net: newMemNet()}
		w.r = newFakeRouter(w.d, "r1")
		w.url = w.net.listen(routerHost, w.r)
		t.Cleanup(w.r.stop)
		f(w)
	})
}

func (w *world) config(id *pki.Identity) Config {
	c := Config{Identity: id, Routers: []string{w.url}, Plain: true, AcceptPlain: true, Kind: "test", Dial: w.net.dial}
	if testing.Verbose() && os.Getenv("NODE_TEST_LOG") != "" {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return c
}

// connect returns a node that is closed at the end.
func (w *world) connect(name string, changes ...func(*Config)) *Node {
	w.t.Helper()
	c := w.config(w.d.node(name))
	for _, change := range changes {
		change(&c)
	}
	n, err := Connect(w.ctx(), c)
	if err != nil {
		w.t.Fatalf("connecting %s: %v", name, err)
	}
	w.t.Cleanup(func() { n.Close() })
	synctest.Wait() // the router knows it too
	return n
}

// scripted connects a node to a router that the test drives; hellos are over.
func (w *world) scripted(name string, changes ...func(*Config)) (*Node, *routerConn) {
	w.t.Helper()
	w.r.scripted = true
	c := w.config(w.d.node(name))
	for _, change := range changes {
		change(&c)
	}
	return w.scriptedWith(c)
}

func (w *world) scriptedWith(c Config) (*Node, *routerConn) {
	w.t.Helper()
	w.r.scripted = true
	sessions := make(chan *routerConn, 1)
	go func() {
		s := <-w.r.sessions
		if s != nil {
			s.greet()
		}
		sessions <- s
	}()
	n, err := Connect(w.ctx(), c)
	if err != nil {
		w.r.sessions <- nil
		w.t.Fatal(err)
	}
	s := <-sessions
	w.t.Cleanup(func() { s.raw.Close(); n.Close() })
	return n, s
}

// ctx ends after a minute of the bubble's time.
func (w *world) ctx() context.Context { return w.within(time.Minute) }

func (w *world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) send(n *Node, to codec.Address, body string) *Sent {
	w.t.Helper()
	s, err := n.Send(w.ctx(), to, codec.CategoryApplication, []byte(body))
	if err != nil {
		w.t.Fatalf("sending %q: %v", body, err)
	}
	return s
}

// receives checks the next message's body, and returns the message.
func (w *world) receives(n *Node, want string) Message {
	w.t.Helper()
	m, err := n.Receive(w.ctx())
	if err != nil || string(m.Body) != want {
		w.t.Fatalf("received %q, %v; want %q (%+v)", m.Body, err, want, n.Stats())
	}
	return m
}

// receivesNothing checks that nothing comes when all has settled.
func (w *world) receivesNothing(n *Node) {
	w.t.Helper()
	synctest.Wait()
	if m, ok, err := n.inbox.tryTake(); ok || err != nil {
		w.t.Fatalf("received %q, %v", m.Body, err)
	}
}

// drops checks all reasons for which the node has dropped frames.
func (w *world) drops(n *Node, want map[string]uint64) {
	w.t.Helper()
	synctest.Wait()
	got := n.Stats().Dropped
	for reason, count := range want {
		if got[reason] != count {
			w.t.Errorf("dropped %d as %q, want %d", got[reason], reason, count)
		}
		delete(got, reason)
	}
	if len(got) > 0 {
		w.t.Errorf("dropped also %v", got)
	}
}

func checkError[E error](t *testing.T, err error, words ...string) E {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("error is %T (%v), want %T", err, err, e)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not name %q", err, word)
		}
	}
	return e
}
