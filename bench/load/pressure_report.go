package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// write prints what all scenarios have in common.
func (r *pressureResult) write(w io.Writer) {
	r.About.write(w)
	fmt.Fprintf(w, "Legitimate traffic: %d pairs of nodes, bodies of %d bytes, signatures checked; they and this router sustain %s frames/s, and %.0f%% of that is sent unless a scenario says otherwise, and why; "+
		"due at a steady rate, times count from when a frame is due. Reference: the same with the attackers aimed at a port that closes at once, after rounds that are not judged and in which the router makes tables of all senders. "+
		"Load: share of its core that was busy; a round with more than %.0f%% is void and tried again at %.0f%% of the rate. So is one in which others used more than %.0f%% of the router's core, at the same rate unless it is the last try. "+
		"New nodes connect one after another. RSS that is judged is the most since the router's start (VmHWM).\n",
		trafficNodes/2, trafficBody, count(r.Saturated), 100*trafficShare, 100*voidFrom, 100*trafficLess, 100*othersMost)
}

// write prints the outcome as markdown.
func (o *outcome) write(w io.Writer) {
	fmt.Fprintf(w, "\n**%s**: %s.", o.Name, o.Title)
	if o.Failed != "" {
		fmt.Fprintf(w, " **Failed**:\n\n```\n%s\n```\n", o.Failed)
		return
	}
	if len(o.Serve) > 0 {
		fmt.Fprintf(w, " `%s`.", strings.Join(o.Serve, " "))
	}
	fmt.Fprintf(w, " %s frames/s, %.0f%% of what is sustained.", count(o.Rate), 100*o.Share)
	for _, v := range o.Before {
		fmt.Fprintf(w, " Tried at %s before: %s.", count(v.Rate), v.Why)
	}
	if o.Void != "" {
		fmt.Fprintf(w, " **Void**: %s.", o.Void)
	}
	fmt.Fprint(w, "\n\n| | frames/s of due | p50 | p99 | new node, median (slowest) | router's core: router, others | load | RSS start, most, end |\n|---|---|---|---|---|---|---|---|\n")
	o.writeRow(w, "reference", o.Reference)
	o.writeRow(w, "attack", o.Attack)
	fmt.Fprint(w, "\n| bound | found | |\n|---|---|---|\n")
	for _, v := range o.Verdicts {
		fmt.Fprintf(w, "| %s | %s | %s |\n", v.Bound, v.Found, v.word(o.Void != ""))
	}
	fmt.Fprintf(w, "\n%s\n", strings.Join(append(o.Attack.Crowd.lines(), "Router: "+o.Counters+"."), " "))
}

func (v verdict) word(void bool) string {
	switch {
	case v.Timed && void:
		return "void"
	case v.Kept:
		return "kept"
	}
	return "**broken**"
}

func (o *outcome) writeRow(w io.Writer, name string, f *facts) {
	fmt.Fprintf(w, "| %s | %.0f of %.0f | %v | %v | %v (%v) | %.0f%%, %.0f%% | %.0f%% | %s, %s, %s |\n", name, f.perSecond(), float64(f.Due)/f.Length.Seconds(), rounded(f.P50), rounded(f.P99),
		rounded(f.Newcomers.median()), rounded(f.Newcomers.most()), 100*f.Router, 100*f.Others, 100*f.Usage.LoadCore, mib(f.RSSStart), mib(f.RSSMost), mib(f.RSSEnd))
}

// median returns the middle time of those that connected.
func (s *newcomersStatus) median() time.Duration {
	var seconds []float64
	for _, t := range s.Took {
		seconds = append(seconds, t.Seconds())
	}
	if len(seconds) == 0 {
		return 0
	}
	return time.Duration(spreadOf(seconds).Median * float64(time.Second))
}

// lines say what a crowd has done.
func (s *crowdStatus) lines() (list []string) {
	if a := s.Attack; a.Connected > 0 || a.Failed > 0 {
		list = append(list, fmt.Sprintf("Attackers: %d connections, %d as nodes, %d open at the end; %d bytes, chunks or frames sent; %d connections ended%s.",
			a.Connected, a.Joined, a.Open, a.Acted, a.Failed, after(", the last: ", a.Last)))
	}
	if so := s.Stall; so.Sent > 0 {
		undelivered, unconfirmed := so.told()
		list = append(list, fmt.Sprintf("Recipient: %d frames of %d bytes sent to it by %d, %d delivered, %d noticed, %d unconfirmed.", so.Sent, so.Frame, so.Senders, so.Delivered, undelivered, unconfirmed))
	}
	return list
}
