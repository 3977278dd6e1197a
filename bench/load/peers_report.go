package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// peersResult is that of the comparison with other servers.
type peersResult struct {
	About  about
	Peers  []string // programs and versions
	Rounds int
	Slice  time.Duration
	Queue  int // packets that the DERP server keeps for one client
	Cells  []*cell
}

// write prints the result as markdown.
func (r *peersResult) write(w io.Writer) {
	r.About.write(w)
	if len(r.Peers) > 0 {
		fmt.Fprintf(w, "Beside it: %s.\n\n", strings.Join(r.Peers, "; "))
	}
	fmt.Fprintf(w, "%d rounds of %v slices that take turns. Median (quartiles); ratios are of one round: what the router forwards per CPU second, all signatures checked, to what the row's process does. "+
		"Under way: messages to one receiver, at most, the same for all; a write has %d at most, or 64 KiB. The DERP server keeps up to %d for one client. "+
		"Busy: share of its core that the process under test used. Kernel: share of its time in system calls. Load: share of its core that the load used, and that was used at all; "+
		"a slice with more than %.0f%% of the latter is void. Connections: senders + receivers. All that was sent arrived. "+
		"The load compares every message that comes from the other servers, and of the router's counts the records: it is quicker there, so that more of what is under way is at the router, which favours it, the more the less may be under way.\n\n",
		r.Rounds, r.Slice, burstFrames, max(derpQueueDefault, r.Queue), 100*voidFrom)
	fmt.Fprintln(w, "| connections | body | under way | variant | messages / CPU-s | plain signatures to it | bursts to it | busy | kernel | load | void |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|")
	for _, c := range r.Cells {
		for _, v := range peersVariants {
			if len(c.Samples[v]) > 0 {
				c.writePeersRow(w, v)
			}
		}
	}
	for _, c := range r.Cells {
		writeCold(w, fmt.Sprintf("%d+%d, %s, %d under way", c.Senders, c.Receivers, sizeText(c.Body), c.UnderWay), c.Tables, c.Senders)
	}
}

func (c *cell) writePeersRow(w io.Writer, v string) {
	rate := c.rates(v)
	fmt.Fprintf(w, "| %d+%d | %s | %d | %s | %s (%s–%s) | %s | %s | %s |\n", c.Senders, c.Receivers, sizeText(c.Body), c.UnderWay, variantNames[v],
		count(rate.Median), count(rate.Q1), count(rate.Q3), c.ratioTo(v, variantAll), c.ratioTo(v, variantBursts), c.usageText(v))
}

// ratioTo writes the ratio of a variant of the router to another variant.
func (c *cell) ratioTo(v, router string) string {
	if len(c.Samples[router]) == 0 {
		return ""
	}
	return c.ratioText(router, v)
}
