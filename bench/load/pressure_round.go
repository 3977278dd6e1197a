package main

import (
	"context"
	"fmt"
	"time"
)

// facts are what one round has shown.
type facts struct {
	roundAnswer
	Length           time.Duration
	RSSStart, RSSEnd float64 // of the router, bytes
	RSSMost          float64
	Router           float64 // share of its core that the router used
	Others           float64 // and that others used, but for the sink
	Newcomers        newcomersStatus
	Crowd            crowdStatus // at the end of an attack
	Connections      float64     // at the end
}

// perSecond is how many legitimate frames arrived a second.
func (f *facts) perSecond() float64 { return float64(f.Arrived) / f.Length.Seconds() }

// loadBusy tells whether the load had no room on its core.
func (f *facts) loadBusy() bool { return f.Usage.LoadCore > voidFrom }

// void says why the round tells nothing about rates and times; "" when it does.
func (f *facts) void() string {
	switch {
	case f.loadBusy():
		return fmt.Sprintf("the load's core was %.0f%% busy", 100*f.Usage.LoadCore)
	case f.Others > othersMost:
		return fmt.Sprintf("others used %.0f%% of the router's core", 100*f.Others)
	}
	return ""
}

// round has legitimate traffic flow for so long, newcomers connect, and the
// router's memory sampled.
func (st *stage) round(ctx context.Context, length time.Duration) (f *facts, err error) {
	f = &facts{Length: length}
	if f.RSSStart, err = residentBytes(st.router.pid()); err != nil {
		return nil, err
	}
	if _, err := st.newcomers.ask(request{Newcomers: &newcomersRequest{Addr: st.router.addr, Every: newcomersEvery}}); err != nil {
		return nil, err
	}
	all, idle, err := coreTicks(st.o.core)
	if err != nil {
		return nil, err
	}
	sink, err := cpuTime(st.sink.pid())
	if err != nil {
		return nil, err
	}
	stop := st.sample(ctx, f)
	a, err := st.load.ask(request{Round: &roundRequest{PerSecond: st.rate, Length: length}})
	stop()
	if err != nil {
		return nil, err
	}
	f.roundAnswer = a.Round
	if err := st.shares(f, all, idle, sink); err != nil {
		return nil, err
	}
	n, err := st.newcomers.ask(request{End: &struct{}{}})
	if err != nil {
		return nil, err
	}
	f.Newcomers = n.Crowd.Newcomers
	m, err := st.router.metrics()
	if err != nil {
		return nil, err
	}
	f.Connections = m["causeway_connections"]
	f.RSSEnd, err = residentBytes(st.router.pid())
	f.RSSMost = max(f.RSSMost, f.RSSStart, f.RSSEnd)
	return f, err
}

// shares fills in who used the router's core since the readings given.
func (st *stage) shares(f *facts, all, idle uint64, sink time.Duration) error {
	allNow, idleNow, err := coreTicks(st.o.core)
	if err != nil {
		return err
	}
	sinkNow, err := cpuTime(st.sink.pid())
	if err != nil {
		return err
	}
	wall := f.Usage.Wall + f.Late
	f.Router = f.Usage.CPU.Seconds() / f.Usage.Wall.Seconds()
	if allNow > all {
		busy := 1 - float64(idleNow-idle)/float64(allNow-all)
		f.Others = max(0, busy-f.Router-(sinkNow-sink).Seconds()/wall.Seconds())
	}
	return nil
}

// sample notes the most memory that the router has until stop is called.
func (st *stage) sample(ctx context.Context, f *facts) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sleep(ctx, sampleEvery) == nil {
			if rss, err := residentBytes(st.router.pid()); err == nil { // else it has ended, which others notice
				f.RSSMost = max(f.RSSMost, rss)
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// quiet waits until the router has nothing under way.
func (st *stage) quiet(ctx context.Context) (m metrics, err error) {
	for end := time.Now().Add(quietMax); ; {
		if m, err = st.router.metrics(); err != nil || m["causeway_frames_in_flight"] == 0 {
			return m, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the router still has %v frames in flight", m["causeway_frames_in_flight"])
		}
		if err := sleep(ctx, watchEvery); err != nil {
			return nil, err
		}
	}
}
