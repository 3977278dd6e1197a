package codec

import (
	"errors"
	"testing"
)

func mustVersion(t *testing.T, s string) Version {
	t.Helper()
	v, err := ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVersionsAreOrderedAsSemverSays(t *testing.T) {
	// Each is older than all that follow; the middle part is the example of
	// semver.org section 11.
	ascending := []string{
		"0.0.0-0", "0.0.0", "0.0.1", "0.9.0", "0.10.0",
		"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
		"1.0.1-A", "1.0.1-a", "1.0.1-a-b", "1.0.1", "2.0.0", "2.1.0", "2.1.1", "10.0.0",
		"18446744073709551615.0.0", "18446744073709551616.0.0",
	}
	for i, a := range ascending {
		for j, b := range ascending {
			want := compareInts(i, j)
			if got := mustVersion(t, a).Compare(mustVersion(t, b)); got != want {
				t.Errorf("%s with %s: %d, want %d", a, b, got, want)
			}
		}
	}
	if mustVersion(t, "1.0.0+a").Compare(mustVersion(t, "1.0.0+b")) != 0 {
		t.Error("build metadata has a part in the order")
	}
}

func TestVersionsAreParsedStrictly(t *testing.T) {
	for _, s := range []string{"0.0.0", "1.2.3", "1.2.3-0", "1.2.3--", "1.2.3-a.b-c.0", "1.2.3+001", "1.2.3-rc.1+2024.01", "1.0.0-0a", "1.0.0+-"} {
		if v, err := ParseVersion(s); err != nil || v.String() != s {
			t.Errorf("%q: %v, %v", s, v, err)
		}
	}
	for _, s := range []string{
		"", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.02.3", "1.2.03", "1..3", "1.2.", "1.2.3-", "1.2.3+", "1.2.3-a..b", "1.2.3-01",
		"1.2.3-a_b", "1.2.3-ä", "1.2.3+a+b", "1.2.3 ", " 1.2.3", "-1.2.3", "1.2.x", "1.2.3-a.", "1.2.3+.a",
	} {
		if v, err := ParseVersion(s); !errors.Is(err, ErrVersion) {
			t.Errorf("%q: %v, %v", s, v, err)
		}
	}
}

func TestHelloSoftwareAgainstACutoff(t *testing.T) {
	cutoff := mustVersion(t, "1.2.0")
	check := func(software string, parses, older bool) {
		t.Helper()
		h := Hello{Software: software}
		name, v, err := h.SemanticVersion()
		if (err == nil) != parses || err == nil && name+"/"+v.String() != software {
			t.Errorf("%q: %q, %v, %v", software, name, v, err)
		}
		if h.IsOlderThan(cutoff) != older {
			t.Errorf("%q: older = %v", software, !older)
		}
	}
	check("causeway/1.1.9", true, true)
	check("causeway/1.2.0-rc.1", true, true)
	check("causeway/1.2.0", true, false)
	check("other/0.1.0", true, true)
	check("causeway/10.0.0", true, false)
	check("causeway", false, false)
	check("", false, false)
	check("/1.0.0", false, false)
	check("causeway/1.0", false, false)
	check("a/b/1.0.0", false, false)
}
