package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"causeway/engine"
	"causeway/engine/gate"
)

// admissionLimits are the limits that lines of the firewall file can set, as the
// flags have them.
type admissionLimits struct {
	gate.Limits
	badSignatures int
	idle          time.Duration
}

func defaultLimits() admissionLimits {
	l := admissionLimits{Limits: gate.DefaultLimits(), badSignatures: engine.BadSignaturesDefault}
	l.Handshakes = engine.HandshakesMaxDefault
	return l
}

// check checks what the flags say.
func (l *admissionLimits) check() error {
	switch {
	case l.Handshakes < 1 || l.badSignatures < 1:
		return errors.New("--max-handshakes and --max-bad-signatures must be at least 1")
	case l.idle < 0:
		return errors.New("--idle-timeout must not be negative; 0: never")
	case l.Check() != nil:
		return errors.New("--max-connections, --max-connections-per-source, --max-waiting, --max-handshakes-per-source and --max-handshake-rate must not be negative; 0: no limit")
	}
	return nil
}

// limitLines set limits by the names of their flags.
var limitLines = map[string]func(l *admissionLimits, value string) error{
	"max-connections":            func(l *admissionLimits, v string) error { return setCount(&l.Connections, v, 0) },
	"max-connections-per-source": func(l *admissionLimits, v string) error { return setCount(&l.ConnectionsPerSource, v, 0) },
	"max-waiting":                func(l *admissionLimits, v string) error { return setCount(&l.Waiting, v, 0) },
	"max-handshakes":             func(l *admissionLimits, v string) error { return setCount(&l.Handshakes, v, 1) },
	"max-handshakes-per-source":  func(l *admissionLimits, v string) error { return setCount(&l.HandshakesPerSource, v, 0) },
	"max-handshake-rate":         func(l *admissionLimits, v string) error { return setCount(&l.HandshakeRate, v, 0) },
	"max-bad-signatures":         func(l *admissionLimits, v string) error { return setCount(&l.badSignatures, v, 1) },
	"idle-timeout":               func(l *admissionLimits, v string) error { return setTime(&l.idle, v) },
}

// countMax is the largest number of a limit: the rate's.
const countMax = 1_000_000_000

func setCount(to *int, text string, least int) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || int(n) < least || n > countMax || len(text) > 1 && text[0] == '0' {
		meaning := ""
		if least == 0 {
			meaning = "; 0: no limit"
		}
		return fmt.Errorf("must be a number from %d to %d%s", least, countMax, meaning)
	}
	*to = int(n)
	return nil
}

func setTime(to *time.Duration, text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("must be a duration such as 90s or 12h; 0: never")
	}
	*to = d
	return nil
}

// take sets what the file's lines say.
func (l *admissionLimits) take(lines []gate.LimitLine) error {
	for _, line := range lines {
		set := limitLines[line.Name]
		if set == nil {
			return fmt.Errorf("line %d: there is no limit %q; there are %s", line.Line, line.Name, strings.Join(slices.Sorted(maps.Keys(limitLines)), ", "))
		}
		if err := set(l, line.Value); err != nil {
			return fmt.Errorf("line %d: %s: %w", line.Line, line, err)
		}
	}
	return nil
}

// readFirewall reads a --firewall file. Its errors name the file and the line.
func readFirewall(name string) (f gate.File, err error) {
	file, err := os.Open(name)
	if err != nil {
		return f, fmt.Errorf("--firewall: %w", err)
	}
	defer file.Close()
	if f, err = gate.ParseFile(file); err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// admission fills in who may connect and how many: what the flags say, or the
// firewall file instead.
func (f *serveFlags) admission() error {
	c, limits := &f.engine, f.limits
	if f.firewall != "" {
		file, err := readFirewall(f.firewall)
		if err != nil {
			return err
		}
		if err := limits.take(file.Limits); err != nil {
			return fmt.Errorf("%s: %w", f.firewall, err)
		}
		c.Firewall = file.List
	}
	c.Limits, c.HandshakesMax = &limits.Limits, limits.Handshakes
	c.BadSignatures, c.IdleTimeout = limits.badSignatures, limits.idle
	return nil
}

// ruleCount returns how many lines say who may connect; 0: everybody may.
func ruleCount(l *gate.List) int {
	if l == nil {
		return 0
	}
	return len(l.Rules())
}
