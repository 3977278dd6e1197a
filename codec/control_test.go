package codec

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestControlMessagesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := controls().Draw(t, "message")
		b, err := AppendControl([]byte{1, 2, 3}, want)
		if err == ErrControlLength {
			t.Skip("larger than a body")
		}
		if err != nil || !slices.Equal(b[:3], []byte{1, 2, 3}) {
			t.Fatalf("AppendControl(%+v) = %x, %v", want, b, err)
		}
		got, err := DecodeControl(b[3:])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("DecodeControl = %+v, %v, want %+v", got, err, want)
		}
	})
}

func TestNoticesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := notices().Draw(t, "notice")
		b, err := AppendNotice(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeNotice(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("DecodeNotice = %+v, %v, want %+v", got, err, want)
		}
	})
}

func TestEchoesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := echoes().Draw(t, "echo")
		b, err := AppendEcho(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeEcho(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("DecodeEcho = %+v, %v, want %+v", got, err, want)
		}
	})
}

// checkBody checks that a body, in hexadecimal with spaces, is refused with
// want (nil: taken).
func checkBody(t *testing.T, decode func([]byte) error, name, body string, want error) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(body, " ", ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if got := decode(b); got != want {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
}

func control(b []byte) error {
	m, err := DecodeControl(b)
	if (m == nil) != (err != nil) {
		panic("DecodeControl: message and error, or neither")
	}
	return err
}

func notice(b []byte) error { _, err := DecodeNotice(b); return err }

func echo(b []byte) error { _, err := DecodeEcho(b); return err }

func TestOnlyTheRestrictedCBORIsTaken(t *testing.T) {
	check := func(name, body string, want error) {
		t.Helper()
		checkBody(t, control, name, body, want)
	}
	check("keep-alive", "a3 0002 0107 02f4", nil)
	check("integers longer than needed", "b803 1800 190002 01 1b0000000000000007 02 f4", nil)
	check("keys in another order", "a3 02f4 0002 0107", nil)
	check("empty", "", ErrControlEncoding)
	check("not a map", "83 00 02 01", ErrControlEncoding)
	check("empty map", "a0", ErrControlType)
	check("trailing byte", "a3 0002 0107 02f4 00", ErrControlEncoding)
	check("cut short", "a3 0002 0107 02", ErrControlEncoding)
	check("indefinite map", "bf 0002 0107 02f4 ff", ErrControlEncoding)
	check("tagged map", "d9d9f7 a3 0002 0107 02f4", ErrControlEncoding)
	check("tagged value", "a3 0002 01 c1 07 02f4", ErrControlEncoding)
	check("duplicate key", "a4 0002 0107 0108 02f4", ErrControlEncoding)
	check("duplicate key, longer", "a4 0002 0107 1801 08 02f4", ErrControlEncoding)
	check("duplicate type", "a4 0002 0002 0107 02f4", ErrControlEncoding)
	check("missing key", "a2 0002 0107", ErrControlKeys)
	check("unknown key", "a4 0002 0107 02f4 0300", ErrControlKeys)
	check("unknown large key", "a4 0002 0107 02f4 1840 00", ErrControlKeys)
	check("missing type", "a2 0107 02f4", ErrControlType)
	check("text key", "a3 0002 6131 07 02f4", ErrControlEncoding)
	check("negative key", "a3 0002 20 07 02f4", ErrControlEncoding)
	check("bytes key", "a3 0002 4101 07 02f4", ErrControlEncoding)
	check("null value", "a3 0002 01f6 02f4", ErrControlEncoding)
	check("undefined value", "a3 0002 01f7 02f4", ErrControlEncoding)
	check("simple value", "a3 0002 01f0 02f4", ErrControlEncoding)
	check("half float", "a3 0002 01f94700 02f4", ErrControlEncoding)
	check("single float", "a3 0002 01fa40e00000 02f4", ErrControlEncoding)
	check("double float", "a3 0002 01fb401c000000000000 02f4", ErrControlEncoding)
	check("negative value", "a3 0002 0120 02f4", ErrControlValue)
	check("text for uint", "a3 0002 016137 02f4", ErrControlValue)
	check("bytes for uint", "a3 0002 014107 02f4", ErrControlValue)
	check("bool for uint", "a3 0002 01f5 02f4", ErrControlValue)
	check("uint for bool", "a3 0002 0107 0200", ErrControlValue)
	check("array for uint", "a3 0002 018107 02f4", ErrControlValue)
	check("text for type", "a3 006132 0107 02f4", ErrControlType)
	check("type 0", "a1 0000", ErrControlType)
	check("reserved type", "a1 0018ff", ErrControlType)
	check("type above 2^32", "a3 00 1b0000000100000002 0107 02f4", ErrControlType)
}

func TestUnknownKeysAreIgnoredInHelloOnly(t *testing.T) {
	const known = "0001 0101 0200 036173 0400 0560 0619 2710 071961a8 08 00"
	check := func(name, body string, want error) {
		t.Helper()
		checkBody(t, control, name, body, want)
	}
	check("hello", "a9"+known, nil)
	check("unknown key", "aa"+known+"0901", nil)
	check("unknown large keys", "ac"+known+"1840 f5 1841 6161 1b ffffffffffffffff 82 20 a1 6161 40", nil)
	check("unknown key twice", "ab"+known+"0901 0902", ErrControlEncoding)
	check("unknown large key twice", "ab"+known+"1840 01 1840 02", ErrControlValue)
	check("unknown text key", "aa"+known+"613901", ErrControlEncoding)
	check("float below an unknown key", "aa"+known+"0981f97e00", ErrControlEncoding)
	check("null below an unknown key", "aa"+known+"09f6", ErrControlEncoding)
	check("tag below an unknown key", "aa"+known+"0981c100", ErrControlEncoding)
	check("invalid UTF-8 below an unknown key", "aa"+known+"098161ff", ErrControlEncoding)
	check("indefinite length below an unknown key", "aa"+known+"099f00ff", ErrControlEncoding)
	check("nested 8 deep", "aa"+known+"09 81818181818181 00", nil)
	check("nested 9 deep", "aa"+known+"09 8181818181818181 00", ErrControlEncoding)
	check("64 keys", "b840"+known+manyKeys(64-9), nil)
	check("65 keys", "b841"+known+manyKeys(65-9), ErrControlEncoding)
	check("array of 1024", "aa"+known+"09 990400"+strings.Repeat("00", 1024), nil)
	check("array of 1025", "aa"+known+"09 990401"+strings.Repeat("00", 1025), ErrControlEncoding)
	check("65536 bytes", "aa"+known+"09 59ffe4"+strings.Repeat("00", 0xffe4), nil)
	check("65537 bytes", "aa"+known+"09 59ffe5"+strings.Repeat("00", 0xffe5), ErrControlLength)
	check("missing key, unknown in its place", "a9"+strings.TrimSuffix(known, "08 00")+"0900", ErrControlKeys)
	checkBody(t, notice, "notice with unknown key", "a7 0001 0150 00000000000000000000000000000000 0280 0301 0400 0500 0600", ErrControlKeys)
	checkBody(t, echo, "echo with unknown key", "a4 0001 0148 0000000000000000 0240 0300", ErrControlKeys)
}

// manyKeys returns n unknown keys and their values.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "19%04xf4", 0x100+i)
	}
	return b.String()
}

// checkBounds checks that encoding m says want, and that what is encoded is
// also taken when decoding.
func checkBounds(t *testing.T, name string, m Control, want error) {
	t.Helper()
	b, err := AppendControl(nil, m)
	if err != want {
		t.Errorf("encoding %s: %v, want %v", name, err, want)
	}
	if err == nil {
		if _, err := DecodeControl(b); err != nil {
			t.Errorf("decoding %s: %v", name, err)
		}
	}
}

func goodHello() *Hello {
	return &Hello{Version: ProtocolVersion, KeepAlive: KeepAliveDefault, DeadAfter: DeadAfterDefault, BodyMax: BodyMaxDefault}
}

func TestHelloBoundsHoldWhenEncoding(t *testing.T) {
	check := func(name string, change func(*Hello), want error) {
		t.Helper()
		h := goodHello()
		change(h)
		checkBounds(t, name, h, want)
	}
	check("role 1", func(h *Hello) { h.Role = RoleRouter }, nil)
	check("role 2", func(h *Hello) { h.Role = 2 }, ErrControlValue)
	check("kind of 32", func(h *Hello) { h.Kind = strings.Repeat("k", 32) }, nil)
	check("kind of 33", func(h *Hello) { h.Kind = strings.Repeat("k", 33) }, ErrControlValue)
	check("kind not UTF-8", func(h *Hello) { h.Kind = "\xff" }, ErrControlValue)
	check("software of 64", func(h *Hello) { h.Software = strings.Repeat("s", 64) }, nil)
	check("software of 65", func(h *Hello) { h.Software = strings.Repeat("s", 65) }, ErrControlValue)
	check("keep-alive 99 ms", func(h *Hello) { h.KeepAlive = 99 * time.Millisecond }, ErrControlValue)
	check("keep-alive 100 ms", func(h *Hello) { h.KeepAlive = 100 * time.Millisecond }, nil)
	check("keep-alive 600 s", func(h *Hello) { h.KeepAlive = 600 * time.Second }, nil)
	check("keep-alive 600.001 s", func(h *Hello) { h.KeepAlive = 600_001 * time.Millisecond }, ErrControlValue)
	check("keep-alive negative", func(h *Hello) { h.KeepAlive = -10 * time.Second }, ErrControlValue)
	check("dead after 199 ms", func(h *Hello) { h.DeadAfter = 199 * time.Millisecond }, ErrControlValue)
	check("dead after 200 ms", func(h *Hello) { h.DeadAfter = 200 * time.Millisecond }, nil)
	check("dead after 1 h", func(h *Hello) { h.DeadAfter = time.Hour }, nil)
	check("dead after above 1 h", func(h *Hello) { h.DeadAfter = time.Hour + time.Millisecond }, ErrControlValue)
	check("body of 16 MiB", func(h *Hello) { h.BodyMax = BodyMaxLimit }, nil)
	check("body above 16 MiB", func(h *Hello) { h.BodyMax = BodyMaxLimit + 1 }, ErrControlValue)
}

func TestHelloBoundsHoldWhenDecoding(t *testing.T) {
	check := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a9 0001"+values, want)
	}
	check("good", "0101 0200 0360 0400 0560 061864 0718c8 0800", nil)
	check("version 2", "0102 0200 0360 0400 0560 061864 0718c8 0800", nil)
	check("role 2", "0101 0202 0360 0400 0560 061864 0718c8 0800", ErrControlValue)
	check("role 256", "0101 02190100 0360 0400 0560 061864 0718c8 0800", ErrControlValue)
	check("kind of 33", "0101 0200 037821"+strings.Repeat("61", 33)+" 0400 0560 061864 0718c8 0800", ErrControlValue)
	check("cost 65536", "0101 0200 0360 041a00010000 0560 061864 0718c8 0800", ErrControlValue)
	check("software of 65", "0101 0200 0360 0400 057841"+strings.Repeat("61", 65)+" 061864 0718c8 0800", ErrControlValue)
	check("keep-alive 99", "0101 0200 0360 0400 0560 061863 0718c8 0800", ErrControlValue)
	check("keep-alive 600001", "0101 0200 0360 0400 0560 061a000927c1 0718c8 0800", ErrControlValue)
	check("dead after 199", "0101 0200 0360 0400 0560 061864 0718c7 0800", ErrControlValue)
	check("dead after 3600001", "0101 0200 0360 0400 0560 061864 071a0036ee81 0800", ErrControlValue)
	check("keep-alive 2^64-1", "0101 0200 0360 0400 0560 061bffffffffffffffff 0718c8 0800", ErrControlValue)
	check("body 16777217", "0101 0200 0360 0400 0560 061864 0718c8 081a01000001", ErrControlValue)
	check("kind in bytes", "0101 0200 0340 0400 0560 061864 0718c8 0800", ErrControlValue)
}

func TestGoodbyeBounds(t *testing.T) {
	check := func(name string, g Goodbye, want error) {
		t.Helper()
		checkBounds(t, name, &g, want)
	}
	many := func(n int) []string { return slices.Repeat([]string{"dbw://r"}, n) }
	check("reason 0", Goodbye{}, ErrControlValue)
	check("reason 13", Goodbye{Reason: 13}, nil)
	check("reason 14", Goodbye{Reason: 14}, ErrControlValue)
	check("text of 512", Goodbye{Reason: 1, Text: strings.Repeat("t", 512)}, nil)
	check("text of 513", Goodbye{Reason: 1, Text: strings.Repeat("t", 513)}, ErrControlValue)
	check("16 routers", Goodbye{Reason: 1, Routers: many(16)}, nil)
	check("17 routers", Goodbye{Reason: 1, Routers: many(17)}, ErrControlValue)
	check("router of 300", Goodbye{Reason: 1, Routers: []string{strings.Repeat("r", 300)}}, nil)
	check("router of 301", Goodbye{Reason: 1, Routers: []string{strings.Repeat("r", 301)}}, ErrControlValue)
	check("negative time", Goodbye{Reason: 1, ReadFor: -1}, ErrControlValue)

	decode := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a6 0003"+values, want)
	}
	decode("text of 513", "0101 02790201"+strings.Repeat("74", 513)+" 0380 0400 0500", ErrControlValue)
	decode("17 routers", "0101 0260 0391"+strings.Repeat("60", 17)+" 0400 0500", ErrControlValue)
	decode("router of 301", "0101 0260 038179012d"+strings.Repeat("72", 301)+" 0400 0500", ErrControlValue)
	decode("router null", "0101 0260 0381f6 0400 0500", ErrControlEncoding)
	decode("router in bytes", "0101 0260 038141aa 0400 0500", ErrControlValue)
	decode("routers one text", "0101 0260 036161 0400 0500", ErrControlValue)
}

func TestUnknownGoodbyeReasonsCountAsDone(t *testing.T) {
	for _, reason := range []string{"00", "0e", "18ff", "190102", "1bffffffffffffffff"} {
		b, _ := hex.DecodeString("a6000301" + reason + "026003800400" + "0500")
		m, err := DecodeControl(b)
		if err != nil || m.(*Goodbye).Reason != GoodbyeDone {
			t.Errorf("reason %s: %+v, %v", reason, m, err)
		}
	}
}

func TestDurationsAreWholeMillisecondsAndNeverOverflow(t *testing.T) {
	b, err := AppendControl(nil, &Goodbye{Reason: GoodbyeDraining, ReadFor: 1999999 * time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := DecodeControl(b); err != nil || m.(*Goodbye).ReadFor != time.Millisecond {
		t.Errorf("1.999999 ms became %+v, %v", m, err)
	}
	huge, _ := hex.DecodeString("a6000301010260038004" + "1bffffffffffffffff" + "0500")
	if m, err := DecodeControl(huge); err != nil || m.(*Goodbye).ReadFor != durationMax {
		t.Errorf("2^64-1 ms became %+v, %v", m, err)
	}
}

// TestDecodingIsBoundedByItsInput decodes bodies that are made to cost much
// memory, and measures.
func TestDecodingIsBoundedByItsInput(t *testing.T) {
	const perByte = 64
	head := func(s string) []byte { b, _ := hex.DecodeString(s); return b }
	chain := slices.Concat(head("8350"), make([]byte, 16), head("48"), make([]byte, 8), head("9903ff"), bytes.Repeat([]byte{0x40}, 1023))
	bodies := map[string][]byte{
		"1024 empty routers":       slices.Concat(head("a600030101026003990400"), bytes.Repeat([]byte{0x60}, 1024), head("04000500")),
		"claimed array of 2^32":    head("a6000301010260039affffffff"),
		"claimed bytes of 2^63":    head("a30004010002815b7fffffffffffffff"),
		"claimed map of 2^62":      head("bb4000000000000000"),
		"nested arrays":            bytes.Repeat([]byte{0x81}, ControlBodyMax),
		"empty arrays for entries": slices.Concat(head("a500050100020003010499ffff"), bytes.Repeat([]byte{0x80}, 65000)),
		"63 long chains":           slices.Concat(head("a50005010002000301"+"04983f"), bytes.Repeat(chain, 62), chain),
		"unknown keys in hello":    slices.Concat(head("b840"), bytes.Repeat(head("1b0000000100000000f4"), 64)),
		"65,537 bytes":             make([]byte, ControlBodyMax+1),
	}
	for name, body := range bodies {
		got := uint64(math.MaxUint64)
		for range 3 { // the runtime allocates too, at times
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := control(body)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Errorf("%s: taken", name)
			}
			got = min(got, after.TotalAlloc-before.TotalAlloc)
		}
		if limit := uint64(perByte*len(body) + 4096); got > limit {
			t.Errorf("%s: %d bytes allocated for a body of %d, limit %d", name, got, len(body), limit)
		}
	}
}
