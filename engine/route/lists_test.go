package route_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/route"
)

// Lists of attached addresses, PROTOCOL.md section 14.3. Router 5 announces,
// links 1 and 2 lead to neighbours that pass its lists on.

func attachedAt(n int, sent uint64) codec.Attached { return codec.Attached{Node: node(n), Sent: sent} }

// change is a change of router 5's list.
func change(from uint64, added []codec.Attached, removed ...codec.Address) *codec.AddressList {
	return &codec.AddressList{Router: router(5), Source: source(5), From: from, To: from + 1, Parts: 1, Added: added, Removed: removed}
}

func listNumber(n int, source codec.Source, number uint64) codec.ListNumber {
	return codec.ListNumber{Router: router(n), Source: source, Number: number}
}

func numberOf(n int, source codec.Source, number uint64) *codec.ListNumbers {
	return &codec.ListNumbers{Lists: []codec.ListNumber{listNumber(n, source, number)}}
}

func whole(n int, source codec.Source, to uint64, added ...codec.Attached) *codec.AddressList {
	return &codec.AddressList{Router: router(n), Source: source, To: to, Parts: 1, Added: added}
}

func (o *one) wantOwner(n int, want codec.Address) {
	o.t.Helper()
	if got := o.owners[node(n)]; got != want {
		o.t.Errorf("node %d belongs to %v, want %v", n, got, want)
	}
}

var nobody codec.Address

// listing returns an instance that has router 5's list number 3, with nodes 1
// and 2, from link 1.
func listing(t *testing.T, config route.Config) *one {
	o := newOne(t, config)
	o.up(1, 10)
	o.up(2, 10)
	o.hear(1, 5, 0, 0)
	o.hear(2, 5, 0, 0)
	o.receive(1, numberOf(5, source(5), 3))
	wantMessages[*codec.ListRequest](o, route.Message{Link: 1, Body: &codec.ListRequest{Router: router(5)}})
	o.receive(1, whole(5, source(5), 3, attachedAt(1, 100), attachedAt(2, 100)))
	o.wantOwner(1, router(5))
	o.wantOwner(2, router(5))
	o.settle()
	return o
}

func TestChangesOfListsAreAppliedInOrder(t *testing.T) {
	o := listing(t, route.Config{})
	o.receive(2, change(3, []codec.Attached{attachedAt(3, 100)}, node(1)))
	o.wantOwner(1, nobody)
	o.wantOwner(2, router(5))
	o.wantOwner(3, router(5))
	o.receive(1, change(3, []codec.Attached{attachedAt(1, 100)})) // not newer: ignored
	o.wantOwner(1, nobody)
	wantMessages[*codec.ListRequest](o)
	o.receive(1, change(5, []codec.Attached{attachedAt(4, 100)})) // a gap
	o.wantOwner(4, nobody)
	wantMessages[*codec.ListRequest](o, route.Message{Link: 1, Body: &codec.ListRequest{Router: router(5)}})
	o.receive(1, change(6, nil)) // asked already
	wantMessages[*codec.ListRequest](o)
	o.receive(1, whole(5, source(5), 6, attachedAt(4, 100)))
	o.wantOwner(2, nobody)
	o.wantOwner(3, nobody)
	o.wantOwner(4, router(5))
	wantMessages[*codec.ListRequest](o, route.Message{Link: 1, Body: &codec.ListRequest{Router: router(5)}}) // for number 7
	o.receive(1, whole(5, source(5), 7, attachedAt(4, 100), attachedAt(5, 100)))
	o.receive(1, change(7, nil, node(4)))
	o.wantOwner(4, nobody)
	o.wantOwner(5, router(5))
}

func TestListsOfNewSourcesBeginAnew(t *testing.T) {
	o := listing(t, route.Config{})
	o.receive(1, numberOf(5, source2(5), 1))
	wantMessages[*codec.ListRequest](o, route.Message{Link: 1, Body: &codec.ListRequest{Router: router(5)}})
	o.receive(1, whole(5, source2(5), 1, attachedAt(2, 100)))
	o.wantOwner(1, nobody)
	o.wantOwner(2, router(5))
	o.receive(2, change(3, []codec.Attached{attachedAt(1, 100)})) // of the older
	o.wantOwner(1, nobody)
	wantMessages[*codec.ListRequest](o)
}

func TestWholeListsComeInParts(t *testing.T) {
	part := func(part, parts uint16, to uint64, added ...codec.Attached) *codec.AddressList {
		l := whole(5, source(5), to, added...)
		l.Part, l.Parts = part, parts
		return l
	}
	o := listing(t, route.Config{})
	o.receive(1, numberOf(5, source(5), 9))
	o.receive(1, part(0, 3, 9, attachedAt(3, 100)))
	o.wantOwner(3, nobody)
	o.receive(1, part(1, 3, 9, attachedAt(4, 100)))
	o.wantOwner(1, router(5))
	o.receive(1, part(2, 3, 9))
	o.wantOwner(1, nobody)
	o.wantOwner(3, router(5))
	o.wantOwner(4, router(5))

	for name, next := range map[string]*codec.AddressList{
		"part left out":        part(2, 3, 9),
		"part again":           part(0, 3, 9),
		"other number":         part(1, 3, 10),
		"other count of parts": part(1, 4, 9),
	} {
		o := listing(t, route.Config{})
		o.receive(1, numberOf(5, source(5), 9))
		o.receive(1, part(0, 3, 9, attachedAt(3, 100)))
		if _, err := o.Receive(o.now, 1, next); err != route.ErrParts {
			t.Errorf("%s: %v", name, err)
		}
	}
	o = listing(t, route.Config{})
	o.receive(1, part(0, 1, 9)) // not asked for
	o.receive(1, part(1, 2, 9))
	o.wantOwner(1, router(5))
	if n := o.Refused().Stray; n != 2 {
		t.Errorf("%d stray parts counted, want 2", n)
	}
}

func TestListsAreAskedForUntilTheyCome(t *testing.T) {
	o := listing(t, route.Config{})
	request := func(l route.LinkID) route.Message {
		return route.Message{Link: l, Body: &codec.ListRequest{Router: router(5)}}
	}
	o.receive(1, numberOf(5, source(5), 4))
	o.receive(2, numberOf(5, source(5), 4))
	wantMessages[*codec.ListRequest](o)
	o.wait(4 * time.Second)
	wantMessages[*codec.ListRequest](o)
	o.wait(time.Second)
	wantMessages[*codec.ListRequest](o, request(2))
	o.wait(30 * time.Second)
	wantMessages[*codec.ListRequest](o) // neither may have it
	o.receive(1, numberOf(5, source(5), 4))
	wantMessages[*codec.ListRequest](o, request(1))
	o.receive(2, numberOf(5, source(5), 4))
	begun := whole(5, source(5), 4)
	begun.Parts = 2
	o.receive(1, begun)
	o.wait(5 * time.Second) // for the other part
	wantMessages[*codec.ListRequest](o, request(2))
	o.receive(1, numberOf(5, source(5), 4))
	o.wait(5 * time.Second)
	wantMessages[*codec.ListRequest](o, request(1))
	o.receive(1, begun) // from its beginning
	o.receive(2, numberOf(5, source(5), 4))
	o.down(1)
	wantMessages[*codec.ListRequest](o, request(2))
	o.wait(10 * time.Second)
	o.receive(2, whole(5, source(5), 4)) // late, but asked for
	o.wantOwner(1, nobody)
	o.wait(20 * time.Second)
	wantMessages[*codec.ListRequest](o)
}

func TestListsOfRoutersThatWereGoneForLongAreToldAgain(t *testing.T) {
	o := listing(t, route.Config{})
	o.up(9, 10)
	o.down(1)
	o.down(2)
	o.wait(route.ForgetAfter/2 - time.Second)
	o.up(1, 10)
	o.settle()
	o.hear(1, 5, 0, 0)
	wantMessages[*codec.ListNumbers](o)
	o.hear(1, 5, 0, codec.MetricInfinity)
	o.wait(route.ForgetAfter / 2)
	o.hear(1, 5, 0, 0)
	n := numberOf(5, source(5), 3)
	wantMessages[*codec.ListNumbers](o, route.Message{Link: 1, Body: n}, route.Message{Link: 9, Body: n})
	o.wantOwner(1, router(5))
}

func TestListsAreFlooded(t *testing.T) {
	o := listing(t, route.Config{})
	o.up(9, 10)
	o.up(91, 10) // to the same router
	o.settle()
	both := func(number uint64) *codec.ListNumbers {
		return &codec.ListNumbers{Lists: []codec.ListNumber{listNumber(0, o.Source(), 1), listNumber(5, source(5), number)}}
	}
	wantMessages[*codec.ListNumbers](o, route.Message{Link: 91, Body: both(3)})
	c := change(3, []codec.Attached{attachedAt(3, 100)})
	o.receive(1, c)
	wantMessages[*codec.AddressList](o, route.Message{Link: 2, Body: c}, route.Message{Link: 91, Body: c})
	o.receive(2, c) // crossed
	wantMessages[*codec.AddressList](o)
	o.receive(2, numberOf(5, source(5), 9))
	o.receive(2, whole(5, source(5), 9))
	n := numberOf(5, source(5), 9)
	wantMessages[*codec.ListNumbers](o, route.Message{Link: 1, Body: n}, route.Message{Link: 91, Body: n})
	o.down(91) // what was under way is lost: the other link tells again
	o.settle()
	wantMessages[*codec.ListNumbers](o, route.Message{Link: 9, Body: both(9)})
	o.wait(time.Second)
	o.receive(9, &codec.ListRequest{Router: router(5)})
	wantMessages[*codec.AddressList](o, route.Message{Link: 9, Body: whole(5, source(5), 9)})
	o.receive(9, &codec.ListRequest{Router: router(5)}) // at once again: not answered
	o.receive(9, &codec.ListRequest{Router: router(7)}) // unknown
	wantMessages[*codec.AddressList](o)
}

// A link that takes another's place carries the lists from its first moment: nothing
// that is told in between is lost with the old one.
func TestListsGoByTheNewestLink(t *testing.T) {
	o := listing(t, route.Config{})
	o.up(9, 10)
	o.settle()
	wantMessages[*codec.ListNumbers](o, route.Message{Link: 9, Body: &codec.ListNumbers{Lists: []codec.ListNumber{listNumber(0, o.Source(), 1), listNumber(5, source(5), 3)}}})
	o.up(91, 10)
	o.settle()
	wantMessages[*codec.ListNumbers](o, route.Message{Link: 91, Body: &codec.ListNumbers{Lists: []codec.ListNumber{listNumber(0, o.Source(), 1), listNumber(5, source(5), 3)}}})
	c := change(3, []codec.Attached{attachedAt(3, 100)})
	o.receive(1, c)
	wantMessages[*codec.AddressList](o, route.Message{Link: 2, Body: c}, route.Message{Link: 91, Body: c})
	o.down(9)
	o.settle()
	wantMessages[*codec.ListNumbers](o)
	wantMessages[*codec.AddressList](o)
}

func TestOwnNodesAreAnnounced(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	o.wait(time.Second)
	o.note(o.Attach(o.now, node(1), 100))
	own := func(from uint64, added []codec.Attached, removed ...codec.Address) route.Message {
		return route.Message{Link: 1, Body: &codec.AddressList{Router: router(0), Source: o.Source(), From: from, To: from + 1, Parts: 1, Added: added, Removed: removed}}
	}
	wantMessages[*codec.AddressList](o, own(1, []codec.Attached{attachedAt(1, 100)}))
	o.wantOwner(1, router(0))
	o.note(o.Attach(o.now, node(3), 200)) // within a batch
	o.note(o.Attach(o.now, node(2), 200))
	o.note(o.Detach(o.now, node(3)), nil)
	o.note(o.Detach(o.now, node(1)), nil)
	wantMessages[*codec.AddressList](o)
	o.settle()
	wantMessages[*codec.AddressList](o, own(2, []codec.Attached{attachedAt(2, 200)}, node(1)))
	o.wantOwner(1, nobody)
	o.wantOwner(2, router(0))
	o.wait(time.Second)
	o.note(o.Attach(o.now, node(2), 200)) // nothing new
	wantMessages[*codec.AddressList](o)
	o.receive(1, &codec.ListRequest{Router: router(0)})
	wantMessages[*codec.AddressList](o, route.Message{Link: 1, Body: whole(0, o.Source(), 3, attachedAt(2, 200))})
	for n := range 1025 {
		o.note(o.Attach(o.now, node(100+n), 300))
	}
	o.settle()
	if n := len(o.actions.Messages); n != 2 {
		t.Errorf("1,025 nodes in %d messages, want 2", n)
	}
}

func TestListsHaveLimits(t *testing.T) {
	o := listing(t, route.Config{MaxAddresses: 3})
	o.up(9, 10)
	o.settle()
	o.receive(1, change(3, []codec.Attached{attachedAt(3, 100), attachedAt(4, 100), attachedAt(1, 101)}))
	o.wantOwner(3, router(5))
	o.wantOwner(4, nobody)
	wantMessages[*codec.AddressList](o, // what was refused does not go on
		route.Message{Link: 2, Body: change(3, []codec.Attached{attachedAt(3, 100), attachedAt(1, 101)})},
		route.Message{Link: 9, Body: change(3, []codec.Attached{attachedAt(3, 100), attachedAt(1, 101)})})
	if n := o.Refused().Limit; n != 1 {
		t.Errorf("%d beyond the limit counted, want 1", n)
	}
	for n := range 3 {
		o.note(o.Attach(o.now, node(10+n), 1))
	}
	if _, err := o.Attach(o.now, node(13), 1); err != route.ErrAddresses {
		t.Errorf("the fourth node: %v", err)
	}
	o.note(o.Attach(o.now, node(10), 2)) // not one more

	o = newOne(t, route.Config{MaxRouters: 2})
	o.up(1, 10)
	o.hearRoute(1, announced(1, 0, 0), announced(2, 0, 1), announced(3, 0, 1))
	o.wantRoute(2, 1, 11)
	o.wantRoute(3, 0, 0)
	if n := o.Refused().Limit; n != 1 {
		t.Errorf("%d routers beyond the limit counted, want 1", n)
	}
}

func TestWhatIsAheadOfTheClockIsRefused(t *testing.T) {
	o := listing(t, route.Config{})
	edge := uint64(o.now.Add(route.MaxSkewDefault).UnixNano())
	o.receive(1, change(3, []codec.Attached{attachedAt(1, edge+1), attachedAt(2, edge), attachedAt(3, edge+1)}))
	o.wantOwner(1, router(5)) // by the entry that it had before
	o.wantOwner(2, router(5))
	o.wantOwner(3, nobody)
	wantMessages[*codec.AddressList](o, route.Message{Link: 2, Body: change(3, []codec.Attached{attachedAt(2, edge)})})
	ahead := codec.Source{Epoch: edge + 1}
	o.receive(1, numberOf(5, ahead, 1))
	wantMessages[*codec.ListRequest](o)
	o.hearRoute(1, codec.Route{Router: router(5), Source: ahead}) // retracted, as far as can be known
	o.wantRoute(5, 2, 10)
	own := o.Source()
	o.hearRoute(1, codec.Route{Router: router(0), Source: ahead})
	o.receive(1, &codec.SeqnoRequest{Wanted: []codec.SeqnoWanted{{Router: router(0), Source: ahead, Hops: 3}}})
	if n := o.Refused().Future; n != 6 || o.Source() != own {
		t.Errorf("%d refused, want 6; source %v", n, o.Source())
	}
}

func TestOwnSourceOutdoesOthers(t *testing.T) {
	later := func(o *one) codec.Source { return codec.Source{Epoch: o.Source().Epoch + 1000} }
	for name, hear := range map[string]func(o *one){
		"route": func(o *one) { o.hearRoute(1, codec.Route{Router: router(0), Source: later(o), Metric: 5}) },
		"request": func(o *one) {
			o.receive(1, &codec.SeqnoRequest{Wanted: []codec.SeqnoWanted{{Router: router(0), Source: later(o), Hops: 1}}})
		},
		"list": func(o *one) { o.receive(1, numberOf(0, later(o), 1)) },
	} {
		o := newOne(t, route.Config{})
		o.up(1, 10)
		o.note(o.Attach(o.now, node(1), 100))
		o.wait(time.Second)
		want := codec.Source{Epoch: o.Source().Epoch + 1001, ID: o.Source().ID}
		hear(o)
		o.wantTold(1, 0, codec.Route{Router: router(0), Source: want})
		wantMessages[*codec.ListNumbers](o, route.Message{Link: 1, Body: numberOf(0, want, 1)})
		if o.Source() != want {
			t.Errorf("%s: source %v, want %v", name, o.Source(), want)
		}
	}
	o := newOne(t, route.Config{})
	o.up(1, 10)
	was := o.Source()
	o.hearRoute(1, codec.Route{Router: router(0), Source: codec.Source{Epoch: was.Epoch - 1, ID: codec.RouterID{255}}, Seqno: 9})
	o.receive(1, numberOf(0, was, 1))
	if o.Source() != was {
		t.Errorf("an older source is outdone: %v", o.Source())
	}
	o.receive(1, numberOf(0, was, 2)) // more than it has given
	if o.Source().Epoch != was.Epoch+1 {
		t.Errorf("source %v after a list of its own that it has not sent", o.Source())
	}
}

func TestTwinsDoNotOutdoEachOtherForEver(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	hear := func() uint64 {
		o.hearRoute(1, codec.Route{Router: router(0), Source: codec.Source{Epoch: o.Source().Epoch + 1}})
		return o.Source().Epoch
	}
	for range 8 {
		hear()
	}
	was := o.Source().Epoch
	if now := hear(); now != was || o.Refused().Twin != 1 {
		t.Errorf("the ninth time: epoch %d after %d; %+v", now, was, o.Refused())
	}
	o.wait(route.UpdateInterval)
	if now := hear(); now != was+2 {
		t.Errorf("later: epoch %d after %d", now, was)
	}
}

func TestLaterAttachmentWins(t *testing.T) {
	o := listing(t, route.Config{})
	o.up(3, 10)
	o.hear(3, 6, 0, 0)
	o.hear(3, 4, 0, 0)
	give := func(n int, added ...codec.Attached) {
		o.receive(3, numberOf(n, source(n), 1))
		o.receive(3, whole(n, source(n), 1, added...))
	}
	give(6, attachedAt(1, 99), attachedAt(2, 101))
	o.wantOwner(1, router(5))
	o.wantOwner(2, router(6))
	give(4, attachedAt(1, 100), attachedAt(2, 101)) // equal times: the greater address
	o.wantOwner(1, router(5))
	o.wantOwner(2, router(6))
	o.down(3) // only who is reached counts
	o.wantOwner(2, router(5))
	o.down(1)
	o.down(2)
	o.wantOwner(1, nobody)
	o.wantOwner(2, nobody)
	o.up(3, 10)
	o.hear(3, 4, 0, 0)
	o.wantOwner(1, router(4))
	o.up(1, 10)
	o.hear(1, 5, 0, 0)
	o.wantOwner(1, router(5))
	o.wait(route.UpdateInterval * 7 / 2)
	o.wantOwner(1, nobody)
	o.wait(route.ForgetAfter)
	o.hear(1, 5, 0, 0)
	o.wantOwner(1, nobody) // its list is forgotten
}

func TestOwnNodesThatHaveMovedAreProbed(t *testing.T) {
	probed := func(name string, want ...codec.Address) func(o *one) {
		return func(o *one) {
			t.Helper()
			if !slices.Equal(o.actions.Probes, want) {
				t.Errorf("%s: probes %v, want %v", name, o.actions.Probes, want)
			}
		}
	}
	setUp := func() *one {
		o := listing(t, route.Config{})
		o.note(o.Attach(o.now, node(1), 150))
		o.wantOwner(1, router(0))
		o.receive(1, change(3, []codec.Attached{attachedAt(1, 140)})) // earlier
		probed("earlier")(o)
		o.receive(1, change(4, []codec.Attached{attachedAt(1, 160)}))
		probed("later", node(1))(o)
		o.wantOwner(1, router(5))
		return o
	}
	withdrawn := func(name string, o *one, want ...codec.Address) {
		t.Helper()
		if !slices.Equal(o.actions.Withdrawn, want) {
			t.Errorf("%s: withdrawn %v, want %v", name, o.actions.Withdrawn, want)
		}
	}
	o := setUp()
	o.wait(route.ProbeTimeout - time.Millisecond)
	withdrawn("too early", o)
	o.wait(time.Millisecond)
	withdrawn("no answer", o, node(1))
	o.receive(1, change(5, nil, node(1)))
	o.wantOwner(1, nobody)

	o = setUp()
	o.note(o.Answered(o.now, node(1)), nil)
	o.wait(time.Minute)
	withdrawn("answered", o)
	o.receive(1, change(5, []codec.Attached{attachedAt(1, 160)}))
	probed("same again")(o)
	o.receive(1, change(6, []codec.Attached{attachedAt(1, 170)}))
	probed("later again", node(1))(o)
	o.note(o.Attach(o.now, node(1), 180)) // it has come back
	o.wantOwner(1, router(0))
	o.wait(time.Minute)
	withdrawn("back", o)

	o = setUp()
	o.note(o.Detach(o.now, node(1)), nil)
	o.wait(time.Minute)
	withdrawn("gone", o)
	o.note(o.Detach(o.now, node(1)), nil) // again: nothing
	o.note(o.Answered(o.now, node(1)), nil)
}

func TestMessagesAreTakenOnlyFromLinksThatHaveProvenTheDomain(t *testing.T) {
	o := newOne(t, route.Config{})
	o.up(1, 10)
	foreign := addressOf(1, codec.KindRouter, 5)
	own := addressOf(0, codec.KindRouter, 5)
	messages := func(of codec.Address) []codec.Control {
		return []codec.Control{
			&codec.RouteUpdate{Interval: time.Minute, Routes: []codec.Route{{Router: of}}},
			&codec.SeqnoRequest{Wanted: []codec.SeqnoWanted{{Router: of, Hops: 9}}},
			&codec.AddressList{Router: of, To: 1, Parts: 1},
			&codec.ListRequest{Router: of},
			&codec.ListNumbers{Lists: []codec.ListNumber{{Router: of, Number: 1}}},
		}
	}
	check := func(l route.LinkID, of codec.Address, want error) {
		t.Helper()
		for _, m := range messages(of) {
			actions, err := o.Receive(o.now, l, m)
			if !errors.Is(err, want) || err != nil && fmt.Sprint(actions) != fmt.Sprint(route.Actions{}) {
				t.Errorf("%T by link %d: %+v, %v, want %v", m, l, actions, err, want)
			}
		}
	}
	check(1, own, nil)
	check(1, foreign, route.ErrDomain)
	check(2, own, route.ErrLink)
	o.down(1)
	check(1, own, route.ErrLink)
}

func TestLinksToOneRouterAreLimited(t *testing.T) {
	o := newOne(t, route.Config{})
	for l := route.LinkID(10); l < 14; l++ {
		o.up(l, uint16(20-l))
	}
	if _, err := o.LinkUp(o.now, 14, router(1), 1); err != route.ErrLinks {
		t.Errorf("the fifth link: %v", err)
	}
	o.up(2, 1)
	for l := route.LinkID(10); l < 14; l++ {
		o.hear(l, 5, 0, 1)
	}
	o.wantRoute(5, 13, 8)
	o.down(13)
	o.wantRoute(5, 12, 9)
	o.down(13) // again: nothing
}

func TestOurFaultsPanic(t *testing.T) {
	check := func(name string, f func(o *one)) {
		t.Helper()
		o := newOne(t, route.Config{})
		o.up(1, 10)
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f(o)
	}
	check("link twice", func(o *one) { o.up(1, 10) })
	check("link 0", func(o *one) { o.up(0, 10) })
	check("cost 0", func(o *one) { o.up(2, 0) })
	check("infinite cost", func(o *one) { o.up(2, codec.MetricInfinity) })
	check("another message", func(o *one) { o.receive(1, &codec.KeepAlive{}) })
	check("a router attached", func(o *one) { o.note(o.Attach(o.now, router(1), 1)) })
	check("a node of another domain", func(o *one) { o.note(o.Attach(o.now, addressOf(1, codec.KindNode, 1), 1)) })
	check("a node as router", func(*one) { _, _ = route.New(route.Config{Self: node(1)}, start) })
	check("too many addresses", func(*one) { _, _ = route.New(route.Config{Self: router(1), MaxAddresses: 1<<20 + 1}, start) })
}

func TestRandomThatFailsIsAnError(t *testing.T) {
	empty := errors.New("empty")
	_, err := route.New(route.Config{Self: router(1), Random: failing{empty}}, start)
	if !errors.Is(err, empty) {
		t.Errorf("New: %v", err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }
