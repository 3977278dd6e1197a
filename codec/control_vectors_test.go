package codec

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

var update = flag.Bool("update", false, "write testdata/control.json anew")

const controlVectorsFile = "testdata/control.json"

// controlVectors is testdata/control.json. Fields have the CBOR keys as names;
// byte strings are written h'…'.
type controlVectors struct {
	About string          `json:"about"`
	Good  []controlVector `json:"good"`
	Bad   []badVector     `json:"bad"`
}

type controlVector struct {
	Name     string         `json:"name"`
	Category Category       `json:"category"`
	Fields   map[string]any `json:"fields"`
	Body     string         `json:"body"`
}

type badVector struct {
	Name     string   `json:"name"`
	Category Category `json:"category"`
	Verdict  string   `json:"verdict"`
	Body     string   `json:"body"`
}

const controlVectorsAbout = "Bodies of categories 2 (link control), 3 (notice) and 4 (echo), see PROTOCOL.md sections 5 to 7. " +
	"body is hex. In fields the names are the map's keys, h'...' is a byte string in hex, other strings are text. " +
	"Bodies under bad are refused; verdict says why."

// vectorMessages are the messages of the good vectors.
func vectorMessages() []struct {
	name    string
	message any
} {
	var router, node, other Address
	for i := range AddressSize {
		router[i], node[i], other[i] = byte(0x10+i), byte(0x20+i), byte(0x30+i)
	}
	copy(router[:], "\xfd\xe1\x4b\x0f\x20\x20\x00\x01")
	copy(node[:], "\xfd\xe1\x4b\x0f\x20\x20\x00\x00")
	copy(other[:], "\xfd\xe1\x4b\x0f\x20\x20\x00\x00")
	otherRouter := other
	otherRouter[7] = 1
	key := CertKey{Address: node, CertID: CertID{0xf1, 0x49, 0xad, 0x31, 0x9c, 0x6a, 0x2a, 0x84}}
	chain := [][]byte{{0x30, 0x03, 0x02, 0x01, 0x01}, {0x30, 0x03, 0x02, 0x01, 0x02}}
	digest := Digest{0x5b, 0x7c, 0xa5, 0x0b, 0xd7, 0xd6, 0xee, 0xea, 0xbb, 0xd2, 0x15, 0x4e, 0x4e, 0x1c, 0x21, 0x4f}
	const sent = 1_700_000_000_000_000_000
	source := Source{Epoch: sent, ID: RouterID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7}}
	return []struct {
		name    string
		message any
	}{
		{"hello of a node", &Hello{Version: 1, Role: RoleNode, Kind: "monitor", NodeCost: 0, Software: "causeway/0.1.0", KeepAlive: KeepAliveDefault, DeadAfter: DeadAfterDefault, BodyMax: BodyMaxDefault}},
		{"hello of a router", &Hello{Version: 1, Role: RoleRouter, Kind: "", NodeCost: 65535, Software: "causeway/1.2.3-rc.1", KeepAlive: KeepAliveMin, DeadAfter: DeadAfterMax, BodyMax: BodyMaxLimit}},
		{"hello, smallest", &Hello{Version: 1, KeepAlive: KeepAliveMin, DeadAfter: DeadAfterMin}},
		{"keep-alive", &KeepAlive{Received: 0}},
		{"keep-alive that asks", &KeepAlive{Received: 4_294_967_296, Answer: true}},
		{"goodbye", &Goodbye{Reason: GoodbyeDone, Routers: []string{}, Received: 23}},
		{"goodbye of a router that drains", &Goodbye{Reason: GoodbyeDraining, Text: "maintenance until 12:00 – see status page", Routers: []string{"dbw://r2.example", "dbw://[2001:db8::2]:7101"}, ReadFor: 5 * time.Second, Received: 24}},
		{"certificate request", &CertificateRequest{Number: 1, Wanted: []CertKey{key, {Address: other, CertID: CertID{1}}}}},
		{"certificates, one known and one not", &Certificates{Number: 1, Part: 0, Parts: 1, Entries: []CertificateEntry{{key, chain}, {CertKey{Address: other, CertID: CertID{1}}, [][]byte{}}}}},
		{"certificates, second of three parts", &Certificates{Number: 1<<64 - 1, Part: 1, Parts: 3, Entries: []CertificateEntry{}}},
		{"name request", &NameRequest{Number: 2, Name: "router/r1", Max: 1}},
		{"name request, list", &NameRequest{Number: 3, After: "alice", Max: 256}},
		{"names", &Names{Number: 3, Entries: []NameEntry{{chain, "server"}, {chain[:1], ""}}, Next: "carol"}},
		{"names, none", &Names{Number: 2, Entries: []NameEntry{}}},
		{"revocation list, second of two parts", &RevocationList{Number: 1, Part: 1, Parts: 2, Data: []byte{0x30, 0x00}}},
		{"renewal, same key", &Renewal{Chain: chain, Proof: []byte{}}},
		{"renewal, another key", &Renewal{Chain: chain[:1], Proof: bytes.Repeat([]byte{0x5a}, 64)}},
		{"domain proofs, two", &DomainProofs{Parts: 1, Values: []DomainProof{vectorProof("prod.example"), vectorProof("test.example")}}},
		{"domain proofs, second of two parts, none", &DomainProofs{Part: 1, Parts: 2, Values: []DomainProof{}}},
		{"grants, two", &Grants{Chains: [][][]byte{chain, chain[:1]}}},
		{"routes, one and one retracted", &RouteUpdate{Interval: time.Minute, Routes: []Route{{router, source, 7, 20}, {otherRouter, Source{}, 65535, MetricInfinity}}}},
		{"seqno request", &SeqnoRequest{Wanted: []SeqnoWanted{{router, source, 8, 64}}}},
		{"address list, whole, second of two parts", &AddressList{Router: router, Source: source, To: 3, Part: 1, Parts: 2, Added: []Attached{{node, sent + 1}, {other, sent + 2}}, Removed: []Address{}}},
		{"address list, change", &AddressList{Router: router, Source: source, From: 3, To: 4, Parts: 1, Added: []Attached{{node, sent + 3}}, Removed: []Address{other}}},
		{"list request", &ListRequest{Router: router}},
		{"list numbers", &ListNumbers{Lists: []ListNumber{{router, source, 4}, {otherRouter, source, 1}}}},
		{"name question", &NameQuestion{Asked: otherRouter, Asker: router, Number: 4, Hops: 64, Name: "bob", Max: 1}},
		{"name question, list", &NameQuestion{Asked: otherRouter, Asker: router, Number: 5, Hops: 1, After: "alice", Max: 256}},
		{"name answer", &NameAnswer{Asker: router, Asked: otherRouter, Number: 5, Hops: 63, Entries: []NamedEntry{{"bob", NameEntry{chain, "server"}}, {"carol", NameEntry{chain[:1], ""}}}, Next: "carol"}},
		{"name answer, none", &NameAnswer{Asker: router, Asked: otherRouter, Number: 4, Hops: 64, Entries: []NamedEntry{}}},
		{"sender blocked", &SenderBlocked{Sender: other, For: time.Minute}},
		{"notice, one frame", &Notice{Reason: NoticeNoRoute, Recipient: other, Frames: []NoticeFrame{{digest, sent}}}},
		{"notice, one frame and more", &Notice{Reason: NoticeQueueFull, Recipient: other, Frames: []NoticeFrame{{digest, sent}}, More: 1000, First: sent + 1, Last: sent + 5_000_000_000}},
		{"notice, only counted", &Notice{Reason: NoticeLate, Recipient: other, Frames: []NoticeFrame{}, More: 1, First: sent, Last: sent}},
		{"echo request", &Echo{Type: EchoRequest, ID: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Payload: []byte("ping")}},
		{"echo reply, empty", &Echo{Type: EchoReply, ID: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Payload: []byte{}}},
		{"trace", &Echo{Type: EchoTrace, ID: [8]byte{1, 2, 3, 4, 5, 6, 7, 9}}},
		{"hop", &Echo{Type: EchoHop, ID: [8]byte{1, 2, 3, 4, 5, 6, 7, 9}, Hop: Hop{TTL: 1, Time: sent, Next: otherRouter, Software: "causeway/0.1.0"}}},
		{"hop, the last", &Echo{Type: EchoHop, ID: [8]byte{1, 2, 3, 4, 5, 6, 7, 9}, Hop: Hop{TTL: 30, Time: sent}}},
		{"receipt request", &Echo{Type: EchoReceiptRequest, ID: [8]byte{9}, Digest: digest, SendTime: sent}},
		{"receipt", &Echo{Type: EchoReceipt, ID: [8]byte{9}, Digest: digest, SendTime: sent, Seen: true}},
	}
}

// vectorProof is the value of a TLS client for a domain, with made-up root and
// exporter.
func vectorProof(domain string) DomainProof {
	exporter := make([]byte, DomainsExporterSize)
	var root [sha256.Size]byte
	for i := range exporter {
		exporter[i], root[i] = byte(0xa0+i), byte(i)
	}
	return NewDomainProof(exporter, true, domain, root)
}

// badBodies are the bodies of the bad vectors, in hexadecimal with spaces.
func badBodies() []badVector {
	return []badVector{
		{"not a map", CategoryControl, "control-encoding", "83 00 02 01"},
		{"trailing byte", CategoryControl, "control-encoding", "a3 0002 0107 02f4 00"},
		{"cut short", CategoryControl, "control-encoding", "a3 0002 0107 02"},
		{"indefinite length", CategoryControl, "control-encoding", "bf 0002 0107 02f4 ff"},
		{"tag", CategoryControl, "control-encoding", "a3 0002 01c107 02f4"},
		{"duplicate key", CategoryControl, "control-encoding", "a4 0002 0107 0107 02f4"},
		{"text key", CategoryControl, "control-encoding", "a3 0002 613107 02f4"},
		{"null", CategoryControl, "control-encoding", "a3 0002 01f6 02f4"},
		{"float", CategoryControl, "control-encoding", "a3 0002 01f94700 02f4"},
		{"invalid UTF-8", CategoryControl, "control-encoding", "a6 0003 0101 0261ff 0380 0400 0500"},
		{"missing key", CategoryControl, "control-keys", "a2 0002 0107"},
		{"unknown key", CategoryControl, "control-keys", "a4 0002 0107 02f4 0300"},
		{"reserved type", CategoryControl, "control-type", "a1 0018ff"},
		{"negative number", CategoryControl, "control-value", "a3 0002 0120 02f4"},
		{"integer for a bool", CategoryControl, "control-value", "a3 0002 0107 0201"},
		{"hello: role 2", CategoryControl, "control-value", "a9 0001 0101 0202 0360 0400 0560 061864 0718c8 0800"},
		{"hello: keep-alive of 99 ms", CategoryControl, "control-value", "a9 0001 0101 0200 0360 0400 0560 061863 0718c8 0800"},
		{"certificates: part 1 of 1", CategoryControl, "control-value", "a5 0005 0107 0201 0301 0480"},
		{"name request: name and after", CategoryControl, "control-value", "a5 0006 0107 026161 036161 0401"},
		{"revocation list: empty part", CategoryControl, "control-value", "a5 000b 0101 0200 0301 0440"},
		{"revocation list: part 1 of 1", CategoryControl, "control-value", "a5 000b 0101 0201 0301 044130"},
		{"revocation list: 1,025 parts", CategoryControl, "control-value", "a5 000b 0101 0200 03190401 044130"},
		{"renewal: no chain", CategoryControl, "control-value", "a3 000c 0180 0240"},
		{"renewal: four certificates", CategoryControl, "control-value", "a3 000c 01844130413041304130 0240"},
		{"renewal: proof of 81 bytes", CategoryControl, "control-value", "a3 000c 01814130 025851" + strings.Repeat("00", 81)},
		{"renewal: chain as text", CategoryControl, "control-value", "a3 000c 01816130 0240"},
		{"renewal: without proof", CategoryControl, "control-keys", "a2 000c 01814130"},
		{"domain proofs: part 1 of 1", CategoryControl, "control-value", "a4 0008 0101 0201 0380"},
		{"domain proofs: no parts", CategoryControl, "control-value", "a4 0008 0100 0200 0380"},
		{"domain proofs: 17 parts", CategoryControl, "control-value", "a4 0008 0100 0211 0380"},
		{"domain proofs: value of 31 bytes", CategoryControl, "control-value", "a4 0008 0100 0201 0381 581f" + strings.Repeat("5a", 31)},
		{"domain proofs: value as text", CategoryControl, "control-value", "a4 0008 0100 0201 0381 7820" + strings.Repeat("5a", 32)},
		{"domain proofs: without values", CategoryControl, "control-keys", "a3 0008 0100 0201"},
		{"grants: none", CategoryControl, "control-value", "a2 0009 0180"},
		{"grants: chain of none", CategoryControl, "control-value", "a2 0009 018180"},
		{"grants: chain of four", CategoryControl, "control-value", "a2 0009 018184 4130 4130 4130 4130"},
		{"grants: 65 chains", CategoryControl, "control-value", "a2 0009 019841" + strings.Repeat("814130", 65)},
		{"routes: interval of 999 ms", CategoryControl, "control-value", "a3 000a 011903e7 0281 85" + hexRouter + "00" + hexCertID + "0000"},
		{"routes: none", CategoryControl, "control-value", "a3 000a 011903e8 0280"},
		{"routes: to a node", CategoryControl, "control-value", "a3 000a 011903e8 0281 85" + hexNode + "00" + hexCertID + "0000"},
		{"routes: of two domains", CategoryControl, "control-value", "a3 000a 011903e8 0282 85" + hexRouter + "00" + hexCertID + "0000 85" + hexStranger + "00" + hexCertID + "0000"},
		{"routes: metric of 65,536", CategoryControl, "control-value", "a3 000a 011903e8 0281 85" + hexRouter + "00" + hexCertID + "001a00010000"},
		{"seqno request: no hops", CategoryControl, "control-value", "a2 000d 0181 85" + hexRouter + "00" + hexCertID + "0000"},
		{"address list: sequence number 0", CategoryControl, "control-value", "aa 000e 01" + hexRouter + "0200 03" + hexCertID + "0400 0500 0600 0701 0880 0980"},
		{"address list: backwards", CategoryControl, "control-value", "aa 000e 01" + hexRouter + "0200 03" + hexCertID + "0403 0502 0600 0701 0880 0980"},
		{"address list: whole and removes", CategoryControl, "control-value", "aa 000e 01" + hexRouter + "0200 03" + hexCertID + "0400 0502 0600 0701 0880 0981" + hexNode},
		{"address list: change in two parts", CategoryControl, "control-value", "aa 000e 01" + hexRouter + "0200 03" + hexCertID + "0401 0502 0600 0702 0880 0980"},
		{"address list: change of nothing", CategoryControl, "control-value", "aa 000e 01" + hexRouter + "0200 03" + hexCertID + "0402 0502 0600 0701 0880 0980"},
		{"address list: of another domain", CategoryControl, "control-value", "aa 000e 01" + hexStranger + "0200 03" + hexCertID + "0401 0502 0600 0701 0881 82" + hexNode + "00 0980"},
		{"address list: router attached", CategoryControl, "control-value", "aa 000e 01" + hexRouter + "0200 03" + hexCertID + "0401 0502 0600 0701 0881 82" + hexRouter + "00 0980"},
		{"list numbers: none", CategoryControl, "control-value", "a2 0010 0180"},
		{"list numbers: number 0", CategoryControl, "control-value", "a2 0010 0181 84" + hexRouter + "00" + hexCertID + "00"},
		{"list request: for a node's", CategoryControl, "control-value", "a2 000f 01" + hexNode},
		{"notice about nothing", CategoryNotice, "control-value", "a6 0001 01" + hexAddress + "0280 0300 0400 0500"},
		{"notice of unknown reason", CategoryNotice, "control-value", "a6 0009 01" + hexAddress + "0280 0301 0400 0500"},
		{"echo: identifier of 7 bytes", CategoryEcho, "control-value", "a3 0001 014700112233445566 0240"},
		{"trace with a payload", CategoryEcho, "control-keys", "a3 0003 01480011223344556677 0240"},
		{"hop: TTL of 256", CategoryEcho, "control-value", "a6 0004 01480011223344556677 02190100 0300 0440 0560"},
		{"hop: next of 15 bytes", CategoryEcho, "control-value", "a6 0004 01480011223344556677 0200 0300 044f00112233445566778899aabbccddee 0560"},
		{"echo of type 7", CategoryEcho, "control-type", "a3 0007 01480011223344556677 0240"},
		{"name question: to itself", CategoryControl, "control-value", "a8 0011 01" + hexRouter + "02" + hexRouter + "0300 0401 0560 0660 0701"},
		{"name question: from a node", CategoryControl, "control-value", "a8 0011 01" + hexRouter + "02" + hexNode + "0300 0401 0560 0660 0701"},
		{"name question: no hops", CategoryControl, "control-value", "a8 0011 01" + hexRouter + "02" + hexRouterB + "0300 0400 0560 0660 0701"},
		{"name question: name and after", CategoryControl, "control-value", "a8 0011 01" + hexRouter + "02" + hexRouterB + "0300 0401 056162 066161 0701"},
		{"name answer: names out of order", CategoryControl, "control-value", "a7 0012 01" + hexRouter + "02" + hexRouterB + "0300 0401 0582 836162814060 836161814060 0660"},
		{"sender blocked: for no time", CategoryControl, "control-value", "a3 0013 01" + hexNode + "0200"},
		{"name answer: more after no name", CategoryControl, "control-value", "a7 0012 01" + hexRouter + "02" + hexRouterB + "0300 0401 0580 066161"},
	}
}

func appendAny(m any) (Category, []byte, error) {
	switch m := m.(type) {
	case *Notice:
		b, err := AppendNotice(nil, m)
		return CategoryNotice, b, err
	case *Echo:
		b, err := AppendEcho(nil, m)
		return CategoryEcho, b, err
	}
	b, err := AppendControl(nil, m.(Control))
	return CategoryControl, b, err
}

func decodeAny(c Category, body []byte) (any, error) {
	switch c {
	case CategoryNotice:
		return DecodeNotice(body)
	case CategoryEcho:
		return DecodeEcho(body)
	}
	return DecodeControl(body)
}

func TestControlVectorsAreWhatTheCodecMakes(t *testing.T) {
	var made controlVectors
	made.About = controlVectorsAbout
	for _, v := range vectorMessages() {
		category, body, err := appendAny(v.message)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		var fields map[uint64]any
		if err := cbor.Unmarshal(body, &fields); err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		names := map[string]any{}
		for key, value := range fields {
			names[strconv.FormatUint(key, 10)] = toJSON(value)
		}
		made.Good = append(made.Good, controlVector{v.name, category, names, hex.EncodeToString(body)})
	}
	for _, v := range badBodies() {
		v.Body = strings.ReplaceAll(v.Body, " ", "")
		made.Bad = append(made.Bad, v)
	}
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(&made); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(controlVectorsFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(controlVectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s differs from what the codec makes; if the protocol has changed: go test -run Vectors -update", controlVectorsFile)
	}
}

func loadControlVectors(t testing.TB) *controlVectors {
	t.Helper()
	data, err := os.ReadFile(controlVectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	v := new(controlVectors)
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestControlVectorsDecodeToTheirMessages(t *testing.T) {
	messages := vectorMessages()
	vectors := loadControlVectors(t).Good
	if len(vectors) != len(messages) {
		t.Fatalf("%d vectors, %d messages", len(vectors), len(messages))
	}
	for i, v := range vectors {
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAny(v.Category, body)
		if err != nil || !reflect.DeepEqual(got, messages[i].message) {
			t.Errorf("%s: %+v, %v, want %+v", v.Name, got, err, messages[i].message)
		}
		fields := map[string]any{}
		for key, value := range v.Fields {
			fields[key] = value
		}
		if slow := slowCBOR(fields); !slices.Equal(slow, body) {
			t.Errorf("%s: its fields are %x, its body %x", v.Name, slow, body)
		}
	}
}

func TestBadControlVectorsAreRefused(t *testing.T) {
	bad := loadControlVectors(t).Bad
	if len(bad) == 0 {
		t.Fatal("no bad vectors")
	}
	for _, v := range bad {
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeAny(v.Category, body); MalformedLabel(err) != v.Verdict {
			t.Errorf("%s: %v, want %s", v.Name, err, v.Verdict)
		}
	}
}

func TestExamplesOfTheProtocolAreVectors(t *testing.T) {
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, c := range loadFrameVectors(t).Cases {
		known[hex.EncodeToString(c.Wire)] = true
	}
	for _, v := range loadControlVectors(t).Good {
		known[v.Body] = true
	}
	_, section, _ := strings.Cut(string(text), "## 13 ")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := strings.Split(section, "```")
	if len(blocks) != 15 {
		t.Fatalf("section 13 has %d blocks, want 7", len(blocks)/2)
	}
	for i := 1; i < len(blocks); i += 2 {
		var example strings.Builder
		for line := range strings.Lines(blocks[i]) {
			line, _, _ = strings.Cut(line, "#")
			for field := range strings.FieldsSeq(line) {
				example.WriteString(field)
			}
		}
		if !known[example.String()] {
			t.Errorf("example %d is no vector: %s", i/2+1, example.String())
		}
	}
}

// toJSON writes a decoded CBOR value as the vectors do.
func toJSON(v any) any {
	switch v := v.(type) {
	case []byte:
		return fmt.Sprintf("h'%x'", v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = toJSON(v[i])
		}
		return list
	}
	return v
}

// slowCBOR is the deterministic encoding of a vector's fields, from RFC 8949
// sections 3 and 4.2.1 alone.
func slowCBOR(v any) []byte {
	switch v := v.(type) {
	case bool:
		if v {
			return []byte{0xf5}
		}
		return []byte{0xf4}
	case json.Number:
		n, err := strconv.ParseUint(string(v), 10, 64)
		if err != nil {
			panic(err)
		}
		return slowHead(0, n)
	case string:
		if inner, ok := strings.CutPrefix(v, "h'"); ok {
			b, err := hex.DecodeString(strings.TrimSuffix(inner, "'"))
			if err != nil {
				panic(err)
			}
			return append(slowHead(2, uint64(len(b))), b...)
		}
		return append(slowHead(3, uint64(len(v))), v...)
	case []any:
		b := slowHead(4, uint64(len(v)))
		for _, element := range v {
			b = append(b, slowCBOR(element)...)
		}
		return b
	case map[string]any:
		b := slowHead(5, uint64(len(v)))
		for key := range uint64(len(v)) { // all keys from 0 on are there
			b = append(b, slowHead(0, key)...)
			b = append(b, slowCBOR(v[strconv.FormatUint(key, 10)])...)
		}
		return b
	}
	panic(fmt.Sprintf("%T", v))
}

func slowHead(major byte, n uint64) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32([]byte{major<<5 | 26}, uint32(n))
	}
	return binary.BigEndian.AppendUint64([]byte{major<<5 | 27}, n)
}
