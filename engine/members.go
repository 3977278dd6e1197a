package engine

import (
	"container/list"
	"slices"
	"strings"
	"sync"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/engine/buf"
	"causeway/engine/link"
)

// departedMax bounds the certificates kept of nodes that are no longer
// connected, per domain; the oldest go first.
const departedMax = 16_384

// members is who is connected in one domain. Control messages alone read it
// (hello, certificate requests, names): frames meet engine/table instead.
type members struct {
	mu       sync.Mutex
	byName   map[string][]*member // connected; several nodes may claim one name
	names    []string             // byName's keys, sorted: lists are asked for more often than names come and go
	certs    map[codec.CertKey]*certificate
	departed []departure // in order of time
	fetched  *list.List  // of codec.CertKey: certificates that other routers have sent, used lately first
	size     int64       // of departed and the certificates that nobody else holds, bytes of memory
	ended    bool        // the domain is no longer served

	budget *buf.Budget
}

// member is one connected node. It is immutable.
type member struct {
	id   *pki.Peer
	kind string
	ref  link.Ref
}

// certificate of a node that is connected, or was, of this router, or one that
// another router has sent.
type certificate struct {
	id      *pki.Peer
	key     *announced // of id, once a frame has needed it
	users   int        // connections that announced it
	gone    uint64
	fetched *list.Element // in members.fetched; nil: it is not there
	size    int64         // bytes of memory
}

type departure struct {
	key  codec.CertKey
	at   time.Time
	gone uint64 // certificate.gone when this was written: still so, if nobody came back
}

func newMembers(budget *buf.Budget) *members {
	return &members{
		byName: make(map[string][]*member), certs: make(map[codec.CertKey]*certificate), fetched: list.New(), budget: budget,
	}
}

// Sizes in memory, in bytes: measured, a parsed certificate takes 3 KB and twice
// its encoding.
const (
	certificateBytes = 4 << 10
	departureBytes   = 64
)

func sizeOf(id *pki.Peer) (bytes int64) {
	for _, der := range id.Chain {
		bytes += certificateBytes + 2*int64(len(der))
	}
	return bytes
}

// takesLocked counts n more bytes.
func (ms *members) takesLocked(n int64) {
	ms.size += n
	ms.budget.Use(buf.PartCertificates, n)
}

func certKey(id *pki.Peer) codec.CertKey {
	return codec.CertKey{Address: id.Address, CertID: id.CertID}
}

// join adds m.
func (ms *members) join(m *member) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if i, there := slices.BinarySearch(ms.names, m.id.Name); !there {
		ms.names = slices.Insert(ms.names, i, m.id.Name)
	}
	ms.byName[m.id.Name] = append(ms.byName[m.id.Name], m)
}

// isAfter tells whether the connection ref has joined after m, under the same name.
func (ms *members) isAfter(ref link.Ref, m *member) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	same := ms.byName[m.id.Name]
	i := slices.Index(same, m)
	return i >= 0 && slices.ContainsFunc(same[i+1:], func(o *member) bool { return o.ref == ref })
}

// hold keeps a certificate, of a member or of this router, until as many
// releases.
func (ms *members) hold(id *pki.Peer) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	key := certKey(id)
	c := ms.certs[key]
	if c == nil {
		c = &certificate{id: id, size: sizeOf(id)}
		ms.certs[key] = c
	} else if c.users == 0 {
		ms.takesLocked(-c.size)
		ms.unlistLocked(c)
	}
	c.users++
}

// release ends a hold. The certificate stays for keep, since frames it signed
// may still wait somewhere for it.
func (ms *members) release(id *pki.Peer, now time.Time, keep time.Duration) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	key := certKey(id)
	if c := ms.certs[key]; c != nil {
		if c.users--; c.users == 0 {
			c.gone++
			ms.departed = append(ms.departed, departure{key, now, c.gone})
			ms.takesLocked(c.size + departureBytes)
		}
	}
	ms.forgetLocked(now.Add(-keep))
}

// end forgets the certificates of who has left, and will leave: the domain is no
// longer served.
func (ms *members) end() {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.ended = true
	ms.forgetLocked(time.Time{})
}

// recheck forgets the certificates that the store no longer takes, but for
// those whose time is over: frames from before may still be under way.
func (ms *members) recheck(store *pki.Store, now time.Time) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for key, c := range ms.certs {
		if isRevoked(store.Recheck(c.id, now)) {
			ms.deleteLocked(key, c)
		}
	}
}

// replace puts next, of the same name, in m's place.
func (ms *members) replace(m, next *member) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if i := slices.Index(ms.byName[m.id.Name], m); i >= 0 {
		ms.byName[m.id.Name][i] = next
	}
}

// leave removes m.
func (ms *members) leave(m *member) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	same := slices.DeleteFunc(ms.byName[m.id.Name], func(o *member) bool { return o == m })
	if len(same) == 0 {
		delete(ms.byName, m.id.Name)
		if i, there := slices.BinarySearch(ms.names, m.id.Name); there {
			ms.names = slices.Delete(ms.names, i, i+1)
		}
	} else {
		ms.byName[m.id.Name] = same
	}
}

// forgetLocked drops certificates of who left before the time given, and the
// oldest ones, if there are too many.
func (ms *members) forgetLocked(before time.Time) {
	ms.forgetFetchedLocked()
	n := 0
	for _, d := range ms.departed {
		if d.at.After(before) && len(ms.departed)-n <= departedMax && !ms.ended && !ms.tooLargeLocked() {
			break
		}
		if c := ms.certs[d.key]; c != nil && c.users == 0 && c.gone == d.gone {
			ms.deleteLocked(d.key, c)
		}
		ms.takesLocked(-departureBytes)
		n++
	}
	ms.departed = slices.Delete(ms.departed, 0, n)
}

// deleteLocked forgets a certificate.
func (ms *members) deleteLocked(key codec.CertKey, c *certificate) {
	delete(ms.certs, key)
	ms.unlistLocked(c)
	if c.users == 0 {
		ms.takesLocked(-c.size)
	}
}

// tooLargeLocked tells whether the domain has more than its share, which is as
// much as all domains leave.
func (ms *members) tooLargeLocked() bool {
	most := ms.budget.Limit() / certificatesPart
	return ms.size > most-ms.budget.Use(buf.PartCertificates, 0)
}

// chain returns the certificate chain of key, borrowed, or nil.
func (ms *members) chain(key codec.CertKey) [][]byte {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if c := ms.certs[key]; c != nil {
		return c.id.Chain
	}
	return nil
}

// named returns the connected node of that name: of two the one whose
// certificate was issued later; nil when there is none.
func (ms *members) named(name string) *member {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return latest(ms.byName[name])
}

// page returns up to limit nodes whose names come after the one given, in
// byte order, and whether there are more.
func (ms *members) page(after string, limit int) (found []*member, more bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	first, there := slices.BinarySearch(ms.names, after)
	if there {
		first++
	}
	names := ms.names[first:]
	more = len(names) > limit
	for _, name := range names[:min(limit, len(names))] {
		found = append(found, latest(ms.byName[name]))
	}
	return found, more
}

// latest returns the member with the latest notBefore; addresses break ties, so
// that every router and library chooses the same.
func latest(same []*member) (best *member) {
	for _, m := range same {
		if best == nil || m.id.Issued.After(best.id.Issued) ||
			m.id.Issued.Equal(best.id.Issued) && strings.Compare(string(m.id.Address[:]), string(best.id.Address[:])) > 0 {
			best = m
		}
	}
	return best
}

// count returns how many nodes are connected.
func (ms *members) count() (n int) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, same := range ms.byName {
		n += len(same)
	}
	return n
}

// routers adds the names of the routers whose certificates are kept, by address.
func (ms *members) routers(names map[codec.Address]string) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for key, c := range ms.certs {
		if key.Address.Kind() == codec.KindRouter {
			names[key.Address] = c.id.Name
		}
	}
}
