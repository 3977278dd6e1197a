package engine

import (
	"fmt"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
)

func testMember(name string, n byte, notBefore time.Time) *member {
	id := &pki.Peer{Name: name, Issued: notBefore, Chain: [][]byte{{n}}}
	id.Address[15], id.CertID[7] = n, n
	return &member{id: id}
}

func TestOfTwoNodesWithOneNameTheLaterIssuedCounts(t *testing.T) {
	ms := newMembers(buf.NewBudget(0, 1))
	old, young := testMember("a", 1, time.Unix(1, 0)), testMember("a", 2, time.Unix(2, 0))
	ms.comes(young)
	ms.comes(old)
	if ms.named("a") != young {
		t.Error("the older one was found")
	}
	ms.parts(young, time.Unix(10, 0), time.Minute)
	if ms.named("a") != old {
		t.Error("the one that is left was not found")
	}
	ms.parts(old, time.Unix(10, 0), time.Minute)
	if ms.named("a") != nil || ms.count() != 0 {
		t.Error("a node that left was found")
	}
}

func TestCertificatesOutliveTheirConnectionForAWhile(t *testing.T) {
	ms := newMembers(buf.NewBudget(0, 1))
	m, other := testMember("a", 1, time.Unix(1, 0)), testMember("b", 2, time.Unix(1, 0))
	key := certKey(m.id)
	now := time.Unix(1000, 0)
	ms.comes(m)
	ms.parts(m, now, time.Minute)
	if ms.chain(key) == nil {
		t.Fatal("forgotten at once")
	}
	ms.comes(m) // comes back: the first departure no longer counts
	ms.comes(other)
	ms.parts(other, now.Add(2*time.Minute), time.Minute)
	if ms.chain(key) == nil {
		t.Error("forgotten while connected")
	}
	ms.parts(m, now.Add(3*time.Minute), time.Minute)
	ms.parts(ms.joined(t, "c"), now.Add(5*time.Minute), time.Minute)
	if ms.chain(key) != nil {
		t.Error("kept after its time")
	}
}

// comes and parts are what a connection does with its member and certificate.
func (ms *members) comes(m *member) {
	ms.join(m)
	ms.hold(m.id)
}

func (ms *members) parts(m *member, now time.Time, keep time.Duration) {
	ms.leave(m)
	ms.release(m.id, now, keep)
}

func (ms *members) joined(t *testing.T, name string) *member {
	t.Helper()
	m := testMember(name, 77, time.Unix(1, 0))
	ms.comes(m)
	return m
}

func TestDepartedCertificatesAreBounded(t *testing.T) {
	ms := newMembers(buf.NewBudget(0, 1))
	now := time.Unix(1000, 0)
	for i := range departedMax + 100 {
		m := testMember("a", 0, time.Unix(1, 0))
		m.id.Address = codec.Address{14: byte(i >> 8), 15: byte(i)}
		m.id.Address[13] = byte(i >> 16)
		ms.comes(m)
		ms.parts(m, now, time.Hour)
	}
	if len(ms.certs) > departedMax+1 || len(ms.departed) > departedMax+1 {
		t.Errorf("%d certificates of nodes that left", len(ms.certs))
	}
}

// Domains share what certificates of departed members may take, and what they
// give back is counted.
func TestDepartedCertificatesAreBoundedInMemory(t *testing.T) {
	budget := buf.NewBudget(64<<20, 1)
	counted := func() int64 { return budget.Usage()[buf.PartCertificates] }
	most := budget.Limit() / certificatesPart
	now := time.Unix(1000, 0)
	leave := func(ms *members, from, n int) {
		for i := from; i < from+n; i++ {
			m := testMember("a", 0, time.Unix(1, 0))
			m.id.Address = codec.Address{14: byte(i >> 8), 15: byte(i)}
			ms.comes(m)
			ms.parts(m, now, time.Hour)
		}
	}
	first, second := newMembers(budget), newMembers(budget)
	leave(first, 0, 1000)
	if n := counted(); n != first.size || n > most/2+certificateBytes*2 || n < most/2-certificateBytes*2 {
		t.Errorf("alone a domain has %d bytes of %d", n, most)
	}
	leave(second, 0, 1000)
	if n := second.size; n < most/4-certificateBytes*2 || counted() > most {
		t.Errorf("another one has %d bytes, both %d, of %d", n, counted(), most)
	}
	kept := len(first.certs)
	leave(first, 1000-kept, kept) // who comes back and leaves again
	if n := counted(); n != first.size+second.size {
		t.Errorf("%d bytes counted, %d and %d are there", n, first.size, second.size)
	}
	first.end()
	second.end()
	leave(first, 0, 10)
	if n := counted(); n != 0 || len(first.certs)+len(second.certs) != 0 {
		t.Errorf("%d bytes counted when all is forgotten", n)
	}
}

func TestListingPagesThroughAllNamesInOrder(t *testing.T) {
	ms := newMembers(buf.NewBudget(0, 1))
	for i := range 25 {
		ms.comes(testMember(fmt.Sprintf("n%02d", i), byte(i), time.Unix(1, 0)))
	}
	var names []string
	after := ""
	for {
		found, more := ms.page(after, 10)
		for _, m := range found {
			names = append(names, m.id.Name)
			after = m.id.Name
		}
		if !more {
			break
		}
	}
	if len(names) != 25 || names[0] != "n00" || names[24] != "n24" {
		t.Errorf("%v", names)
	}
}
