package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"causeway/codec"
)

// said makes what a router says of names, in order; "+" as the last: there are
// more.
func said(names ...string) (p namesOf) {
	for _, name := range names {
		if name == "+" {
			p.next = p.entries[len(p.entries)-1].Name
			break
		}
		p.entries = append(p.entries, codec.NamedEntry{Name: name, NameEntry: codec.NameEntry{Chain: [][]byte{[]byte(name)}}})
	}
	return p
}

func namesIn(n *codec.Names) string {
	var all []string
	for _, e := range n.Entries {
		all = append(all, string(e.Chain[0]))
	}
	if n.Next != "" {
		all = append(all, ">"+n.Next)
	}
	return strings.Join(all, " ")
}

func TestListsAreMergedAsFarAsTheyGo(t *testing.T) {
	check := func(most int, want string, parts ...namesOf) {
		t.Helper()
		if got := namesIn(mergeNames(1, parts, most)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check(9, "")
	check(9, "", said())
	check(9, "a b c d", said("a", "c"), said("b", "d"))
	check(9, "a b >b", said("a", "c"), said("b", "+"))
	check(9, "a b b >b", said("a", "b", "+"), said("b", "c", "+"))
	check(9, "b >b", said("b", "+"), said("c", "+"))
	check(2, "a b >b", said("a", "c"), said("b", "d"))
	check(4, "a b c d", said("a", "c"), said("b", "d"))
	check(4, "a b c d >d", said("a", "c"), said("b", "d", "+"))
	check(2, "a >a", said("a", "b"), said("b", "d")) // both of b, or none
	check(2, "b b >b", said("b"), said("b"), said("b"))
	check(1, "b >b", said("b"), said("b"))
}

// Whoever asks again after what was told has every name in the end, once
// for each router, and in order; slow and obvious is to sort them all.
func TestPagesOfAMergedListAreAllOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		routers := make([][]string, rapid.IntRange(1, 4).Draw(t, "routers"))
		var want []string
		for i := range routers {
			set := rapid.MapOfN(rapid.StringMatching("[a-f]{1,2}"), rapid.Just(true), 0, 20).Draw(t, "names")
			routers[i] = slices.Sorted(maps.Keys(set))
			want = append(want, routers[i]...)
		}
		slices.Sort(want)
		most := rapid.IntRange(len(routers), 12).Draw(t, "most")
		var got []string
		after := ""
		for page := 0; ; page++ {
			if page > 200 {
				t.Fatal("it never ends")
			}
			var parts []namesOf
			for _, names := range routers {
				rest := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name <= after })
				if len(rest) > most {
					rest = append(rest[:most:most], "+")
				}
				parts = append(parts, said(rest...))
			}
			m := mergeNames(1, parts, most)
			for _, e := range m.Entries {
				got = append(got, string(e.Chain[0]))
			}
			if len(m.Entries) > most {
				t.Fatalf("%d entries, at most %d", len(m.Entries), most)
			}
			if m.Next == "" {
				break
			}
			if m.Next <= after {
				t.Fatalf("%q comes after %q", m.Next, after)
			}
			after = m.Next
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}

func TestAMergedAnswerFitsItsBody(t *testing.T) {
	var parts []namesOf
	for i := range 4 {
		var p namesOf
		for j := range 100 {
			p.entries = append(p.entries, codec.NamedEntry{
				Name: fmt.Sprintf("%03d-%d", j, i), NameEntry: codec.NameEntry{Chain: [][]byte{make([]byte, 700), make([]byte, 500)}, Kind: "server"},
			})
		}
		parts = append(parts, p)
	}
	m := mergeNames(1<<64-1, parts, codec.NamesMax)
	if _, err := codec.AppendControl(nil, m); err != nil || len(m.Entries) < 50 || m.Next == "" {
		t.Errorf("%d entries, next %q: %v", len(m.Entries), m.Next, err)
	}
}
