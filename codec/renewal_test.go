package codec

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The signed bytes of a renewal, written out as PROTOCOL.md section 5.9 has
// them.
func TestRenewalSignsWhatTheProtocolSays(t *testing.T) {
	exporter := bytes.Repeat([]byte{0xee}, RenewalExporterSize)
	leaf := []byte("abc")
	digest, err := hex.DecodeString("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") // FIPS 180-2's example
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte("causeway renew 1\x00\x01"), append(bytes.Clone(exporter), digest...)...)
	if got := RenewalSigned(true, exporter, leaf); !bytes.Equal(got, want) {
		t.Errorf("client: %x\nwant    %x", got, want)
	}
	want[len("causeway renew 1\x00")] = 2
	if got := RenewalSigned(false, exporter, leaf); !bytes.Equal(got, want) {
		t.Errorf("server: %x\nwant    %x", got, want)
	}
}

func TestRenewalsAreToldFromOtherBodies(t *testing.T) {
	for _, v := range vectorMessages() {
		category, body, err := appendAny(v.message)
		if err != nil {
			t.Fatal(err)
		}
		if _, want := v.message.(*Renewal); category == CategoryControl && IsRenewal(body) != want {
			t.Errorf("%s: IsRenewal %v", v.name, !want)
		}
		if _, want := v.message.(*Goodbye); category == CategoryControl && IsGoodbye(body) != want {
			t.Errorf("%s: IsGoodbye %v", v.name, !want)
		}
	}
	for _, bad := range []string{"", "\xa1", "\x00", "\xa1\x00\x61\x0c"} {
		if IsRenewal([]byte(bad)) || IsGoodbye([]byte(bad)) {
			t.Errorf("%x is taken for a renewal", bad)
		}
	}
}

func TestRevocationListsHaveAsManyPartsAsTheyNeed(t *testing.T) {
	for size, want := range map[int]int{
		0: 0, 1: 1, RevocationPartMax: 1, RevocationPartMax + 1: 2,
		RevocationPartMax * RevocationPartsMax: RevocationPartsMax, RevocationPartMax*RevocationPartsMax + 1: 0,
	} {
		if got := RevocationParts(size); got != want {
			t.Errorf("%d bytes: %d parts, want %d", size, got, want)
		}
	}
	whole := &RevocationList{Number: 1<<64 - 1, Part: RevocationPartsMax - 1, Parts: RevocationPartsMax, Data: make([]byte, RevocationPartMax)}
	if _, err := AppendControl(nil, whole); err != nil {
		t.Errorf("the largest part does not fit a body: %v", err)
	}
}
