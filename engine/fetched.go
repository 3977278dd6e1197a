package engine

import (
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// fetchedMax bounds the certificates kept, per domain, of what other routers have
// sent; those not used for longest go first. They share their memory with those
// of nodes that have left, and go before them.
const fetchedMax = 16_384

// keep keeps a certificate that another router has sent. still is asked whether it
// is still good, when no list of revocations can come between.
func (ms *members) keep(id *pki.Peer, still func() bool) (kept bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	key := certKey(id)
	if ms.certs[key] != nil {
		return true
	}
	if ms.ended || !still() {
		return false
	}
	c := &certificate{id: id, size: sizeOf(id)}
	ms.certs[key], c.fetched = c, ms.fetched.PushFront(key)
	ms.takesLocked(c.size)
	ms.forgetFetchedLocked()
	return ms.certs[key] != nil
}

// forgetFetchedLocked forgets what there is no room for.
func (ms *members) forgetFetchedLocked() {
	for last := ms.fetched.Back(); last != nil && (ms.fetched.Len() > fetchedMax || ms.ended || ms.tooLargeLocked()); last = ms.fetched.Back() {
		key := last.Value.(codec.CertKey)
		ms.deleteLocked(key, ms.certs[key])
	}
}

// unlistLocked makes c none that only was fetched.
func (ms *members) unlistLocked(c *certificate) {
	if c.fetched != nil {
		ms.fetched.Remove(c.fetched)
		c.fetched = nil
	}
}

// forgetEnded forgets fetched certificates whose time was over at the time given.
func (ms *members) forgetEnded(before time.Time) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for e := ms.fetched.Front(); e != nil; {
		key := e.Value.(codec.CertKey)
		e = e.Next()
		if c := ms.certs[key]; c.id.NotAfter.Before(before) {
			ms.deleteLocked(key, c)
		}
	}
}

// key returns the certificate as frames need it; nil: it is not known here.
func (ms *members) key(key codec.CertKey) *announced {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	c := ms.certs[key]
	if c == nil {
		return nil
	}
	ms.usedLocked(c)
	if c.key == nil {
		if k, err := sign.NewKey(c.id.Public); err == nil {
			c.key = newAnnounced(c.id, k)
		}
	}
	return c.key
}

// used tells of certificates that were used, since loops remember them.
func (ms *members) used(keys []codec.CertKey) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, key := range keys {
		if c := ms.certs[key]; c != nil {
			ms.usedLocked(c)
		}
	}
}

func (ms *members) usedLocked(c *certificate) {
	if c.fetched != nil {
		ms.fetched.MoveToFront(c.fetched)
	}
}

// fetchedCount returns how many certificates are kept that were fetched.
func (ms *members) fetchedCount() int {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.fetched.Len()
}
