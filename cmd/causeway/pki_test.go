package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/crypto/pki"
)

// causeway runs a command line that must work, in words split at blanks, and
// returns what it printed.
func causeway(t *testing.T, line string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(strings.Fields(line), strings.NewReader(""), &stdout, &stderr); code != exitOK {
		t.Fatalf("causeway %s: exit code %d, %s", line, code, stderr.String())
	}
	return stdout.String()
}

func TestIdentitiesAndStoresMadeHereLoadAndVerify(t *testing.T) {
	t.Chdir(t.TempDir())
	causeway(t, "pki init --domain prod.example --out ca")
	causeway(t, "pki init --root ca --out below --key-type p256")
	causeway(t, "pki init --domain lab.example --out lab --key-type p256")
	causeway(t, "pki issue --ca ca --name one --out one")
	causeway(t, "pki issue --ca below --name two --out two --key-type p256")
	causeway(t, "pki request --name three --out three")
	causeway(t, "pki issue --ca ca --csr three/node.csr")
	causeway(t, "pki grant --ca below --name edge-1 --out edge")
	causeway(t, "pki grant --ca lab --name edge-1 --out edge")
	for _, ca := range []string{"ca", "below", "lab"} {
		causeway(t, "pki trust --store trust --ca "+ca)
	}
	now := time.Now()
	store, err := pki.LoadStore(os.DirFS("trust"))
	if err != nil {
		t.Fatal(err)
	}
	if alarms := store.Alarms(now); len(alarms) > 0 {
		t.Errorf("alarms: %v", alarms)
	}
	for dir, chain := range map[string]int{"one": 1, "two": 2, "three": 1} {
		id, err := pki.LoadIdentity(os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Check(nil, now); err != nil {
			t.Error(err)
		}
		peer, err := store.VerifyDER(id.Peer.Chain, "prod.example", now)
		if err != nil {
			t.Fatal(err)
		}
		if len(peer.Chain) != chain || peer.Name != dir || peer.RevocationUnknown {
			t.Errorf("%s verifies as %+v", dir, peer)
		}
	}
	router, err := pki.LoadIdentity(os.DirFS("edge"))
	if err != nil {
		t.Fatal(err)
	}
	if err := router.Check(store, now); err != nil || len(router.Grants) != 2 {
		t.Errorf("router with %d grants: %v", len(router.Grants), err)
	}

	causeway(t, "pki revoke --ca below --name two")
	causeway(t, "pki trust --store trust --ca below")
	if store, err = pki.LoadStoreAfter(os.DirFS("trust"), store); err != nil {
		t.Fatal(err)
	}
	two, err := pki.LoadIdentity(os.DirFS("two"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.VerifyDER(two.Peer.Chain, "prod.example", now)
	if reason, ok := pki.ReasonOf(err); !ok || reason != pki.ReasonRevoked {
		t.Errorf("the revoked node: %v", err)
	}
}

func TestKeyThatOthersCanReadIsRefusedWithTheCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	causeway(t, "pki init --domain prod.example --out ca")
	causeway(t, "pki issue --ca ca --name one --out one")
	if err := os.Chmod("one/node.key", 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := pki.LoadIdentity(os.DirFS("one"))
	want := "one/node.key is a private key that others can read (mode 0644); run chmod 600 one/node.key"
	if err = pki.WithDir(err, "one"); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A process that died between writing the list and moving the record leaves
// the record among the issued ones.
func TestRevokedRecordLeftBehindIsNotLive(t *testing.T) {
	t.Chdir(t.TempDir())
	causeway(t, "pki init --domain prod.example --out ca")
	causeway(t, "pki issue --ca ca --name one --out one")
	causeway(t, "pki revoke --ca ca --name one")
	moved, err := filepath.Glob("ca/revoked/*.crt")
	if err != nil || len(moved) != 1 {
		t.Fatalf("revoked: %v, %v", moved, err)
	}
	if err := os.Rename(moved[0], filepath.Join("ca/issued", filepath.Base(moved[0]))); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(strings.Fields("pki renew --ca ca --identity one"), nil, &stdout, &stderr); code != exitError {
		t.Errorf("renewed what is on the list: %s", stdout.String())
	}
	causeway(t, "pki issue --ca ca --name one --out again")
}

// Records of a name that is renewed every few minutes do not pile up for ever.
func TestLongExpiredRecordsOfARenewedNameGo(t *testing.T) {
	t.Chdir(t.TempDir())
	causeway(t, "pki init --domain prod.example --out ca --at 2026-01-01T00:00:00Z")
	causeway(t, "pki issue --ca ca --name one --out one --validity 10m --at 2026-01-01T00:00:00Z")
	causeway(t, "pki issue --ca ca --name two --out two --validity 10m --at 2026-01-01T00:00:00Z")
	count := func() int {
		files, err := filepath.Glob("ca/issued/*.crt")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	causeway(t, "pki renew --ca ca --identity one --validity 10m --at 2026-01-02T00:00:00Z")
	if n := count(); n != 3 {
		t.Errorf("%d records a day later, want all 3", n)
	}
	causeway(t, "pki renew --ca ca --identity one --validity 10m --at 2026-03-01T00:00:00Z")
	if n := count(); n != 2 {
		t.Errorf("%d records two months later, want the newest of each name", n)
	}
}

func TestValidityFlagReadsAndShowsUnits(t *testing.T) {
	check := func(text string, want time.Duration, shown string) {
		t.Helper()
		var v validityFlag
		if err := v.Set(text); err != nil || time.Duration(v) != want || v.String() != shown {
			t.Errorf("%s reads as %v and shows as %s (%v)", text, time.Duration(v), v.String(), err)
		}
	}
	check("90s", 90*time.Second, "90s")
	check("10m", 10*time.Minute, "10m")
	check("24h", day, "1d")
	check("30d", 30*day, "30d")
	check("3650d", 3650*day, "10y")
	check("10y", 3650*day, "10y")
	check("100y", validityMax, "100y")
	for _, bad := range []string{"", "d", "0d", "-1d", "1", "1w", "1.5d", "101y", "36501d", "9223372036854775807y", "1 d", "10Y"} {
		var v validityFlag
		if v.Set(bad) == nil {
			t.Errorf("%q passes as %v", bad, time.Duration(v))
		}
	}
}

func TestSpanIsRoundedInOneUnit(t *testing.T) {
	check := func(d time.Duration, want string) {
		t.Helper()
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	check(0, "0 seconds")
	check(time.Second, "1 second")
	check(-90*time.Second, "90 seconds")
	check(3*time.Minute, "3 minutes")
	check(30*day-time.Second, "30 days")
	check(36*time.Hour, "36 hours")
	check(10*year-5*time.Minute, "10 years")
}
