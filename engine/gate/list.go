package gate

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
)

// listRulesMax bounds a list, so that a wrong file is an error and not a long
// wait.
const listRulesMax = 65_536

// mappedBits is the length of ::ffff:0:0/96, under which IPv4 is written in IPv6.
const mappedBits = 96

// Rule is one line of a List.
type Rule struct {
	Line   int // in its file, from 1
	Allow  bool
	Prefix netip.Prefix // masked; never IPv4 in IPv6
	Max    int          // concurrent connections; 0: no bound
}

func (r Rule) String() string {
	s := "deny " + r.Prefix.String()
	if r.Allow {
		s = "allow " + r.Prefix.String()
	}
	if r.Max > 0 {
		s += " max " + strconv.Itoa(r.Max)
	}
	return s
}

// List is a firewall: immutable. What no line matches is denied.
//
// Prefixes contain each other or are disjoint, so the first line that contains
// an address is the least of at most one line per prefix length in use: a
// lookup costs one map access per length, however many lines there are.
type List struct {
	rules []Rule
	index map[netip.Prefix]int // of rules
	bits4 []int                // lengths in use, of IPv4
	bits6 []int
}

// Rules returns the lines, borrowed.
func (l *List) Rules() []Rule { return l.rules }

// Same tells whether two lists say the same, in whatever lines of their files;
// nil says that everybody may connect.
func Same(a, b *List) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.rules, b.rules, func(x, y Rule) bool {
		x.Line = y.Line
		return x == y
	})
}

// Match returns the index of the rule that decides about a, or -1 when none
// does: a is denied then. IPv4 written in IPv6 counts as IPv4; zones are
// ignored.
func (l *List) Match(a netip.Addr) int {
	a = a.Unmap().WithZone("")
	lengths := l.bits6
	if a.Is4() {
		lengths = l.bits4
	}
	first := math.MaxInt
	for _, bits := range lengths {
		p, err := a.Prefix(bits)
		if err != nil {
			continue // the zero Addr
		}
		if i, ok := l.index[p]; ok {
			first = min(first, i)
		}
	}
	if first == math.MaxInt {
		return -1
	}
	return first
}

// parse adds a line about who may connect.
func (l *List) parse(fields []string, line int) error {
	rule, err := parseRule(fields)
	if err != nil {
		return err
	}
	rule.Line = line
	return l.add(rule)
}

func parseRule(fields []string) (r Rule, err error) {
	switch fields[0] {
	case "allow":
		r.Allow = true
	case "deny":
	default:
		return r, fmt.Errorf("%q: %w", fields[0], errSyntax)
	}
	if len(fields) != 2 && len(fields) != 4 {
		return r, errSyntax
	}
	if r.Prefix, err = parseCIDR(fields[1]); err != nil || len(fields) == 2 {
		return r, err
	}
	if !r.Allow || fields[2] != "max" {
		return r, errSyntax
	}
	n, err := strconv.ParseUint(fields[3], 10, 31)
	if err != nil || n == 0 || fields[3][0] == '0' {
		return r, fmt.Errorf("max %q: must be a number from 1 to %d", fields[3], math.MaxInt32)
	}
	r.Max = int(n)
	return r, nil
}

func parseCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if a, alone := netip.ParseAddr(text); alone == nil && a.Zone() == "" {
			return p, fmt.Errorf("%q has no length: write %s/%d", text, a, a.BitLen())
		}
		return p, fmt.Errorf("%q is no CIDR such as 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < mappedBits {
			return p, fmt.Errorf("%q mixes IPv4 and IPv6: write one line for each", text)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	if masked := p.Masked(); masked != p {
		return p, fmt.Errorf("%q has bits set behind its length: write %s", text, masked)
	}
	return p, nil
}

// add appends r, unless an earlier line leaves nothing for it.
func (l *List) add(r Rule) error {
	if len(l.rules) == listRulesMax {
		return fmt.Errorf("more than %d lines", listRulesMax)
	}
	lengths := &l.bits6
	if r.Prefix.Addr().Is4() {
		lengths = &l.bits4
	}
	for _, bits := range *lengths {
		if bits > r.Prefix.Bits() {
			continue
		}
		wider, err := r.Prefix.Addr().Prefix(bits)
		if err != nil {
			return err
		}
		if i, ok := l.index[wider]; ok {
			return fmt.Errorf("%s never decides: %s in line %d comes first; move it up or take it out", r.Prefix, l.rules[i], l.rules[i].Line)
		}
	}
	if i, there := slices.BinarySearch(*lengths, r.Prefix.Bits()); !there {
		*lengths = slices.Insert(*lengths, i, r.Prefix.Bits())
	}
	l.index[r.Prefix] = len(l.rules)
	l.rules = append(l.rules, r)
	return nil
}
