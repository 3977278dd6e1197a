package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// cutAll cuts a stream that comes in parts of n bytes.
func cutAll(need func([]byte) (int, error), text string, n int) (units []string, left int, err error) {
	s := stream{need: need}
	for b := []byte(text); len(b) > 0 && err == nil; {
		part := b[:min(n, len(b))]
		b = b[len(part):]
		err = s.cut(part, func(u []byte) error { units = append(units, string(u)); return nil })
	}
	return units, len(s.frame), err
}

// checkUnits cuts a stream in parts of every size.
func checkUnits(t *testing.T, need func([]byte) (int, error), want ...string) {
	t.Helper()
	text := strings.Join(want, "")
	for n := 1; n <= len(text); n++ {
		got, left, err := cutAll(need, text, n)
		if err != nil || left != 0 || !slices.Equal(got, want) {
			t.Fatalf("in parts of %d bytes: %q, %d bytes left, %v", n, got, left, err)
		}
	}
}

func TestNATSUnitsAreLinesAndMessages(t *testing.T) {
	n := newNATS(7, true)
	checkUnits(t, n.need, "INFO {\"a\":1}\r\n", "PING\r\n", "+OK\r\n", "MSG n.0007 1 5\r\nhello\r\n", "MSG n.0007 1 0\r\n\r\n", "PONG\r\n")
	checkUnits(t, n.need, "MSG n.0007 1 4\r\n\r\n\r\n\r\n", "MSG n.0007 1 10\r\nMSG a 1 9\r\r\n", "-ERR 'no'\r\n")
	checkUnits(t, n.need, "MSG n.0007 1 16384\r\n"+strings.Repeat("\r", 16384)+"\r\n")

	check := func(text string, want error) {
		t.Helper()
		for _, parts := range []int{1, len(text)} {
			if units, _, err := cutAll(n.need, text, parts); !errors.Is(err, want) || len(units) > 0 {
				t.Errorf("%.60q: %q, %v, want %v", text, units, err, want)
			}
		}
	}
	check("MSG n.0007 1 x\r\n", errNATSSize)
	check("MSG n.0007 1 \r\n", errNATSSize)
	check("MSG n.0007 1 -1\r\n", errNATSSize)
	check("MSG n.0007 1 99999999999999999999\r\n", errNATSSize)
	check(fmt.Sprintf("MSG n.0007 1 %d\r\n", bodyMax+1), errNATSSize)
	check(strings.Repeat("x", natsLineMax), errNATSLine)
	check(strings.Repeat("x", natsLineMax-1), nil)
}

func TestNATSUnitsMean(t *testing.T) {
	n := newNATS(7, true)
	n.expect([]byte("hello"))
	check := func(unit string, want event, answer, problem string) {
		t.Helper()
		e, a, err := n.take([]byte(unit))
		if e != want || string(a) != answer || (err != nil) != (problem != "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %v, %q, %v", unit, e, a, err)
		}
	}
	check("MSG n.0007 1 5\r\nhello\r\n", eventMessage, "", "")
	check("PING\r\n", eventNone, "PONG\r\n", "")
	check("PONG\r\n", eventReady, "", "")
	check("INFO {}\r\n", eventNone, "", "")
	check("+OK\r\n", eventNone, "", "")
	check("-ERR 'Slow Consumer'\r\n", eventNone, "", "Slow Consumer")
	check("MSG n.0007 1 5\r\nhallo\r\n", eventNone, "", "nobody sent")
	check("MSG n.0008 1 5\r\nhello\r\n", eventNone, "", "nobody sent")
	check("MSG n.0007 2 5\r\nhello\r\n", eventNone, "", "nobody sent")
	check("HTTP/1.1 400\r\n", eventNone, "", "HTTP")

	if got := string(n.message([]byte("x"), []byte("n.0009"), []byte("hello"))); got != "xPUB n.0009 5\r\nhello\r\n" {
		t.Errorf("%q", got)
	}
	if got := string(n.opening()); !strings.HasPrefix(got, "CONNECT {") || !strings.HasSuffix(got, "}\r\nSUB n.0007 1\r\nPING\r\n") {
		t.Errorf("a receiver opens with %q", got)
	}
	if got := string(newNATS(7, false).opening()); strings.Contains(got, "SUB") {
		t.Errorf("a sender opens with %q", got)
	}
}

func TestNATSReadsInfoAndNoMore(t *testing.T) {
	check := func(text, rest, problem string) {
		t.Helper()
		ours, theirs := net.Pipe()
		written := make(chan struct{})
		go func() {
			defer close(written)
			io.WriteString(theirs, text)
			theirs.Close()
		}()
		err := newNATS(1, true).plain(ours)
		left, _ := io.ReadAll(ours)
		ours.Close()
		<-written
		if problem == "" && (err != nil || string(left) != rest) || problem != "" && (err == nil || !strings.Contains(err.Error(), problem)) {
			t.Errorf("%.40q: %v, %q left, want %q %q", text, err, left, problem, rest)
		}
	}
	check("INFO {\"tls_required\":true}\r\n", "", "")
	check("INFO {}\r\n\x16\x03\x01", "\x16\x03\x01", "")
	check("-ERR 'maximum connections exceeded'\r\n", "", "maximum")
	check("INFO {", "", "no INFO")
	check(strings.Repeat("INFO ", natsLineMax), "", errNATSLine.Error())
}

func TestDERPUnitsAreFrames(t *testing.T) {
	d, err := newDERP(nil)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(kind byte, n int) string { return string(derpFrame(nil, kind, make([]byte, n))) }
	checkUnits(t, d.need, frame(derpServerKey, 40), frame(derpKeepAlive, 0), frame(derpReceive, 32+256), frame(derpPingType, 8))
	for _, parts := range []int{1, 40} {
		if units, _, err := cutAll(d.need, "HTTP/1.1 426 Upgrade Required\r\n", parts); err != errDERPFrame {
			t.Errorf("%q, %v", units, err)
		}
	}
	if got := string(d.message([]byte("x"), bytes.Repeat([]byte("k"), 32), []byte("hello"))); got != "x\x04\x00\x00\x00\x25"+strings.Repeat("k", 32)+"hello" {
		t.Errorf("%q", got)
	}
}

// The server opens what the client says of itself, and the client what the server
// answers; nothing counts before.
func TestDERPKeysAreExchanged(t *testing.T) {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDERP(nil)
	if err != nil {
		t.Fatal(err)
	}
	serverInfo := func() []byte {
		var nonce [derpNonce]byte
		return derpFrame(nil, derpServerInfo, box.Seal(nonce[:], []byte("{}"), &nonce, d.public, private))
	}
	if _, _, err := d.take(serverInfo()); err == nil {
		t.Error("a server without a key is taken")
	}
	key := derpFrame(nil, derpServerKey, []byte(derpMagic), public[:], []byte("and more"))
	e, answer, err := d.take(key)
	if err != nil || e != eventNone || answer[0] != derpClientInfo {
		t.Fatalf("%v, %x, %v", e, answer, err)
	}
	if need, err := d.need(answer); err != nil || need != len(answer) {
		t.Errorf("client info of %d bytes says it has %d (%v)", len(answer), need, err)
	}
	sealed := answer[derpHeader+derpKey:]
	info, ok := box.Open(nil, sealed[derpNonce:], (*[derpNonce]byte)(sealed), (*[derpKey]byte)(answer[derpHeader:]), private)
	if !ok || string(info) != derpInfo {
		t.Errorf("client info %q", info)
	}
	if _, _, err := d.take(key); err == nil {
		t.Error("a second key is taken")
	}
	harmed := serverInfo()
	harmed[len(harmed)-1] ^= 1
	if _, _, err := d.take(harmed); err != errDERPBox {
		t.Errorf("harmed server info: %v", err)
	}
	if e, _, err := d.take(serverInfo()); err != nil || e != eventReady {
		t.Errorf("server info: %v, %v", e, err)
	}
}

func TestDERPUnitsMean(t *testing.T) {
	alice, mallory := bytes.Repeat([]byte("a"), derpKey), bytes.Repeat([]byte("m"), derpKey)
	d, err := newDERP(map[string]bool{string(alice): true})
	if err != nil {
		t.Fatal(err)
	}
	check := func(unit []byte, want event, answer string, good bool) {
		t.Helper()
		e, a, err := d.take(unit)
		if e != want || string(a) != answer || (err == nil) != good {
			t.Errorf("%q: %v, %q, %v", unit, e, a, err)
		}
	}
	check(derpFrame(nil, derpReceive, alice), eventNone, "", false) // nothing is expected yet
	d.expect([]byte("hello"))
	check(derpFrame(nil, derpReceive, alice, []byte("hello")), eventMessage, "", true)
	check(derpFrame(nil, derpReceive, alice, []byte("hallo")), eventNone, "", false)
	check(derpFrame(nil, derpReceive, mallory, []byte("hello")), eventNone, "", false)
	check(derpFrame(nil, derpReceive, alice[1:]), eventNone, "", false)
	check(derpFrame(nil, derpKeepAlive), eventNone, "", true)
	check(derpFrame(nil, derpPingType, []byte("12345678")), eventNone, "\x13\x00\x00\x00\x0812345678", true)
	check(derpFrame(nil, derpPingType, []byte("1234567")), eventNone, "", false)
	check(derpFrame(nil, 0x08, alice, []byte{1}), eventNone, "", false) // peer gone
	check(derpFrame(nil, derpServerKey, []byte("DREP🔑"), alice), eventNone, "", false)
	check(derpFrame(nil, derpServerKey, []byte(derpMagic), alice[1:]), eventNone, "", false)
}

// Whatever comes, nothing panics, units are what was cut, and how it was split does
// not matter.
func fuzzUnits(f *testing.F, fresh func() protocol) {
	f.Fuzz(func(t *testing.T, text string, parts uint16) {
		whole, _, errWhole := cutAll(fresh().need, text, len(text)+1)
		split, _, errSplit := cutAll(fresh().need, text, int(parts)+1)
		if !slices.Equal(whole, split) || (errWhole == nil) != (errSplit == nil) {
			t.Fatalf("%q, %v; in parts of %d bytes %q, %v", whole, errWhole, parts+1, split, errSplit)
		}
		if !strings.HasPrefix(text, strings.Join(whole, "")) {
			t.Fatalf("%q was cut into %q", text, whole)
		}
		p := fresh()
		p.expect([]byte("hello"))
		for _, u := range whole {
			p.take([]byte(u))
		}
	})
}

func FuzzNATSUnits(f *testing.F) {
	f.Add("INFO {}\r\nMSG n.0007 1 5\r\nhello\r\nPING\r\n", uint16(3))
	f.Add("MSG n.0007 1 99\r\n", uint16(0))
	f.Add("\r\n\r\n", uint16(1))
	fuzzUnits(f, func() protocol { return newNATS(7, true) })
}

func FuzzDERPUnits(f *testing.F) {
	f.Add(string(derpFrame(nil, derpServerKey, []byte(derpMagic), make([]byte, derpKey))), uint16(7))
	f.Add("\x12\x00\x00\x00\x0812345678\x06\x00\x00\x00\x00", uint16(0))
	f.Add("\x05\xff\xff\xff\xff", uint16(2))
	fuzzUnits(f, func() protocol {
		d, err := newDERP(map[string]bool{})
		if err != nil {
			panic(err)
		}
		return d
	})
}
