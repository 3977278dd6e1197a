package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"causeway/codec"
	"causeway/engine/node"
)

// listing is one run of list.
type listing struct {
	nodeFlags
	stdout io.Writer
}

func nodeListCommand() *cobra.Command {
	f := &listing{}
	cmd := &cobra.Command{
		Use:   "list --identity DIR --connect URL",
		Short: "List the connected nodes of the domain",
		Long: `List the connected nodes of the domain, this one among them. Names and
addresses are those of their certificates, verified; KIND is what they say of
themselves.

  causeway node list --identity alice --connect dbw://127.0.0.1:7100`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.config(cmd)
			if err != nil {
				return err
			}
			f.stdout = cmd.OutOrStdout()
			return f.run(cmd, c, f.list)
		},
	}
	f.add(cmd, "error", "longest time for all of it", nodeTimeoutDefault)
	return cmd
}

func (f *listing) list(ctx context.Context, n *node.Node) error {
	entries, err := n.List(ctx)
	if err != nil {
		return err
	}
	if f.json {
		for _, e := range entries {
			if err := printJSON(f.stdout, e); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(f.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tKIND\tCERTIFICATE UNTIL")
	for _, e := range entries {
		kind := printable([]byte(e.Kind), codec.HelloKindMax)
		if kind == "" {
			kind = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Name, e.Address, kind, clock(e.NotAfter))
	}
	return w.Flush()
}
