package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
	"causeway/crypto/session"
)

// Kinds of bodies of category 1, PROTOCOL.md section 15.1.
const (
	isM1 = 1
	isM2 = 2
)

// attack is a hostile router. It has a member's key, c's, and its own.
type attack struct {
	w *world
	c *sender

	mu   sync.Mutex
	seen int
	kept []codec.Raw
}

// deliver hands a frame to whoever its recipient says, or to another.
func (x *attack) deliver(f codec.Raw, to codec.Address) {
	x.w.r.mu.Lock()
	s := x.w.r.live[to]
	x.w.r.mu.Unlock()
	if s != nil {
		_ = s.write(f)
	}
}

// altered is a frame whose body is changed, with the signature as it was.
func altered(f codec.Raw, change func(body []byte)) codec.Raw {
	g := bytes.Clone(f)
	change(codec.Raw(g).Body())
	return g
}

// handshake tells whether a frame is M1 or M2.
func handshake(f codec.Raw) byte {
	if f.Category() != codec.CategorySession || len(f.Body()) == 0 || f.Body()[0] > isM2 {
		return 0
	}
	return f.Body()[0]
}

// firstOf does something with the first frames of a kind, and reports whether that
// is what becomes of f.
func (x *attack) firstOf(f codec.Raw, kind byte, count int, do func(f codec.Raw)) bool {
	if handshake(f) != kind {
		return false
	}
	x.mu.Lock()
	x.seen++
	n := x.seen
	x.mu.Unlock()
	if n > count {
		return false
	}
	do(f)
	return true
}

// attacks are what the router does with a frame; true: it is dealt with. Counted is
// for what the victims drop, at least once.
var attacks = []struct {
	name    string
	on      func(x *attack, f codec.Raw) bool
	counted []string
}{
	{"drops the first three M1", func(x *attack, f codec.Raw) bool {
		return x.firstOf(f, isM1, 3, func(codec.Raw) {})
	}, nil},
	{"drops the first three M2", func(x *attack, f codec.Raw) bool {
		return x.firstOf(f, isM2, 3, func(codec.Raw) {})
	}, nil},
	{"swaps the key in M1", func(x *attack, f codec.Raw) bool {
		return x.firstOf(f, isM1, 2, func(f codec.Raw) {
			x.deliver(altered(f, func(body []byte) { rand.Read(body[publicAt : publicAt+32]) }), f.Recipient())
		})
	}, []string{"bad-signature"}},
	{"swaps the key in M2", func(x *attack, f codec.Raw) bool {
		return x.firstOf(f, isM2, 2, func(f codec.Raw) {
			x.deliver(altered(f, func(body []byte) { rand.Read(body[publicAt : publicAt+32]) }), f.Recipient())
		})
	}, []string{"bad-signature"}},
	{"signs a swapped key as another member", func(x *attack, f codec.Raw) bool {
		return x.firstOf(f, isM1, 2, func(f codec.Raw) {
			body := bytes.Clone(f.Body())
			rand.Read(body[publicAt : publicAt+32])
			x.deliver(x.c.sign(&codec.Frame{TTL: 9, Recipient: f.Recipient(), Sender: f.Sender(), Category: f.Category(),
				SendTime: f.SendTime(), CertID: f.CertID(), Body: body}), f.Recipient())
			x.deliver(x.c.frame(f.Recipient(), f.Category(), body), f.Recipient()) // as itself, under another's chain
		})
	}, []string{"bad-signature", "unknown-certificate"}},
	{"takes ML-KEM and AES out of M1", func(x *attack, f codec.Raw) bool {
		return x.firstOf(f, isM1, 2, func(f codec.Raw) {
			x.deliver(altered(f, func(body []byte) { body[aeadAt] = 2 }), f.Recipient())
		})
	}, []string{"bad-signature"}},
	{"alters one sealed frame in three", func(x *attack, f codec.Raw) bool {
		if !f.Encrypted() {
			return false
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.seen++; x.seen%3 == 0 {
			x.deliver(altered(f, func(body []byte) { body[len(body)-1] ^= 1 }), f.Recipient())
		}
		return false
	}, []string{"bad-signature"}},
	{"sends everything twice", func(x *attack, f codec.Raw) bool {
		x.deliver(bytes.Clone(f), f.Recipient())
		return false
	}, []string{"duplicate"}},
	{"sends everything again, later", func(x *attack, f codec.Raw) bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, old := range x.kept[:min(len(x.kept), 5)] {
			x.deliver(bytes.Clone(old), old.Recipient())
		}
		x.kept = append(x.kept, bytes.Clone(f))
		return false
	}, []string{"duplicate"}},
	{"redirects and reflects", func(x *attack, f codec.Raw) bool {
		x.deliver(bytes.Clone(f), f.Sender())
		turned := bytes.Clone(f)
		copy(turned[1:17], f[17:33]) // recipient and sender
		copy(turned[17:33], f[1:17])
		x.deliver(turned, f.Sender())
		return false
	}, []string{"foreign-recipient", "unknown-certificate"}},
	{"resets sessions as another member, and as itself", func(x *attack, f codec.Raw) bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		if f.Encrypted() {
			body := append([]byte{3}, f.Body()[:8]...)
			x.deliver(x.c.frame(f.Sender(), codec.CategorySession, body), f.Sender())
			x.deliver(newSender(x.w.r.grant, x.w.r.key).frame(f.Sender(), codec.CategorySession, body), f.Sender())
		}
		return false
	}, []string{"session-unknown-reset", "category"}},
	{"sends sealed frames on under another name", func(x *attack, f codec.Raw) bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		if f.Encrypted() {
			g := &codec.Frame{TTL: 9, Recipient: f.Recipient(), Sender: x.c.address(), Category: f.Category(), SendTime: x.c.now(),
				CertID: x.c.peer.CertID, Encrypted: true, Body: f.Body()}
			x.deliver(x.c.sign(g), f.Recipient())
		}
		return false
	}, []string{"session-unknown"}},
	{"reorders by pairs", func(x *attack, f codec.Raw) bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !f.Encrypted() {
			return false
		}
		x.kept = append(x.kept, bytes.Clone(f))
		if len(x.kept) == 2 {
			x.deliver(x.kept[1], x.kept[1].Recipient())
			x.deliver(x.kept[0], x.kept[0].Recipient())
			x.kept = nil
		}
		return true
	}, nil},
}

// Whatever a router does in the middle: nothing readable passes, nothing that was
// not sent is delivered, nothing twice or out of order, the keys are no worse, and
// each attempt is counted.
func TestHostileRouterInTheMiddle(t *testing.T) {
	const count = 40
	for _, test := range attacks {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				x := &attack{w: w, c: w.member("c")}
				w.r.knows(x.c.peer)
				passed := map[codec.Category]bool{}
				w.r.intercept = func(_ *routerConn, f codec.Raw) bool {
					if f.Category() == codec.CategoryNotice || f.Category() == codec.CategoryEcho {
						return false
					}
					x.mu.Lock()
					passed[f.Category()] = true
					if f.Category() == app && !f.Encrypted() || bytes.Contains(f, []byte("message number ")) {
						t.Error("a readable body passed")
					}
					x.mu.Unlock()
					return test.on(x, f)
				}
				a, b := w.connect("a", sealing), w.connect("b", sealing)
				for i := range count {
					w.send(a, b.Address(), fmt.Sprint("message number ", i))
					w.send(b, a.Address(), fmt.Sprint("message number ", i))
				}
				for i := range count {
					for _, n := range []*Node{a, b} {
						if m := w.receives(n, fmt.Sprint("message number ", i)); !m.Sealed {
							t.Fatal("a plain message came")
						}
					}
				}
				w.receivesNothing(a)
				w.receivesNothing(b)
				dropped := map[string]uint64{}
				for _, n := range []*Node{a, b} {
					st := n.Stats()
					sum := st.Delivered + st.Consumed + st.Parked + st.Held
					for reason, count := range st.Dropped {
						dropped[reason] += count
						sum += count
					}
					if sum != st.FramesIn {
						t.Errorf("%d frames came, %d are accounted for: %+v", st.FramesIn, sum, st)
					}
				}
				for _, reason := range test.counted {
					if dropped[reason] == 0 {
						t.Errorf("nothing counted as %q: %v", reason, dropped)
					}
				}
				s, r := sessionWith(t, a, b.Address()), sessionWith(t, b, a.Address())
				best := session.CPUAEADs().Choose(session.CPUAEADs()).String()
				if s.KeyExchange != "X25519+ML-KEM-768" || s.AEAD != best || r.KeyExchange != s.KeyExchange || r.AEAD != best {
					t.Errorf("sessions %+v and %+v", s, r)
				}
				if !passed[app] || !passed[codec.CategorySession] {
					t.Errorf("passed: %v", passed)
				}
			})
		})
	}
}

// What was recorded before a restart is of no use after it: handshakes displace
// nothing, sealed messages do not open.
func TestReplaysToARestartedNode(t *testing.T) {
	inWorld(t, func(w *world) {
		tap := w.tap()
		a := w.connect("a", sealing)
		id := w.d.node("b")
		b := w.connect("spare", sealing, func(c *Config) { c.Identity = id })
		for i := range 5 {
			w.send(a, b.Address(), fmt.Sprint("old ", i))
			w.receives(b, fmt.Sprint("old ", i))
		}
		b.Close()
		old := tap.all()
		time.Sleep(time.Second)
		b = w.connect("spare", sealing, func(c *Config) { c.Identity = id })
		w.send(b, a.Address(), "new")
		w.receives(a, "new")
		x := &attack{w: w}
		for _, f := range old {
			if f.Recipient() == b.Address() && f.Sender() == a.Address() && f.Category() != codec.CategoryEcho {
				x.deliver(f, b.Address())
			}
		}
		w.receivesNothing(b)
		if got := b.Stats().Dropped["session-unknown"]; got < 5 {
			t.Errorf("%d replays counted as unknown: %v", got, b.Stats().Dropped)
		}
		w.send(a, b.Address(), "still in the same session")
		w.receives(b, "still in the same session")
		if s := sessionWith(t, a, b.Address()); s.Epoch != 2 || s.Initiator {
			t.Errorf("session %+v", s)
		}
		w.receivesNothing(b)
	})
}

// Handshakes and all else of category 1 are lost, doubled and delayed at random; of
// messages nothing is. All arrive, in order, once.
func TestLossyHandshakes(t *testing.T) {
	const each = 60
	lost := 0
	for seed := range uint64(8) {
		inWorld(t, func(w *world) {
			rng := mathrand.New(mathrand.NewPCG(seed, 3))
			var mu sync.Mutex
			x := &attack{w: w}
			w.r.intercept = func(_ *routerConn, f codec.Raw) bool {
				if f.Category() != codec.CategorySession {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				f = bytes.Clone(f)
				switch chance := rng.IntN(10); {
				case chance < 3:
					lost++
					return true
				case chance < 5:
					x.deliver(f, f.Recipient())
					x.deliver(f, f.Recipient())
					return true
				case chance < 7 && handshake(f) != 0:
					time.AfterFunc(time.Duration(rng.IntN(5000))*time.Millisecond, func() { x.deliver(f, f.Recipient()) })
					return true
				}
				return false
			}
			a, b := w.connect("a", sealing), w.connect("b", sealing)
			var sending sync.WaitGroup
			for _, n := range [][2]*Node{{a, b}, {b, a}} {
				sending.Go(func() {
					for i := range each {
						if _, err := n[0].Send(w.within(5*time.Minute), n[1].Address(), app, fmt.Append(nil, i)); err != nil {
							t.Errorf("seed %d, message %d: %v", seed, i, err)
							return
						}
						time.Sleep(time.Second)
					}
				})
			}
			for _, n := range []*Node{a, b} {
				for i := range each {
					m, err := n.Receive(w.within(10 * time.Minute))
					if err != nil || string(m.Body) != fmt.Sprint(i) {
						t.Fatalf("seed %d, message %d: %q, %v; %+v", seed, i, m.Body, err, n.Stats())
					}
				}
			}
			sending.Wait()
			w.receivesNothing(a)
			w.receivesNothing(b)
		})
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
}

// flooder is a member of the domain who knows how to make handshakes, and makes too many.
type flooder struct {
	*sender
	local *session.Local
	to    codec.Address
}

func newFlooder(s *sender, to codec.Address) *flooder {
	f := &flooder{sender: s, to: to}
	f.local = must(session.New(session.Config{
		Address: session.Address(s.address()), Rand: rand.Reader, Chain: func() [][]byte { return s.peer.Chain },
		Stamp: func(to session.Address, category uint8, encrypted bool, bodySize int) (h session.Header) {
			frame := codec.Frame{Recipient: codec.Address(to), Sender: s.address(), Category: codec.Category(category),
				SendTime: s.now(), CertID: s.peer.CertID, Encrypted: encrypted, Body: make([]byte, bodySize)}
			copy(h[:], frame.AppendSigned(nil))
			return h
		},
	}))
	return f
}

// m1 is a new one.
func (f *flooder) m1(t *testing.T) codec.Raw {
	var out session.Actions
	if _, ok := f.local.Peer(session.Address(f.to)).Send(time.Now(), nil, uint8(app), nil, &out); ok || len(out.Frames) != 1 {
		t.Fatal("no M1")
	}
	frame := append([]byte{9}, out.Frames[0]...)
	return must(codec.AppendSignature(frame, must(f.signer.Sign(nil, out.Frames[0]))))
}

// A member floods another with handshakes: of its sessions two wait, few are
// answered, and others do not feel it.
func TestHandshakeFlood(t *testing.T) {
	const count = 300
	inWorld(t, func(w *world) {
		a, b := w.connect("a", sealing), w.connect("b", sealing)
		w.send(b, a.Address(), "before")
		w.receives(a, "before")
		c := w.member("c")
		w.r.knows(c.peer)
		answers := 0
		w.r.intercept = func(_ *routerConn, f codec.Raw) bool {
			if f.Recipient() != c.address() {
				return false
			}
			answers++
			return true
		}
		f, x := newFlooder(c, a.Address()), &attack{w: w}
		for range count {
			x.deliver(f.m1(t), a.Address())
		}
		synctest.Wait()
		s := sessionWith(t, a, c.address())
		got := a.Stats()
		if s.Pending > 2 || s.Epoch != 0 || answers > 10 || got.Dropped["session-handshake-rate"] < count-10 || len(got.Dropped) != 1 {
			t.Errorf("%d answers, session %+v, dropped %v", answers, s, got.Dropped)
		}
		w.send(b, a.Address(), "during")
		w.receives(a, "during")
		w.send(w.connect("d", sealing), a.Address(), "from a new one")
		w.receives(a, "from a new one")
		time.Sleep(time.Minute)
		for _, s := range a.Sessions() {
			if s.Address == c.address() {
				t.Errorf("half-open sessions stay: %+v", s)
			}
		}
	})
}

// Members that a node has sessions with are bounded; idle ones make room.
func TestMembersAreBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.r.alive = true
		a := w.connect("a", sealing, func(c *Config) { c.SessionMembers = 2 })
		for i := range 2 {
			w.send(w.connect(fmt.Sprint("b", i), sealing), a.Address(), "x")
			w.receives(a, "x")
		}
		late := w.connect("late", sealing)
		_, err := late.Send(w.within(3*time.Second), a.Address(), app, nil)
		checkError[*WaitError](t, err, "session")
		if dropped := a.Stats().Dropped["session-members"]; dropped == 0 || a.Stats().Members != 2 {
			t.Errorf("%d dropped, %d members", dropped, a.Stats().Members)
		}
		if _, err := a.Send(w.ctx(), late.Address(), app, nil); !errors.Is(err, errSessionMembers) || !strings.Contains(err.Error(), "Config.SessionMembers") {
			t.Errorf("Send: %v", err)
		}
		time.Sleep(35 * time.Minute)
		w.send(late, a.Address(), "now")
		w.receives(a, "now")
	})
}
