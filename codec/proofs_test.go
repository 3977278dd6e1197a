package codec

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The value of a domain proof, written out as PROTOCOL.md section 5.17 has it.
func TestDomainProofIsWhatTheProtocolSays(t *testing.T) {
	exporter := bytes.Repeat([]byte{0xee}, DomainsExporterSize)
	root := sha256.Sum256([]byte("root"))
	for _, role := range []struct {
		client bool
		value  byte
	}{{true, 1}, {false, 2}} {
		h := hmac.New(sha256.New, exporter)
		h.Write(slices.Concat([]byte{role.value}, []byte("prod.example"), []byte{0}, root[:]))
		if got := NewDomainProof(exporter, role.client, "prod.example", root); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Errorf("client %v: %x", role.client, got)
		}
	}
}

func TestDomainProofsAreSplitInOrder(t *testing.T) {
	for _, n := range []int{0, 1, DomainProofsMax, DomainProofsMax + 1, DomainProofPartsMax * DomainProofsMax} {
		values := make([]DomainProof, n)
		for i := range values {
			values[i] = DomainProof{byte(i >> 8), byte(i)}
		}
		parts, err := SplitDomainProofs(values)
		if err != nil {
			t.Fatal(err)
		}
		var got []DomainProof
		for i, p := range parts {
			if int(p.Part) != i || int(p.Parts) != len(parts) {
				t.Errorf("%d values: part %d of %d at %d of %d", n, p.Part, p.Parts, i, len(parts))
			}
			if _, err := AppendControl(nil, p); err != nil {
				t.Errorf("%d values, part %d: %v", n, i, err)
			}
			got = append(got, p.Values...)
		}
		if !slices.Equal(got, values) {
			t.Errorf("%d values became %d", n, len(got))
		}
	}
	if _, err := SplitDomainProofs(make([]DomainProof, DomainProofPartsMax*DomainProofsMax+1)); !errors.Is(err, ErrControlLength) {
		t.Errorf("more values than parts hold: %v", err)
	}
}

func TestGrantsAreSplitInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 9000), 0, 200).Draw(t, "sizes")
		var chains [][][]byte
		for i, size := range sizes {
			chains = append(chains, [][]byte{bytes.Repeat([]byte{byte(i)}, size)})
		}
		all, err := SplitGrants(chains)
		if err != nil {
			t.Fatal(err)
		}
		var got [][][]byte
		for _, g := range all {
			if _, err := AppendControl(nil, g); err != nil {
				t.Fatal(err)
			}
			got = append(got, g.Chains...)
		}
		if !slices.EqualFunc(got, chains, func(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }) {
			t.Fatalf("%d chains became %d", len(chains), len(got))
		}
	})
	if _, err := SplitGrants([][][]byte{{make([]byte, ControlBodyMax)}}); !errors.Is(err, ErrControlLength) {
		t.Errorf("a chain larger than a body: %v", err)
	}
}

func TestWhatSettlesALinkIsToldFromOtherBodies(t *testing.T) {
	for _, v := range vectorMessages() {
		category, body, err := appendAny(v.message)
		if err != nil {
			t.Fatal(err)
		}
		want := false
		switch v.message.(type) {
		case *Hello, *DomainProofs, *Grants, *Renewal:
			want = true
		}
		if category == CategoryControl && SettlesLink(body) != want {
			t.Errorf("%s: SettlesLink %v", v.name, !want)
		}
	}
}
