package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"causeway/engine"
)

func routesCommand() *cobra.Command {
	var f adminFlags
	var asJSON bool
	var domain string
	cmd := &cobra.Command{
		Use:   "routes",
		Short: "List the routes of a running router to others",
		Long: `List the other routers that a running router reaches, domain by domain: by
which neighbour, at what cost, and how many nodes are there. The first of each
domain is that router itself.

  causeway routes
  causeway routes --domain prod.example --json

METRIC is the sum of the costs of links and routers on the way, NEXT the
neighbour to which frames for that router and its nodes go first, REMOTE the
other end of the link there. A router that is missing is not reached. The name
of a router is - until something has come from it that its certificate was
needed for.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := f.get(cmd.Context(), "/debug/routes")
			if err != nil {
				return err
			}
			var all engine.Routes
			if err := json.Unmarshal(answer, &all); err != nil {
				return fmt.Errorf("%s does not answer as a router of this version: %w", f.admin, err)
			}
			routes := all.Routes[:0]
			for _, r := range all.Routes {
				if domain == "" || r.Domain == domain {
					routes = append(routes, r)
				}
			}
			if domain != "" && len(routes) == 0 {
				return fmt.Errorf("the router at %s does not serve %s", f.admin, domain)
			}
			if !asJSON {
				return printRoutes(cmd.OutOrStdout(), routes)
			}
			for _, r := range routes {
				if err := printJSON(cmd.OutOrStdout(), r); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&domain, "domain", "", "only those of this `DOMAIN`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func printRoutes(to io.Writer, routes []engine.Route) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tROUTER\tADDRESS\tMETRIC\tNODES\tNEXT\tREMOTE")
	for _, r := range routes {
		next := r.NextName
		switch {
		case r.Here:
			next = "here"
		case next == "":
			next = r.NextAddress
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", word(r.Domain), word(r.Name), word(r.Address), r.Metric, r.Nodes, word(next), word(r.NextRemote))
	}
	return w.Flush()
}
