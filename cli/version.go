package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type versionOptions struct {
	noArgs
	client bool
}

func newVersion(a *app) *cobra.Command {
	o := &versionOptions{noArgs: noArgs{a}}
	cmd := command(&cobra.Command{
		Use: "version", Short: "Show the versions of caractrl and of the server", Args: cobra.NoArgs,
		Example: "  caractrl version\n  caractrl version --client",
	}, o)
	cmd.Flags().BoolVar(&o.client, "client", false, "only the version of caractrl")
	return cmd
}

func (o *versionOptions) run(ctx context.Context) error {
	fmt.Fprintf(o.Out, "caractrl:    %s\n", o.version)
	if o.client {
		return nil
	}
	conn, err := o.dial()
	if err != nil {
		return err
	}
	info, err := carav1.NewInfoServiceClient(conn).GetInfo(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "cara-server: %s\ncluster:     %s\nyou are:     %s\n", term.Clean(info.Version), term.Clean(info.ClusterId), term.Clean(info.Actor))
	return nil
}
