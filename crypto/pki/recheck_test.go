package pki

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"runtime"
	"slices"
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
				if compact := s.Recheck(peer.Compact(), now); fmt.Sprint(compact) != fmt.Sprint(got) {
					t.Errorf("%s, %s: compact %v, else %v", name, peer.Name, compact, got)
				}
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

func TestACompactPeerSaysTheSame(t *testing.T) {
	a := testAuthority(t, testDomain, KeyEd25519)
	below := testIntermediate(t, a, KeyP256)
	s, err := NewStore(testDomain, []*x509.Certificate{a.Root, below.Intermediate})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []KeyType{KeyEd25519, KeyP256} {
		of := testIssue(t, below, RoleNode, "deep", kind)
		shown := [][]byte{bytes.Clone(of.chain[0]), bytes.Clone(of.chain[1])}
		p, err := s.VerifyDER(shown, testDomain, testNow)
		if err != nil {
			t.Fatal(err)
		}
		c := p.Compact()
		if c.Leaf != nil || !slices.EqualFunc(c.Chain, of.chain, bytes.Equal) || !SameKey(c.Public, p.Public) || c.URI() != p.URI() ||
			c.Address != p.Address || c.CertID != p.CertID || !c.NotAfter.Equal(p.NotAfter) || !c.NotBefore.Equal(p.NotBefore) || !c.Issued.Equal(p.Leaf.NotBefore) {
			t.Errorf("%+v became %+v", p, c)
		}
		clear(shown[0])
		clear(shown[1])
		if err := s.Recheck(c, testNow); err != nil || CertID(c.Chain[0]) != c.CertID || !bytes.Equal(c.Chain[1], below.Intermediate.Raw) {
			t.Errorf("it borrows from the chain: %v", err)
		}
		if again, err := s.VerifyDER(c.Chain, testDomain, testNow); err != nil || !SameKey(again.Public, c.Public) {
			t.Errorf("its chain: %v", err)
		}
	}
}

func TestACompactPeerKeepsNoLeaf(t *testing.T) {
	a := testAuthority(t, testDomain, KeyEd25519)
	of := testIssue(t, a, RoleNode, "one", KeyEd25519)
	gone := make(chan struct{})
	compact := func() *Peer {
		p, err := testStore(t, a).VerifyDER([][]byte{bytes.Clone(of.chain[0])}, testDomain, testNow)
		if err != nil {
			t.Fatal(err)
		}
		runtime.AddCleanup(p.Leaf, func(c chan struct{}) { close(c) }, gone)
		return p.Compact()
	}()
	deadline := time.After(10 * time.Second)
	for {
		runtime.GC()
		select {
		case <-gone:
			runtime.KeepAlive(compact)
			return
		case <-deadline:
			t.Fatal("the leaf is still referred to")
		case <-time.After(time.Millisecond):
		}
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
