package sign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// Cases of others. -verify.file names files of them, as they are published:
//
//	Wycheproof   github.com/C2SP/wycheproof              testvectors_v1/ed25519_test.json   151 cases
//	speccheck    github.com/novifinancial/ed25519-speccheck   cases.json                    12 cases
//	CCTV         github.com/C2SP/CCTV                    ed25519/ed25519vectors.json        914 cases
//
// (speccheck is of the paper "Taming the many EdDSAs"). They are compared, each by
// every path, in batches of every size, as they are and as bursts, by
//
//	go test -v -run TestCasesOfTheFile ./crypto/sign -args -verify.file=ed25519_test.json,cases.json,ed25519vectors.json
//
// with paths that are absolute, or from crypto/sign. Files of other cases have a
// line for each: key, message and signature in hex, separated by commas.

// publishedCase is one of them; what its publisher expects does not count, since
// crypto/ed25519 decides.
type publishedCase struct{ key, message, signature []byte }

// hexBytes is a JSON string of hex digits.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// wycheproof is a file of Wycheproof.
type wycheproof struct {
	TestGroups []struct {
		PublicKey struct {
			PK hexBytes `json:"pk"`
		} `json:"publicKey"`
		Tests []struct {
			Msg hexBytes `json:"msg"`
			Sig hexBytes `json:"sig"`
		} `json:"tests"`
	} `json:"testGroups"`
}

// vector is a case of CCTV, where the message is text, or of speccheck.
type vector struct {
	Key hexBytes `json:"key"`
	Msg *string  `json:"msg"`
	Sig hexBytes `json:"sig"`

	PubKey    hexBytes  `json:"pub_key"`
	Message   *hexBytes `json:"message"`
	Signature hexBytes  `json:"signature"`
}

var errNoCase = errors.New("no case in it")

// publishedCases returns the cases of a file in any of the forms above.
func publishedCases(text []byte) (all []publishedCase, err error) {
	switch text = bytes.TrimSpace(text); {
	case len(text) == 0:
	case text[0] == '{':
		var file wycheproof
		err = json.Unmarshal(text, &file)
		for _, g := range file.TestGroups {
			for _, c := range g.Tests {
				all = append(all, publishedCase{g.PublicKey.PK, c.Msg, c.Sig})
			}
		}
	case text[0] == '[':
		var file []vector
		err = json.Unmarshal(text, &file)
		for _, v := range file {
			switch {
			case v.Msg != nil && v.Message == nil:
				all = append(all, publishedCase{v.Key, []byte(*v.Msg), v.Sig})
			case v.Msg == nil && v.Message != nil:
				all = append(all, publishedCase{v.PubKey, *v.Message, v.Signature})
			default:
				return nil, errors.New("a case that has neither msg nor message, or both")
			}
		}
	default:
		for line := range bytes.Lines(text) {
			var c [3]hexBytes
			fields := bytes.Split(bytes.TrimSpace(line), []byte(","))
			if len(fields) != len(c) {
				return nil, fmt.Errorf("a line of %d fields, must be key, message, signature", len(fields))
			}
			for i, field := range fields {
				if err := c[i].UnmarshalText(field); err != nil {
					return nil, err
				}
			}
			all = append(all, publishedCase{c[0], c[1], c[2]})
		}
	}
	for _, c := range all {
		if len(c.key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("a key of %d bytes", len(c.key))
		}
	}
	if err == nil && len(all) == 0 {
		err = errNoCase
	}
	return all, err
}

// TestCasesOfTheFile takes what -verify.file names; RFC 8032 section 7.1 without
// it. The classes of the published sets are in edgeCases.
func TestCasesOfTheFile(t *testing.T) {
	texts := [][]byte{[]byte(rfc8032)}
	if *fileFlag != "" {
		texts = nil
		for name := range strings.SplitSeq(*fileFlag, ",") {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
	}
	var cases []signedCase
	m := &caseMaker{rand: rand.New(rand.NewPCG(*seedFlag, 6)), bursts: true}
	for i, text := range texts {
		published, err := publishedCases(text)
		if err != nil {
			t.Fatalf("file %d: %v", i+1, err)
		}
		t.Logf("file %d: %d cases", i+1, len(published))
		for _, c := range published {
			cases = append(cases, newCase("file", c.key, c.message, c.signature))
			// The same signature as the head's of a burst, which few keys have signed.
			signed, field := m.field(m.message(c.message), c.signature)
			cases = append(cases, newCase("file, burst", c.key, signed, field))
		}
	}
	for _, c := range checkers(t) {
		accepted := compare(t, c, cases)
		t.Logf("%s: %d of %d accepted, %d as bursts", c.name, accepted["file"], len(cases)/2, accepted["file, burst"])
	}
	compareInBatches(t, cases)
}

// compareInBatches has each path check all cases in batches of every size.
func compareInBatches(t *testing.T, cases []signedCase) {
	inEverySize(t, func(way checker, size int) {
		for from := 0; from < len(cases); from += size {
			batch := make([]signedCase, size) // the last begins again
			for i := range batch {
				batch[i] = cases[(from+i)%len(cases)]
			}
			compare(t, way, batch)
		}
	})
}

// All forms of one case give that case, and what is none of them is refused.
func TestFormsOfPublishedCases(t *testing.T) {
	const key, signature = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
		"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
	for name, text := range map[string]string{
		"Wycheproof": `{"testGroups": [{"publicKey": {"pk": "` + key + `"}, "tests": [{"tcId": 1, "msg": "72", "sig": "` + signature + `", "result": "valid"}]}]}`,
		"speccheck":  `[{"message": "72", "pub_key": "` + key + `", "signature": "` + signature + `"}]`,
		"CCTV":       `[{"number": 0, "key": "` + key + `", "sig": "` + signature + `", "msg": "r", "flags": []}]`,
		"line":       key + ",72," + signature + "\n",
	} {
		all, err := publishedCases([]byte(text))
		if err != nil || len(all) != 1 || !ed25519.Verify(ed25519.PublicKey(all[0].key), all[0].message, all[0].signature) {
			t.Errorf("%s: %x, %v", name, all, err)
		}
	}
	for _, text := range []string{
		"", "{}", "[]", `[{"key": "` + key + `"}]`, `[{"message": "7", "pub_key": "` + key + `", "signature": ""}]`,
		"00,72," + signature, key + ",72", `{"testGroups": [{"publicKey": {"pk": "00"}, "tests": [{}]}]}`,
	} {
		if all, err := publishedCases([]byte(text)); err == nil {
			t.Errorf("%q: %x", text, all)
		}
	}
}
