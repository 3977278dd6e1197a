package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version is this program's semantic version; software is how it introduces
// itself (PROTOCOL.md section 5.1, key 5).
const (
	version  = "0.1.0"
	software = "causeway/" + version
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "causeway %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
