package pki

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func TestDomainNames(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	good := []string{"prod.example", "a", "a1", "1a", "1.a", "a-b.c", "xn--bcher-kva.example", label63 + ".x",
		strings.Repeat("a.", 126) + "a"}
	for _, d := range good {
		if err := CheckDomain(d); err != nil {
			t.Error(err)
		}
	}
	bad := []string{"", ".", "..", "a.", ".a", "a..b", "A.b", "Prod.example", "a_b", "a b", "a/b", "../a", "a\\b", "a\x00",
		"-a", "a-", "a.-b", "a-.b", "1", "10.0.0.1", "a.1", "a.42", "bücher.example", label63 + "a.x",
		strings.Repeat("a.", 127) + "a", "a:7100", "a\n", "*.a"}
	for _, d := range bad {
		if CheckDomain(d) == nil {
			t.Errorf("domain %q passes", d)
		}
	}
}

func TestNames(t *testing.T) {
	for _, n := range []string{"a", "0", "billing-1", "a.b_c-d", "a..b", strings.Repeat("a", 63), "router", "1.2.3.4"} {
		if err := CheckName(n); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []string{"", ".", "..", ".a", "-a", "_a", "A", "aB", "a/b", "a b", "a\x00", "ä", "a%2f", strings.Repeat("a", 64), "router/a"} {
		if CheckName(n) == nil {
			t.Errorf("name %q passes", n)
		}
	}
}

func TestNameErrorsSayWhatAndShowAGoodOne(t *testing.T) {
	check := func(err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	check(CheckDomain("Prod.example"), `domain "Prod.example": has something other than lower-case letters, digits, hyphens and dots; a domain looks like prod.example`)
	check(CheckName("_x"), `name "_x": must begin with a lower-case letter or a digit; a name looks like billing-1`)
	if text := CheckName(strings.Repeat("x", 1<<20)).Error(); len(text) > 300 {
		t.Errorf("the error repeats %d bytes of a bad name", len(text))
	}
}

func TestAddressHasPrefixKindAndRandom(t *testing.T) {
	random := bytes.NewReader([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	a, err := NewAddress("prod.example", KindRouter, random)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hexText(a[:]), "fde14b0f202000010102030405060708"; got != want {
		t.Errorf("address %s, want %s", got, want)
	}
	if _, err := NewAddress("prod.example", KindNode, random); !errors.Is(err, io.EOF) {
		t.Errorf("without randomness: %v", err)
	}
	if _, err := NewAddress("../x", KindNode, rand.Reader); err == nil {
		t.Error("an address in a domain of a bad name")
	}
}

func TestURIsThatParseAreSpelledInOneWay(t *testing.T) {
	check := func(domain, name string, role Role) {
		t.Helper()
		d, n, r, err := ParseURI(URI(domain, name, role))
		if err != nil || d != domain || n != name || r != role {
			t.Errorf("%s came back as %s %s %v %v", URI(domain, name, role), d, n, r, err)
		}
	}
	check("prod.example", "one", RoleNode)
	check("prod.example", "one", RoleRouter)
	check("prod.example", "router", RoleNode)
	check("prod.example", "router", RoleRouter)
}

func FuzzURI(f *testing.F) {
	f.Add("dbw://prod.example/one")
	f.Add("dbw://prod.example/router/one")
	f.Add("dbw://prod.example/router/router/one")
	f.Add("dbw://")
	f.Fuzz(func(t *testing.T, uri string) {
		domain, name, role, err := ParseURI(uri)
		if err != nil {
			return
		}
		if got := URI(domain, name, role); got != uri {
			t.Errorf("%q parses as what is spelled %q", uri, got)
		}
		if CheckDomain(domain) != nil || CheckName(name) != nil {
			t.Errorf("%q passes with a bad domain or name", uri)
		}
	})
}

func FuzzNamesAreSafeAsPaths(f *testing.F) {
	for _, s := range []string{"prod.example", "..", "a/b", "billing-1", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckDomain(s) == nil || CheckName(s) == nil {
			if s == "." || s == ".." || filepath.Base(s) != s || strings.HasPrefix(s, ".") || len(s) > 255 || strings.ToLower(s) != s {
				t.Errorf("%q passes", s)
			}
		}
	})
}
