package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine"
)

func peersCommand() *cobra.Command {
	var f adminFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the connections of a running router",
		Long: `List the connections of a running router: who, from where, what waits for
them and for how long, what keeps the router from reading them, and how much
goes in and out a second.

  causeway peers
  causeway peers --json | jq 'select(.queueBytes > 1e6)'

QUEUE is what waits for the peer, OLDEST how long the first of it has waited,
PAUSED BY the recipient whose full queue it waits for, or what else keeps it from
being read. KIND and SOFTWARE are the peer's own words. LINK is of other routers:
the cost of the link and the domains that it carries, which both ends have
proven.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := f.get(cmd.Context(), "/debug/peers")
			if err != nil {
				return err
			}
			var all engine.Peers
			if err := json.Unmarshal(answer, &all); err != nil {
				return fmt.Errorf("%s does not answer as a router of this version: %w", f.admin, err)
			}
			for _, loop := range all.Silent {
				fmt.Fprintf(cmd.ErrOrStderr(), "loop %d has not answered in time; its peers are missing\n", loop)
			}
			if !asJSON {
				return printPeers(cmd.OutOrStdout(), all.Peers)
			}
			for _, p := range all.Peers {
				if err := printJSON(cmd.OutOrStdout(), p); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line, with more fields")
	return cmd
}

func printPeers(to io.Writer, peers []engine.Peer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tNAME\tADDRESS\tREMOTE\tSTATE\tLOOP\tAGE\tQUEUE\tOLDEST\tPAUSED BY\tIN/S\tOUT/S\tBYTES IN/S\tBYTES OUT/S\tKIND\tSOFTWARE\tLINK\tCERTIFICATE UNTIL")
	for _, p := range peers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%v\t%d\t%v\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t%s\t%s\t%s\n",
			word(p.Domain), word(p.Name), word(p.Address), word(p.Remote), word(p.State), p.Loop, lasted(p.AgeSeconds, time.Second),
			p.QueueBytes, lasted(p.OldestSeconds, time.Millisecond), word(p.PausedBy), p.FramesInRate, p.FramesOutRate, p.BytesInRate, p.BytesOutRate,
			word(p.Kind), word(p.Software), linkOf(p), clock(p.CertificateEnd))
	}
	return w.Flush()
}

// linkOf says what a link is for; - for nodes.
func linkOf(p engine.Peer) string {
	if p.LinkCost == 0 {
		return "-"
	}
	return fmt.Sprintf("cost %d: %s", p.LinkCost, cmp.Or(strings.Join(p.Domains, ","), "no domain"))
}

// word is a cell of the table: what a peer says of itself may be anything.
func word(text string) string {
	if text == "" {
		return "-"
	}
	return printable([]byte(text), codec.GoodbyeTextMax)
}

// lasted is a number of seconds as people read it.
func lasted(seconds float64, unit time.Duration) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(unit)
}
