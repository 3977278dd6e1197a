package pki

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// Reason is why a chain was refused; its String is a metric label.
type Reason uint8

// Reasons, in the order in which Verify looks for them.
const (
	ReasonMalformed         Reason = iota // not certificates, or too many
	ReasonUnknownDomain                   // the store has no such domain
	ReasonUnknownRoot                     // ends in no root of the domain
	ReasonNotYetValid                     // before its time
	ReasonExpired                         // after its time
	ReasonBadChain                        // the intermediate breaks a rule
	ReasonBadKey                          // neither Ed25519 nor P-256
	ReasonBadUsage                        // key usages, or a CA where none may be
	ReasonCriticalExtension               // one that nobody here understands
	ReasonBadURI                          // the URI names are not one good one
	ReasonBadAddress                      // the IP addresses are not one
	ReasonWrongPrefix                     // the address is not of the domain
	ReasonWrongRole                       // node and router confused
	ReasonBadDNSName                      // one too many, or missing, or another's
	ReasonBadName                         // names of other types
	ReasonConstraint                      // outside an authority's name constraints
	ReasonRevoked                         // on its issuer's list

	reasons // their number
)

var reasonLabels = [reasons]string{
	ReasonMalformed:         "malformed",
	ReasonUnknownDomain:     "unknown-domain",
	ReasonUnknownRoot:       "unknown-root",
	ReasonNotYetValid:       "not-yet-valid",
	ReasonExpired:           "expired",
	ReasonBadChain:          "bad-chain",
	ReasonBadKey:            "bad-key",
	ReasonBadUsage:          "bad-usage",
	ReasonCriticalExtension: "critical-extension",
	ReasonBadURI:            "bad-uri",
	ReasonBadAddress:        "bad-address",
	ReasonWrongPrefix:       "wrong-prefix",
	ReasonWrongRole:         "wrong-role",
	ReasonBadDNSName:        "bad-dns-name",
	ReasonBadName:           "bad-name",
	ReasonConstraint:        "constraint",
	ReasonRevoked:           "revoked",
}

// String returns the metric label.
func (r Reason) String() string {
	if r >= reasons {
		panic(fmt.Sprintf("pki: Reason %d is not one of the %d", uint8(r), uint8(reasons)))
	}
	return reasonLabels[r]
}

// Reasons returns all of them, for whoever counts by reason.
func Reasons() []Reason {
	all := make([]Reason, reasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Error is a refused certificate or chain.
type Error struct {
	Reason Reason
	Domain string // as asked for or found; may be empty
	Who    string // the certificate: its URI, else its subject; may be empty
	What   string // what is wrong with it; may be empty
	Remedy string // what mends it; may be empty

	// For ReasonExpired and ReasonNotYetValid: both sides of the comparison.
	NotBefore, NotAfter, Now time.Time

	Err error // the cause; may be nil
}

// Error says what is wrong with which certificate, and what mends it. Where
// time decided, it shows the certificate's and this machine's, because as
// often as not it is a clock that is wrong.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("certificate")
	if e.Who != "" {
		b.WriteString(" of ")
		b.WriteString(e.Who)
	}
	b.WriteString(" refused (" + e.Reason.String() + ")")
	if e.What != "" {
		b.WriteString(": " + e.What)
	}
	if !e.Now.IsZero() {
		fmt.Fprintf(&b, ": certificate valid from %s to %s, this machine's clock says %s",
			clockText(e.NotBefore), clockText(e.NotAfter), clockText(e.Now))
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of the Error in err's tree; ok is false when
// there is none.
func ReasonOf(err error) (r Reason, ok bool) {
	var e *Error
	if !errors.As(err, &e) {
		return 0, false
	}
	return e.Reason, true
}

func clockText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// dirMark stands for the directory in a FileError's remedy, since an fs.FS
// does not know where it stands.
const dirMark = "<dir>"

// FileError is a file of an identity directory, a trust store or an authority
// that is missing or wrong.
type FileError struct {
	Dir     string // as WithDir said; empty before
	File    string // within Dir
	Problem string
	Remedy  string // a command or an action; "<dir>" in it stands for Dir
	Err     error  // the cause; may be nil
}

// Error says which file, what is wrong with it, and what mends it.
func (e *FileError) Error() string {
	dir := e.Dir
	if dir == "" {
		dir = dirMark
	}
	text := path.Join(e.Dir, e.File) + " " + e.Problem
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		text += "; " + strings.ReplaceAll(e.Remedy, dirMark, dir)
	}
	return text
}

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// WithDir returns err with dir as the directory of the FileErrors in it, so
// that paths and commands in its text can be used as they stand. Other errors
// get dir as context; nil stays nil.
func WithDir(err error, dir string) error {
	if err == nil {
		return nil
	}
	var e *FileError
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	placed := *e
	placed.Dir = dir
	return &placed
}
