package engine

import (
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
)

// keyLoop is as much of a loop as keyOf needs.
func keyLoop(b *buf.Budget) *loop {
	l := &loop{keys: newKeys()}
	l.keys.account = b.Account()
	return l
}

func good() bool { return true }

// frameUnder returns a frame that says it is signed under the certificate.
func frameUnder(id *pki.Peer) codec.Raw {
	return (&codec.Frame{Sender: id.Address, CertID: id.CertID}).AppendSigned([]byte{0})
}

func TestKeysAreFoundWithoutLockOrAllocation(t *testing.T) {
	budget := buf.NewBudget(0, 1)
	d := newAuthority("prod.example")
	id := d.node("a").Peer
	dom := &domain{members: newMembers(budget)}
	l := keyLoop(budget)
	f := frameUnder(id)
	if l.keyOf(dom, f) != nil {
		t.Fatal("found before it is there")
	}
	if !dom.members.keep(id, good) || l.keyOf(dom, f) == nil {
		t.Fatal("not found")
	}
	dom.members.mu.Lock() // who takes the lock now waits for ever
	defer dom.members.mu.Unlock()
	if got := testing.AllocsPerRun(100, func() {
		if l.keyOf(dom, f) == nil {
			t.Error("not found")
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestWhatIsTrustedDecidesWhatIsRemembered(t *testing.T) {
	budget := buf.NewBudget(0, 1)
	d := newAuthority("prod.example")
	id := d.node("a").Peer
	dom := &domain{members: newMembers(budget)}
	l := keyLoop(budget)
	f := frameUnder(id)
	if dom.members.keep(id, func() bool { return false }) || l.keyOf(dom, f) != nil {
		t.Error("kept what was revoked in between")
	}
	dom.members.keep(id, good)
	if l.keyOf(dom, f) == nil {
		t.Fatal("not found")
	}
	dom.members.recheck(storeWith(map[string][]byte{d.Domain: d.revoking(1, &pki.Identity{Peer: id})}, d), time.Now())
	l.keys.forgetAll()
	if l.keyOf(dom, f) != nil {
		t.Error("found after it was revoked")
	}
	dom.members.keep(id, good)
	dom.members.forgetEnded(id.NotAfter.Add(1))
	if l.keyOf(dom, f) != nil {
		t.Error("found after its end")
	}
	dom.members.end()
	if dom.members.keep(id, good) {
		t.Error("kept in a domain that is no longer served")
	}
	l.keys.account.Look()
	if u := budget.Usage(); u[buf.PartCertificates] != 0 || u[buf.PartFetched] != 0 {
		t.Errorf("%v bytes still count", u)
	}
}

// Fetched certificates take what memory there is for certificates, those used last
// stay, and those of who is connected always do.
func TestFetchedCertificatesAreBounded(t *testing.T) {
	budget := buf.NewBudget(64<<20, 1)
	ms := newMembers(budget)
	here := testMember("here", 1, time.Unix(1, 0))
	ms.comes(here)
	id := func(n int) *pki.Peer {
		p := &pki.Peer{Chain: [][]byte{make([]byte, 500)}}
		p.Address[14], p.Address[15], p.CertID[7] = byte(n>>8), byte(n), 9
		return p
	}
	for n := range 2000 {
		ms.keep(id(n), good)
		ms.used([]codec.CertKey{certKey(id(0))})
	}
	if most := int64(64<<20) / certificatesPart; ms.size > most || ms.size < most/4 {
		t.Errorf("%d bytes, of %d", ms.size, most)
	}
	if ms.chain(certKey(id(0))) == nil || ms.chain(certKey(id(1))) != nil || ms.chain(certKey(id(1999))) == nil || ms.chain(certKey(here.id)) == nil {
		t.Error("others stayed than those used last and who is connected")
	}
	first := id(1999)
	ms.hold(first) // its node connects here
	for n := range 2000 {
		ms.keep(id(n+3000), good)
	}
	if ms.chain(certKey(first)) == nil {
		t.Error("the certificate of who is connected is gone")
	}
	ms.release(first, time.Unix(10, 0), time.Minute)
	ms.parts(here, time.Unix(10, 0), time.Minute)
	ms.end()
	if u := budget.Usage()[buf.PartCertificates]; u != 0 || len(ms.certs) != 0 || ms.fetchedCount() != 0 {
		t.Errorf("%d bytes, %d certificates at the end", u, len(ms.certs))
	}
}

// A loop forgets what it has not used for a while, and has kept what it has.
func TestLoopsForgetKeysTheyDoNotUse(t *testing.T) {
	budget := buf.NewBudget(0, 1)
	d := newAuthority("prod.example")
	dom := &domain{members: newMembers(budget)}
	l := keyLoop(budget)
	now := time.Unix(1000, 0)
	used, unused := d.node("used").Peer, d.node("unused").Peer
	for _, id := range []*pki.Peer{used, unused} {
		dom.members.keep(id, good)
		l.keyOf(dom, frameUnder(id))
	}
	l.keys.setAbsent(testKey(1), now.Add(keysSweep))
	for round := range 3 {
		l.keyOf(dom, frameUnder(used))
		now = now.Add(keysSweep)
		l.keys.sweep(now)
		if round > 0 && len(l.keys.of) != 1 {
			t.Errorf("round %d: %d remembered", round, len(l.keys.of))
		}
	}
	if dom.members.fetched.Front().Value != certKey(used) {
		t.Error("what is used does not stay")
	}
	if len(l.keys.absent) != 0 || l.keys.isAbsent(testKey(1), now) {
		t.Error("a failure is remembered too long")
	}
	for n := range keysMax + 10 {
		l.keys.setAbsent(testKey(n), now.Add(time.Second))
	}
	if len(l.keys.absent) != keysMax {
		t.Errorf("%d failures remembered", len(l.keys.absent))
	}
}
