package pki

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of names, in bytes (RFC 1035 section 2.3.4 for the domain's).
const (
	domainMax = 253
	labelMax  = 63
	nameMax   = 63

	quotedMax = 80 // of a bad value, how much an error message repeats
)

// CheckDomain reports whether d may name a domain: labels of 1 to 63
// lower-case letters, digits and inner hyphens, joined by single dots, at most
// 253 bytes, the last label not all digits (so that no domain reads as an IPv4
// address). Whatever passes is safe as one element of a path. The error says
// what is wrong and shows a good one.
func CheckDomain(d string) error {
	if problem := domainProblem(d); problem != nil {
		return fmt.Errorf("domain %s: %w; a domain looks like prod.example", quoted(d), problem)
	}
	return nil
}

// CheckName reports whether n may name a node or a router:
// [a-z0-9][a-z0-9._-]{0,62}. Whatever passes is safe as one element of a path.
func CheckName(n string) error {
	if problem := nameProblem(n); problem != nil {
		return fmt.Errorf("name %s: %w; a name looks like billing-1", quoted(n), problem)
	}
	return nil
}

// Preallocated, because both checks also judge what peers send.
var (
	errEmpty       = errors.New("is empty")
	errDomainLong  = errors.New("is longer than 253 bytes")
	errLabelLength = errors.New("has a label that is empty or longer than 63 bytes")
	errLabelHyphen = errors.New("has a label that begins or ends with a hyphen")
	errDomainByte  = errors.New("has something other than lower-case letters, digits, hyphens and dots")
	errDomainDigit = errors.New("ends in a label of digits only")
	errNameLong    = errors.New("is longer than 63 bytes")
	errNameFirst   = errors.New("must begin with a lower-case letter or a digit")
	errNameByte    = errors.New("has something other than lower-case letters, digits, '.', '_' and '-'")
)

func domainProblem(d string) error {
	if d == "" {
		return errEmpty
	}
	if len(d) > domainMax {
		return errDomainLong
	}
	last := ""
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > labelMax {
			return errLabelLength
		}
		for i := range len(label) {
			if !isLowerOrDigit(label[i]) && label[i] != '-' {
				return errDomainByte
			}
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return errLabelHyphen
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return errDomainDigit
	}
	return nil
}

func nameProblem(n string) error {
	if n == "" {
		return errEmpty
	}
	if len(n) > nameMax {
		return errNameLong
	}
	if !isLowerOrDigit(n[0]) {
		return errNameFirst
	}
	for i := range len(n) {
		if c := n[i]; !isLowerOrDigit(c) && c != '.' && c != '_' && c != '-' {
			return errNameByte
		}
	}
	return nil
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// quoted shows a value that somebody else chose: quoted, and not all of it.
func quoted(s string) string {
	if len(s) > quotedMax {
		return fmt.Sprintf("%q…", s[:quotedMax])
	}
	return fmt.Sprintf("%q", s)
}
