package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/gate"
)

// Keys of changes, besides those of limits, which have their flag's name. They
// are labels of causeway_config_changes_total.
const (
	keyDomain = "domain" // served or not
	keyTrust  = "trust"  // in the trust store or not
	keyRoot   = "root"
	keyCRL    = "crl"
	keyGrant  = "grant"

	keyFirewall = "firewall"
)

// Change is one thing that a reload has changed, or would have.
type Change struct {
	Key     string // domain, trust, root, crl, grant, firewall, or the flag of a limit
	Domain  string // of which; "" for the firewall and limits
	What    string // which of the domain's; may be empty
	From    string // "" when it was not there
	To      string // "" when it is no longer there
	Why     string // may be empty
	Restart bool   // it takes effect when the router is started anew
}

func (c Change) String() string {
	var b strings.Builder
	b.WriteString(c.Key)
	for _, s := range []string{c.Domain, c.What} {
		if s != "" {
			b.WriteString(" " + s)
		}
	}
	from, to := c.From, c.To
	if from == "" {
		from = "none"
	}
	if to == "" {
		to = "none"
	}
	b.WriteString(": " + from + " → " + to)
	if c.Why != "" {
		b.WriteString(" (" + c.Why + ")")
	}
	if c.Restart {
		b.WriteString(", after a restart")
	}
	return b.String()
}

// changesTo returns what is different in next, in the order in which it is of
// interest: who is served, who is trusted, own certificates, limits.
func (s *state) changesTo(next *state) (all []Change) {
	all = append(all, s.domainChanges(next)...)
	all = append(all, trustChanges(s.config.Store, next.config.Store)...)
	all = append(all, s.grantChanges(next)...)
	if from, to := s.config.Firewall, next.config.Firewall; !gate.Same(from, to) {
		all = append(all, Change{Key: keyFirewall, From: firewallText(from), To: firewallText(to)})
	}
	for _, l := range limits {
		before, after := l.get(&s.asked), l.get(&next.asked)
		if before != after {
			all = append(all, Change{Key: l.flag, From: before, To: after, Restart: l.fixed})
		}
	}
	return all
}

func (s *state) domainChanges(next *state) (all []Change) {
	for _, name := range union(s.domains, next.domains) {
		before, after := s.domains[name], next.domains[name]
		switch {
		case before == nil:
			all = append(all, Change{Key: keyDomain, Domain: name, To: "served"})
		case after == nil:
			why := "there is no grant any more"
			if err := next.refused[name]; err != nil {
				why = err.Error()
			}
			all = append(all, Change{Key: keyDomain, Domain: name, From: "served", Why: why})
		}
	}
	return all
}

func trustChanges(before, after *pki.Store) (all []Change) {
	for _, name := range union(set(before.Domains()), set(after.Domains())) {
		was, is := slices.Contains(before.Domains(), name), slices.Contains(after.Domains(), name)
		if was != is {
			c := Change{Key: keyTrust, Domain: name}
			if was {
				c.From = "trusted"
			} else {
				c.To = "trusted"
			}
			all = append(all, c)
		}
		all = append(all, rootChanges(name, rootsOf(before, name), rootsOf(after, name))...)
		all = append(all, listChanges(name, listsOf(before, name), listsOf(after, name))...)
	}
	return all
}

func rootChanges(domain string, before, after map[string]string) (all []Change) {
	for _, id := range union(before, after) {
		if before[id] != after[id] {
			all = append(all, Change{Key: keyRoot, Domain: domain, What: id, From: before[id], To: after[id]})
		}
	}
	return all
}

func listChanges(domain string, before, after map[string]pki.List) (all []Change) {
	for _, issuer := range union(before, after) {
		if from, to := before[issuer], after[issuer]; from.Number != to.Number {
			all = append(all, Change{Key: keyCRL, Domain: domain, What: to.Issuer, From: from.Number, To: to.Number})
		}
	}
	return all
}

// rootsOf returns, by certificate ID, until when the domain's roots are valid.
func rootsOf(s *pki.Store, domain string) map[string]string {
	all := make(map[string]string)
	for _, root := range s.Roots(domain) {
		all[codec.CertID(pki.CertID(root.Raw)).String()] = until(root.NotAfter)
	}
	return all
}

// listsOf returns the domain's revocation lists by issuer.
func listsOf(s *pki.Store, domain string) map[string]pki.List {
	all := make(map[string]pki.List)
	for _, l := range s.Lists(domain) {
		all[l.Issuer] = l
	}
	return all
}

func (s *state) grantChanges(next *state) (all []Change) {
	names := append(union(s.domains, next.domains), union(s.refused, next.refused)...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		before, after := s.domains[name], next.domains[name]
		another := s.refusedFor(name) != next.refusedFor(name)
		var c Change
		switch {
		case before == nil && after == nil && another: // a grant of no use, of a domain that is not served
			c = Change{Key: keyGrant, Domain: name, From: s.refusedFor(name), To: next.refusedFor(name), Why: next.refusal(name)}
		case before != nil && after != nil && before.certID != after.certID:
			c = Change{Key: keyGrant, Domain: name, From: grantText(before), To: grantText(after)}
		case before != nil && after != nil && next.refused[name] != nil && another:
			c = Change{Key: keyGrant, Domain: name, From: grantText(before), To: "stays", Why: next.refusal(name)}
		default:
			continue
		}
		all = append(all, c)
	}
	return all
}

func firewallText(l *gate.List) string {
	if l == nil {
		return "everybody"
	}
	return fmt.Sprintf("lines: %d", len(l.Rules()))
}

// refusedFor returns the kind of reason for which the domain's grant was refused; ""
// when it was not.
func (s *state) refusedFor(name string) string {
	err := s.refused[name]
	if err == nil {
		return ""
	}
	if reason, ok := pki.ReasonOf(err); ok {
		return "refused: " + reason.String() // texts have the time
	}
	return "refused: " + err.Error()
}

// refusal returns why the domain's grant was refused; "" when it was not.
func (s *state) refusal(name string) string {
	if err := s.refused[name]; err != nil {
		return err.Error()
	}
	return ""
}

func grantText(d *domain) string {
	return d.certID.String() + " " + until(d.grant.NotAfter)
}

func until(t time.Time) string { return "until " + t.UTC().Format(time.RFC3339) }

// limits are the numbers of Config, by the name of their flag. fixed: they
// are what they were when the router started.
var limits = []struct {
	flag  string
	fixed bool
	get   func(c *Config) string
}{
	{"max-skew", false, func(c *Config) string { return c.SkewMax.String() }},
	{"max-ttl", false, func(c *Config) string { return fmt.Sprint(c.TTLMax) }},
	{"pause-max", false, func(c *Config) string { return max(c.PauseMax, 0).String() }},
	{"stall-timeout", false, func(c *Config) string { return c.StallTimeout.String() }},
	{"hold-timeout", false, func(c *Config) string { return max(c.HoldTimeout, 0).String() }},
	{"drain-to", false, func(c *Config) string { return strings.Join(c.DrainTo, " ") }},
	{"hello-timeout", false, func(c *Config) string { return c.HelloTimeout.String() }},
	{"max-bad-signatures", false, func(c *Config) string { return fmt.Sprint(c.BadSignatures) }},
	{"idle-timeout", false, func(c *Config) string { return c.IdleTimeout.String() }},
	{"max-connections", false, func(c *Config) string { return fmt.Sprint(c.Limits.Connections) }},
	{"max-connections-per-source", false, func(c *Config) string { return fmt.Sprint(c.Limits.ConnectionsPerSource) }},
	{"max-waiting", false, func(c *Config) string { return fmt.Sprint(c.Limits.Waiting) }},
	{"max-handshakes", false, func(c *Config) string { return fmt.Sprint(c.HandshakesMax) }},
	{"max-handshakes-per-source", false, func(c *Config) string { return fmt.Sprint(c.Limits.HandshakesPerSource) }},
	{"max-handshake-rate", false, func(c *Config) string { return fmt.Sprint(c.Limits.HandshakeRate) }},
	{"require-aes-gcm", false, func(c *Config) string { return fmt.Sprint(c.RequireAESGCM) }},
	{"versionCutoff", false, func(c *Config) string { return c.VersionCutoff }},
	{"nodeCost", false, func(c *Config) string { return fmt.Sprint(c.NodeCost) }},
	{"connectTo", false, func(c *Config) string { return strings.Join(c.Connect, " ") }},
	{"link-cost", false, func(c *Config) string { return costsText(c.LinkCosts) }},
	{"link-domain", false, func(c *Config) string { return c.LinkDomain }},
	{"link-renewal", false, func(c *Config) string { return c.LinkRenewal.String() }},
	{"discovery", false, func(c *Config) string { return fmt.Sprint(!c.NoDiscovery) }},
	{"forward-domain", false, func(c *Config) string { return strings.Join(c.ForwardDomains, " ") }},
	{"loops", true, func(c *Config) string { return fmt.Sprint(c.Loops) }},
	{"pin", true, func(c *Config) string { return fmt.Sprint(c.CPUs) }},
	{"verify", true, func(c *Config) string { return c.verifies() }},
	{"verify-workers", true, func(c *Config) string { return fmt.Sprint(c.VerifyWorkers) }},
	{"verify-pin", true, func(c *Config) string { return fmt.Sprint(c.VerifyCPUs) }},
	{"max-body", true, func(c *Config) string { return fmt.Sprint(c.BodyMax) }},
	{"queue-high", true, func(c *Config) string { return fmt.Sprint(c.QueueHigh) }},
	{"queue-low", true, func(c *Config) string { return fmt.Sprint(c.QueueLow) }},
	{"max-partial", true, func(c *Config) string { return fmt.Sprint(c.PartialMax) }},
	{"memory", true, func(c *Config) string { return fmt.Sprint(c.Memory) }},
	{"keep-alive", true, func(c *Config) string { return c.KeepAlive.String() }},
	{"dead-after", true, func(c *Config) string { return c.DeadAfter.String() }},
	{"handshake-timeout", true, func(c *Config) string { return c.HandshakeTimeout.String() }},
	{"max-addresses", true, func(c *Config) string { return fmt.Sprint(c.AddressesMax) }},
	{"receive-buffer", true, func(c *Config) string { return fmt.Sprint(c.ReceiveBuffer) }},
}

// costsText writes costs of links as --link-cost has them.
func costsText(costs map[string]uint16) string {
	var all []string
	for target, cost := range costs {
		text := fmt.Sprint(cost)
		if target != "" {
			text = codec.URLScheme + target + "=" + text
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// union returns the keys of both, sorted.
func union[V any](a, b map[string]V) []string {
	var keys []string
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, there := a[k]; !there {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func set(names []string) map[string]struct{} {
	s := make(map[string]struct{}, len(names))
	for _, n := range names {
		s[n] = struct{}{}
	}
	return s
}
