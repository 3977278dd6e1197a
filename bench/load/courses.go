package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// flood is the course of scenarios whose attackers do one thing all the time.
func flood(ctx context.Context, st *stage) (err error) {
	if err := st.reference(ctx, *st.form.attack); err != nil {
		return err
	}
	before, err := st.router.metrics()
	if err != nil {
		return err
	}
	attack := *st.form.attack
	attack.Addr = st.router.addr
	if _, err := st.attackers.ask(request{Attack: &attack}); err != nil {
		return err
	}
	if st.out.Attack, err = st.round(ctx, st.form.length); err != nil {
		return err
	}
	during, err := st.awaitFelt(ctx, before)
	if err != nil {
		return err
	}
	a, err := st.attackers.ask(request{End: &struct{}{}})
	if err != nil {
		return err
	}
	st.out.Attack.Crowd = a.Crowd
	after, err := st.quiet(ctx)
	if err != nil {
		return err
	}
	st.out.Counters = changes(before, during)
	st.judgeShared()
	if err := st.judgeMemoryCap(); err != nil {
		return err
	}
	st.judgeFelt(before, during)
	st.judgeDrops(before, after)
	return nil
}

// awaitFelt waits until the attack is felt as much as it has to be, for machines
// that are slow, and returns what the router has counted then.
func (st *stage) awaitFelt(ctx context.Context, before metrics) (m metrics, err error) {
	for end := time.Now().Add(quietMax); ; {
		if m, err = st.router.metrics(); err != nil || st.form.felt.since(before, m) >= st.form.feltLeast || time.Now().After(end) {
			return m, err
		}
		if err := sleep(ctx, watchEvery); err != nil {
			return nil, err
		}
	}
}

// errVoid says that a course has ended early, since its rounds would tell nothing
// about rates and times.
var errVoid = errors.New("the reference is void")

// reference is the same round with the attackers aimed at the sink, on a router that
// is warm.
func (st *stage) reference(ctx context.Context, attack raidRequest) (err error) {
	attack.Addr = st.sink.addr
	if _, err := st.attackers.ask(request{Attack: &attack}); err != nil {
		return err
	}
	if err := st.warm(ctx); err != nil {
		return err
	}
	if st.out.Reference, err = st.round(ctx, st.form.reference); err != nil {
		return err
	}
	a, err := st.attackers.ask(request{End: &struct{}{}})
	if err != nil {
		return err
	}
	st.out.Reference.Crowd = a.Crowd
	if st.judgeVoid(st.out.Reference); st.out.Void != "" && !st.out.limits.loose && !st.last {
		return errVoid
	}
	return nil
}

// warm is rounds that are not judged: until the router has tables of all senders, or
// is known to get no more, and one without a table to make.
func (st *stage) warm(ctx context.Context) error {
	length := warmSlice
	if st.o.short {
		length /= 4
	}
	for end := time.Now().Add(warmingMax); ; {
		n, full, err := row{st.router}.tables(variantAll, trafficNodes/2)
		if err != nil {
			return err
		}
		if _, err := st.round(ctx, length); err != nil || n >= trafficNodes/2 || full || time.Now().After(end) {
			return err
		}
	}
}

// stallReference is what the senders and the recipient of a stall do when they
// are aimed at the sink: they try to connect once a second each.
func (st *stage) stallReference(ctx context.Context) error {
	peers := st.form.stall.Senders + 1
	return st.reference(ctx, raidRequest{Kind: attackConnects, Attackers: peers, Sources: peers, PerSecond: float64(peers)})
}

// stallRound is a round while a recipient stalls.
func (st *stage) stallRound(ctx context.Context) error {
	rss, err := residentBytes(st.router.pid())
	if err != nil {
		return err
	}
	stall := *st.form.stall
	stall.Addr = st.router.addr
	if _, err := st.attackers.ask(request{Stall: &stall}); err != nil {
		return err
	}
	st.stalledAt = time.Now()
	st.out.Attack, err = st.round(ctx, st.form.length)
	if err == nil {
		st.out.Attack.RSSStart = rss
	}
	return err
}

// stallStatus is how far a stall is.
func (st *stage) stallStatus() (*stallStatus, error) {
	a, err := st.attackers.ask(request{Status: &struct{}{}})
	if err == nil && a.Crowd.Stall.Problem != "" {
		err = errors.New("a sender to the recipient that stalls: " + a.Crowd.Stall.Problem)
	}
	return &a.Crowd.Stall, err
}

// until waits for a stall to come so far, and returns how far it is then.
func (st *stage) until(ctx context.Context, most time.Duration, ok func(*stallStatus) bool) (*stallStatus, error) {
	for end := time.Now().Add(most); ; {
		s, err := st.stallStatus()
		if err != nil || ok(s) || time.Now().After(end) {
			return s, err
		}
		if err := sleep(ctx, watchEvery); err != nil {
			return nil, err
		}
	}
}

// patient is the course of a recipient that stalls for less than the router's
// patience: its sender is held up, and nothing is lost.
func patient(ctx context.Context, st *stage) error {
	if err := st.stallReference(ctx); err != nil {
		return err
	}
	before, err := st.router.metrics()
	if err != nil {
		return err
	}
	if err := st.stallRound(ctx); err != nil {
		return err
	}
	stalled, err := st.stallStatus()
	if err != nil {
		return err
	}
	if _, err := st.attackers.ask(request{Resume: &struct{}{}}); err != nil {
		return err
	}
	flows := func(s *stallStatus) bool { return s.Sent > stalled.Sent+stallDistinct && s.Delivered > stalled.Sent }
	if _, err := st.until(ctx, quietMax, flows); err != nil {
		return err
	}
	if _, err := st.attackers.ask(request{Finish: &struct{}{}}); err != nil {
		return err
	}
	end, err := st.until(ctx, quietMax, func(s *stallStatus) bool { return s.Delivered >= s.Sent })
	if err != nil {
		return err
	}
	if _, err := st.attackers.ask(request{End: &struct{}{}}); err != nil {
		return err
	}
	after, err := st.quiet(ctx)
	if err != nil {
		return err
	}
	st.out.Attack.Crowd.Stall = *end
	st.out.Counters = changes(before, after)
	st.judgeShared()
	st.judgeSlower()
	st.judgeGrowth()
	if err := st.judgeMemoryCap(); err != nil {
		return err
	}
	st.judgeDrops(before, after)
	st.verdict(stalled.Blocked >= st.form.blocked, fmt.Sprintf("the sender is held up for %v and more", st.form.blocked), "one write took %v", rounded(stalled.Blocked))
	undelivered, unconfirmed := end.told()
	st.verdict(end.Delivered == end.Sent && undelivered+unconfirmed == 0 && end.Disordered == 0, "then everything arrives, in order",
		"%d frames sent, %d arrived, %d of them out of place, %d told of", end.Sent, end.Delivered, end.Disordered, undelivered+unconfirmed)
	return nil
}

// disconnected is the course of a recipient that stalls for longer than the
// router's patience.
func disconnected(ctx context.Context, st *stage) error {
	if err := st.stallReference(ctx); err != nil {
		return err
	}
	before, err := st.router.metrics()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	goneAt := st.watchStalled(ctx, before)
	if err := st.stallRound(ctx); err != nil {
		return err
	}
	gone := goneAt()
	if _, err := st.attackers.ask(request{Finish: &struct{}{}}); err != nil {
		return err
	}
	end, err := st.until(ctx, quietMax, func(s *stallStatus) bool { return s.unaccounted() <= 0 })
	if err != nil {
		return err
	}
	if _, err := st.attackers.ask(request{End: &struct{}{}}); err != nil {
		return err
	}
	after, err := st.quiet(ctx)
	if err != nil {
		return err
	}
	st.out.Attack.Crowd.Stall = *end
	st.out.Counters = changes(before, after)
	st.judgeShared()
	st.judgeSlower()
	st.judgeGrowth()
	if err := st.judgeMemoryCap(); err != nil {
		return err
	}
	st.judgeDrops(before, after)
	st.judgeDisconnected(gone)
	st.judgeAccounts(end, after[unconfirmedTotal]-before[unconfirmedTotal])
	return nil
}

// unaccounted returns how many frames were sent of which nobody knows what
// became of them.
func (s *stallStatus) unaccounted() int64 {
	undelivered, unconfirmed := s.told()
	return int64(s.Sent) - int64(s.Delivered) - int64(undelivered) - int64(unconfirmed)
}

// watchStalled watches for the router to disconnect a recipient that stalls.
// What it returns waits for that, for a while, and tells when it was; the zero
// time: it was not.
func (st *stage) watchStalled(ctx context.Context, before metrics) func() time.Time {
	const stalled = "causeway_stalled_total"
	ctx, cancel := context.WithCancel(ctx)
	at := make(chan time.Time, 1)
	go func() {
		for sleep(ctx, watchEvery) == nil {
			if m, err := st.router.metrics(); err == nil && m[stalled] > before[stalled] {
				at <- time.Now()
				return
			}
		}
		at <- time.Time{}
	}()
	return func() time.Time {
		time.AfterFunc(quietMax, cancel)
		defer cancel()
		return <-at
	}
}
