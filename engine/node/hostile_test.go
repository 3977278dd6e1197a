package node

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// member is a node that the test speaks for through a scripted router.
func (w *world) member(name string) *sender {
	id := w.d.node(name)
	return newSender(id.Peer, id.Key)
}

// give writes a frame to the node as the router.
func (s *routerConn) give(f codec.Raw) { must(0, s.write(f)) }

// pass lets time go by, with the keep-alives of a router.
func (s *routerConn) pass(d time.Duration) {
	for ; d > 0; d -= 10 * time.Second {
		time.Sleep(min(d, 10*time.Second))
		must(0, s.control(&codec.KeepAlive{}))
	}
}

// answer waits for a certificate request and answers with what the router knows.
func (s *routerConn) answerCertificates() {
	m := must(expect[*codec.CertificateRequest](s))
	answer := &codec.Certificates{Number: m.Number, Parts: 1}
	for _, key := range m.Wanted {
		answer.Entries = append(answer.Entries, s.r.entry(key))
	}
	must(0, s.control(answer))
}

const app = codec.CategoryApplication

// introduce makes the node know the sender's certificate.
func (w *world) introduce(n *Node, s *routerConn, b *sender) {
	w.r.knows(b.peer)
	s.give(b.frame(n.Address(), app, []byte("introduction")))
	s.answerCertificates()
	w.receives(n, "introduction")
}

func TestFramesWaitForTheirSendersCertificateOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		known, unknown := w.member("known"), w.member("unknown")
		w.introduce(n, s, known)
		w.r.knows(unknown.peer)
		for i := range 3 {
			s.give(unknown.frame(n.Address(), app, fmt.Append(nil, "waits ", i)))
		}
		s.give(known.frame(n.Address(), app, []byte("does not wait")))
		w.receives(n, "does not wait")
		w.receivesNothing(n)
		if parked := n.Stats().Parked; parked != 3 {
			t.Errorf("%d frames wait, want 3", parked)
		}
		time.Sleep(3 * time.Second)
		s.answerCertificates()
		for i := range 3 {
			w.receives(n, fmt.Sprint("waits ", i))
		}
		if st := n.Stats(); st.Parked != 0 || st.CertificatesAsked != 2 {
			t.Errorf("stats %+v", st)
		}
		w.drops(n, nil)
	})
}

func TestUnknownCertificateIsRememberedForFiveSeconds(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		s.give(b.frame(n.Address(), app, []byte("1")))
		s.answerCertificates() // not known here
		synctest.Wait()
		s.give(b.frame(n.Address(), app, []byte("2")))
		w.drops(n, map[string]uint64{"unknown-certificate": 2})
		w.r.knows(b.peer)
		time.Sleep(5 * time.Second)
		s.give(b.frame(n.Address(), app, []byte("3")))
		s.answerCertificates()
		w.receives(n, "3")
	})
}

func TestRequestThatIsNeverAnsweredRunsOut(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		s.give(b.frame(n.Address(), app, []byte("1")))
		time.Sleep(11 * time.Second)
		w.drops(n, map[string]uint64{"unknown-certificate": 1})
		if parked := n.Stats().Parked; parked != 0 {
			t.Errorf("%d frames wait", parked)
		}
	})
}

func TestWaitingFramesAreBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		f := b.frame(n.Address(), app, make([]byte, 10000))
		fits := roomBytesMax / (len(f) + roomOverhead)
		for range fits + 10 {
			s.give(b.frame(n.Address(), app, make([]byte, 10000)))
		}
		w.drops(n, map[string]uint64{"waiting": 10})
		if parked := n.Stats().Parked; parked != uint64(fits) {
			t.Errorf("%d frames wait, want %d", parked, fits)
		}
		// Small numbers instead of thousands of senders: the bound in all.
		n.in.mu.Lock()
		n.in.certs.bytes = roomsBytesMax
		n.in.mu.Unlock()
		s.give(w.member("c").frame(n.Address(), app, nil))
		w.drops(n, map[string]uint64{"waiting": 11})
		n.in.mu.Lock()
		n.in.certs.bytes = 0
		n.in.mu.Unlock()
	})
}

func TestCertificatesAreAskedForAgainOnTheNextConnection(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		w.r.knows(b.peer)
		s.give(b.frame(n.Address(), app, []byte("waits")))
		must(expect[*codec.CertificateRequest](s))
		s.raw.Close()
		next := <-w.r.sessions
		defer next.raw.Close()
		next.greet()
		next.answerCertificates()
		w.receives(n, "waits")
	})
}

func TestFalseCertificatesAreRefused(t *testing.T) {
	other := func(w *world) *sender {
		id := newDomain("other.example").node("b")
		return newSender(id.Peer, id.Key)
	}
	tests := []struct {
		name string
		from func(w *world) *sender
	}{
		{"another domain's", other},
		{"expired", func(w *world) *sender {
			id := w.d.nodeOf("b", pki.KeyEd25519, 30*time.Minute, 10*time.Minute)
			return newSender(id.Peer, id.Key)
		}},
		{"another address's", func(w *world) *sender {
			b, c := w.member("b"), w.member("c")
			b.peer.Address = c.peer.Address
			return b
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n, s := w.scripted("a")
				b := test.from(w)
				w.r.knows(b.peer)
				s.give(b.frame(n.Address(), app, []byte("x")))
				s.answerCertificates()
				w.drops(n, map[string]uint64{"unknown-certificate": 1})
				if refused := n.Stats().CertificatesRefused; refused != 1 {
					t.Errorf("%d certificates refused, want 1", refused)
				}
			})
		})
	}
}

func TestCertificateMustHaveBeenValidWhenTheFrameWasSent(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		id := w.d.nodeOf("b", pki.KeyEd25519, 0, 3*time.Minute)
		b := newSender(id.Peer, id.Key)
		w.introduce(n, s, b)
		s.pass(2 * time.Minute)
		old := b.now()
		s.pass(80 * time.Second) // to 20 s past its end
		s.give(b.frameAt(n.Address(), app, old, []byte("sent before the end")))
		w.receives(n, "sent before the end")
		s.give(b.frame(n.Address(), app, []byte("sent after the end")))
		w.drops(n, map[string]uint64{"certificate-time": 1})
	})
}

// good returns a frame that n would take, unsigned.
func good(n *Node, b *sender) *codec.Frame {
	return &codec.Frame{Recipient: n.Address(), Sender: b.address(), Category: app, SendTime: b.now(), CertID: b.peer.CertID, Body: []byte("x")}
}

// badFrames are frames that a recipient drops, each for one reason.
var badFrames = []struct {
	name   string
	frame  func(w *world, n *Node, s *routerConn, b *sender) codec.Raw
	reason string
}{
	{"for another", func(w *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frame(w.d.node("c").Peer.Address, app, nil)
	}, "foreign-recipient"},
	{"from the future", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frameAt(n.Address(), app, uint64(time.Now().Add(301*time.Second).UnixNano()), nil)
	}, "late"},
	{"from the past", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frameAt(n.Address(), app, uint64(time.Now().Add(-301*time.Second).UnixNano()), nil)
	}, "late"},
	{"at the end of time", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frameAt(n.Address(), app, 1<<64-1, nil)
	}, "late"},
	{"before the start", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frameAt(n.Address(), app, n.started-1, nil)
	}, "before-start"},
	{"bad signature", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		f := b.frame(n.Address(), app, nil)
		f[len(f)-1] ^= 1
		return f
	}, "bad-signature"},
	{"altered body", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		f := b.frame(n.Address(), app, []byte("abc"))
		f[codec.HeaderSize] ^= 1
		return f
	}, "bad-signature"},
	{"another's signature", func(w *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return newSender(b.peer, w.d.node("c").Key).frame(n.Address(), app, nil)
	}, "bad-signature"},
	{"sealed, of no session", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		f := good(n, b)
		f.Encrypted, f.Body = true, []byte("session.counter.and a tag of its own")
		return b.sign(f)
	}, "session-unknown"},
	{"sealed, and too short", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		f := good(n, b)
		f.Encrypted = true
		return b.sign(f)
	}, "session-malformed"},
	{"device traffic that is plain", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		f := good(n, b)
		f.Category = codec.CategoryDevice
		return b.sign(f)
	}, "category"},
	{"sealed echo", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		f := good(n, b)
		f.Category, f.Encrypted = codec.CategoryEcho, true
		return b.sign(f)
	}, "category"},
	{"session", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frame(n.Address(), codec.CategorySession, nil)
	}, "session-malformed"},
	{"reserved category", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frame(n.Address(), 6, nil)
	}, "category"},
	{"data from a router", func(_ *world, n *Node, s *routerConn, _ *sender) codec.Raw {
		return s.frame(n.Address(), app, []byte("x"))
	}, "category"},
	{"malformed echo", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frame(n.Address(), codec.CategoryEcho, []byte{0xff})
	}, "malformed-body"},
	{"malformed notice", func(_ *world, n *Node, _ *routerConn, b *sender) codec.Raw {
		return b.frame(n.Address(), codec.CategoryNotice, []byte{0xff})
	}, "malformed-body"},
}

func TestFramesThatMustNotPass(t *testing.T) {
	for _, test := range badFrames {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n, s := w.scripted("a")
				b := w.member("b")
				w.introduce(n, s, b)
				s.give(test.frame(w, n, s, b))
				w.drops(n, map[string]uint64{test.reason: 1})
				w.receivesNothing(n)
				s.give(b.frame(n.Address(), app, []byte("still there")))
				w.receives(n, "still there")
			})
		})
	}
}

func TestReplaysAreDropped(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		w.introduce(n, s, b)
		f := b.frame(n.Address(), app, []byte("once"))
		s.give(f)
		s.give(f)
		w.receives(n, "once")
		w.receivesNothing(n)
		s.raw.Close() // and on the next connection
		next := <-w.r.sessions
		defer next.raw.Close()
		next.greet()
		next.give(f)
		w.drops(n, map[string]uint64{"duplicate": 2})
		w.receivesNothing(n)
	})
}

func TestOldMessagesAreTakenWhenTheApplicationWantsThem(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a", func(c *Config) { c.AcceptOld = true })
		b := w.member("b")
		w.introduce(n, s, b)
		s.give(b.frameAt(n.Address(), app, n.started-1, []byte("old")))
		w.receives(n, "old")
	})
}

func TestForgedNoticesAreIgnored(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a", func(c *Config) { c.OnNotice = func(e *NoticeError) { t.Errorf("OnNotice: %v", e) } })
		b, c := w.member("b"), w.member("c")
		w.introduce(n, s, b)
		sent := w.send(n, c.address(), "x")
		frames := []codec.NoticeFrame{{Digest: sent.Digest, SendTime: sent.SendTime}}
		notice := func(m codec.Notice) []byte {
			m.Reason = codec.NoticeNoRoute
			return must(codec.AppendNotice(nil, &m))
		}
		// Another node says so.
		s.give(b.frame(n.Address(), codec.CategoryNotice, notice(codec.Notice{Recipient: c.address(), Frames: frames})))
		w.drops(n, map[string]uint64{"forged-notice": 1})
		// The router, about a frame to somebody else, of another time, another frame.
		for _, m := range []codec.Notice{
			{Recipient: b.address(), Frames: frames},
			{Recipient: c.address(), Frames: []codec.NoticeFrame{{Digest: sent.Digest, SendTime: 1}}},
			{Recipient: c.address(), Frames: []codec.NoticeFrame{{SendTime: sent.SendTime}}},
			{Recipient: c.address(), More: 3, First: 1, Last: 2},
		} {
			s.give(s.frame(n.Address(), codec.CategoryNotice, notice(m)))
		}
		synctest.Wait()
		if st := n.Stats(); st.NoticesIgnored != 6 || st.Consumed != 4 {
			t.Errorf("stats %+v", st)
		}
		must(0, s.control(&codec.KeepAlive{Received: 1}))
		if err := sent.Confirmed(w.ctx()); err != nil {
			t.Errorf("Confirmed: %v", err)
		}
	})
}

// control is a breach that takes one message.
func control(m codec.Control) func(*world, *Node, *routerConn) {
	return func(_ *world, _ *Node, s *routerConn) { _ = s.control(m) }
}

// breaches are what ends a connection at once, with a goodbye that says so.
var breaches = []struct {
	name string
	do   func(w *world, n *Node, s *routerConn)
	word string
}{
	{"confirms what was never sent", control(&codec.KeepAlive{Received: 1}), "confirmed"},
	{"takes a confirmation back", func(w *world, n *Node, s *routerConn) {
		w.send(n, w.d.node("b").Peer.Address, "x")
		synctest.Wait()
		_ = s.control(&codec.KeepAlive{Received: 1})
		_ = s.control(&codec.KeepAlive{Received: 0})
	}, "confirmation back"},
	{"confirms too much in a goodbye", control(&codec.Goodbye{Reason: codec.GoodbyeDone, Received: 7}), "confirmed"},
	{"second hello", func(_ *world, _ *Node, s *routerConn) { _ = s.control(&s.r.hello) }, "second hello"},
	{"asks a node for names", control(&codec.NameRequest{Max: 1}), "second hello"},
	{"certificates nobody asked for", func(w *world, n *Node, s *routerConn) {
		b, c := w.member("b"), w.member("c")
		s.give(b.frame(n.Address(), app, nil))
		m := must(expect[*codec.CertificateRequest](s))
		_ = s.control(&codec.Certificates{Number: m.Number, Parts: 1, Entries: []codec.CertificateEntry{
			{CertKey: codec.CertKey{Address: c.address(), CertID: c.peer.CertID}, Chain: c.peer.Chain}}})
	}, "not asked for"},
	{"parts out of order", func(w *world, n *Node, s *routerConn) {
		s.give(w.member("b").frame(n.Address(), app, nil))
		m := must(expect[*codec.CertificateRequest](s))
		_ = s.control(&codec.Certificates{Number: m.Number, Part: 1, Parts: 2})
	}, "out of order"},
	{"malformed control", func(_ *world, n *Node, s *routerConn) {
		_ = s.write(s.frame(n.Address(), codec.CategoryControl, []byte{0xa0}))
	}, "link control"},
	{"control with a bad signature", func(_ *world, n *Node, s *routerConn) {
		f := s.frame(n.Address(), codec.CategoryControl, must(codec.AppendControl(nil, &codec.KeepAlive{})))
		f[len(f)-1] ^= 1
		_ = s.write(f)
	}, "bad signature"},
	{"body too long", func(_ *world, n *Node, s *routerConn) {
		f := s.frame(n.Address(), app, nil)
		f[51] = 1
		_ = s.write(f[:55])
	}, "body length"},
	{"no signature", func(_ *world, n *Node, s *routerConn) {
		f := s.frame(n.Address(), app, nil)
		copy(f[55:], []byte{0, 0, 0, 0})
		_ = s.write(f[:59])
	}, "signature length"},
}

func TestRouterThatBreaksTheProtocolIsLeft(t *testing.T) {
	for _, test := range breaches {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n, s := w.scripted("a")
				test.do(w, n, s)
				m, err := expect[*codec.Goodbye](s)
				if err != nil {
					t.Fatal(err)
				}
				checkError[errorText](t, errorText(m.Text), test.word)
				if m.Reason != codec.GoodbyeProtocol {
					t.Errorf("goodbye %v", m.Reason)
				}
				s.awaitEnd()
				next := <-w.r.sessions
				next.greet()
				defer next.raw.Close()
				if errs := n.Stats().ProtocolErrors; errs != 1 {
					t.Errorf("%d protocol errors counted", errs)
				}
			})
		})
	}
}

type errorText string

func (e errorText) Error() string { return string(e) }

// A router, or members through it, flood the node with requests for answers
// while it cannot send any: it goes on reading, and what waits is bounded.
func TestFloodOfEchoesIsBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		w.introduce(n, s, b)
		const count = 2000
		for i := range count {
			id := [8]byte{byte(i), byte(i >> 8), byte(i >> 16)}
			body := must(codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoRequest, ID: id, Payload: make([]byte, codec.EchoPayloadMax)}))
			s.give(b.frame(n.Address(), codec.CategoryEcho, body)) // none of the answers is read
			if i%100 == 0 {
				_ = s.control(&codec.KeepAlive{Answer: true})
			}
		}
		synctest.Wait()
		st := n.Stats()
		if st.Dropped["answer"] == 0 || st.Consumed+st.Dropped["answer"] != count {
			t.Errorf("%d answered and %d dropped of %d", st.Consumed, st.Dropped["answer"], count)
		}
		s.give(b.frame(n.Address(), app, []byte("still read")))
		w.receives(n, "still read")
	})
}

func TestSenderOfTooMuchIsToldInCountedNotices(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a", func(c *Config) {
			c.ReceiveQueue, c.ReceiveQueuePerSender, c.BodyMax = 64<<10, 64<<10, 1024
		})
		b := w.member("b")
		w.introduce(n, s, b)
		const count, fits = 700, 64 << 10 / (1000 + messageOverhead)
		body := make([]byte, 1000)
		for range count {
			s.give(b.frame(n.Address(), app, body))
		}
		w.drops(n, map[string]uint64{"queue-full": count - fits})
		told := uint64(0)
		for told < count-fits {
			f := must(s.next())
			if f.Category() != codec.CategoryNotice || f.Recipient() != b.address() {
				continue
			}
			m := must(codec.DecodeNotice(f.Body()))
			if m.Reason != codec.NoticeQueueFull || m.Recipient != n.Address() {
				t.Fatalf("notice %+v", m)
			}
			told += uint64(len(m.Frames)) + m.More
		}
		if told != count-fits {
			t.Errorf("told of %d frames, want %d", told, count-fits)
		}
	})
}
