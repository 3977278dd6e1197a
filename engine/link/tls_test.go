package link

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"reflect"
	"testing"
	"testing/iotest"

	"causeway/engine/buf"
)

// memoryServer does a handshake over a real socket pair and returns the
// client's end of it and a server whose transport is switched to memory.
func memoryServer(t *testing.T) (client *tls.Conn, server *Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close(); accepted.Close() })
	client = tls.Client(raw, clientTLS())
	server = &Conn{loop: &Loop{}}
	failed := make(chan error, 1)
	go func() { failed <- server.handshake(t.Context(), accepted.(*net.TCPConn), testTLS()) }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, failed); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// ciphertextOf returns what the client makes of plaintext.
func ciphertextOf(t *testing.T, client *tls.Conn, server *Conn, plaintext []byte) []byte {
	t.Helper()
	mustWrite(t, client, plaintext)
	_ = tcpOf(client).CloseWrite()
	b, err := io.ReadAll(server.transport.socket)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// throughRead lets the test's ciphertext go through transport.Read.
func throughRead(t *testing.T) {
	before := usesRawInput
	usesRawInput = false
	t.Cleanup(func() { usesRawInput = before })
}

func TestCryptoTLSHasTheBufferWeFeed(t *testing.T) {
	if !usesRawInput {
		t.Error("crypto/tls of this Go version has no rawInput: reading allocates twice per record")
	}
	if !hasHand || !hasPeers {
		t.Error("crypto/tls of this Go version does not have what shed drops: idle connections take 4 KB more")
	}
}

func TestATemporaryErrorResumesCryptoTLSInTheMiddleOfARecord(t *testing.T) {
	throughRead(t)
	client, server := memoryServer(t)
	plaintext := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	ciphertext := ciphertextOf(t, client, server, plaintext)
	server.transport.socket = nil
	var got []byte
	scratch := make([]byte, recordMax)
	for i := range ciphertext { // byte by byte, and one extra Read each
		server.transport.in = ciphertext[i : i+1]
		for {
			n, err := server.tls.Read(scratch)
			got = append(got, scratch[:n]...)
			if err == errDrained {
				break
			}
			if err != nil {
				t.Fatalf("at byte %d: %v", i, err)
			}
		}
		if len(server.transport.in) != 0 {
			t.Fatalf("at byte %d: not read", i)
		}
	}
	if !bytes.Equal(got, plaintext) {
		t.Errorf("%d bytes of plaintext came out wrong", len(got))
	}
}

func TestRecordsStagedInPiecesComeOutWhole(t *testing.T) {
	client, server := memoryServer(t)
	plaintext := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	ciphertext := ciphertextOf(t, client, server, plaintext)
	server.transport.socket = nil
	var got []byte
	scratch := make([]byte, recordMax)
	for i, step := 0, 1; i < len(ciphertext); i, step = i+step, step%3000+7 {
		server.transport.in = ciphertext[i:min(i+step, len(ciphertext))]
		for server.transport.stage(rawInput(server.tls)) {
			n, err := server.tls.Read(scratch)
			if err != nil {
				t.Fatalf("at byte %d: %v", i, err)
			}
			got = append(got, scratch[:n]...)
		}
		if len(server.transport.in) != 0 {
			t.Fatalf("at byte %d: not staged", i)
		}
	}
	if !bytes.Equal(got, plaintext) {
		t.Errorf("%d bytes of plaintext came out wrong", len(got))
	}
	if server.transport.part != nil {
		t.Error("part of a record is left")
	}
}

func TestAnIdleConnectionKeepsNoBuffer(t *testing.T) {
	r := (&rig{frame: echo}).start(t, Config{Loops: 1})
	client, c := r.dial()
	other, o := r.dial()
	for _, size := range []int{100, 64 << 10} {
		for _, client := range []*tls.Conn{client, other} {
			mustWrite(t, client, appendFrame(nil, 1, size))
			if _, err := readFrame(client); err != nil {
				t.Fatal(err)
			}
		}
		on(t, c.Loop(), func() {
			for _, c := range []*Conn{c, o} {
				if n := rawInput(c.tls).Cap() + fieldOf[bytes.Buffer](c.tls, handField).Cap(); n > 0 {
					t.Errorf("crypto/tls keeps %d bytes", n)
				}
				if c.transport.part != nil || c.transport.in != nil || c.rest != nil || c.held != nil || c.partial != nil {
					t.Error("link keeps input")
				}
				if c.TLS().PeerCertificates != nil {
					t.Error("crypto/tls keeps the client's certificates")
				}
			}
			if c.Loop().raw.Cap() > 20<<10 {
				t.Errorf("the loop's buffer has grown to %d bytes", c.Loop().raw.Cap())
			}
		})
	}
}

// Who sends a part of a record, and nothing after it, takes memory for that, and
// holds no buffer that others need.
func TestPartOfARecordCostsWhatHasArrived(t *testing.T) {
	_, server := memoryServer(t)
	server.transport.socket = nil
	server.shed()
	record := append([]byte{23, 3, 3, 16000 >> 8, 16000 & 0xff}, make([]byte, 16000)...)
	for _, n := range []int{1, 4, 5, 6, 300, 4000, 15000} {
		server.transport.in = record[:n]
		raw := server.lendRawInput()
		if server.transport.stage(raw) {
			t.Fatalf("%d bytes are a record", n)
		}
		server.takeRawInput(raw)
		if rawInput(server.tls).Cap() > 0 || server.loop.raw.Cap() == 0 {
			t.Fatalf("after %d bytes the connection keeps the buffer", n)
		}
		want := map[bool]int{n <= 512: 512, n > 512 && n <= 4608: 4608, n > 4608: 18432}[true]
		if c := cap(server.transport.part); c != want {
			t.Errorf("%d bytes of a record take %d, want %d", n, c, want)
		}
		server.transport.dropPart()
	}
}

func TestARecordTooLongIsRefusedAtItsHeader(t *testing.T) {
	_, server := memoryServer(t)
	server.transport.socket = nil
	server.transport.conn = server
	server.transport.in = []byte{23, 3, 3, 0xff, 0xff}
	if !server.transport.stage(rawInput(server.tls)) {
		t.Fatal("waiting for the body")
	}
	if _, err := server.tls.Read(make([]byte, recordMax)); err == nil || err == errDrained {
		t.Errorf("error %v", err)
	}
}

func TestFramesComeWithoutTheBufferToo(t *testing.T) {
	throughRead(t)
	TestFramesComeBackWholeAndInOrder(t)
	TestPauseInTheMiddleOfAReadStopsAtOnce(t)
}

func TestCryptoTLSNeverHoldsMoreThanTheRecordItReads(t *testing.T) {
	throughRead(t)
	client, server := memoryServer(t)
	ciphertext := ciphertextOf(t, client, server, make([]byte, 200_000))
	server.transport.socket = nil
	server.transport.in = ciphertext
	scratch := make([]byte, recordMax)
	for len(server.transport.in) > 0 {
		before := len(server.transport.in)
		n, err := server.tls.Read(scratch)
		if err != nil {
			t.Fatal(err)
		}
		if used := before - len(server.transport.in); used > n+recordHeaderLen+17+1 {
			t.Fatalf("crypto/tls took %d bytes of ciphertext for %d of plaintext", used, n)
		}
	}
	// The buffer that stays with an idle connection for ever.
	raw := reflect.ValueOf(server.tls).Elem().FieldByName("rawInput")
	if c := raw.FieldByName("buf").Cap(); c > 2*recordMax {
		t.Errorf("crypto/tls keeps %d bytes", c)
	}
}

func TestAHandshakeLeavesNoBytesInCryptoTLS(t *testing.T) {
	// A client that sends with its last handshake message: the bytes must come
	// from the socket, not be forgotten in crypto/tls.
	client, server := memoryServer(t)
	ciphertext := ciphertextOf(t, client, server, []byte("early"))
	if want := 5 + recordHeaderLen + 17; len(ciphertext) != want {
		t.Errorf("%d bytes left in the socket, want %d", len(ciphertext), want)
	}
}

func TestAnswersToAPeerThatDoesNotReadAreBounded(t *testing.T) {
	c := &Conn{loop: &Loop{}}
	c.transport.conn = c
	var err error
	for range 1 << 20 {
		if _, err = c.transport.Write(make([]byte, 100)); err != nil {
			break
		}
	}
	if err != ErrControlFlood {
		t.Fatalf("error %v", err)
	}
	if c.out.waiting > sealedMax+recordMax+answersMax+100 {
		t.Errorf("%d bytes of answers", c.out.waiting)
	}
}

// cutter returns a connection that cuts into *frames.
func cutter(t testing.TB, frames *[]string) *Conn {
	r := &rig{t: t}
	cfg, err := Config{Cut: testCut, Admit: openDoor, Loops: 1}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(&Engine{handler: r, cfg: cfg}, 0)
	l.port = newPort(-1, tickMin, nil)
	l.port.armed.Store(true)
	r.frame = func(c *Conn, b *buf.Buffer) {
		*frames = append(*frames, string(b.B))
		buf.Put(b)
	}
	return &Conn{loop: l, phase: phaseOpen}
}

func TestAFrameCostsWhatHasArrivedOfIt(t *testing.T) {
	var frames []string
	c := cutter(t, &frames)
	whole := appendFrame(nil, 1, 1<<20)
	before := buf.Out()
	for i := 0; i < len(whole)-1; i += 700 {
		c.cutAndKeep(whole[i:min(i+700, len(whole)-1)])
		arrived := int64(min(i+700, len(whole)-1))
		out := buf.Out()
		if out.Buffers-before.Buffers > 1 || out.Bytes-before.Bytes > max(4*arrived, partialMin) {
			t.Fatalf("%d bytes arrived, %+v out", arrived, out)
		}
	}
	c.cutAndKeep(whole[len(whole)-1:])
	if len(frames) != 1 || frames[0] != string(whole) {
		t.Error("the frame did not come out as it went in")
	}
	if out := buf.Out(); out != before {
		t.Errorf("out: %+v", out)
	}
}

func TestFramesAreTheSameHoweverTheyAreSplit(t *testing.T) {
	var stream []byte
	var want []string
	for i, size := range []int{8, 9, 4000, 8, 70_000, 300, 1 << 17, 12} {
		at := len(stream)
		stream = appendFrame(stream, i, size)
		want = append(want, string(stream[at:]))
	}
	for _, size := range []int{1, 2, 3, 5, 8, 1000, 4096, 16384, len(stream)} {
		var frames []string
		c := cutter(t, &frames)
		for rest := stream; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			c.cutAndKeep(rest[:min(size, len(rest))])
		}
		if !reflect.DeepEqual(frames, want) {
			t.Errorf("split by %d: %d frames, or wrong ones", size, len(frames))
		}
	}
}

// FuzzCut compares the incremental cut with one that sees the whole stream.
func FuzzCut(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, 1, 20), 2, 3000), uint8(7))
	f.Add(appendFrame(nil, 1, 8), uint8(1))
	f.Add([]byte{0, 0, 0, 9, 0, 0, 0, 0}, uint8(3))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		var want []string
		malformed := false
		for rest := stream; ; {
			need, err := testCut(nil, rest)
			if err != nil {
				malformed = true
				break
			}
			if need > len(rest) {
				break
			}
			want = append(want, string(rest[:need]))
			rest = rest[need:]
		}
		var frames []string
		c := cutter(nil, &frames) // no test: the content is anything
		before := buf.Out()
		piece := int(step) + 1
		for rest := stream; len(rest) > 0 && c.phase == phaseOpen; rest = rest[min(piece, len(rest)):] {
			c.cutAndKeep(rest[:min(piece, len(rest))])
		}
		if len(frames) != len(want) || len(want) > 0 && !reflect.DeepEqual(frames, want) {
			t.Fatalf("%d frames, want %d", len(frames), len(want))
		}
		if malformed != (c.phase == phaseDying) {
			t.Fatalf("malformed %v, phase %d", malformed, c.phase)
		}
		c.dropInput()
		if out := buf.Out(); out != before {
			t.Fatalf("out: %+v", out)
		}
	})
}

func TestReaderThatGivesOneByteAtATime(t *testing.T) {
	r := (&rig{frame: echo}).start(t, Config{})
	client, _ := r.dial()
	_ = tcpOf(client).SetNoDelay(true)
	out := appendFrame(appendFrame(nil, 0, 100), 1, 50)
	go func() {
		for i := range out { // a TLS record for each byte
			_, _ = client.Write(out[i : i+1])
		}
	}()
	in := iotest.OneByteReader(client)
	for i := range 2 {
		if b, err := readFrame(in); err != nil || frameNumber(b) != i {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
}

// A record longer than TLS 1.3 allows, but not refused at its header, comes in
// pieces.
func TestARecordTooLongInPiecesIsRefused(t *testing.T) {
	for _, step := range []int{1, 500, 5000, 9000, 17000} {
		_, server := memoryServer(t)
		server.transport.socket = nil
		record := append([]byte{23, 3, 3, ciphertextMax >> 8, ciphertextMax & 0xff}, make([]byte, ciphertextMax)...)
		ready := false
		for i := 0; i < len(record) && !ready; i += step {
			server.transport.in = record[i:min(i+step, len(record))]
			ready = server.transport.stage(rawInput(server.tls))
		}
		if !ready {
			t.Fatalf("steps of %d: never ready", step)
		}
		if _, err := server.tls.Read(make([]byte, recordMax)); err == nil {
			t.Errorf("steps of %d: taken", step)
		}
	}
}
