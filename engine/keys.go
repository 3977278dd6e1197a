package engine

import (
	"time"

	"causeway/codec"
	"causeway/engine/buf"
)

// keys is what one loop remembers of the certificates of senders whose frames come
// over links, so that most frames meet neither a lock nor an allocation:
//
//	of      certificates that were found, until they are not used for keysSweep,
//	        or what is trusted changes
//	absent  certificates that nobody has, for as long as they are not asked for again
//	        (fetches.failed)
//
// Where a certificate is not among them, members.key has it, behind a mutex, or
// it is fetched.
type keys struct {
	of      map[codec.CertKey]*rememberedKey
	absent  map[codec.CertKey]time.Time // until then
	swept   time.Time
	account *buf.Account
}

type rememberedKey struct {
	*announced
	members *members
	used    bool // since the last sweep
}

const (
	keysMax   = 8192 // of each kind, on each loop; beyond it any is forgotten
	keysSweep = 10 * time.Second
	keyBytes  = 128 // of memory, of one of either kind
)

func newKeys() keys {
	return keys{of: make(map[codec.CertKey]*rememberedKey), absent: make(map[codec.CertKey]time.Time)}
}

// keyOf returns the certificate under which f, a frame of somebody of d that came
// over a link, says it is signed; nil: it is not known here. The caller judges
// whether it was valid when f was sent.
func (l *loop) keyOf(d *domain, f codec.Raw) *announced {
	if k := l.keys.of[f.CertKey()]; k != nil {
		k.used = true
		return k.announced
	}
	return l.keys.find(d.members, f.CertKey())
}

func (k *keys) find(ms *members, key codec.CertKey) *announced {
	found := ms.key(key)
	if found == nil {
		return nil
	}
	if len(k.of) >= keysMax {
		for any := range k.of {
			k.forget(any)
			break
		}
	}
	k.of[key] = &rememberedKey{announced: found, members: ms, used: true}
	k.account.Use(buf.PartFetched, keyBytes)
	return found
}

func (k *keys) forget(key codec.CertKey) {
	delete(k.of, key)
	k.account.Use(buf.PartFetched, -keyBytes)
}

// forgetAll is for when what is trusted has changed.
func (k *keys) forgetAll() {
	for key := range k.of {
		k.forget(key)
	}
}

// isAbsent tells whether the certificate was asked for in vain.
func (k *keys) isAbsent(key codec.CertKey, now time.Time) bool {
	until, known := k.absent[key]
	return known && now.Before(until)
}

// setAbsent remembers that a certificate is not to be had, until the time given.
func (k *keys) setAbsent(key codec.CertKey, until time.Time) {
	if _, known := k.absent[key]; !known {
		if len(k.absent) >= keysMax {
			for any := range k.absent {
				k.deleteAbsent(any)
				break
			}
		}
		k.account.Use(buf.PartFetched, keyBytes)
	}
	k.absent[key] = until
}

func (k *keys) deleteAbsent(key codec.CertKey) {
	delete(k.absent, key)
	k.account.Use(buf.PartFetched, -keyBytes)
}

// forgetAbsent is for certificates that may be had now.
func (k *keys) forgetAbsent(all []codec.CertKey) {
	for _, key := range all {
		if _, known := k.absent[key]; known {
			k.deleteAbsent(key)
		}
	}
}

// sweep forgets what was not used for a while, and has the others kept.
func (k *keys) sweep(now time.Time) {
	if now.Sub(k.swept) < keysSweep {
		return
	}
	k.swept = now
	used := make(map[*members][]codec.CertKey)
	for key, r := range k.of {
		if !r.used {
			k.forget(key)
			continue
		}
		r.used = false
		used[r.members] = append(used[r.members], key)
	}
	for ms, all := range used {
		ms.used(all)
	}
	for key, until := range k.absent {
		if !now.Before(until) {
			k.deleteAbsent(key)
		}
	}
}
