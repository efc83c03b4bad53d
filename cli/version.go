package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) versionCommand() *cobra.Command {
	var client bool
	cmd := &cobra.Command{
		Use: "version", Short: "Show the versions of caractrl and of the server", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(a.Out, "caractrl:    %s\n", a.version)
			if client {
				return nil
			}
			conn, err := a.dial()
			if err != nil {
				return err
			}
			info, err := carav1.NewInfoServiceClient(conn).GetInfo(cmd.Context(), &emptypb.Empty{})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "cara-server: %s\ncluster:     %s\nyou are:     %s\n", term.Clean(info.Version), term.Clean(info.ClusterId), term.Clean(info.Actor))
			return nil
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "only caractrl's own")
	return cmd
}
