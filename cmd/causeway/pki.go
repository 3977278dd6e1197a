package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"causeway/crypto/pki"
)

// pkiRandom is where keys, serial numbers and addresses come from.
var pkiRandom = rand.Reader

func pkiCommand() *cobra.Command {
	at := new(timeFlag)
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Run a domain's authority; make and look at identities",
		Long: `Run a domain's authority; make and look at identities.

A domain has an authority (pki init), which certifies nodes (pki issue) and
lets routers route for it (pki grant).

To try it out, with all keys on one machine:

  causeway pki init  --domain prod.example --out ca
  causeway pki issue --ca ca --name billing-1 --out billing-1
  causeway pki grant --ca ca --name edge-1 --out edge-1
  causeway pki trust --ca ca --store trust

In earnest a key is made where it is used and never leaves:

  on the node       causeway pki request --name billing-1 --out billing-1
  on the authority  causeway pki issue --ca ca --csr node.csr   (node.csr copied from the node)
  on the node       put node.crt and root.crt, which that wrote, beside node.key

and for a router with request --router, and grant in place of issue.`,
		Args: cobra.NoArgs,
		RunE: needVerb,
	}
	cmd.PersistentFlags().Var(at, "at", "act as at this `TIME` (such as 2026-01-31T12:00:00Z) instead of now")
	cmd.AddCommand(
		pkiInitCommand(at), pkiRequestCommand(), pkiIssueCommand(at), pkiGrantCommand(at),
		pkiRenewCommand(at), pkiRevokeCommand(at), pkiCRLCommand(at), pkiTrustCommand(), pkiShowCommand(at),
	)
	return cmd
}

// timeFlag is a point in time; unset it is the present.
type timeFlag struct{ t time.Time }

func (f *timeFlag) String() string {
	if f.t.IsZero() {
		return ""
	}
	return f.t.Format(time.RFC3339)
}

func (f *timeFlag) Set(text string) (err error) {
	if f.t, err = time.Parse(time.RFC3339, text); err != nil {
		return errors.New("not a time such as 2026-01-31T12:00:00Z")
	}
	return nil
}

func (f *timeFlag) Type() string { return "time" }

func (f *timeFlag) now() time.Time {
	if f.t.IsZero() {
		return time.Now()
	}
	return f.t
}

// validityFlag is how long something is valid: 90s, 10m, 24h, 30d, 10y.
type validityFlag time.Duration

const (
	day         = 24 * time.Hour
	year        = 365 * day
	validityMax = 100 * year
)

var validityUnits = []struct {
	suffix string
	length time.Duration
}{{"y", year}, {"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

func (v *validityFlag) String() string {
	for _, u := range validityUnits {
		if d := time.Duration(*v); d >= u.length && d%u.length == 0 {
			return strconv.FormatInt(int64(d/u.length), 10) + u.suffix
		}
	}
	return time.Duration(*v).String()
}

func (v *validityFlag) Set(text string) error {
	for _, u := range validityUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/int64(u.length) || time.Duration(n)*u.length > validityMax {
			break
		}
		*v = validityFlag(time.Duration(n) * u.length)
		return nil
	}
	return errors.New("not a duration such as 10m, 24h, 30d or 10y, of at most 100y")
}

func (v *validityFlag) Type() string { return "duration" }

func addValidity(fl *pflag.FlagSet, v *validityFlag, what string) {
	fl.Var(v, "validity", "how long "+what+" is valid: `DURATION` such as 10m, 24h, 30d, 10y")
}

func addKeyType(fl *pflag.FlagSet, t *string) {
	fl.StringVar(t, "key-type", string(pki.KeyEd25519), "kind of key: `ed25519|p256`")
}

// checkKeyType reports a bad --key-type as what it is, a bad command line.
func checkKeyType(t string) (pki.KeyType, error) {
	switch k := pki.KeyType(t); k {
	case pki.KeyEd25519, pki.KeyP256:
		return k, nil
	}
	return "", usageError{fmt.Errorf("--key-type %q: must be ed25519 or p256", t)}
}

// required returns a usage error unless all flags were given.
func required(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := cmd.Flags().Lookup(name); f.Value.String() == "" {
			return usageError{fmt.Errorf("%s needs --%s; run %s --help", cmd.CommandPath(), name, cmd.CommandPath())}
		}
	}
	return nil
}

// exactlyOne returns a usage error unless one of the flags was given.
func exactlyOne(cmd *cobra.Command, flags ...string) error {
	n := 0
	for _, name := range flags {
		if cmd.Flags().Lookup(name).Value.String() != "" {
			n++
		}
	}
	if n == 1 {
		return nil
	}
	return usageError{fmt.Errorf("%s needs one of --%s; run %s --help", cmd.CommandPath(), strings.Join(flags, ", --"), cmd.CommandPath())}
}

func addressText(a [pki.AddressSize]byte) string { return netip.AddrFrom16(a).String() }

// span says how long something lasts, rounded, in one unit.
func span(d time.Duration) string {
	d = max(d, -d)
	count := func(n time.Duration, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return strconv.FormatInt(int64(n), 10) + " " + unit + "s"
	}
	switch {
	case d >= 2*year:
		return count(d.Round(year)/year, "year")
	case d >= 2*day:
		return count(d.Round(day)/day, "day")
	case d >= 2*time.Hour:
		return count(d.Round(time.Hour)/time.Hour, "hour")
	case d >= 2*time.Minute:
		return count(d.Round(time.Minute)/time.Minute, "minute")
	}
	return count(d.Round(time.Second)/time.Second, "second")
}

// validityText says when something is valid, and what that means at now.
func validityText(from, to, now time.Time) string {
	text := from.UTC().Format(time.RFC3339) + " to " + to.UTC().Format(time.RFC3339)
	switch {
	case now.Before(from):
		return text + " (not yet: begins in " + span(from.Sub(now)) + ")"
	case now.After(to):
		return text + " (EXPIRED " + span(now.Sub(to)) + " ago)"
	}
	return text + " (" + span(to.Sub(now)) + " left)"
}
