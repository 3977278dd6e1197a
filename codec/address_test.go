package codec

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAddressTextRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := addresses().Draw(t, "address")
		got, err := ParseAddress(want.String())
		if err != nil || got != want {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
	})
}

func TestAddressesHavePrefixAndKind(t *testing.T) {
	a, err := ParseAddress("fde1:4b0f:2020:1:0:1:2:3")
	if err != nil {
		t.Fatal(err)
	}
	// The prefix of PROTOCOL.md section 3.2's example.
	sum := sha256.Sum256([]byte("prod.example"))
	if want := [PrefixSize]byte(append([]byte{0xfd}, sum[:5]...)); a.Prefix() != want {
		t.Errorf("prefix %x, want %x", a.Prefix(), want)
	}
	if a.Kind() != KindRouter || a.Kind().String() != "router" || a.IsZero() {
		t.Errorf("%v: kind %v, zero %v", a, a.Kind(), a.IsZero())
	}
	if !(Address{}).IsZero() || (Address{}).Kind() != KindNode || Kind(2).String() != "0x0002" {
		t.Error("the zero address, or kind 2")
	}
	if a.String() != "fde1:4b0f:2020:1:0:1:2:3" {
		t.Error(a)
	}
}

func TestWhatIsNoAddressIsRefused(t *testing.T) {
	for _, s := range []string{"", "10.0.0.1", "fe80::1%eth0", "fde1:4b0f:2020:1:0:1:2", "[::1]", "node", "fde1::1/64"} {
		if a, err := ParseAddress(s); !errors.Is(err, ErrAddress) || !a.IsZero() {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
}

func TestAddressesAreTextInJSON(t *testing.T) {
	want := Address{0: 0xfd, 15: 1}
	b, err := json.Marshal(want)
	if err != nil || string(b) != `"fd00::1"` {
		t.Fatalf("%s, %v", b, err)
	}
	var got Address
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`"x"`), &got); err == nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDigestTextRoundTrips(t *testing.T) {
	want := DigestOf([]byte("signed bytes"))
	if got, err := ParseDigest(want.String()); err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, s := range []string{"", "00", strings.Repeat("0", 31), strings.Repeat("0", 34), strings.Repeat("g", 32)} {
		if _, err := ParseDigest(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
	if s := (CertID{0xf1, 7: 0x84}).String(); s != "f100000000000084" {
		t.Error(s)
	}
}

func TestCategoriesHaveTheFlagsOfTheirTable(t *testing.T) {
	check := func(c Category, label string, plain, encrypted, payload bool) {
		t.Helper()
		if c.String() != label || c.AllowsFlag(false) != plain || c.AllowsFlag(true) != encrypted || c.IsPayload() != payload {
			t.Errorf("%d: %s, plain %v, encrypted %v, payload %v", uint8(c), c, c.AllowsFlag(false), c.AllowsFlag(true), c.IsPayload())
		}
	}
	check(0, "data", true, true, true)
	check(1, "session", true, false, false)
	check(2, "control", true, false, false)
	check(3, "notice", true, false, false)
	check(4, "echo", true, false, false)
	check(5, "device", false, true, true)
	check(6, "reserved", true, true, false)
	check(63, "reserved", true, true, false)
	check(64, "application", true, true, true)
	check(255, "application", true, true, true)
}

// protocolTable reads the rows "| number | name | …" of one section of
// PROTOCOL.md.
func protocolTable(t *testing.T, heading string) map[int]string {
	t.Helper()
	f, err := os.Open("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	row := regexp.MustCompile(`^\| (\d+) \| ([^|]+) \|`)
	rows := map[int]string{}
	inside := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			inside = strings.Contains(lines.Text(), heading)
		}
		if m := row.FindStringSubmatch(lines.Text()); inside && m != nil {
			n, _ := strconv.Atoi(m[1])
			rows[n] = m[2] // of two tables the later counts
		}
	}
	return rows
}

func TestGoodbyeReasonsAreThoseOfTheProtocol(t *testing.T) {
	rows := protocolTable(t, "goodbye")
	for _, r := range GoodbyeReasons() {
		if want := strings.ReplaceAll(rows[int(r)], " ", "-"); r.String() != want {
			t.Errorf("reason %d is %q, in PROTOCOL.md %q", r, r, want)
		}
	}
	if GoodbyeReason(0).String() != "unknown" || (goodbyeLast+1).String() != "unknown" || RoleNode.String() != "node" || RoleRouter.String() != "router" || Role(2).String() != "unknown" {
		t.Error("labels of unknown reasons or of roles")
	}
}

func TestNoticeReasonsAreThoseOfTheProtocol(t *testing.T) {
	rows := protocolTable(t, "Notices")
	names := map[string]string{
		"no-route": "no route", "ttl": "TTL spent", "not-permitted": "not permitted", "queue-full": "queue full",
		"recipient-gone": "recipient gone", "unconfirmed": "recipient gone, perhaps delivered", "late": "late", "too-large": "too large",
	}
	for _, r := range NoticeReasons() {
		if want := rows[int(r)]; want == "" || names[r.String()] != want {
			t.Errorf("reason %d is %q, in PROTOCOL.md %q", r, r, want)
		}
	}
	if len(NoticeReasons()) != len(names) || NoticeReason(0).String() != "unknown" || (noticeLast+1).String() != "unknown" {
		t.Error("number of reasons, or labels of unknown ones")
	}
}

func TestEchoTypesAreThoseOfTheProtocol(t *testing.T) {
	rows := protocolTable(t, "Echo")
	for _, e := range echoTypes {
		if want := strings.ReplaceAll(rows[int(e)], " ", "-"); e.String() != want {
			t.Errorf("type %d is %q, in PROTOCOL.md %q", e, e, want)
		}
	}
	if EchoType(7).String() != "unknown" {
		t.Error("label of an unknown type")
	}
}
