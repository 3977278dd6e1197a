package engine

import (
	"time"

	"causeway/codec"
)

// What could not be had is remembered, so that it is not asked for again at once;
// but its address may be attached to a router in that time (PROTOCOL.md section
// 5.4). known finds what is wanted, or failed, of an address: its keys are those of
// `of` and failed, no more and no less.

// failure says how one ends, which was not found, and remembers it.
func (f *fetches) failure(one *fetch, now time.Time) fetchVerdict {
	if len(one.tried) == 0 {
		return fetchRefused
	}
	if _, before := f.failed[one.key]; !before && len(f.failed) >= fetchFailsMax {
		for key := range f.failed {
			f.forgetFailed(key)
			break
		}
	}
	f.failed[one.key] = now.Add(fetchFailTime)
	return fetchAbsent
}

// forgetFailed forgets a failure before its time.
func (f *fetches) forgetFailed(key codec.CertKey) {
	delete(f.failed, key)
	f.unnote(key)
	f.forgotten = append(f.forgotten, key)
}

// tickFailed forgets the failures that have had their time.
func (f *fetches) tickFailed(now time.Time) {
	for key, until := range f.failed {
		if !now.Before(until) {
			delete(f.failed, key)
			f.unnote(key)
		}
	}
}

// appeared is told that an address is attached to another router since a moment
// ago: what was not to be had of it may be there now.
func (f *fetches) appeared(a codec.Address) {
	for id := range f.known[a] {
		key := codec.CertKey{Address: a, CertID: id}
		if _, failed := f.failed[key]; failed {
			f.forgetFailed(key)
		}
		switch one := f.of[key]; {
		case one == nil:
		case one.number != 0:
			one.again = true
		default:
			one.tried = nil
		}
	}
}

// takeForgotten returns the failures that were forgotten before their time, and
// forgets that.
func (f *fetches) takeForgotten() []codec.CertKey {
	all := f.forgotten
	f.forgotten = nil
	return all
}

// note puts a key of `of` or of failed among known.
func (f *fetches) note(key codec.CertKey) {
	ids := f.known[key.Address]
	if ids == nil {
		ids = make(map[codec.CertID]struct{}, 1)
		f.known[key.Address] = ids
	}
	ids[key.CertID] = struct{}{}
}

// unnote ends note, if the key is in neither any more.
func (f *fetches) unnote(key codec.CertKey) {
	if _, failed := f.failed[key]; failed || f.of[key] != nil {
		return
	}
	ids := f.known[key.Address]
	if delete(ids, key.CertID); len(ids) == 0 {
		delete(f.known, key.Address)
	}
}
