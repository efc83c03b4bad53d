package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/cmd/internal/program"
)

func newMigrateCommand(f *flags) *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use: "migrate --from pebble:DIR --to etcd", Short: "Copy the whole state between a data directory and etcd", Args: cobra.NoArgs,
		Long: "Copy the whole state between a data directory and etcd, and compare the copy. Stop all servers first. The source is not\n" +
			"changed. The flags of the server say where etcd is and how to log in; etcd:URL,URL... is another way to name its members.\n" +
			"Agents and containers are not affected.",
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
	cmd.Flags().StringVar(&from, "from", "", "pebble:DIR (the data directory of a server), etcd, or etcd:URL,URL...")
	cmd.Flags().StringVar(&to, "to", "", "etcd, etcd:URL,URL..., or pebble:DIR, whose store must not exist yet")
	return cmd
}

func newRecoverCommand(f *flags) *cobra.Command {
	var r program.Recovery
	cmd := &cobra.Command{
		Use: "recover --etcd-data-dir DIR --to etcd", Short: "Bring a cluster back when etcd has lost its majority for good", Args: cobra.NoArgs,
		Long: "Copy the state out of the data directory of one member of an etcd cluster that has lost its majority for good, to a new\n" +
			"etcd cluster or to the data directory of a server alone, and compare the copy. First stop all servers and what is left of\n" +
			"the lost etcd, and make sure that they cannot start again. The member's data are not changed. The etcd program of the lost\n" +
			"cluster is needed; it runs on a copy of the data, in TMPDIR. Use the member with the newest data. Writes of the last\n" +
			"moments can be missing, as after a backup is restored. Containers and agents continue.",
		Example: "  cara-server recover --etcd-data-dir /var/lib/etcd --to etcd --etcd-endpoints https://10.0.1.1:2379\n" +
			"  cara-server recover --etcd-data-dir /var/lib/etcd --to pebble:/var/lib/cara/alone --cluster-key-file /etc/cara/cluster.key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			n, err := cfg.Recover(cmd.Context(), r)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "copied %d objects from %s to %s, and compared them\n", n, r.Member, r.To)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&r.Member, "etcd-data-dir", "", "data directory of a member of the lost etcd cluster (its --data-dir)")
	cmd.Flags().StringVar(&r.Program, "etcd-program", "etcd", "etcd in the version of the lost cluster")
	cmd.Flags().StringVar(&r.To, "to", "", "etcd (that of --etcd-endpoints, with an unused prefix), etcd:URL,URL..., or pebble:DIR, whose store must not exist yet")
	return cmd
}
