package pki

import (
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

// What Recheck says is what verifying the chain anew would say.
func TestRecheckAgreesWithVerifying(t *testing.T) {
	a, other := testAuthority(t, testDomain, KeyEd25519), testAuthority(t, testDomain, KeyEd25519)
	below := testIntermediate(t, a, KeyP256)
	direct, deep := testIssue(t, a, RoleNode, "direct", KeyEd25519), testIssue(t, below, RoleNode, "deep", KeyEd25519)
	list := func(by *Authority, revoked *x509.Certificate) []byte {
		der, err := by.SignCRL(big.NewInt(1), []x509.RevocationListEntry{{SerialNumber: revoked.SerialNumber, RevocationTime: testNow}}, testNow, time.Hour, testRandom)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	withBelow, err := NewStore(testDomain, []*x509.Certificate{a.Root, below.Intermediate}, list(below, deep.leaf))
	if err != nil {
		t.Fatal(err)
	}
	both, err := NewStore(testDomain, []*x509.Certificate{other.Root, a.Root})
	if err != nil {
		t.Fatal(err)
	}
	stores := map[string]*Store{
		"the same":                testStore(t, a),
		"a second root":           both,
		"the leaf revoked":        testStore(t, a, list(a, direct.leaf)),
		"the intermediate":        testStore(t, a, list(a, below.Intermediate)),
		"a leaf below it revoked": withBelow,
		"another root":            testStore(t, other),
		"another domain":          testStore(t, testAuthority(t, "lab.example", KeyEd25519)),
	}
	refused := 0
	for name, s := range stores {
		for _, of := range []issued{direct, deep} {
			peer, err := testStore(t, a).VerifyDER(of.chain, testDomain, testNow)
			if err != nil {
				t.Fatal(err)
			}
			for _, now := range []time.Time{testNow, testNow.Add(2 * DefaultLeafValidity), testNow.Add(-24 * time.Hour)} {
				_, want := s.VerifyDER(of.chain, testDomain, now)
				got := s.Recheck(peer, now)
				wantR, wantBad := ReasonOf(want)
				gotR, gotBad := ReasonOf(got)
				if wantBad != gotBad || wantR != gotR {
					t.Errorf("%s, %s: %v, verifying says %v", name, peer.Name, got, want)
				}
				if gotBad {
					refused++
				}
			}
		}
	}
	if refused < 20 {
		t.Errorf("only %d refusals: does the test still try anything?", refused)
	}
}

func TestListsSayWhichIsNewer(t *testing.T) {
	a := testAuthority(t, testDomain, KeyEd25519)
	of := func(number int64) List {
		der, err := a.SignCRL(big.NewInt(number), nil, testNow, time.Hour, testRandom)
		if err != nil {
			t.Fatal(err)
		}
		lists := testStore(t, a, der).Lists(testDomain)
		if len(lists) != 1 || lists[0].Issuer == "" || string(lists[0].DER) != string(der) {
			t.Fatalf("lists: %+v", lists)
		}
		return lists[0]
	}
	nine, ten := of(9), of(10)
	if !ten.Newer(nine) || nine.Newer(ten) || nine.Newer(nine) || !nine.Newer(List{}) {
		t.Error("numbers 9 and 10 are not compared as numbers")
	}
	if testStore(t, a).Lists("lab.example") != nil {
		t.Error("lists of a domain that is not there")
	}
}
