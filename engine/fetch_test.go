package engine

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"causeway/codec"
	"causeway/engine/link"
)

// fetchWorld is a router's neighbours as fetches sees them.
type fetchWorld struct {
	*fetches
	now    time.Time
	routes map[codec.Address]link.Ref
	up     []link.Ref
	asked  []fetchAsk
	ended  []fetchEnd
}

func newFetchWorld(links ...link.Ref) *fetchWorld {
	w := &fetchWorld{now: time.Unix(1000, 0), routes: make(map[codec.Address]link.Ref), up: links}
	w.fetches = newFetches(fetchTimeDefault,
		func(a codec.Address) (link.Ref, []link.Ref) { return w.routes[a], w.up },
		func(_ codec.CertKey, chain [][]byte, _ link.Ref, _ time.Time) bool { return string(chain[0]) == "good" })
	return w
}

// done makes the requests that are due, and collects them and what has ended.
func (w *fetchWorld) done(t interface{ Fatalf(string, ...any) }) (asks []fetchAsk, ends []fetchEnd) {
	w.requests(w.now)
	asks, ends = w.take()
	w.asked, w.ended = append(w.asked, asks...), append(w.ended, ends...)
	if bad := w.check(); bad != "" {
		t.Fatalf("%s", bad)
	}
	return asks, ends
}

func (w *fetchWorld) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.tick(w.now)
}

// reply answers the request with chains of that text; "": not known.
func (w *fetchWorld) reply(q fetchAsk, text string) bool {
	m := &codec.Certificates{Number: q.Number, Parts: 1}
	for _, key := range q.Wanted {
		e := codec.CertificateEntry{CertKey: key}
		if text != "" {
			e.Chain = [][]byte{[]byte(text)}
		}
		m.Entries = append(m.Entries, e)
	}
	return w.answer(q.to, m, w.now)
}

// check compares what is counted with what is there.
func (f *fetches) check() string {
	shares, live, pairs := make(map[asker]int), make(map[uint64]int), 0
	for key, one := range f.of {
		for _, who := range one.askers {
			shares[who]++
			pairs++
		}
		l := f.links[one.at]
		switch {
		case one.key != key || one.at == 0 || l == nil:
			return fmt.Sprintf("%v is at link %d, which is not there", key, one.at)
		case len(one.tried) > fetchTries || len(slices.Compact(slices.Sorted(slices.Values(one.tried)))) != len(one.tried):
			return fmt.Sprintf("tried %v", one.tried)
		case one.number != 0:
			live[one.number]++
		case len(one.askers) == 0:
			return "nobody wants what is in a queue"
		default:
			for _, who := range one.askers {
				if l.of[who] == nil || !slices.Contains(l.of[who].keys, key) {
					return "what is in a queue has no turn"
				}
			}
		}
	}
	for ref, l := range f.links {
		late := 0
		for _, r := range l.requests {
			if r.live != live[r.number] {
				return fmt.Sprintf("request %d of link %d: %d live, counted %d", r.number, ref, live[r.number], r.live)
			}
			if r.live == 0 {
				late++
			}
		}
		if late != l.late || late > fetchLateMax || len(l.requests)-late > fetchWindow || len(l.of) != len(l.turns) {
			return fmt.Sprintf("link %d: %d late, counted %d, of %d; %d turns of %d", ref, late, l.late, len(l.requests), len(l.turns), len(l.of))
		}
	}
	if pairs != f.pairs || pairs > 2*fetchesMax || !maps.Equal(shares, f.shares) || len(f.failed) > fetchFailsMax {
		return fmt.Sprintf("%d pairs, counted %d; shares %v, counted %v", pairs, f.pairs, shares, f.shares)
	}
	known := 0
	for a, ids := range f.known {
		known += len(ids)
		for id := range ids {
			key := codec.CertKey{Address: a, CertID: id}
			if _, failed := f.failed[key]; !failed && f.of[key] == nil {
				return fmt.Sprintf("%v is known, and neither wanted nor failed", key)
			}
		}
	}
	for key := range f.failed {
		if f.of[key] == nil {
			known--
		}
	}
	if known != len(f.of) {
		return fmt.Sprintf("%d of %d wanted, beside the failures, are known", known, len(f.of))
	}
	return ""
}

func testKey(n int) (key codec.CertKey) {
	key.Address[14], key.Address[15], key.CertID[6], key.CertID[7] = byte(n>>8), byte(n), byte(n>>8), byte(n)
	return key
}

func verdicts(ends []fetchEnd) (all []fetchVerdict) {
	for _, e := range ends {
		for range e.askers {
			all = append(all, e.verdict)
		}
	}
	return all
}

func TestACertificateIsAskedForOnceHoweverManyWantIt(t *testing.T) {
	w := newFetchWorld(1, 2)
	key := testKey(7)
	w.routes[key.Address] = 2
	frames, node, neighbour := asker{1, askerFrames}, asker{5, askerNode}, asker{1, askerNeighbour}
	w.want(key, frames, w.now)
	w.want(key, frames, w.now)
	asks, _ := w.done(t)
	w.want(key, node, w.now)
	w.want(key, neighbour, w.now)
	if more, _ := w.done(t); len(asks) != 1 || asks[0].to != 2 || len(more) != 0 {
		t.Fatalf("asked %v, then %v", asks, more)
	}
	if !w.reply(asks[0], "good") {
		t.Fatal("the answer was refused")
	}
	_, ends := w.done(t)
	if len(ends) != 1 || ends[0].verdict != fetchFound || !slices.Equal(ends[0].askers, []asker{frames, node, neighbour}) {
		t.Errorf("ends: %+v", ends)
	}
	if w.busy() || len(w.links) != 0 {
		t.Error("something is left")
	}
}

func TestASecondLinkIsAskedOnceAndThenTheFailureIsRemembered(t *testing.T) {
	for name, fail := range map[string]func(w *fetchWorld, q fetchAsk){
		"not known":    func(w *fetchWorld, q fetchAsk) { w.reply(q, "") },
		"bad chain":    func(w *fetchWorld, q fetchAsk) { w.reply(q, "bad") },
		"nothing said": func(w *fetchWorld, q fetchAsk) { w.pass(fetchTimeDefault/fetchTryPart - 1) },
		"link ends": func(w *fetchWorld, q fetchAsk) {
			if q.to == 3 { // who wants it is there
				w.reply(q, "")
				return
			}
			w.up = slices.DeleteFunc(w.up, func(ref link.Ref) bool { return ref == q.to })
			w.down(q.to, w.now)
		},
		"answer without it": func(w *fetchWorld, q fetchAsk) {
			w.answer(q.to, &codec.Certificates{Number: q.Number, Parts: 1}, w.now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFetchWorld(1, 2, 3, 4)
			key, who := testKey(7), asker{3, askerFrames}
			w.routes[key.Address] = 2
			w.want(key, who, w.now)
			for _, to := range []link.Ref{2, 3} { // the route, then where the frame came from
				asks, _ := w.done(t)
				if len(asks) != 1 || asks[0].to != to {
					t.Fatalf("asked %v, want link %d", asks, to)
				}
				fail(w, asks[0])
				w.pass(1)
			}
			asks, ends := w.done(t)
			if len(asks) != 0 || !slices.Equal(verdicts(ends), []fetchVerdict{fetchAbsent}) {
				t.Fatalf("asked %v, ends %v", asks, ends)
			}
			w.want(key, who, w.now)
			if asks, ends = w.done(t); len(asks) != 0 || !slices.Equal(verdicts(ends), []fetchVerdict{fetchAbsent}) {
				t.Fatalf("within the time of a failure: asked %v, ends %v", asks, ends)
			}
			w.pass(fetchFailTime)
			w.want(key, who, w.now)
			if asks, _ = w.done(t); len(asks) != 1 {
				t.Errorf("after it: asked %v", asks)
			}
		})
	}
}

// What was not to be had is asked for again as soon as its address is attached
// somewhere, and what is being asked for then of all, anew.
func TestWhoAppearsIsAskedForAnew(t *testing.T) {
	w := newFetchWorld(1, 2, 3)
	key, same, who := testKey(7), testKey(7), asker{3, askerFrames}
	same.CertID[0] = 1
	vain := func(key codec.CertKey, links ...link.Ref) []fetchEnd {
		t.Helper()
		for i, to := range links {
			asks, ends := w.done(t)
			if len(asks) != 1 || asks[0].to != to || len(ends) != 0 {
				t.Fatalf("asked %v, want link %d as number %d", asks, to, i)
			}
			w.reply(asks[0], "")
		}
		asks, ends := w.done(t)
		if len(asks) != 0 || !slices.Equal(verdicts(ends), []fetchVerdict{fetchAbsent}) {
			t.Fatalf("asked %v, ends %v", asks, ends)
		}
		return ends
	}
	for _, k := range []codec.CertKey{key, same, testKey(8)} {
		w.want(k, who, w.now)
		if ends := vain(k, 3, 1); ends[0].until != w.now.Add(fetchFailTime) {
			t.Errorf("to be asked for again at %v", ends[0].until)
		}
	}
	w.pass(time.Second)
	w.want(testKey(8), who, w.now)
	if ends := vain(testKey(8)); ends[0].until != w.now.Add(fetchFailTime-time.Second) {
		t.Errorf("a failure that is met again lasts until %v", ends[0].until)
	}
	w.routes[key.Address] = 2
	w.appeared(key.Address)
	forgotten := w.takeForgotten()
	if len(forgotten) != 2 || !slices.Contains(forgotten, key) || !slices.Contains(forgotten, same) || len(w.takeForgotten()) != 0 {
		t.Errorf("forgotten: %v", forgotten)
	}
	w.want(testKey(8), who, w.now) // of another address
	vain(testKey(8))
	w.want(key, who, w.now)
	asks, _ := w.done(t)
	if len(asks) != 1 || asks[0].to != 2 {
		t.Fatalf("asked %v, want link 2", asks)
	}
	w.appeared(key.Address) // while link 2 is asked: what it says may be older than that
	w.reply(asks[0], "")
	vain(key, 2, 3)
	w.want(same, who, w.now)
	first, _ := w.done(t)
	w.reply(first[0], "")
	w.appeared(key.Address) // while another is to be asked
	vain(same, 3, 2)
	w.want(testKey(9), who, w.now)
	asks, _ = w.done(t)
	w.appeared(testKey(9).Address)
	w.pass(fetchTimeDefault)
	w.done(t)
	w.want(testKey(9), who, w.now) // and what has had its time, having appeared in it, has not failed
	if again, _ := w.done(t); len(asks) != 1 || len(again) != 1 {
		t.Errorf("asked %v, then %v", asks, again)
	}
	w.pass(fetchTimeDefault)
	w.done(t)
	if w.pass(fetchFailTime); len(w.known) != 0 {
		t.Errorf("%d addresses are left", len(w.known))
	}
}

func TestANeighbourThatWaitsItselfIsNotAsked(t *testing.T) {
	w := newFetchWorld(1, 2)
	key := testKey(7)
	w.routes[key.Address] = 1
	w.want(key, asker{1, askerNeighbour}, w.now)
	asks, _ := w.done(t)
	if len(asks) != 1 || asks[0].to != 2 {
		t.Fatalf("asked %v, want link 2", asks)
	}
	w.want(key, asker{2, askerNeighbour}, w.now)
	if _, ends := w.done(t); !slices.Equal(verdicts(ends), []fetchVerdict{fetchRefused}) {
		t.Errorf("who is being asked for it is told %v", ends)
	}
	w.reply(asks[0], "")
	if asks, ends := w.done(t); len(asks) != 0 || !slices.Equal(verdicts(ends), []fetchVerdict{fetchAbsent}) {
		t.Errorf("asked %v, ends %v", asks, ends)
	}
}

func TestALateAnswerIsTakenWhileItIsWanted(t *testing.T) {
	w := newFetchWorld(1, 2)
	w.want(testKey(7), asker{9, askerNode}, w.now)
	first, _ := w.done(t)
	w.pass(fetchTimeDefault / fetchTryPart)
	second, _ := w.done(t)
	if len(first) != 1 || len(second) != 1 || first[0].to == second[0].to {
		t.Fatalf("asked %v and %v", first, second)
	}
	w.reply(first[0], "good")
	if _, ends := w.done(t); !slices.Equal(verdicts(ends), []fetchVerdict{fetchFound}) {
		t.Errorf("ends %v", ends)
	}
	if !w.reply(second[0], "") || !w.reply(second[0], "good") {
		t.Error("an answer that nobody waits for breaks nothing")
	}
	if w.done(t); len(w.ended) != 1 {
		t.Errorf("ends %v", w.ended)
	}
}

func TestAnswersThatBreakTheProtocolAreNoticed(t *testing.T) {
	for name, m := range map[string]codec.Certificates{
		"second part first": {Part: 1, Parts: 2},
		"not asked for":     {Parts: 1, Entries: []codec.CertificateEntry{{CertKey: testKey(8)}}},
		"twice":             {Parts: 1, Entries: []codec.CertificateEntry{{CertKey: testKey(7)}, {CertKey: testKey(7)}}},
	} {
		w := newFetchWorld(1)
		w.want(testKey(7), asker{9, askerNode}, w.now)
		asks, _ := w.done(t)
		m.Number = asks[0].Number
		if w.answer(1, &m, w.now) {
			t.Errorf("%s: taken", name)
		}
		w.down(1, w.now)
		w.done(t)
	}
}

// Who asks for much leaves room for others, and does not keep them waiting.
func TestAFloodOfOneAskerLeavesOthersTheirTurn(t *testing.T) {
	w := newFetchWorld(1)
	refused := 0
	for n := range 60_000 {
		w.want(testKey(n), asker{2, askerNeighbour}, w.now)
		_, ends := w.take()
		refused += len(ends)
	}
	if most := fetchesMax / (fetchPart + 1); len(w.of) < most || refused != 60_000-len(w.of) || len(w.of) > most+1 {
		t.Errorf("%d of one asker are wanted, %d refused", len(w.of), refused)
	}
	for conn := link.Ref(10); conn < 60; conn++ { // many who flood
		for n := range 5000 {
			w.want(testKey(n), asker{conn, askerNode}, w.now)
		}
	}
	honest := testKey(65_000)
	w.want(honest, asker{3, askerNode}, w.now)
	asks, _ := w.done(t)
	if len(asks) != fetchWindow || !slices.Contains(asks[0].Wanted, honest) {
		t.Errorf("%d requests, the honest one's certificate not in the first", len(asks))
	}
	w.pass(fetchTimeDefault)
	if w.done(t); len(w.of) != 0 {
		t.Errorf("%d are wanted after their time", len(w.of))
	}
}

// What costs more to verify than to make up is not verified without end, and the
// link is believed again soon.
func TestALinkThatSendsBadChainsIsNotBelievedForAMoment(t *testing.T) {
	w := newFetchWorld(1)
	verified := 0
	verify := w.verify
	w.verify = func(key codec.CertKey, chain [][]byte, from link.Ref, now time.Time) bool {
		verified++
		return verify(key, chain, from, now)
	}
	answered := 0
	round := func(text string) (found bool) {
		w.want(testKey(answered), asker{9, askerNode}, w.now)
		asks, _ := w.done(t)
		for _, q := range asks {
			answered++
			w.reply(q, text)
		}
		_, ends := w.done(t)
		return len(ends) == 1 && ends[0].verdict == fetchFound
	}
	for range 200 {
		round("bad")
		w.pass(time.Second / fetchRate)
	}
	if most := fetchBadMax + 200*fetchBadRate/fetchRate + 1; answered != 200 || verified > most || verified < fetchBadMax {
		t.Errorf("%d bad chains verified of %d, at most %d", verified, answered, most)
	}
	w.pass(time.Second)
	if !round("good") {
		t.Error("the link is not believed any more")
	}
	w.pass(fetchBadMax * time.Second / fetchBadRate)
	if w.done(t); len(w.links) != 0 {
		t.Error("something is left")
	}
}

// However it goes: everybody who wants a certificate is told once and in time;
// no link is asked for what it asks for, nor twice; failures are not repeated.
func TestFetchesKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newFetchWorld(1, 2, 3)
		type pair struct {
			key codec.CertKey
			who asker
		}
		waits := make(map[pair]time.Time)
		failed := make(map[codec.CertKey]time.Time)
		var open []fetchAsk
		steps := rapid.IntRange(1, 200).Draw(t, "steps")
		for range steps {
			key := testKey(rapid.IntRange(0, 5).Draw(t, "key"))
			ref := link.Ref(rapid.IntRange(1, 4).Draw(t, "link"))
			switch rapid.IntRange(0, 10).Draw(t, "what") {
			case 0, 1, 2, 3:
				p := pair{key, asker{ref, askerKind(rapid.IntRange(0, int(askerKinds)-1).Draw(t, "kind"))}}
				if _, already := waits[p]; !already {
					waits[p] = w.now
				}
				w.want(p.key, p.who, w.now)
			case 4, 5:
				if len(open) > 0 {
					i := rapid.IntRange(0, len(open)-1).Draw(t, "request")
					if slices.Contains(w.up, open[i].to) && !w.reply(open[i], rapid.SampledFrom([]string{"", "bad", "good"}).Draw(t, "answer")) {
						t.Fatalf("an answer was refused")
					}
					open = slices.Delete(open, i, i+1)
				}
			case 6:
				w.up = slices.DeleteFunc(w.up, func(r link.Ref) bool { return r == ref })
				w.down(ref, w.now)
				maps.DeleteFunc(waits, func(p pair, _ time.Time) bool { return p.who.conn == ref })
			case 7:
				if ref < 4 && !slices.Contains(w.up, ref) {
					w.up = append(w.up, ref)
				}
			case 8:
				w.routes[key.Address] = 0
				if slices.Contains(w.up, ref) {
					w.routes[key.Address] = ref
				}
			case 9:
				w.pass(time.Duration(rapid.Int64Range(1, int64(3*time.Second)).Draw(t, "time")))
			case 10:
				w.appeared(key.Address)
				w.takeForgotten()
			}
			asks, ends := w.done(t)
			for _, e := range ends {
				for _, who := range e.askers {
					if _, wanted := waits[pair{e.key, who}]; !wanted {
						t.Fatalf("%v is told about %v, which it does not want", who, e.key)
					}
					delete(waits, pair{e.key, who})
				}
				if e.verdict == fetchAbsent && !w.now.Before(failed[e.key]) {
					failed[e.key] = w.now // by what was asked before; exactly when, the other tests tell
				}
			}
			for _, q := range asks {
				for _, key := range q.Wanted {
					if _, both := waits[pair{key, asker{q.to, askerNeighbour}}]; both {
						t.Fatalf("link %d is asked for what it asks for", q.to)
					}
				}
			}
			open = append(open, asks...)
			for p, since := range waits {
				if w.now.Sub(since) > fetchTimeDefault+3*time.Second { // a step of time is no longer
					t.Fatalf("%v waits since %v", p, w.now.Sub(since))
				}
			}
		}
		w.pass(fetchTimeDefault)
		w.done(t)
		if len(w.of) != 0 || w.pairs != 0 {
			t.Fatalf("%d are wanted after their time", len(w.of))
		}
		w.pass(fetchFailTime)
		if w.busy() {
			t.Fatalf("failures are remembered too long")
		}
	})
}
