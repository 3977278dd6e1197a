package codec

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

var otherRouter = Address{0: 0xfd, 7: 1, 15: 9}

func TestNameQuestionBounds(t *testing.T) {
	question := func(change func(*NameQuestion)) *NameQuestion {
		q := &NameQuestion{Asked: someRouter, Asker: otherRouter, Hops: 1, Max: 1}
		change(q)
		return q
	}
	long := strings.Repeat("n", NameMax+1)
	checkBounds(t, "list", question(func(q *NameQuestion) { q.Max = 256; q.Hops = 255 }), nil)
	checkBounds(t, "name", question(func(q *NameQuestion) { q.Name = long[1:] }), nil)
	checkBounds(t, "after", question(func(q *NameQuestion) { q.After = long[1:] }), nil)
	checkBounds(t, "name and after", question(func(q *NameQuestion) { q.Name, q.After = "a", "b" }), ErrControlValue)
	checkBounds(t, "name of 71", question(func(q *NameQuestion) { q.Name = long }), ErrControlValue)
	checkBounds(t, "after of 71", question(func(q *NameQuestion) { q.After = long }), ErrControlValue)
	checkBounds(t, "no hops", question(func(q *NameQuestion) { q.Hops = 0 }), ErrControlValue)
	checkBounds(t, "max 0", question(func(q *NameQuestion) { q.Max = 0 }), ErrControlValue)
	checkBounds(t, "max 257", question(func(q *NameQuestion) { q.Max = 257 }), ErrControlValue)
	checkBounds(t, "to itself", question(func(q *NameQuestion) { q.Asked = q.Asker }), ErrControlValue)
	checkBounds(t, "to a node", question(func(q *NameQuestion) { q.Asked = someNode }), ErrControlValue)
	checkBounds(t, "from a node", question(func(q *NameQuestion) { q.Asker = someNode }), ErrControlValue)
	checkBounds(t, "of two domains", question(func(q *NameQuestion) { q.Asker[1] = 1 }), ErrControlValue)

	check := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a8 0011"+values, want)
	}
	ends := "01" + hexRouter + "02" + hexRouterB
	check("good", ends+"0307 0401 0560 0660 0701", nil)
	check("256 hops", ends+"0307 04190100 0560 0660 0701", ErrControlValue)
	check("max 65537", ends+"0307 0401 0560 0660 071a00010001", ErrControlValue)
	check("another domain", "01"+hexRouter+"02"+hexStranger+"0307 0401 0560 0660 0701", ErrControlValue)
	check("asked of 15 bytes", "01 4f fde14b0f2020000110111213141516 02"+hexRouterB+"0307 0401 0560 0660 0701", ErrControlValue)
	check("name as bytes", ends+"0307 0401 0540 0660 0701", ErrControlValue)
}

func TestNameAnswerBounds(t *testing.T) {
	answer := func(names ...string) *NameAnswer {
		a := &NameAnswer{Asker: someRouter, Asked: otherRouter, Hops: 1}
		for _, name := range names {
			a.Entries = append(a.Entries, NamedEntry{name, NameEntry{Chain: make([][]byte, 1)}})
		}
		return a
	}
	change := func(a *NameAnswer, change func(*NameAnswer)) *NameAnswer { change(a); return a }
	checkBounds(t, "none", answer(), nil)
	checkBounds(t, "two", answer("a", "b"), nil)
	checkBounds(t, "more", change(answer("a", "b"), func(a *NameAnswer) { a.Next = "b" }), nil)
	checkBounds(t, "more after another", change(answer("a", "b"), func(a *NameAnswer) { a.Next = "a" }), ErrControlValue)
	checkBounds(t, "more after none", change(answer(), func(a *NameAnswer) { a.Next = "a" }), ErrControlValue)
	checkBounds(t, "out of order", answer("b", "a"), ErrControlValue)
	checkBounds(t, "twice", answer("a", "a"), ErrControlValue)
	checkBounds(t, "no name", answer(""), ErrControlValue)
	checkBounds(t, "name of 71", answer(strings.Repeat("a", 71)), ErrControlValue)
	checkBounds(t, "no UTF-8", answer("\xff"), ErrControlValue)
	checkBounds(t, "no chain", change(answer("a"), func(a *NameAnswer) { a.Entries[0].Chain = nil }), ErrControlValue)
	checkBounds(t, "chain of 4", change(answer("a"), func(a *NameAnswer) { a.Entries[0].Chain = make([][]byte, 4) }), ErrControlValue)
	checkBounds(t, "kind of 33", change(answer("a"), func(a *NameAnswer) { a.Entries[0].Kind = strings.Repeat("k", 33) }), ErrControlValue)
	checkBounds(t, "no hops", change(answer("a"), func(a *NameAnswer) { a.Hops = 0 }), ErrControlValue)
	checkBounds(t, "to a node", change(answer("a"), func(a *NameAnswer) { a.Asker = someNode }), ErrControlValue)
	var many []string
	for i := range NamesMax + 1 {
		many = append(many, fmt.Sprintf("%03d", i))
	}
	checkBounds(t, "256", answer(many[:NamesMax]...), nil)
	checkBounds(t, "257", answer(many...), ErrControlValue)

	check := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a7 0012 01"+hexRouter+"02"+hexRouterB+"0307"+values, want)
	}
	check("one", "0401 0581 83 6161 8140 60 0660", nil)
	check("one and more", "0401 0581 83 6161 8140 60 066161", nil)
	check("hops 0", "0400 0581 83 6161 8140 60 0660", ErrControlValue)
	check("entry of 2", "0401 0581 82 6161 8140 0660", ErrControlValue)
	check("no chain", "0401 0581 83 6161 80 60 0660", ErrControlValue)
	check("certificate as text", "0401 0581 83 6161 8160 60 0660", ErrControlValue)
}

func TestFitNamedFillsOneBody(t *testing.T) {
	for _, size := range []int{0, 1, 24, 200, 256, 400, 1000, 30_000, 64_900} {
		var entries []NamedEntry
		for i := range 300 {
			name := strings.Repeat("n", NameMax-3) + fmt.Sprintf("%03d", i)
			entries = append(entries, NamedEntry{name, NameEntry{Chain: [][]byte{make([]byte, size)}, Kind: strings.Repeat("k", HelloKindMax)}})
		}
		n := FitNamed(entries)
		if n == 0 {
			t.Errorf("certificates of %d: none fits", size)
			continue
		}
		next := entries[n-1].Name
		b, err := AppendControl(nil, &NameAnswer{Asker: someRouter, Asked: otherRouter, Number: 1<<64 - 1, Hops: 255, Entries: entries[:n], Next: next})
		if err != nil {
			t.Errorf("certificates of %d: %d entries: %v", size, n, err)
		}
		const slack = 256 * bytesHeadMax // heads are taken for the largest
		if n < NamesMax && len(b)+size+NameMax+HelloKindMax+slack+50 < ControlBodyMax {
			t.Errorf("certificates of %d: %d entries in %d bytes, more would fit", size, n, len(b))
		}
		var plain []NameEntry
		for _, e := range entries[:n] {
			plain = append(plain, e.NameEntry)
		}
		if _, err := AppendControl(nil, &Names{Number: 1<<64 - 1, Entries: plain, Next: next}); err != nil {
			t.Errorf("certificates of %d: not %d entries in Names: %v", size, n, err)
		}
	}
	large := slices.Repeat([]NamedEntry{{"a", NameEntry{Chain: [][]byte{make([]byte, ControlBodyMax)}}}}, 1)
	if n := FitNamed(large); n != 0 {
		t.Errorf("an entry larger than a body fits: %d", n)
	}
}
