package node

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

func TestLookupFindsNodesAndRouters(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		e, err := a.Lookup(w.ctx(), "b")
		if err != nil || e.Address != b.Address() || e.Name != "b" || e.Kind != "test" {
			t.Errorf("Lookup: %+v, %v", e, err)
		}
		e, err = a.Lookup(w.ctx(), "router/r1")
		if err != nil || e.Address != codec.Address(w.r.grant.Address) || e.Name != "router/r1" {
			t.Errorf("Lookup: %+v, %v", e, err)
		}
		for _, name := range []string{"nobody", "Not A Name", "", "router/nobody", "router/"} {
			_, err := a.Lookup(w.ctx(), name)
			if !errors.Is(err, ErrNoSuchName) {
				t.Errorf("Lookup(%q): %v", name, err)
			}
		}
		_, err = a.Lookup(w.ctx(), "nobody")
		checkError[*NameError](t, err, `"nobody"`, "prod.example", "causeway node list")
	})
}

func TestFoundNameIsRememberedForFiveSeconds(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		must(a.Lookup(w.ctx(), "b"))
		b.Close()
		synctest.Wait()
		must(a.Lookup(w.ctx(), "b"))
		time.Sleep(namesCachedFor + time.Second)
		if _, err := a.Lookup(w.ctx(), "b"); !errors.Is(err, ErrNoSuchName) {
			t.Errorf("Lookup: %v", err)
		}
	})
}

func TestListIsPagedAndInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		var nodes []*Node
		for i := range 7 {
			nodes = append(nodes, w.connect(fmt.Sprint("n", i)))
		}
		all, err := nodes[3].List(w.ctx())
		if err != nil || len(all) != len(nodes) {
			t.Fatalf("List: %v, %v", all, err)
		}
		for i, e := range all {
			if e.Name != fmt.Sprint("n", i) || e.Address != nodes[i].Address() {
				t.Errorf("entry %d: %+v", i, e)
			}
		}
	})
}

// answerNames answers the node's next requests for names.
func (s *routerConn) answerNames(answers ...*codec.Names) {
	for _, m := range answers {
		m.Number = must(expect[*codec.NameRequest](s)).Number
		must(0, s.control(m))
	}
}

func TestOnlyVerifiedNamesCount(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		older := w.d.nodeOf("b", pki.KeyEd25519, 30*time.Minute, time.Hour).Peer
		younger := w.d.nodeOf("b", pki.KeyEd25519, time.Minute, time.Hour).Peer
		expired := w.d.nodeOf("b", pki.KeyEd25519, 30*time.Minute, 10*time.Minute).Peer
		foreign := newDomain("prod.example").node("b").Peer
		other := w.d.node("c").Peer
		var entries []codec.NameEntry
		for _, p := range []*pki.Peer{foreign, expired, younger, older, other} {
			entries = append(entries, codec.NameEntry{Chain: p.Chain})
		}
		go s.answerNames(&codec.Names{Entries: entries}, &codec.Names{Entries: entries[4:]})
		e, err := n.Lookup(w.ctx(), "b")
		if err != nil || e.Address != codec.Address(younger.Address) {
			t.Errorf("Lookup: %+v, %v; want the younger of two", e, err)
		}
		if refused := n.Stats().NamesRefused; refused != 2 {
			t.Errorf("%d refused, want 2", refused)
		}
		if _, err := n.Lookup(w.ctx(), "d"); !errors.Is(err, ErrNoSuchName) {
			t.Errorf("a name that was not asked for was taken: %v", err)
		}
	})
}

func TestListThatGoesBackIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		chain := func(name string) codec.NameEntry { return codec.NameEntry{Chain: w.d.node(name).Peer.Chain} }
		go s.answerNames(
			&codec.Names{Entries: []codec.NameEntry{chain("b"), chain("c"), chain("b")}, Next: "c"},
			&codec.Names{Entries: []codec.NameEntry{chain("c"), chain("d")}, Next: "d"},
			&codec.Names{Next: ""},
			&codec.Names{Next: "m"},
			&codec.Names{Next: "m"},
		)
		all, err := n.List(w.ctx())
		var names []string
		for _, e := range all {
			names = append(names, e.Name)
		}
		if err != nil || !slices.Equal(names, []string{"b", "c", "d"}) {
			t.Errorf("List: %v, %v", names, err)
		}
		_, err = n.List(w.ctx())
		checkError[*ProtocolError](t, err, "goes back")
	})
}

func TestLookupGoesOnAfterAReconnect(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		found := make(chan error, 1)
		go func() { _, err := n.Lookup(w.ctx(), "b"); found <- err }()
		must(expect[*codec.NameRequest](s))
		s.raw.Close()
		w.reconnected().answerNames(&codec.Names{Entries: []codec.NameEntry{{Chain: w.d.node("b").Peer.Chain}}})
		if err := <-found; err != nil {
			t.Error(err)
		}
	})
}

func TestLookupWithoutAnswerEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		_, err := n.Lookup(w.ctx(), "b")
		checkError[*WaitError](t, err, "answer about names")
		w.net.unlisten(routerHost)
		s.raw.Close()
		synctest.Wait()
		_, err = n.Lookup(w.ctx(), "b")
		checkError[*NotConnectedError](t, err)
		if len(n.names.waiting) != 0 {
			t.Error("requests are left")
		}
	})
}

func TestManyLookupsAtOnceAreAllAnswered(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.connect("a"), w.connect("b")
		results := make(chan error)
		const count = 500
		for range count {
			go func() {
				_, err := a.Lookup(w.ctx(), "b")
				results <- err
			}()
		}
		for range count {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
		_ = b
	})
}

// Of nodes with one name the one with the younger certificate counts, whichever way
// they are connected; and the newest certificate of each.
func TestNameOfSeveralPeers(t *testing.T) {
	d := NewTestDomain()
	defer d.Close()
	b := startNode(t, d.Config("b"), func(c *Config) { c.Listen = []string{"dbw://127.0.0.1:0"} })
	issued := func(ago time.Duration) *pki.Identity { return d.w.d.nodeOf("a", pki.KeyEd25519, ago, time.Hour) }
	finds := func(want *Node) {
		t.Helper()
		if e, err := b.Lookup(patient(t), "a"); err != nil || e.Address != want.Address() {
			t.Errorf("found %+v, %v; want %s", e, err, want.Address())
		}
	}
	id := issued(20 * time.Minute)
	old := direct(t, id, b.Listening()[0])
	until(t, "there is a peer", func() bool { return b.Stats().Peers == 1 })
	finds(old)
	var younger *Node
	for i := range 6 { // any order of peers
		younger = direct(t, issued(time.Duration(15-i)*time.Minute), b.Listening()[0])
		until(t, "there is one more", func() bool { return b.Stats().Peers == i+2 })
		finds(younger)
	}
	routed := startNode(t, Config{Identity: issued(5 * time.Minute), Routers: d.Config("x").Routers, Dial: d.w.net.dial})
	d.Settle(2)
	finds(routed)
	if err := old.Renew(d.w.d.renewed(id)); err != nil {
		t.Fatal(err)
	}
	passes(t, old, b, "under the newest certificate of all")
	finds(old)
}
