package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// place is a router of a row.
type place struct {
	routers int // of the row
	at      int
	name    string
}

// chainPlaces are those beside the one router that is alone.
var chainPlaces = []place{
	{2, 0, "of two: ingress"}, {2, 1, "egress"},
	{3, 0, "of three: ingress"}, {3, 1, "transit"}, {3, 2, "egress"},
}

// writeChain prints what rows of routers forward as markdown.
func (r *result) writeChain(w io.Writer) {
	r.About.write(w)
	fmt.Fprintf(w, "%d rounds of %v slices that take turns: one router, two and three in a row. Messages that arrived per CPU-second of each router, and its ratio to the one router of the same round. "+
		"Medians (quartiles). All routers of a row share one core. Load: share of its core that the load used, the highest of the row; a slice in which that core was more than %.0f%% busy is void. "+
		"Under way: %d MiB at most; with signatures checked %d frames at most. Connections: senders, each with a key of its own, at the first router, + receivers, at the last. "+
		"Verify edge: signatures of nodes' frames alone, so the one router beside it verifies all.\n\n",
		r.Rounds, r.Slice, 100*voidFrom, chainWindow>>20, verifyMax)
	fmt.Fprint(w, "| connections | body | verify | one router |")
	for _, p := range chainPlaces {
		fmt.Fprintf(w, " %s |", p.name)
	}
	fmt.Fprintf(w, " load | void |\n|%s\n", strings.Repeat("---|", 4+len(chainPlaces)+2))
	for _, c := range r.Cells {
		c.writeChainRow(w)
	}
	if r.Lone != nil {
		r.Lone.writeChain(w)
	}
}

// verify returns how the cell's routers verify.
func (c *cell) verify() string {
	for v := range c.Samples {
		if of, routers := splitRow(v); routers > 1 {
			return of
		}
	}
	panic("load: a cell without a row of routers")
}

func (c *cell) writeChainRow(w io.Writer) {
	verify := c.verify()
	one := rowsOf(verify)[0]
	rate := c.rates(one)
	fmt.Fprintf(w, "| %d+%d | %s | %s | %s (%s–%s) |", c.Senders, c.Receivers, sizeText(c.Body), verify, count(rate.Median), count(rate.Q1), count(rate.Q3))
	for _, p := range chainPlaces {
		fmt.Fprintf(w, " %s |", c.placeText(one, rowOf(verify, p.routers), p.at))
	}
	load, void, slices := 0.0, 0, 0
	for _, v := range rowsOf(verify) {
		load = max(load, c.median(v, func(s sample) float64 { return s.LoadOwn }))
		for _, s := range c.Samples[v] {
			slices++
			if s.void() {
				void++
			}
		}
	}
	fmt.Fprintf(w, " %.0f%% | %d of %d |\n", 100*load, void, slices)
}

// placeText is the rate of the router at a place of a row, and its ratio to the
// variant `one`.
func (c *cell) placeText(one, row string, at int) string {
	a, b := c.Samples[row], c.Samples[one]
	rounds, valid := counted(len(a), a, b)
	var rates, ratios []float64
	for _, i := range rounds {
		rates = append(rates, a[i].rateOf(at))
		if b[i].rate() > 0 {
			ratios = append(ratios, a[i].rateOf(at)/b[i].rate())
		}
	}
	s := spreadOf(ratios)
	text := fmt.Sprintf("%s: %s (%s–%s)", count(spreadOf(rates).Median), ratio(s.Median), ratio(s.Q1), ratio(s.Q3))
	if !valid {
		text = "void: " + text
	}
	return text
}

// writeChain prints the times of lone frames through rows of routers.
func (l *lone) writeChain(w io.Writer) {
	fmt.Fprintf(w, "\nA lone frame, %d bytes of body, one every %v through idle routers that share one core, from write to whole arrival: p50, p99. Routers have the signer's table; by it one signature check takes %.1f us.\n\n",
		latencyBody, loneEvery, float64(l.Verify.Nanoseconds())/1e3)
	fmt.Fprintln(w, "| verify | frames | one router | two | three |\n|---|---|---|---|---|")
	for _, verify := range chainVariants {
		if _, measured := l.Times[rowOf(verify, routersMax)]; !measured {
			continue
		}
		rows := rowsOf(verify)
		fmt.Fprintf(w, "| %s | %d |", verify, len(l.Times[rows[0]]))
		for _, v := range rows {
			times := make([]float64, 0, len(l.Times[v]))
			for _, d := range l.Times[v] {
				times = append(times, float64(d.Nanoseconds())/1e3)
			}
			slices.Sort(times)
			fmt.Fprintf(w, " %.0f us, %.0f us |", quantile(times, 0.5), quantile(times, 0.99))
		}
		fmt.Fprintln(w)
	}
}
