package codec

import (
	"errors"
	"fmt"
	"strings"
)

// Version is a semantic version (semver.org 2.0.0). The zero value is no
// version; ParseVersion makes one.
type Version struct {
	core  [3]string // major, minor, patch: digits without leading zeros, of any length
	pre   string    // pre-release identifiers joined by dots; empty: a release
	build string    // build metadata; has no part in the order
}

// ErrVersion is what every error about versions satisfies.
var ErrVersion = errors.New("not a semantic version such as 1.2.3 or 1.2.3-rc.1")

// ParseVersion reads a semantic version: three numbers, then optionally "-"
// and a pre-release, then optionally "+" and build metadata.
func ParseVersion(s string) (Version, error) {
	var v Version
	rest, build, hasBuild := strings.Cut(s, "+")
	rest, pre, hasPre := strings.Cut(rest, "-")
	core := strings.Split(rest, ".")
	ok := len(core) == len(v.core) &&
		(!hasBuild || areIdentifiers(build, false)) &&
		(!hasPre || areIdentifiers(pre, true))
	for i := 0; ok && i < len(v.core); i++ {
		ok = isNumber(core[i]) && !hasLeadingZero(core[i])
		v.core[i] = core[i]
	}
	if !ok {
		return Version{}, fmt.Errorf("%q: %w", s, ErrVersion)
	}
	v.pre, v.build = pre, build
	return v, nil
}

// String returns the version as it was parsed.
func (v Version) String() string {
	s := strings.Join(v.core[:], ".")
	if v.pre != "" {
		s += "-" + v.pre
	}
	if v.build != "" {
		s += "+" + v.build
	}
	return s
}

// Compare returns -1, 0 or 1 as v is older than, of the same precedence as, or
// newer than w (semver.org section 11).
func (v Version) Compare(w Version) int {
	for i := range v.core {
		if c := compareNumbers(v.core[i], w.core[i]); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	}
	a, b := strings.Split(v.pre, "."), strings.Split(w.pre, ".")
	for i := 0; i < len(a) && i < len(b); i++ {
		if c := compareIdentifiers(a[i], b[i]); c != 0 {
			return c
		}
	}
	return compareInts(len(a), len(b))
}

// compareIdentifiers orders pre-release identifiers: numbers by value and
// before all others, which are in byte order.
func compareIdentifiers(a, b string) int {
	switch aNumber, bNumber := isNumber(a), isNumber(b); {
	case aNumber && bNumber:
		return compareNumbers(a, b)
	case aNumber:
		return -1
	case bNumber:
		return 1
	}
	return strings.Compare(a, b)
}

// compareNumbers compares numbers without leading zeros.
func compareNumbers(a, b string) int {
	if c := compareInts(len(a), len(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

func compareInts(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func areIdentifiers(s string, pre bool) bool {
	for id := range strings.SplitSeq(s, ".") {
		if id == "" || strings.Trim(id, identifierBytes) != "" {
			return false
		}
		if pre && isNumber(id) && hasLeadingZero(id) {
			return false
		}
	}
	return true
}

const (
	digits          = "0123456789"
	identifierBytes = digits + "-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func isNumber(s string) bool { return s != "" && strings.Trim(s, digits) == "" }

func hasLeadingZero(s string) bool { return len(s) > 1 && s[0] == '0' }

// SemanticVersion takes the hello's software apart, which should be
// "name/semantic version". Errors satisfy errors.Is(err, ErrVersion).
func (h *Hello) SemanticVersion() (name string, v Version, err error) {
	name, text, ok := strings.Cut(h.Software, "/")
	if !ok || name == "" {
		return "", Version{}, fmt.Errorf("software %q is not name/version: %w", h.Software, ErrVersion)
	}
	v, err = ParseVersion(text)
	return name, v, err
}

// IsOlderThan reports whether the hello states a semantic version older than
// cutoff. One that states none is not older.
func (h *Hello) IsOlderThan(cutoff Version) bool {
	_, v, err := h.SemanticVersion()
	return err == nil && v.Compare(cutoff) < 0
}
