package engine

import (
	"cmp"
	"slices"

	"causeway/codec"
)

// namesOf is what one router has said to a name request: entries in byte order
// of their names, no name twice, and the last one's when there are more.
type namesOf struct {
	entries []codec.NamedEntry
	next    string
}

// mergeNames makes one answer of those of several routers (PROTOCOL.md section
// 5.16), with at most so many entries. A list ends where the first of them ends,
// since what comes after is not known of that router; entries of one name stay
// together. The answer borrows the entries.
func mergeNames(number uint64, parts []namesOf, most int) *codec.Names {
	end := "" // no name above it is for this answer
	var all []codec.NamedEntry
	for _, p := range parts {
		if p.next != "" && (end == "" || p.next < end) {
			end = p.next
		}
		all = append(all, p.entries...)
	}
	slices.SortStableFunc(all, func(a, b codec.NamedEntry) int { return cmp.Compare(a.Name, b.Name) })
	known := len(all)
	if end != "" {
		known, _ = slices.BinarySearchFunc(all, end, func(e codec.NamedEntry, end string) int {
			if e.Name <= end {
				return -1
			}
			return 1
		})
	}
	n := min(known, most, codec.FitNamed(all[:known]))
	if cut := n; n < known {
		for n > 0 && all[n-1].Name == all[cut].Name { // the rest of them would be missed
			n--
		}
		if n == 0 { // of more entries than an answer has, some
			n = cut
		}
	}
	answer := &codec.Names{Number: number, Entries: make([]codec.NameEntry, n)}
	for i, e := range all[:n] {
		answer.Entries[i] = e.NameEntry
	}
	if n > 0 && (n < len(all) || end != "") {
		answer.Next = all[n-1].Name
	}
	return answer
}
