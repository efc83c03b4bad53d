package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newMigrateCommand(f *flags) *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use: "migrate --from pebble:DIR --to etcd", Short: "Copy the whole state between a data directory and etcd", Args: cobra.NoArgs,
		Long: "Copy the whole state between a data directory and etcd, and compare the copy. Stop all servers first. The source is not\n" +
			"changed. The flags of the server say where etcd is. Agents and containers are not affected.",
		Example: "  cara-server migrate --from pebble:/var/lib/cara/server --to etcd --etcd-endpoints https://10.0.0.1:2379\n" +
			"  cara-server migrate --from etcd --to pebble:/var/lib/cara/alone --etcd-endpoints https://10.0.0.1:2379",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			n, err := cfg.Migrate(cmd.Context(), from, to)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "copied %d objects from %s to %s, and compared them\n", n, from, to)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "pebble:DIR (the data directory of a server), or etcd")
	cmd.Flags().StringVar(&to, "to", "", "etcd, or pebble:DIR, whose store must not exist yet")
	return cmd
}
