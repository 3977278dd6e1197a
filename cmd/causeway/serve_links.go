package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"causeway/engine"
)

// linkFlags are the flags about links to other routers.
type linkFlags struct {
	connect   []string
	costs     []string
	domain    string
	renewal   time.Duration
	discovery bool
	forward   []string

	targets []string // host:port of connect
}

func (f *linkFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.connect, "connect", nil, "`URL` of another router to keep a link to, besides connectTo of the connections file; may be repeated")
	fl.StringArrayVar(&f.costs, "link-cost", nil, "`URL=N`: cost of the link to that router, 1 to 65534; N alone: of all others, accepted ones too; may be repeated (default 1)")
	fl.StringVar(&f.domain, "link-domain", "", "`DOMAIN` that links are opened in; default: each that there is a grant of, in turn, until the other router takes one")
	fl.DurationVar(&f.renewal, "link-renewal", engine.LinkRenewalDefault, "another link takes the place of one that is so old, without a gap")
	fl.BoolVar(&f.discovery, "discovery", true, "use a link for all domains that both routers have; false: only for the one it was opened in")
	fl.StringArrayVar(&f.forward, "forward-domain", nil, "`DOMAIN` to forward for; may be repeated; default: all that there is a grant of")
}

// complete puts the flags into the engine's configuration.
func (f *linkFlags) complete(c *engine.Config) error {
	for _, u := range f.connect {
		target, err := engine.ParseURL(u)
		if err != nil {
			return fmt.Errorf("--connect: %w", err)
		}
		f.targets = withTargets(f.targets, []string{target})
	}
	if f.renewal <= 0 {
		return errors.New("--link-renewal must be above 0")
	}
	c.LinkCosts = make(map[string]uint16)
	for _, text := range f.costs {
		target, cost, err := parseLinkCost(text)
		if err != nil {
			return fmt.Errorf("--link-cost: %w", err)
		}
		c.LinkCosts[target] = cost
	}
	c.LinkDomain, c.LinkRenewal, c.NoDiscovery, c.ForwardDomains = f.domain, f.renewal, !f.discovery, f.forward
	return nil
}

// parseLinkCost reads URL=N, or N with target "".
func parseLinkCost(text string) (target string, cost uint16, err error) {
	number := text
	if at := strings.LastIndexByte(text, '='); at >= 0 {
		if target, err = engine.ParseURL(text[:at]); err != nil {
			return "", 0, err
		}
		number = text[at+1:]
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n < 1 || n > engine.LinkCostMax {
		return "", 0, fmt.Errorf("%q is not a cost from 1 to %d, or one for a router such as dbw://router.example:7100=10", text, engine.LinkCostMax)
	}
	return target, uint16(n), nil
}

// withTargets returns some and more, each once.
func withTargets(some, more []string) []string {
	all := slices.Clone(some)
	for _, target := range more {
		if !slices.Contains(all, target) {
			all = append(all, target)
		}
	}
	return all
}
