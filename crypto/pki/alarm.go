package pki

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// AlarmKind tells alarms apart; its String is a metric label.
type AlarmKind uint8

// What a trust store can be alarmed about.
const (
	AlarmPrefixTaken     AlarmKind = iota // a domain left out: another has its prefix
	AlarmListMissing                      // an authority without a revocation list
	AlarmListExpired                      // a list past its next update; it stays in force
	AlarmListWentBack                     // a file older than the list in force, which stays
	AlarmRootExpired                      // a root past its time
	AlarmRootNotYetValid                  // a root before its time

	alarmKinds // their number
)

var alarmLabels = [alarmKinds]string{
	AlarmPrefixTaken:     "prefix-taken",
	AlarmListMissing:     "crl-missing",
	AlarmListExpired:     "crl-expired",
	AlarmListWentBack:    "crl-went-back",
	AlarmRootExpired:     "root-expired",
	AlarmRootNotYetValid: "root-not-yet-valid",
}

// String returns the metric label.
func (k AlarmKind) String() string {
	if k >= alarmKinds {
		panic(fmt.Sprintf("pki: AlarmKind %d is not one of the %d", uint8(k), uint8(alarmKinds)))
	}
	return alarmLabels[k]
}

// Alarm is something about a trust store that an operator should see to,
// although the store works.
type Alarm struct {
	Kind   AlarmKind
	Domain string
	File   string    // within the store; may be empty
	Other  string    // the domain that has the prefix, or the authority concerned
	Number string    // of the list in force
	Until  time.Time // when the list or root ended, or begins
}

// String says what is wrong, and the command that mends it.
func (a Alarm) String() string {
	const again = "; on the authority run causeway pki crl --ca DIR, then causeway pki trust --store DIR --ca DIR"
	switch a.Kind {
	case AlarmPrefixTaken:
		return fmt.Sprintf("domain %s is left out: its prefix is also that of %s, which was there first", a.Domain, a.Other)
	case AlarmListMissing:
		return fmt.Sprintf("domain %s: no revocation list of %s, so revoked certificates pass%s", a.Domain, a.Other, again)
	case AlarmListExpired:
		return fmt.Sprintf("domain %s: revocation list %s (number %s) should have been replaced by %s; it stays in force%s",
			a.Domain, a.File, a.Number, clockText(a.Until), again)
	case AlarmListWentBack:
		return fmt.Sprintf("domain %s: the revocation list on disk is older than number %s (%s), which stays in force%s", a.Domain, a.Number, a.File, again)
	case AlarmRootExpired:
		return fmt.Sprintf("domain %s: root %s expired at %s; nothing it signed is valid any more", a.Domain, a.File, clockText(a.Until))
	case AlarmRootNotYetValid:
		return fmt.Sprintf("domain %s: root %s is valid only from %s; is this machine's clock right?", a.Domain, a.File, clockText(a.Until))
	}
	panic(fmt.Sprintf("pki: AlarmKind %d without a text", uint8(a.Kind)))
}

// Alarms returns what is to be seen to at the time now, sorted by domain.
func (s *Store) Alarms(now time.Time) []Alarm {
	all := slices.Clone(s.alarms)
	for name, d := range s.domains {
		all = append(all, d.alarms(name, now)...)
	}
	slices.SortStableFunc(all, func(a, b Alarm) int {
		if c := strings.Compare(a.Domain, b.Domain); c != 0 {
			return c
		}
		if c := int(a.Kind) - int(b.Kind); c != 0 {
			return c
		}
		return strings.Compare(a.File+a.Other, b.File+b.Other)
	})
	return all
}

func (d *domainTrust) alarms(domain string, now time.Time) (all []Alarm) {
	for i, root := range d.roots {
		if now.After(root.NotAfter) {
			all = append(all, Alarm{Kind: AlarmRootExpired, Domain: domain, File: d.rootFiles[i], Until: root.NotAfter})
		}
		if now.Before(root.NotBefore) {
			all = append(all, Alarm{Kind: AlarmRootNotYetValid, Domain: domain, File: d.rootFiles[i], Until: root.NotBefore})
		}
	}
	for _, ca := range slices.Concat(d.roots, d.intermediates) {
		list := d.lists[issuerIDOf(ca)]
		switch {
		case list == nil:
			all = append(all, Alarm{Kind: AlarmListMissing, Domain: domain, Other: ca.Subject.String()})
		case now.After(list.nextUpdate):
			all = append(all, Alarm{Kind: AlarmListExpired, Domain: domain, File: list.file, Number: numberText(list.number), Until: list.nextUpdate})
		}
	}
	return all
}

func numberText(n *big.Int) string { return n.String() }
