package codec

import (
	"slices"
	"strings"
	"testing"
)

const (
	hexAddress = "50 00112233445566778899aabbccddeeff"
	hexCertID  = "48 0011223344556677"
	hexDigest  = hexAddress
)

func TestCertificateRequestBounds(t *testing.T) {
	request := func(n int) *CertificateRequest { return &CertificateRequest{Wanted: make([]CertKey, n)} }
	checkBounds(t, "none wanted", request(0), ErrControlValue)
	checkBounds(t, "1 wanted", request(1), nil)
	checkBounds(t, "64 wanted", request(64), nil)
	checkBounds(t, "65 wanted", request(65), ErrControlValue)

	check := func(name, wanted string, want error) {
		t.Helper()
		checkBody(t, control, name, "a3 0004 0107 02"+wanted, want)
	}
	key := "82" + hexAddress + hexCertID
	check("one", "81"+key, nil)
	check("none", "80", ErrControlValue)
	check("65", "9841"+strings.Repeat(key, 65), ErrControlValue)
	check("address of 15", "81 82 4f 00112233445566778899aabbccddee"+hexCertID, ErrControlValue)
	check("address of 17", "81 82 51 00112233445566778899aabbccddeeff00"+hexCertID, ErrControlValue)
	check("ID of 7", "81 82"+hexAddress+"47 00112233445566", ErrControlValue)
	check("ID of 9", "81 82"+hexAddress+"49 001122334455667788", ErrControlValue)
	check("ID as text", "81 82"+hexAddress+"68 3031323334353637", ErrControlValue)
	check("ID as array of integers", "81 82"+hexAddress+"88 0001020304050607", ErrControlValue)
	check("entry of 1", "81 81"+hexAddress, ErrControlValue)
	check("entry of 3", "81 83"+hexAddress+hexCertID+"00", ErrControlValue)
	check("entry a map", "81 a1 00"+hexAddress, ErrControlValue)
	check("entry null", "81 f6", ErrControlEncoding)
	check("entry an integer", "81 00", ErrControlValue)
	check("wanted a map", "a0", ErrControlValue)
	check("wanted bytes", "40", ErrControlValue)
}

func TestCertificatesBounds(t *testing.T) {
	entries := func(n, chain int) []CertificateEntry {
		return slices.Repeat([]CertificateEntry{{Chain: make([][]byte, chain)}}, n)
	}
	checkBounds(t, "no entry", &Certificates{Parts: 1}, nil)
	checkBounds(t, "no part", &Certificates{}, ErrControlValue)
	checkBounds(t, "part 1 of 1", &Certificates{Part: 1, Parts: 1}, ErrControlValue)
	checkBounds(t, "part 63 of 64", &Certificates{Part: 63, Parts: 64}, nil)
	checkBounds(t, "65 parts", &Certificates{Parts: 65}, ErrControlValue)
	checkBounds(t, "64 entries", &Certificates{Parts: 1, Entries: entries(64, 3)}, nil)
	checkBounds(t, "65 entries", &Certificates{Parts: 1, Entries: entries(65, 0)}, ErrControlValue)
	checkBounds(t, "chain of 4", &Certificates{Parts: 1, Entries: entries(1, 4)}, ErrControlValue)
	checkBounds(t, "too large", &Certificates{Parts: 1, Entries: []CertificateEntry{{Chain: [][]byte{make([]byte, ControlBodyMax)}}}}, ErrControlLength)

	check := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a5 0005 0107"+values, want)
	}
	entry := "83" + hexAddress + hexCertID
	check("empty chain", "0200 0301 0481"+entry+"80", nil)
	check("chain of 3", "0200 0301 0481"+entry+"83 4100 4101 40", nil)
	check("chain of 4", "0200 0301 0481"+entry+"84 40 40 40 40", ErrControlValue)
	check("chain null", "0200 0301 0481"+entry+"f6", ErrControlEncoding)
	check("certificate text", "0200 0301 0481"+entry+"81 6161", ErrControlValue)
	check("chain of integers", "0200 0301 0481"+entry+"81 00", ErrControlValue)
	check("chain bytes", "0200 0301 0481"+entry+"40", ErrControlValue)
	check("no part", "0200 0300 0480", ErrControlValue)
	check("65 parts", "0200 031841 0480", ErrControlValue)
	check("257 parts", "0200 03190101 0480", ErrControlValue)
	check("part 1 of 1", "0201 0301 0480", ErrControlValue)
	check("65 entries", "0200 0301 049841"+strings.Repeat(entry+"80", 65), ErrControlValue)
}

func TestNameRequestBounds(t *testing.T) {
	long := strings.Repeat("n", NameMax+1)
	checkBounds(t, "list", &NameRequest{Max: 256}, nil)
	checkBounds(t, "list after", &NameRequest{Max: 1, After: long[1:]}, nil)
	checkBounds(t, "name", &NameRequest{Max: 1, Name: long[1:]}, nil)
	checkBounds(t, "name and after", &NameRequest{Max: 1, Name: "n", After: "a"}, ErrControlValue)
	checkBounds(t, "name of 71", &NameRequest{Max: 1, Name: long}, ErrControlValue)
	checkBounds(t, "after of 71", &NameRequest{Max: 1, After: long}, ErrControlValue)
	checkBounds(t, "max 0", &NameRequest{}, ErrControlValue)
	checkBounds(t, "max 257", &NameRequest{Max: 257}, ErrControlValue)

	check := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a5 0006 0107"+values, want)
	}
	check("good", "0260 0360 0401", nil)
	check("max 0", "0260 0360 0400", ErrControlValue)
	check("max 257", "0260 0360 04190101", ErrControlValue)
	check("max 65537", "0260 0360 041a00010001", ErrControlValue)
	check("name and after", "026161 036161 0401", ErrControlValue)
	check("name of 71", "027847"+strings.Repeat("61", 71)+"0360 0401", ErrControlValue)
	check("after of 71", "0260 037847"+strings.Repeat("61", 71)+"0401", ErrControlValue)
}

func TestNamesBounds(t *testing.T) {
	entries := func(n, chain, kind int) []NameEntry {
		return slices.Repeat([]NameEntry{{Chain: make([][]byte, chain), Kind: strings.Repeat("k", kind)}}, n)
	}
	checkBounds(t, "none", &Names{}, nil)
	checkBounds(t, "256", &Names{Entries: entries(256, 3, 32), Next: strings.Repeat("n", 70)}, nil)
	checkBounds(t, "257", &Names{Entries: entries(257, 1, 0)}, ErrControlValue)
	checkBounds(t, "no chain", &Names{Entries: entries(1, 0, 0)}, ErrControlValue)
	checkBounds(t, "chain of 4", &Names{Entries: entries(1, 4, 0)}, ErrControlValue)
	checkBounds(t, "kind of 33", &Names{Entries: entries(1, 1, 33)}, ErrControlValue)
	checkBounds(t, "next of 71", &Names{Next: strings.Repeat("n", 71)}, ErrControlValue)

	check := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a4 0007 0107"+values, want)
	}
	check("one", "0281 82 81 40 60 0360", nil)
	check("no chain", "0281 82 80 60 0360", ErrControlValue)
	check("chain of 4", "0281 82 84 40404040 60 0360", ErrControlValue)
	check("kind of 33", "0281 82 81 40 7821"+strings.Repeat("6b", 33)+"0360", ErrControlValue)
	check("257", "02990101"+strings.Repeat("82814060", 257)+"0360", ErrControlValue)
	check("next of 71", "0280 037847"+strings.Repeat("61", 71), ErrControlValue)
}

func TestNoticeBounds(t *testing.T) {
	checkNotice := func(name string, n Notice, want error) {
		t.Helper()
		b, err := AppendNotice(nil, &n)
		if err != want {
			t.Errorf("encoding %s: %v, want %v", name, err, want)
		}
		if err == nil && notice(b) != nil {
			t.Errorf("decoding %s: %v", name, notice(b))
		}
	}
	frames := func(n int) []NoticeFrame {
		return slices.Repeat([]NoticeFrame{{SendTime: 1<<64 - 1}}, n)
	}
	checkNotice("nothing", Notice{Reason: 1}, ErrControlValue)
	checkNotice("one counted", Notice{Reason: 1, More: 1, First: 2, Last: 3}, nil)
	checkNotice("times of none", Notice{Reason: 1, Frames: frames(1), Last: 3}, ErrControlValue)
	checkNotice("1024 frames", Notice{Reason: 7, Frames: frames(1024), More: 1<<64 - 1}, nil)
	checkNotice("1025 frames", Notice{Reason: 7, Frames: frames(1025)}, ErrControlValue)
	checkNotice("reason 0", Notice{Frames: frames(1)}, ErrControlValue)
	checkNotice("reason 9", Notice{Reason: 9, Frames: frames(1)}, ErrControlValue)

	check := func(name, body string, want error) {
		t.Helper()
		checkBody(t, notice, name, body, want)
	}
	frame := "82" + hexDigest + "07"
	check("good", "a6 0001 01"+hexAddress+"0281"+frame+"0300 0400 0500", nil)
	check("missing key", "a5 0001 01"+hexAddress+"0281"+frame+"0300 0400", ErrControlKeys)
	check("reason 0", "a6 0000 01"+hexAddress+"0281"+frame+"0300 0400 0500", ErrControlValue)
	check("reason 9", "a6 0009 01"+hexAddress+"0281"+frame+"0300 0400 0500", ErrControlValue)
	check("reason 257", "a6 00190101 01"+hexAddress+"0281"+frame+"0300 0400 0500", ErrControlValue)
	check("recipient of 15", "a6 0001 01 4f 00112233445566778899aabbccddee 0281"+frame+"0300 0400 0500", ErrControlValue)
	check("digest of 17", "a6 0001 01"+hexAddress+"0281 82 51 00112233445566778899aabbccddeeff00 07 0300 0400 0500", ErrControlValue)
	check("frame of 1", "a6 0001 01"+hexAddress+"0281 81"+hexDigest+"0300 0400 0500", ErrControlValue)
	check("nothing", "a6 0001 01"+hexAddress+"0280 0300 0400 0500", ErrControlValue)
	check("times of none", "a6 0001 01"+hexAddress+"0281"+frame+"0300 0401 0500", ErrControlValue)
	check("1025 frames", "a6 0001 01"+hexAddress+"02990401"+strings.Repeat(frame, 1025)+"0300 0400 0500", ErrControlEncoding)
}

func TestEchoBounds(t *testing.T) {
	check := func(name, body string, want error) {
		t.Helper()
		checkBody(t, echo, name, body, want)
	}
	id := "01 48 0011223344556677"
	check("request", "a3 0001"+id+"0240", nil)
	check("reply of 1024", "a3 0002"+id+"02590400"+strings.Repeat("00", 1024), nil)
	check("reply of 1025", "a3 0002"+id+"02590401"+strings.Repeat("00", 1025), ErrControlValue)
	check("payload text", "a3 0001"+id+"0260", ErrControlValue)
	check("identifier of 7", "a3 0001 01 47 00112233445566 0240", ErrControlValue)
	check("identifier of 9", "a3 0001 01 49 001122334455667788 0240", ErrControlValue)
	check("receipt request", "a4 0005"+id+"02"+hexDigest+"0307", nil)
	check("receipt request, digest of 15", "a4 0005"+id+"02 4f 00112233445566778899aabbccddee 0307", ErrControlValue)
	check("receipt", "a5 0006"+id+"02"+hexDigest+"0307 04f5", nil)
	check("receipt without seen", "a4 0006"+id+"02"+hexDigest+"0307", ErrControlKeys)
	check("receipt request with seen", "a5 0005"+id+"02"+hexDigest+"0307 04f5", ErrControlKeys)
	check("type 0", "a3 0000"+id+"0240", ErrControlType)
	check("type 7", "a3 0007"+id+"0240", ErrControlType)
	check("trace", "a2 0003"+id, nil)
	check("trace with a payload", "a3 0003"+id+"0240", ErrControlKeys)
	check("trace, identifier of 7", "a2 0003 01 47 00112233445566", ErrControlValue)
	check("hop", "a6 0004"+id+"0218ff 03 1b ffffffffffffffff 04"+hexAddress+"05 7840"+strings.Repeat("61", 64), nil)
	check("hop without next", "a6 0004"+id+"0200 0300 0440 0560", nil)
	check("hop, next of zeroes", "a6 0004"+id+"0200 0300 0450"+strings.Repeat("00", 16)+"0560", ErrControlValue)
	check("hop, next of 17", "a6 0004"+id+"0200 0300 0451"+strings.Repeat("01", 17)+"0560", ErrControlValue)
	check("hop, software of 65", "a6 0004"+id+"0200 0300 0440 057841"+strings.Repeat("61", 65), ErrControlValue)
	check("hop, TTL 256", "a6 0004"+id+"02190100 0300 0440 0560", ErrControlValue)
	check("hop without software", "a5 0004"+id+"0200 0300 0440", ErrControlKeys)
	check("type 257", "a3 00190101"+id+"0240", ErrControlType)
	check("no type", "a2"+id+"0240", ErrControlType)
	for _, e := range []Echo{{}, {Type: 7}, {Type: EchoHop, Hop: Hop{Software: strings.Repeat("a", 65)}}, {Type: EchoHop, Hop: Hop{Software: "\xff"}}, {Type: EchoRequest, Payload: make([]byte, 1025)}} {
		if b, err := AppendEcho([]byte{1}, &e); err != ErrControlValue || len(b) != 1 {
			t.Errorf("AppendEcho(type %d, payload of %d) = %d bytes, %v", e.Type, len(e.Payload), len(b), err)
		}
	}
}

func TestSplitAnswersFitTheirBodies(t *testing.T) {
	entry := func(sizes ...int) CertificateEntry {
		var e CertificateEntry
		for _, n := range sizes {
			e.Chain = append(e.Chain, make([]byte, n))
		}
		return e
	}
	check := func(name string, entries []CertificateEntry, wantParts int) {
		t.Helper()
		parts, err := SplitCertificates(7, entries)
		if err != nil || len(parts) != wantParts {
			t.Errorf("%s: %d parts, %v, want %d", name, len(parts), err, wantParts)
			return
		}
		total := 0
		for i, p := range parts {
			if int(p.Part) != i || int(p.Parts) != len(parts) || p.Number != 7 {
				t.Errorf("%s: part %d: %d of %d, number %d", name, i, p.Part, p.Parts, p.Number)
			}
			if _, err := AppendControl(nil, p); err != nil {
				t.Errorf("%s: part %d: %v", name, i, err)
			}
			total += len(p.Entries)
		}
		if total != len(entries) {
			t.Errorf("%s: %d entries of %d", name, total, len(entries))
		}
	}
	check("none", nil, 1)
	check("64 small", slices.Repeat([]CertificateEntry{entry(500, 500)}, 64), 2)
	check("65 empty", slices.Repeat([]CertificateEntry{entry()}, 65), 2)
	check("64 of 1000", slices.Repeat([]CertificateEntry{entry(990)}, 64), 1)
	check("3 large", slices.Repeat([]CertificateEntry{entry(40_000)}, 3), 3)
	check("64 large", slices.Repeat([]CertificateEntry{entry(65_000)}, 64), 64)
	for name, entries := range map[string][]CertificateEntry{
		"one too large": {entry(1), entry(65_536)},
		"65 parts":      slices.Repeat([]CertificateEntry{entry(65_000)}, 65),
	} {
		if parts, err := SplitCertificates(7, entries); err != ErrControlLength {
			t.Errorf("%s: %d parts, %v", name, len(parts), err)
		}
	}
}

func TestFitNamesFillsOneBody(t *testing.T) {
	for _, size := range []int{0, 1, 23, 24, 200, 255, 256, 400, 1000, 30_000, 65_000} {
		entries := slices.Repeat([]NameEntry{{Chain: [][]byte{make([]byte, size)}, Kind: strings.Repeat("k", HelloKindMax)}}, 300)
		answer := Names{Number: 1<<64 - 1, Entries: entries[:FitNames(entries)], Next: strings.Repeat("n", NameMax)}
		b, err := AppendControl(nil, &answer)
		if err != nil || len(answer.Entries) == 0 {
			t.Errorf("certificates of %d: %d entries, %v", size, len(answer.Entries), err)
		}
		const slack = 256 * bytesHeadMax // heads are taken for the largest
		if len(answer.Entries) < NamesMax && len(b)+size+slack+50 < ControlBodyMax {
			t.Errorf("certificates of %d: %d entries in %d bytes, more would fit", size, len(answer.Entries), len(b))
		}
	}
	if n := FitNames([]NameEntry{{Chain: [][]byte{make([]byte, ControlBodyMax)}}}); n != 0 {
		t.Errorf("an entry larger than a body fits: %d", n)
	}
	if n := FitNames(nil); n != 0 {
		t.Errorf("of no entries %d fit", n)
	}
}
