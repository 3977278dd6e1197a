package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"

	"causeway/codec"
)

// standIn is a server that speaks just enough of another server's protocol.
type standIn struct {
	net.Listener
	config *tls.Config
	talk   func(s *standIn, raw net.Conn) error
	harm   atomic.Bool // the bodies of messages

	mu        sync.Mutex
	to        map[string]*tls.Conn // receivers, by subject or key
	conns     []net.Conn
	forwarded int // messages
	answered  int // pings
	running   sync.WaitGroup
}

// newStandIn starts one that ends with the test.
func newStandIn(t *testing.T, cert tls.Certificate, talk func(s *standIn, raw net.Conn) error) *standIn {
	t.Helper()
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{Listener: l, talk: talk, to: make(map[string]*tls.Conn),
		config: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}}
	s.running.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, raw)
			s.mu.Unlock()
			s.running.Go(func() {
				s.talk(s, raw) // an error is that the client has gone
				raw.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

// forward writes a message to its receiver, and now and then a ping before it.
func (s *standIn) forward(to string, ping []byte, parts ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	if s.forwarded++; s.forwarded%10 == 1 {
		b = append(b, ping...)
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	if s.harm.Load() {
		b[len(b)-3] ^= 1
	}
	_, err := s.to[to].Write(b)
	return err
}

// pingsAnswered tells whether all were.
func (s *standIn) pingsAnswered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered == (s.forwarded+9)/10
}

func talkNATS(s *standIn, raw net.Conn) error {
	if _, err := io.WriteString(raw, "INFO {\"tls_required\":true}\r\n"); err != nil {
		return err
	}
	c := tls.Server(raw, s.config)
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		fields := strings.Fields(line)
		switch fields[0] {
		case "SUB":
			s.mu.Lock()
			s.to[fields[1]] = c
			s.mu.Unlock()
		case "PING":
			if _, err := io.WriteString(c, "PONG\r\nINFO {}\r\n"); err != nil {
				return err
			}
		case "PONG":
			s.mu.Lock()
			s.answered++
			s.mu.Unlock()
		case "PUB":
			n, err := strconv.Atoi(fields[2])
			if err != nil {
				return err
			}
			payload := make([]byte, n+2)
			if _, err := io.ReadFull(in, payload); err != nil {
				return err
			}
			if err := s.forward(fields[1], []byte("PING\r\n"), fmt.Appendf(nil, "MSG %s 1 %d\r\n", fields[1], n), payload); err != nil {
				return err
			}
		}
	}
}

func talkDERP(s *standIn, raw net.Conn) error {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	c := tls.Server(raw, s.config)
	in := bufio.NewReader(c)
	request, err := http.ReadRequest(in)
	if err != nil || request.URL.Path != "/derp" || request.Header.Get("Derp-Fast-Start") != "1" || request.Header.Get("Upgrade") != "DERP" {
		return fmt.Errorf("%v %w", request, err)
	}
	if _, err := c.Write(derpFrame(nil, derpServerKey, []byte(derpMagic), public[:])); err != nil {
		return err
	}
	var key [derpKey]byte
	for {
		header := make([]byte, derpHeader)
		if _, err := io.ReadFull(in, header); err != nil {
			return err
		}
		payload := make([]byte, binary.BigEndian.Uint32(header[derpLengthAt:]))
		if _, err := io.ReadFull(in, payload); err != nil {
			return err
		}
		switch header[0] {
		case derpClientInfo:
			copy(key[:], payload)
			s.mu.Lock()
			s.to[string(key[:])] = c
			s.mu.Unlock()
			var nonce [derpNonce]byte
			if _, err := c.Write(derpFrame(nil, derpServerInfo, box.Seal(nonce[:], []byte("{}"), &nonce, &key, private))); err != nil {
				return err
			}
		case derpPongType:
			s.mu.Lock()
			s.answered++
			s.mu.Unlock()
		case derpSend:
			ping := append(derpFrame(nil, derpPingType, []byte("12345678")), derpFrame(nil, derpKeepAlive)...)
			if err := s.forward(string(payload[:derpKey]), ping, derpFrame(nil, derpReceive, key[:], payload[derpKey:])); err != nil {
				return err
			}
		}
	}
}

// peerClient is the load with two senders and three receivers of a stand-in.
func peerClient(t *testing.T, variant string) (*client, *standIn) {
	t.Helper()
	const senders = 2
	w, members, cert := testWorld(t, senders+3)
	s := newStandIn(t, cert, map[string]func(*standIn, net.Conn) error{variantNATS: talkNATS, variantDERP: talkDERP}[variant])
	cores, err := allowedCores()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{flows: make(map[string]*flow), members: members, roots: x509.NewCertPool()}
	c.setup = setupRequest{Senders: senders, LoadCore: cores[0]}
	c.roots.AddCert(w.authority.Root)
	t.Cleanup(c.close)
	if err := c.connect(&connectRequest{Variant: variant, Under: []underTest{{Addr: s.Addr().String(), PID: os.Getpid()}}}); err != nil {
		t.Fatal(err)
	}
	return c, s
}

// What was sent arrives, is counted once, and pings in between are answered and not
// counted.
func TestMessagesOfOtherServersAreCounted(t *testing.T) {
	for _, variant := range []string{variantNATS, variantDERP} {
		c, s := peerClient(t, variant)
		var total uint64
		for _, body := range []int{1, 256, 16 << 10} {
			var a answer
			if err := c.do(&request{Body: &bodyRequest{Size: body, UnderWay: 5}}, &a); err != nil {
				t.Fatalf("%s, %d bytes: %v", variant, body, err)
			}
			if err := c.do(&request{Slice: &sliceRequest{Variant: variant, Length: 50 * time.Millisecond}}, &a); err != nil {
				t.Fatalf("%s, %d bytes: %v", variant, body, err)
			}
			if a.Frames <= 0 || a.Total <= total {
				t.Errorf("%s, %d bytes: %v frames of %d", variant, body, a.Frames, a.Total-total)
			}
			total = a.Total
			for i, r := range c.flows[variant].receivers {
				if r.toward == 0 || r.toward != r.got.plain || !r.checked {
					t.Errorf("%s, %d bytes: receiver %d got %d of %d bytes (checked %v)", variant, body, i, r.got.plain, r.toward, r.checked)
				}
			}
		}
		s.mu.Lock()
		if total != uint64(s.forwarded) {
			t.Errorf("%s: %d messages counted, %d forwarded", variant, total, s.forwarded)
		}
		s.mu.Unlock()
		for end := time.Now().Add(answerMax); !s.pingsAnswered(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: pings were not answered", variant)
			}
		}
	}
}

func TestHarmedMessagesOfOtherServersAreNoResult(t *testing.T) {
	for _, variant := range []string{variantNATS, variantDERP} {
		c, s := peerClient(t, variant)
		s.harm.Store(true)
		var a answer
		if err := c.do(&request{Body: &bodyRequest{Size: 100, UnderWay: 5}}, &a); err != nil {
			t.Fatal(err)
		}
		err := c.do(&request{Slice: &sliceRequest{Variant: variant, Length: time.Minute}}, &a)
		if err == nil || !strings.Contains(err.Error(), errUnexpected.Error()) {
			t.Errorf("%s: %v", variant, err)
		}
	}
}

// What is sent stays within the bound of each receiver, reaches it, and writes have
// the same number of messages whatever their size.
func TestWhatIsUnderWayIsBoundedForEachReceiver(t *testing.T) {
	for _, variant := range []string{variantAll, variantBursts} {
		for _, each := range []int{1, 7, 32, 512} {
			f := testSenders(t, variant, 3, 256)
			f.conns, f.underWay = nil, each
			receiver := &conn{who: &member{address: codec.Raw(f.senders[0].source).Recipient()}} // all is for it
			f.receivers = []*conn{receiver}
			if err := f.pace(256); err != nil {
				t.Fatal(err)
			}
			if want := max(1, min(burstFrames, each/2)); f.unit != want*f.frame {
				t.Errorf("%s, %d: units of %d bytes, want %d frames", variant, each, f.unit, want)
			}
			sent := 0
			for turn := 0; f.fits(f.senders[turn%3]); turn++ {
				sent += len(f.senders[turn%3].unit(f.unit, f.frame, f.burst))
				if int(receiver.toward) != sent || sent > each*f.frame {
					t.Fatalf("%s: %d bytes sent, %d noted, %d frames of %d at most", variant, sent, receiver.toward, each, f.frame)
				}
			}
			if sent+f.unit <= each*f.frame || int(receiver.toward) != sent {
				t.Errorf("%s: only %d of %d frames are under way, %d bytes noted", variant, sent/f.frame, each, receiver.toward)
			}
			receiver.got.plain += uint64(sent)
			if !f.fits(f.senders[0]) {
				t.Errorf("%s: when all has arrived nothing fits", variant)
			}
		}
	}
}

// When nobody could send they are asked again when a unit has arrived, or all.
func TestSendersAreAskedAgainWhenItHelps(t *testing.T) {
	f := &flow{underWay: 8, unit: 100, sent: 1000, received: 400, again: 500}
	check := func(received uint64, want bool) {
		t.Helper()
		if f.received = received; f.waits() != want {
			t.Errorf("%d of %d bytes have arrived: waits is %v", f.received, f.sent, !want)
		}
	}
	check(400, true)
	check(499, true)
	check(500, false)
	f.again = 1100
	check(999, true)
	check(1000, false)
	f.underWay = 0
	check(400, false)
}

func TestFramesForNobodyAreNotPaced(t *testing.T) {
	f := testSenders(t, variantAll, 1, 64)
	f.underWay, f.receivers = 3, []*conn{{who: &member{}}}
	if err := f.pace(64); err == nil {
		t.Error("nobody is there, and frames are sent")
	}
}

func TestBoundsThatAreTooLargeAreLeftOut(t *testing.T) {
	o, err := parsePeersOptions(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	check := func(receivers, body int, want string) {
		t.Helper()
		if got := fmt.Sprint(o.bounds(receivers, body)); got != want {
			t.Errorf("%d receivers, %d bytes: %s, want %s", receivers, body, got, want)
		}
	}
	check(8, 256, "[32 128 512]")
	check(8, 1024, "[32 128 512]")
	check(8, 16384, "[32]")
	check(200, 256, "[32 128]")
	check(2000, 256, "[32]")
	if o.peers.queue != 512 || unitMessages(256) != burstFrames || unitMessages(bodyMax) != 1 {
		t.Errorf("queue %d, units %d and %d", o.peers.queue, unitMessages(256), unitMessages(bodyMax))
	}
}

func TestCommandLinesOfComparisonsThatMakeNoSense(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"peers now", `"now"`},
		{"peers --under-way 0", "--under-way"},
		{"peers --under-way 4097", "--under-way"},
		{"peers --variants echo", `"echo"`},
		{"peers --rounds 0", "--rounds"},
		{"peers --slice 1ms", "--slice"},
		{"peers --nats-server /no/such", "make bench-peers"},
	} {
		var log bytes.Buffer
		if code := run(strings.Fields(c.args), strings.NewReader(""), &log, &log); code == 0 || !strings.Contains(log.String(), c.want) {
			t.Errorf("%s: exit code %d, %s", c.args, code, &log)
		}
	}
}

// The router alone, its messages bounded as where others stand beside it.
func TestComparisonsMeasureTheRouter(t *testing.T) {
	code, out, log := runs(t, "peers", "--quick", "--under-way", "4,32", "--variants", "none,all,bursts")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, log)
	}
	for _, variant := range []string{variantNone, variantAll, variantBursts} {
		for _, each := range []int{4, 32} {
			if want := fmt.Sprintf("| 2+2 | 256 B | %d | %s |", each, variantNames[variant]); strings.Count(out, want) != 1 {
				t.Errorf("not once: %q in\n%s", want, out)
			}
		}
	}
}

func TestComparisonsSayWhatTheRouterForwardsToOthers(t *testing.T) {
	c := &cell{Senders: 8, Receivers: 8, Body: 256, UnderWay: 32, Samples: map[string][]sample{}}
	for _, v := range []struct {
		name   string
		frames float64
	}{{variantAll, 300}, {variantBursts, 600}, {variantNATS, 150}} {
		for range 3 {
			c.Samples[v.name] = append(c.Samples[v.name], sample{Frames: v.frames, usage: usage{CPU: time.Second, Wall: time.Second}})
		}
	}
	var b strings.Builder
	(&peersResult{Cells: []*cell{c}, Peers: []string{"nats v1"}, Queue: 512}).write(&b)
	for _, want := range []string{
		"| 8+8 | 256 B | 32 | nats-server | 150 (150–150) | 2.00 (2.00–2.00) | 4.00 (4.00–4.00) |",
		"| 8+8 | 256 B | 32 | router, verify all | 300 (300–300) |  | 2.00 (2.00–2.00) |",
		"nats v1", "up to 512",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
	if strings.Contains(b.String(), "DERP server |") {
		t.Errorf("a row of what was not measured:\n%s", &b)
	}
}
