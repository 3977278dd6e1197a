package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// testWorld is a domain with nodes and what its router shows.
func testWorld(t *testing.T, nodes int) (w *world, members []*member, router tls.Certificate) {
	t.Helper()
	w, err := newWorld(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.LoadIdentity(os.DirFS(w.router(0)))
	if err != nil {
		t.Fatal(err)
	}
	issued, err := w.newNodes(nodes)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range issued {
		m, err := newMember(n)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
	return w, members, id.TLSCertificate(domainName)
}

// What we seal crypto/tls opens, and the other way round, over many records.
func TestRecordsAreThoseOfCryptoTLS(t *testing.T) {
	w, members, cert := testWorld(t, 1)
	l, err := tls.Listen("tcp", anyPort, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpn},
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(answerMax))
			_, err = io.CopyN(c, c, int64(3*frameSize(60_000)))
		}
		done <- err
	}()
	roots := x509.NewCertPool()
	roots.AddCert(w.authority.Root)
	c, err := dial(l.Addr().String(), "127.0.0.3", members[0], roots)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	body := make([]byte, 60_000)
	for i := range 3 {
		rand.Read(body)
		if err := c.sendFrame(c.who.address, category, body); err != nil {
			t.Fatal(err)
		}
		f, err := c.readFrame()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Body(), body) || !c.who.key.Verify(f.Signed(), f.Signature()) {
			t.Fatalf("frame %d came back harmed", i)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAServerOfAnotherDomainIsRefused(t *testing.T) {
	_, members, cert := testWorld(t, 1)
	l, err := tls.Listen("tcp", anyPort, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpn}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	if c, err := dial(l.Addr().String(), "", members[0], x509.NewCertPool()); err == nil {
		c.close()
		t.Error("connected without a root")
	}
	<-done
}

// testHalves returns both ends of one direction.
func testHalves(t *testing.T) (out, in *half) {
	t.Helper()
	secret := make([]byte, 32)
	rand.Read(secret)
	out, err := newHalf(secret)
	if err != nil {
		t.Fatal(err)
	}
	in, err = newHalf(secret)
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

// However a stream is cut into reads, its plaintext is counted alike, and
// records that are shown are whole.
func TestTallyDoesNotDependOnReads(t *testing.T) {
	out, in := testHalves(t)
	var stream []byte
	var plain uint64
	for _, n := range []int{1, 2, 17, 300, recordPlainMax, recordPlainMax + 1, 5} {
		stream = out.seal(stream, make([]byte, n))
		plain += uint64(n)
	}
	for size := 1; size < 40; size++ {
		var c tally
		for rest := bytes.Clone(stream); len(rest) > 0; {
			n := min(size*size, len(rest))
			err := c.take(rest[:n], func(record []byte) error {
				_, err := in.open(record, c.seq)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if c.plain != plain || c.seq != out.seq || c.left != 0 || c.have != 0 {
			t.Errorf("reads of %d: %+v, want %d bytes in %d records", size*size, c, plain, out.seq)
		}
	}
}

func TestRecordsThatAreHarmedDoNotOpen(t *testing.T) {
	out, in := testHalves(t)
	record := out.seal(nil, []byte("hello"))
	if _, err := in.open(bytes.Clone(record), 1); err == nil {
		t.Error("opened with another number")
	}
	for i := range record {
		bad := bytes.Clone(record)
		bad[i] ^= 1
		if _, err := in.open(bad, 0); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
	}
	if plain, err := in.open(record, 0); err != nil || string(plain) != "hello" {
		t.Errorf("%q, %v", plain, err)
	}
}

func FuzzTally(f *testing.F) {
	f.Add([]byte{0x17, 3, 3, 0, 18, 1, 2, 3}, uint8(3))
	f.Add([]byte{0x17, 3, 3, 0, 17}, uint8(1))
	f.Add([]byte("GET / HTTP/1.1"), uint8(5))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var whole, parts tally
		errWhole := whole.take(b, nil)
		var errParts error
		for rest := b; len(rest) > 0 && errParts == nil; {
			n := min(int(step)+1, len(rest))
			errParts = parts.take(rest[:n], nil)
			rest = rest[n:]
		}
		if !errors.Is(errParts, errWhole) {
			t.Fatalf("%v, in parts %v", errWhole, errParts)
		}
		if errWhole == nil && whole != parts {
			// The header of a record that is done is not cleared.
			whole.header, parts.header = [recordHeader]byte{}, [recordHeader]byte{}
			if whole != parts {
				t.Fatalf("%+v, in parts %+v", whole, parts)
			}
		}
	})
}

// testFlow is a flow whose peer is this test: what out seals arrives.
func testFlow(t *testing.T) (f *flow, c *conn, members []*member, out *half) {
	t.Helper()
	_, members, _ = testWorld(t, 3)
	out, in := testHalves(t)
	f = &flow{variant: variantNone, frame: frameSize(100), members: map[codec.Address]*member{members[0].address: members[0]}}
	return f, &conn{who: members[1], in: in, expects: true}, members, out
}

func TestHarmedFramesAreNoticed(t *testing.T) {
	f, c, members, out := testFlow(t)
	good, err := members[0].frame(nil, c.who.address, category, make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, want string, change func(frame []byte)) {
		t.Helper()
		frame := bytes.Clone(good)
		change(frame)
		out.seq = 0
		c.checked, c.got = false, tally{}
		err := f.check(c, out.seal(nil, frame))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	check("as sent", "", func([]byte) {})
	check("one hop on", "", func(b []byte) { codec.Raw(b).SetTTL(31) })
	check("body", "signature", func(b []byte) { b[codec.HeaderSize+3] ^= 1 })
	check("recipient", "not a frame for this recipient", func(b []byte) { b[5] ^= 1 })
	check("sender", "not a frame for this recipient", func(b []byte) { b[20] ^= 1 })
	check("length", "no frame of", func(b []byte) { b[codec.HeaderSize-1] ^= 1 })
	c.expects = false
	check("to a sender", "a sender was told", func([]byte) {})
}

// A record may begin within a frame.
func TestTheNextWholeFrameIsChecked(t *testing.T) {
	f, c, members, out := testFlow(t)
	var stream []byte
	for range 3 {
		var err error
		if stream, err = members[0].frame(stream, c.who.address, category, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	const cut = 50
	first, second := out.seal(nil, stream[:cut]), []byte(nil)
	second = out.seal(nil, stream[cut:])
	for i, record := range [][]byte{first, second} {
		if err := c.got.take(record, func(r []byte) error { return f.check(c, r) }); err != nil {
			t.Fatal(err)
		}
		if c.checked != (i == 1) {
			t.Errorf("record %d: checked %v", i, c.checked)
		}
	}
}

func TestOddPeersAreAnError(t *testing.T) {
	for _, b := range []string{"", "HTTP/1.1 200 OK\r\n\r\n", "\x15\x03\x03\x00\x02\x02\x28"} {
		l, err := net.Listen("tcp", anyPort)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := l.Accept(); err == nil {
				io.WriteString(c, b)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
				c.Close()
			}
		}()
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		file, err := raw.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		raw.Close()
		_, in := testHalves(t)
		c := &conn{fd: int(file.Fd()), in: in}
		if f, err := c.readFrame(); err == nil {
			t.Errorf("%q: a frame %x", b, f)
		}
		file.Close()
		<-done
		l.Close()
	}
}
